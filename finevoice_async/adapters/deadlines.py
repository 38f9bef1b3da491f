"""A time limit for each of many calls, with one timer for all of them.

A limit of aiohttp's own sets a timer for every wait, which is 5 % of a request's cost, and a server that sends a byte
now and then never meets it.
"""

from __future__ import annotations

import asyncio
from types import TracebackType


class Deadlines:
    """A context for each call; `TimeoutError` leaves it when the call's time is up.

    Every call has the same time from its start, so that the oldest is the next to run out of it. It works as
    `asyncio.timeout` does: it cancels the call's task, and takes the cancellation back. A task may be in one call.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        # All mutable state:
        self._loop: asyncio.AbstractEventLoop | None = None  # looked up once
        self._calls: dict[asyncio.Task[object], tuple[float, int]] = {}  # oldest first: end, `cancelling` before
        self._expired: set[asyncio.Task[object]] = set()  # of these, whose time was up
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        loop = self._loop = self._loop or asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None  # noqa: S101 - a coroutine runs in a task
        end = loop.time() + self._seconds
        self._calls[task] = end, task.cancelling()
        if self._timer is None:
            self._timer = loop.call_at(end, self._look)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task = asyncio.current_task(self._loop)
        call = None if task is None else self._calls.pop(task, None)
        if task is None or call is None:
            return  # thrown away together with its loop: no task runs this
        if task not in self._expired:
            return
        self._expired.remove(task)
        # Somebody else may have cancelled the task, too: then that is what it hears.
        if task.uncancel() <= call[1] and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise TimeoutError from error

    def _look(self) -> None:
        assert self._loop is not None  # noqa: S101 - there was a call
        now = self._loop.time()
        self._timer = None
        for task, (end, _) in self._calls.items():
            if end > now:
                self._timer = self._loop.call_at(end, self._look)
                return
            if task not in self._expired:
                self._expired.add(task)
                task.cancel()

    def close(self) -> None:
        """Stop looking. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
