"""Many callers, and many timeouts: work and memory in proportion."""

from __future__ import annotations

import asyncio
import gc
import sys
from pathlib import Path

import pytest
from ledger.helpers import Connect

from finevoice_async.emulator import Constant, Emulator


async def calls_made(connect: Connect, path: Path, callers: int, way: str) -> int:
    """Count the function calls that it takes to serve, or to lose, so many callers of one key."""
    count = 0

    def note(frame: object, event: str, arg: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    async with connect(journal=path.with_name(f"{callers}.db"), max_concurrency=1) as session:
        if way == "cancel":
            await session.submit("something else")
        before = sys.getprofile()
        sys.setprofile(note)
        try:
            calls = [asyncio.create_task(session.generate("rain", key="a")) for _ in range(callers)]
            if way == "cancel":
                await asyncio.sleep(1)
                for call in calls:
                    call.cancel()
            await asyncio.wait(calls)
        finally:
            sys.setprofile(before)
    return count


@pytest.mark.parametrize("way", ["serve", "cancel"])
async def test_many_callers_of_one_key_take_linear_work(
    connect: Connect, path: Path, emulator: Emulator, way: str
) -> None:
    """Four times the callers of one key take about four times the work, also when all of them go."""
    emulator.service_time = Constant(5)
    few, many = [await calls_made(connect, path, callers, way) for callers in (500, 2000)]
    assert many < 6 * few
    assert len(emulator.ledger.accepted) == 2


async def test_timeouts_that_passed_leave_nothing(connect: Connect, emulator: Emulator) -> None:
    """Waits with ever other timeouts leave no objects behind."""
    emulator.inject("task.never_ends")
    async with connect() as session:
        task = await session.submit("rain")

        async def wait(number: int) -> None:
            with pytest.raises(TimeoutError):
                await task.wait(timeout=1 + number / 1000)

        def ours() -> int:
            gc.collect()
            return sum(str(type(thing).__module__).startswith("finevoice_async") for thing in gc.get_objects())

        await wait(0)
        before = ours()
        await asyncio.gather(*[wait(number) for number in range(300)])
        await asyncio.sleep(60)
        assert ours() - before < 30
