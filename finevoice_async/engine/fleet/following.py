"""Rows that another living session acts for: no second slot, no second poller, but the same news.

Each followed row is read again whenever the store says that it changed. So a task that is polled elsewhere ends here,
too; and where nobody acts for a row any more, whoever waits for it here goes on with it.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable

import attrs

from finevoice_async.core.ledger import GIVEN_UP, MAY_BE_PAID, EffectState, JournalRow
from finevoice_async.core.tasks import TaskStatus
from finevoice_async.core.text import sentence
from finevoice_async.engine.fleet.books import WITHDRAWN, SharedBookkeeper
from finevoice_async.engine.inflight import InFlight
from finevoice_async.engine.poller import Poller
from finevoice_async.engine.records import Phase, Result, Submission, TaskRecord
from finevoice_async.engine.registry import Registry
from finevoice_async.engine.rows import about, unknown_error
from finevoice_async.errors import FineVoiceError, SessionClosedError, SubmitNotSentError
from finevoice_async.ports import Begun, Clock

log = logging.getLogger("finevoice_async")

_LASTING = (WITHDRAWN, GIVEN_UP)
"""How the error begins of a row that was refused by somebody's wish; it is not begun anew by who waits for it."""


@attrs.define(eq=False)
class _Followed:
    """A row of another session's, and who waits for it here."""

    row: JournalRow
    changed: asyncio.Event = attrs.field(factory=asyncio.Event)
    record: TaskRecord | None = None  # once its task is known
    submissions: dict[Submission, None] = attrs.field(factory=dict)  # who waits for that
    job: asyncio.Task[None] = attrs.field(init=False)


