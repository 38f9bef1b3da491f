"""Slots: first come, first served; never overdrawn; never lost; fewer for as long as the service asks."""

from __future__ import annotations

import asyncio

import pytest
from hasty_clock import HastyClock
from strange import NO_NUMBERS, BrokenInt
from virtual_time import VirtualTimeLoop

from finevoice_async.adapters.local_slots import RECOVERY, LocalSlots
from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.errors import ConfigurationError, SessionClosedError


@pytest.fixture
def slots() -> LocalSlots:
    """Two slots."""
    return LocalSlots(2, LoopClock())


async def test_first_come_first_served(slots: LocalSlots) -> None:
    """Who waits first gets the next slot, also before somebody who only tries."""
    held = [await slots.acquire(), await slots.acquire()]
    order: list[int] = []

    async def take(number: int) -> None:
        await slots.acquire()
        order.append(number)

    waiters = [asyncio.create_task(take(number)) for number in range(3)]
    await asyncio.sleep(0)
    assert slots.waiting == 3
    slots.release(held[0])
    assert slots.try_acquire() is None
    for _ in range(2):
        slots.release(held[1])
    await asyncio.gather(*waiters)
    assert order == [0, 1, 2]
    assert slots.used == 2


async def test_cancelled_wait_takes_nothing(slots: LocalSlots) -> None:
    """A wait that is cancelled, before or in the step in which it gets its slot, holds none."""
    held = [slots.occupy(), slots.occupy()]
    early, late, last = (asyncio.create_task(slots.acquire()) for _ in range(3))
    await asyncio.sleep(0)
    early.cancel()
    await asyncio.sleep(0)
    slots.release(held[0])  # goes to `late`, which is cancelled in the same step
    late.cancel()
    await asyncio.wait([early, late, last])
    assert [task.cancelled() for task in (early, late, last)] == [True, True, False]
    assert (slots.used, slots.waiting) == (2, 0)


