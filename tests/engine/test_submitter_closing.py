"""A submitter closes: each listener hears what is true, in bounded time, also if the journal hangs."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from fake_journal import FakeJournal, Step
from fakes import AWAY, LOST, FakeSlots, FakeTransport, says
from parts import RAIN, WIND, Ear, assemble, told

from finevoice_async.config import Retry
from finevoice_async.core.failures import Failure
from finevoice_async.core.ledger import EffectState, Move
from finevoice_async.core.wire import Reply
from finevoice_async.engine.records import TaskRecord
from finevoice_async.engine.submitter import DISK
from finevoice_async.errors import (
    FineVoiceError,
    JournalError,
    SessionClosedError,
    SubmitNotSentError,
    SubmitUnknownError,
)

QUEUED, SENDING, SUBMITTED, DONE, SAVED, REFUSED, UNKNOWN, FAILED, GONE = EffectState


def now() -> float:
    """Return the virtual time."""
    return asyncio.get_running_loop().time()


async def test_nothing_more_is_taken() -> None:
    """A closed submitter refuses whatever comes."""
    journal = FakeJournal()
    async with assemble(journal=journal) as parts:
        row = journal.leave(QUEUED)
        parts.submitter.refuse()
        for key in (None, "k"):
            with pytest.raises(SessionClosedError, match="Nothing was sent"):
                parts.submitter.submit(RAIN, key, Ear())
        with pytest.raises(SessionClosedError, match="Nothing was sent"):
            parts.submitter.submit_row(row, Ear())
        assert journal.states == [QUEUED]
        assert not parts.submitter.is_under_way(row)


@pytest.mark.parametrize("journalled", [False, True])
async def test_who_waits_for_a_slot_goes_home(journalled: bool) -> None:
    """Who waits hears that nothing was sent, and nobody waits for slots any more."""
    slots, journal = FakeSlots(), FakeJournal()
    slots.held = True
    async with assemble(slots=slots, journal=journal if journalled else None) as parts:
        jobs = [parts.start(RAIN), parts.start(WIND)]
        await asyncio.sleep(1)
        parts.submitter.refuse()
        for job in jobs:
            error = await told(job)
            assert isinstance(error, SessionClosedError)
            assert "Nothing was sent." in error.message
        assert slots.waiting == 0
        assert set(journal.states) == ({REFUSED} if journalled else set())
        slots.let_go()
        await asyncio.sleep(5)
        assert parts.transport.posts == []


async def test_what_a_key_found_goes_on_waiting() -> None:
    """A row that an earlier process queued, and that a caller of its key waited for, stays queued."""
    slots, journal = FakeSlots(), FakeJournal()
    slots.held = True
    async with assemble(slots=slots, journal=journal) as parts:
        row = journal.leave(QUEUED, key="k")
        job = parts.start(row.request, "k")
        await asyncio.sleep(1)
        await parts.close()
        error = await told(job)
        assert isinstance(error, SessionClosedError)
        assert "stays queued" in error.message
        assert journal.states == [QUEUED]


async def test_a_post_that_is_cancelled_before_it_began() -> None:
    """Who cancels all tasks of a loop may meet a POST that has not begun: nothing was sent, and it costs no slot."""
    async with assemble() as parts:
        ear, before = Ear(), asyncio.all_tasks()
        parts.submitter.submit(RAIN, None, ear)
        (post,) = asyncio.all_tasks() - before
        post.cancel()
        await asyncio.sleep(1)
        assert isinstance(ear.only, SessionClosedError)
        assert parts.transport.posts == []
        assert not parts.slots.out


async def test_a_wait_for_another_try_ends() -> None:
    """What was certainly not accepted is not sent again by a session that closes."""
    journal = FakeJournal()
    async with assemble(FakeTransport(AWAY), journal=journal, retry=Retry(first_delay=1000, max_delay=1000)) as parts:
        job = parts.start()
        await asyncio.sleep(1)
        began = now()
        await parts.close(timeout=50)
        assert now() - began < 1
        assert isinstance(await told(job), SessionClosedError)
        assert journal.states == [REFUSED]
        assert len(parts.transport.posts) == 1


async def test_a_doubt_that_waits_for_another_try_is_told() -> None:
    """What may have been accepted is told as that, although the session closes before it is sent again."""
    journal, patient = FakeJournal(), Retry(first_delay=1000, max_delay=1000, resend_unknown=True)
    async with assemble(FakeTransport(LOST), journal=journal, retry=patient) as parts:
        job = parts.start()
        await asyncio.sleep(1)
        await parts.close()
        error = await told(job)
        assert isinstance(error, SubmitUnknownError)
        assert isinstance(error.__cause__, SessionClosedError)
        assert journal.states == [UNKNOWN]


async def test_cancelled_as_it_closes() -> None:
    """Who is cancelled in the step of the closing is cancelled, and that is all."""
    slots = FakeSlots()
    slots.held = True
    async with assemble(slots=slots) as parts:
        job = parts.start()
        await asyncio.sleep(1)
        job.cancel()
        parts.submitter.refuse()
        await asyncio.wait([job])
        assert job.cancelled()


async def test_a_post_has_its_time() -> None:
    """A POST that is answered in time gives its task; nobody is held up after that."""
    async with assemble(FakeTransport(latency=3), journal=FakeJournal()) as parts:
        job = parts.start()
        await asyncio.sleep(1)
        began = now()
        await parts.close(timeout=50)
        assert now() - began == pytest.approx(2, abs=0.1)
        assert (await job).task_id == "t1"
        assert parts.journal.states == [SUBMITTED]


async def test_a_post_that_hangs_is_cut_off() -> None:
    """A POST that is not answered in time may have been accepted: so say its row and its caller's error."""
    async with assemble(FakeTransport(None), journal=FakeJournal()) as parts:
        job = parts.start()
        await asyncio.sleep(1)
        began = now()
        await parts.close(timeout=7)
        assert now() - began == pytest.approx(7, abs=0.1)
        error = await told(job)
        assert isinstance(error, SubmitUnknownError)
        assert error.request == RAIN
        assert parts.journal.states == [UNKNOWN]


