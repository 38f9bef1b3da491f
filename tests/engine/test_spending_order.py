"""The budget of a sliding time, where submissions leave in another order than that in which they were spent."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from fake_journal import FakeJournal
from fakes import FakeSlots
from parts import assemble

from finevoice_async.config import Budget
from finevoice_async.errors import BudgetExceededError


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
