"""The headers of a download: read without trust."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finevoice_async.core.contents import Span, compression_of, length_of, redirected, span_of, validator_of

HUGE = "9" * 5000


@pytest.mark.parametrize(
    "word",
    ["", "identity", "aws-chunked", "none", "binary", "UTF-8", "utf-8", "Identity, none", "base64", ",", "audio/mpeg"],
)
def test_no_compression(word: str) -> None:
    """What people store in `Content-Encoding` without compressing anything is no compression."""
    assert compression_of({"content-encoding": word}) is None
    assert compression_of({}) is None


@pytest.mark.parametrize(
    "word", ["gzip", "x-gzip", "br", "ZSTD", "deflate", "compress", "aws-chunked, gzip", "gzip,br", "xz"]
)
def test_compressions(word: str) -> None:
    """What compresses is found, also among others."""
    assert str(compression_of({"content-encoding": word})) in word.lower()


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("6", 6),
        ("0", 0),
        (" 007 ", 7),
        ("", None),
        ("-1", None),
        ("6, 6", None),
        ("٣", None),
        ("1e3", None),
        (HUGE, 10**18),
        ("0" * 5000 + "1", 1),
    ],
    ids=range(10),
)
def test_lengths(text: str, length: int | None) -> None:
    """A length is a plain number; one beyond all files stays beyond them."""
    assert length_of({"content-length": text}) == length
    assert length_of({}) is None


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("bytes 3-5/6", Span(3, 5, 6)),
        ("Bytes  3 - 5 / *", Span(3, 5, None)),
        ("bytes 5-3/6", None),
        ("bytes 3-6/6", None),
        (f"bytes 3-5/{HUGE}", None),
        (f"bytes {HUGE}-{HUGE}/*", None),
        ("bytes ٣-5/6", None),
        ("bytes */6", None),
        ("pages 1-2/3", None),
        ("", None),
    ],
    ids=range(10),
)
def test_spans(text: str, span: Span | None) -> None:
    """A range makes sense or is none."""
    assert span_of({"content-range": text}) == span
    assert span_of({}) is None


@pytest.mark.parametrize(
    ("text", "etag"),
    [
        ('"v1"', '"v1"'),
        ('""', '""'),
        ('W/"v1"', None),
        ("v1", None),
        ('"a"b"', None),
        ('"a b"', None),
        ('"\udce4"', None),
        ('"é"', None),
        ('"a\r\nHost: x"', None),
        ('"' + "x" * 5000 + '"', None),
    ],
    ids=range(10),
)
def test_validators(text: str, etag: str | None) -> None:
    """Only a strong ETag that a request can carry proves anything."""
    assert validator_of({"etag": text}) == etag
    assert validator_of({}) is None


@given(st.text() | st.sampled_from(["https://[bad", "//[", "https://x:y:z/", "\ud800"]))
def test_any_redirect(location: str) -> None:
    """Whatever a server sends is an address or none."""
    address = redirected("https://x/a?b", location)
    assert address is None or type(address) is str
    assert redirected("https://x/a", "https://[bad") is None
    assert redirected("https://x/a/b", "../c") == "https://x/c"
