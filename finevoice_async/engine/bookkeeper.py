"""The one place where an effect's state moves: each step is told here once, and is journalled, logged and counted.

Without a journal nothing is kept, and every step costs a count and a line in the log.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from finevoice_async.core.ledger import MAY_BE_PAID, MOVES, EffectState, JournalRow, Move, given_up
from finevoice_async.core.tasks import TaskStatus, TaskUpdate
from finevoice_async.engine.journal_calls import called, journalled, log_fault, nothing_sent
from finevoice_async.engine.records import Submission, TaskRecord
from finevoice_async.engine.rows import about
from finevoice_async.errors import (
    ConfigurationError,
    InvalidRequestError,
    JournalError,
    SessionClosedError,
    TaskFailedError,
    TaskNotFoundError,
)
from finevoice_async.ports import Begun, Journal, TaskIdTakenError

if TYPE_CHECKING:
    from finevoice_async.engine.watching import Watching

log = logging.getLogger("finevoice_async")

T = TypeVar("T")

PAGE = 500
"""Rows read at once: a journal may hold any number."""

_ORIGIN = "origin"  # the name under which the journal keeps whose effects it holds


class Bookkeeper:
    """The only writer of the journal, and its reader."""

    def __init__(self, journal: Journal | None, watching: Watching | None = None) -> None:
        """Set it up; open it later.

        Args:
            journal: Where rows are kept; None keeps none. It may be the caller's own, and raise anything.
            watching: Tells the observer, if there is one: by whoever makes a step, right after it was told here.
        """
        self._journal = journal
        self.watching = watching
        self.has_journal = journal is not None
        # All mutable state:
        self.accepted = 0  # submissions that the service accepted
        self.completed = 0  # tasks that ended with a result
        self.failed = 0  # tasks that ended without one
        self.unanswered = 0  # submissions that were cut off before their answers came
        self._opened = False
        self._closed = False

    def _required(self) -> Journal:
        if self._journal is None:
            raise ConfigurationError("This needs a journal: FineVoiceSession(journal='effects.db').")
        return self._journal

    async def open(self) -> None:
        """Open the journal. After a failure it may be tried again.

        Raises:
            JournalError: It could not be opened.
        """
        if self._journal is not None and not self._opened:
            await journalled(self._journal.open())
            self._opened = True

    async def claim(self, origin: str) -> None:
        """Check that the journal is of this service; one that is nobody's yet is from now on.

        Raises:
            JournalError: It is another's.
        """
        if self._journal is None:
            return
        owner = await self.load(_ORIGIN)
        if owner is None:
            await journalled(called(self._journal.store, _ORIGIN, origin))
        elif owner != origin:
            raise JournalError(
                f"The journal holds effects of {owner}, but the session is with {origin}: what one service has made, "
                "another does not know. Give each a journal of its own. If it is the same service at a new address, "
                f"delete the line {_ORIGIN!r} from the journal's table `notes`; the next opening writes it anew."
            )

    async def aclose(self, notes: dict[str, str]) -> None:
        """Keep the last notes, commit what was written, and close. A fault is logged: nobody could mend it here."""
        self._closed = True
        if self._journal is None:
            return
        try:
            if self._opened:
                for name, text in notes.items():
                    called(self._journal.store, name, text).add_done_callback(partial(log_fault, name))
            await journalled(self._journal.aclose())
        except JournalError:
            log.exception("the journal could not be closed")

    async def load(self, name: str) -> str | None:
        """Return the text kept under a name, if any."""
        return None if self._journal is None else await journalled(self._journal.load(name))

    # Reading

    async def row(self, row_id: int) -> JournalRow | None:
        """Return a row as it stands now.

        Raises:
            ConfigurationError: There is no journal.
            JournalError: It could not be read.
        """
        return await self._asked(self._required().row(row_id=row_id))

    async def row_of(self, *, key: str | None = None, task_id: str | None = None) -> JournalRow | None:
        """Return the row with this key or task id; None without one, or without a journal."""
        return None if self._journal is None else await self._asked(self._journal.row(key=key, task_id=task_id))

    async def rows(self, *states: EffectState) -> AsyncIterator[JournalRow]:
        """Yield every row in these states (none named: in any), a page at a time, in the order of their numbers.

        Raises:
            ConfigurationError: There is no journal.
            JournalError: It could not be read.
        """
        journal, after = self._required(), 0
        while page := await self._asked(journal.rows(*states, after=after, limit=PAGE)):
            for row in page:
                yield row
            after = page[-1].id

    async def left_behind(self) -> AsyncIterator[JournalRow]:
        """Yield each row once that is not settled, as it stands when it is yielded.

        First what is unknown, runs or is done, and last what is to be sent: that waits for slots.

        Raises:
            ConfigurationError: There is no journal.
            JournalError: It could not be read.
        """
        journal = self._required()
        known = (*MAY_BE_PAID, EffectState.SUBMITTED, EffectState.DONE)
        ids = await self._asked(journal.row_ids(*known))
        ids += await self._asked(journal.row_ids(EffectState.QUEUED))
        for row_id in ids:
            row = await self.row(row_id)  # it may have moved since
            if row is not None and row.state in (*known, EffectState.QUEUED):
                yield row

    async def sent_since(self, moment: datetime) -> list[datetime]:
        """Return when each submission left, from a moment on, that may have been accepted."""
        return await journalled(self._required().sent_since(moment))

    # A submission's steps

    def found(self, begun: asyncio.Future[Begun]) -> Begun:
        """Return what `begin` brought, once it is there.

        Raises:
            JournalError: The row could not be written.
        """
        try:
            return begun.result()
        except (Exception, asyncio.CancelledError) as error:
            raise nothing_sent(error) from error

    def begin(self, submission: Submission, state: EffectState, again: Move = Move.QUEUE) -> None:
        """Write a submission's row, or look up the one that its key has: `submission.begun` is the answer to come.

        Raises:
            JournalError: It could not be called.
        """
        journal = self._required()
        submission.state = state
        try:
            begun = journal.begin(submission.request, key=submission.key, state=state, again=again)
        except Exception as error:
            raise nothing_sent(error) from error
        submission.begun = begun

    async def sending(self, submission: Submission) -> bool:
        """Have it on disk that a POST may leave, before it does. False: the row says that it must not.

        Raises:
            JournalError: It could not be written; then nothing may be sent.
        """
        if submission.row is None:
            self.begin(submission, EffectState.SENDING)
            assert submission.begun is not None  # noqa: S101 - `begin` sees to it
            await asyncio.wait([submission.begun])  # the writing goes on if this is cancelled
            submission.row = self.found(submission.begun).row
            return True
        move = Move.RESEND if submission.may_be_paid else Move.SEND
        before, submission.state = submission.state, EffectState.SENDING
        try:
            moved = await self._moved(submission.row.id, move)
        except JournalError as error:
            submission.state = before
            raise nothing_sent(error) from error
        if not moved:
            submission.state = before
        return moved

    async def held(self, submission: Submission, why: str) -> None:
        """Note that it was not accepted this time, and waits to be sent again."""
        log.info("submission waits: %s", why)
        await self._note_submission(submission, Move.REVERT if submission.may_be_paid else Move.HOLD, why)

    async def refused(self, submission: Submission, why: str) -> None:
        """Note that it certainly was not accepted, and will not be sent again."""
        log.info("submission failed: %s", why)
        await self._note_submission(submission, Move.REVERT if submission.may_be_paid else Move.REFUSE, why)

    async def unknown(self, submission: Submission, why: str) -> None:
        """Note that nobody knows whether it was accepted."""
        log.warning("submission unknown: %s", why)
        submission.may_be_paid = True
        await self._note_submission(submission, Move.DOUBT, why)

    async def _note_submission(self, submission: Submission, move: Move, why: str) -> None:
        """Note what became of a POST. A journal that fails must not hide it: after a crash the row is unknown."""
        if submission.row is None:
            return
        submission.state = MOVES[move][1]
        submission.note = note = called(self._required().move, submission.row.id, move, error=why)
        await asyncio.wait([note])  # it goes on if this is cancelled
        if not note.cancelled() and (fault := note.exception()) is not None:
            log.error("the journal could not note what became of a submission: %s", fault)

    def withdrawn(self, submission: Submission, why: str, *, doubt: bool) -> asyncio.Future[bool] | None:
        """Note that it will not be sent (any more) by this session; return what tells that it is on disk, if anything.

        What an earlier process wished for stays queued, what may be paid for stays unknown. The call itself puts it in
        order: whoever begins with the same key afterwards finds it withdrawn.

        Args:
            submission: The submission.
            why: In words, for the row.
            doubt: Its POST may have been accepted.
        """
        self.unanswered += doubt
        log.log(logging.WARNING if doubt else logging.INFO, "submission %s: %s", "unknown" if doubt else "ended", why)
        if self._journal is None or submission.row is None:
            return None
        move = Move.REFUSE
        if doubt or submission.may_be_paid:
            move = Move.DOUBT if doubt else Move.REVERT
        elif submission.outlives:
            move = Move.HOLD
        if submission.state not in MOVES[move][0]:
            return None
        submission.state = MOVES[move][1]
        return called(self._journal.move, submission.row.id, move, error=why)

    def accepted_as(self, submission: Submission, record: TaskRecord) -> asyncio.Future[bool] | None:
        """Note that the service accepted it; None if there is nothing to note. Await it with `noted`."""
        self.accepted += 1
        log.info("task %s submitted", record.task_id)
        note = None
        if self._journal is not None and submission.row is not None and record.task_id is not None:
            submission.state = EffectState.SUBMITTED
            submission.note = note = called(self._journal.move, submission.row.id, Move.ACCEPT, task_id=record.task_id)
        if self.watching is not None:
            self.watching.accepted(submission, record)
        return note

    async def noted(self, note: asyncio.Future[bool], record: TaskRecord) -> None:
        """Wait until the task id is on disk.

        Raises:
            TaskIdTakenError: The id belongs to another row.
            JournalError: It could not be written; the error has the task id.
        """
        await asyncio.wait([note])  # it goes on if this is cancelled
        try:
            kept = await journalled(note)
        except TaskIdTakenError:
            raise
        except JournalError as error:
            fault = error
        else:
            if kept:
                return
            fault = JournalError("Its row was moved by somebody else meanwhile.")
        log.critical("task %s was submitted, but the journal failed: %s", record.task_id, fault)
        record.id_kept = False
        raise JournalError(
            f"Task {record.task_id} was submitted and runs, but the journal could not keep its id: {fault.message} "
            "Note the id; attach(task_id) waits for it.",
            task_id=record.task_id,
            key=record.key,
            request=record.request,
        ) from fault

    # A task's steps

    def ended(self, record: TaskRecord) -> None:
        """Note how a task ended. The journal is told, behind."""
        done = isinstance(record.end, TaskUpdate)
        self.completed, self.failed = self.completed + done, self.failed + (not done)
        log.info("task %s ended: %s", record.task_id, record.status.value)
        if self._journal is None or record.row_id is None:
            return
        if not record.id_kept:  # the disk may work again
            self._note(record.row_id, Move.ACCEPT, task_id=record.task_id)
        if isinstance(record.end, TaskUpdate):
            move = Move.ANSWER if record.task_id is None else Move.FINISH
            self._note(record.row_id, move, task_id=record.task_id, urls=record.end.urls)
        elif isinstance(record.end, TaskFailedError) and record.status is TaskStatus.FAILED:
            self._note(record.row_id, Move.FAIL, task_id=record.task_id, error=record.end.message)
        elif isinstance(record.end, TaskNotFoundError):
            self._note(record.row_id, Move.LOSE, task_id=record.task_id, error=record.end.message)

    def _note(self, row_id: int, move: Move, **fields: Any) -> None:
        """Write a fact that nobody waits for."""
        note = called(self._required().move, row_id, move, **fields)
        note.add_done_callback(partial(log_fault, f"{move.value!r} of row {row_id}"))

    async def saved(self, row_id: int | None, *, path: str | None, sha256: str | None) -> None:
        """Note that the result is where the caller wants it.

        Raises:
            JournalError: It could not be written.
        """
        if (
            self._journal is not None
            and row_id is not None
            and not await self._moved(row_id, Move.SAVE, path=path, sha256=sha256)
        ):
            log.warning("row %d of the journal could not be noted as saved: it is not done", row_id)

    # The caller's steps

    async def to_settle(self, row: JournalRow, *more: EffectState) -> JournalRow:
        """Return a row as it is now, if it may be paid for, or is in one of the states that are named.

        Raises:
            InvalidRequestError: It is settled.
            ConfigurationError: There is no journal.
            JournalError: It could not be read.
        """
        current = await self.row(row.id)
        if current is None or current.state not in (*MAY_BE_PAID, *more):
            state = "gone" if current is None else current.state.value
            words = f"Row {row.id} is {state}, not unknown: there is nothing to settle."
            raise about(InvalidRequestError(words), current)
        return current

    async def adopt(self, row: JournalRow, task_id: str) -> JournalRow:
        """Let the caller name the task of a row that may be paid for; return the row as it is then.

        Raises:
            InvalidRequestError: The id belongs to another row, or the row was settled meanwhile.
            JournalError: It could not be written.
        """
        try:
            moved = await self._asked(self._moved(row.id, Move.ADOPT, task_id=task_id))
        except TaskIdTakenError as error:
            words = f"Row {row.id} cannot get task {task_id}: {error}"
            raise about(InvalidRequestError(words, task_id=task_id), row) from error
        current = await self.row(row.id)
        if current is None or not moved:
            raise about(InvalidRequestError(f"Row {row.id} was settled meanwhile."), current)
        return current

    async def discard(self, row: JournalRow) -> None:
        """Let the caller give up a row that may be paid for, or was never sent.

        Raises:
            InvalidRequestError: It was settled meanwhile.
            JournalError: It could not be written.
        """
        if not await self._asked(self._moved(row.id, Move.DISCARD, error=given_up(row))):
            raise about(InvalidRequestError(f"Row {row.id} was settled meanwhile."), await self.row(row.id))

    async def _moved(self, row_id: int, move: Move, **fields: Any) -> bool:
        return await journalled(called(self._required().move, row_id, move, **fields))

    async def _asked(self, job: Awaitable[T]) -> T:
        """Await what a caller asks of the journal; whoever asks while it closes hears just that."""
        try:
            return await journalled(job)
        except JournalError as error:
            if not self._closed:
                raise
            closed = SessionClosedError("The session was closed meanwhile; rows() of a later one tells how it stands.")
            closed.paid = None
            raise closed from error
