"""What the journal costs: throughput with and without it, and how long it holds up the event loop.

    python benchmarks/journal.py [--quick] [--check]

1,000 effects against the emulator in a process of its own, at 50 places; the service takes a millisecond, since with
none at all its answer would carry the result and nothing would be polled. Runs with and without the journal alternate;
the ratio is the median of the pairs'. Two workloads:

- default polling (with a budget that lets 50 places through): what a program sees;
- flat out: polled a millisecond after submission. Then the processor is all there is, and what the journal costs it.

The probe times every step of the event loop; the longest step without a journal is the noise of the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Self

from finevoice_async import FineVoiceSession, Polling
from finevoice_async.emulator import Constant, Emulator

PLACES = 50
WORKLOADS = {
    "default polling": Polling(budget=1000),
    "flat out": Polling.fixed(0.001, min_gap=0.001, budget=1e6),
}
ALLOWED_COST = 0.15
ALLOWED_BLOCK = 0.005  # seconds


def serve(pipe: Connection) -> None:
    """Run the emulator until the pipe says stop."""

    async def main() -> None:
        async with Emulator(service_time=Constant(0.001), dialect="quickstart") as emulator:
            pipe.send((emulator.url, emulator.api_key))
            await asyncio.to_thread(pipe.recv)

    asyncio.run(main())


class StepProbe:
    """Times every step of the event loop: each callback, and each piece of a coroutine between two awaits."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self._run = asyncio.Handle._run

    def __enter__(self) -> Self:
        run, steps, clock = self._run, self.steps, time.perf_counter

        def timed(handle: asyncio.Handle) -> None:
            began = clock()
            run(handle)
            steps.append(clock() - began)

        asyncio.Handle._run = timed  # type: ignore[method-assign,assignment]  # there is no other place to look from
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.Handle._run = self._run  # type: ignore[method-assign]  # as it was


async def run(url: str, key: str, journal: Path | None, effects: int, polling: Polling) -> float:
    """Make the effects; give the seconds it took."""
    async with FineVoiceSession(
        key,
        base_url=url,
        journal=journal,
        max_concurrency=PLACES,
        polling=polling,
    ) as session:
        began = time.perf_counter()
        async for outcome in session.generate_many(f"sound {i}" for i in range(effects)):
            assert outcome.error is None, outcome.error
        return time.perf_counter() - began


def main() -> int:
    """Measure, print, and check if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer effects and runs")
    parser.add_argument("--check", action="store_true", help="fail if the journal costs more than it may")
    options = parser.parse_args()
    effects, rounds = (200, 2) if options.quick else (1000, 5)

    context = get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    url, key = ours.recv()
    print(f"| {effects} effects, {PLACES} places | without, effects/s | with a journal | cost (pairs) |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:

        def once(name: str, polling: Polling, *, journalled: bool) -> float:
            path = Path(folder) / f"{name}.db" if journalled else None
            return asyncio.run(run(url, key, path, effects, polling))

        once("warm", WORKLOADS["flat out"], journalled=True)
        costs = {}
        for workload, polling in WORKLOADS.items():
            times: dict[bool, list[float]] = {False: [], True: []}
            for number in range(rounds):
                for journalled in (True, False) if number % 2 else (False, True):
                    times[journalled].append(once(f"{workload} {number}", polling, journalled=journalled))
            ratios = sorted(a / b - 1 for a, b in zip(times[True], times[False], strict=True))
            costs[workload] = statistics.median(ratios)
            speeds = [f"{effects / statistics.median(times[journalled]):.0f}" for journalled in (False, True)]
            spread = f"{ratios[0]:+.1%} to {ratios[-1]:+.1%}"
            print(f"| {workload} | {speeds[0]} | {speeds[1]} | {costs[workload]:+.1%} ({spread}) |")
        longest = {}
        for journalled in (False, True):  # apart, because timing each step costs time
            with StepProbe() as probe:
                once("probed", WORKLOADS["flat out"], journalled=journalled)
            longest[journalled] = max(probe.steps) * 1000
    ours.send("stop")
    server.join()
    print(f"\nLongest step of the event loop: {longest[False]:.1f} ms without, {longest[True]:.1f} ms with a journal.")
    missed = costs["default polling"] > ALLOWED_COST or longest[True] > ALLOWED_BLOCK * 1000
    if options.check and missed:
        print(f"more than {ALLOWED_COST:.0%} or {ALLOWED_BLOCK * 1000:.0f} ms", file=sys.stderr)
    return int(options.check and missed)


if __name__ == "__main__":
    sys.exit(main())
