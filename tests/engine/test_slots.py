"""Slots of the caller's own may raise anything: who wanted one hears that nothing was sent, and nobody else hears."""

from __future__ import annotations

import asyncio

import pytest
from fakes import FakeSlots

from finevoice_async.engine.slots import GuardedSlots
from finevoice_async.errors import SubmitNotSentError


async def test_all_is_passed_on() -> None:
    """Slots that work are used as they are."""
    slots = FakeSlots(2)
    guarded = GuardedSlots(slots)
    assert repr(guarded) == "<GuardedSlots of a FakeSlots>"
    first, second = guarded.try_acquire(), await guarded.acquire()
    assert slots.out == {first, second}
    assert guarded.try_acquire() is None
    third = guarded.occupy()
    assert slots.out == {first, second, third}
    waiting = asyncio.create_task(guarded.acquire())
    await asyncio.sleep(0)
    assert guarded.waiting == 1
    for slot in (first, second):
        guarded.release(slot)
    assert slots.out == {third, await waiting}
    guarded.slow_down(7)
    assert slots.slowed == [7]


@pytest.mark.parametrize("fault", [OSError("secret words of the lock server"), asyncio.CancelledError()])
@pytest.mark.parametrize("method", ["try_acquire", "acquire"])
async def test_a_fault_while_one_is_taken(method: str, fault: BaseException) -> None:
    """Whoever wanted the slot hears that nothing was sent, and why; a cancellation that is not theirs is a fault."""
    slots = FakeSlots()
    slots.faults[method] = fault
    guarded = GuardedSlots(slots)
    words = rf"failed \({type(fault).__name__}\)\. Nothing was sent and nothing paid\."
    with pytest.raises(SubmitNotSentError, match=words) as caught:
        await guarded.acquire() if method == "acquire" else guarded.try_acquire()
    assert caught.value.__cause__ is fault
    assert "secret" not in str(caught.value)


async def test_a_cancelled_wait_is_no_fault() -> None:
    """Whoever stops waiting is cancelled, and the slots are not blamed for it."""
    slots = FakeSlots()
    slots.held = True
    waiting = asyncio.create_task(GuardedSlots(slots).acquire())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert slots.waiting == 0


@pytest.mark.parametrize("fault", [OSError("it is away"), asyncio.CancelledError("it is away")])
@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("occupy", "take a slot for a task that runs already"),
        ("release", "take a slot back"),
        ("slow_down", "slow down"),
        ("waiting", "say how many wait"),
    ],
)
async def test_any_other_fault_is_logged(
    method: str, words: str, fault: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """What fails where nobody wants a slot costs a line in the log, with its cause."""
    slots = FakeSlots()
    slots.faults[method] = fault
    guarded = GuardedSlots(slots)
    if method == "occupy":
        assert guarded.occupy() is None
    elif method == "release":
        guarded.release(guarded.try_acquire())
    elif method == "slow_down":
        guarded.slow_down(1)
    else:
        assert guarded.waiting == 0
    assert words in caplog.text
    assert "it is away" in caplog.text


async def test_closing_closes_nothing() -> None:
    """They are the caller's: closing leaves them as they are."""

    class Owned(FakeSlots):
        async def aclose(self) -> None:
            raise AssertionError("they are another's")

    await GuardedSlots(Owned()).aclose()
