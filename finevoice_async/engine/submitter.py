"""From a wish to a task id: a queue that waits for slots, and the submissions under way.

A request becomes a `Submission`, which waits in a queue without a coroutine of its own: whoever waits for it may come
and go. Once it has a slot, its POST runs in a task that the session owns, and the task id that it brings is kept
whether anybody still waits or not. Callers of one key share one submission.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import logging
from functools import partial
from typing import Any

from finevoice_async.core.ledger import EffectState, JournalRow, Move
from finevoice_async.core.requests import SfxRequest
from finevoice_async.engine.bookkeeper import Bookkeeper
from finevoice_async.engine.endings import Endings, closed_error
from finevoice_async.engine.gate import Gate
from finevoice_async.engine.inflight import InFlight
from finevoice_async.engine.poller import Poller
from finevoice_async.engine.records import LAUNCHED, Listener, Phase, Result, Submission, TaskRecord, unknown_error
from finevoice_async.engine.registry import Registry
from finevoice_async.engine.sender import UNPAID, Sender
from finevoice_async.engine.slot_queue import SlotQueue
from finevoice_async.errors import (
    FineVoiceError,
    InvalidRequestError,
    JournalError,
    SessionClosedError,
    SubmitNotSentError,
)
from finevoice_async.ports import Begun, Clock, Slots

log = logging.getLogger("finevoice_async")

DISK = 10.0
"""Seconds that rows are given to say what became of them at closing: as long as the journal gives its disk."""


class Submitter:
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
    ) -> None:
        self._sender = sender
        self._gate = gate
        self._registry = registry
        self._poller = poller
        self._inflight = inflight
        self._bookkeeper = bookkeeper
        self._slots = slots
        self._clock = clock
        # All mutable state:
        self._beginning: set[Submission] = set()  # whose rows are being written or looked up
        self._queue = SlotQueue(slots)
        self._endings = Endings(bookkeeper, registry, self._queue, slots)
        self._posts: dict[asyncio.Task[None], Submission] = {}
        self._dispatcher: asyncio.Task[None] | None = None  # made when a slot must be waited for
        self._idle: asyncio.Future[None] | None = None  # what the dispatcher sleeps on when there is nothing to do
        self._held_back = False  # somebody waits because as many POSTs are under way as may be
        self._closed = False

    def __repr__(self) -> str:
        return f"<Submitter: {self.waiting} waiting, {self.submitting} submitting>"

    @property
    def waiting(self) -> int:
        """How many wait for a slot."""
        return len(self._beginning) + len(self._queue)

    @property
    def submitting(self) -> int:
        """How many POSTs are under way, or about to be."""
        return len(self._posts)

    def is_under_way(self, row: JournalRow) -> bool:
        """Tell whether this session is submitting a row, or looking its key up to do so."""
        return self._registry.holds(row)

    def check_not_under_way(self, row: JournalRow) -> None:
        """Check that nobody is submitting a row.

        Raises:
            InvalidRequestError: Somebody is.
        """
        if self._registry.holds(row):
            raise InvalidRequestError(f"Row {row.id} of the journal is being submitted already.", request=row.request)

    # Coming and going

    def submit(
        self, request: SfxRequest, key: str | None, listener: Listener, *, retry_failed: bool = False
    ) -> Submission:
        """Take a request in, or join the submission of the same key; the listener is told its result once.

        Raises:
            SessionClosedError: The session is closed.
            PollError: The poller died: nobody would see the task end.
            InvalidRequestError: The key belongs to another request.
            ConfigurationError: A key needs a journal.
            JournalError: The row could not be written.
        """
        self._check_open()
        if key is None:
            submission = Submission(request, listeners={listener: None})
            if not self._launch_at_once(submission):
                if self._bookkeeper.has_journal:
                    self._begin(submission, Move.QUEUE)
                else:
                    self._enqueue(submission)
            return submission
        known = self._registry.find(key)
        if known is not None:
            known.check_same(request)
            known.listeners[listener] = None
            return known
        submission = Submission(request, key, listeners={listener: None})
        self._registry.add(submission)
        self._begin(submission, Move.RETRY if retry_failed else Move.QUEUE)
        return submission

    def submit_row(self, row: JournalRow, listener: Listener, *, resend: bool = False) -> Submission:
        """Take in a row that is queued; or, with `resend`, one that may be paid for.

        Raises:
            InvalidRequestError: The row is being submitted already.
            SessionClosedError: The session is closed.
            PollError: The poller died.
        """
        self._check_open()
        self.check_not_under_way(row)
        submission = Submission(row.request, row.key, row, row.state, left_behind=not resend, may_be_paid=resend)
        submission.listeners[listener] = None
        self._registry.add(submission)
        self._enqueue(submission)
        return submission

    def leave(self, submission: Submission, listener: Listener, error: FineVoiceError | None = None) -> None:
        """Let a listener go. With the last one goes a submission that is not being sent right now.

        Args:
            submission: The submission.
            listener: Who goes.
            error: What it is told, once it is on disk that nothing will be sent (unless others wait for it, too).
        """
        if listener not in submission.listeners:
            return
        if error is not None and submission.is_waiting and len(submission.listeners) == 1:
            if submission.phase is Phase.QUEUED:
                self._endings.retire(submission, error)
            else:
                submission.called_off = listener, error
            return
        del submission.listeners[listener]
        if error is not None:
            listener(copy.copy(error))
        if submission.listeners:
            return
        if submission.phase is Phase.QUEUED:
            self._endings.retire(submission, closed_error())
        elif submission.phase is Phase.HELD:
            self._endings.cut_off(submission)  # at once: whoever comes next with its key begins anew
            next(post for post, held in self._posts.items() if held is submission).cancel()

    def _check_open(self) -> None:
        if self._closed:
            raise SessionClosedError("The session is closed. Nothing was sent.")
        self._inflight.check()

    # From a wish to the queue

    def _begin(self, submission: Submission, again: Move) -> None:
        """Have the row written, or the key looked up, before it can wait for a slot."""
        try:
            self._bookkeeper.begin(submission, EffectState.QUEUED, again)
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
            self._endings.retire(submission, closed_error())
        else:
            self._enqueue_or_call_off(submission)

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

    def _enqueue_or_call_off(self, submission: Submission) -> None:
        """Let it wait for a slot, unless the only one who listens was sent home meanwhile."""
        if submission.called_off is not None:
            listener, error = submission.called_off
            if list(submission.listeners) == [listener]:
                self._endings.retire(submission, error)
                return
            self.leave(submission, listener, error)
        self._enqueue(submission)

    def _enqueue(self, submission: Submission) -> None:
        self._queue.add(submission)
        self._pump()

    def _launch_at_once(self, submission: Submission) -> bool:
        """Launch it, if a slot is free and nobody waits. It has no row yet: its first one will say SENDING."""
        if self._queue.waiting or self._beginning or self._gate.is_shut or len(self._posts) >= self._gate.width:
            return False
        try:
            slot = self._slots.try_acquire()
        except FineVoiceError as error:
            raise submission.told(error) from error.__cause__
        if slot is None:
            return False
        self._launch(submission, slot)
        return True

    def _pump(self) -> None:
        """Launch what can be launched now, and have the dispatcher wait for the rest's slots."""
        while self._queue.waiting and len(self._posts) < self._gate.width:
            try:
                matched = self._queue.match()
            except FineVoiceError as error:
                self._fail_first(error)
                continue
            if matched is None:
                break
            self._launch(*matched)
        self._held_back = bool(self._queue.waiting) and len(self._posts) >= self._gate.width
        if not self._queue.waiting or self._held_back or self._closed:
            return
        if self._dispatcher is None:
            self._dispatcher = asyncio.create_task(
                self._dispatch(), name="finevoice-dispatcher", context=contextvars.Context()
            )
            self._dispatcher.add_done_callback(self._dispatched)
        elif self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    async def _dispatch(self) -> None:
        """Wait for slots, one after another, while submissions queue up."""
        while True:
            self._held_back = bool(self._queue.waiting) and len(self._posts) >= self._gate.width
            if not self._queue.waiting or self._held_back:
                self._idle = asyncio.get_running_loop().create_future()
                await self._idle
                continue
            try:
                matched = await self._queue.wait()
            except FineVoiceError as error:
                self._fail_first(error)
            else:
                if matched is not None:
                    self._launch(*matched)

    def _dispatched(self, dispatcher: asyncio.Task[None]) -> None:
        """The dispatcher ended: at closing, or by a fault from outside; then those who wait must hear."""
        self._dispatcher = None
        if not self._closed:
            reason = "cancelled" if dispatcher.cancelled() else repr(dispatcher.exception())
            log.error("what hands out slots ended (%s); who waited for one was told", reason)
        while self._queue.waiting and not self._closed:
            self._fail_first(SubmitNotSentError(f"The wait for a slot was ended from outside. {UNPAID}"))

    def _fail_first(self, error: FineVoiceError) -> None:
        submission = self._queue.first()
        if submission is not None:
            self._endings.retire(submission, error)

    def _launch(self, submission: Submission, slot: object) -> None:
        """Start the POST, in a task which owns the slot from here on."""
        submission.slot = slot
        submission.phase = LAUNCHED
        nobodys = contextvars.Context()  # a slot that it frees may be another's
        post = asyncio.create_task(self._post(submission), name="finevoice-post", context=nobodys)
        self._posts[post] = submission
        post.add_done_callback(self._posted, context=nobodys)
        if submission.launch_watchers:
            submission.launched()

    def _posted(self, post: asyncio.Task[None]) -> None:
        submission = self._posts.pop(post)
        if submission.phase is LAUNCHED:  # cancelled before it began
            self._endings.cut_off(submission)
        if self._held_back:  # by POSTs, not by slots: those are what the dispatcher waits for
            self._pump()

    # The POST

    async def _post(self, submission: Submission) -> None:
        result: Result
        try:
            result = await self._sender.send(submission)
        except asyncio.CancelledError:
            self._endings.cut_off(submission)
            raise
        except FineVoiceError as error:
            if submission.phase in (LAUNCHED, Phase.HELD):  # the journal failed before it could be sent
                self._endings.release(submission)
                self._endings.retire(submission, error)
                return
            result = error
        except Exception as error:
            log.exception("an unexpected error in a submission")
            try:
                result = await self._sender.stopped_by(submission, error)
            except asyncio.CancelledError:
                self._endings.cut_off(submission)
                raise
        self._endings.release(submission)
        self._endings.finish(submission, result)

    # Closing

    def refuse(self) -> None:
        """Take no more submissions; whoever waits for a slot, or to be sent again, hears that the session is closed."""
        self._closed = True
        self._gate.close()
        if self._dispatcher is not None:
            self._dispatcher.cancel()
        for submission in self._queue.all():
            self._endings.retire(submission, closed_error())
        for post, submission in self._posts.items():
            if submission.phase is Phase.HELD:
                post.cancel()

    async def settle(self, timeout: float) -> None:
        """Give the POSTs under way `timeout` seconds, then cut them off; and have every row say what became of it."""
        if self._posts:
            await asyncio.wait(self._posts, timeout=timeout)
        for post in self._posts:
            post.cancel()
        deadline = self._clock.monotonic() + DISK
        while under_way := self._under_way():
            left = deadline - self._clock.monotonic()
            if left <= 0:
                return
            await asyncio.wait(under_way, timeout=left)

    def _under_way(self) -> list[asyncio.Future[Any]]:
        """Return what must end before the journal can be closed."""
        rows = [submission.begun for submission in self._beginning if submission.begun is not None]
        dispatcher = [] if self._dispatcher is None else [self._dispatcher]
        return [*self._posts, *rows, *self._endings.pending, *dispatcher]

    def give_up(self) -> None:
        """Tell whoever has not heard: the journal is closed, and will say nothing more."""
        self._endings.give_up([*self._beginning, *self._posts.values()])
