"""What the tests of fleets share: journals of sessions, and what an engine would do with them."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg

from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.adapters.postgres.journal import PostgresJournal
from finevoice_async.config import Fleet
from finevoice_async.core.ledger import EffectState, JournalRow, Move
from finevoice_async.core.requests import SfxRequest

KEY = "fv-key-of-the-fleet"
QUICK = Fleet(beat=0.05, lease=1.0, hold=0.5)
"""A fleet that notices soon."""

_ids = itertools.count()


class Member(PostgresJournal):
    """A journal of a session, which can die."""

    def __init__(self, url: str, *, plan: int = 5, key: str = KEY, options: Fleet = QUICK) -> None:
        super().__init__(url, key, plan, LoopClock(), options)
        self.url = url
        self.is_dead = False
        self.followed: list[JournalRow] = []  # what it was told to follow

    async def open(self, adopted: Callable[[JournalRow], None] | None = None) -> None:
        """Join, and note what is adopted."""
        await super().open(adopted or self.followed.append)

    async def aclose(self) -> None:
        """Leave, unless it is dead."""
        if not self.is_dead:
            await super().aclose()

    async def wish(
        self,
        key: str | None = None,
        *,
        prompt: str = "Rain",
        state: EffectState = EffectState.SENDING,
        owner: str | None = None,
        again: Move = Move.QUEUE,
    ) -> JournalRow:
        """Begin a row."""
        return (await self.begin(SfxRequest(prompt), key=key, state=state, owner=owner, again=again)).row

    async def submitted(self, key: str | None = None) -> JournalRow:
        """Begin a row that gets a slot at once, and bring it to its task id."""
        row = await self.wish(key)
        assert row.state is EffectState.SENDING
        assert await self.move(row.id, Move.ACCEPT, task_id=f"task-{next(_ids)}")
        return await self.get(row.id)

    async def get(self, row_id: int) -> JournalRow:
        """Return a row that is there."""
        row = await self.row(row_id=row_id)
        assert row is not None
        return row

    async def state(self, row_id: int) -> EffectState:
        """Return a row's state."""
        return (await self.get(row_id)).state

    async def go_silent(self) -> None:
        """Stop to beat, as a process that is paused: its connections stay."""
        assert self._beat is not None
        self._beat.cancel()
        await asyncio.wait([self._beat])

    async def die(self) -> None:
        """Die as a process does: its connections are gone, and nothing is said."""
        await self.go_silent()
        self.is_dead = self._closed = True
        assert self._line._worker is not None
        self._line._worker.cancel()
        await asyncio.wait([self._line._worker])
        await self._line._disconnect()
        await self._membership.aclose()


Join = Callable[..., Awaitable[Member]]
"""Lets a journal join: with a plan, a key, options."""


async def until(true: Callable[[], Any], within: float = 20.0) -> float:
    """Wait until something is true (or an awaitable of it), and return how long that took."""
    began = time.monotonic()
    while True:
        found = true()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return time.monotonic() - began
        assert time.monotonic() - began < within, "it did not come true in time"
        await asyncio.sleep(0.005)


def sql(url: str, statement: str, *values: object) -> list[Any]:
    """Do something in the database from outside."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement, values)
        return [] if cursor.description is None else cursor.fetchall()