async def test_a_row_that_is_being_written_is_withdrawn() -> None:
    """A row that comes during the closing is withdrawn before its caller hears."""
    journal, slots = FakeJournal(), FakeSlots()
    slots.held = True
    journal.delays = {QUEUED: 3, Move.REFUSE: 3}
    async with assemble(slots=slots, journal=journal) as parts:
        job = parts.start()
        await asyncio.sleep(1)
        closing = asyncio.create_task(parts.close())
        await asyncio.sleep(4)
        assert not job.done()
        assert journal.states == [REFUSED]
        await closing
        assert isinstance(await told(job), SessionClosedError)


async def test_a_row_that_cannot_be_written_now() -> None:
    """A fault of the journal during the closing is told as the closing, with the fault."""
    journal, slots = FakeJournal(), FakeSlots()
    slots.held = True
    journal.delays[QUEUED] = 3
    journal.failing[QUEUED] = JournalError("The disk is full.")
    async with assemble(slots=slots, journal=journal) as parts:
        job = parts.start()
        await asyncio.sleep(1)
        await parts.close()
        error = await told(job)
        assert isinstance(error, SessionClosedError)
        assert "The disk is full. Nothing was sent." in error.message


async def test_a_known_row_found_during_the_closing() -> None:
    """A key whose row is found during the closing gives what is there."""
    journal = FakeJournal()
    async with assemble(journal=journal) as parts:
        journal.leave(DONE, key="k", task_id="old")
        journal.delays[QUEUED] = 3
        request = journal.contents[1].request
        job = parts.start(request, "k")
        await asyncio.sleep(1)
        await parts.close()
        assert (await job).task_id == "old"


