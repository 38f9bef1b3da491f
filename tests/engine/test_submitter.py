"""From a wish to a task id: who waits, in what order, with whom, and for which slot."""

from __future__ import annotations

import asyncio

import pytest
from fake_journal import FakeJournal
from fakes import FINISHED, FakeSlots, FakeTransport, says
from parts import RAIN, WIND, Ear, assemble, told, turns

from finevoice_async.core.brake import FEW_AT_ONCE, MANY_AT_ONCE
from finevoice_async.core.ledger import EffectState, Move
from finevoice_async.core.requests import SfxRequest
from finevoice_async.engine.records import Phase, TaskRecord
from finevoice_async.errors import (
    InsufficientCreditsError,
    InvalidRequestError,
    JournalError,
    PollError,
    SessionClosedError,
    SubmitNotSentError,
    SubmitUnknownError,
    TaskFailedError,
)

QUEUED, SENDING, SUBMITTED, DONE, SAVED, REFUSED, UNKNOWN, FAILED, GONE = EffectState
BOTH_WAYS = pytest.mark.parametrize("journalled", [False, True])


def numbered(count: int) -> list[SfxRequest]:
    """Return requests with numbers."""
    return [SfxRequest(f"sound {number}") for number in range(count)]


# Slots and order


@BOTH_WAYS
async def test_sent_in_the_order_in_which_they_came(journalled: bool) -> None:
    """With few slots submissions wait their turn, first come, first served, and each has its slot while it runs."""
    slots = FakeSlots(2)
    async with assemble(slots=slots, journal=FakeJournal() if journalled else None) as parts:
        parts.transport.tasks = {f"t{number}": FINISHED for number in range(1, 9)}
        jobs = [parts.start(request) for request in numbered(7)]
        await asyncio.sleep(0.05)
        assert len(slots.out) == 2
        assert repr(parts.submitter) == "<Submitter: 5 waiting, 2 submitting>"
        await asyncio.gather(*jobs)
        assert parts.transport.prompts == [f"sound {number}" for number in range(7)]
        assert parts.transport.most_posting <= 2
        assert (parts.submitter.waiting, parts.submitter.submitting) == (0, 0)


async def test_without_a_journal_a_free_slot_is_used_in_the_same_step() -> None:
    """Nobody waits for what is free: the POST is on its way at once."""
    async with assemble() as parts:
        submission = parts.submitter.submit(RAIN, None, Ear())
        assert submission.phase is Phase.LAUNCHED
        await turns(1)
        assert parts.transport.prompts == ["rain"]


async def test_with_a_journal_one_write_is_enough() -> None:
    """A submission with a free slot has one row, which says SENDING from the first; one that waits is QUEUED before."""
    journal, slots = FakeJournal(), FakeSlots(1)
    async with assemble(journal=journal, slots=slots) as parts:
        await parts.submit(RAIN)
        second = parts.start(WIND)
        await asyncio.sleep(1)
        assert journal.moves(1) == [SENDING, Move.ACCEPT]
        assert journal.moves(2) == [QUEUED]
        assert parts.submitter.waiting == 1
        parts.transport.tasks["t1"] = FINISHED
        await second
        assert journal.moves(2) == [QUEUED, Move.SEND, Move.ACCEPT]


async def test_nobody_overtakes_who_waits() -> None:
    """A submission whose row is still being written keeps its turn, although a slot is free."""
    journal, slots = FakeJournal(), FakeSlots(1)
    async with assemble(journal=journal, slots=slots) as parts:
        slots.held = True
        journal.delays[QUEUED] = 5
        first = parts.start(RAIN)
        await asyncio.sleep(1)
        slots.let_go()
        second = parts.start(WIND)
        await asyncio.sleep(3)
        assert parts.transport.prompts == []
        assert parts.submitter.waiting == 2
        await first
        assert parts.transport.prompts == ["rain"]
        parts.transport.tasks["t1"] = FINISHED
        await second


async def test_slots_that_come_later() -> None:
    """Slots that others hold are waited for; each that comes launches one more."""
    slots = FakeSlots(5)
    slots.held = True
    async with assemble(slots=slots) as parts:
        jobs = [parts.start(request) for request in numbered(3)]
        await asyncio.sleep(10)
        assert slots.waiting == 1  # one after another: who is next is decided when a slot comes
        assert parts.transport.prompts == []
        slots.let_go()
        await asyncio.gather(*jobs)
        await asyncio.sleep(1)
        assert slots.waiting == 0
        assert len(slots.out) == 3
        slots.held = True
        jobs = [parts.start(request) for request in numbered(2)]
        await asyncio.sleep(1)
        assert slots.waiting == 1  # again, after it had nothing to do
        slots.let_go()
        await asyncio.gather(*jobs)