class Following:
    """Owns what is followed."""

    def __init__(
        self, books: SharedBookkeeper, poller: Poller, inflight: InFlight, registry: Registry, clock: Clock
    ) -> None:
        self._books = books
        self._registry = registry
        self._poller = poller
        self._inflight = inflight
        self._clock = clock
        # All mutable state:
        self._by_row: dict[int, _Followed] = {}
        self._jobs: set[asyncio.Task[None]] = set()
        self._finish: Callable[[Submission, Result], None]  # ends a submission; set by `serve`
        self._go_on: Callable[[Submission], None]  # goes on with one that nobody acts for
        self._closed = False

    def __repr__(self) -> str:
        return f"<Following {len(self._by_row)} rows>"

    def serve(self, finish: Callable[[Submission, Result], None], go_on: Callable[[Submission], None]) -> None:
        """Have submissions ended, and gone on with where nobody acts for their rows any more."""
        self._finish, self._go_on = finish, go_on

    # Who waits

    def follow(self, submission: Submission, row: JournalRow) -> None:
        """Let a submission wait for what another session makes of its row."""
        submission.phase, submission.row, submission.state = Phase.FOLLOWED, row, row.state
        if submission.launch_watchers:
            submission.launched()
        followed = self._of(row)
        followed.submissions[submission] = None
        followed.changed.set()

    async def source_of(self, row: JournalRow) -> JournalRow | TaskRecord | Submission:
        """Return the row as it is now, if no other living session acts for it; else what follows it.

        Raises:
            JournalError: The row could not be read.
        """
        found = await self._books.whose(row.id)
        if found is None or not found.elsewhere or self._closed:
            return row if found is None else found.row
        row = found.row
        if row.state is EffectState.SUBMITTED:
            followed = self._of(row)
            followed.record = followed.record or self._record(row)
            return followed.record
        while (known := self._registry.of_row(row)) is not None and known.phase is Phase.BEGINNING:
            await known.until_begun()
        if known is not None:  # one of a row at a time: two would take its slot from one another
            return known
        submission = Submission(row.request, row.key, row, left_behind=True)
        self._registry.add(submission)
        self.follow(submission, row)
        if self._books.watching is not None:
            self._books.watching.queued(submission)
        return submission

    def adopted(self, row: JournalRow) -> None:
        """A row that runs is this session's from now on: its task is asked for, and who followed it hears as before."""
        followed = self._by_row.get(row.id)
        if followed is not None:
            self._take_in(followed, Begun(row, is_mine=False))
        elif not self._closed:
            try:
                self._poller.pick_up(row)
            except FineVoiceError as error:
                log.warning("row %d, which nobody follows, cannot be followed here: %s", row.id, error)

    def _of(self, row: JournalRow) -> _Followed:
        followed = self._by_row.get(row.id)
        if followed is None:
            followed = self._by_row[row.id] = _Followed(row)
            followed.job = asyncio.create_task(
                self._read(followed), name=f"finevoice-follow-{row.id}", context=contextvars.Context()
            )
            self._jobs.add(followed.job)
            followed.job.add_done_callback(self._ended)
        return followed

    # What becomes of rows

    async def _read(self, followed: _Followed) -> None:
        """Read a row whenever it has changed, until it is followed no more."""
        row_id = followed.row.id
        unwatch = self._books.watch(row_id, followed.changed.set)
        try:
            followed.changed.set()  # it may have changed since it was read
            while self._by_row.get(row_id) is followed:
                await followed.changed.wait()
                followed.changed.clear()
                try:
                    found = await self._books.whose(row_id)
                except FineVoiceError as error:
                    self._fail(followed, error)
                    return
                if self._by_row.get(row_id) is followed:
                    self._take_in(followed, found)
        finally:
            unwatch()

    def _ended(self, job: asyncio.Task[None]) -> None:
        self._jobs.discard(job)
        if not job.cancelled() and job.exception() is not None:
            log.critical("an unexpected error in what follows a row", exc_info=job.exception())
            for followed in [each for each in self._by_row.values() if each.job is job]:
                self._fail(followed, FineVoiceError("Following it failed; this is a bug of the library."))

    def _take_in(self, followed: _Followed, found: Begun | None) -> None:
        """A row was read: tell who waits, or follow it on."""
        if found is None:
            self._fail(followed, about(FineVoiceError(f"Row {followed.row.id} of the journal is gone."), followed.row))
            return
        row = followed.row = found.row
        for submission in followed.submissions:
            submission.state = row.state
        if row.state is EffectState.SUBMITTED:
            live = self._inflight.tasks.get(str(row.task_id))
            record = followed.record = followed.record or live or self._record(row)
            record.task_id = row.task_id
            self._tell(followed, record)
            if not found.elsewhere and live in (None, record):  # else two records are of it: this one hears by the row
                self._drop(followed)
                if live is None:
                    self._hand_over(record)
        elif not found.elsewhere and row.state is not EffectState.SENDING:
            self._drop(followed)
            self._over(followed, row)

    def _hand_over(self, record: TaskRecord) -> None:
        """Ask for a task from now on: nobody else does."""
        try:
            self._inflight.hold_slot(record)
            self._poller.track(record)
        except FineVoiceError as error:
            self._inflight.leave(record, error)

    def _over(self, followed: _Followed, row: JournalRow) -> None:
        """Nobody acts for a row: it has ended, or waits for whoever wants it."""
        record = TaskRecord.of_row(row, now=self._clock.monotonic(), utcnow=self._clock.utcnow())
        if followed.record is not None:
            known, end = followed.record, record.end
            known.status, known.end, known.saved_as = record.status, end, record.saved_as
            record = known
            if end is not None:
                if self._books.watching is not None:
                    self._books.watching.ended(known)
                known.tell(end)
        for submission in followed.submissions:
            self._settle(submission, row, record)

    def _settle(self, submission: Submission, row: JournalRow, record: TaskRecord) -> None:
        wanted = bool(submission.listeners)
        if row.state is EffectState.REFUSED:
            words = row.error or ""
            if wanted and row.key is not None and not words.startswith(_LASTING):
                self._go_on(submission)  # another's try cost nothing; it may have been given up by its own caller
            else:
                words = words if words.startswith(WITHDRAWN) else f"It was not sent: {words}"
                self._finish(submission, about(SubmitNotSentError(sentence(words)), row))
        elif row.state is EffectState.QUEUED or (submission.may_be_paid and row.state in MAY_BE_PAID):
            if wanted:
                self._go_on(submission)
            else:
                self._finish(submission, submission.told(SubmitNotSentError("Nobody waited for it any more.")))
        elif row.state is EffectState.UNKNOWN:
            self._finish(submission, unknown_error(row))
        else:
            self._finish(submission, record)

    def _tell(self, followed: _Followed, result: Result) -> None:
        submissions, followed.submissions = followed.submissions, {}
        for submission in submissions:
            self._finish(submission, result)

    def _fail(self, followed: _Followed, error: FineVoiceError) -> None:
        self._drop(followed)
        self._tell(followed, error)
        if followed.record is not None and followed.record.end is None:
            self._inflight.leave(followed.record, error)

    def _drop(self, followed: _Followed) -> None:
        """Follow it no more."""
        self._by_row.pop(followed.row.id, None)
        followed.changed.set()  # its job ends

    def _record(self, row: JournalRow) -> TaskRecord:
        record = TaskRecord.of_row(row, now=self._clock.monotonic(), utcnow=self._clock.utcnow())
        record.status = TaskStatus.PENDING  # another asks; what is known here is that it was accepted
        return record

    # Closing

    @property
    def jobs(self) -> list[asyncio.Task[None]]:
        """What runs, and must end before the session has closed."""
        return list(self._jobs)

    def close(self) -> None:
        """Follow nothing more; whoever waits hears that the session is closed."""
        self._closed = True
        for followed in list(self._by_row.values()):
            self._drop(followed)
            for submission in followed.submissions:
                words = "The session was closed. Another one acts for the effect."
                self._finish(submission, about(SessionClosedError(words), followed.row))
            if followed.record is not None:
                self._inflight.leave(followed.record, followed.record.closed_error())
            followed.job.cancel()
