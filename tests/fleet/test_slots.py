"""Slots of a fleet: who gets one, who keeps one, and who waits."""

from __future__ import annotations

import asyncio

import pytest
from typing import Any as Join
from fleets import until

from finevoice_async.core.ledger import EffectState, Move

pytestmark = pytest.mark.real_time
QUEUED, SENDING, SUBMITTED = EffectState.QUEUED, EffectState.SENDING, EffectState.SUBMITTED


async def test_first(join: Join) -> None:
    a = await join(plan=2)
    b = await join(plan=2)
    one = await a.submitted("one")
    two = await b.submitted("two")
    three = await a.wish("three")
    assert three.state is QUEUED
    waiter = asyncio.create_task(a.slots.acquire())
    await asyncio.sleep(0.02)
    assert await b.move(two.id, Move.FINISH, task_id=two.task_id, urls=("x",))
    slot = await asyncio.wait_for(waiter, 1)
    assert slot.row_id == three.id
    assert await a.move(three.id, Move.SEND)
    assert (await a.fleet()).taken == 2
    assert (await a.get(one.id)).task_id == one.task_id
    await a.die()
    took = await until(lambda: len(b.followed) == 1)
    print("adopted after", took, b.followed)
