"""Spans of time, as people type them: `30d`, `12h`."""

from __future__ import annotations

import re
from datetime import timedelta

import typer

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_MAX = timedelta(days=365 * 100)


def parse_span(text: str) -> timedelta:
    """Return the span that a text such as `30d` names.

    Raises:
        typer.BadParameter: It names none.
    """
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)([smhdw])", text.strip().lower(), re.ASCII)
    if match is None:
        raise typer.BadParameter(
            f"{text!r} is no span of time. Write a number and s, m, h, d or w, such as 30d, 12h or 90m."
        )
    span = timedelta(**{_UNITS[match[2]]: float(match[1])})
    if span > _MAX:
        raise typer.BadParameter(f"{text!r} is longer than a hundred years.")
    return span
