"""One submission's POST: sent again only where that is certainly safe, and what became of it is told and noted."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from fake_journal import FakeJournal
from fakes import AWAY, LOST, Answer, FakeSlots, FakeTransport, says
from parts import RAIN, WIND, Ear, Parts, assemble, told

from finevoice_async.config import Retry
from finevoice_async.core.failures import Failure, FailureKind, without_advice
from finevoice_async.core.ledger import EffectState, JournalRow, Move
from finevoice_async.core.retry import TABLE, Action, Call
from finevoice_async.core.wire import Reply
from finevoice_async.engine.caller import until_known
from finevoice_async.engine.records import Phase, TaskRecord
from finevoice_async.engine.sender import REDUCED_FOR
from finevoice_async.errors import (
    FineVoiceError,
    InsufficientCreditsError,
    RateLimitError,
    RequestRejectedError,
    SubmitNotSentError,
    SubmitUnknownError,
)

QUEUED, SENDING, SUBMITTED, DONE, SAVED, REFUSED, UNKNOWN, FAILED, GONE = EffectState

ANSWERS: dict[FailureKind, Answer] = {
    FailureKind.NOT_SENT: AWAY,
    FailureKind.CERTIFICATE: Failure(FailureKind.CERTIFICATE, "the certificate is another's"),
    FailureKind.LOST: LOST,
    FailureKind.UNREADABLE: Reply(200, {}, b"<html>"),
    FailureKind.REDIRECT: says(302),
    FailureKind.INVALID: says(422),
    FailureKind.FORBIDDEN: says(401),
    FailureKind.CREDITS: says(402),
    FailureKind.MISSING: says(404),
    FailureKind.CONFLICT: says(409),
    FailureKind.RATE: says(429),
    FailureKind.SERVER: says(503),
}
DOUBTFUL = {
    FailureKind.LOST,
    FailureKind.UNREADABLE,
    FailureKind.REDIRECT,
    FailureKind.CONFLICT,
    FailureKind.SERVER,
}
"""What may hide an acceptance."""

PATIENT = Retry(attempts=3, patience=1.5)  # what costs nothing is sent three times, too
RECKLESS = Retry(attempts=3, patience=1.5, resend_unknown=True)


async def resent(parts: Parts, row: JournalRow) -> TaskRecord:
    """Send a row again that may be paid for."""
    return await until_known(parts.submitter, partial(parts.submitter.submit_row, row, resend=True))


# The table


def test_every_row_of_the_table_is_here() -> None:
    """No kind of failure is left out."""
    assert set(ANSWERS) == set(TABLE) == set(FailureKind)


@pytest.mark.parametrize("reckless", [False, True])
@pytest.mark.parametrize("kind", FailureKind)
async def test_a_failure(kind: FailureKind, reckless: bool) -> None:
    """A doubt is never sent again, unless the caller has said so; what is safe is, until patience ends."""
    answer = ANSWERS[kind]
    transport, journal = FakeTransport(*[answer] * 9), FakeJournal()
    again = TABLE[kind][Call.SUBMIT].action is not Action.STOP
    again |= reckless and kind in DOUBTFUL and kind is not FailureKind.REDIRECT
    async with assemble(transport, journal=journal, retry=RECKLESS if reckless else PATIENT) as parts:
        error = await told(parts.start(RAIN, "k"))
        assert not parts.slots.out
        assert not parts.inflight.tasks
    assert type(error) is TABLE[kind][Call.SUBMIT].error
    assert isinstance(error, FineVoiceError)
    assert error.request == RAIN
    assert error.status == (answer.status if isinstance(answer, Reply) else None)
    assert isinstance(error, SubmitUnknownError) is (kind in DOUBTFUL)
    assert len(transport.posts) == (3 if again else 1)
    assert journal.states == [UNKNOWN if kind in DOUBTFUL else REFUSED]
    assert journal.contents[1].error == error.message
    send, hold = (Move.RESEND, Move.DOUBT) if kind in DOUBTFUL else (Move.SEND, Move.HOLD)
    held = [Move.HOLD] if kind in (FailureKind.NOT_SENT, FailureKind.RATE) else []  # in line when it was given up
    last = Move.DOUBT if kind in DOUBTFUL else Move.REFUSE
    assert journal.moves() == [QUEUED, Move.SEND, *[hold, send] * (2 if again else 0), *held, last]


@pytest.mark.parametrize("kind", [FailureKind.NOT_SENT, FailureKind.RATE])
async def test_one_attempt_is_one(kind: FailureKind) -> None:
    """With one attempt nothing is tried again, and nobody waits for others: each is sent once, and told at once."""
    transport, journal = FakeTransport(*[ANSWERS[kind]] * 3), FakeJournal()
    async with assemble(transport, journal=journal, retry=Retry(attempts=1)) as parts:
        began = asyncio.get_running_loop().time()
        for _ in range(3):
            assert type(await told(parts.start())) is TABLE[kind][Call.SUBMIT].error
        assert asyncio.get_running_loop().time() - began == pytest.approx(3 * transport.latency)
    assert len(transport.posts) == 3
    assert journal.states == [REFUSED] * 3


@pytest.mark.parametrize("kind", FailureKind)
async def test_a_failure_without_a_journal(kind: FailureKind) -> None:
    """The same is told where nothing is kept."""
    async with assemble(FakeTransport(*[ANSWERS[kind]] * 9), retry=PATIENT) as parts:
        assert type(await told(parts.start())) is TABLE[kind][Call.SUBMIT].error
        assert not parts.slots.out


@pytest.mark.parametrize("kind", [FailureKind.NOT_SENT, FailureKind.RATE])
async def test_accepted_in_the_end(kind: FailureKind) -> None:
    """What was certainly not accepted is sent again in its slot; in between its row says why it waits."""
    transport, journal, slots = FakeTransport(*[ANSWERS[kind]] * 2, latency=0.01), FakeJournal(), FakeSlots(1)
    async with assemble(transport, journal=journal, slots=slots, retry=PATIENT) as parts:
        job = parts.start()
        await asyncio.sleep(0.2)
        assert journal.states == [QUEUED]
        assert str(journal.contents[1].error).endswith("; attempt 1 failed")
        assert len(slots.out) == 1
        record = await job
        assert slots.out == {record.slot}
        assert (record.task_id, record.row_id, record.key) == ("t1", 1, None)
    assert len(transport.posts) == 3
    assert journal.moves() == [SENDING, *[Move.HOLD, Move.SEND] * 2, Move.ACCEPT]
    assert journal.contents[1].error is None


async def test_backoff_grows() -> None:
    """Each wait is twice as long as the last one."""
    transport = FakeTransport(AWAY, AWAY, latency=0.0)
    async with assemble(transport, retry=Retry(first_delay=10)) as parts:
        loop = asyncio.get_running_loop()
        began, job = loop.time(), parts.start()
        await job
        assert loop.time() - began == pytest.approx(5 + 10)  # half the ceiling


@pytest.mark.parametrize(
    ("asked", "wait", "reduced"),
    [(None, 0.25, REDUCED_FOR), ("10", 10.5, REDUCED_FOR), ("60", 63, 60), ("9999", 126, 120)],
)
async def test_told_to_wait(asked: str | None, wait: float, reduced: float) -> None:
    """A 429 is obeyed, within bounds: fewer slots for 10 s at least, and for as long as was asked."""
    assert REDUCED_FOR == 10
    loop = asyncio.get_running_loop()
    transport = FakeTransport(says(429, retry_after=asked), latency=0.0)
    async with assemble(transport, retry=Retry(patience=1000)) as parts:
        began, job = loop.time(), parts.start()
        await job
        assert loop.time() - began == pytest.approx(wait)
        assert parts.slots.slowed == [pytest.approx(reduced)]


async def test_only_a_429_slows_down() -> None:
    """A service that is away, or refuses, says nothing about the plan; a last 429 does."""
    async with assemble(FakeTransport(AWAY, says(402)), retry=PATIENT) as parts:
        assert isinstance(await told(parts.start()), InsufficientCreditsError)
        assert parts.slots.slowed == []
    async with assemble(FakeTransport(says(429)), retry=Retry(attempts=1)) as parts:
        assert isinstance(await told(parts.start()), RateLimitError)
        assert parts.slots.slowed == [REDUCED_FOR]


async def test_an_id_that_cannot_be_used_is_never_sent_again() -> None:
    """What came with an id was accepted, whatever the caller has allowed."""
    async with assemble(FakeTransport(says(task_id="..")), journal=FakeJournal(), retry=RECKLESS) as parts:
        error = await told(parts.start())
        assert isinstance(error, SubmitUnknownError)
        assert error.task_id == ".."
        assert len(parts.transport.posts) == 1
        assert parts.journal.states == [UNKNOWN]


async def test_the_allowance_for_retries() -> None:
    """A session has a hundred retries of what may be paid for, and earns one more with every five successes."""
    transport = FakeTransport(*[LOST] * 101, latency=0.0)
    hasty = Retry(attempts=1000, first_delay=0.01, max_delay=0.01, resend_unknown=True)
    async with assemble(transport, slots=FakeSlots(100), retry=hasty) as parts:
        assert isinstance(await told(parts.start()), SubmitUnknownError)
        assert len(transport.posts) == 101
        transport.on_post.append(LOST)
        assert isinstance(await told(parts.start()), SubmitUnknownError)
        for _ in range(5):
            await parts.submit()
        transport.on_post.extend([LOST, LOST])
        assert isinstance(await told(parts.start()), SubmitUnknownError)
        assert len(transport.posts) == 101 + 1 + 5 + 2


async def test_what_costs_nothing_takes_nothing_of_the_allowance() -> None:
    """The service may be away as often as patience allows; what may be paid for still has its hundred retries."""
    transport = FakeTransport(*[AWAY] * 300, *[LOST] * 101, latency=0.0)
    hasty = Retry(attempts=1000, first_delay=0.01, max_delay=0.01, resend_unknown=True)
    async with assemble(transport, retry=hasty) as parts:
        assert isinstance(await told(parts.start()), SubmitUnknownError)
        assert len(transport.posts) == 401


# What may be paid for


@pytest.mark.parametrize(
    ("refusal", "cause"),
    [
        (says(402), InsufficientCreditsError),
        (says(422, error={"code": "c", "message": "too loud"}), RequestRejectedError),
        (AWAY, SubmitNotSentError),
    ],
)
async def test_a_doubt_outlives_a_refusal(refusal: Answer, cause: type[FineVoiceError]) -> None:
    """Once a POST may have been accepted, no refusal of a later one makes the effect unpaid."""
    journal = FakeJournal()
    async with assemble(FakeTransport(LOST, *[refusal] * 9), journal=journal, retry=RECKLESS) as parts:
        error = await told(parts.start(RAIN, "k"))
        assert isinstance(error, SubmitUnknownError)
        assert type(error.__cause__) is cause
        assert isinstance(error.__cause__, FineVoiceError)
        assert error.message.startswith("An earlier submission of it may have been accepted and paid for.")
        assert without_advice(error.__cause__.message) in error.message
        assert "again" not in error.message, "advice for what is not paid is none for this"
        told_of = (error.status, error.code, error.body)
        assert told_of == (error.__cause__.status, error.__cause__.code, error.__cause__.body)
        assert error.request == RAIN
        assert journal.states == [UNKNOWN]
        noted = str(journal.contents[1].error)
        assert noted == error.message or noted.endswith("failed")  # the latter if it was in line when it was given up
        assert not parts.slots.out


@pytest.mark.parametrize("state", [UNKNOWN, GONE])
async def test_sent_again_on_purpose(state: EffectState) -> None:
    """A row that may be paid for is unknown while its second POST is refused, and submitted once one is accepted."""
    journal = FakeJournal()
    async with assemble(FakeTransport(says(402)), journal=journal) as parts:
        row = journal.leave(state, task_id="old" if state is GONE else None)
        with pytest.raises(SubmitUnknownError) as caught:
            await resent(parts, row)
        assert isinstance(caught.value.__cause__, InsufficientCreditsError)
        assert journal.moves() == [Move.RESEND, Move.REVERT]
        record = await resent(parts, journal.contents[1])
        assert (record.task_id, record.row_id) == ("t1", 1)
        assert journal.moves()[2:] == [Move.RESEND, Move.ACCEPT]


async def test_a_wait_keeps_the_doubt() -> None:
    """While a second POST waits to be sent again, its row says that nobody knows."""
    journal = FakeJournal()
    async with assemble(FakeTransport(AWAY), journal=journal, retry=Retry(first_delay=100)) as parts:
        job = asyncio.create_task(resent(parts, journal.leave(UNKNOWN)))
        await asyncio.sleep(10)
        assert journal.states == [UNKNOWN]
        assert (await job).task_id == "t1"


async def test_a_doubt_of_one_is_no_doubt_of_another() -> None:
    """Submissions beside one that is unknown are refused for certain."""
    async with assemble(FakeTransport(LOST, says(402)), journal=FakeJournal()) as parts:
        one, other = await told(parts.start()), await told(parts.start(WIND))
        assert isinstance(one, SubmitUnknownError)
        assert isinstance(other, InsufficientCreditsError)
        assert parts.journal.states == [UNKNOWN, REFUSED]


async def test_nobody_waits_in_line_for_nobody() -> None:
    """A submission whose caller left in the step in which it was launched takes no place in the line."""
    async with assemble(FakeTransport(says(429, retry_after="60"))) as parts:
        first = parts.start()
        await asyncio.sleep(1)
        ear = Ear()
        submission = parts.submitter.submit(WIND, None, ear)
        phases = [submission.phase]
        parts.submitter.leave(submission, ear)
        await asyncio.sleep(1)
        assert [*phases, submission.phase] == [Phase.LAUNCHED, Phase.ENDED]
        assert parts.submitter.submitting == 1
        await first
        assert parts.transport.prompts == ["rain", "rain"]
