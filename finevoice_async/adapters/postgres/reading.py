"""What a fleet's journal reads, and how its calls are put in line."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

from finevoice_async.adapters.postgres import rows
from finevoice_async.adapters.postgres.connection import place_of
from finevoice_async.adapters.postgres.line import Call, Line, Turn, nobody
from finevoice_async.core.ledger import EffectState, JournalRow
from finevoice_async.errors import JournalError
from finevoice_async.shared_ports import FleetStats

T = TypeVar("T")

_LIMIT_OF_BIGINT = 2**63


class FleetReader:
    """The reading half of `PostgresJournal`; the other half writes by the same line."""

    _url: str
    account: str
    _line: Line
    _pid: int
    _opened: bool
    _closed: bool

    async def row(
        self, *, row_id: int | None = None, key: str | None = None, task_id: str | None = None
    ) -> JournalRow | None:
        """Return the row with this number, key or task id (one is given), as it stands now."""
        given = {"id": row_id, "key": rows.spell_text(key), "task_id": rows.spell_text(task_id)}
        wanted = [(column, value) for column, value in given.items() if value is not None]
        if len(wanted) != 1:
            raise JournalError("A row of the journal is looked up by one of its number, its key and its task id.")
        ((column, value),) = wanted
        if isinstance(value, int) and not -_LIMIT_OF_BIGINT <= value < _LIMIT_OF_BIGINT:
            return None
        found = await self._look_up(f"{rows.SELECT} AND {column} = %s", lambda _: (self.account, value), _as_rows)
        return found[0] if found else None

    async def row_ids(self, *states: EffectState) -> list[int]:
        """Return the numbers of the rows in these states (none named: in any), in order."""
        condition, values = rows.in_states(states)
        query = f"SELECT id FROM finevoice.effects WHERE account = %s{condition} ORDER BY id"  # noqa: S608 - ours
        return await self._look_up(query, lambda _: (self.account, *values), lambda found: [each[0] for each in found])

    async def rows(self, *states: EffectState, after: int = 0, limit: int = 1000) -> list[JournalRow]:
        """Return the rows in these states (none named: in any) with an id above `after`, in the order of their ids."""
        condition, values = rows.in_states(states)
        query = f"{rows.SELECT}{condition} AND id > %s ORDER BY id LIMIT %s"
        return await self._look_up(query, lambda _: (self.account, *values, after, limit), _as_rows)

    async def sent_since(self, moment: datetime) -> list[datetime]:
        """Return when each submission of the fleet left, from a moment on, that may have been accepted."""
        query = "SELECT at FROM finevoice.sent_since(%s, %s) AS at ORDER BY at"
        values = (self.account, rows.as_utc(moment))
        return await self._look_up(query, lambda _: values, lambda found: [rows.as_utc(each[0]) for each in found])

    async def load(self, name: str) -> str | None:
        """Return the text stored under a name, if any."""
        query = "SELECT text FROM finevoice.notes WHERE account = %s AND name = %s"
        values = (self.account, rows.spell_text(name))
        return await self._look_up(
            query, lambda _: values, lambda found: rows.read_text(found[0][0]) if found else None
        )

    async def fleet(self) -> FleetStats:
        """Return what the whole fleet is doing now."""
        names = "sessions, plan, taken, running, waiting, sending, unknown, done, failed, longest_wait"
        query = f"SELECT {names} FROM finevoice.fleet(%s)"  # noqa: S608 - names of ours
        return await self._look_up(query, lambda _: (self.account,), lambda found: FleetStats(*found[0]))

    # How calls are put in line

    def _look_up(
        self, statement: str, values: Callable[[Turn], Sequence[object]], read: Callable[[list[tuple[Any, ...]]], T]
    ) -> asyncio.Future[T]:
        return self._put(statement, values, read, is_look=True)

    def _put(
        self,
        statement: str,
        values: Callable[[Turn], Sequence[object]],
        read: Callable[[list[tuple[Any, ...]]], T],
        *,
        first: bool = False,
        **options: Any,
    ) -> asyncio.Future[T]:
        if self._opened and os.getpid() != self._pid:
            raise JournalError(f"The fleet's journal belongs to process {self._pid}; this is a fork of it.")
        call = Call(statement, values, read, asyncio.get_running_loop().create_future(), **options)
        if not self._opened or self._closed:
            call.refuse("it is closed" if self._closed else "it is not open")
            return call.future
        return self._line.put(call, first=first)

    def _failed(self, error: JournalError) -> asyncio.Future[Any]:
        """Return what fails at once, as anything else of a journal's does: by its future."""
        call: Call[Any] = Call("", nobody, list, asyncio.get_running_loop().create_future(), what="what cannot be")
        call.fail(error)
        return call.future

    @property
    def _place(self) -> str:
        return place_of(self._url)


def _as_rows(found: list[tuple[Any, ...]]) -> list[JournalRow]:
    return [rows.read_row(each).row for each in found]
