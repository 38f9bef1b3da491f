"""Submissions that wait for a slot: owners take turns, and each owner's are first come, first served."""

from __future__ import annotations

from collections import OrderedDict

from finevoice_async.engine.records import Phase, Submission
from finevoice_async.ports import Slots


class SlotQueue:
    """Matches submissions with slots. It decides; whoever asks launches.

    Attributes:
        count: How many wait.
    """

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        # All mutable state:
        # By owner; who is next in turn stands first. A plain dict would go past all who have left to find its first.
        self._lines: OrderedDict[str | None, OrderedDict[Submission, None]] = OrderedDict()
        self.count = 0

    def add(self, submission: Submission) -> None:
        """Let a submission wait."""
        submission.phase = Phase.QUEUED
        line = self._lines.get(submission.owner)
        if line is None:
            line = self._lines[submission.owner] = OrderedDict()
        line[submission] = None
        self.count += 1

    def discard(self, submission: Submission) -> None:
        """Let a submission wait no more. Idempotent."""
        line = self._lines.get(submission.owner)
        if line is None or submission not in line:
            return
        del line[submission]
        self.count -= 1
        if not line:
            del self._lines[submission.owner]

    def all(self) -> list[Submission]:
        """Return who waits, owner by owner."""
        return [submission for line in self._lines.values() for submission in line]

    def first(self) -> Submission | None:
        """Return who is next."""
        for line in self._lines.values():
            return next(iter(line))
        return None

    def _take(self, submission: Submission) -> None:
        """Let the first go; its owner's turn comes again after all others'."""
        self._lines.move_to_end(submission.owner)
        self.discard(submission)

    def position(self, submission: Submission) -> int | None:
        """Return its place in line, 1 for who is next; None if it does not wait here.

        With as many entries as wait, so it is asked for by people, not by loops.
        """
        mine = self._lines.get(submission.owner)
        if mine is None or submission not in mine:
            return None
        before = list(mine).index(submission)
        place, turn = before + 1, 1  # the owners before it in turn go once more
        for owner, line in self._lines.items():
            if owner == submission.owner:
                turn = 0
            else:
                place += min(len(line), before + turn)
        return place

    def match(self) -> tuple[Submission, object] | None:
        """Take a slot for whoever is next, if one is free now; None if not, or if nobody waits.

        Raises:
            SubmitNotSentError: Slots of the caller's own failed.
        """
        submission = self.first()
        slot = None if submission is None else self._slots.try_acquire()
        if submission is None or slot is None:
            return None
        self._take(submission)
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
        self._take(submission)
        return submission, slot
