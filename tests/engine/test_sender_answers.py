"""What an accepted submission comes to: a task, its end, or words on an id that is another's or could not be kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from fake_journal import FakeJournal
from fakes import AWAY, FINISHED, LINK, DateClock, FakeSlots, FakeTransport, says
from parts import RAIN, WIND, Eye, Parts, assemble, told

from finevoice_async.core.ledger import EffectState, JournalRow, Move
from finevoice_async.core.tasks import TaskStatus, TaskUpdate
from finevoice_async.engine.caller import until_known
from finevoice_async.engine.records import TaskRecord
from finevoice_async.errors import (
    InvalidRequestError,
    JournalError,
    PollError,
    SessionClosedError,
    SubmitNotSentError,
    SubmitUnknownError,
    TaskFailedError,
)
from finevoice_async.ports import Begun

QUEUED, SENDING, SUBMITTED, DONE, SAVED, REFUSED, UNKNOWN, FAILED_, GONE = EffectState


def sent(parts: Parts, row: JournalRow, *, resend: bool = False) -> asyncio.Task[TaskRecord]:
    """Submit a row in a task of its own."""
    return asyncio.create_task(until_known(parts.submitter, partial(parts.submitter.submit_row, row, resend=resend)))


# Accepted


async def test_a_row_is_under_way_while_it_is_sent() -> None:
    """A submission that had its slot at once is known by its row as soon as that is written."""
    journal = FakeJournal()
    async with assemble(journal=journal) as parts:
        job = parts.start()
        await asyncio.sleep(0.05)
        assert parts.submitter.is_under_way(journal.contents[1])
        await job
        assert not parts.submitter.is_under_way(journal.contents[1])


async def test_a_task() -> None:
    """An id makes a task, which has the slot and is asked for; told once its id is on disk."""
    journal = FakeJournal()
    journal.delays[Move.ACCEPT] = 1.5
    async with assemble(journal=journal) as parts:
        clock = DateClock()
        at, job = clock.utcnow(), parts.start(RAIN, "k")
        await asyncio.sleep(1)
        assert not job.done()
        assert list(parts.inflight.tasks) == ["t1"]
        record = await job
        assert (record.task_id, record.request, record.key, record.row_id) == ("t1", RAIN, "k", 1)
        assert record.status is TaskStatus.PENDING
        assert record.submitted_at is not None
        assert (record.submitted_at - at).total_seconds() == pytest.approx(0.1)
        assert not record.attached
        assert parts.slots.out == {record.slot}
        assert parts.books.accepted == 1
        await asyncio.sleep(2.5)
        assert parts.transport.gets


async def test_a_state_that_came_with_the_id() -> None:
    """The answer's own state is the task's first one."""
    async with assemble(FakeTransport(says(task_id="t", status="processing"))) as parts:
        assert (await parts.submit()).status is TaskStatus.PROCESSING


@pytest.mark.parametrize("with_id", [False, True])
async def test_a_result_at_once(with_id: bool) -> None:
    """An answer with the result ends the task in the same step: its slot is free, and nobody asks."""
    answer = says(task_id="t", status="done", url=LINK) if with_id else FINISHED
    journal = FakeJournal()
    async with assemble(FakeTransport(answer), journal=journal) as parts:
        record = await parts.submit()
        assert isinstance(record.end, TaskUpdate)
        assert record.end.urls == (LINK,)
        assert not parts.slots.out
        await asyncio.sleep(10)
        assert parts.transport.gets == []
        assert (journal.states, journal.contents[1].urls) == ([DONE], (LINK,))
        assert (parts.books.accepted, parts.books.completed) == (1, 1)


async def test_a_failure_with_an_id() -> None:
    """A task that failed at once was accepted, and has ended."""
    journal = FakeJournal()
    async with assemble(FakeTransport(says(task_id="t", status="failed")), journal=journal) as parts:
        record = await parts.submit()
        assert isinstance(record.end, TaskFailedError)
        assert record.end.task_id == "t"
        await asyncio.sleep(0.1)
        assert journal.moves() == [SENDING, Move.ACCEPT, Move.FAIL]
        assert not parts.slots.out


@pytest.mark.parametrize("closed", [False, True])
async def test_nobody_asks_any_more(closed: bool) -> None:
    """An id that comes when the poller is dead or closed is told by the error, and kept in the row."""
    journal = FakeJournal()
    async with assemble(journal=journal) as parts:
        job = parts.start()
        await asyncio.sleep(0.05)
        parts.inflight.close() if closed else parts.inflight.break_down("ZeroDivisionError")
        error = await told(job)
        assert isinstance(error, SessionClosedError if closed else PollError)
        assert (error.task_id, error.request) == ("t1", RAIN)
        assert not parts.slots.out
        assert (journal.states, journal.contents[1].task_id) == ([SUBMITTED], "t1")


@pytest.mark.parametrize("again", [True, False])
async def test_an_id_that_could_not_be_kept(again: bool) -> None:
    """The caller hears the id, and the task is followed to its end, which is noted if the disk works again."""
    journal = FakeJournal()
    journal.failing[Move.ACCEPT] = JournalError("The disk is full.")
    async with assemble(journal=journal) as parts:
        error = await told(parts.start())
        assert isinstance(error, JournalError)
        assert error.task_id == "t1"
        assert list(parts.inflight.tasks) == ["t1"]
        assert len(parts.slots.out) == 1
        parts.transport.tasks["t1"] = FINISHED
        if again:
            journal.failing.clear()
        await asyncio.sleep(5)
        assert journal.states == [DONE if again else SENDING]
        assert not parts.slots.out


@pytest.mark.parametrize("runs", [False, True])
async def test_attached_before_its_own_answer(runs: bool) -> None:
    """An id that the caller knew before the answer to its POST came is that submission's task; it has one slot."""
    journal = FakeJournal()
    async with assemble(FakeTransport(latency=1), journal=journal) as parts:
        if not runs:
            parts.transport.on_get.append(None)
        job = parts.start(RAIN, "k")
        await asyncio.sleep(0.5 if not runs else 0.0)
        attached = parts.poller.attach("t1")
        watching = Eye(attached)
        parts.poller.watch(watching)
        record = await job
        assert record is attached
        assert (record.row_id, record.request, record.key) == (1, RAIN, "k")
        assert record.submitted_at is not None
        await asyncio.sleep(0.5)
        assert parts.slots.out == {record.slot}
        assert journal.states == [SUBMITTED]
        assert watching.seen == []
        assert runs or len(parts.transport.gets) == 1


