"""Words for messages: short, whatever was given."""

from __future__ import annotations


def shorten(value: object, limit: int = 60) -> str:
    """Return `repr(value)`, cut in the middle of a long one: prompts may hold megabytes."""
    text = repr(value[: limit * 2]) if isinstance(value, str) else repr(value)
    return text if len(text) <= limit else f"{text[: limit - 5]}...{text[-2:]}"