@BOTH_WAYS
async def test_no_more_posts_at_once_than_fit(journalled: bool) -> None:
    """Ten POSTs are out until answers come, and one more with each answer up to 40; nobody is overtaken."""
    transport, slots = FakeTransport(), FakeSlots(200)
    async with assemble(transport, slots=slots, journal=FakeJournal() if journalled else None) as parts:
        jobs = [parts.start(request) for request in numbered(190)]
        await asyncio.sleep(0.05)
        assert (transport.posting, parts.submitter.submitting, parts.submitter.waiting) == (10, 10, 180)
        assert len(slots.out) == FEW_AT_ONCE == 10
        await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0.05)
        assert transport.posting == 20
        await asyncio.gather(*jobs)
        assert transport.most_posting == MANY_AT_ONCE == 40
        assert transport.prompts == [request.prompt for request in numbered(190)]


async def test_who_is_held_back_by_posts_waits_for_no_slot() -> None:
    """While as many POSTs are out as may be, no slot is taken for who cannot go out."""
    transport, slots = FakeTransport(*[None] * 10), FakeSlots(11)
    async with assemble(transport, slots=slots) as parts:
        jobs = [parts.start(request) for request in numbered(15)]
        await asyncio.sleep(10)
        assert (len(slots.out), slots.waiting, parts.submitter.waiting) == (10, 0, 5)
        await parts.close()
        errors = [type(await told(job)) for job in jobs]
        assert errors == [SubmitUnknownError] * 10 + [SessionClosedError] * 5


# One key, one submission


async def test_callers_of_one_key_share() -> None:
    """All callers of a key get one task of one POST, whenever they come; another request is refused."""
    journal = FakeJournal()
    async with assemble(journal=journal) as parts:
        jobs = []
        for _ in range(4):  # while its row is written, has its slot, is out, and is told
            jobs.append(parts.start(RAIN, "k"))
            await asyncio.sleep(0.035)
        with pytest.raises(InvalidRequestError, match="another request"):
            await parts.submit(WIND, "k")
        records = await asyncio.gather(*jobs)
        records.append(await parts.submit(RAIN, "k"))
        assert {id(record) for record in records} == {id(records[0])}
        assert parts.transport.prompts == ["rain"]
        assert len(journal.contents) == 1


async def test_callers_of_one_key_share_its_failure() -> None:
    """Each hears an error of its own, and the key is free afterwards."""
    async with assemble(FakeTransport(says(402)), journal=FakeJournal()) as parts:
        one, other = parts.start(RAIN, "k"), parts.start(RAIN, "k")
        errors = [await told(one), await told(other)]
        assert [type(error) for error in errors] == [InsufficientCreditsError] * 2
        assert errors[0] is not errors[1]
        assert (await parts.submit(WIND, "k")).task_id == "t1"


async def test_a_key_holds_for_the_session_without_a_journal() -> None:
    """Its callers get one task, while it runs and after its end; another request is refused."""
    async with assemble() as parts:
        record = await parts.submit(RAIN, "k")
        assert await parts.submit(RAIN, "k") is record
        parts.transport.tasks["t1"] = FINISHED
        await asyncio.sleep(10)
        assert await parts.submit(RAIN, "k") is record
        with pytest.raises(InvalidRequestError, match="another request"):
            await parts.submit(WIND, "k")
        assert parts.transport.prompts == ["rain"]