async def test_attached_and_done_before_its_own_answer() -> None:
    """The result that comes with the answer to the POST ends the task that was attached."""
    journal = FakeJournal()
    async with assemble(FakeTransport(says(task_id="t", url=LINK), polls=(None,)), journal=journal) as parts:
        attached = parts.poller.attach("t")
        watching = Eye(attached)
        parts.poller.watch(watching)
        assert await parts.submit() is attached
        assert isinstance(attached.end, TaskUpdate)
        assert len(watching.seen) == 1
        await asyncio.sleep(0.1)
        assert (journal.states, parts.slots.out) == ([DONE], set())


async def test_attached_and_another_rows() -> None:
    """If the id turns out to be an earlier row's, who watches the attached task hears of that."""
    journal = FakeJournal()
    async with assemble(FakeTransport(says(task_id="t"), polls=(None,)), journal=journal) as parts:
        journal.leave(DONE, task_id="t")
        watching = Eye(parts.poller.attach("t"))
        parts.poller.watch(watching)
        assert isinstance(await told(parts.start()), SubmitUnknownError)
        assert isinstance(watching.seen[0], SubmitUnknownError)
        assert not parts.inflight.tasks


# An id that is another's


async def test_an_id_in_flight() -> None:
    """The second submission with one id is unknown, and has the id; the first goes on."""
    journal, answer = FakeJournal(), says(task_id="t")
    async with assemble(FakeTransport(answer, answer), journal=journal) as parts:
        first = await parts.submit(RAIN)
        error = await told(parts.start(WIND))
        assert isinstance(error, SubmitUnknownError)
        assert (error.task_id, error.request) == ("t", WIND)
        assert parts.inflight.tasks == {"t": first}
        assert parts.slots.out == {first.slot}
        assert journal.states == [SUBMITTED, UNKNOWN]
        assert parts.books.accepted == 1


