"""One submission's POST: sent, sent again where that is certainly safe, and what became of it noted."""

from __future__ import annotations

import asyncio
import random
from typing import NoReturn

from finevoice_async.config import Budget, Retry
from finevoice_async.core import retry as policy
from finevoice_async.core.brake import REFUSALS
from finevoice_async.core.failures import Failure, FailureKind, advised, without_advice
from finevoice_async.core.ledger import EffectState
from finevoice_async.core.retry import Action, Call, RetryBudget
from finevoice_async.core.tasks import FAILED, PENDING, UNKNOWN, TaskUpdate
from finevoice_async.engine.bookkeeper import Bookkeeper
from finevoice_async.engine.exchange import ADVICE, Exchange, error_of
from finevoice_async.engine.gate import Gate, Place
from finevoice_async.engine.inflight import InFlight
from finevoice_async.engine.poller import Poller
from finevoice_async.engine.records import (
    ANSWERED,
    LAUNCHED,
    OUT,
    UNPAID,
    News,
    Phase,
    Result,
    Submission,
    TaskRecord,
)
from finevoice_async.engine.registry import Registry
from finevoice_async.engine.rows import about, unknown_error
from finevoice_async.engine.spending import Spending
from finevoice_async.errors import (
    FineVoiceError,
    InvalidRequestError,
    JournalError,
    RateLimitError,
    SubmitNotSentError,
    SubmitUnknownError,
)
from finevoice_async.ports import Clock, Slots, TaskIdTakenError, UnsentCancelledError

REDUCED_FOR = 10.0
"""Seconds for which a 429 takes a slot away at least: about one effect's time. Then they come back step by step."""


