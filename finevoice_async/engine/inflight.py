"""The tasks in flight: their slots, their ends, and whether anybody asks for them at all."""

from __future__ import annotations

import logging
import math

from finevoice_async.core.text import shorten
from finevoice_async.engine.bookkeeper import Bookkeeper
from finevoice_async.engine.records import News, TaskRecord
from finevoice_async.errors import FineVoiceError, PollError
from finevoice_async.ports import Slots

log = logging.getLogger("finevoice_async")

MOST_NAMED = 50
"""Tasks that one line of the log names at most: five times the largest plan."""


class InFlight:
    """Owns the tasks that are not known to have ended."""

    def __init__(self, slots: Slots, bookkeeper: Bookkeeper) -> None:
        self._slots = slots
        self._bookkeeper = bookkeeper
        self.watching = bookkeeper.watching
        # All mutable state:
        self.tasks: dict[str, TaskRecord] = {}  # by task id, in the order of submission; ended ones leave
        self._broken: str | None = None  # what the poller died of
        self._closed = False

    def __repr__(self) -> str:
        return f"<InFlight of {len(self.tasks)} tasks>"

    def check(self, record: TaskRecord | None = None) -> None:
        """Raise if nobody would ask for a task any more.

        Raises:
            PollError: The poller died.
            SessionClosedError: The session was closed.
        """
        if self._closed and record is not None:
            raise record.closed_error()
        if self._broken is not None:
            raise self._broken_error(record)

    def _broken_error(self, record: TaskRecord | None) -> PollError:
        return PollError(
            f"The poller died ({self._broken}). What was submitted runs on; attach(task_id) in a new session.",
            task_id=None if record is None else record.task_id,
            key=None if record is None else record.key,
            request=None if record is None else record.request,
        )

    def add(self, record: TaskRecord) -> None:
        """Take a task in; its id is not in flight yet.

        Raises:
            PollError: The poller died.
            SessionClosedError: The session was closed.
        """
        self.check(record)
        self.tasks[str(record.task_id)] = record
        record.followed = True

    def of_row(self, row_id: int) -> TaskRecord | None:
        """Return the task of a row, if it is in flight. Rare, so it is looked for among all."""
        return next((record for record in self.tasks.values() if record.row_id == row_id), None)

    def hold_slot(self, record: TaskRecord) -> None:
        """See to it that a task that runs at the service has a slot, free or not.

        Not once the poller died: what is left of it may still hear of a task, but perhaps never of its end.
        """
        if record.slot is None and self._broken is None:
            record.slot = self._slots.occupy()

    def _free_slot(self, record: TaskRecord) -> None:
        if record.slot is not None:
            slot, record.slot = record.slot, None
            self._slots.release(slot)

    def drop(self, record: TaskRecord, why: FineVoiceError) -> None:
        """Follow a task no more, and give its slot back; nothing is known of its end, and its watchers hear why."""
        self._forget(record)
        record.tell(why)

    def _forget(self, record: TaskRecord) -> None:
        record.due = math.inf
        if record.followed:
            record.followed = False
            task_id = str(record.task_id)
            if self.tasks.get(task_id) is record:
                del self.tasks[task_id]
        self._free_slot(record)

    def end(self, record: TaskRecord, end: News) -> None:
        """End a task: first its slot is free, then the books and the observer are told, then whoever watches it."""
        record.end = end
        self._forget(record)
        self._bookkeeper.ended(record)
        if self.watching is not None:
            self.watching.ended(record)
        record.tell(end)

    def break_down(self, why: str) -> None:
        """The poller died: every watcher hears, and whoever comes later."""
        log.critical("the poller died (%s); %d tasks are not watched any more", why, len(self.tasks))
        self._broken = why
        for record in list(self.tasks.values()):
            self._free_slot(record)  # nobody here will see its end, and who waits for a slot must hear
            self.leave(record, self._broken_error(record))

    def leave(self, record: TaskRecord, why: FineVoiceError) -> None:
        """Tell that nobody here hears of a task any more, and why."""
        if self.watching is not None and record.watched is not None:
            self.watching.left(record, why)
        record.tell(why)

    def close(self) -> None:
        """Tell every watcher, in the order of submission, and give the slots back. Idempotent.

        The tasks run on at the service, but nobody here will see them end; slots that others share must not stay taken.
        """
        if not self._closed and not self._bookkeeper.has_journal:
            self._warn_of_what_is_left()
        self._closed = True
        for record in list(self.tasks.values()):
            self._free_slot(record)
            self.leave(record, record.closed_error())

    def _warn_of_what_is_left(self) -> None:
        """Name what no journal keeps, so that it is found somewhere."""
        running, unanswered = list(self.tasks), self._bookkeeper.unanswered
        words = []
        if running:
            named = ", ".join(shorten(task_id) for task_id in running[:MOST_NAMED])
            more = f" and {len(running) - MOST_NAMED} more" if len(running) > MOST_NAMED else ""
            words.append(f"tasks that run on, for attach(task_id): {named}{more}")
        if unanswered:
            words.append(f"submissions that were unanswered, and may have been paid for: {unanswered}")
        if words:
            log.warning("the session closed without a journal; %s", "; ".join(words))
