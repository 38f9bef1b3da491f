"""Time limits that share a timer: in order, forgotten when they should be, no timer without anything to wait for."""

from __future__ import annotations

import asyncio

from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.engine.expiry import Expiry


def has_timer(expiry: Expiry[str]) -> bool:
    """Tell whether the loop will call it."""
    return expiry._timer is not None


async def test_each_item_goes_after_its_own_time(no_leaks: object) -> None:
    """Two that are due together go together, a later one later; a discarded one never."""
    gone: list[tuple[str, float]] = []
    clock = LoopClock()
    began = clock.monotonic()
    expiry: Expiry[str] = Expiry(10, clock, lambda item: gone.append((item, clock.monotonic() - began)))
    expiry.add("first")
    expiry.add("twin")
    await asyncio.sleep(4)
    expiry.add("never")
    expiry.add("last")
    expiry.discard("never")
    await asyncio.sleep(100)
    assert gone == [("first", 10), ("twin", 10), ("last", 14)]
    assert not expiry
    expiry.add("anew")
    await asyncio.sleep(10)
    assert gone[-1] == ("anew", 114)


async def test_no_timer_without_items(no_leaks: object) -> None:
    """The last one to leave takes the timer along; discarding what is not there does nothing."""
    gone: list[str] = []
    expiry = Expiry(10, LoopClock(), gone.append)
    expiry.discard("nobody")
    expiry.add("one")
    expiry.add("two")
    expiry.discard("one")
    assert has_timer(expiry)
    expiry.discard("two")
    expiry.discard("two")
    assert not has_timer(expiry)
    await asyncio.sleep(20)
    assert gone == []


async def test_items_may_leave_while_others_expire(no_leaks: object) -> None:
    """What is done for one item may add and discard others."""
    gone: list[str] = []
    clock = LoopClock()

    def on_expired(item: str) -> None:
        gone.append(item)
        expiry.discard("later")
        if len(gone) < 3:
            expiry.add(item + "'")

    expiry = Expiry(10, clock, on_expired)
    expiry.add("a")
    await asyncio.sleep(1)
    expiry.add("later")
    await asyncio.sleep(100)
    assert gone == ["a", "a'", "a''"]
    assert not has_timer(expiry)
