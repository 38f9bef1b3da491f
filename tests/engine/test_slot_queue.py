"""Submissions and slots are matched: owners take turns, and each owner's submissions are served as they came."""

from __future__ import annotations

import asyncio
import random
import time

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
    assert (queue.count, queue.first(), queue.all()) == (3, first, [first, second, third])
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
    assert queue.count == 0


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


# Owners


def owned(queue: SlotQueue, owners: str) -> list[Submission]:
    """Let one submission wait for each letter, which is its owner; a dot has none."""
    waiting = [Submission(RAIN, owner=None if owner == "." else owner) for owner in owners]
    for submission in waiting:
        queue.add(submission)
    return waiting


def served(queue: SlotQueue) -> str:
    """Serve all who wait, and return their owners in turn."""
    turns = []
    while (matched := queue.match()) is not None:
        turns.append(matched[0].owner or ".")
    return "".join(turns)


@pytest.mark.parametrize(
    ("came", "go"),
    [
        ("aaaa", "aaaa"),
        ("aaaabc", "abcaaa"),
        ("aaabbbcc", "abcabcab"),
        ("aa..b", "a.ba."),
        ("abab", "abab"),
        ("baaa", "baaa"),
    ],
)
async def test_owners_take_turns(came: str, go: str) -> None:
    """One effect of each owner goes, then the next of each; those without an owner take turns as one."""
    queue, _ = make(FakeSlots(100), 0)
    owned(queue, came)
    assert served(queue) == go
    assert queue.count == 0


async def test_whoever_comes_later_waits_one_round_at_most() -> None:
    """An owner that comes anew is served after each other owner once, however many wait; also one that comes back."""
    slots = FakeSlots(4)
    queue, _ = make(slots, 0)
    owned(queue, "aaaaabb")
    assert served(queue) == "abab"
    owned(queue, "cb")
    slots.limit = 100
    assert served(queue) == "acbaa"


async def test_a_turn_is_not_lost_by_who_leaves() -> None:
    """As one of an owner's leaves, its next has the turn; as all of them leave, the next owner has it."""
    queue, _ = make(FakeSlots(100), 0)
    first, _, _, third, *_ = owned(queue, "aabbb")
    queue.discard(first)
    queue.discard(third)
    assert served(queue) == "abb"


async def test_positions() -> None:
    """Whatever waits, the place in line is the one in which it is served, also after some have been."""
    luck = random.Random(7)
    for _ in range(50):
        slots = FakeSlots(1000)
        queue, _ = make(slots, 0)
        waiting = owned(queue, "".join(luck.choices("abc.", k=luck.randint(1, 30))))
        for _ in range(luck.randint(0, 5)):
            queue.match()
        gone = luck.choice(waiting)
        queue.discard(gone)
        assert queue.position(gone) is None
        places = {queue.position(each): each for each in waiting} | {None: None}
        for place in range(1, queue.count + 1):
            matched = queue.match()
            assert matched is not None
            assert places[place] is matched[0]
        assert queue.position(waiting[0]) is None


@pytest.mark.parametrize("owners", [1, 2000])
async def test_many_wait(owners: int) -> None:
    """The cost of a turn does not grow with those who wait: 40,000 take less than three seconds on a slow machine."""
    slots = FakeSlots(100_000)
    queue, _ = make(slots, 0)
    waiting = [Submission(RAIN, owner=str(number % owners)) for number in range(40_000)]
    began = time.process_time()
    for submission in waiting:
        queue.add(submission)
    for submission in waiting[::4]:
        queue.discard(submission)
    while queue.match() is not None:
        pass
    assert time.process_time() - began < 3
    assert len(slots.out) == 30_000
