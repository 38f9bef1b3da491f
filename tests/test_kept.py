"""What enqueue has kept: what becomes of it where this session cannot send it, and what its handles say then."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from ledger.helpers import QUEUED, REFUSED, Connect, all_of, occupied, prompts, rows, the_row
from parts import told

from finevoice_async import (
    AuthenticationError,
    Budget,
    BudgetExceededError,
    FineVoiceError,
    FineVoiceSession,
    RateLimitError,
    Retry,
    SessionClosedError,
    SfxTask,
    SubmitNotSentError,
    TaskStatus,
)
from finevoice_async.adapters.local_slots import LocalSlots
from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.emulator import Emulator


def state_of(task: SfxTask) -> tuple[Any, ...]:
    """Return what a handle says without waiting."""
    return task.status, task.done(), task.task_id, task.position, task.submitted_at, task.estimate()


WAITS = (TaskStatus.QUEUED, False, None, None, None, None)


async def test_handles_after_closing(connect: Connect, emulator: Emulator, path: Path) -> None:
    """The handle of enqueue and that of find say the same: what was kept is queued, in the journal."""
    async with connect(journal=path, max_concurrency=1) as session:
        await occupied(session)
        made = await session.enqueue("door", key="k")
        found = await session.find(key="k")
        assert found is not None
    assert state_of(made) == state_of(found) == WAITS
    for task in (made, found):
        for call in (task.wait, task.withdraw):
            error = await told(asyncio.ensure_future(call()))
            assert isinstance(error, SessionClosedError)
            assert "Nothing was sent. Its row stays queued" in error.message
            assert error.paid is False
    assert [row.state for row in await rows(path) if row.key] == [QUEUED]


async def test_a_handle_after_closing_without_a_journal(connect: Connect, emulator: Emulator) -> None:
    """What nothing keeps is gone: it failed, and nothing was sent."""
    async with connect(max_concurrency=1) as session:
        await occupied(session)
        made, found = await session.enqueue("door", key="k"), await session.find(key="k")
        assert found is not None
    for task in (made, found):
        assert (task.status, task.done()) == (TaskStatus.FAILED, True)
        assert isinstance(await told(asyncio.ensure_future(task.wait())), SessionClosedError)


@pytest.mark.parametrize("turns", range(6))
async def test_over_the_budget(connect: Connect, emulator: Emulator, kept_in: dict[str, Any], turns: int) -> None:
    """Enqueue keeps the wish whatever the moment; the handle tells of the budget, and a journal keeps it queued."""
    async with connect(max_concurrency=1 + turns, budget=Budget(effects=1), **kept_in) as session:
        spending = asyncio.create_task(session.generate("rain"))
        for _ in range(turns):
            await asyncio.sleep(0)
        await spending if turns == 5 else await asyncio.sleep(0)
        tasks = [await session.enqueue(f"door {number}", key=f"k{number}") for number in range(2)]
        for task in tasks:
            error = await told(asyncio.ensure_future(task.wait()))
            assert isinstance(error, BudgetExceededError)
            assert ("stays queued" in error.message) is bool(kept_in)
            assert task.status is (TaskStatus.QUEUED if kept_in else TaskStatus.FAILED)
        await spending
    assert prompts(emulator) == ["rain"]
    if kept_in:
        assert [row.state for row in await rows(kept_in["journal"]) if row.key] == [QUEUED] * 2


class _BrokenSlots(LocalSlots):
    def try_acquire(self) -> object | None:
        raise OSError("the database is away")

    async def acquire(self) -> object:
        raise OSError("the database is away")


async def test_slots_that_fail(connect: Connect, emulator: Emulator, kept_in: dict[str, Any]) -> None:
    """So it is with slots of the caller's own that fail."""
    async with connect(slots=_BrokenSlots(1, LoopClock()), **kept_in) as session:
        task = await session.enqueue("door", key="k")
        assert isinstance(await told(asyncio.ensure_future(task.wait())), SubmitNotSentError)
        assert task.status is (TaskStatus.QUEUED if kept_in else TaskStatus.FAILED)
    assert not emulator.ledger.posts


@pytest.mark.parametrize("attempts", [1, 4])
@pytest.mark.parametrize("awaited", [True, False])
async def test_a_service_that_is_away(path: Path, no_leaks: object, attempts: int, awaited: bool) -> None:
    """After `Retry.patience` whoever waits hears it; what was kept stays queued, and can be awaited again."""
    retry = Retry(patience=20, attempts=attempts)
    async with FineVoiceSession("a-key", base_url="http://127.0.0.1:9", journal=path, retry=retry) as session:
        loop = asyncio.get_running_loop()
        task = await session.enqueue("door", key="k")
        began = loop.time()
        if awaited:
            error = await told(asyncio.ensure_future(task.wait()))
            assert isinstance(error, SubmitNotSentError)
            assert "Its row stays queued" in error.message
            assert loop.time() - began == pytest.approx(20 if attempts > 1 else 0, abs=1)
        else:
            await asyncio.sleep(60)
        assert state_of(task) == WAITS
        found = await session.find(key="k")
        assert found is not None
        assert state_of(found) == WAITS
        assert session.stats.waiting == session.stats.submitting == 0
        with pytest.raises(SubmitNotSentError):  # tried anew
            await task
        assert await task.withdraw()
    assert (await the_row(path)).state is REFUSED


async def test_a_plan_that_is_full(connect: Connect, emulator: Emulator, path: Path) -> None:
    """A 429 that lasts is the same: the wish stays queued, and a later session makes it."""
    emulator.inject("submit.rate_limit", 100)
    async with connect(journal=path, retry=Retry(patience=10)) as session:
        task = await session.enqueue("door", key="k")
        assert isinstance(await told(asyncio.ensure_future(task.wait())), RateLimitError)
        assert state_of(task) == WAITS
        emulator.heal()
        assert (await task).key == "k"  # and so does this one, if it is asked
    async with connect(journal=path) as session:
        assert [outcome.key for outcome in await all_of(session.recover())] == ["k"]
    assert prompts(emulator) == ["door"]


async def test_many_wishes_and_a_wrong_key(connect: Connect, emulator: Emulator, path: Path) -> None:
    """Of 500 wishes a few meet the refusal; the others were not sent, and wait for a session with a good key."""
    async with connect(journal=path, max_concurrency=2) as session:
        emulator.inject("submit.unauthorized", 1000)
        tasks = [await session.enqueue(f"sound {number}", key=f"k{number}") for number in range(500)]
        for task in tasks[2:]:
            with pytest.raises(FineVoiceError) as caught:
                await task
            assert isinstance(caught.value, AuthenticationError)
            assert caught.value.paid is False
        assert emulator.ledger.posts <= 2
        emulator.heal()
    states = [row.state for row in await rows(path)]
    assert states.count(QUEUED) == 500 - states.count(REFUSED) >= 498
