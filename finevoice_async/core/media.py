"""What kind of file the first bytes are of: audio of some kind, something unknown, or certainly no audio.

The first bytes decide, not what a server says of them: error pages come with 200 and `audio/mpeg`, and sound with
`application/octet-stream`. What nobody knows may be audio all the same, and passes.
"""

from __future__ import annotations

import codecs
import enum
import json
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote, urlsplit

import attrs

from finevoice_async.core.audio import mp3_frame_length

MAX_BLANK: Final = 16 * 1024
"""Bytes of white space that are borne before the first character that means something."""

_ENOUGH: Final = 1024  # bytes from the first that means something, by which everything here is decided


@attrs.frozen
class Media:
    """A kind of file.

    Attributes:
        media_type: As in `Content-Type`.
        suffix: For a file's name, with its dot.
    """

    media_type: str
    suffix: str


def _kinds(*kinds: tuple[str, str]) -> dict[str, Media]:
    return {suffix: Media(media_type, suffix) for media_type, suffix in kinds}


_BY_SUFFIX: Final = _kinds(
    ("audio/wav", ".wav"),
    ("audio/mpeg", ".mp3"),
    ("audio/flac", ".flac"),
    ("audio/ogg", ".ogg"),
    ("audio/ogg", ".opus"),
    ("audio/mp4", ".m4a"),
    ("audio/aac", ".aac"),
    ("audio/aiff", ".aiff"),
    ("audio/x-caf", ".caf"),
    ("audio/webm", ".webm"),
    ("audio/amr", ".amr"),
    ("audio/x-ms-wma", ".wma"),
    ("audio/basic", ".au"),
    ("audio/midi", ".mid"),
)
_OTHER_SUFFIXES: Final = {
    ".wave": ".wav",
    ".bwf": ".wav",
    ".rf64": ".wav",
    ".w64": ".wav",
    ".mpga": ".mp3",
    ".mp2": ".mp3",
    ".mpeg": ".mp3",
    ".oga": ".ogg",
    ".ogx": ".ogg",
    ".spx": ".ogg",
    ".mp4": ".m4a",
    ".m4b": ".m4a",
    ".m4r": ".m4a",
    ".3gp": ".m4a",
    ".mov": ".m4a",
    ".adts": ".aac",
    ".aif": ".aiff",
    ".aifc": ".aiff",
    ".weba": ".webm",
    ".mka": ".webm",
    ".mkv": ".webm",
    ".asf": ".wma",
    ".snd": ".au",
    ".midi": ".mid",
}
"""Other names for the same kinds of files."""

_OTHER_TYPES: Final = {
    "audio/x-wav": ".wav",
    "audio/wave": ".wav",
    "audio/vnd.wave": ".wav",
    "audio/mp3": ".mp3",
    "audio/x-mp3": ".mp3",
    "audio/x-mpeg": ".mp3",
    "audio/mpeg3": ".mp3",
    "audio/x-flac": ".flac",
    "application/ogg": ".ogg",
    "audio/opus": ".opus",
    "audio/x-m4a": ".m4a",
    "audio/m4a": ".m4a",
    "audio/aacp": ".aac",
    "audio/x-aac": ".aac",
    "audio/x-aiff": ".aiff",
    "audio/amr-wb": ".amr",
}
_BY_TYPE: Final = {media.media_type: media for media in reversed(_BY_SUFFIX.values())} | {
    name: _BY_SUFFIX[suffix] for name, suffix in _OTHER_TYPES.items()
}


def of_suffix(suffix: str) -> Media | None:
    """Return the kind of audio that a file's suffix names, None if it names none."""
    plain = suffix.lower()
    return _BY_SUFFIX.get(_OTHER_SUFFIXES.get(plain, plain))


def of_link(url: str) -> Media | None:
    """Return the kind of audio that a link's path names, None if it names none."""
    try:
        path = unquote(urlsplit(url).path)
    except ValueError:
        return None
    match = re.search(r"\.[A-Za-z0-9]{2,4}$", path)
    return of_suffix(match[0]) if match else None


def of_type(content_type: str | None) -> Media | None:
    """Return the kind of audio that a `Content-Type` header names, None if it names none."""
    return _BY_TYPE.get((content_type or "").partition(";")[0].strip().lower())


def of_answer(raw: Mapping[str, object]) -> Media | None:
    """Return the kind of audio that an answer of the service names beside its link, None if it names none."""
    for name in ("content_type", "contentType", "mime_type", "mimeType", "media_type", "mediaType", "format"):
        value = raw.get(name)
        if type(value) is str:
            found = of_type(value) or of_suffix("." + value.removeprefix("."))
            if found is not None:
                return found
    return None


# What the first bytes say

