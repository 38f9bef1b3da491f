"""The ledger, the laws of service times, and that a seed repeats everything."""

from __future__ import annotations

import asyncio
import math
import random
import sys
import uuid
from typing import TYPE_CHECKING

import pytest

from finevoice_async.core.requests import SfxRequest
from finevoice_async.emulator import Accepted, Constant, Emulator, Ledger, LogNormal, ServiceLaw, greedy_bound

if TYPE_CHECKING:
    from emulator.conftest import Caller


def accepted(number: int, at: float, service_time: float) -> Accepted:
    """Make an entry."""
    return Accepted(f"task-{number}", SfxRequest("rain"), at, service_time, service_time)


def test_running_is_exact() -> None:
    """A task runs from its acceptance until right before its end, compared with counting intervals one by one."""
    rng = random.Random(3)
    ledger, entries = Ledger(), []
    at = 0.0
    for number in range(300):
        at += rng.choice((0.0, 0.5, 1.0))
        entries.append(accepted(number, at, rng.choice((0.0, 1.0, 2.5, 10.0, math.inf))))
        ledger.accept(entries[-1])
        assert ledger.running(at) == sum(entry.at <= at < entry.ends_at for entry in entries)
    moments = {entry.at for entry in entries}
    assert ledger.most_running == max(sum(e.at <= moment < e.ends_at for e in entries) for moment in moments)


async def test_counts(caller: Caller, emulator: Emulator) -> None:
    """Submissions, polls, downloads and the moment when the end was told are kept for each task."""
    emulator.service_time = Constant(4)
    first, second = await caller.submit_id(prompt="wind", duration=0.2), await caller.submit_id()
    for _ in range(3):
        await caller.poll(first)
    assert emulator.running == 2
    await asyncio.sleep(10)
    update = (await caller.poll(first)).update
    await caller.ask("GET", update.urls[0])
    ledger = emulator.ledger
    entry = ledger.accepted[first]
    assert entry.request == SfxRequest("wind", duration=0.2)
    assert (entry.polls, entry.fetched, entry.service_time) == (4, 1, 4)
    assert entry.ends_at - entry.at == pytest.approx(4)
    assert (ledger.accepted[second].polls, ledger.accepted[second].noticed_at) == (0, None)
    assert (ledger.posts, ledger.polls, ledger.fetches, emulator.running, ledger.most_running) == (2, 4, 1, 0, 2)
    assert list(ledger.lags()) == [pytest.approx(6, abs=0.1)]


async def test_a_seed_repeats_everything(caller: Caller) -> None:
    """The same seed gives the same times, ids and words, in the order of acceptance, whoever polls meanwhile."""

    async def run(seed: int, polls: int) -> tuple[list[float], list[str]]:
        async with Emulator(seed=seed, faults={"task.fail": 0.3, "task.never_ends": 0.2}) as emulator:
            other = type(caller)(emulator, caller.http)
            for _ in range(20):
                task_id = await other.submit_id(duration=3)
                for _ in range(polls):
                    await other.poll(task_id)
            return emulator.ledger.service_times, list(emulator.ledger.accepted)

    first = await run(1, polls=0)
    assert first == await run(1, polls=2)
    assert first[0] != (await run(2, polls=0))[0]


async def test_without_a_seed_all_is_new(caller: Caller) -> None:
    """Two runs have no task id in common, so that one journal can know both; the seed of each repeats it."""

    async def ids(seed: int | None = None) -> tuple[int, list[str]]:
        async with Emulator(seed=seed) as emulator:
            other = type(caller)(emulator, caller.http)
            return emulator.seed, [await other.submit_id() for _ in range(5)]

    seed, first = await ids()
    assert not set(first) & set((await ids())[1])
    assert await ids(seed) == (seed, first)
    assert all(uuid.UUID(task_id.removeprefix("p1-")).version == 4 for task_id in first)


async def test_what_is_handed_out_stays_as_it_was(caller: Caller, emulator: Emulator) -> None:
    """Entries are given as copies that nobody can write: another thread may read them while more arrive."""
    await caller.ask("GET", "/elsewhere")
    ledger = emulator.ledger
    accepted, refused, faults, strays = ledger.accepted, ledger.refused, ledger.faults, ledger.stray_paths
    emulator.inject("submit.error_500")
    await caller.submit()
    await caller.ask("GET", "/nowhere")
    assert (len(accepted), refused, faults, strays) == (0, {404: 1}, {}, ["GET /elsewhere"])
    assert (len(ledger.accepted), ledger.refused) == (1, {404: 2, 500: 1})
    assert (ledger.faults, ledger.stray_paths) == ({"submit.error_500": 1}, ["GET /elsewhere", "GET /nowhere"])
    for copy in (accepted, refused, faults):
        with pytest.raises(TypeError, match="does not support item assignment"):
            copy["x"] = 1  # type: ignore[index]  # on purpose


async def test_times_are_the_law_of_the_seed(caller: Caller) -> None:
    """A task's i-th time is the law's i-th draw, so that a benchmark can know it beforehand; `speed` divides it."""
    async with Emulator(seed=9, service_time=LogNormal(median=8), speed=4) as emulator:
        for _ in range(5):
            await type(caller)(emulator, caller.http).submit()
        rng = random.Random("9 times")
        assert emulator.ledger.service_times == [LogNormal(median=8)(SfxRequest("x"), rng) / 4 for _ in range(5)]
        assert emulator.bound(2) == greedy_bound(emulator.ledger.service_times, 2)


def draw(law: ServiceLaw, duration: float | None) -> float:
    """Return the median of many draws."""
    rng = random.Random(1)
    return sorted(law(SfxRequest("x", duration=duration), rng) for _ in range(4001))[2000]


def test_laws() -> None:
    """The median is what was asked for at 5 seconds of sound, and grows as asked."""
    assert draw(LogNormal(median=8), 5) == draw(LogNormal(median=8), None) == pytest.approx(8, rel=0.05)
    assert draw(LogNormal(median=8), 10) == pytest.approx(16, rel=0.05)
    assert draw(LogNormal(median=8, scaled=False), 30) == pytest.approx(8, rel=0.05)
    assert draw(LogNormal(median=8, scaled=False, per_second=2), 10) == pytest.approx(28, rel=0.05)
    assert draw(Constant(3), 30) == 3


def test_greedy_bound() -> None:
    """Each task goes to the slot that is free first."""
    assert greedy_bound([3, 1, 1, 5], 2) == 7
    assert greedy_bound([], 2) == 0
    with pytest.raises(ValueError, match="slots"):
        greedy_bound([1], 0)


@pytest.mark.parametrize(
    "options",
    [{"median": -1}, {"sigma": math.inf}, {"per_second": math.nan}],
)
def test_laws_that_make_no_sense(options: dict[str, float]) -> None:
    """A law's numbers are finite and not negative."""
    with pytest.raises(ValueError, match="must be finite"):
        LogNormal(**options)  # type: ignore[arg-type]  # mypy thinks of `scaled`
    with pytest.raises(ValueError, match="0 or above"):
        Constant(math.nan)


def test_memory_is_modest() -> None:
    """An entry has slots, so 100,000 finished tasks fit easily."""
    entry = accepted(1, 0.0, 1.0)
    assert not hasattr(entry, "__dict__")
    assert sys.getsizeof(entry) < 150
