"""The plan's slots within one process."""

from __future__ import annotations

import asyncio
from collections import deque

from finevoice_async.core.text import shorten
from finevoice_async.errors import ConfigurationError, SessionClosedError
from finevoice_async.ports import Clock, Timer
from finevoice_async.reprs import with_safe_repr

RECOVERY = 5.0
"""Seconds between two steps of a lowered limit on its way back: some effects' time, in which a 429 may come again."""


@with_safe_repr
class LocalSlots:
    """A first-come, first-served semaphore whose limit sinks when the service says 429, and rises again step by step.

    asyncio.Semaphore has neither a moving limit nor slots taken beyond it.
    """

    def __init__(self, limit: int, clock: Clock) -> None:
        """Make `limit` slots.

        Raises:
            ConfigurationError: `limit` is no whole number of at least 1.
        """
        if type(limit) is not int or limit < 1:
            raise ConfigurationError(f"max_concurrency must be a whole number of at least 1, not {shorten(limit)}.")
        self.limit = limit
        # All mutable state:
        self._clock = clock
        self._used = 0  # slots held, also beyond the limit
        self._queue: deque[asyncio.Future[None]] = deque()  # who waits, in order
        self._reduced = limit  # the limit while the service asks for less
        self._rises_at = 0.0  # when the reduced limit rises by a step
        self._timer: Timer | None = None  # while it is reduced
        self._closed = False

    def __repr__(self) -> str:
        return f"<LocalSlots {self._used} of {self.limit} used, {len(self._queue)} waiting>"

    @property
    def used(self) -> int:
        """How many slots are held."""
        return self._used

    @property
    def waiting(self) -> int:
        """How many wait for a slot."""
        return len(self._queue)

    def _current_limit(self) -> int:
        """Return the limit now: reduced, it rises by a tenth of the plan every `RECOVERY` seconds."""
        if self._reduced < self.limit and (now := self._clock.monotonic()) >= self._rises_at:
            steps = 1 + int((now - self._rises_at) / RECOVERY)
            self._reduced = min(self.limit, self._reduced + steps * max(1, self.limit // 10))
            self._rises_at += steps * RECOVERY
        return self._reduced

    def try_acquire(self) -> object | None:
        """Take a slot if one is free now and nobody waits for it; else return None."""
        if self._closed or self._queue or self._used >= self._current_limit():
            return None
        return self.occupy()

    def occupy(self) -> object:
        """Take a slot at once, free or not."""
        self._used += 1
        return self

    async def acquire(self) -> object:
        """Wait for a slot and take it.

        Raises:
            SessionClosedError: The session was closed meanwhile.
        """
        if (slot := self.try_acquire()) is not None:
            return slot
        if self._closed:
            raise SessionClosedError("The session is closed. Nothing was sent.")
        waiter = asyncio.get_running_loop().create_future()
        self._queue.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter in self._queue:
                self._queue.remove(waiter)
            elif not waiter.cancelled() and waiter.exception() is None:
                self.release(self)  # the slot was given in the same step: hand it on
            raise
        return self

    def release(self, slot: object) -> None:  # noqa: ARG002 - slots of one process are all alike
        """Hand a slot back."""
        self._used -= 1
        self._hand_out()

    def slow_down(self, seconds: float) -> None:
        """Use one slot fewer than now for `seconds`: a 429 says that what ran already was the most."""
        if self._closed:
            return
        self._reduced = max(1, min(self._current_limit(), self._used) - 1)
        self._rises_at = max(self._rises_at, self._clock.monotonic() + seconds)
        if self._timer is None:
            self._timer = self._clock.call_at(self._rises_at, self._look)

    def _look(self) -> None:
        """Hand out what the risen limit gives, and look again until it is whole; it may have fired early."""
        self._timer = None
        if self._current_limit() < self.limit:
            self._timer = self._clock.call_at(self._rises_at, self._look)
        self._hand_out()

    def _hand_out(self) -> None:
        while self._queue and self._used < self._current_limit():
            waiter = self._queue.popleft()
            if not waiter.done():
                self._used += 1
                waiter.set_result(None)

    async def aclose(self) -> None:
        """Send home whoever waits. Idempotent."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._queue:
            waiter = self._queue.popleft()
            if not waiter.done():
                waiter.set_exception(SessionClosedError("The session was closed. Nothing was sent."))
