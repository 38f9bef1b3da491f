"""Stopping a batch: asked once it ends in good order, asked twice at once."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Stopping:
    """Turns Ctrl-C and SIGTERM into a stop, then into a cancellation.

    Attributes:
        asked: Set by the first signal.
        at_once: The second one has come, too.
    """

    def __init__(self, told: Callable[[], object]) -> None:
        """Set it up.

        Args:
            told: Called once, at the first signal.
        """
        self._told = told
        # All mutable state:
        self.asked = asyncio.Event()
        self.at_once = False
        self._signal = signal.SIGINT
        self._job: asyncio.Task[Any] | None = None

    @property
    def code(self) -> int:
        """The exit code by the shells' rule."""
        return 128 + self._signal

    async def run(self, job: Coroutine[Any, Any, T]) -> T:
        """Do a job, which the second signal cancels.

        Raises:
            asyncio.CancelledError: It was cancelled.
        """
        self._job = work = asyncio.create_task(job, name="finevoice-batch")
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError:
            self.at_once = True  # where signals do not come here, asyncio cancels at the first
            work.cancel()
            await asyncio.wait([work])
            raise
        return work.result()

    def on(self, number: signal.Signals) -> None:
        """Stop, then cancel, then drop everything."""
        if not self.asked.is_set():
            self._signal = number
            self.asked.set()
            self._told()
        elif not self.at_once:
            self.at_once = True
            if self._job is not None:
                self._job.cancel()
        else:
            raise KeyboardInterrupt  # through the event loop, which drops everything
