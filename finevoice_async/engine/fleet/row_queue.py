"""Submissions that wait for a slot where the store decides whose turn it is: a slot says for which row it is."""

from __future__ import annotations

from finevoice_async.engine.records import Submission
from finevoice_async.engine.slot_queue import SlotQueue
from finevoice_async.shared_ports import RowSlots


class RowQueue(SlotQueue):
    """Matches submissions with the slots of their rows."""

    def __init__(self, slots: RowSlots) -> None:
        super().__init__(slots)
        self._row_slots = slots
        self._by_row: dict[int, Submission] = {}  # the only mutable state of its own: who waits, by row

    def add(self, submission: Submission) -> None:
        """Let a submission wait; it has a row."""
        assert submission.row is not None  # noqa: S101 - in a fleet each has one before it waits
        self._by_row[submission.row.id] = submission
        super().add(submission)

    def discard(self, submission: Submission) -> None:
        """Let a submission wait no more. Idempotent."""
        if submission.row is not None and self._by_row.get(submission.row.id) is submission:
            del self._by_row[submission.row.id]
        super().discard(submission)

    def position(self, submission: Submission) -> int | None:
        """Return its place in the fleet's line, as far as that is known; None if it does not wait here."""
        place = super().position(submission)
        if place is None or submission.row is None:
            return place
        return self._row_slots.position(submission.row.id) or place

    def match(self) -> tuple[Submission, object] | None:
        """Take up a slot that a row here has got, if there is one now."""
        while self.count and (slot := self._row_slots.try_acquire()) is not None:
            submission = self._by_row.get(slot.row_id)
            if submission is not None:
                self.discard(submission)
                return submission, slot
            self._row_slots.release(slot)  # whoever waited has left
        return None

    async def wait(self) -> tuple[Submission, object] | None:
        """Wait until a row here gets a slot; None if nobody waits for it any more."""
        slot = await self._row_slots.acquire()
        submission = self._by_row.get(slot.row_id)
        if submission is None:
            self._row_slots.release(slot)
            return None
        self.discard(submission)
        return submission, slot