async def test_a_wait_cancelled_in_the_step_of_a_release(slots: LocalSlots) -> None:
    """A slot goes past who was cancelled a moment ago, to the next who waits."""
    held = [slots.occupy(), slots.occupy()]
    gone, last = (asyncio.create_task(slots.acquire()) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    slots.release(held[0])
    await asyncio.wait([gone, last])
    assert (gone.cancelled(), last.cancelled()) == (True, False)
    assert (slots.used, slots.waiting) == (2, 0)


async def test_occupied_slots_count(slots: LocalSlots) -> None:
    """A task that runs already takes a slot beyond the limit, and new ones wait until there is room."""
    for _ in range(3):
        slots.occupy()
    assert slots.try_acquire() is None
    slots.release(slots)
    assert slots.try_acquire() is None
    slots.release(slots)
    assert slots.try_acquire() is not None
    assert repr(slots) == "<LocalSlots 2 of 2 used, 0 waiting>"


@pytest.mark.parametrize("seconds", [0.25, 1, 7, 30, 120])
@pytest.mark.parametrize("clock", [LoopClock, HastyClock])
async def test_a_429_lowers_the_limit_for_exactly_so_long(clock: type[LoopClock], seconds: float) -> None:
    """One slot fewer is used for the seconds that were asked for, not less and not more, whoever waits meanwhile."""
    slots = LocalSlots(2, clock())
    loop = asyncio.get_running_loop()
    held = [slots.occupy(), slots.occupy()]
    slots.slow_down(seconds)
    began = loop.time()
    slots.release(held[0])
    assert slots.try_acquire() is None
    waiter = asyncio.create_task(slots.acquire())
    await asyncio.sleep(seconds - 0.0015)
    assert not waiter.done()
    await waiter
    assert 0 <= loop.time() - began - seconds < 0.0005
    assert slots.used == 2


@pytest.mark.parametrize("seconds", [1, 30, 120])
async def test_the_limit_is_back_without_anybody_waiting(slots: LocalSlots, seconds: float) -> None:
    """Who only tries finds the slot free as soon as the time is over, and not before."""
    held = [slots.occupy(), slots.occupy()]
    slots.slow_down(seconds)
    slots.release(held[0])
    await asyncio.sleep(seconds - 0.001)
    assert slots.try_acquire() is None
    await asyncio.sleep(0.001)
    assert slots.try_acquire() is not None


async def test_nobody_overtakes_as_the_limit_comes_back(slots: LocalSlots) -> None:
    """When the time is over, who waits is first, also if the timer is late."""
    held = [slots.occupy(), slots.occupy()]
    slots.slow_down(10)
    slots.release(held[0])
    waiter = asyncio.create_task(slots.acquire())
    await asyncio.sleep(1)
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    loop.jump(20)
    assert slots.try_acquire() is None
    await waiter


@pytest.mark.parametrize(("first", "second"), [(10, 30), (30, 10), (10, 10)])
@pytest.mark.parametrize("clock", [LoopClock, HastyClock])
async def test_the_longest_time_counts(clock: type[LoopClock], first: float, second: float) -> None:
    """Another 429 meanwhile takes another slot away, and the limit begins to rise when both times are over."""
    slots = LocalSlots(5, clock())
    loop = asyncio.get_running_loop()
    held = [slots.occupy() for _ in range(4)]
    slots.slow_down(first)  # what runs is the most from now on: 4, less one
    slots.release(held[0])
    slots.release(held[0])
    assert slots.try_acquire() is not None
    assert slots.try_acquire() is None
    began = loop.time()
    slots.slow_down(second)
    slots.release(held[0])
    assert slots.try_acquire() is None  # 2 of 2
    await asyncio.wait_for(slots.acquire(), 100)
    assert loop.time() - began == pytest.approx(max(first, second), abs=0.0005)
    for limit in (4, 5):
        assert slots.try_acquire() is None
        await asyncio.wait_for(slots.acquire(), 100)
        assert slots.used == limit
    assert loop.time() - began == pytest.approx(max(first, second) + 2 * RECOVERY, abs=0.0015)


# On its way back the limit rises step by step


@pytest.mark.parametrize(
    ("limit", "steps"),
    [
        (1, []),
        (2, [2]),
        (5, [2, 3, 4, 5]),
        (10, [2, 3, 4, 5, 6, 7, 8, 9, 10]),
        (50, [6, 11, 16, 21, 26, 31, 36, 41, 46, 50]),
    ],
)
@pytest.mark.parametrize("clock", [LoopClock, HastyClock])
@pytest.mark.parametrize("waits", [False, True])
async def test_step_by_step(clock: type[LoopClock], waits: bool, limit: int, steps: list[int]) -> None:
    """A tenth of the plan comes back every 5 s, one slot at least, until it is whole; then no timer is left."""
    slots, loop = LocalSlots(limit, timers := clock()), asyncio.get_running_loop()
    slots.occupy()
    slots.slow_down(10)
    began = loop.time()
    waiters = [asyncio.create_task(slots.acquire()) for _ in range(limit - 1)] if waits else []
    await asyncio.sleep(9.998)
    assert slots.used == 1
    assert slots.try_acquire() is None
    for number, step in enumerate(steps):
        await asyncio.sleep(began + 10 + number * RECOVERY + 0.0005 - loop.time())
        while not waits and slots.try_acquire() is not None:
            pass
        assert slots.used == step
    await asyncio.gather(*waiters)
    await asyncio.sleep(2 * RECOVERY)
    assert slots.try_acquire() is None
    if isinstance(timers, HastyClock):
        assert timers.pending() == 0


@pytest.mark.parametrize("clock", [LoopClock, HastyClock])
async def test_a_429_on_the_way_back(clock: type[LoopClock]) -> None:
    """It takes a slot of those that are used then, and the steps begin anew after its time."""
    slots, loop = LocalSlots(10, clock()), asyncio.get_running_loop()
    held = [slots.occupy() for _ in range(5)]
    slots.slow_down(10)  # to 4
    await asyncio.sleep(21)  # 5, 6, 7
    assert slots.try_acquire() is not None
    slots.slow_down(10)  # 6 are used: to 5
    began = loop.time()
    for _ in range(2):
        slots.release(held[0])
    assert (slots.used, slots.try_acquire() is None) == (4, False)
    assert slots.try_acquire() is None
    for number in range(5):  # up to 10
        await asyncio.wait_for(slots.acquire(), 100)
        assert loop.time() - began == pytest.approx(10 + number * RECOVERY, abs=0.0015)
    await asyncio.sleep(100)
    assert slots.try_acquire() is None


async def test_steps_are_made_up_for_after_a_sleep(slots: LocalSlots) -> None:
    """A machine that slept has the whole plan again at once, and a later 429 its whole time."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    big = LocalSlots(50, LoopClock())
    held = big.occupy()
    big.slow_down(10)
    loop.jump(10_000)
    assert all(big.try_acquire() is not None for _ in range(49))
    assert big.try_acquire() is None
    big.slow_down(10)
    big.release(held)
    began = loop.time()
    await big.acquire()
    assert loop.time() - began == pytest.approx(10)


async def test_one_slot_is_always_left() -> None:
    """However often the service says 429, one task may run."""
    slots = LocalSlots(2, LoopClock())
    held = slots.occupy()
    for _ in range(5):
        slots.slow_down(30)
    slots.release(held)
    assert slots.try_acquire() is not None
    assert slots.try_acquire() is None


@pytest.mark.uvloop
async def test_on_a_loop_whose_timers_fire_early() -> None:
    """On uvloop, too, everybody who waits gets a slot when the time is over."""
    for _ in range(10):
        slots = LocalSlots(2, LoopClock())
        held = [slots.occupy(), slots.occupy()]
        slots.slow_down(0.0105)
        slots.release(held[0])
        await asyncio.wait_for(slots.acquire(), 5)


async def test_closing_sends_waiters_home() -> None:
    """Who waits when it closes hears that nothing was sent; so does who comes later; no timer is left."""
    clock = HastyClock()
    slots = LocalSlots(2, clock)
    slots.occupy(), slots.occupy()
    slots.slow_down(30)
    waiter = asyncio.create_task(slots.acquire())
    await asyncio.sleep(0)
    await slots.aclose()
    await slots.aclose()
    slots.slow_down(30)
    assert clock.pending() == 0
    for wait in (waiter, slots.acquire()):
        with pytest.raises(SessionClosedError, match="Nothing was sent"):
            await wait


def test_limits_that_make_no_sense() -> None:
    """The number of slots is a whole number, 1 or above; anything else is refused, whatever it is."""
    limits = [0, -1, 1.5, None, BrokenInt(2), -(10**5000)] + [NO_NUMBERS[name] for name in NO_NUMBERS]
    for limit in limits:
        if type(limit) is int and limit > 0:
            assert LocalSlots(limit, LoopClock()).used == 0
            continue
        with pytest.raises(ConfigurationError, match="max_concurrency"):
            LocalSlots(limit, LoopClock())
