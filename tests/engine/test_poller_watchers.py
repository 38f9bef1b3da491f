"""The poller beside fakes: who is asked for, who hears, and what becomes of all when it dies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from fake_journal import FakeJournal
from fakes import FINISHED, LINK, RUNNING, Answer, DateClock, FakeSlots, FakeTransport, says
from hasty_clock import HastyClock
from parts import EVERY, RAIN, WIND, Eye, Parts, assemble, turns

from finevoice_async.config import Polling
from finevoice_async.core.ledger import EffectState
from finevoice_async.core.tasks import TaskStatus, TaskUpdate
from finevoice_async.engine.poller import ABANDON_AFTER, FRESH, LAST_ANSWER
from finevoice_async.engine.records import TaskRecord
from finevoice_async.errors import (
    FineVoiceError,
    PollError,
    SessionClosedError,
    TaskFailedError,
    TaskNotFoundError,
    TaskTimeoutError,
)

QUEUED, SENDING, SUBMITTED, DONE, SAVED, REFUSED, UNKNOWN, FAILED, LOST = EffectState
RESULT = TaskUpdate(status=TaskStatus.COMPLETED, urls=(LINK,))


def now() -> float:
    """Return the virtual time."""
    return asyncio.get_running_loop().time()


def watched(parts: Parts, record: TaskRecord, timeout: float | None = None, *, every: bool = False) -> Eye:
    """Watch a task."""
    eye = Eye(record, timeout=timeout, every=every)
    parts.poller.watch(eye)
    return eye


def kinds(eye: Eye) -> list[type]:
    """Return what was told, by class."""
    return [type(news) for news in eye.seen]


# Attaching and picking up


async def test_attached() -> None:
    """An attached id is asked for at once; attached again, or submitted here, it is the same task."""
    async with assemble() as parts:
        record = parts.poller.attach("old")
        assert (record.task_id, record.request, record.attached, record.slot) == ("old", None, True, None)
        await turns(5)
        assert parts.transport.gets == ["/v1/task/old"]
        assert parts.poller.attach("old") is record
        mine = await parts.submit()
        assert parts.poller.attach("t1") is mine
        assert repr(parts.poller) == "<Poller of 2 tasks, 0 polls under way, 1 made>"


async def test_rows_that_have_ended() -> None:
    """A row whose end is known is not asked for."""
    journal = FakeJournal()
    async with assemble(journal=journal) as parts:
        for state, kind in (
            (DONE, TaskUpdate),
            (SAVED, TaskUpdate),
            (FAILED, TaskFailedError),
            (LOST, TaskNotFoundError),
        ):
            record = parts.poller.pick_up(journal.leave(state, task_id=state.value))
            assert isinstance(record.end, kind)
            assert not record.followed
        await asyncio.sleep(10)
        assert parts.transport.gets == []
        assert not parts.slots.out


async def test_a_row_that_runs() -> None:
    """A submitted row holds its slot at once, is asked for at once, and is as old as it is."""
    journal = FakeJournal()
    async with assemble(journal=journal) as parts:
        record = parts.poller.pick_up(journal.leave(SUBMITTED, task_id="old", ago=40))
        assert parts.slots.out == {record.slot}
        assert now() - record.born == pytest.approx(40)
        await turns(5)
        assert parts.transport.gets == ["/v1/task/old"]


async def test_a_row_of_a_task_that_is_followed() -> None:
    """A task that was attached learns of its row; it stays one task."""
    journal = FakeJournal()
    async with assemble(journal=journal) as parts:
        record = parts.poller.attach("old")
        row = journal.leave(SUBMITTED, "wind", task_id="old", key="k")
        assert parts.poller.pick_up(row) is record
        assert (record.row_id, record.request, record.key) == (1, WIND, "k")
        assert len(parts.inflight.tasks) == 1


async def test_a_row_of_another_task_with_that_id() -> None:
    """If the service gave one id twice, a row that has its end is not taken for the task of another one."""
    journal = FakeJournal()
    async with assemble(journal=journal) as parts:
        record = await parts.submit()
        other = parts.poller.pick_up(journal.leave(DONE, "wind", task_id="t1"))
        assert other is not record
        assert other.end is not None
        assert (record.row_id, record.request, record.end) == (1, RAIN, None)
        assert parts.inflight.tasks == {"t1": record}


async def test_a_row_that_is_done_before_its_attached_task() -> None:
    """The result that the journal has is given, although the task that was attached is still asked for."""
    journal = FakeJournal()
    async with assemble(journal=journal) as parts:
        attached = parts.poller.attach("old")
        assert parts.poller.pick_up(journal.leave(DONE, task_id="old", urls=(LINK,))).end is not None
        assert attached.end is None


async def test_a_lost_row_is_asked_for_again() -> None:
    """Where that is wanted, a lost task is asked for once more, as if it were attached now; it may be found."""
    journal = FakeJournal()
    async with assemble(journal=journal) as parts:
        row = journal.leave(LOST, task_id="old", ago=1000)
        record = parts.poller.pick_up(row, ask_again=True)
        assert (record.end, record.born, record.slot) == (None, now(), None)
        parts.transport.tasks["old"] = FINISHED
        await asyncio.sleep(1)
        assert isinstance(record.end, TaskUpdate)
        assert journal.states == [DONE]
        done = parts.poller.pick_up(journal.leave(DONE, task_id="made"), ask_again=True)
        assert done.end is not None


async def test_closed() -> None:
    """After the closing nothing is followed or watched any more."""
    async with assemble() as parts:
        record = await parts.submit()
        await parts.close()
        for use in (lambda: parts.poller.attach("old"), lambda: watched(parts, record)):
            with pytest.raises(SessionClosedError):
                use()
        await parts.poller.aclose()
        gets = len(parts.transport.gets)
        await asyncio.sleep(100)
        assert len(parts.transport.gets) == gets


# Watchers


async def test_unwatched() -> None:
    """Who stops watching hears nothing more: before the time is up, after, and twice."""
    transport = FakeTransport(polls=(RUNNING, None))
    async with assemble(transport) as parts:
        record = await parts.submit()
        early, late = watched(parts, record, 3), watched(parts, record, 5)
        other = watched(parts, record, 5)
        await asyncio.sleep(2.5)
        parts.poller.unwatch(early)
        await asyncio.sleep(3)
        assert late.expired
        parts.poller.unwatch(late)
        parts.poller.unwatch(late)
        await asyncio.sleep(LAST_ANSWER + 1)
        assert (kinds(early), kinds(late), kinds(other)) == ([], [], [TaskTimeoutError])


async def test_no_limit_is_kept_that_nobody_has() -> None:
    """Callers may compute their timeouts, each another: what nobody waits for is forgotten, however it ended."""
    clock = HastyClock()
    async with assemble(clock=clock) as parts:
        record = await parts.submit()
        for number in range(50):
            eye = watched(parts, record, 100 + number / 7)
            parts.poller.unwatch(eye)
        assert clock.pending() <= 1  # the poller's own
        watched(parts, record, 0.3)
        one, other = watched(parts, record, 0.6), watched(parts, record, 0.6)
        parts.poller.unwatch(one)
        await asyncio.sleep(LAST_ANSWER + 1)
        assert kinds(other) == [TaskTimeoutError]
        assert parts.poller._limits == {}
        watched(parts, record, 1000)
    assert clock.pending() == 0


async def test_a_deadline_in_the_step_of_the_end_is_silent() -> None:
    """Whoever was told the end, and has not run since, does not hear of the timeout too."""
    async with assemble(FakeTransport(polls=(RUNNING, RUNNING, None))) as parts:
        record = await parts.submit()
        first, second = watched(parts, record, 5), watched(parts, record, 9)
        await asyncio.sleep(5.5)  # the first waits for its last answer
        assert (first.expired, second.expired) == (True, False)
        record.tell(record.closed_error())
        await asyncio.sleep(10)
        assert kinds(first) == kinds(second) == [SessionClosedError]


@pytest.mark.parametrize(("ago", "polls"), [(FRESH - 0.2, 1), (FRESH + 0.2, 2)], ids=["fresh", "old"])
async def test_a_fresh_answer_is_the_last_word(ago: float, polls: int) -> None:
    """At a deadline there is one more poll, unless the last answer has just come."""
    async with assemble(FakeTransport(latency=0.01), polling=Polling.fixed(10.0)) as parts:
        record = await parts.submit()
        await asyncio.sleep(10.1)
        assert len(parts.transport.gets) == 1
        age = now() - (record.born + record.last_age)
        eye = watched(parts, record, ago - age)
        await asyncio.sleep(3)
        assert kinds(eye) == [TaskTimeoutError]
        assert len(parts.transport.gets) == polls


async def test_a_hanging_poll_holds_no_deadline_up() -> None:
    """If the poll under way is not answered, the deadline waits a little, and makes no second one."""
    async with assemble(FakeTransport(polls=(None,))) as parts:
        record = await parts.submit()
        eye, began = watched(parts, record, 4), now()
        await asyncio.sleep(20)
        assert kinds(eye) == [TaskTimeoutError]
        assert eye.told_at - began == pytest.approx(4 + LAST_ANSWER)
        assert len(parts.transport.gets) == 1


async def test_the_last_answer_of_a_404() -> None:
    """A task that is borne although it is not found is a timeout to who can wait no longer."""
    missing: Answer = says(404)
    async with assemble(FakeTransport(polls=(missing,) * 9)) as parts:
        record = await parts.submit()
        eye = watched(parts, record, 3)
        await asyncio.sleep(4)
        assert kinds(eye) == [TaskTimeoutError]


# Asking


async def test_so_many_polls_at_once() -> None:
    """No more polls are under way than may be, and who waits is asked as soon as one is answered."""
    polling = Polling.fixed(2.0, concurrency=3)
    transport = FakeTransport()
    async with assemble(transport, slots=FakeSlots(20), polling=polling) as parts:
        records = [await parts.submit() for _ in range(8)]
        transport.latency, asking, most = 1.0, 0, 0
        real = transport._answer

        async def counted(answer: Answer) -> object:
            nonlocal asking, most
            asking += 1
            most = max(most, asking)
            try:
                return await real(answer)
            finally:
                asking -= 1

        transport._answer = counted  # type: ignore[method-assign,assignment]  # the fake's own
        transport.tasks = {str(record.task_id): FINISHED for record in records}
        await asyncio.sleep(6)
        assert most == 3
        assert len(transport.gets) == 8
        assert not parts.inflight.tasks


async def test_a_short_budget_and_few_workers() -> None:
    """Who waits for the budget is asked once it allows, although the only worker was busy when it was looked at."""
    transport = FakeTransport(latency=0.3)
    polling = Polling.fixed(2.0, budget=1.0, concurrency=1)
    async with assemble(transport, slots=FakeSlots(20), polling=polling) as parts:
        await asyncio.gather(*[parts.submit() for _ in range(3)])
        transport.tasks = {f"t{number}": FINISHED for number in range(1, 4)}
        await asyncio.sleep(6)
        assert parts.books.completed == 3


async def test_who_has_ended_is_not_asked() -> None:
    """A task that ended while its turn came is passed over, and so is the answer to a poll that comes late."""
    async with assemble(FakeTransport(latency=0.5), slots=FakeSlots(20)) as parts:
        one, other = await parts.submit(), await parts.submit()
        await asyncio.sleep(EVERY + 0.2 - 0.5)
        assert parts.transport.gets == ["/v1/task/t1"]
        parts.inflight.end(one, RESULT)  # while it is asked for
        parts.inflight.end(other, RESULT)  # before it is
        await asyncio.sleep(10)
        assert parts.transport.gets == ["/v1/task/t1"]
        assert parts.books.completed == 2


async def test_who_ends_while_the_budget_is_short_costs_none() -> None:
    """A task that ended while it waited for its turn is passed over, and the next one has it."""
    transport = FakeTransport(latency=0.01)
    async with assemble(transport, slots=FakeSlots(20), polling=Polling.fixed(2.0, budget=1.0)) as parts:
        records = [await parts.submit() for _ in range(4)]
        await asyncio.sleep(2.5)
        assert len(transport.gets) == 1
        asked = transport.gets[0].removeprefix("/v1/task/")
        waiting = [record for record in records if record.task_id != asked]
        for record in waiting[:2]:
            parts.inflight.end(record, RESULT)
        await asyncio.sleep(1)
        assert transport.gets[1:] == [f"/v1/task/{waiting[2].task_id}"]


@pytest.mark.parametrize("watches", [False, True])
async def test_given_up_after_an_hour(watches: bool, caplog: pytest.LogCaptureFixture) -> None:
    """A task that never ends and that nobody waits for is given up after an hour; its slot counts as free."""
    async with assemble(polling=Polling.fixed(100.0)) as parts:
        record = await parts.submit()
        if watches:
            watched(parts, record)
        await asyncio.sleep(ABANDON_AFTER - 110)
        assert parts.slots.out
        await asyncio.sleep(330)
        assert bool(parts.slots.out) is watches
        assert isinstance(record.end, TaskTimeoutError) is not watches
        assert ("is given up" in caplog.text) is not watches


# Dying


async def test_a_worker_dies(caplog: pytest.LogCaptureFixture) -> None:
    """A bug beside one answer is told to every watcher, with its id, and in the log; nothing more is taken."""
    async with assemble(FakeTransport(polls=(ZeroDivisionError(),))) as parts:
        records = [await parts.submit(), await parts.submit()]
        eyes = [watched(parts, record) for record in records]
        await asyncio.sleep(5)
        assert [kinds(eye) for eye in eyes] == [[PollError], [PollError]]
        assert [news.task_id for eye in eyes for news in eye.seen if isinstance(news, FineVoiceError)] == ["t1", "t2"]
        assert "ZeroDivisionError" in caplog.text
        assert "Traceback" in caplog.text
        for use in (lambda: parts.poller.attach("old"), lambda: watched(parts, records[0])):
            with pytest.raises(PollError, match="ZeroDivisionError"):
                use()


async def test_the_coroutine_dies() -> None:
    """A bug in deciding is told as one in asking."""

    class Stopping(DateClock):
        stopped = False

        def call_at(self, when: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
            if self.stopped:
                raise ZeroDivisionError
            return super().call_at(when, callback)

    clock = Stopping()
    async with assemble(clock=clock) as parts:
        record = await parts.submit()
        eye = watched(parts, record)
        await asyncio.sleep(1)
        clock.stopped = True
        await asyncio.sleep(2)
        assert kinds(eye) == [PollError]


@pytest.mark.parametrize("name", ["finevoice-poller", "finevoice-poll-0"])
async def test_cancelled_from_outside(name: str) -> None:
    """Who cancels all tasks of a loop ends the poller, too: its watchers hear what happened."""
    async with assemble() as parts:
        record = await parts.submit()
        await asyncio.sleep(3)
        eye = watched(parts, record)
        (part,) = [task for task in asyncio.all_tasks() if task.get_name() == name]
        part.cancel()
        await asyncio.sleep(1)
        assert kinds(eye) == [PollError]
        assert "cancelled from outside" in str(eye.seen[0])
