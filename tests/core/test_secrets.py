"""The key is struck out, however a server spells it, and nothing else is."""

from __future__ import annotations

import base64
import html
import json
import time
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finevoice_async.core.secrets import SHORTEST_KEY, make_concealer

KEY = "fv+live/0123&abc"
LETTERS = "".join(map(chr, range(33, 127)))


def escaped(pattern: str) -> Callable[[str], str]:
    """Spell every letter by its number."""
    return lambda text: "".join(pattern.format(ord(letter)) for letter in text)


SPELLINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "JSON": lambda text: text.replace("/", "\\/"),
    "JSON, some by number": lambda text: text.replace("+", "\\u002B").replace("&", "\\u0026"),
    "JSON, all by number": escaped("\\u{:04x}"),
    "JSON, all by number in capitals": escaped("\\u{:04X}"),
    "JSON in JSON": lambda text: json.dumps(escaped("\\u{:04x}")(text)),
    "Python": escaped("\\x{:02x}"),
    "JavaScript": escaped("\\u{{{:x}}}"),
    "a link": lambda text: quote(text, safe=""),
    "a link in a link": lambda text: quote(quote(text, safe=""), safe=""),
    "percent, all": escaped("%{:02x}"),
    "HTML": html.escape,
    "HTML in HTML": lambda text: html.escape(html.escape(text)),
    "HTML, some by name": lambda text: text.replace("+", "&plus;").replace("/", "&sol;"),
    "HTML, decimal": escaped("&#{};"),
    "HTML, decimal with zeros": escaped("&#{:06};"),
    "HTML, hexadecimal": escaped("&#x{:x};"),
    "HTML, hexadecimal in capitals": escaped("&#X{:X};"),
    "zeros between": lambda text: "\0".join(text),
    "base64": lambda text: base64.b64encode(text.encode()).decode().rstrip("="),
}


@pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS)
def test_spellings(spell: Callable[[str], str]) -> None:
    """Each spelling is found, each time that it is there, and what stands around it stays."""
    spelled = spell(KEY)
    shown = make_concealer(KEY)(f"a%20&amp;\\n {spelled} and\0 {spelled}\u00e4".encode()).decode()
    assert shown.count("***") == 2
    assert shown.replace('"', "").startswith("a%20&amp;\\n ***")
    assert shown.endswith("\u00e4")
    assert "live" not in shown
    assert "0123" not in shown


@pytest.mark.parametrize("before", ["", "B", "Be", "Bearer "])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_base64_of_more_than_the_key(before: str, encode: Callable[[bytes], bytes]) -> None:
    """In base64 of a whole header at most a letter at each end of the key is left."""
    key, after = "fv>>>live???0123456789", " and more"
    shown = make_concealer(key)(encode(f"{before}{key}{after}".encode())).rstrip(b"=")
    assert b"***" in shown
    assert len(shown) <= len("***") + len(encode(f"{before}{after}".encode())) + 2


@given(st.text(LETTERS, min_size=SHORTEST_KEY, max_size=40), st.binary(max_size=30), st.binary(max_size=30))
def test_any_key_in_anything(key: str, before: bytes, after: bytes) -> None:
    """A key in plain letters is nowhere to be found afterwards, whatever it is and whatever stands around it."""
    shown = make_concealer(key)(before + b" " + key.encode() + b" " + after)
    assert key.encode() not in shown.replace(b"***", b"\xff")


@given(st.text("kj", min_size=SHORTEST_KEY, max_size=20), st.binary(max_size=80))
def test_what_is_not_the_key_stays(key: str, text: bytes) -> None:
    """A text without the key is returned as it is."""
    text = text.translate(None, b"kj%&\\\0")
    assert make_concealer(key)(text) is text


@pytest.mark.parametrize(
    ("key", "text", "shown"),
    [
        ("k", "the key k, k-1 and kk", "the key ***, ***-1 and kk"),
        ("abc1234", "abc12345 xabc1234 abc1234 'abc1234'", "abc12345 xabc1234 *** '***'"),
        ("abc+123", "abc\\u002b123 abc%2B123", "*** ***"),
        ("abc12345", "xabc12345x", "x***x"),
    ],
)
def test_short_keys(key: str, text: str, shown: str) -> None:
    """A short key may be part of any word: it is struck out where it stands alone."""
    assert make_concealer(key)(text.encode()).decode() == shown


@pytest.mark.parametrize("piece", ["\\", "&amp;", "%25", "\0", "&#0000", "fv+live", "f\\u0076", "fv+live/0123&ab"])
def test_no_text_takes_long(piece: str) -> None:
    """The time is in proportion to the text, whatever is in it."""
    conceal = make_concealer(KEY)
    began = time.process_time()
    conceal(piece.encode() * (100_000 // len(piece)))
    assert time.process_time() - began < 2


def test_names_that_are_no_letters() -> None:
    """What a page names beside letters is passed over, and the key behind it is found."""
    assert make_concealer(KEY)(b"&copy;&nbsp;fv&plus;live&sol;0123&amp;abc&copy;") == b"&copy;&nbsp;***&copy;"
