"""The budget: never more submissions than it allows that were accepted, or may have been."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from fake_journal import FakeJournal
from fakes import AWAY, LOST, Answer, FakeSlots, FakeTransport, says
from parts import RAIN, Parts, assemble, told

from finevoice_async.config import Budget, Retry
from finevoice_async.core.brake import KEY_PAUSE
from finevoice_async.core.failures import Failure, FailureKind
from finevoice_async.core.ledger import EffectState, JournalRow, Move
from finevoice_async.core.requests import SfxRequest
from finevoice_async.core.tasks import TaskStatus
from finevoice_async.core.wire import Reply
from finevoice_async.engine.caller import until_known
from finevoice_async.errors import (
    BudgetExceededError,
    ConfigurationError,
    FineVoiceError,
    JournalError,
    PollError,
    SubmitUnknownError,
)

QUEUED, SENDING, SUBMITTED, DONE, SAVED, REFUSED, UNKNOWN, FAILED, GONE = EffectState

MINUTE = timedelta(minutes=1)
ONCE = Retry(attempts=1)

CERTAIN: list[Answer] = [
    AWAY,
    Failure(FailureKind.CERTIFICATE, "the certificate is another's"),
    *[says(status) for status in (400, 401, 402, 403, 404, 410, 413, 422, 429)],
    says(status="failed", error="not this one"),
]
"""What says that a submission was not accepted."""

DOUBTFUL: list[Answer] = [
    LOST,
    Reply(200, {}, b"<html>"),
    says(status="processing"),
    says(task_id=".."),
    *[says(status) for status in (302, 408, 409, 500, 502, 503, 504, 600)],
]
"""What may hide an acceptance."""


async def send_row(parts: Parts, row: JournalRow, *, resend: bool = False) -> Any:
    """Send what an earlier process left."""
    return await until_known(parts.submitter, partial(parts.submitter.submit_row, row, resend=resend))


def sent(journal: FakeJournal) -> int:
    """Count what the journal says to be spent."""
    return sum(map(len, journal.sent.values()))


async def refused(parts: Parts, **options: Any) -> BudgetExceededError:
    """Submit, and return why the budget does not let it pass."""
    before = len(parts.transport.posts)
    with pytest.raises(BudgetExceededError) as caught:
        await parts.submit(**options)
    assert len(parts.transport.posts) == before
    return caught.value


# In the session


@pytest.mark.parametrize("kept", [False, True])
async def test_no_more_than_it_allows(kept: bool) -> None:
    """The submission beyond the budget is refused in words, and nothing is sent; there is no end to that."""
    async with assemble(journal=FakeJournal() if kept else None, budget=Budget(effects=2)) as parts:
        await parts.submit()
        await parts.submit()
        for _ in range(2):
            error = await refused(parts)
            assert error.request == RAIN
            assert error.message.startswith("The budget is spent: 2 submissions of 2 in this session.")
            assert error.message.endswith("Nothing was sent and nothing paid.")
            await asyncio.sleep(1000)
    assert len(parts.transport.posts) == 2


async def test_without_a_budget_nothing_is_counted() -> None:
    """As many as are wanted are sent."""
    async with assemble(slots=FakeSlots(50)) as parts:
        await asyncio.gather(*[parts.submit() for _ in range(50)])
        assert len(parts.transport.posts) == 50


@pytest.mark.parametrize("per", [None, MINUTE])
@pytest.mark.parametrize("keyed", [False, True])
async def test_a_crowd(per: timedelta | None, keyed: bool) -> None:
    """Of forty that leave at once no more leave than are allowed; the others' rows, if they have any, are refused."""
    journal = FakeJournal()
    budget = Budget(effects=7, per=per)
    async with assemble(FakeTransport(*[None] * 40), slots=FakeSlots(50), journal=journal, budget=budget) as parts:
        parts.sender._gate._brake.width = 40
        jobs = [parts.start(SfxRequest(f"{n}"), f"{n}" if keyed else None) for n in range(40)]
        await asyncio.sleep(1)
        assert len(parts.transport.posts) == parts.transport.posting == 7
        assert len([job for job in jobs if job.done() and type(job.exception()) is BudgetExceededError]) == 33
        assert journal.states.count(SENDING) == sent(journal) == 7
        assert journal.states.count(REFUSED) == len(journal.states) - 7 == (33 if keyed else 0)
        await parts.close(timeout=0)
        for job in jobs:
            assert isinstance(await told(job), FineVoiceError)