class Sender:
    """Sends submissions that have a slot."""

    def __init__(
        self,
        exchange: Exchange,
        poller: Poller,
        inflight: InFlight,
        bookkeeper: Bookkeeper,
        registry: Registry,
        *,
        gate: Gate,
        slots: Slots,
        clock: Clock,
        retry: Retry,
        budget: Budget | None,
        rng: random.Random,
    ) -> None:
        self._exchange = exchange
        self._poller = poller
        self._inflight = inflight
        self._bookkeeper = bookkeeper
        self._watch = bookkeeper.watching
        self._registry = registry
        self._gate = gate
        self._slots = slots
        self._clock = clock
        self._retry = retry
        self._rng = rng
        # All mutable state, each one for the whole session:
        self._budget = RetryBudget()
        self.spending = Spending(budget, bookkeeper, clock)

    async def send(self, submission: Submission) -> TaskRecord:
        """Send it, again where that is certainly safe, and return its task.

        Raises:
            FineVoiceError: It was not accepted, or nobody knows; the journal has it.
        """
        attempt = 1
        place: Place | None = None  # in the line, once it has to wait
        while True:
            probe = False
            if self._gate.is_shut:
                place = place or self._gate.place()
                probe = await self._turn(submission, place, again=attempt > 1)
            try:
                answer = await self._sent(submission, probe=probe)
            finally:
                if probe:
                    self._gate.probe_ended()
            if isinstance(answer, TaskRecord):
                return answer
            if isinstance(answer, TaskUpdate):
                self._budget.earn()
                return await self._accepted(submission, answer)
            if answer.kind is FailureKind.RATE and not probe:  # a probe says that it still is full, not fuller
                self._slots.slow_down(max(REDUCED_FOR, min(answer.retry_after or 0.0, self._retry.max_retry_after)))
            if answer.kind is FailureKind.RATE and self._watch is not None:
                self._watch.throttled(submission, answer)
            await self._hold(submission, answer, attempt)
            attempt += 1

    async def _turn(self, submission: Submission, place: Place, *, again: bool) -> bool:
        """Wait for its turn, while the service cannot take everybody; return whether it goes as the probe."""
        submission.phase = Phase.HELD
        if not submission.listeners:  # they left as it was launched; who leaves from here on calls it off
            raise SubmitNotSentError(f"Nobody waited for it any more. {UNPAID}")
        turn = self._gate.refusal(submission.seen) or await self._gate.turn(place, again=again)
        if isinstance(turn, Failure):
            error = self.turned_away(turn, submission)
            if submission.may_be_paid:
                raise _doubt(error) from error
            raise error
        return turn

    def turned_away(self, failure: Failure, submission: Submission) -> FineVoiceError:
        """Return the error of a submission that is not sent (again), because others were told this."""
        error = error_of(failure, policy.decide(Call.SUBMIT, failure.kind, self._retry).error)
        error.request = submission.request
        if failure.kind in REFUSALS:
            error.add_words("That was said of another submission; this one was not sent.")
        return error

    async def _sent(self, submission: Submission, *, probe: bool) -> TaskUpdate | Failure | TaskRecord:
        """Send it once, and return the answer; or its task, if its row says that it must not be sent."""
        spent = self.spending.spend(submission.request)
        try:
            if self._bookkeeper.has_journal:
                if not await self._bookkeeper.sending(submission):
                    return await self._read_anew(submission)
                self._registry.add(submission)  # its row is known now
            self._inflight.check()  # else nobody would see its end
            self._gate.check_open()
            if not probe and (refusal := self._gate.refusal(submission.seen)) is not None:
                raise self.turned_away(refusal, submission)
            submission.phase = OUT
        finally:
            if submission.phase is not OUT:
                self.spending.give_back(spent)
        self.spending.leaves(spent)
        if self._watch is not None:
            self._watch.leaves(submission)
        try:
            answer = await self._exchange.submit(submission.request)
        except UnsentCancelledError:
            submission.phase = LAUNCHED  # as before it
            self.spending.give_back(spent)
            raise
        if isinstance(answer, Failure) and not self._is_doubtful(answer):
            self.spending.give_back(spent)
        self._gate.judge(answer if isinstance(answer, Failure) else None, probe=probe)
        return answer

    def _is_doubtful(self, failure: Failure) -> bool:
        """Tell whether the submission may have been accepted."""
        return policy.decide(Call.SUBMIT, failure.kind, self._retry).error is SubmitUnknownError

    async def _hold(self, submission: Submission, failure: Failure, attempt: int) -> None:
        """Keep it to be sent again, where that is certainly safe, or the caller wants it.

        Raises:
            FineVoiceError: It is not to be sent again.
        """
        decision = policy.decide(Call.SUBMIT, failure.kind, self._retry)
        free = decision.action is Action.HOLD and self._retry.attempts > 1  # the gate says how long
        again = free or (decision.action is Action.AGAIN and attempt < self._retry.attempts and self._budget.spend())
        wanted = submission.listeners or submission.outlives
        if not again or not wanted or failure.task_id is not None:
            await self._failed(submission, error_of(failure, decision.error, request=submission.request))
        submission.phase, words = Phase.HELD, f"{failure.what}; attempt {attempt} failed"
        if free:
            await self._bookkeeper.held(submission, words)
        else:
            submission.doubt = SubmitUnknownError(advised(failure.what, SubmitUnknownError))
            await self._bookkeeper.unknown(submission, words)
            if self._watch is not None:
                self._watch.doubted(submission, submission.doubt)
        if not submission.listeners:
            raise SubmitNotSentError(f"Nobody waited for it any more. {UNPAID}")
        if not free:
            await self._clock.sleep(policy.backoff(attempt, self._retry, self._rng.random()))

    async def _failed(self, submission: Submission, error: FineVoiceError) -> NoReturn:
        """Note that it was not accepted, as far as anybody knows, and raise that.

        Once an earlier POST of it may have been accepted, no refusal of a later one makes it unpaid.
        """
        submission.phase = ANSWERED
        if isinstance(error, SubmitUnknownError):
            submission.result = error
            await self._bookkeeper.unknown(submission, error.message)
            raise error
        if not submission.may_be_paid:
            submission.result = error
            if submission.outlives and isinstance(error, SubmitNotSentError | RateLimitError):
                await self._bookkeeper.held(submission, error.message)
                raise submission.told(error)
            await self._bookkeeper.refused(submission, error.message)
            raise error
        submission.result = doubt = _doubt(error)
        await self._bookkeeper.refused(submission, doubt.message)
        raise doubt from error

    async def _accepted(self, submission: Submission, update: TaskUpdate) -> TaskRecord:
        submission.phase = ANSWERED
        known = None if update.task_id is None else self._inflight.tasks.get(update.task_id)
        if known is None:
            record = TaskRecord(
                update.task_id,
                submission.request,
                self._clock.monotonic(),
                submitted_at=self._clock.utcnow(),
                slot=submission.slot,
                row_id=None if submission.row is None else submission.row.id,
                key=submission.key,
                status=PENDING if update.status is UNKNOWN else update.status,
            )
            submission.slot = None
        elif known.is_strange:
            record = self._known_before(submission, known)
        else:
            await self._failed(submission, _taken_error(submission, known.task_id))
        submission.result = record
        note = self._bookkeeper.accepted_as(submission, record)
        end = record.ended_by(update) if update.status is FAILED or update.urls else None
        if end is None and known is None:
            self._follow(record)
        if note is not None:
            await self._noted(submission, record, note, end)
        if end is not None and record.end is None:
            self._inflight.end(record, end)
        return record

    def _known_before(self, submission: Submission, record: TaskRecord) -> TaskRecord:
        """Return the task of somebody who attached its id before the answer with it was here."""
        record.request, record.key = submission.request, submission.key
        record.row_id = None if submission.row is None else submission.row.id
        record.submitted_at = self._clock.utcnow()
        if record.slot is None:  # else it has one, and the submission gives its own back
            record.slot, submission.slot = submission.slot, None
        return record

    def _follow(self, record: TaskRecord) -> None:
        try:
            self._poller.track(record)
        except FineVoiceError as error:
            self._inflight.drop(record, error)
            raise

    async def _noted(
        self, submission: Submission, record: TaskRecord, note: asyncio.Future[bool], end: News | None
    ) -> None:
        """Wait until the task id is on disk; whatever happens, the task has its end, if that is known."""
        try:
            await self._bookkeeper.noted(note, record)
        except TaskIdTakenError:
            error = _taken_error(submission, record.task_id)
            self._inflight.drop(record, error)
            await self._failed(submission, error)
        except (JournalError, asyncio.CancelledError) as error:
            if isinstance(error, JournalError):
                submission.result = error
            if end is not None:
                self._inflight.end(record, end)
            raise

    async def _read_anew(self, submission: Submission) -> TaskRecord:
        """The row was moved by somebody else before it could be sent: say what became of it."""
        submission.phase = ANSWERED
        assert submission.row is not None  # noqa: S101 - a row that was not moved is there
        row = await self._bookkeeper.row(submission.row.id)
        if row is not None and row.task_id is not None and row.state is not EffectState.REFUSED:
            return self._poller.pick_up(row)
        if row is not None and row.state in (EffectState.SENDING, EffectState.UNKNOWN):
            raise unknown_error(row)
        words = "gone" if row is None else row.state.value
        error = InvalidRequestError(
            f"The effect was withdrawn meanwhile: its row is {words}. Nothing was sent.", request=submission.request
        )
        raise about(error, row)

    async def stopped_by(self, submission: Submission, cause: Exception) -> Result:
        """Return what is told where a bug stopped a submission: it must cost no slot and no money."""
        if submission.result is not None:
            return submission.result
        bug = f"an unexpected error ({type(cause).__name__}); this is a bug of the library"
        error: FineVoiceError = SubmitUnknownError(f"The answer was lost to {bug}. {ADVICE[SubmitUnknownError]}")
        if submission.phase in (Phase.LAUNCHED, Phase.HELD):
            error = SubmitNotSentError(f"It was stopped by {bug}. {UNPAID}")
        error.request = submission.request
        error.__cause__ = cause
        try:
            await self._failed(submission, error)
        except FineVoiceError as told:
            return told


def _doubt(error: FineVoiceError) -> SubmitUnknownError:
    """Return what is told of a refusal where an earlier POST may have been accepted."""
    return SubmitUnknownError(
        "An earlier submission of it may have been accepted and paid for. This one was not: "
        f"{without_advice(error.message)}",
        request=error.request,
        status=error.status,
        code=error.code,
        body=error.body,
        request_id=error.request_id,
    )


def _taken_error(submission: Submission, task_id: str | None) -> SubmitUnknownError:
    return SubmitUnknownError(
        f"The service gave task id {task_id}, which belongs to another submission. {ADVICE[SubmitUnknownError]}",
        task_id=task_id,
        request=submission.request,
    )