async def test_an_id_of_the_journals() -> None:
    """An id that an earlier row has is not followed a second time; the submission is unknown."""
    journal = FakeJournal()
    async with assemble(FakeTransport(says(task_id="t")), journal=journal) as parts:
        journal.leave(DONE, task_id="t")
        error = await told(parts.start(WIND))
        assert isinstance(error, SubmitUnknownError)
        assert error.task_id == "t"
        assert not parts.inflight.tasks
        assert not parts.slots.out
        assert journal.states == [DONE, UNKNOWN]


async def test_a_result_with_an_id_of_the_journals() -> None:
    """The same with the result in the answer: the row says what the caller was told."""
    journal = FakeJournal()
    async with assemble(FakeTransport(says(task_id="t", url=LINK)), journal=journal) as parts:
        journal.leave(DONE, task_id="t")
        assert isinstance(await told(parts.start(WIND)), SubmitUnknownError)
        await asyncio.sleep(0.1)
        assert journal.states == [DONE, UNKNOWN]
        assert not parts.slots.out


@pytest.mark.parametrize("way", ["fails", "closed"])
async def test_a_result_whose_id_could_not_be_kept(way: str) -> None:
    """A result that is known is the task's end, and its slot is free, whatever becomes of the note on its id."""
    journal = FakeJournal()
    if way == "fails":
        journal.failing[Move.ACCEPT] = JournalError("The disk is full.")
    else:
        journal.hanging.add(Move.ACCEPT)
    async with assemble(FakeTransport(says(task_id="t", url=LINK)), journal=journal) as parts:
        job = parts.start()
        await asyncio.sleep(1)
        if way == "closed":
            await parts.close()
            record = await job
            assert isinstance(record.end, TaskUpdate)
        else:
            error = await told(job)
            assert isinstance(error, JournalError)
            assert error.task_id == "t"
        assert not parts.slots.out
        assert parts.books.completed == 1


async def test_a_row_that_cannot_say_that_it_is_sent() -> None:
    """If it cannot be noted that a POST may leave, none does, and the row is not left to be sent later."""
    journal, slots = FakeJournal(), FakeSlots()
    slots.held = True
    journal.failing[Move.SEND] = JournalError("The disk is full.")
    async with assemble(journal=journal, slots=slots) as parts:
        job = parts.start(RAIN, "k")
        await asyncio.sleep(1)
        slots.let_go()
        error = await told(job)
        assert isinstance(error, JournalError)
        assert error.message == "The disk is full. Nothing was sent."
        assert parts.transport.posts == []
        assert journal.states == [REFUSED]
        assert not slots.out


# A row that was moved meanwhile


@pytest.mark.parametrize("state", [QUEUED, UNKNOWN, GONE])
async def test_withdrawn_before_it_was_sent(state: EffectState) -> None:
    """A row that the caller gave up while its submission waited is not sent, and is not its old task any more."""
    journal, slots = FakeJournal(), FakeSlots()
    slots.held = True
    async with assemble(journal=journal, slots=slots) as parts:
        row = journal.leave(state, task_id="old" if state is GONE else None)
        job = sent(parts, row, resend=state is not QUEUED)
        await asyncio.sleep(1)
        await journal.move(1, Move.DISCARD)
        slots.let_go()
        error = await told(job)
        assert isinstance(error, InvalidRequestError)
        assert "its row is refused. Nothing was sent." in error.message
        assert error.request == row.request
        assert not parts.transport.posts
        assert not slots.out
        assert journal.states == [REFUSED]


