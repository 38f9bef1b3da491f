"""How submissions end: each is told once, and never that nothing will be sent before that is on disk."""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Iterable
from functools import partial
from typing import Any, Final

from finevoice_async.engine.bookkeeper import Bookkeeper
from finevoice_async.engine.exchange import ADVICE
from finevoice_async.engine.journal_calls import log_fault
from finevoice_async.engine.records import ANSWERED, ENDED, OUT, UNPAID, Phase, Result, Submission, TaskRecord
from finevoice_async.engine.registry import Registry
from finevoice_async.engine.rows import closed_error
from finevoice_async.engine.slot_queue import SlotQueue
from finevoice_async.errors import FineVoiceError, SubmitNotSentError, SubmitUnknownError
from finevoice_async.ports import Begun, Slots

log = logging.getLogger("finevoice_async")

_NOT_SENT_HERE: Final = (Phase.BEGINNING, Phase.FOLLOWED)


def left_error() -> SubmitNotSentError:
    """Return what is kept of a submission whose callers have all left."""
    return SubmitNotSentError(f"Nobody waited for it any more. {UNPAID}")


class Endings:
    """Ends submissions: gives their slots back, has the books told, and then whoever listens."""

    def __init__(self, bookkeeper: Bookkeeper, registry: Registry, queue: SlotQueue, slots: Slots) -> None:
        self._bookkeeper = bookkeeper
        self._watch = bookkeeper.watching
        self._registry = registry
        self._queue = queue
        self._slots = slots
        self._pending: dict[Submission, asyncio.Future[Any]] = {}  # the only mutable state: what the journal owes

    @property
    def pending(self) -> list[asyncio.Future[Any]]:
        """What must be on disk before somebody is told."""
        return list(self._pending.values())

    def cut_off(self, submission: Submission) -> None:
        """A POST's task was cancelled: by closing, or from outside."""
        self.release(submission)
        if submission.result is not None and submission.note is not None and not submission.note.done():
            self._pending[submission] = submission.note
            submission.note.add_done_callback(partial(self._noted, submission, submission.result))
        elif submission.result is not None:
            self.finish(submission, submission.result)
        elif submission.phase is OUT:
            self.retire(submission, _unanswered(submission))
        elif submission.row is None and submission.begun is not None:
            submission.phase = ANSWERED
            self._pending[submission] = submission.begun
            submission.begun.add_done_callback(partial(self._begun_late, submission))
        else:
            self.retire(submission, closed_error())

    def _noted(self, submission: Submission, result: Result, note: asyncio.Future[bool]) -> None:
        """What became of it is on disk, or cannot be: the journal has logged that."""
        self._pending.pop(submission, None)
        if not note.cancelled():
            note.exception()  # retrieved
        self.finish(submission, result)

    def _begun_late(self, submission: Submission, begun: asyncio.Future[Begun]) -> None:
        """The row that was to say SENDING has come after the POST was called off."""
        self._pending.pop(submission, None)
        if not begun.cancelled() and begun.exception() is None:
            submission.row = begun.result().row
        self.retire(submission, closed_error())

    def retire(self, submission: Submission, error: FineVoiceError) -> None:
        """End a submission that will not be sent (any more); its listeners hear once that is on disk."""
        self._queue.discard(submission)
        submission.phase = ANSWERED
        doubt = isinstance(error, SubmitUnknownError)
        note = self._bookkeeper.withdrawn(submission, error.message, doubt=doubt)
        self._registry.free_key(submission)
        if not doubt:
            error = submission.told(error)
        submission.result, submission.note = error, note
        if note is None:
            self.finish(submission, error)
            return
        self._pending[submission] = note
        note.add_done_callback(partial(self._retired, submission, error))

    def _retired(self, submission: Submission, error: FineVoiceError, note: asyncio.Future[bool]) -> None:
        self._pending.pop(submission, None)
        if note.cancelled() or note.exception() is not None:
            log.error("the journal could not note that row %s is withdrawn", submission.row and submission.row.id)
            error = _unnoted(error)
        self.finish(submission, error)

    def forsake(self, submission: Submission) -> None:
        """Let a keeper go who was promised nothing. It may have ended just before, with its row left for a later one.

        With the last keeper the row is taken back then, unless somebody sends it or looks it up to do so.
        """
        stays = submission.stays_queued
        submission.keepers -= 1
        if not stays or submission.outlives or submission.row is None:
            return
        if self._registry.of_row(submission.row) in (None, submission):
            note = self._bookkeeper.withdrawn(submission, left_error().message, doubt=False)
            if note is not None:
                note.add_done_callback(partial(log_fault, f"that nobody waits for row {submission.row.id}"))

    def release(self, submission: Submission) -> None:
        """Give its slot back, if it still has it. Idempotent."""
        if submission.slot is not None:
            slot, submission.slot = submission.slot, None
            self._slots.release(slot)

    def finish(self, submission: Submission, result: Result) -> None:
        """Tell the listeners what became of it, once."""
        before = submission.phase
        if before is ENDED:
            return
        submission.phase, submission.result, submission.context = ENDED, result, None
        if submission.row is not None or submission.key is not None:
            self._registry.settle(submission)
        if self._watch is not None and (submission.watched is None or submission.watched.task is not result):
            self._watch.settled(submission, result)
        if submission.launch_watchers:
            submission.launched()
        listeners, submission.listeners = submission.listeners, {}
        for listener in listeners:
            listener(_for(submission, result) if isinstance(result, FineVoiceError) else result)
        if not listeners and isinstance(result, TaskRecord) and before not in _NOT_SENT_HERE:
            log.warning("task %s was submitted although its caller was cancelled; it runs on", result.task_id)

    def give_up(self, others: Iterable[Submission] = ()) -> None:
        """Tell whoever has not heard, also of the others: the journal is closed, and will say nothing more."""
        for submission in [*self._pending, *others]:
            result = submission.result
            if result is None:
                result = _unanswered(submission) if submission.phase is OUT else submission.told(closed_error())
            self.finish(submission, _unnoted(result) if isinstance(result, FineVoiceError) else result)


def _for(submission: Submission, error: FineVoiceError) -> FineVoiceError:
    """Return a listener's own copy of an error, which says whose it is."""
    error = copy.copy(error)
    error.key, error.request = submission.key, error.request or submission.request
    return error


def _unanswered(submission: Submission) -> SubmitUnknownError:
    words = f"The session closed before the answer came. {ADVICE[SubmitUnknownError]}"
    return SubmitUnknownError(words, key=submission.key, request=submission.request)


def _unnoted(error: FineVoiceError) -> FineVoiceError:
    """Return the error of a submission whose row may still say QUEUED, or SENDING."""
    if isinstance(error, SubmitUnknownError):
        return error  # a row in doubt is sent by nobody
    error = copy.copy(error)
    error.add_words(
        "The journal could not note that: recover() may send it, or list it as unknown; discard(row) settles it."
    )
    return error