@pytest.mark.parametrize("answer", [*CERTAIN, *DOUBTFUL], ids=repr)
@pytest.mark.parametrize("kept", [False, True])
async def test_what_is_given_back(answer: Answer, kept: bool) -> None:
    """What certainly was not accepted is given back, to others and to later sessions; what may have been is not."""
    journal = FakeJournal()
    options: dict[str, Any] = {"journal": journal, "budget": Budget(effects=1, per=MINUTE * 60)}
    if not kept:
        options = {"budget": Budget(effects=1)}
    async with assemble(FakeTransport(answer), retry=ONCE, **options) as parts:
        await told(parts.start())
        if answer in DOUBTFUL:
            await refused(parts)
        else:
            await asyncio.sleep(KEY_PAUSE)  # after a 401
            await parts.submit()
            await refused(parts)
    assert sent(journal) == int(kept)
    if kept:
        async with assemble(**options) as parts:
            await refused(parts)


@pytest.mark.parametrize("answer", [says(task_id="t"), says(status="failed", error="no", task_id="t")], ids=repr)
async def test_a_task_that_fails_stays_spent(answer: Answer) -> None:
    """What the service accepted counts, however and whenever it ends."""
    transport = FakeTransport(answer, polls=(says(status="failed"),))
    async with assemble(transport, budget=Budget(effects=1)) as parts:
        record = await parts.submit()
        await asyncio.sleep(10)
        assert record.status is TaskStatus.FAILED
        await refused(parts)


async def test_what_is_held_gives_way() -> None:
    """What waits to be sent again has spent nothing meanwhile, and is refused if somebody else was faster."""
    journal = FakeJournal()
    async with assemble(FakeTransport(says(429)), journal=journal, budget=Budget(effects=1)) as parts:
        held = parts.start(RAIN, "held")
        await asyncio.sleep(0.15)
        assert sent(journal) == 0
        swift = parts.start(RAIN, "swift")
        told_of = await asyncio.gather(held, swift, return_exceptions=True)
        assert sorted(type(result).__name__ for result in told_of) == ["BudgetExceededError", "TaskRecord"]
        assert sorted(state.value for state in journal.states) == ["refused", "submitted"]
        assert len(parts.transport.posts) == 2


# More than once


async def test_what_is_sent_again_in_doubt_counts_again() -> None:
    """`resend_unknown` pays for each attempt; the last word is that the ones before may be paid for."""
    journal, reckless = FakeJournal(), Retry(attempts=4, resend_unknown=True)
    budget = Budget(effects=2, per=MINUTE * 60)
    async with assemble(FakeTransport(*[LOST] * 4), journal=journal, retry=reckless, budget=budget) as parts:
        error = await told(parts.start(RAIN, "k"))
        assert isinstance(error, SubmitUnknownError)
        assert "The budget is spent: 2 submissions of 2" in error.message
        assert isinstance(error.__cause__, BudgetExceededError)
        assert len(parts.transport.posts) == sent(journal) == 2
        assert journal.states == [UNKNOWN]


@pytest.mark.parametrize("state", [UNKNOWN, GONE])
async def test_a_row_that_is_sent_again_counts_again(state: EffectState) -> None:
    """`resubmit` needs the budget, too: without one the row stays what it was, and the error says so."""
    journal = FakeJournal()
    async with assemble(journal=journal, budget=Budget(effects=2, per=MINUTE)) as parts:
        row = journal.leave(state, task_id="old" if state is GONE else None)
        await parts.sender.spending.open()
        assert (await send_row(parts, row, resend=True)).task_id == "t1"
        assert sent(journal) == 2
        other = journal.leave(state, task_id="other" if state is GONE else None)
        with pytest.raises(BudgetExceededError, match="its row stays as it was"):
            await send_row(parts, other, resend=True)
        assert journal.contents[other.id] == other
        assert len(parts.transport.posts) == 1


