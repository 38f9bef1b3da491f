"""Sessions' journals that a fuzz plays with: they beat when they are told to, die, and lose answers."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

import psycopg
from fleets import Member

from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.adapters.postgres.line import Call, Line
from finevoice_async.config import Budget, Fleet

LEASE, HOLD = 60.0, 30.0
SLOW = Fleet(beat=20, lease=LEASE, hold=HOLD)
"""A fleet in which nothing happens by itself while a fuzz runs."""

_names = itertools.count()


class AheadClock(LoopClock):
    """The loop's clock, which can be put forward."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead = 0.0
        self.monotonic = self._put_forward

    def _put_forward(self) -> float:
        return time.monotonic() + self.ahead


class ForgetfulLine(Line):
    """Loses answers: what was asked is done, and nobody hears."""

    lost = 0  # how many answers are to be lost

    async def _execute(self, calls: list[Call[Any]]) -> list[list[tuple[Any, ...]]]:
        results = await super()._execute(calls)
        if self.lost:
            self.lost -= 1
            raise psycopg.OperationalError("the answer was lost")
        return results


class Player(Member):
    """A session's journal that does nothing by itself."""

    def __init__(
        self, url: str, clock: AheadClock, *, plan: int, key: str, budget: Budget | None, adopts: bool
    ) -> None:
        super().__init__(url, plan=plan, key=key, options=Fleet(beat=20, lease=LEASE, hold=HOLD, adopt=adopts))
        self.name = f"player {next(_names)}"
        self._clock = self._membership._clock = clock
        self._budget = budget
        self._line = self.line = ForgetfulLine(url, self._membership)
        self.plan = plan
        self.seats: set[int] = set()  # all numbers that it has had in the fleet
        self.polled: set[int] = set()  # rows whose task it asks for

    def __repr__(self) -> str:
        return self.name

    async def start(self) -> None:
        """Join."""
        await self.open(self._adopt)
        await self.go_silent()
        self.note_seat()

    def _adopt(self, row: Any) -> None:
        self.followed.append(row)
        self.polled.add(row.id)

    def note_seat(self) -> None:
        """Remember who it is in the fleet."""
        if self.me is not None:
            self.seats.add(self.me)

    async def beat_once(self) -> None:
        """Say that it lives, and clean up."""
        await self._sweep()

    async def settle(self) -> None:
        """Wait until it has said all that it had to say."""
        while len(self._line):
            await self._line._idle.wait()
        self.note_seat()

    @property
    def backend(self) -> int:
        """The server's process behind its connection that listens."""
        connection = self._membership._connection
        assert connection is not None
        return connection.info.backend_pid

    async def come_back(self, former: int | None) -> None:
        """Wait until a cut connection is replaced."""
        async with asyncio.timeout(5):
            while self.me == former or not self._membership.here.is_set():  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.002)
        self.note_seat()

    def claim_of(self, row_id: int) -> int | None:
        """Return the claim that it has of a row."""
        return self._claims.get(row_id)

    def saw_itself(self, seconds: float) -> None:
        """Time has passed in which it has said that it lives."""
        self._membership.seen += seconds