async def test_adopted_before_it_was_sent_again() -> None:
    """A row that got its task while its submission waited comes to that task, and nothing is sent."""
    journal, slots = FakeJournal(), FakeSlots()
    slots.held = True
    async with assemble(journal=journal, slots=slots) as parts:
        job = sent(parts, journal.leave(UNKNOWN), resend=True)
        await asyncio.sleep(1)
        await journal.move(1, Move.ADOPT, task_id="found")
        slots.let_go()
        record = await job
        assert (record.task_id, record.row_id) == ("found", 1)
        assert parts.inflight.tasks == {"found": record}
        assert slots.out == {record.slot}
        assert not parts.transport.posts


@pytest.mark.parametrize("moves", [(Move.SEND,), (Move.SEND, Move.DOUBT)])
async def test_in_doubt_before_it_was_sent(moves: tuple[Move, ...]) -> None:
    """A row that somebody else has sent meanwhile may be paid for, and is not sent again."""
    journal, slots = FakeJournal(), FakeSlots()
    slots.held = True
    async with assemble(journal=journal, slots=slots) as parts:
        job = sent(parts, journal.leave(QUEUED))
        await asyncio.sleep(1)
        for move in moves:
            await journal.move(1, move)
        slots.let_go()
        assert isinstance(await told(job), SubmitUnknownError)
        assert not parts.transport.posts
        assert not slots.out


async def test_a_row_that_is_gone() -> None:
    """A journal of the caller's own may forget a row: it is not sent."""

    class Forgetful(FakeJournal):
        async def row(self, **_: Any) -> JournalRow | None:
            return None

    journal, slots = Forgetful(), FakeSlots()
    slots.held = True
    async with assemble(journal=journal, slots=slots) as parts:
        job = sent(parts, journal.leave(QUEUED))
        await asyncio.sleep(1)
        await journal.move(1, Move.DISCARD)
        slots.let_go()
        error = await told(job)
        assert isinstance(error, InvalidRequestError)
        assert "its row is gone" in error.message


# Bugs


async def test_a_bug_beside_the_answer() -> None:
    """What a bug stopped while its POST was out may be paid for; it costs no slot, and the cause is kept."""
    bug, journal = ZeroDivisionError(), FakeJournal()
    async with assemble(FakeTransport(bug), journal=journal) as parts:
        error = await told(parts.start())
        assert isinstance(error, SubmitUnknownError)
        assert "ZeroDivisionError" in error.message
        assert error.__cause__ is bug
        assert error.request == RAIN
        assert journal.states == [UNKNOWN]
        assert not parts.slots.out


async def test_a_bug_before_the_post() -> None:
    """What a bug stopped before its POST was certainly not sent."""

    class Odd(FakeJournal):
        def _begin(self, *_: Any) -> Begun:
            return None  # type: ignore[return-value]  # that is the bug

    async with assemble(journal=Odd()) as parts:
        error = await told(parts.start())
        assert isinstance(error, SubmitNotSentError)
        assert isinstance(error.__cause__, AttributeError)
        assert error.request == RAIN
        assert not parts.transport.posts
        assert not parts.slots.out


async def test_a_bug_while_it_waits() -> None:
    """What a bug stopped between two POSTs was certainly not sent, and its row is withdrawn."""

    class Broken(DateClock):
        def call_at(self, when: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
            raise ZeroDivisionError

    async with assemble(FakeTransport(AWAY), journal=FakeJournal(), clock=Broken()) as parts:
        error = await told(parts.start())
        assert isinstance(error, SubmitNotSentError)
        assert isinstance(error.__cause__, ZeroDivisionError)
        assert parts.journal.states == [REFUSED]
        assert not parts.slots.out


async def test_a_bug_after_the_answer() -> None:
    """What was accepted before the bug is told with its id."""
    slots = FakeSlots()
    slots.faults["waiting"] = ZeroDivisionError()
    async with assemble(slots=slots) as parts:
        assert (await parts.submit()).task_id == "t1"
