"""What kind of file the first bytes are of."""

from __future__ import annotations

import codecs
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finevoice_async.core.media import MAX_BLANK, Verdict, judge, of_answer, of_content, of_link, of_suffix, of_type

AUDIO = {
    "wav": (b"RIFF\x24\x00\x00\x00WAVEfmt ", ".wav"),
    "rf64": (b"RF64\xff\xff\xff\xffWAVEds64", ".wav"),
    "w64": (b"riff\x2e\x91\xcf\x11\xa5\xd6", ".wav"),
    "mp3": (b"\xff\xfb\x90\x00" + bytes(20), ".mp3"),
    "mp3 with a tag": (b"ID3\x04\x00\x00\x00\x00\x00\x0a", ".mp3"),
    "flac": (b"fLaC\x00\x00\x00\x22", ".flac"),
    "ogg": (b"OggS\x00\x02" + bytes(22) + b"\x01vorbis", ".ogg"),
    "opus": (b"OggS\x00\x02" + bytes(22) + b"OpusHead", ".opus"),
    "m4a": (b"\x00\x00\x00\x20ftypM4A ", ".m4a"),
    "aac": (b"\xff\xf1\x50\x80" + bytes(9), ".aac"),
    "aiff": (b"FORM\x00\x00\x10\x00AIFF", ".aiff"),
    "aifc": (b"FORM\x00\x00\x10\x00AIFC", ".aiff"),
    "webm": (b"\x1a\x45\xdf\xa3\x9f", ".webm"),
    "caf": (b"caff\x00\x01", ".caf"),
    "amr": (b"#!AMR\n", ".amr"),
    "wma": (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", ".wma"),
    "au": (b".snd\x00\x00", ".au"),
    "midi": (b"MThd\x00\x00", ".mid"),
}

HTML = "<!DOCTYPE html><html><head><title>Sign in</title></head></html>"
XML = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>AccessDenied</Code></Error>'
OBJECT = json.dumps({"error": "expired"})
ENCODINGS = {
    "utf-8": str.encode,
    "utf-8 with its mark": lambda text: codecs.BOM_UTF8 + text.encode(),
    "utf-16-le with its mark": lambda text: codecs.BOM_UTF16_LE + text.encode("utf-16-le"),
    "utf-16-be with its mark": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    "utf-16-le": lambda text: text.encode("utf-16-le"),
    "utf-16-be": lambda text: text.encode("utf-16-be"),
    "utf-32-le with its mark": lambda text: codecs.BOM_UTF32_LE + text.encode("utf-32-le"),
    "utf-32-be with its mark": lambda text: codecs.BOM_UTF32_BE + text.encode("utf-32-be"),
}


def verdict(content: bytes, step: int = 10**6) -> Verdict:
    """Judge a content that comes in pieces of so many bytes."""
    head = bytearray()
    for at in range(0, len(content), step):
        head += content[at : at + step]
        found = judge(head, complete=False)
        if found is not Verdict.MORE:
            return found
    return judge(head, complete=True)


@pytest.mark.parametrize("name", AUDIO)
def test_audio(name: str) -> None:
    """Each kind of audio is known by its first bytes, and passes in pieces of any size."""
    content, suffix = AUDIO[name]
    found = of_content(content)
    assert found is not None
    assert found.suffix == suffix
    assert [verdict(content, step) for step in (1, 3, 100)] == [Verdict.PASSES] * 3


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
@pytest.mark.parametrize("blank", ["", " ", "\r\n\t", "\n" * 3000], ids=range(4))
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HTML, Verdict.PAGE),
        ("<html>", Verdict.PAGE),
        ("</p>", Verdict.PAGE),
        ("<!-- x -->", Verdict.PAGE),
        (XML, Verdict.PAGE),
        ("<svg/>", Verdict.PAGE),
        (OBJECT, Verdict.JSON),
        ("{}", Verdict.JSON),
        ("{ }", Verdict.JSON),
        ("[]", Verdict.JSON),
        ('[ {"a": 1}]', Verdict.JSON),
        ("[1, 2]", Verdict.JSON),
        (")]}',\n{}", Verdict.JSON),
        ("null", Verdict.JSON),
        ("false", Verdict.JSON),
        ('"expired"', Verdict.JSON),
        ("-1.5e3", Verdict.JSON),
        ("", Verdict.NOTHING),
    ],
)
def test_no_audio(encode: Any, blank: str, text: str, expected: Verdict) -> None:
    """Pages, JSON and nothing are found in every encoding, behind white space, in pieces of any size."""
    content = encode(blank + text)
    assert [verdict(content, step) for step in (7, 4096)] == [expected] * 2
    if len(content) < 100:
        assert verdict(content, 1) is expected


