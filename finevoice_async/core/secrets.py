r"""The key, struck out of whatever the service says, however it is spelled there.

A service that echoes a request's headers spells them in its own way: JSON escapes a plus as `\u002B` and a slash as
`\/`, a page has `&#43;`, a link `%2B`, a text in UTF-16 has a zero beside each letter. All of these are found, and the
key in base64, as dumps of headers have it. A key that was cut up, hashed or turned into hexadecimal is not.
"""

from __future__ import annotations

import base64
import re
from bisect import bisect_right
from collections.abc import Callable
from typing import Final

SHORTEST_KEY: Final = 8
"""Characters of the shortest key that is struck out wherever it stands. A shorter one guards little, and may be part
of any word: it is struck out where it stands alone."""

CONCEALED: Final = b"***"

# One spelled-out letter, also one whose escape was itself escaped, a few times. Each repetition has a bound, so that
# the time is in proportion to the text: a second for a megabyte of nothing else.
_SPELLED: Final = re.compile(
    rb"\\{1,4}(?:[uU]\{?0{0,6}([0-9a-fA-F]{2})\}?|x([0-9a-fA-F]{2})|([\"'/\\]))"
    rb"|%(?:25){0,3}([0-9a-fA-F]{2})"
    rb"|&(?:amp;){0,3}\#(?:[xX]0{0,6}([0-9a-fA-F]{2})|0{0,6}([0-9]{2,3}));?"
    rb"|&(?:amp;){0,2}([A-Za-z]{2,6});"
    rb"|\0+"
)
_marked = re.compile(rb"[\\%&\0]").search
_NAMED: Final = {
    b"amp": b"&", b"lt": b"<", b"gt": b">", b"quot": b'"', b"apos": b"'", b"plus": b"+", b"sol": b"/", b"equals": b"=",
    b"lowbar": b"_", b"period": b".", b"colon": b":", b"comma": b",", b"dollar": b"$", b"percnt": b"%", b"num": b"#",
    b"commat": b"@", b"excl": b"!", b"quest": b"?", b"ast": b"*", b"semi": b";", b"bsol": b"\\", b"hat": b"^",
    b"lpar": b"(", b"rpar": b")", b"lsqb": b"[", b"rsqb": b"]", b"lcub": b"{", b"rcub": b"}", b"verbar": b"|",
}  # fmt: skip


def make_concealer(key: str) -> Callable[[bytes], bytes]:
    """Return what strikes a key out of a text, of any encoding that contains ASCII.

    Args:
        key: The key: printable ASCII without spaces.
    """
    alone = len(key) < SHORTEST_KEY
    secret = key.encode()
    wanted = {secret, _plain(secret)[0]} | (set() if alone else _in_base64(secret))
    edges = (b"(?<![A-Za-z0-9])", b"(?![A-Za-z0-9])") if alone else (b"", b"")
    among = tuple(wanted)
    search = re.compile(edges[0] + b"(?:" + b"|".join(map(re.escape, sorted(wanted, reverse=True))) + b")" + edges[1])

    def conceal(text: bytes) -> bytes:
        plain, places = _plain(text)
        for secret in among:  # a plain loop: every answer of the service passes here
            if secret in plain:
                break
        else:
            return text
        shown, end = [], 0
        for match in search.finditer(plain):
            first, last = _place(places, match.start()), _place(places, match.end() - 1)
            shown += [text[end : first[0]], CONCEALED]
            end = last[1]
        return b"".join([*shown, text[end:]])

    return conceal


_Places = list[tuple[int, int, int]]
"""Where something begins in the plain text, and where in the original; and where it ends there, if it is a letter that
was spelled out, else -1: from there on the two go on alike."""


def _plain(text: bytes) -> tuple[bytes, _Places]:
    """Return a text with every spelled-out letter in its place, and what stood where."""
    pieces: list[bytes] = []
    places: _Places = [(0, 0, -1)]
    if not _marked(text):
        return text, places
    length = end = 0
    for match in _SPELLED.finditer(text):
        letter = _letter(match)
        if letter is not None:
            pieces += [text[end : match.start()], letter]
            length += match.start() - end
            end = match.end()
            if letter:
                places.append((length, match.start(), end))
                length += 1
            places.append((length, end, -1))
    return (b"".join([*pieces, text[end:]]), places) if pieces else (text, places)


def _letter(match: re.Match[bytes]) -> bytes | None:
    """Return the letter that was spelled out; nothing for zeros, None for what spells none."""
    unicode, byte, escaped, percent, hexadecimal, decimal, name = match.groups()
    if name is not None:
        return _NAMED.get(name)
    digits = unicode or byte or percent or hexadecimal
    if digits is not None:
        return bytes([int(digits, 16)])
    if decimal is not None:
        return bytes([int(decimal)]) if int(decimal) < 256 else None
    return escaped or b""


def _place(places: _Places, index: int) -> tuple[int, int]:
    """Return where a letter of the plain text begins and ends in the original."""
    begins, at, ends = places[bisect_right(places, index, key=lambda place: place[0]) - 1]
    return (at, ends) if ends >= 0 else (at + index - begins, at + index - begins + 1)


def _in_base64(secret: bytes) -> set[bytes]:
    """Return what a secret looks like in base64, in both alphabets, wherever it stands: what is certain of it."""
    found = set()
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + secret)
        first, last = (before * 8 + 5) // 6, (before + len(secret)) * 8 // 6
        found |= {encoded[first:last], encoded[first:last].translate(bytes.maketrans(b"+/", b"-_"))}
    return found
