"""Submissions that wait for a slot, first come, first served."""

from __future__ import annotations

from finevoice_async.engine.records import Phase, Submission
from finevoice_async.ports import Slots


class SlotQueue:
    """Matches submissions with slots. It decides; whoever asks launches."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self.waiting: dict[Submission, None] = {}  # the only mutable state: who waits, in order

    def __len__(self) -> int:
        return len(self.waiting)

    def add(self, submission: Submission) -> None:
        """Let a submission wait."""
        submission.phase = Phase.QUEUED
        self.waiting[submission] = None

    def discard(self, submission: Submission) -> None:
        """Let a submission wait no more. Idempotent."""
        self.waiting.pop(submission, None)

    def all(self) -> list[Submission]:
        """Return who waits, in order."""
        return list(self.waiting)

    def first(self) -> Submission | None:
        """Return who is next."""
        return next(iter(self.waiting), None)

    def match(self) -> tuple[Submission, object] | None:
        """Take a slot for whoever is next, if one is free now; None if not, or if nobody waits.

        Raises:
            SubmitNotSentError: Slots of the caller's own failed.
        """
        submission = self.first()
        slot = None if submission is None else self._slots.try_acquire()
        if submission is None or slot is None:
            return None
        del self.waiting[submission]
        return submission, slot

    async def wait(self) -> tuple[Submission, object] | None:
        """Wait for a slot, and take it for whoever is next then; None if nobody waits any more.

        Raises:
            SubmitNotSentError: Slots of the caller's own failed.
        """
        slot = await self._slots.acquire()
        submission = self.first()
        if submission is None:
            self._slots.release(slot)
            return None
        del self.waiting[submission]
        return submission, slot
