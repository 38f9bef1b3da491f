"""An event loop without sockets, threads and real time: every life is the same each time its seed is.

Work for a thread is done by the loop itself, between two delays that stand for the disk: a crash may come before it is
done, or after it is done and before anybody has heard.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from finevoice_async.adapters.loop_clock import LoopClock

SPINS = 200_000
"""Turns without any time passing after which the loop is taken to run in circles."""

EPOCH = datetime(2030, 1, 1, tzinfo=UTC)


class StuckError(AssertionError):
    """Everybody waits, and nothing is due; or the loop runs in circles."""


class LifeLoop(asyncio.BaseEventLoop):
    """Jumps to the next deadline whenever everything is blocked."""

    def __init__(self, now: float, luck: random.Random) -> None:
        super().__init__()
        self._selector = self  # its `select` is all that the base asks of one
        self._now = now
        self._luck = luck
        self._turns = 0  # since time passed
        self._disk_free_at = now
        self.disk_seconds = 0.002  # the longest that the disk usually takes, each way
        self.complaints: list[str] = []
        self.set_exception_handler(lambda _, context: self.complaints.append(str(context)))

    def time(self) -> float:
        """Return the virtual time."""
        return self._now

    def select(self, timeout: float | None) -> list[Any]:
        """Let time pass until the next deadline.

        Raises:
            StuckError: There is none, or time has stood still for very long.
        """
        if timeout is None:
            raise StuckError("everybody waits, and nothing is due")
        if timeout > 0:
            self._now += timeout
            self._turns = 0
        self._turns += 1
        if self._turns > SPINS:
            raise StuckError("the loop runs in circles")
        return []

    def _process_events(self, events: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody is to be woken from outside."""

    def run_in_executor(  # type: ignore[override]  # the base is generic in what the function gives
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Do the work here, one after another, a moment later; and report it another moment later."""
        done: asyncio.Future[Any] = self.create_future()
        slow = 20 if self._luck.random() < 0.05 else 1

        def work() -> None:
            try:
                report = (done.set_result, func(*args))
            except BaseException as error:  # noqa: BLE001 - it is passed on
                report = (done.set_exception, error)
            self.call_later(slow * self._luck.random() * self.disk_seconds, tell, *report)

        def tell(how: Callable[[Any], None], what: Any) -> None:
            if not done.done():
                how(what)

        self._disk_free_at = max(self._now + slow * self._luck.random() * self.disk_seconds, self._disk_free_at + 1e-6)
        self.call_at(self._disk_free_at, work)
        return done


class LifeClock(LoopClock):
    """The loop's clock, also for the date, which goes on from life to life."""

    def utcnow(self) -> datetime:
        """Return the date that belongs to the loop's time."""
        return EPOCH + timedelta(seconds=self.monotonic())