@pytest.mark.parametrize(
    ("state", "comes_to"),
    [
        (QUEUED, TaskRecord),
        (SENDING, SubmitUnknownError),
        (UNKNOWN, SubmitUnknownError),
        (SUBMITTED, TaskRecord),
        (DONE, TaskRecord),
        (SAVED, TaskRecord),
        (REFUSED, TaskRecord),
        (FAILED, TaskRecord),
        (GONE, TaskRecord),
    ],
)
async def test_what_a_key_comes_to(state: EffectState, comes_to: type[object]) -> None:
    """A key's row decides: sent if it certainly was not, told if it may be paid for, else what is there."""
    journal = FakeJournal()
    async with assemble(journal=journal) as parts:
        journal.leave(state, key="k", task_id=None if state in (QUEUED, SENDING, UNKNOWN, REFUSED) else "old")
        outcome = (await asyncio.gather(parts.submit(SfxRequest("rain"), "k"), return_exceptions=True))[0]
        assert isinstance(outcome, comes_to)
        assert len(parts.transport.posts) == (state in (QUEUED, REFUSED))
        if isinstance(outcome, TaskRecord):
            assert outcome.task_id == ("t1" if state in (QUEUED, REFUSED) else "old")
            assert (outcome.end is None) is (state in (QUEUED, REFUSED, SUBMITTED))


async def test_failed_and_tried_again() -> None:
    """A failed effect is told as failed, and sent again where the caller pays for that."""
    journal = FakeJournal()
    async with assemble(journal=journal) as parts:
        journal.leave(FAILED, key="k", task_id="old", error="No such sound.")
        first = await parts.submit(SfxRequest("rain"), "k")
        assert isinstance(first.end, TaskFailedError)
        assert (await parts.submit(SfxRequest("rain"), "k", retry_failed=True)).task_id == "t1"


async def test_an_id_that_is_known_here_only() -> None:
    """A row that still says SENDING because its id could not be kept gives the task that this session follows."""
    journal = FakeJournal()
    journal.failing[Move.ACCEPT] = JournalError("The disk is full.")
    async with assemble(journal=journal) as parts:
        assert isinstance(await told(parts.start(RAIN, "k")), JournalError)
        assert journal.states == [SENDING]
        assert (await parts.submit(RAIN, "k")).task_id == "t1"
        assert len(parts.transport.posts) == 1


@pytest.mark.parametrize("at_once", [False, True])
async def test_a_row_that_cannot_be_written(at_once: bool) -> None:
    """Nothing is sent, the key is free, and the next try works."""
    journal = FakeJournal()
    faults = journal.raising if at_once else journal.failing
    faults[QUEUED] = JournalError("The disk is full.")
    async with assemble(journal=journal) as parts:
        error = await told(parts.start(RAIN, "k"))
        assert isinstance(error, JournalError)
        assert parts.transport.posts == []
        faults.clear()
        assert (await parts.submit(WIND, "k")).task_id == "t1"


# Rows


async def test_rows_are_submitted_once() -> None:
    """A row that is being submitted, or whose key is, is refused a second time."""
    journal, slots = FakeJournal(), FakeSlots()
    slots.held = True
    async with assemble(journal=journal, slots=slots) as parts:
        row, keyed = journal.leave(QUEUED), journal.leave(QUEUED, key="k")
        ear = Ear()
        parts.submitter.submit_row(row, ear)
        by_key = parts.start(SfxRequest("rain"), "k")
        await asyncio.sleep(1)
        for under_way in (row, keyed):
            assert parts.submitter.is_under_way(under_way)
            with pytest.raises(InvalidRequestError, match="being submitted already") as caught:
                parts.submitter.submit_row(under_way, Ear())
            assert caught.value.request == under_way.request
        slots.let_go()
        assert (await by_key).row_id == 2
        await asyncio.sleep(1)
        assert isinstance(ear.only, TaskRecord)
        assert ear.only.row_id == 1
        assert not parts.submitter.is_under_way(row)
        assert len(parts.transport.posts) == 2


async def test_a_row_and_its_key_share() -> None:
    """A caller of the key joins the submission of the row."""
    journal, slots = FakeJournal(), FakeSlots()
    slots.held = True
    async with assemble(journal=journal, slots=slots) as parts:
        ear = Ear()
        parts.submitter.submit_row(journal.leave(QUEUED, key="k"), ear)
        job = parts.start(SfxRequest("rain"), "k")
        await asyncio.sleep(1)
        slots.let_go()
        assert await job is ear.only
        assert len(parts.transport.posts) == 1


# Slots that raise


