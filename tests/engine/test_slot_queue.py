"""Submissions and slots are matched in the order in which submissions came."""

from __future__ import annotations

import asyncio

import pytest
from fakes import FakeSlots
from parts import RAIN

from finevoice_async.engine.records import Phase, Submission
from finevoice_async.engine.slot_queue import SlotQueue
from finevoice_async.engine.slots import GuardedSlots
from finevoice_async.errors import SubmitNotSentError


def make(slots: FakeSlots, count: int) -> tuple[SlotQueue, list[Submission]]:
    """Return a queue in which some wait, and those."""
    queue = SlotQueue(GuardedSlots(slots))
    waiting = [Submission(RAIN) for _ in range(count)]
    for submission in waiting:
        queue.add(submission)
    return queue, waiting


async def test_first_come_first_served() -> None:
    """Each match is the next in line with a slot of its own, until no slot is free."""
    slots = FakeSlots(2)
    queue, (first, second, third) = make(slots, 3)
    assert [submission.phase for submission in (first, second, third)] == [Phase.QUEUED] * 3
    assert (len(queue), queue.first(), queue.all()) == (3, first, [first, second, third])
    one, other = queue.match(), queue.match()
    assert one is not None
    assert other is not None
    assert (one[0], other[0]) == (first, second)
    assert {one[1], other[1]} == slots.out
    assert queue.match() is None
    assert queue.all() == [third]


async def test_nobody_waits() -> None:
    """An empty queue takes no slot."""
    slots = FakeSlots()
    queue, _ = make(slots, 0)
    assert queue.match() is None
    assert queue.first() is None
    assert not slots.out


async def test_who_leaves_is_passed_over() -> None:
    """Whoever was discarded gets nothing, and to discard twice does nothing."""
    queue, (first, second) = make(FakeSlots(), 2)
    queue.discard(first)
    queue.discard(first)
    matched = queue.match()
    assert matched is not None
    assert matched[0] is second


async def test_a_slot_that_comes_later_goes_to_who_is_next_then() -> None:
    """The wait is for a slot, not for somebody: it goes to the first of those who wait when it comes."""
    slots = FakeSlots()
    slots.held = True
    queue, (first, second) = make(slots, 2)
    wait = asyncio.create_task(queue.wait())
    await asyncio.sleep(1)
    assert not wait.done()
    queue.discard(first)
    slots.let_go()
    matched = await wait
    assert matched is not None
    assert matched[0] is second
    assert slots.out == {matched[1]}
    assert len(queue) == 0


async def test_a_slot_for_nobody_goes_back() -> None:
    """If all have left when the slot comes, it is given back."""
    slots = FakeSlots()
    slots.held = True
    queue, (only,) = make(slots, 1)
    wait = asyncio.create_task(queue.wait())
    await asyncio.sleep(1)
    queue.discard(only)
    slots.let_go()
    assert await wait is None
    assert not slots.out


@pytest.mark.parametrize("method", ["try_acquire", "acquire"])
async def test_slots_that_fail_leave_everybody_where_they_are(method: str) -> None:
    """A fault of the slots is raised, and nobody loses their turn by it."""
    slots = FakeSlots()
    slots.faults[method] = OSError("away")
    queue, waiting = make(slots, 2)
    with pytest.raises(SubmitNotSentError, match="OSError"):
        await queue.wait() if method == "acquire" else queue.match()
    assert queue.all() == waiting
    assert not slots.out