_MAGIC: Final = (
    (0, b"fLaC", ".flac"),
    (0, b"ID3", ".mp3"),
    (0, b"caff", ".caf"),
    (0, b"#!AMR", ".amr"),
    (0, b".snd", ".au"),
    (0, b"MThd", ".mid"),
    (0, b"\x1a\x45\xdf\xa3", ".webm"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", ".wma"),
    (0, b"ADIF", ".aac"),
    (0, b"riff\x2e\x91\xcf\x11", ".wav"),  # Sony's Wave64
    (4, b"ftyp", ".m4a"),
    (28, b"OpusHead", ".opus"),  # in the first page of an Ogg file
    (0, b"OggS", ".ogg"),
)
_CHUNKS: Final = {
    (b"RIFF", b"WAVE"): ".wav",
    (b"RIFX", b"WAVE"): ".wav",
    (b"RF64", b"WAVE"): ".wav",
    (b"BW64", b"WAVE"): ".wav",
    (b"FORM", b"AIFF"): ".aiff",
    (b"FORM", b"AIFC"): ".aiff",
}


def of_content(head: bytes | bytearray) -> Media | None:
    """Return the kind of audio that a file's first bytes are of, None if they are of none that is known."""
    head = bytes(head[:_ENOUGH])
    suffix = _CHUNKS.get((head[:4], head[8:12]))
    if suffix is None:
        suffix = next((kind for at, magic, kind in _MAGIC if head[at : at + len(magic)] == magic), None)
    if suffix is None and len(head) >= 4:
        if head[0] == 0xFF and head[1] & 0xF6 == 0xF0:  # the sync word of ADTS
            suffix = ".aac"
        elif mp3_frame_length(head[:4]) is not None:
            suffix = ".mp3"
    return None if suffix is None else _BY_SUFFIX[suffix]


_ENCODINGS: Final = (
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe\x00\x00", "utf-32-le"),
    (b"\x00\x00\xfe\xff", "utf-32-be"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)
"""Byte order marks and what they stand for, longer ones first."""

_BLANK: Final = "\ufeff \t\r\n\f\v\x00\xa0\u2028\u2029"
_MARKUP: Final = re.compile(r"<[!?/A-Za-z]")
_OBJECT: Final = re.compile(r"""\{\s*["'}]|\[\s*(?:[\[{"'\]\-0-9]|true|false|null)|\)\]\}'""")  # the last guards JSON
_MAY_BE_TEXT: Final = re.compile(r"[<{\[\"')\-0-9tfn]")  # what HTML, XML and JSON can begin with


class Verdict(enum.Enum):
    """What the first bytes come to."""

    MORE = "it takes more of them"
    PASSES = "audio, or something unknown"
    PAGE = "it is an HTML or XML page, not audio"
    JSON = "it is JSON, not audio"
    NOTHING = "there is nothing in it"


def judge(head: bytes | bytearray, *, complete: bool) -> Verdict:
    """Return what a file is by its first bytes.

    Args:
        head: The file's beginning.
        complete: There are no more.
    """
    if of_content(head) is not None:
        return Verdict.PASSES
    begin = _as_text(bytes(head[: MAX_BLANK + _ENOUGH]), complete=complete).lstrip(_BLANK)
    if not begin:
        return _judge_blank(head, complete=complete)
    if _MARKUP.match(begin):
        return Verdict.PAGE
    if _OBJECT.match(begin) or (complete and len(begin) <= _ENOUGH and _is_json(begin)):
        return Verdict.JSON
    decided = complete or len(begin) >= _ENOUGH or not _MAY_BE_TEXT.match(begin)
    return Verdict.PASSES if decided else Verdict.MORE


def _judge_blank(head: bytes | bytearray, *, complete: bool) -> Verdict:
    """Judge bytes among which there is no character that means something."""
    if len(head) >= _ENOUGH and not head.strip(b"\x00"):
        return Verdict.PASSES  # samples of silence, without a header
    return Verdict.NOTHING if complete or len(head) > MAX_BLANK else Verdict.MORE


def _as_text(head: bytes, *, complete: bool) -> str:
    """Decode bytes as if they were text; where they are none, only the first character matters."""
    if not complete and any(mark.startswith(head) for mark, _ in _ENCODINGS):
        return ""
    start, encoding = next(((len(mark), name) for mark, name in _ENCODINGS if head.startswith(mark)), (0, "utf-8"))
    if not start and len(head) > 1 and (head[0] == 0) != (head[1] == 0):  # UTF-16 without its mark
        encoding = "utf-16-be" if head[0] == 0 else "utf-16-le"
    return codecs.getincrementaldecoder(encoding)("replace").decode(head[start:])  # half a character is none yet


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
