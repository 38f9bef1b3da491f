"""Submissions that wait for a slot where the store decides whose turn it is: a slot says for which row it is."""

from __future__ import annotations

from collections import deque

from finevoice_async.engine.records import Submission
from finevoice_async.engine.slot_queue import SlotQueue
from finevoice_async.shared_ports import RowSlot, RowSlots


class RowQueue(SlotQueue):
    """Matches submissions with the slots of their rows."""

    def __init__(self, slots: RowSlots) -> None:
        super().__init__(slots)
        self._row_slots = slots
        # All mutable state of its own:
        self._by_row: dict[int, Submission] = {}  # who waits, by row
        self._early: dict[int, RowSlot] = {}  # of rows that do not wait here yet: the news may be quicker than the row
        self._ready: deque[tuple[Submission, RowSlot]] = deque()  # who came to wait for what was early

    def add(self, submission: Submission) -> None:
        """Let a submission wait; it has a row."""
        assert submission.row is not None  # noqa: S101 - in a fleet each has one before it waits
        self._by_row[submission.row.id] = submission
        super().add(submission)
        if (slot := self._early.pop(submission.row.id, None)) is not None:
            self._ready.append((submission, slot))

    def discard(self, submission: Submission) -> None:
        """Let a submission wait no more. Idempotent."""
        if submission.row is not None and self._by_row.get(submission.row.id) is submission:
            del self._by_row[submission.row.id]
            self._early.pop(submission.row.id, None)
        super().discard(submission)

    def position(self, submission: Submission) -> int | None:
        """Return its place in the fleet's line, as far as that is known; None if it does not wait here."""
        place = super().position(submission)
        if place is None or submission.row is None:
            return place
        return self._row_slots.position(submission.row.id) or place

    def match(self) -> tuple[Submission, object] | None:
        """Take up a slot that a row here has got, if there is one now."""
        while self.count:
            if (matched := self._first_ready()) is not None:
                return matched
            slot = self._row_slots.try_acquire()
            if slot is None:
                return None
            if (matched := self._matched(slot)) is not None:
                return matched
        return None

    async def wait(self) -> tuple[Submission, object] | None:
        """Wait until a row here gets a slot; None if nobody waits for it (yet)."""
        return self._first_ready() or self._matched(await self._row_slots.acquire())

    def _first_ready(self) -> tuple[Submission, RowSlot] | None:
        while self._ready:
            submission, slot = self._ready.popleft()
            if submission.row is not None and self._by_row.get(submission.row.id) is submission:  # else it has left
                self.discard(submission)
                return submission, slot
        return None

    def _matched(self, slot: RowSlot) -> tuple[Submission, RowSlot] | None:
        submission = self._by_row.get(slot.row_id)
        if submission is None:
            self._early[slot.row_id] = slot
            return None
        self.discard(submission)
        return submission, slot