async def test_posts_and_callers_in_every_phase() -> None:
    """Many at once: each hears one thing, rows agree with what was told, and nothing is left."""
    journal, slots = FakeJournal(), FakeSlots(6)
    transport = FakeTransport(None, AWAY, None, AWAY, latency=1)
    journal.delays = {SENDING: 0.3, QUEUED: 0.3}
    async with assemble(transport, slots=slots, journal=journal, retry=Retry(first_delay=100, max_delay=100)) as parts:
        jobs = [parts.start(RAIN, f"k{number // 2}" if number % 3 else None) for number in range(20)]
        await asyncio.sleep(2)
        jobs += [parts.start(RAIN, f"l{number}") for number in range(3)]
        await asyncio.sleep(0.1)
        await parts.close(timeout=3)
        outcomes = await asyncio.gather(*jobs, return_exceptions=True)
        kinds = {type(outcome) for outcome in outcomes}
        assert kinds == {TaskRecord, SessionClosedError, SubmitUnknownError}
        assert set(journal.states) <= {SUBMITTED, REFUSED, UNKNOWN}
        ids = {outcome.task_id for outcome in outcomes if isinstance(outcome, TaskRecord)}
        assert ids == {row.task_id for row in journal.contents.values() if row.state is SUBMITTED}


# A journal that hangs


@pytest.mark.parametrize("key", [None, "k"])
@pytest.mark.parametrize("step", [QUEUED, SENDING, Move.SEND, Move.HOLD, Move.REFUSE, Move.ACCEPT, Move.DOUBT])
async def test_a_journal_that_hangs(step: Step, key: str | None) -> None:
    """Whatever write never comes back, the closing comes, and every caller hears an error of the library or a task."""
    journal, slots = FakeJournal(), FakeSlots(2)
    transport = FakeTransport(AWAY, latency=0.5)
    journal.hanging.add(step)
    async with assemble(transport, slots=slots, journal=journal, retry=Retry(first_delay=30, max_delay=30)) as parts:
        jobs = [parts.start(RAIN, key), parts.start(WIND), parts.start(WIND)]
        await asyncio.sleep(2)
        began = now()
        await parts.close(timeout=3)
        assert now() - began <= 3 + DISK + 0.1
        async with asyncio.timeout(1):
            outcomes = await asyncio.gather(*jobs, return_exceptions=True)
        for outcome in outcomes:
            assert isinstance(outcome, TaskRecord | FineVoiceError)
        assert not slots.out
        posts = len(transport.posts)
        journal.let_go()
        await asyncio.sleep(5)
        assert len(transport.posts) == posts


async def test_a_row_of_which_nothing_is_heard() -> None:
    """Who gives up a row that may be on disk as QUEUED hears that it may be sent later."""
    journal, slots = FakeJournal(), FakeSlots()
    slots.held = True
    journal.hanging.add(QUEUED)
    async with assemble(slots=slots, journal=journal) as parts:
        job = parts.start(RAIN, "k")
        await asyncio.sleep(1)
        await parts.close()
        error = await told(job)
        assert isinstance(error, SessionClosedError)
        assert journal.states == [QUEUED]
        assert "recover()" in error.message


async def test_a_task_whose_id_hangs() -> None:
    """An id that is known but never on disk is told as a task: it was accepted."""
    journal = FakeJournal()
    journal.hanging.add(Move.ACCEPT)
    async with assemble(journal=journal) as parts:
        job = parts.start()
        await asyncio.sleep(1)
        await parts.close()
        assert (await job).task_id == "t1"


@pytest.mark.parametrize(("answer", "move"), [(AWAY, Move.REFUSE), (LOST, Move.DOUBT)])
async def test_a_failure_whose_note_hangs(answer: Failure, move: Move) -> None:
    """What became of a POST is told, also if it never is on disk."""
    journal = FakeJournal()
    journal.hanging.add(move)
    async with assemble(FakeTransport(answer), journal=journal, retry=Retry(attempts=1)) as parts:
        job = parts.start()
        await asyncio.sleep(1)
        assert not job.done()
        await parts.close()
        error = await told(job)
        assert isinstance(error, SubmitUnknownError if answer is LOST else SubmitNotSentError)
        assert answer.what in error.message


