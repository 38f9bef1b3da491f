"""The columns of a manifest: their names in every spelling, and what their texts mean."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, Final

from finevoice_async.core.requests import FIELDS
from finevoice_async.core.text import shorten

OWN: Final = ("key", "file", "takes", "owner")
COLUMNS: Final = (
    "prompt",
    "negative_prompt",
    "source_url",
    "source_type",
    "duration",
    "use_async",
    *OWN,
)
DEFAULTS: Final = (*(name for name in COLUMNS if name not in ("prompt", "key")), "prompt_suffix")
"""What `[defaults]` of a TOML manifest may hold."""

MAX_TAKES: Final = 100
"""Takes of one sound: nobody listens to more, and a number in the wrong column would be paid for."""

_TRUE: Final = ("true", "yes", "1", "on")
_FALSE: Final = ("false", "no", "0", "off")

assert set(COLUMNS) >= FIELDS  # noqa: S101 - a field that is added has to be a column, too


class CellError(ValueError):
    """A value that its column cannot take; its words say why."""


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter not in "_- ")


_BY_PLAIN: Final = {_plain(name): name for name in (*COLUMNS, "prompt_suffix")}


def find_column(name: str, allowed: Iterable[str] = COLUMNS) -> str | None:
    """Return the column that a name means: `source_url`, `sourceUrl` and `Source URL` are one."""
    found = _BY_PLAIN.get(_plain(name))
    return found if found is not None and found in allowed else None


def unknown(name: str, allowed: Iterable[str] = COLUMNS, what: str = "column") -> str:
    """Return the words for a name that nobody knows, with the nearest one that is known."""
    known = tuple(allowed)
    near = difflib.get_close_matches(_plain(name), [_plain(each) for each in known], n=1, cutoff=0.5)
    hint = f"did you mean {_BY_PLAIN.get(near[0], near[0])!r}?" if near else f"there are {', '.join(known)}"
    return f"unknown {what} {shorten(name)}; {hint}"


def from_text(column: str, text: str, *, decimal_comma: bool) -> Any:
    """Return the value that a cell of a table means; an empty one means nothing.

    Args:
        column: The column.
        text: What stands in the cell.
        decimal_comma: Numbers may have a comma where others have a point, as in tables with semicolons.

    Raises:
        CellError: It means nothing that the column takes.
    """
    text = text.strip() if column not in ("prompt", "negative_prompt") else text
    if not text.strip():
        return None
    if column == "duration":
        return _number(text, decimal_comma=decimal_comma)
    if column == "takes":
        return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else _refuse_takes(text)
    if column == "use_async":
        return _truth(text)
    return text


def _number(text: str, *, decimal_comma: bool) -> float:
    try:
        return float(text.replace(",", ".") if decimal_comma and text.count(",") == 1 else text)
    except ValueError:
        raise CellError(f"duration must be a number of seconds, not {shorten(text)}") from None


def _truth(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise CellError(f"use_async must be true or false, not {shorten(text)}")


def check_takes(value: object) -> int:
    """Return a number of takes.

    Raises:
        CellError: It is none.
    """
    if type(value) is not int or not 1 <= value <= MAX_TAKES:
        _refuse_takes(value)
    assert isinstance(value, int)  # noqa: S101 - else it was refused
    return value


def _refuse_takes(value: object) -> None:
    raise CellError(f"takes must be a whole number from 1 to {MAX_TAKES}, not {shorten(value)}")
