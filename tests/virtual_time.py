"""An event loop whose time is virtual: when everything is blocked, it jumps to the next deadline.

Real sockets work: data on loopback is there as soon as it was sent, so the loop looks for it before each jump. Work
in threads counts as not blocked.
"""

from __future__ import annotations

import asyncio
import selectors
import threading
from collections.abc import Callable
from typing import Any

SETTLE = 0.0005
"""Real seconds to look for socket data before time jumps: the kernel may deliver it a moment later."""


class _JumpingSelector:
    """Waits for sockets without waiting for time."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self._loop = loop
        self._real = selectors.DefaultSelector()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def select(self, timeout: float | None = None) -> Any:
        events = self._real.select(0)
        if events or (timeout is not None and timeout <= 0):
            return events
        if timeout is None or self._loop.busy_threads:
            return self._real.select(0.05 if self._loop.busy_threads else None)
        events = self._real.select(SETTLE)
        if not events:
            self._loop.jump(timeout)
        return events


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        self._now = 1000.0
        self._lock = threading.Lock()
        self.busy_threads = 0
        super().__init__(_JumpingSelector(self))  # type: ignore[arg-type]  # a selector in all it is asked for

    def time(self) -> float:
        """Give the virtual time."""
        return self._now

    def jump(self, seconds: float) -> None:
        """Let time pass at once; also for tests of a machine that slept."""
        self._now += seconds

    def run_in_executor(  # type: ignore[override]  # the base is generic in what the function gives
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> Any:
        """Count the work in threads, in which no time passes."""
        work = ThreadWork(self, func)
        try:
            future = super().run_in_executor(executor, work, *args)
        except BaseException:
            work.reported()
            raise
        future.add_done_callback(lambda _: work.reported())
        return future

    def count(self, change: int) -> None:
        """Note that work in a thread began or ended."""
        with self._lock:
            self.busy_threads += change


class ThreadWork:
    """A function for a thread, counted until its result has been reported back to whoever waits."""

    def __init__(self, loop: VirtualTimeLoop, func: Callable[..., Any]) -> None:
        self._loop = loop
        self._func = func
        self._counted = True
        loop.count(+1)

    def __call__(self, *args: Any) -> Any:
        """Run, in the thread."""
        return self._func(*args)

    def reported(self) -> None:
        """Count it no more: its result is there, or nobody waits for it."""
        if self._counted:
            self._counted = False
            self._loop.count(-1)
