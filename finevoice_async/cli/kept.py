"""Where a command's journal is: a file, or the database of a fleet. Both are read and settled alike."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol, TypeAlias

import typer

from finevoice_async import ConfigurationError, Fleet, JournalRow
from finevoice_async.adapters.journal_reader import JournalReader, read_journal
from finevoice_async.adapters.journals import NO_PLACE, names_a_database, names_something_else
from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.adapters.sqlite_journal import SqliteJournal
from finevoice_async.cli.fleet import check_url
from finevoice_async.config import API_KEY_VARIABLE, check_api_key
from finevoice_async.core.ledger import EffectState
from finevoice_async.ports import Begun, Journal

JournalPlace: TypeAlias = Path | str
"""A file, or the URL of a database."""

_NO_PLAN: Final = 1000
"""Slots, for who sends nothing: more than any plan, so that those of the sessions that do send hold."""


def as_place(text: str) -> JournalPlace:
    """Return the place that an option names.

    Raises:
        typer.BadParameter: It is a URL of something else, which is not shown.
    """
    if names_a_database(text):
        return text
    if names_something_else(text):
        raise typer.BadParameter(NO_PLACE)
    return Path(text)


def check_exists(place: JournalPlace) -> None:
    """Make no journal where somebody looks for one. What a database holds, opening it tells.

    Raises:
        ConfigurationError: There is no such file, or psycopg is missing.
    """
    if isinstance(place, str):
        check_url(place)
    elif not place.is_file():
        raise ConfigurationError(f"There is no journal at {place}.")


def api_key() -> str:
    """Return the key, which says whose effects in a database are meant.

    Raises:
        ConfigurationError: There is none.
    """
    return check_api_key(os.environ.get(API_KEY_VARIABLE))


class Reader(Protocol):
    """Looks into a journal that others may have open, and changes nothing."""

    async def rows(self, *states: EffectState, after: int = 0, limit: int = 1000) -> list[JournalRow]:
        """Return the rows in these states (none named: in any) with an id above `after`, in the order of their ids."""
        ...

    async def row(self, *, key: str) -> JournalRow | None:
        """Return the row with this key."""
        ...

    async def past_task_ids(self, row_ids: Sequence[int]) -> dict[int, list[str]]:
        """Return, for those of the rows that were submitted more than once, the ids of the earlier submissions."""
        ...


class _FileReader:
    """Fulfils `Reader` for a file."""

    def __init__(self, reader: JournalReader) -> None:
        self._reader = reader

    async def rows(self, *states: EffectState, after: int = 0, limit: int = 1000) -> list[JournalRow]:
        return self._reader.rows(*states, after=after, limit=limit)

    async def row(self, *, key: str) -> JournalRow | None:
        return self._reader.row(key=key)

    async def past_task_ids(self, row_ids: Sequence[int]) -> dict[int, list[str]]:
        return self._reader.past_task_ids(row_ids)


@asynccontextmanager
async def reading(place: JournalPlace) -> AsyncIterator[Reader]:
    """Read a journal.

    Raises:
        JournalError: It cannot be read.
        ConfigurationError: It is a database, and there is no key or no psycopg.
    """
    if isinstance(place, Path):
        with read_journal(place) as reader:
            yield _FileReader(reader)
        return
    check_url(place)
    from finevoice_async.adapters import fleet_view  # with psycopg, for who has a fleet

    async with fleet_view.reading(place, api_key()) as shared:
        yield shared


class Settled(Journal, Protocol):
    """A journal that its owner settles by hand."""

    def whose(self, row_id: int) -> Awaitable[Begun | None]:
        """Return a row, and whether somebody who lives acts for it."""
        ...

    def prune(self, before: datetime) -> Awaitable[int]:
        """Remove what is settled and was written last before a time; return how many they were."""
        ...


class _OwnFile(SqliteJournal):
    """Fulfils `Settled`: who has opened a file has it alone."""

    async def whose(self, row_id: int) -> Begun | None:
        row = await self.row(row_id=row_id)
        return None if row is None else Begun(row, is_mine=False)


@asynccontextmanager
async def settling(place: JournalPlace) -> AsyncIterator[Settled]:
    """Have a journal open for a moment, without a session: nothing is sent and nothing asked.

    Raises:
        JournalError: It cannot be opened.
        ConfigurationError: It is a database, and there is no key.
    """
    journal: Settled
    if isinstance(place, Path):
        journal = _OwnFile(place, LoopClock())
    else:
        from finevoice_async.adapters.postgres.journal import PostgresJournal

        journal = PostgresJournal(place, api_key(), _NO_PLAN, LoopClock(), Fleet(adopt=False))
    await journal.open()
    try:
        yield journal
    finally:
        await journal.aclose()
