"""What the headers of a download say: read without trust, for anybody may have written them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urljoin

import attrs

_DIGITS: Final = 18  # more are no file of this world
_COMPRESSIONS: Final = frozenset(
    {
        "br",
        "bzip2",
        "compress",
        "dcb",
        "dcz",
        "deflate",
        "exi",
        "gzip",
        "lz4",
        "lzma",
        "pack200-gzip",
        "snappy",
        "x-bzip2",
        "x-compress",
        "x-deflate",
        "x-gzip",
        "x-lzma",
        "x-snappy",
        "x-xz",
        "x-zstd",
        "xz",
        "zstd",
    }
)


def compression_of(headers: Mapping[str, str]) -> str | None:
    """Return what compression the body is said to be in, None if in none.

    People store files with all sorts of words in `Content-Encoding` (`aws-chunked`, `none`, `binary`, `UTF-8`), and
    servers repeat them: only what is known to compress counts.
    """
    words = headers.get("content-encoding", "").lower().split(",")
    return next((word.strip() for word in words if word.strip() in _COMPRESSIONS), None)


def length_of(headers: Mapping[str, str]) -> int | None:
    """Return the body's length in bytes, None if it is not told or makes no sense; a number beyond all files is cut."""
    text = headers.get("content-length", "").strip()
    if not re.fullmatch("[0-9]+", text):
        return None
    text = text.lstrip("0") or "0"
    return int(text) if len(text) <= _DIGITS else 10**_DIGITS


@attrs.frozen
class Span:
    """A part of a file: its first byte, its last, and the file's length, None if that is not told."""

    first: int
    last: int
    total: int | None


def span_of(headers: Mapping[str, str]) -> Span | None:
    """Return what a `Content-Range` says, None if it makes no sense."""
    number = rf"([0-9]{{1,{_DIGITS}}})"
    text = headers.get("content-range", "").strip()
    match = re.fullmatch(rf"bytes\s+{number}\s*-\s*{number}\s*/\s*(?:{number}|\*)", text, re.IGNORECASE | re.ASCII)
    if match is None:
        return None
    first, last, total = int(match[1]), int(match[2]), int(match[3]) if match[3] else None
    return Span(first, last, total) if first <= last and (total is None or last < total) else None


def validator_of(headers: Mapping[str, str]) -> str | None:
    """Return a strong ETag, None if there is none: the only proof that a continued file is the same file."""
    etag = headers.get("etag", "").strip()
    return etag if re.fullmatch(r'"[\x21\x23-\x7e]{0,1000}"', etag) else None


def redirected(url: str, location: str) -> str | None:
    """Return the address of a redirect, None if it is none."""
    try:
        return urljoin(url, location)
    except ValueError:
        return None
