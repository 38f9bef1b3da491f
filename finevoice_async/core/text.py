"""Texts from outside: what counts as one, and how any value is shown in a message."""

from __future__ import annotations


def plain_text(value: object) -> str | None:
    """Return a text as a plain `str`, None if it is none.

    A subclass (an enum's member, a template's safe string) may do anything in its methods: its characters are what
    counts. An object that only claims to be a text, as a mock may, is none.
    """
    kind = type(value)
    if kind is str:
        return value  # type: ignore[return-value]  # mypy does not narrow by an exact type
    return str.__str__(value) if issubclass(kind, str) else None


def shorten(value: object, limit: int = 60) -> str:
    """Return `repr(value)`, cut in the middle of a long one: prompts may hold megabytes. Never fails."""
    try:
        head = plain_text(value) or (value if isinstance(value, bytes) else None)
        shown = plain_text(repr(value if head is None else head[: limit * 2])) or ""
        shown = shown.encode("utf-8", "backslashreplace").decode()
    except Exception:  # noqa: BLE001 - an integer of 5,000 digits has no repr, and other objects do as they like
        return "a value that cannot be shown"
    return shown if len(shown) <= limit else f"{shown[: limit - 5]}...{shown[-2:]}"


def sentence(words: str) -> str:
    """Return words with a full stop, unless they end a sentence already: a service's own often do."""
    words = words.rstrip()
    return words if words.endswith((".", "!", "?", "\u2026")) else f"{words}."


def one_line(text: str) -> str:
    """Return a text from outside as one line that can be logged and stored.

    It must not look like a second line of the log, command the terminal, or hold what UTF-8 cannot carry.
    """
    text = text.encode("utf-8", "replace").decode()
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
