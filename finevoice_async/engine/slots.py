"""Slots of the caller's own, which may raise anything: nothing of it reaches a bystander."""

from __future__ import annotations

import asyncio
import logging

from finevoice_async.errors import SubmitNotSentError
from finevoice_async.ports import Slots

log = logging.getLogger("finevoice_async")


class GuardedSlots:
    """Passes calls on to another's `Slots`.

    A fault while taking a slot is the error of whoever wanted it; any other is logged.
    """

    def __init__(self, slots: Slots) -> None:
        self._slots = slots

    def __repr__(self) -> str:
        return f"<GuardedSlots of a {type(self._slots).__name__}>"

    def try_acquire(self) -> object | None:
        """Take a slot if one is free now.

        Raises:
            SubmitNotSentError: It failed.
        """
        try:
            return self._slots.try_acquire()
        except (Exception, asyncio.CancelledError) as error:
            raise _not_sent(error) from error

    async def acquire(self) -> object:
        """Wait for a slot and take it.

        Raises:
            SubmitNotSentError: It failed.
        """
        try:
            return await self._slots.acquire()
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise _not_sent(error) from error  # nobody cancelled this wait: it is a fault of the slots
        except Exception as error:
            raise _not_sent(error) from error

    def occupy(self) -> object | None:
        """Take a slot at once, free or not; None if that fails: the task runs all the same."""
        try:
            return self._slots.occupy()
        except (Exception, asyncio.CancelledError):
            log.exception("the shared slots failed to take a slot for a task that runs already")
            return None

    def release(self, slot: object) -> None:
        """Give a slot back."""
        try:
            self._slots.release(slot)
        except (Exception, asyncio.CancelledError):
            log.exception("the shared slots failed to take a slot back")

    def slow_down(self, seconds: float) -> None:
        """Use fewer slots for a while."""
        try:
            self._slots.slow_down(seconds)
        except (Exception, asyncio.CancelledError):
            log.exception("the shared slots failed to slow down")

    @property
    def waiting(self) -> int:
        """How many wait for a slot; 0 if that fails."""
        try:
            return self._slots.waiting
        except (Exception, asyncio.CancelledError):
            log.exception("the shared slots failed to say how many wait")
            return 0

    async def aclose(self) -> None:
        """Close nothing: they are the caller's."""


def _not_sent(error: BaseException) -> SubmitNotSentError:
    return SubmitNotSentError(f"The shared slots failed ({type(error).__name__}). Nothing was sent and nothing paid.")
