"""The running event loop's clock."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from datetime import UTC, datetime


class LoopClock:
    """Time as the event loop counts it that uses the clock first, so that every wait in the process agrees."""

    def __init__(self) -> None:
        # The only mutable state: from the first call on the loop's own method, as every request asks several times.
        self.monotonic: Callable[[], float] = self._first_look

    def _first_look(self) -> float:
        """Return the loop's time in seconds."""
        self.monotonic = asyncio.get_running_loop().time
        return self.monotonic()

    def utcnow(self) -> datetime:
        """Return the machine's date and time."""
        return datetime.now(UTC)

    def call_at(self, when: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        """Call back at a loop time, outside of what the caller is doing: a timer may serve many."""
        return asyncio.get_running_loop().call_at(when, callback, context=contextvars.Context())

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)
