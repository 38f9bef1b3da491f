"""Who waits for the slots of rows, whatever comes first: the row or the news of its slot."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from finevoice_async.adapters.postgres.slots import FleetSlots
from finevoice_async.core.ledger import EffectState, JournalRow
from finevoice_async.core.requests import SfxRequest
from finevoice_async.engine.fleet.row_queue import RowQueue
from finevoice_async.engine.records import Submission

pytestmark = pytest.mark.real_time  # there is nothing to wait for


class NoStore:
    """Writes nothing, and notes what was let go."""

    def __init__(self) -> None:
        self.let_go_of: list[int] = []

    def let_go(self, row_id: int) -> asyncio.Future[bool]:
        """Note it."""
        self.let_go_of.append(row_id)
        return self._done(is_made=True)

    def occupy(self, task_id: str) -> Any:
        """Do nothing."""
        return self._done(is_made=True)

    vacate = occupy

    def slow_down(self, seconds: float) -> Any:
        """Do nothing."""
        return self._done(is_made=True)

    def _done(self, *, is_made: bool) -> asyncio.Future[bool]:
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        future.set_result(is_made)
        return future


def waiting(number: int) -> Submission:
    """Return a submission with a row."""
    at = datetime.now(UTC)
    request = SfxRequest("Rain")
    row = JournalRow(id=number, state=EffectState.QUEUED, request=request, created_at=at, updated_at=at)
    return Submission(request, row=row)


async def test_each_gets_the_slot_of_its_row() -> None:
    """Not who came first is next, but whose row the store has given a slot."""
    slots = FleetSlots(NoStore())
    queue = RowQueue(slots)
    first, second = waiting(1), waiting(2)
    for submission in (first, second):
        slots.expect(submission.row.id)  # type: ignore[union-attr]  # it has a row
        queue.add(submission)
    assert queue.match() is None
    slots.given(2)
    matched = queue.match()
    assert matched is not None
    assert matched[0] is second
    waits = asyncio.ensure_future(queue.wait())
    await asyncio.sleep(0)
    slots.given(1)
    assert (await waits or (None,))[0] is first
    assert queue.count == 0


@pytest.mark.parametrize("how", ["match", "wait"])
async def test_a_slot_that_comes_before_its_row(how: str) -> None:
    """It is not given up because another came to look for its own first."""
    store = NoStore()
    slots = FleetSlots(store)
    queue = RowQueue(slots)
    slots.expect(1)
    queue.add(waiting(1))
    slots.expect(2)
    slots.given(2)  # its submission is about to be told of its row
    assert (queue.match() if how == "match" else await queue.wait()) is None
    late = waiting(2)
    queue.add(late)
    matched = queue.match() if how == "match" else await queue.wait()
    assert matched is not None
    assert matched[0] is late
    assert store.let_go_of == []


async def test_who_left_gets_no_slot() -> None:
    """A slot that was early for somebody who has left goes to nobody here."""
    slots = FleetSlots(NoStore())
    queue = RowQueue(slots)
    queue.add(waiting(1))
    slots.expect(2)
    slots.given(2)
    assert queue.match() is None
    left = waiting(2)
    queue.add(left)
    queue.discard(left)
    assert queue.match() is None
    assert queue.count == 1
