"""Time limits that share one timer: `Expiry` for anything that waits, `Deadlines` and `CallLimits` for calls.

All limits of one kind are equally long, so that the oldest is the next to run out. A timer for each would be five more
objects, made and called off; here the one timer looks when the oldest may be due, and ends when it finds nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Generic, TypeVar

from finevoice_async.config import Timeouts
from finevoice_async.ports import Clock, Timer

T = TypeVar("T")


class Expiry(Generic[T]):
    """Calls back with each item that has stayed for `seconds`, and forgets it."""

    def __init__(self, seconds: float, clock: Clock, on_expired: Callable[[T], object]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._on_expired = on_expired
        # All mutable state:
        self._ends: dict[T, float] = {}  # oldest first
        self._timer: Timer | None = None  # due when the oldest is, or earlier: for one that has left meanwhile

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, item: T) -> None:
        """Start an item's time."""
        self._ends[item] = end = self._clock.monotonic() + self._seconds
        if self._timer is None:
            self._timer = self._clock.call_at(end, self._look)

    def discard(self, item: T) -> bool:
        """Forget an item, and tell whether it was there. The timer stays: the next item may use it."""
        return self._ends.pop(item, None) is not None

    def close(self) -> None:
        """Forget all items, which have no limit from now on, and call the timer off. Idempotent."""
        self._ends.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        now = self._clock.monotonic()
        expired = []
        for item, end in self._ends.items():
            if end > now:  # also after a timer that fired early
                self._timer = self._clock.call_at(end, self._look)
                break
            expired.append(item)
        for item in expired:
            self._ends.pop(item, None)
        for item in expired:
            self._on_expired(item)


class Deadlines(Expiry[asyncio.Task[object]]):
    """A context for each of many calls: `TimeoutError` leaves it when the call's time is up.

    It works as `asyncio.timeout` does: it cancels the call's task, and takes the cancellation back. A task may be in
    one call. A limit of aiohttp's own sets a timer for every wait, which is 5 % of a request's cost, and a server that
    sends a byte now and then never meets it.
    """

    def __init__(self, seconds: float, clock: Clock) -> None:
        super().__init__(seconds, clock, self._stop)
        # All other mutable state:
        self._loop: asyncio.AbstractEventLoop | None = None  # looked up once
        self._late: set[asyncio.Task[object]] = set()  # whose time was up, until they leave
        self._cancelled: dict[asyncio.Task[object], int] = {}  # how often, of those that were as they entered

    def __enter__(self) -> None:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        task = asyncio.current_task(self._loop)
        assert task is not None  # noqa: S101 - a coroutine runs in a task
        if task.cancelling():
            self._cancelled[task] = task.cancelling()
        # `add` and, below, `discard` written out: two calls less for each request.
        self._ends[task] = end = self._clock.monotonic() + self._seconds
        if self._timer is None:
            self._timer = self._clock.call_at(end, self._look)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task = asyncio.current_task(self._loop)
        if task is None:
            return  # thrown away together with its loop: no task runs this
        before = self._cancelled.pop(task, 0) if self._cancelled else 0
        if self._ends.pop(task, None) is not None or task not in self._late:
            return
        self._late.remove(task)
        # Somebody else may have cancelled the task, too: then that is what it hears.
        if task.uncancel() <= before and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise TimeoutError from error

    def _stop(self, task: asyncio.Task[object]) -> None:
        if task.cancel():
            self._late.add(task)


class CallLimits:
    """How long calls to the service may take, by what they are answered with.

    Attributes:
        ordinary: For a call that is answered at once.
        synchronous: For a submission that is answered once its effect is made: as long as an effect may take.
    """

    def __init__(self, timeouts: Timeouts, clock: Clock) -> None:
        seconds = timeouts.connect + timeouts.read
        self.ordinary = Deadlines(seconds, clock)
        self._task = None if timeouts.task is None else Deadlines(max(timeouts.task, seconds), clock)
        self.synchronous: AbstractContextManager[None] = nullcontext() if self._task is None else self._task

    def close(self) -> None:
        """Let calls under way run on without a limit. Idempotent."""
        self.ordinary.close()
        if self._task is not None:
            self._task.close()
