"""Fleets larger than these machines: many processes that share slots, simulated with the store's measured times.

    PYTHONPATH=.:tests python -m benchmarks.fleet_simulation [--flush MS]

First each kind of commit is timed on a real PostgreSQL, with a long line waiting; then whole fleets are played, in
which every commit takes a time drawn from those. The store is taken for one that does one commit at a time, beats too,
which is worse than it is: only those that give or take slots wait for each other. `--flush` adds what a disk takes to
make a commit durable, as the database of the benchmarks is in memory.

- idle: how long a slot stands empty between two tasks, for each effect;
- over: the makespan over that of slots which are never empty;
- store: the share of the time in which the store is busy;
- spread: effects of the process that got most, less those of the one that got least, when half of them are made.

Last, real sessions in one process are measured in the same way, to see whether the simulation is right.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import heapq
import itertools
import random
import statistics
import time
from collections import deque
from collections.abc import Callable

import attrs

from benchmarks.fleet import databases
from benchmarks.fleet_stress import session_of
from benchmarks.harness import table
from finevoice_async import EffectState, Fleet, SfxRequest
from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.adapters.postgres import schema
from finevoice_async.adapters.postgres.journal import PostgresJournal
from finevoice_async.core.ledger import Move
from finevoice_async.emulator import Constant, Emulator, EmulatorThread

LINE = 2000
"""Effects that wait while the commits are timed, and those of each fleet that is played."""

MEASURED = 300
POST, LAG = 0.1, 0.5
"""Seconds that a submission takes; and after which an end is noticed, at most."""

BEAT = Fleet().beat
FLEETS = ((1, 10), (10, 10), (50, 10), (200, 10), (50, 50), (50, 200))
"""Processes, and the slots of their plan."""


@attrs.frozen
class Times:
    """What the store takes for each thing, in seconds."""

    begin: list[float]
    send: list[float]
    accept: list[float]
    finish: list[float]
    beat: list[float]
    news: list[float]  # from a slot that is free to the session that hears of it


async def measure(url: str) -> Times:
    """Time the store, with nothing else in the process."""
    journal = PostgresJournal(url, "key", 1, LoopClock(), Fleet(beat=3600, lease=36_000))
    times = Times(*([] for _ in attrs.fields(Times)))
    await journal.open()

    async def timed(into: list[float], call: Callable[[], asyncio.Future[bool]]) -> None:
        began = time.perf_counter()
        assert await call()
        into.append(time.perf_counter() - began)

    for number in range(0, LINE, 50):  # those that wait together share a commit
        began = time.perf_counter()
        await asyncio.gather(
            *(journal.begin(SfxRequest("rain"), key=f"{number + i}", state=EffectState.QUEUED) for i in range(50))
        )
        times.begin.extend([(time.perf_counter() - began) / 50] * 50)
    for number in range(MEASURED):
        began = time.perf_counter()
        row_id = (await journal.slots.acquire()).row_id
        times.news.append(time.perf_counter() - began)
        await timed(times.send, lambda: journal.move(row_id, Move.SEND))  # noqa: B023 - called at once
        await timed(times.accept, lambda: journal.move(row_id, Move.ACCEPT, task_id=f"{number}"))  # noqa: B023 - same
        await timed(
            times.finish,
            lambda: journal.move(row_id, Move.FINISH, task_id=f"{number}", urls=("https://cdn.example/1.mp3",)),  # noqa: B023 - same
        )
        if number % 10 == 0:
            began = time.perf_counter()
            await journal._sweep()
            times.beat.append(time.perf_counter() - began)
    await journal.aclose()
    return times


class World:
    """A fleet, its store, and the time."""

    def __init__(self, processes: int, slots: int, times: Times, flush: float) -> None:
        self._times, self._flush, self._luck = times, flush, random.Random(1)
        self._slots, self._free = slots, slots
        self._wait = [deque[int]() for _ in range(processes)]
        self._held, self._last = [0] * processes, [-1.0] * processes
        self.made = [0] * processes
        self.at_half: list[int] = []
        self.left = LINE
        self.lengths = [POST + self._luck.lognormvariate(1.8, 0.35) + self._luck.uniform(0, LAG) for _ in range(LINE)]
        self.now, self.busy, self._store_free = 0.0, 0.0, 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()
        for number in range(LINE):
            process = number % processes
            self._at(self._commit(times.begin), lambda p=process, n=number: self._queued(p, n))  # type: ignore[misc]  # mypy cannot infer defaults
        for _ in range(processes):
            self._at(self._luck.uniform(0, BEAT), self._beat)

    def play(self) -> None:
        """Let all effects be made."""
        while self.left:
            self.now, _, happens = heapq.heappop(self._events)
            happens()

    def _at(self, when: float, happens: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._number), happens))

    def _commit(self, kind: list[float]) -> float:
        """Return when a commit that is asked for now is done."""
        takes = self._luck.choice(kind) + self._flush
        self._store_free = max(self.now, self._store_free) + takes
        self.busy += takes
        return self._store_free

    def _beat(self) -> None:
        self._at(self._commit(self._times.beat) + BEAT, self._beat)

    def _queued(self, process: int, number: int) -> None:
        self._wait[process].append(number)
        self._grant()

    def _grant(self) -> None:
        """Give a free slot to the process that has the fewest, in turn where several have, as the store does."""
        while self._free and (those := [p for p, line in enumerate(self._wait) if line]):
            process = min(those, key=lambda p: (self._held[p], self._last[p]))
            number = self._wait[process].popleft()
            self._free -= 1
            self._held[process] += 1
            self._last[process] = self.now
            hears = self.now + self._luck.choice(self._times.news)
            self._at(hears, lambda p=process, n=number: self._send(p, n))  # type: ignore[misc]  # as above

    def _send(self, process: int, number: int) -> None:
        sent = self._commit(self._times.send)
        self._at(sent + POST, self._accept)
        self._at(sent + self.lengths[number], lambda: self._finish(process))

    def _accept(self) -> None:
        self._commit(self._times.accept)

    def _finish(self, process: int) -> None:
        self._at(self._commit(self._times.finish), lambda: self._end(process))

    def _end(self, process: int) -> None:
        self._free += 1
        self._held[process] -= 1
        self.made[process] += 1
        self.left -= 1
        if self.left == LINE // 2:
            self.at_half = list(self.made)
        self._grant()


def bound(lengths: list[float], slots: int) -> float:
    """Return the makespan of slots that are never empty."""
    ends = [0.0] * slots
    for length in lengths:
        heapq.heapreplace(ends, ends[0] + length)
    return max(ends)


def fleet(processes: int, slots: int, times: Times, flush: float) -> list[str]:
    """Play one fleet; return its row of the table."""
    world = World(processes, slots, times, flush)
    world.play()
    idle = (world.now * slots - sum(world.lengths)) / LINE
    return [
        f"{processes}",
        f"{slots}",
        f"{1000 * idle:.0f} ms",
        f"{world.now / bound(world.lengths, slots):.3f}",
        f"{world.busy / world.now:.0%}",
        f"{max(world.at_half) - min(world.at_half)}",
    ]


async def real(url: str, sessions: int, slots: int, effects: int) -> float:
    """Return for how many seconds a slot is empty for each effect, with real sessions in this process."""
    with EmulatorThread(Emulator(service_time=Constant(2.0), quick_sounds=True)) as service:
        async with contextlib.AsyncExitStack() as stack:
            members = [await stack.enter_async_context(session_of(url, service, plan=slots)) for _ in range(sessions)]
            began = time.monotonic()

            async def make(index: int) -> None:
                names = [f"{index} {number}" for number in range(effects // sessions)]
                async for outcome in members[index].generate_many({"prompt": name, "key": name} for name in names):
                    outcome.unwrap()

            await asyncio.gather(*map(make, range(sessions)))
            took = time.monotonic() - began
        tasks = list(service.ledger.accepted.values())
    return (took * slots - sum((task.noticed_at or task.ends_at) - task.at for task in tasks)) / len(tasks)


async def main() -> None:
    """Measure, play, and compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--flush", type=float, default=0.0, metavar="MS", help="what a durable commit takes besides")
    options = parser.parse_args()
    async with databases() as (made, _):
        url = made.make()
        await schema.init(url)
        times = await measure(url)
        for name, found in attrs.asdict(times).items():
            print(f"{name}: {1000 * statistics.median(found):.2f} ms in the middle, {1000 * max(found):.1f} at most")
        rows = [fleet(processes, slots, times, options.flush / 1000) for processes, slots in FLEETS]
        print(table(["processes", "slots", "idle", "over", "store", "spread"], rows))
        url = made.make()
        await schema.init(url)
        idle = await real(url, 10, 10, 200)
        print(f"10 real sessions, 10 slots: a slot is empty for {1000 * idle:.0f} ms an effect")


if __name__ == "__main__":
    asyncio.run(main())
