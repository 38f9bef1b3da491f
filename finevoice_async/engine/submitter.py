"""From a wish to a place in line: callers come and go, and callers of one key share one submission.

A request becomes a `Submission`. Its row is written first, or the row of its key looked up; then it waits for a slot
(see `dispatcher`). Whoever waits for it may leave; with the last one goes what is not being sent right now.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from finevoice_async.core.ledger import EffectState, JournalRow, Move
from finevoice_async.core.requests import SfxRequest
from finevoice_async.engine.bookkeeper import Bookkeeper
from finevoice_async.engine.dispatcher import Dispatcher
from finevoice_async.engine.endings import Endings, left_error
from finevoice_async.engine.gate import Gate
from finevoice_async.engine.inflight import InFlight
from finevoice_async.engine.poller import Poller
from finevoice_async.engine.records import STAYS_QUEUED, Listener, Phase, Submission, TaskRecord, stay
from finevoice_async.engine.registry import FoundRow, Registry
from finevoice_async.engine.rows import about, closed_error, unknown_error
from finevoice_async.engine.sender import Sender
from finevoice_async.engine.slot_queue import SlotQueue
from finevoice_async.engine.withdrawing import Withdrawing
from finevoice_async.errors import (
    FineVoiceError,
    InvalidRequestError,
    JournalError,
    QueueFullError,
    SessionClosedError,
)
from finevoice_async.ports import Begun, Clock, Slots

DISK = 10.0
"""Seconds that rows are given to say what became of them at closing: as long as the journal gives its disk."""


class Submitter(Withdrawing):
    """Owns the submissions that are not known to be accepted or refused."""

    def __init__(
        self,
        sender: Sender,
        poller: Poller,
        inflight: InFlight,
        bookkeeper: Bookkeeper,
        registry: Registry,
        *,
        gate: Gate,
        slots: Slots,
        clock: Clock,
        max_queue: int,
        queue: SlotQueue | None = None,
    ) -> None:
        self._registry = registry
        self._poller = poller
        self._inflight = inflight
        self._bookkeeper = bookkeeper
        self._watch = bookkeeper.watching
        self._clock = clock
        self._max_queue = max_queue
        self._gate = gate
        # All mutable state:
        self._beginning: set[Submission] = set()  # whose rows are being written or looked up
        self._queue = SlotQueue(slots) if queue is None else queue
        self._at_once = True  # what has no row yet may take a slot and leave
        self._endings = Endings(bookkeeper, registry, self._queue, slots)
        self._dispatcher = Dispatcher(sender, self._queue, self._endings, gate=gate, slots=slots)
        self._closed = False

    def __repr__(self) -> str:
        return f"<Submitter: {self.waiting} waiting, {self.submitting} submitting>"

    @property
    def waiting(self) -> int:
        """How many wait for a slot."""
        return len(self._beginning) + self._queue.count

    @property
    def refusals(self) -> int:
        """How often the service has refused the key, or credits were spent: what was wished for before is not sent."""
        return self._gate.refusals

    @property
    def submitting(self) -> int:
        """How many POSTs are under way, or about to be."""
        return len(self._dispatcher.posts)

    @property
    def ahead(self) -> int:
        """How many have slots and are no tasks yet."""
        return self.submitting

    def is_under_way(self, row: JournalRow) -> bool:
        """Tell whether this session is submitting a row, or looking its key up to do so."""
        return self._registry.holds(row)

    def check_not_under_way(self, row: JournalRow) -> None:
        """Check that nobody is submitting a row.

        Raises:
            InvalidRequestError: Somebody is.
        """
        if self._registry.holds(row):
            error = about(InvalidRequestError(f"Row {row.id} of the journal is being submitted already."), row)
            error.paid = None  # it may be on its way
            raise error

    # Coming and going

    def submit(
        self,
        request: SfxRequest,
        key: str | None,
        listener: Listener,
        *,
        owner: str | None = None,
        retry_failed: bool = False,
        made_key: bool = False,
        seen: int | None = None,
    ) -> Submission:
        """Take a request in, or join the submission of the same key; the listener is told its result once.

        Args:
            request: What is asked for.
            key: The caller's own name for it.
            listener: Is told.
            owner: On whose behalf it waits.
            retry_failed: If the key's effect failed at the service, begin anew.
            made_key: The key was made by this library.
            seen: How many `refusals` there were when it was wished for; left out, as many as there are.

        Raises:
            SessionClosedError: The session is closed.
            PollError: The poller died: nobody would see the task end.
            InvalidRequestError: The key belongs to another request.
            QueueFullError: Too many wait already.
            SubmitUnknownError: Without a journal: an earlier submission of the key may have been paid for.
            JournalError: The row could not be written.
        """
        self._check_open()
        record = None
        if key is not None:
            known = self._registry.find(key)
            if known is not None:
                known.check_same(request)
                known.listeners[listener] = None
                return known
            record = self._registry.remembered(key, request, retry_failed=retry_failed)
        submission = Submission(request, key, owner=owner, made_key=made_key, listeners={listener: None})
        submission.seen = self.refusals if seen is None else seen
        if record is not None:
            self._endings.finish(submission, record)
            return submission
        has_journal = self._bookkeeper.has_journal
        may_go = self._at_once and (not self._beginning if key is None else not has_journal)  # keys are looked up first
        if may_go and self._dispatcher.launch_at_once(submission):
            if submission.phase is not Phase.ENDED:
                self._registry.add(submission)
        else:
            if self.is_full:
                many = f"{self.waiting} effects wait for a slot already, as many as max_queue allows. Nothing was sent."
                raise QueueFullError(many, request=request)
            self._registry.add(submission)
            if has_journal:
                self._begin(submission, Move.RETRY if retry_failed else Move.QUEUE)
            else:
                self._dispatcher.enqueue(submission)
        if self._watch is not None:
            self._watch.queued(submission)
        return submission

    @property
    def is_full(self) -> bool:
        """Whether as many wait as may."""
        return len(self._beginning) + self._queue.count >= self._max_queue

    async def until_room(self) -> None:
        """Wait until one more may wait."""
        while self.is_full and not self._closed:
            await (self._queue.first() or next(iter(self._beginning))).until_launched()

    def keep(self, submission: Submission) -> None:
        """Submit it whether anybody waits or not: by this session or, with a journal, by a later one."""
        if submission.phase is not Phase.ENDED:
            submission.listeners[stay] = None

    def forsake(self, submission: Submission) -> None:
        """Let go who wanted it kept and left before that was promised."""
        self._endings.forsake(submission)

    async def find(self, *, key: str | None = None, task_id: str | None = None) -> Submission | FoundRow | None:
        """Return the submission of a key or a task: under way, or, without a journal, the last one of this session.

        What is looked up in the journal right now may be another request, which the key is not for: that is waited for.
        """
        if key is None:
            return self._registry.settled_task(task_id)
        while (known := self._registry.find(key)) is not None and known.phase is Phase.BEGINNING:
            await known.until_begun()
        if known is not None and known.row is not None and known.outlives:
            return self._registry.found(known.row)  # which waits on, should this submission be given up
        return known or self._registry.settled(key)

    def found(self, row: JournalRow) -> FoundRow:
        """Return what handles on a row share that waits in the journal."""
        return self._registry.found(row)

    def position(self, submission: Submission) -> int | None:
        """Return its place in line, 1 for who is next; None if it does not wait for a slot."""
        return self._queue.position(submission)

    def join(self, submission: Submission, listener: Listener) -> None:
        """Listen, too: the result is told at once if it is there."""
        if submission.phase is Phase.ENDED:
            assert submission.result is not None  # noqa: S101 - it came with the end
            listener(submission.result)
        else:
            submission.listeners[listener] = None

    async def take_up(self, row: JournalRow, listener: Listener) -> Submission:
        """Enqueue a row that an earlier process wished for, or join whoever does already.

        Raises:
            SessionClosedError: The session is closed.
            PollError: The poller died.
        """
        known = await self._of_row(row)
        if known is None:
            known = self.submit_row(row, stay)
        self.join(known, listener)
        return known

    def submit_row(
        self, row: JournalRow, listener: Listener, *, resend: bool = False, seen: int | None = None
    ) -> Submission:
        """Take in a row that is queued; or, with `resend`, one that may be paid for.

        Args:
            row: The row.
            listener: Is told.
            resend: It may be paid for, and is to be sent all the same.
            seen: As for `submit`.

        Raises:
            InvalidRequestError: The row is being submitted already.
            SessionClosedError: The session is closed.
            PollError: The poller died.
        """
        self._check_open(row)
        self.check_not_under_way(row)
        submission = Submission(row.request, row.key, row, row.state, left_behind=not resend, may_be_paid=resend)
        submission.listeners[listener] = None
        submission.seen = self.refusals if seen is None else seen
        self._registry.add(submission)
        self._enqueue_row(submission)
        if self._watch is not None:
            self._watch.queued(submission)
        return submission

    def _enqueue_row(self, submission: Submission) -> None:
        self._dispatcher.enqueue(submission)

    def leave(self, submission: Submission, listener: Listener) -> None:
        """Let a listener go. With the last one goes a submission that is not being sent right now."""
        if listener not in submission.listeners:
            return
        del submission.listeners[listener]
        if submission.listeners:
            return
        if submission.phase is Phase.QUEUED:
            self._endings.retire(submission, left_error())
        elif submission.phase is Phase.HELD:  # at once: whoever comes next with its key begins anew
            self._dispatcher.call_back(submission, left_error())

    def _check_open(self, row: JournalRow | None = None) -> None:
        if self._closed:
            error = SessionClosedError("The session is closed. Nothing was sent.")
            if row is None:
                raise error
            if row.state is EffectState.QUEUED:
                error.add_words(STAYS_QUEUED)
            raise about(error, row)
        self._inflight.check()

    # From a wish to the queue

    def _begin(self, submission: Submission, again: Move, state: EffectState = EffectState.QUEUED) -> None:
        """Have the row written, or the key looked up, before it can wait for a slot."""
        try:
            self._bookkeeper.begin(submission, state, again)
        except FineVoiceError:
            self._registry.discard(submission)
            raise
        assert submission.begun is not None  # noqa: S101 - `begin` sees to it
        self._beginning.add(submission)
        submission.begun.add_done_callback(partial(self._begun, submission))

    def _begun(self, submission: Submission, begun: asyncio.Future[Begun]) -> None:
        """The journal has answered: queue the submission, or find that it needs none."""
        self._beginning.discard(submission)
        try:
            known = self._take_row(submission, begun)
        except FineVoiceError as error:
            closed = self._closed and isinstance(error, JournalError)
            self._endings.finish(
                submission, SessionClosedError(f"The session was closed. {error}") if closed else error
            )
            return
        if known is not None:
            self._endings.finish(submission, known)
        elif self._closed or not submission.listeners:
            self._endings.retire(submission, closed_error() if self._closed else left_error())
        else:
            self._dispatcher.enqueue(submission)

    def _take_row(self, submission: Submission, begun: asyncio.Future[Begun]) -> TaskRecord | None:
        """Return the task that the row has already; None if the row is this submission's to send."""
        found = self._bookkeeper.found(begun)
        row = found.row
        if not found.is_mine:
            submission.check_same(row.request)
            if row.state is EffectState.SENDING and (known := self._inflight.of_row(row.id)) is not None:
                return known  # its id could not be kept, but is known here
            if row.state in (EffectState.SENDING, EffectState.UNKNOWN):
                raise unknown_error(row)
            if row.state is not EffectState.QUEUED:
                return self._poller.pick_up(row)
            submission.left_behind = True  # as it was found it is left, if it cannot be sent
        submission.row, submission.state = row, EffectState.QUEUED
        self._registry.add(submission)
        return None

    # Closing

    def refuse(self) -> None:
        """Take no more submissions; whoever waits for a slot, or to be sent again, hears that the session is closed."""
        self._closed = True
        self._dispatcher.close()
        for submission in self._queue.all():
            self._endings.retire(submission, closed_error())

    async def settle(self, timeout: float) -> None:
        """Give the POSTs under way `timeout` seconds, then cut them off; and have every row say what became of it."""
        await self._dispatcher.settle(timeout)
        deadline = self._clock.monotonic() + DISK
        while under_way := self._under_way():
            left = deadline - self._clock.monotonic()
            if left <= 0:
                return
            await asyncio.wait(under_way, timeout=left)

    def _under_way(self) -> list[asyncio.Future[Any]]:
        """Return what must end before the journal can be closed."""
        rows = [submission.begun for submission in self._beginning if submission.begun is not None]
        return [*self._dispatcher.jobs, *rows, *self._endings.pending]

    def give_up(self) -> None:
        """Tell whoever has not heard: the journal is closed, and will say nothing more."""
        self._endings.give_up([*self._beginning, *self._dispatcher.posts.values()])
