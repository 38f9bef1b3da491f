"""The handle on one task: awaited any number of times, watched, and cancelled without harm."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from fake_journal import FakeJournal
from fakes import FAILED, FINISHED, LINK, RUNNING, FakeBody, FakeFetcher, FakeTransport, says
from parts import EVERY, RAIN, Ear, Parts, assemble, told, turns

from finevoice_async import FineVoiceSession, Polling
from finevoice_async.core.ledger import EffectState, Move
from finevoice_async.core.requests import SfxRequest
from finevoice_async.core.tasks import TaskStatus, TaskUpdate
from finevoice_async.emulator import Constant, Emulator
from finevoice_async.engine.answers import PATIENCE
from finevoice_async.engine.records import Submission, TaskRecord
from finevoice_async.errors import (
    JournalError,
    PollError,
    SessionClosedError,
    SubmitUnknownError,
    TaskFailedError,
    TaskNotFoundError,
    TaskTimeoutError,
)
from finevoice_async.task import SESSION_DEFAULT, SfxTask, TaskContext

Connect = Callable[..., FineVoiceSession]
_, PENDING, PROCESSING, COMPLETED, FAILED_, UNKNOWN = TaskStatus
MISSING = says(404, error={"message": "no such task"})


def task_of(parts: Parts, source: TaskRecord | Submission, timeout: float | None = 100.0) -> SfxTask:
    """Return a handle on a task, or on what will bring one."""
    return SfxTask(
        source,
        TaskContext(
            parts.submitter, parts.poller, parts.inflight, parts.downloads, parts.books, timeout, parts.slots.limit
        ),
    )


async def submitted(parts: Parts, timeout: float | None = 100.0) -> SfxTask:
    """Submit, and return a handle."""
    return task_of(parts, await parts.submit(RAIN), timeout)


def ends_in(parts: Parts, seconds: float) -> None:
    """Let the first task be done after a while."""
    asyncio.get_running_loop().call_later(seconds, parts.transport.tasks.update, {"t1": FINISHED})


async def states_of(task: SfxTask) -> list[TaskStatus]:
    """Return all states that are told."""
    return [update.status async for update in task.updates()]


# What it says


async def test_what_it_says() -> None:
    """A handle tells of its task what the session knows."""
    async with assemble() as parts:
        task = await submitted(parts)
        assert (task.id, task.key, task.request, task.status) == ("t1", None, RAIN, PENDING)
        assert task.submitted_at is not None
        assert not task.done()
        assert task.estimate() is None
        assert repr(task) == "<SfxTask t1 pending>"
        parts.transport.tasks["t1"] = FINISHED
        await task
        assert task.done()
        assert repr(task) == "<SfxTask t1 completed>"
    assert repr(SESSION_DEFAULT) == "Timeouts.task"


async def test_a_key() -> None:
    """A handle knows the caller's own name."""
    async with assemble() as parts:
        assert task_of(parts, TaskRecord("t1", RAIN, 0.0, key="k")).key == "k"


async def test_an_estimate(connect: Connect, emulator: Emulator) -> None:
    """Once effects have been made, a running one has an estimate."""
    emulator.service_time = Constant(10.0)
    async with connect() as session:
        await session.generate("rain")
        task = await session.submit("rain")
        estimate = task.estimate()
        assert estimate is not None
        assert 0 < estimate.median <= estimate.p90


async def test_what_it_says_before_there_is_a_task() -> None:
    """Until the task id is on disk it says that it is queued, whatever is known already; then what its task says."""
    journal = FakeJournal()
    journal.hanging = {Move.ACCEPT}
    async with assemble(journal=journal) as parts:
        task = task_of(parts, parts.submitter.submit(RAIN, "k", Ear()))
        await asyncio.sleep(1)
        assert parts.transport.accepted == 1
        assert (task.id, task.key, task.request, task.done()) == (None, "k", RAIN, False)
        assert repr(task) == "<SfxTask 'k' queued>"
        waiting = asyncio.create_task(task.wait())
        await asyncio.sleep(1)
        journal.let_go()
        await turns(5)
        assert repr(task) == "<SfxTask t1 pending>"
        parts.transport.tasks["t1"] = FINISHED
        assert (await waiting).task_id == "t1"


async def test_its_id_proves_to_be_anothers() -> None:
    """A handle that was looked at meanwhile waits for nothing that nobody follows."""
    journal = FakeJournal(delay=0.2)
    async with assemble(journal=journal) as parts:
        journal.leave(EffectState.DONE, task_id="t1")
        task = task_of(parts, parts.submitter.submit(RAIN, "k", Ear()))
        seen = set()
        for _ in range(40):
            await asyncio.sleep(0.05)
            seen.add(task.status)
        assert seen == {TaskStatus.QUEUED, UNKNOWN}
        for _ in range(2):
            error = await told(asyncio.ensure_future(task.wait()))
            assert isinstance(error, SubmitUnknownError)
            assert error.task_id == task.id == "t1"


