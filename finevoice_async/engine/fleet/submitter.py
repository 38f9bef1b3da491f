"""From a wish to a place in the fleet's line: whose row it is, decides the store."""

from __future__ import annotations

import asyncio
import contextvars
from functools import partial
from typing import Any

from finevoice_async.core.ledger import MAY_BE_PAID, EffectState, Move
from finevoice_async.engine.endings import left_error
from finevoice_async.engine.fleet.books import SharedBookkeeper
from finevoice_async.engine.fleet.following import Following
from finevoice_async.engine.fleet.row_queue import RowQueue
from finevoice_async.engine.gate import Gate
from finevoice_async.engine.inflight import InFlight
from finevoice_async.engine.poller import Poller
from finevoice_async.engine.records import Phase, Submission, TaskRecord
from finevoice_async.engine.registry import Registry
from finevoice_async.engine.rows import about, closed_error
from finevoice_async.engine.sender import Sender
from finevoice_async.engine.submitter import Submitter
from finevoice_async.errors import FineVoiceError, InvalidRequestError, JournalError, SessionClosedError
from finevoice_async.ports import Begun, Clock
from finevoice_async.shared_ports import RowSlots


class SharedSubmitter(Submitter):
    """Owns this session's submissions; what another acts for is followed."""

    def __init__(
        self,
        sender: Sender,
        poller: Poller,
        inflight: InFlight,
        bookkeeper: SharedBookkeeper,
        registry: Registry,
        *,
        gate: Gate,
        slots: RowSlots,
        clock: Clock,
        max_queue: int,
        following: Following,
    ) -> None:
        super().__init__(
            *(sender, poller, inflight, bookkeeper, registry),
            gate=gate,
            slots=slots,
            clock=clock,
            max_queue=max_queue,
            queue=RowQueue(slots),
        )
        self._shared_books = bookkeeper
        self._row_slots = slots
        self._following = following
        self._at_once = False  # the store says whose turn it is
        self._dispatcher.on_lost = self._lost
        following.serve(self._endings.finish, self._go_on)

    async def withdraw(self, submission: Submission) -> bool:
        """Take a submission back for everybody who waits for it in the fleet.

        Raises:
            FineVoiceError: As of a submission of this session's.
        """
        if submission.phase is Phase.FOLLOWED and submission.row is not None:
            return await self._shared_books.withdraw_elsewhere(submission.row.id)
        return await super().withdraw(submission)

    @property
    def ahead(self) -> int:
        """How many have slots and are no tasks of this session's."""
        return self.submitting + self._row_slots.running_elsewhere

    def position(self, submission: Submission) -> int | None:
        """Return its place in the fleet's line, as it was a moment ago; None if it does not wait for a slot."""
        if submission.phase is Phase.FOLLOWED and submission.row is not None:
            return self._row_slots.position(submission.row.id)
        return super().position(submission)

    def refuse(self) -> None:
        """Take no more submissions; whoever waits, or follows another session's row, hears that this one is closed."""
        super().refuse()
        self._following.close()

    def _under_way(self) -> list[asyncio.Future[Any]]:
        return [*super()._under_way(), *self._following.jobs]

    # Rows

    def _begin(self, submission: Submission, again: Move, state: EffectState = EffectState.QUEUED) -> None:
        if self._dispatcher.may_launch(submission):
            state = EffectState.SENDING  # if the store has a slot for it: one commit
        super()._begin(submission, again, state)

    def _begun(self, submission: Submission, begun: asyncio.Future[Begun]) -> None:
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
        elif submission.phase is not Phase.FOLLOWED:
            self._line_up(submission)

    def _take_row(self, submission: Submission, begun: asyncio.Future[Begun]) -> TaskRecord | None:
        found = self._bookkeeper.found(begun)
        if found.elsewhere:
            submission.check_same(found.row.request)
            self._registry.add(submission)
            self._follow(submission, found)
            return None
        if not found.has_slot:
            return super()._take_row(submission, begun)
        submission.left_behind = not found.is_mine
        submission.row, submission.state = found.row, EffectState.SENDING
        submission.slot = self._row_slots.occupy(row_id=found.row.id)
        self._registry.add(submission)
        return None

    def _line_up(self, submission: Submission) -> None:
        """Let it wait for its slot, or leave, if it has one."""
        if self._closed or not submission.listeners:
            self._endings.retire(submission, closed_error() if self._closed else left_error())
            self._endings.release(submission)
        elif submission.slot is not None:
            self._dispatcher.launch(submission, submission.slot)
        else:
            self._dispatcher.enqueue(submission)

    def _follow(self, submission: Submission, found: Begun) -> None:
        if self._closed:
            error = SessionClosedError("The session was closed. Another one acts for the effect.")
            self._endings.finish(submission, about(error, found.row))
        else:
            self._following.follow(submission, found.row)

    def _enqueue_row(self, submission: Submission) -> None:
        """Act for a row that was left, if nobody else does by now."""
        submission.phase = Phase.BEGINNING
        submission.begun = asyncio.ensure_future(self._shared_books.take(submission))
        self._beginning.add(submission)
        submission.begun.add_done_callback(partial(self._taken, submission))

    def _taken(self, submission: Submission, taken: asyncio.Future[Begun]) -> None:
        self._beginning.discard(submission)
        try:
            found = self._bookkeeper.found(taken)
        except FineVoiceError as error:
            self._endings.finish(submission, error)
            return
        if found.is_mine:
            self._line_up(submission)
        elif submission.may_be_paid:
            words = f"Row {found.row.id} of the journal is being submitted already, by another session."
            refusal = about(InvalidRequestError(words), found.row)
            refusal.paid = None  # it may be on its way
            self._endings.finish(submission, refusal)
        else:
            self._follow(submission, found)

    def _lost(self, submission: Submission) -> None:
        """Its row went on without it: find out how, and go on from there."""
        assert submission.row is not None  # noqa: S101 - it was to be sent
        submission.context = contextvars.Context()  # its caller's may be used once
        if self._closed:
            self._endings.retire(submission, closed_error())
        else:
            self._following.follow(submission, submission.row)

    def _go_on(self, submission: Submission) -> None:
        """Nobody acts for a row that somebody here waits for: this session does, then."""
        waits = submission.state is EffectState.QUEUED or submission.state in MAY_BE_PAID
        submission.may_be_paid = submission.state in MAY_BE_PAID  # else the POST before was refused, as is known by now
        if waits:
            self._enqueue_row(submission)
            return
        submission.phase, submission.row = Phase.BEGINNING, None
        try:
            self._begin(submission, Move.QUEUE)
        except FineVoiceError as error:
            self._endings.finish(submission, error)
