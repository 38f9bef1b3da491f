"""The poller: rarely, in time, for everybody, and loud when it dies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from finevoice_async import (
    FineVoiceSession,
    Polling,
    SessionClosedError,
    TaskTimeoutError,
    Timeouts,
)
from finevoice_async.emulator import Constant, Emulator, LogNormal
from finevoice_async.engine.answers import TICK
from finevoice_async.engine.poller import ABANDON_AFTER

Connect = Callable[..., FineVoiceSession]


def now() -> float:
    """Give the virtual time."""
    return asyncio.get_running_loop().time()


async def test_fixed_interval_is_kept(connect: Connect, emulator: Emulator) -> None:
    """With a fixed interval a task is asked once in each, give or take the jitter."""
    emulator.service_time = Constant(26.0)
    async with connect(polling=Polling.fixed(2.5)) as session:
        task = await session.submit("wind")
        await task
    assert emulator.ledger.accepted[str(task.id)].polls in (10, 11, 12)


async def test_short_gaps_are_kept(connect: Connect, emulator: Emulator) -> None:
    """The ticks that gather polls do not lengthen gaps of milliseconds."""
    emulator.service_time = Constant(0.1)
    async with connect(polling=Polling.fixed(0.005)) as session:
        task = await session.submit("click")
        await task
    assert emulator.ledger.accepted[str(task.id)].polls > 14


async def test_polls_go_out_together(connect: Connect, emulator: Emulator) -> None:
    """Tasks that were submitted at any moment are asked in rounds, one each tick."""
    emulator.service_time = Constant(2.0)
    async with connect(max_concurrency=50, polling=Polling.fixed(2.5)) as session:
        tasks = []
        for number in range(50):
            tasks.append(await session.submit("wind"))
            await asyncio.sleep(0.007 + 0.0003 * number)
        await asyncio.gather(*tasks)
    hair = TICK / 5  # of virtual time, while requests are under way
    phases = [((task.noticed_at or 0.0) + hair) % TICK for task in emulator.ledger.accepted.values()]
    assert max(phases) < 3 * hair


async def test_rounds_do_not_lengthen_gaps(connect: Connect, emulator: Emulator) -> None:
    """To wait for the next tick makes no gap longer on average."""
    emulator.service_time = Constant(1000.0)
    async with connect(polling=Polling.fixed(2.5), timeouts=Timeouts(task=None)) as session:
        await session.generate("wind")
    polls = emulator.ledger.polls
    assert 396 <= polls <= 404


async def test_who_waits_for_one_answer_waits_for_no_tick(connect: Connect, emulator: Emulator) -> None:
    """An attached task is asked for at once, and so is one whose waiter's time is up."""
    emulator.service_time = Constant(10.0)
    async with connect(polling=Polling.fixed(4.0)) as session:
        task = await session.submit("wind")
        await asyncio.sleep(3 + TICK / 2)
        began = now()
        with pytest.raises(TaskTimeoutError):
            await task.wait(TICK / 10)
        assert now() - began < TICK / 4
        await asyncio.sleep(10 + TICK / 2)
        async with connect(polling=Polling.fixed(4.0)) as other:
            await other.submit("wind")  # so that its poller sleeps already
            await asyncio.sleep(TICK / 2)
            began = now()
            await (await other.attach(str(task.id)))
            assert now() - began < TICK / 4


async def test_learned_schedule_asks_less(connect: Connect, emulator: Emulator) -> None:
    """After some effects the learned schedule needs fewer polls than the fixed interval, with less lag."""
    emulator.service_time = LogNormal(median=8, scaled=False)
    async with connect(max_concurrency=20) as session:
        [outcome async for outcome in session.generate_many(["rain"] * 200)]
    tasks = list(emulator.ledger.accepted.values())[100:]
    lags = [task.noticed_at - task.ends_at for task in tasks if task.noticed_at is not None]
    assert sum(task.polls for task in tasks) / len(tasks) < 4.2
    assert sum(lags) / len(lags) < 1.1


async def test_estimate(connect: Connect, emulator: Emulator) -> None:
    """A running task has an estimate once something was learned; before, and at the end, it has none."""
    emulator.service_time = Constant(10.0)
    async with connect() as session:
        task = await session.submit("rain")
        assert task.estimate() is None
        await task
        assert task.estimate() is None
        [outcome async for outcome in session.generate_many(["rain"] * 30)]
        task = await session.submit("rain")
        estimate = task.estimate()
        assert estimate is not None
        assert 7 < estimate.median <= estimate.p90 < 14
        assert (await session.attach("other")).estimate() is None


async def test_a_hanging_poll_delays_nobody(connect: Connect, emulator: Emulator) -> None:
    """While one poll hangs, the others' are answered."""
    async with connect(polling=Polling.fixed(2.5), timeouts=Timeouts(read=100)) as session:
        emulator.inject("poll.hang")
        tasks = [await session.submit("bell") for _ in range(4)]
        began = now()
        done, waiting = await asyncio.wait([asyncio.ensure_future(task.wait()) for task in tasks], timeout=30)
        assert (len(done), len(waiting)) == (3, 1)
        await asyncio.wait(waiting)
        assert 100 < now() - began < 120


async def test_deadline_holds_while_a_poll_hangs(connect: Connect, emulator: Emulator) -> None:
    """A wait ends soon after its deadline, also if the last poll never is answered."""
    async with connect(polling=Polling.fixed(2)) as session:
        task = await session.submit("bell")
        emulator.inject("poll.hang", 5)
        began = now()
        with pytest.raises(TaskTimeoutError):
            await task.wait(timeout=4)
        assert 4 <= now() - began <= 9.1


async def test_short_waits_add_no_polls(connect: Connect, emulator: Emulator) -> None:
    """Waiting in short slices asks hardly more often than waiting once."""
    emulator.service_time = Constant(20.0)
    async with connect(polling=Polling.fixed(2.5)) as session:
        task = await session.submit("bell")
        while not task.done():
            try:
                await task.wait(timeout=0.05)
            except TaskTimeoutError:
                continue
    assert emulator.ledger.polls < 45


async def test_a_lost_task_gives_its_slot_back(connect: Connect, emulator: Emulator) -> None:
    """A task that never ends and that nobody waits for holds its slot for an hour, asked ever more rarely."""
    emulator.inject("task.never_ends")
    async with connect(max_concurrency=1, timeouts=Timeouts(task=60)) as session:
        with pytest.raises(TaskTimeoutError):
            await session.generate("lost")
        began = now()
        await session.generate("rain")
        assert ABANDON_AFTER - 120 < now() - began < ABANDON_AFTER + 60
    (lost, _) = emulator.ledger.accepted.values()
    assert lost.polls < 180


async def test_the_budget_is_kept(connect: Connect, emulator: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    """However many tasks are due, no more polls a second are made than the budget allows; the session says so."""
    emulator.service_time = LogNormal(median=20, scaled=False)
    async with connect(max_concurrency=200, polling=Polling(budget=5)) as session:
        assert "Polling.budget" in caplog.text
        began, polls = now(), emulator.ledger.polls
        [outcome async for outcome in session.generate_many(["rain"] * 200)]
        rate = (emulator.ledger.polls - polls) / (now() - began)
    assert rate <= 5.2


async def test_waiting_on_a_closed_session(connect: Connect) -> None:
    """A handle outlives its session, and says what became of it."""
    async with connect() as session:
        task = await session.submit("rain")
    with pytest.raises(SessionClosedError) as caught:
        await task
    assert caught.value.task_id == task.id
    assert "PENDING" not in repr(task)
