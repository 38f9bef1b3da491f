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

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        """Count the work in threads, in which no time passes."""
        return super().run_in_executor(executor, self.counted(func), *args)

    def counted(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap work for a thread so that time stands still until it has been reported back."""
        with self._lock:
            self.busy_threads += 1

        def run(*args: Any) -> Any:
            try:
                return func(*args)
            finally:
                # The result is posted right after this; the loop hears of both in this order.
                self.call_soon_threadsafe(self._less_busy)

        return run

    def _less_busy(self) -> None:
        # One more turn: the result's own callback was posted behind this one.
        self.call_soon(self._really_less_busy)

    def _really_less_busy(self) -> None:
        with self._lock:
            self.busy_threads -= 1
