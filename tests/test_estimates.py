"""What a handle says of how long it will take, while it waits for a slot and while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from statistics import fmean

import pytest

from finevoice_async import FineVoiceSession, SfxTask
from finevoice_async.core.polling.schedule import Estimate
from finevoice_async.emulator import Constant, Emulator

Connect = Callable[..., FineVoiceSession]


async def learn(session: FineVoiceSession, count: int = 40) -> None:
    """Let the session learn how long effects take."""
    async for outcome in session.generate_many([f"lesson {number}" for number in range(count)]):
        assert outcome.error is None


def estimate_of(task: SfxTask) -> Estimate:
    """Return an estimate that is there."""
    estimate = task.estimate()
    assert estimate is not None
    assert 0 < estimate.median <= estimate.p90
    return estimate


async def test_nothing_is_known_yet(connect: Connect) -> None:
    """Before anything was learned there is no estimate, whatever it waits for, and after the end none either."""
    async with connect(max_concurrency=1) as session:
        tasks = [await session.enqueue(f"sound {number}") for number in range(3)]
        assert [task.estimate() for task in tasks] == [None] * 3
        await tasks[0]
        assert tasks[0].estimate() is None


async def test_a_queue_is_estimated(connect: Connect, emulator: Emulator) -> None:
    """Of 60 that wait for 5 slots, five at a time, the estimate is within a quarter of the truth, on random times."""
    loop = asyncio.get_running_loop()
    async with connect() as session:
        await learn(session)
        tasks = [await session.enqueue(f"sound {number}") for number in range(60)]
        await asyncio.sleep(0.5)
        began, estimates = loop.time(), [estimate_of(task).median for task in tasks]
        took = [0.0] * len(tasks)

        async def wait(number: int) -> None:
            await tasks[number]
            took[number] = loop.time() - began

        await asyncio.gather(*[wait(number) for number in range(len(tasks))])
        for first in range(5, 60, 5):
            ratio = fmean(estimates[first : first + 5]) / fmean(took[first : first + 5])
            assert 0.75 < ratio < 1.25, f"from {first}: {ratio:.2f}"


@pytest.mark.parametrize("slots", [1, 3])
async def test_each_round_takes_as_long_as_an_effect(connect: Connect, emulator: Emulator, slots: int) -> None:
    """With effects that take 10 s each, whoever is sent now takes 10 s, who comes after them 20 s, and so on."""
    emulator.service_time = Constant(10)
    async with connect(max_concurrency=slots) as session:
        await learn(session, 20)
        tasks = [await session.enqueue(f"sound {number}") for number in range(4 * slots)]
        for moment in (0.0, 0.02, 0.5):  # as they wait for their POST, while it is out, and while they run
            await asyncio.sleep(moment)
            for number, task in enumerate(tasks):
                rounds = 1 + number // slots
                assert 9 * rounds < estimate_of(task).median < 12.5 * rounds


async def test_by_turns(connect: Connect, emulator: Emulator) -> None:
    """An owner with one effect hears of a shorter wait than those with many who came before."""
    emulator.service_time = Constant(10)
    async with connect(max_concurrency=1) as session:
        await learn(session, 20)
        many = [await session.enqueue(f"sound {number}", owner="a") for number in range(20)]
        one = await session.enqueue("one", owner="b")
        assert one.position == 2
        assert estimate_of(one).median < estimate_of(many[-1]).median / 4