async def test_a_doubt_whose_note_hangs() -> None:
    """A POST that was cut off may be paid for, whether the journal can say so or not."""
    journal = FakeJournal()
    journal.hanging.add(Move.DOUBT)
    async with assemble(FakeTransport(None), journal=journal) as parts:
        job = parts.start()
        await asyncio.sleep(1)
        await parts.close()
        assert isinstance(await told(job), SubmitUnknownError)


async def test_a_bug_whose_note_hangs() -> None:
    """A submission that a bug stopped is told, and gives its slot back, also if the session closes on its note."""
    journal = FakeJournal()
    journal.hanging.add(Move.DOUBT)
    async with assemble(FakeTransport(ZeroDivisionError()), journal=journal) as parts:
        job = parts.start()
        await asyncio.sleep(1)
        await parts.close()
        assert not parts.slots.out
        done, _ = await asyncio.wait([job], timeout=1)
        job.cancel()
        assert done


async def test_cut_off_while_its_first_row_is_written() -> None:
    """A POST that is cut off while its row is written is told once that row is withdrawn, or cannot be."""
    journal = FakeJournal()
    journal.delays = {SENDING: 5, Move.REFUSE: 2}
    journal.failing[Move.REFUSE] = JournalError("The disk is full.")
    async with assemble(journal=journal) as parts:
        job = parts.start()
        await asyncio.sleep(1)
        await parts.close(timeout=1)
        error = await told(job)
        assert isinstance(error, SessionClosedError)
        assert "The journal could not note that" in error.message


async def test_cut_off_while_its_first_row_fails() -> None:
    """A row that fails after its POST was cut off is nothing to withdraw, and no fault of the loop."""
    journal = FakeJournal()
    journal.delays[SENDING] = 5
    journal.failing[SENDING] = JournalError("The disk is full.")
    async with assemble(journal=journal) as parts:
        job = parts.start()
        await asyncio.sleep(1)
        await parts.close(timeout=1)
        assert isinstance(await told(job), SessionClosedError)


class Timed(FakeTransport):
    """Answers the POSTs of each prompt in their order, each after its time."""

    def __init__(self, **answers: list[tuple[float, Reply]]) -> None:
        super().__init__()
        self.answers = answers

    async def post(self, path: str, body: bytes, **options: Any) -> Reply:
        """Take a submission."""
        self.posts.append(json.loads(body))
        seconds, reply = self.answers[self.prompts[-1]].pop(0)
        await asyncio.sleep(seconds)
        return reply


async def test_nothing_is_sent_again_once_closing_began() -> None:
    """A 429 that comes after closing began ends a submission, also if a probe opens the way while that is noted."""
    again = (0.1, says(task_id="sent again"))
    transport = Timed(
        rain=[(0.1, says(429)), (2.0, says(task_id="t1"))],  # the second as the probe, which opens the way at 2.35
        wind=[(2.0, says(429)), again],
    )
    journal = FakeJournal()
    async with assemble(transport, journal=journal, retry=Retry(first_delay=0.5)) as parts:
        probing, late = parts.start(RAIN, "a"), parts.start(WIND, "b")
        await asyncio.sleep(1)
        assert transport.prompts == ["rain", "wind", "rain"]
        journal.delays[Move.HOLD] = 1
        await parts.close(timeout=10)
        assert (await probing).task_id == "t1"
        error = await told(late)
        assert isinstance(error, SessionClosedError)
        assert "Nothing was sent" in error.message
        assert transport.prompts == ["rain", "wind", "rain"]
        assert journal.states == [SUBMITTED, REFUSED]


@pytest.mark.parametrize("step", [SENDING, Move.SEND])
async def test_who_is_about_to_leave_stays(step: Step) -> None:
    """A submission whose row is being written as closing begins is not sent: nothing of it was under way."""
    journal = FakeJournal()
    journal.delays[step] = 2
    async with assemble(journal=journal) as parts:
        job = parts.start(RAIN, None if step is SENDING else "k")
        await asyncio.sleep(1)
        await parts.close(timeout=10)
        assert isinstance(await told(job), SessionClosedError)
        assert parts.transport.posts == []
        assert journal.states == [REFUSED]