@pytest.mark.parametrize("answer", [AWAY, says(402)])
async def test_a_second_submission_that_is_refused_gives_itself_back_alone(answer: Any) -> None:
    """The first one stays spent, in memory and in the journal."""
    journal, budget = FakeJournal(), Budget(effects=2, per=MINUTE)
    async with assemble(FakeTransport(answer), journal=journal, retry=ONCE, budget=budget) as parts:
        row = journal.leave(UNKNOWN)
        await parts.sender.spending.open()
        with pytest.raises(SubmitUnknownError):
            await send_row(parts, row, resend=True)
        assert journal.moves() == [Move.RESEND, Move.REVERT]
        assert sent(journal) == 1
        await parts.submit()
        await refused(parts)


async def test_a_failed_effect_that_is_wanted_again_counts_again() -> None:
    """`retry_failed` is another submission."""
    journal = FakeJournal()
    async with assemble(journal=journal, budget=Budget(effects=2, per=MINUTE)) as parts:
        journal.leave(FAILED, key="k", task_id="old")
        await parts.sender.spending.open()
        await parts.submit(RAIN, "k", retry_failed=True)
        assert sent(journal) == 2
        await refused(parts)


async def test_what_is_settled_stays_spent() -> None:
    """To name a task, or to give a row up, makes nothing unpaid."""
    journal = FakeJournal()
    async with assemble(journal=journal, budget=Budget(effects=2, per=MINUTE)) as parts:
        rows = [journal.leave(UNKNOWN), journal.leave(UNKNOWN)]
        await parts.books.adopt(rows[0], "mine")
        await parts.books.discard(rows[1])
        await parts.sender.spending.open()
        assert journal.states == [SUBMITTED, REFUSED]
        await refused(parts)


# Before the POST


async def test_a_row_that_cannot_be_written_is_given_back() -> None:
    """A journal that fails before the POST costs nothing of the budget."""
    journal = FakeJournal()
    async with assemble(journal=journal, budget=Budget(effects=1)) as parts:
        for key, step in ((None, SENDING), ("k", Move.SEND)):
            journal.failing[step] = JournalError("The disk is full.")
            assert isinstance(await told(parts.start(RAIN, key)), JournalError)
        journal.failing.clear()
        await parts.submit()
        await refused(parts)


async def test_a_caller_who_leaves_before_the_post_costs_nothing() -> None:
    """What is closed while its row is being written was never sent."""
    journal = FakeJournal()
    journal.delays[SENDING] = 5
    async with assemble(journal=journal, budget=Budget(effects=1, per=MINUTE)) as parts:
        job = parts.start()
        await asyncio.sleep(1)
        assert parts.sender.spending._count == sent(journal) == 1
        await parts.close(timeout=0)
        await told(job)
        assert parts.sender.spending._count == sent(journal) == 0
        assert parts.transport.posts == []


async def test_a_dead_poller_costs_nothing() -> None:
    """Where nobody would see the end, nothing is sent and nothing spent."""
    journal = FakeJournal()
    journal.delays[SENDING] = 5
    async with assemble(journal=journal, budget=Budget(effects=1)) as parts:
        job = parts.start()
        await asyncio.sleep(1)
        parts.inflight.break_down("a bug")
        assert isinstance(await told(job), PollError)
        assert parts.sender.spending._count == sent(journal) == len(parts.transport.posts) == 0
        assert journal.states == [REFUSED]


async def test_a_row_that_was_moved_meanwhile_costs_nothing() -> None:
    """A row that must not be sent is read anew, and its submission given back."""
    journal = FakeJournal()
    async with assemble(journal=journal, budget=Budget(effects=1)) as parts:
        row = journal.leave(QUEUED)
        job = asyncio.create_task(send_row(parts, row))
        journal.move(row.id, Move.DISCARD)
        assert "withdrawn" in str(await told(job))
        await parts.submit()
        await refused(parts)


async def test_what_an_earlier_process_wished_for_stays_queued() -> None:
    """A row left behind that the budget does not let pass is sent by a later session, and its caller told so."""
    journal = FakeJournal()
    async with assemble(journal=journal, budget=Budget(effects=1)) as parts:
        await parts.submit()
        row = journal.leave(QUEUED)
        with pytest.raises(BudgetExceededError, match=r"stays queued in the journal: recover\(\) sends it later"):
            await send_row(parts, row)
        assert journal.contents[row.id].state is QUEUED
    async with assemble(FakeTransport(says(task_id="later")), journal=journal, budget=Budget(effects=1)) as parts:
        assert (await send_row(parts, row)).task_id == "later"


