"""Names for files: safe in every file system, whatever the prompt holds, and never longer than one takes."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import Final

MAX_NAME: Final = 255
"""Bytes of a name at most, in UTF-8: what the file systems of today take."""

_MAX_SLUG = 40  # characters
_MAX_ID = 48
_MAX_PART = 100  # bytes of the final name that a temporary one repeats, for people
_JOINER = "\u200d"
_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])(?=\s*(\.|$))", re.IGNORECASE)
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\s]+')  # by one file system or another


def slug(text: str) -> str:
    """Return lower-case words joined by hyphens: letters and digits of every script, in normal form, and no more."""
    plain = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text[:400]).lower())
    kept = "".join(letter if unicodedata.category(letter)[0] in "LNM" else "-" for letter in plain)
    words = re.sub("-+", "-", kept).strip("-")
    while words and unicodedata.category(words[0])[0] == "M":  # a mark belongs to a letter before it
        words = words[1:].lstrip("-")
    return _whole_letters(words, _MAX_SLUG).rstrip("-")


def stem_of(prompt: str | None, task_id: str | None, url: str) -> str:
    """Return a safe name for a result, but for its suffix: words of the prompt, and the task id."""
    safe_id = re.sub(r"[^A-Za-z0-9_-]+", "-", task_id or "")[:_MAX_ID].strip("-")
    if safe_id != task_id:  # another id may read the same now
        safe_id = f"{safe_id}-{hashlib.sha256((task_id or url).encode('utf-8', 'replace')).hexdigest()[:8]}".lstrip("-")
    return f"{slug(prompt or '') or 'effect'}-{safe_id}"


def safe_name(name: str) -> str:
    """Return a name that every file system takes, and that stays in its folder: for names that are not the caller's.

    What is no letter, digit, mark, sign or plain space is left out, a device name of Windows gets an underscore, dots
    and spaces at either end go.
    """
    letters = unicodedata.normalize("NFC", name)
    kept = "".join(letter for letter in letters if letter == " " or unicodedata.category(letter)[0] not in "CZ")
    plain = _FORBIDDEN.sub(" ", kept).strip(". ")
    if _DEVICES.match(plain):
        plain = f"_{plain}"
    suffix = suffix_of(plain)
    return cut(plain.removesuffix(suffix), MAX_NAME - size(suffix)).rstrip(". ") + suffix or "effect"


def suffix_of(name: str) -> str:
    """Return the suffix of a file's name with its dot, empty if it has none: `take 2.5` has none, nor has `.hidden`."""
    match = re.search(r"(?<=[^.])\.\w{1,10}$", name)
    return match[0] if match and any(letter.isalpha() for letter in match[0]) else ""


def with_suffix(name: str, suffix: str) -> str:
    """Return a name with a suffix at its end, cut where it would be longer than a name may be."""
    return cut(name.rstrip(". ") or name, MAX_NAME - size(suffix)) + suffix


def part_name(name: str, turn: int | str = 0) -> str:
    """Return the name of the temporary file for a file, which is found again after a crash.

    Args:
        name: The file's.
        turn: Tells those apart that are written at the same time; the first is 0.
    """
    mark = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f".{cut(name, _MAX_PART)}.{mark}{f'.{turn}' if turn else ''}.part"


def size(name: str) -> int:
    """Return how many bytes of a file system's a name takes."""
    return len(name.encode("utf-8", "surrogatepass"))


def cut(text: str, limit: int) -> str:
    """Return as much of a text as fits so many bytes, without half a character, or a letter without its marks."""
    if size(text) <= limit:
        return text
    return _whole_letters(text, len(text.encode("utf-8", "surrogatepass")[:limit].decode("utf-8", "ignore")))


def _whole_letters(text: str, length: int) -> str:
    """Return at most so many characters, ending where what a reader takes for one character ends."""
    while 0 < length < len(text) and _belongs_to(text[length - 1], text[length]):
        length -= 1
    return text[:length]


def _belongs_to(before: str, letter: str) -> bool:
    joined = _JOINER in (before, letter)  # families of emoji
    return joined or unicodedata.category(letter)[0] == "M" or "\U0001f3fb" <= letter <= "\U0001f3ff"
