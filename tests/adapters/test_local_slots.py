"""Places: first come, first served; never overdrawn; never lost."""

from __future__ import annotations

import asyncio

import pytest

from finevoice_async.adapters.local_slots import LocalSlots
from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.errors import SessionClosedError


@pytest.fixture
def slots() -> LocalSlots:
    """Two places."""
    return LocalSlots(2, LoopClock())


async def test_first_come_first_served(slots: LocalSlots) -> None:
    """Who waits first gets the next place, also before somebody who only tries."""
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
    """A wait that is cancelled, before or in the step in which it gets its place, holds none."""
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


async def test_occupied_places_count(slots: LocalSlots) -> None:
    """A task that runs already takes a place beyond the limit, and new ones wait until there is room."""
    for _ in range(3):
        slots.occupy()
    assert slots.try_acquire() is None
    slots.release(slots)
    assert slots.try_acquire() is None
    slots.release(slots)
    assert slots.try_acquire() is not None


async def test_slow_down_lowers_the_limit_for_a_while(slots: LocalSlots) -> None:
    """After a 429 one place fewer is used, and all again when the time is over."""
    held = [slots.occupy(), slots.occupy()]
    slots.slow_down(30)
    slots.release(held[0])
    waiter = asyncio.create_task(slots.acquire())
    await asyncio.sleep(29)
    assert not waiter.done()
    await asyncio.sleep(2)
    assert waiter.done()
    slots.slow_down(1)
    slots.slow_down(1)
    assert "2 of 2 used" in repr(slots)


async def test_closing_sends_waiters_home(slots: LocalSlots) -> None:
    """Who waits when it closes hears that nothing was sent; so does who comes later."""
    slots.occupy(), slots.occupy()
    waiter = asyncio.create_task(slots.acquire())
    await asyncio.sleep(0)
    await slots.aclose()
    await slots.aclose()
    for wait in (waiter, slots.acquire()):
        with pytest.raises(SessionClosedError):
            await wait
