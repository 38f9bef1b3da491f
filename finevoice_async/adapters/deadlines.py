"""A time limit for each of many calls, with one timer for all of them.

A limit of aiohttp's own sets a timer for every wait, which is 5 % of a request's cost, and a server that sends a byte
now and then never meets it.
"""

from __future__ import annotations

import asyncio
from types import TracebackType


class Deadlines:
    """Gives every call the same time from its start, so that the oldest call is the next to run out of it."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        # All mutable state:
        self._calls: dict[Deadline, None] = {}  # under way, oldest first
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> Deadline:
        """Give a context for one call of the running task; `TimeoutError` leaves it when the time is up."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a deadline needs a task")
        call = Deadline(self._calls, task, loop.time() + self._seconds)
        if self._timer is None:
            self._timer = loop.call_at(call.when, self._look)
        return call

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._timer = None
        for call in self._calls:
            if call.when > now:
                self._timer = loop.call_at(call.when, self._look)
                return
            call.expire()

    def close(self) -> None:
        """Stop looking. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Deadline:
    """One call's time; works as `asyncio.timeout` does, by cancelling the task and taking the cancellation back."""

    __slots__ = ("_calls", "_cancelling", "_expired", "_task", "when")

    def __init__(self, calls: dict[Deadline, None], task: asyncio.Task[object], when: float) -> None:
        self._calls = calls
        self._task = task
        self._cancelling = 0
        self._expired = False
        self.when = when  # in seconds of the loop's clock

    def __enter__(self) -> None:
        self._cancelling = self._task.cancelling()
        self._calls[self] = None

    def expire(self) -> None:
        """End the call now; a second time does nothing."""
        if not self._expired:
            self._expired = True
            self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._calls[self]
        if not self._expired:
            return
        # Somebody else may have cancelled the task, too: then that is what it hears.
        if self._task.uncancel() <= self._cancelling and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise TimeoutError from error