@pytest.mark.parametrize(
    "content",
    [
        b"abcdef",
        b"A" * 5000,
        b"nothing of JSON",
        b"[not JSON",
        b"{\x00\x01",
        b"<\x00\x01\x02",
        b"<<<<",
        b"1" * 5000,
        b"0123",
        b"n" * 5000,
        b'"' + bytes(range(256)),
        b"\xff\xfe\x91\x91\x91",
        b"\x01\x00\x02\x00",
        bytes(5000),
        bytes(range(128, 256)),
        "雨".encode(),
    ],
    ids=range(16),
)
def test_what_nobody_knows_passes(content: bytes) -> None:
    """Samples without a header, silence, and plain words may be audio."""
    assert of_content(content) is None
    assert verdict(content) is Verdict.PASSES


def test_white_space_without_end() -> None:
    """Some white space is borne, not any amount; a few zeros are nothing."""
    assert judge(b" " * MAX_BLANK, complete=False) is Verdict.MORE
    assert judge(b" " * (MAX_BLANK + 1), complete=False) is Verdict.NOTHING
    assert judge(bytes(3), complete=False) is Verdict.MORE
    assert judge(bytes(3), complete=True) is Verdict.NOTHING


@given(st.binary(max_size=40), st.booleans())
def test_any_bytes_are_judged(head: bytes, complete: bool) -> None:
    """No bytes make the judgement fail, and a whole file always has one."""
    assert (judge(head, complete=complete) is Verdict.MORE) <= (not complete)


# What names say


@pytest.mark.parametrize(
    ("url", "suffix"),
    [
        ("https://x/a.WAV?x=.exe", ".wav"),
        ("https://x/a.mpga", ".mp3"),
        ("https://x/a%2Eflac#f.wav", ".flac"),
        ("https://x/a", None),
        ("https://x/get.php?file=a.mp3", None),
        ("https://x/a.%2e%2e", None),
        ("https://x/mp3", None),
        ("https://[", None),
    ],
)
def test_links(url: str, suffix: str | None) -> None:
    """A link suggests a kind if its path ends in a suffix of audio."""
    found = of_link(url)
    assert (found and found.suffix) == suffix


@pytest.mark.parametrize(
    ("header", "suffix"),
    [
        ("audio/mpeg", ".mp3"),
        ("Audio/X-WAV; codecs=1", ".wav"),
        ("audio/ogg", ".ogg"),
        ("text/html", None),
        ("", None),
        (None, None),
        (";;;,\x00", None),
    ],
)
def test_content_types(header: str | None, suffix: str | None) -> None:
    """A `Content-Type` suggests a kind if it is one of audio."""
    found = of_type(header)
    assert (found and found.suffix) == suffix


def test_suffixes() -> None:
    """Other names of the same kind count as that kind."""
    assert of_suffix(".AIF") == of_suffix(".aiff")
    assert of_suffix(".txt") is None


@pytest.mark.parametrize(
    ("raw", "suffix"),
    [
        ({"content_type": "audio/flac"}, ".flac"),
        ({"contentType": 5, "format": "mp3"}, ".mp3"),
        ({"format": ".wav"}, ".wav"),
        ({"format": "sfx"}, None),
        ({}, None),
    ],
)
def test_answers(raw: dict[str, object], suffix: str | None) -> None:
    """An answer of the service suggests a kind if it names one beside its link."""
    found = of_answer(raw)
    assert (found and found.suffix) == suffix
