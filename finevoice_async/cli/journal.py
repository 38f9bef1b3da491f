"""`finevoice journal`: what a journal holds, also while a program has it open."""

from __future__ import annotations

import shutil
import sys
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import attrs
import typer

from finevoice_async import EffectState, JournalRow
from finevoice_async.cli.exits import without_classes
from finevoice_async.cli.kept import JournalPlace, Reader, check_exists, reading
from finevoice_async.cli.talk import as_json_line, count, fit, plain, put, say
from finevoice_async.core.ledger import MAY_BE_PAID

PAGE = 500
PERHAPS_PAID = "perhaps-paid"

_IN_DOUBT = (EffectState.SENDING, *MAY_BE_PAID)
"""SENDING: its POST is under way, or a crash came between; whoever opens the journal next makes it UNKNOWN."""

_NARROWEST = 60  # columns
_ROW, _STATE, _TIME = 5, 21, 16  # columns of the list


def parse_state(text: str) -> tuple[EffectState, ...]:
    """Return the states that a word names.

    Raises:
        typer.BadParameter: It names none.
    """
    word = text.strip().lower().replace("_", "-").replace(" ", "-")
    if word == PERHAPS_PAID:
        return _IN_DOUBT
    try:
        return (EffectState(word),)
    except ValueError:
        names = ", ".join([*(state.value for state in EffectState), PERHAPS_PAID])
        raise typer.BadParameter(f"{text!r} is no state. There are {names}.") from None


async def show_journal(place: JournalPlace, states: tuple[EffectState, ...], *, as_json: bool) -> int:
    """Print the effects of a journal, by state."""
    check_exists(place)
    async with reading(place) as journal:
        if as_json:
            async for page in _pages(journal, states):
                earlier = await journal.past_task_ids([row.id for row in page])
                data = (_as_data(row) | {"past_task_ids": earlier.get(row.id, [])} for row in page)
                put("\n".join(map(as_json_line, data)))
        elif sys.stdout.isatty():
            await _show_list(journal, states)
        else:
            async for page in _pages(journal, states):
                put("\n".join("\t".join(_fields(row)) for row in page))
    return 0


async def _pages(journal: Reader, states: tuple[EffectState, ...]) -> AsyncIterator[list[JournalRow]]:
    """Yield the rows state by state, in the order of an effect's life."""
    for state in (state for state in EffectState if not states or state in states):
        after = 0
        while page := await journal.rows(state, after=after, limit=PAGE):
            yield page
            after = page[-1].id


async def _show_list(journal: Reader, states: tuple[EffectState, ...]) -> None:
    width = max(shutil.get_terminal_size().columns, _NARROWEST)
    total = in_doubt = sending = 0
    async for page in _pages(journal, states):
        if not total:
            put(_line(width, "row", "state", "what", "changed (UTC)"))
        total += len(page)
        in_doubt += sum(row.state in _IN_DOUBT for row in page)
        sending += sum(row.state is EffectState.SENDING for row in page)
        for row in page:
            put("\n".join(_entry(row, width)))
    put(count(total, "effect") if total else "No effects.")
    if sending:
        say("What is sending may be under way in a program that runs: then wait for its end.")
    if in_doubt:
        say(
            f"{count(in_doubt, 'effect')} perhaps paid: only you can tell. Look at your account, then give",
            "  --adopt ROW=TASK                      its task is there",
            "  --discard ROW                         give it up",
            "  --resend ROW --accept-double-charge   send it again, perhaps pay again",
        )


def _entry(row: JournalRow, width: int) -> list[str]:
    """Return an effect as lines that fit."""
    what = row.request.prompt or row.request.source_url or ""
    lines = [_line(width, str(row.id), _state_word(row), what, f"{row.updated_at:%Y-%m-%d %H:%M}")]
    details = [("task", row.task_id), ("key", row.key), ("file", row.path), ("error", without_classes(row.error or ""))]
    for name, text in details:
        if text and not (name == "error" and row.state is EffectState.SAVED):
            lines.append(f"{'':{_ROW + 1}}{fit(f'{name:5} {plain(text)}', width - _ROW - 1).rstrip()}")
    return lines


def _line(width: int, row: str, state: str, what: str, time: str) -> str:
    room = width - _ROW - _STATE - _TIME - 3
    return f"{row:>{_ROW}} {state:{_STATE}} {fit(plain(what), room)} {time}"


def _state_word(row: JournalRow) -> str:
    return f"{row.state.value}, perhaps paid" if row.state in _IN_DOUBT else row.state.value


def _fields(row: JournalRow) -> list[str]:
    """Return an effect as fields for a pipe: always as many, none with a tab or a new line."""
    perhaps = "perhaps paid" if row.state in _IN_DOUBT else ""
    texts = (row.task_id, row.key, row.request.prompt or row.request.source_url, row.path, row.error)
    moment = row.updated_at.isoformat(timespec="seconds")
    return [str(row.id), row.state.value, perhaps, *(plain(text or "") for text in texts), moment]


def _as_data(row: JournalRow) -> dict[str, Any]:
    """Return all of a row as plain data; the request's fields stand beside the others."""
    data = attrs.asdict(row, value_serializer=_plain_value)
    request = data.pop("request")
    return {**data, "perhaps_paid": row.state in _IN_DOUBT, **request}


def _plain_value(_: object, __: object, value: Any) -> Any:
    if isinstance(value, EffectState):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    return list(value) if isinstance(value, tuple) else value