async def test_its_id_could_not_be_kept() -> None:
    """The task runs, and its id is on the error and on the handle: that is not a failure of the effect."""
    journal = FakeJournal()
    journal.failing[Move.ACCEPT] = JournalError("The disk is full.")
    async with assemble(journal=journal) as parts:
        task = task_of(parts, parts.submitter.submit(RAIN, "k", Ear()))
        error = await told(asyncio.ensure_future(task.wait()))
        assert isinstance(error, JournalError)
        assert (task.id, error.task_id, task.status) == ("t1", "t1", UNKNOWN)


# Waiting


async def test_awaited_many_times() -> None:
    """Everybody gets the same effect, as often as they like, while it runs and afterwards."""
    fetcher = FakeFetcher(FakeBody(200, (b"RIFF",)))
    async with assemble(fetcher=fetcher) as parts:
        task = await submitted(parts)
        ends_in(parts, 5)
        first, second = await asyncio.gather(task, task.wait())
        polls = len(parts.transport.gets)
        third = await task
        assert first == second == third
        assert (first.task_id, first.urls, first.request) == ("t1", (LINK,), RAIN)
        assert await third.read() == b"RIFF"
        assert len(parts.transport.gets) == polls


async def test_a_failure_is_raised_anew() -> None:
    """Each wait raises an error of its own, while the task runs and afterwards."""
    async with assemble() as parts:
        task = await submitted(parts)
        parts.transport.tasks["t1"] = FAILED
        errors = await asyncio.gather(*[task.wait() for _ in range(2)], return_exceptions=True)
        errors.append(await told(asyncio.ensure_future(task.wait())))
        assert [type(error) for error in errors] == [TaskFailedError] * 3
        assert len({id(error) for error in errors}) == 3
        assert all("no such sound" in str(error) for error in errors)


@pytest.mark.parametrize(
    ("default", "given", "expected"),
    [(7.0, SESSION_DEFAULT, 7), (7.0, 3.0, 3), (7.0, None, None), (None, SESSION_DEFAULT, None), (None, 3.0, 3)],
)
async def test_how_long_it_waits(default: float | None, given: float | None, expected: float | None) -> None:
    """The wait is as long as is said, else the session's; None waits for ever."""
    loop = asyncio.get_running_loop()
    async with assemble() as parts:
        task = await submitted(parts, default)
        began = loop.time()
        if expected is None:
            ends_in(parts, 300)
            await task.wait(given)
            assert loop.time() - began > 299
        else:
            with pytest.raises(TaskTimeoutError, match="attach") as caught:
                await task.wait(given)
            assert expected <= loop.time() - began < expected + EVERY
            assert caught.value.task_id == "t1"
            assert isinstance(caught.value, TimeoutError)


async def test_a_wait_goes_on() -> None:
    """After a timeout the task runs on, and is waited for again."""
    async with assemble() as parts:
        task = await submitted(parts, 3.0)
        with pytest.raises(TaskTimeoutError):
            await task
        ends_in(parts, 2)
        assert (await task).task_id == "t1"


async def test_an_end_beats_the_timeout() -> None:
    """A task that ended before the deadline is found by one last poll, although none was due."""
    async with assemble(polling=Polling.fixed(100.0)) as parts:
        task = await submitted(parts, 30.0)
        ends_in(parts, 20)
        assert (await task).task_id == "t1"
        assert len(parts.transport.gets) == 1


async def test_a_cancelled_waiter_harms_nobody() -> None:
    """Of two who wait one is cancelled: the other gets the effect, and nothing of the first is left."""
    async with assemble() as parts:
        task = await submitted(parts)
        one, other = asyncio.create_task(task.wait()), asyncio.create_task(task.wait())
        await asyncio.sleep(1)
        one.cancel()
        await turns(2)
        assert one.cancelled()
        (record,) = parts.inflight.tasks.values()
        assert len(record.watchers) == 1
        ends_in(parts, 1)
        assert (await other).task_id == "t1"


@pytest.mark.parametrize("before", [True, False])
async def test_cancelled_in_the_step_of_the_end(before: bool) -> None:
    """A waiter that is cancelled as the end is told, or just before, is cancelled, and that is all."""
    async with assemble() as parts:
        task = await submitted(parts)
        waiting = asyncio.create_task(task.wait())
        await asyncio.sleep(1)
        (record,) = parts.inflight.tasks.values()
        if before:
            waiting.cancel()
        parts.inflight.end(record, TaskUpdate(status=COMPLETED, urls=(LINK,)))
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()


