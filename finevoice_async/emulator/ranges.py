"""The Range header, as RFC 9110 has it: one range of bytes; what makes no sense is ignored."""

from __future__ import annotations

import re

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")  # more digits are no file of this world


class UnsatisfiableRangeError(ValueError):
    """The range lies outside the file."""


def read_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Return the first byte and the one past the last, None for the whole file.

    Args:
        header: The Range header's value; several ranges at once count as none, which the RFC allows.
        size: The file's size.

    Raises:
        UnsatisfiableRangeError: The file has no such bytes.
    """
    match = _RANGE.fullmatch((header or "").strip())
    if match is None or match[0] == "bytes=-":
        return None
    if not match[1]:  # the last so many bytes
        start, end = max(0, size - int(match[2])), size
    else:
        start = int(match[1])
        end = min(int(match[2]) + 1, size) if match[2] else size
        if match[2] and int(match[2]) < start:
            return None  # not a range at all
    if start >= end:
        raise UnsatisfiableRangeError(header)
    return start, end