@pytest.mark.parametrize("method", ["try_acquire", "acquire"])
@pytest.mark.parametrize("fault", [OSError("away"), asyncio.CancelledError()])
@BOTH_WAYS
async def test_slots_that_raise(method: str, fault: BaseException, journalled: bool) -> None:
    """Who wanted a slot hears that nothing was sent, and nothing is; once the slots work, so does all else."""
    slots = FakeSlots()
    slots.faults[method] = fault
    slots.held = method == "acquire"
    async with assemble(slots=slots, shared=True, journal=FakeJournal() if journalled else None) as parts:
        for number in range(3):
            error = await told(parts.start(RAIN, f"k{number}" if journalled else None))
            assert isinstance(error, SubmitNotSentError)
            assert type(error.__cause__) is type(fault)
            assert error.request == RAIN
        assert set(parts.journal.states) <= {REFUSED}
        slots.faults.clear()
        slots.let_go()
        assert (await parts.submit()).task_id == "t1"


async def test_slots_that_raise_once_fail_one() -> None:
    """Of many who wait only who was to get that slot hears of the fault."""
    slots = FakeSlots()
    slots.held = True
    async with assemble(slots=slots, shared=True) as parts:
        jobs = [parts.start(request) for request in numbered(4)]
        await asyncio.sleep(1)
        slots.fail(OSError("away"))
        slots.let_go()
        outcomes = await asyncio.gather(*jobs, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [SubmitNotSentError] + [TaskRecord] * 3
        assert parts.transport.prompts == ["sound 1", "sound 2", "sound 3"]


async def test_slots_that_raise_when_all_have_left() -> None:
    """A fault that comes when nobody waits any more is nobody's; the next one gets a slot."""
    slots = FakeSlots()
    slots.held = True
    async with assemble(slots=slots, shared=True) as parts:
        job = parts.start()
        await asyncio.sleep(1)
        job.cancel()
        await asyncio.wait([job])
        slots.fail(OSError("away"))
        await asyncio.sleep(1)
        slots.let_go()
        assert (await parts.submit()).task_id == "t1"


@pytest.mark.parametrize("method", ["release", "occupy", "waiting", "slow_down"])
async def test_slots_that_raise_elsewhere(method: str, caplog: pytest.LogCaptureFixture) -> None:
    """A fault that nobody waits for costs no effect."""
    slots, journal = FakeSlots(1), FakeJournal()
    slots.faults[method] = OSError("away")
    async with assemble(FakeTransport(says(429), says(402)), slots=slots, shared=True, journal=journal) as parts:
        parts.transport.tasks = {"t1": FINISHED, "old": FINISHED}
        assert isinstance(await told(parts.start()), InsufficientCreditsError)
        parts.poller.pick_up(journal.leave(SUBMITTED, task_id="old"))
        record = await parts.submit(WIND)
        await asyncio.sleep(5)
        assert record.end is not None
        assert not parts.inflight.tasks
        assert "the shared slots failed" in caplog.text


async def test_the_dispatcher_is_cancelled_from_outside(caplog: pytest.LogCaptureFixture) -> None:
    """Who waited hears that nothing was sent; the next one waits for a slot as ever."""
    slots, journal = FakeSlots(), FakeJournal()
    slots.held = True
    async with assemble(slots=slots, journal=journal) as parts:
        jobs = [parts.start(request) for request in numbered(3)]
        await asyncio.sleep(1)
        (dispatcher,) = [task for task in asyncio.all_tasks() if task.get_name() == "finevoice-dispatcher"]
        dispatcher.cancel()
        for job in jobs:
            error = await told(job)
            assert isinstance(error, SubmitNotSentError)
            assert "ended from outside" in error.message
        assert journal.states == [REFUSED] * 3
        assert "what hands out slots ended (cancelled)" in caplog.text
        assert slots.waiting == 0
        job = parts.start()
        await asyncio.sleep(1)
        slots.let_go()
        assert (await job).task_id == "t1"


async def test_a_dead_poller_takes_nothing_more() -> None:
    """If nobody would see a task end, nothing is submitted, neither new nor waiting."""
    slots, journal = FakeSlots(), FakeJournal()
    slots.held = True
    async with assemble(slots=slots, journal=journal) as parts:
        waiting = parts.start()
        await asyncio.sleep(1)
        parts.inflight.break_down("ZeroDivisionError")
        with pytest.raises(PollError, match="ZeroDivisionError"):
            await parts.submit()
        with pytest.raises(PollError):
            parts.submitter.submit_row(journal.leave(QUEUED), Ear())
        slots.let_go()
        assert isinstance(await told(waiting), PollError)
        assert parts.transport.posts == []
