"""The budget of a sliding time, where submissions leave in another order than that in which they were spent."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from fake_journal import FakeJournal
from fakes import FakeSlots, FakeTransport, says
from parts import assemble, told

from finevoice_async.config import Budget
from finevoice_async.errors import BudgetExceededError, RequestRejectedError


async def test_what_left_first_is_free_first() -> None:
    """A submission that was spent first and left last holds back nobody whose time is over."""
    journal = FakeJournal(delay=30)
    async with assemble(
        slots=FakeSlots(50), journal=journal, budget=Budget(effects=2, per=timedelta(minutes=1))
    ) as parts:
        parts.start()  # leaves at 30
        await asyncio.sleep(0.1)
        journal.delay = 0
        await parts.submit()  # leaves at 0.1
        assert len(parts.transport.posts) == 1
        await asyncio.sleep(60.1)
        await parts.submit()
        with pytest.raises(BudgetExceededError, match="free in 0:00:30"):
            await parts.submit()


async def test_a_refusal_after_its_time_gives_nothing_back() -> None:
    """What counts no more is not given back as well when it is refused at last: others would be one too many."""
    transport = FakeTransport(says(422), latency=70)
    budget = Budget(effects=1, per=timedelta(minutes=1))
    async with assemble(transport, slots=FakeSlots(50), journal=FakeJournal(), budget=budget) as parts:
        refused = parts.start()  # leaves at 0, is over at 60, and refused at 70
        await asyncio.sleep(61)
        transport.latency = 0.1
        await parts.submit()  # leaves at 61
        assert isinstance(await told(refused), RequestRejectedError)
        with pytest.raises(BudgetExceededError, match="1 submissions of 1"):
            await parts.submit()
    assert len(transport.posts) == 2