# In a sliding time


async def test_a_sliding_time() -> None:
    """Each submission is free again a time after it left, and the error says when."""
    journal = FakeJournal()
    async with assemble(slots=FakeSlots(50), journal=journal, budget=Budget(effects=2, per=MINUTE)) as parts:
        await parts.submit()  # leaves at 0
        await asyncio.sleep(19.9)
        await parts.submit()  # leaves at 20
        error = await refused(parts, key="k")
        assert "2 submissions of 2 in 0:01:00. The next is free in 0:00:40, at the latest" in error.message
        assert error.retry_after == 40
        assert journal.contents[3].error == error.message
        await asyncio.sleep(39.8)
        await refused(parts)
        await asyncio.sleep(0.2)
        await parts.submit()
        assert "free in 0:00:20" in (await refused(parts)).message
        await asyncio.sleep(100)
        await parts.submit()
        await parts.submit()
        await refused(parts)


async def test_the_time_begins_when_a_post_leaves() -> None:
    """What waits for the disk is spent without end, and for the whole time from when it leaves."""
    journal = FakeJournal(delay=100)
    async with assemble(journal=journal, budget=Budget(effects=1, per=MINUTE)) as parts:
        parts.start()
        await asyncio.sleep(90)
        assert "free in 0:01:00" in str(await told(parts.start()))
        await asyncio.sleep(40)  # it left 30 s ago
        assert len(parts.transport.posts) == 1
        assert "free in 0:00:30" in str(await told(parts.start()))
        journal.delay = 0
        await asyncio.sleep(30)
        await parts.submit()


async def test_what_earlier_sessions_sent_counts() -> None:
    """A session begins with what the journal knows: also what a crash cut off, and what was left in doubt."""
    journal = FakeJournal()
    for state, ago in ((SENDING, 50), (UNKNOWN, 40), (SUBMITTED, 30), (SAVED, 20), (DONE, 70), (QUEUED, 1)):
        journal.leave(state, ago=ago, task_id=state.value)
    async with assemble(journal=journal, budget=Budget(effects=5, per=MINUTE)) as parts:
        await parts.submit()
        assert "5 submissions of 5 in 0:01:00. The next is free in 0:00:10," in (await refused(parts)).message
    async with assemble(journal=journal, budget=Budget(effects=2, per=MINUTE)) as parts:
        assert "5 submissions of 2 in 0:01:00. The next is free in 0:00:40," in (await refused(parts)).message
        await asyncio.sleep(40)
        parts.transport.accepted = 1  # as before
        await parts.submit()
        await refused(parts)


async def test_a_clock_that_was_set_back() -> None:
    """What left in the future has left just now."""
    journal = FakeJournal()
    journal.leave(SUBMITTED, ago=-3600, task_id="t")
    async with assemble(journal=journal, budget=Budget(effects=1, per=MINUTE)) as parts:
        await asyncio.sleep(59)
        await refused(parts)
        await asyncio.sleep(1)
        await parts.submit()


@pytest.mark.parametrize("per", [timedelta.max, timedelta(days=10**6), timedelta.resolution])
async def test_any_time(per: timedelta) -> None:
    """A time may reach beyond the calendar, or be next to nothing."""
    journal = FakeJournal()
    async with assemble(journal=journal, budget=Budget(effects=1, per=per)) as parts:
        await parts.submit()
        if per == timedelta.resolution:
            await parts.submit()
        else:
            assert f"1 submissions of 1 in {per}. The next is free in" in (await refused(parts)).message


def test_a_time_needs_a_journal() -> None:
    """Without one a later session would know of nothing."""
    with pytest.raises(ConfigurationError, match=r"`per`.* needs a journal"):
        assemble(budget=Budget(effects=1, per=MINUTE))


async def test_a_journal_that_does_not_tell() -> None:
    """Where it is not known what was spent, the session is not opened; the next try may succeed."""
    journal = FakeJournal()
    journal.failing["sent_since"] = OSError("no disk")
    parts = assemble(journal=journal, budget=Budget(effects=1, per=MINUTE))
    with pytest.raises(JournalError):
        await parts.__aenter__()
    journal.failing.clear()
    async with parts:
        await parts.submit()