async def test_closed_while_it_is_waited_for() -> None:
    """Who waits as the session closes hears the id, and so does who comes later."""
    async with assemble() as parts:
        task = await submitted(parts)
        waiting = asyncio.create_task(task.wait())
        await asyncio.sleep(1)
        await parts.close()
        for job in (waiting, asyncio.ensure_future(task.wait())):
            error = await told(job)
            assert isinstance(error, SessionClosedError)
            assert error.task_id == "t1"


# Watching


async def test_each_state_once() -> None:
    """Updates begin with the state now, tell each change, and end with the end."""
    pending = says(status="pending")
    polls = (pending, pending, RUNNING, RUNNING, pending, RUNNING, FINISHED)
    async with assemble(FakeTransport(polls=polls)) as parts:
        task = await submitted(parts)
        assert await states_of(task) == [PENDING, PROCESSING, PENDING, PROCESSING, COMPLETED]
        updates = [update async for update in task.updates()]
        assert [(update.status, update.urls) for update in updates] == [(COMPLETED, (LINK,))]


async def test_updates_name_their_task() -> None:
    """Also the first update, which no answer has brought, has the task's id."""
    async with assemble() as parts:
        task = await submitted(parts)
        update = await anext(task.updates())
        assert (update.status, update.task_id) == (PENDING, "t1")


async def test_a_busy_watcher_misses_no_end() -> None:
    """Who is busy while states change hears of the last one, and of the end."""
    polls = (RUNNING, says(status="pending"), RUNNING, FINISHED)
    async with assemble(FakeTransport(polls=polls)) as parts:
        task = await submitted(parts)
        states = []
        async for update in task.updates():
            states.append(update.status)
            await asyncio.sleep(3.5 * EVERY if len(states) == 1 else 2 * EVERY)
        assert states == [PENDING, PROCESSING, COMPLETED]


async def test_a_failure_is_an_update() -> None:
    """Who watches hears of a failure as of any other end, with the service's words; afterwards, too."""
    async with assemble() as parts:
        task = await submitted(parts)
        parts.transport.tasks["t1"] = FAILED
        assert await states_of(task) == [PENDING, FAILED_]
        (update,) = [update async for update in task.updates()]
        assert (update.status, update.task_id, update.code) == (FAILED_, "t1", "0001")
        assert "no such sound" in str(update.reason)


@pytest.mark.parametrize(("answer", "kind"), [(MISSING, TaskNotFoundError), (says(status="completed"), PollError)])
async def test_an_end_that_is_no_state(answer: object, kind: type[Exception]) -> None:
    """A task that is lost, or done without a link, ends its updates with an error of their own, each time."""
    async with assemble(polling=Polling.fixed(EVERY, grace=5)) as parts:
        task = await submitted(parts)
        parts.transport.tasks["t1"] = answer  # type: ignore[assignment]  # an answer
        errors = []
        for _ in range(2):
            with pytest.raises(kind) as caught:
                await states_of(task)
            errors.append(caught.value)
        assert errors[0] is not errors[1]
        assert task.done()


async def test_a_state_that_cannot_be_learned_now() -> None:
    """Failed polls end the updates with an error, and not the task: one may watch on."""
    polling = Polling.fixed(EVERY, failures=2)
    transport = FakeTransport(polls=(says(500, retry_after=str(PATIENCE)), says(500)))
    async with assemble(transport, polling=polling) as parts:
        task = await submitted(parts)
        with pytest.raises(PollError, match="500"):
            await states_of(task)
        assert not task.done()
        ends_in(parts, 1)
        assert (await states_of(task))[-1] is COMPLETED


async def test_who_stops_watching_is_forgotten() -> None:
    """A loop over updates that is left leaves no watcher."""
    async with assemble() as parts:
        task = await submitted(parts)
        watching = asyncio.create_task(states_of(task))
        await asyncio.sleep(1)
        (record,) = parts.inflight.tasks.values()
        assert len(record.watchers) == 1
        watching.cancel()
        await asyncio.wait([watching])
        assert record.watchers == []


# With a service


async def test_two_who_wait_and_one_who_looks(session: FineVoiceSession) -> None:
    """The same with a service over sockets: all hear of one end."""
    task = await session.submit(SfxRequest("Door creaks open", duration=3))
    first, second, states = await asyncio.gather(task, task.wait(), states_of(task))
    assert first == second == await task
    assert states[-1] is COMPLETED
    assert len(states) == len(set(states))


async def test_a_failure_of_a_service(session: FineVoiceSession, emulator: Emulator) -> None:
    """A task that the service fails is an error with its reason and its body."""
    emulator.inject("task.fail")
    task = await session.submit("glass")
    with pytest.raises(TaskFailedError, match="could not make this sound") as caught:
        await task
    assert caught.value.task_id == task.id
    assert caught.value.body is not None
