"""The rows of a fleet's journal: how they are spelled in PostgreSQL, and the statements that read them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import attrs

from finevoice_async.adapters.journal_rows import _read_row, _spell_request
from finevoice_async.core.ledger import EffectState, JournalRow

COLUMNS: Final = tuple(field.name for field in attrs.fields(JournalRow))
CLAIM: Final = "claim"
_MOMENTS: Final = ("created_at", "updated_at", "submitted_at")
_TEXTS: Final = ("key", "task_id", "path")

SELECT: Final = f"SELECT {', '.join((*COLUMNS, CLAIM))} FROM finevoice.effects WHERE account = %s"  # noqa: S608 - names of ours
OF_FUNCTION: Final = ", ".join(f"(f.r).{name}" for name in (*COLUMNS, CLAIM))
"""The columns of a row that a function gives as `r`."""

OF_SET: Final = ", ".join((*COLUMNS, CLAIM))
"""The columns of the rows that a function gives."""


@attrs.frozen
class ClaimedRow:
    """A row, and the claim that it has."""

    row: JournalRow
    claim: int


def spell_request(request: Any) -> str:
    """Return a request as it is kept."""
    return _spell_request(request)


def spell_text(text: str | None) -> str | None:
    """Return a text without the character NUL, which PostgreSQL refuses; other texts stay others."""
    return None if text is None else text.replace("\\", "\\\\").replace("\0", "\\0")


def read_text(text: str | None) -> str | None:
    """Return a text as it was."""
    if text is None or "\\" not in text:
        return text
    return "\\".join(part.replace("\\0", "\0") for part in text.split("\\\\"))


def spell_words(text: str | None) -> str | None:
    """Return what went wrong: that can always be noted, whatever stands in it."""
    return None if text is None else text.encode(errors="replace").decode().replace("\0", "?")


def spell_urls(urls: Sequence[str] | None) -> str | None:
    """Return links as they are kept."""
    return None if urls is None else json.dumps(urls)


def read_row(values: Sequence[Any]) -> ClaimedRow:
    """Return the row of its columns and its claim.

    Raises:
        JournalError: Somebody spoiled it.
    """
    spelled = dict(zip(COLUMNS, values[:-1], strict=True))
    for name in _MOMENTS:
        if spelled[name] is not None:
            spelled[name] = spelled[name].astimezone(UTC).isoformat()
    for name in _TEXTS:
        spelled[name] = read_text(spelled[name])
    return ClaimedRow(_read_row([spelled[name] for name in COLUMNS]), values[-1])


def in_states(states: Sequence[EffectState]) -> tuple[str, list[Any]]:
    """Return a condition and its values."""
    return (" AND state = ANY(%s)", [[state.value for state in states]]) if states else ("", [])


def as_utc(moment: datetime) -> datetime:
    """Return a time with its zone, as psycopg wants it."""
    return moment.astimezone(UTC)
