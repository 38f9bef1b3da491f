"""What the journal costs: throughput with and without it, and how long it holds up the event loop.

    python benchmarks/journal.py [--quick] [--check]

1,000 effects against the emulator in a process of its own, with instant service and hardly any time between polls, so
that the client's own work is all there is. Runs with and without the journal alternate; the ratio is that of their
medians. The probe times every step of the event loop; the longest step without a journal is the noise of the machine.
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
ALLOWED_COST = 0.15
ALLOWED_BLOCK = 0.005  # seconds


def serve(pipe: Connection) -> None:
    """Run the emulator until the pipe says stop."""

    async def main() -> None:
        async with Emulator(service_time=Constant(0.0), dialect="quickstart") as emulator:
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

        asyncio.Handle._run = timed  # type: ignore[method-assign]  # there is no other place to look from
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.Handle._run = self._run  # type: ignore[method-assign]  # as it was


async def run(url: str, key: str, journal: Path | None, effects: int) -> float:
    """Make the effects; give the seconds it took."""
    async with FineVoiceSession(
        key,
        base_url=url,
        journal=journal,
        max_concurrency=PLACES,
        polling=Polling.fixed(0.001, min_gap=0.001, budget=1e6),
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
    effects, rounds = (200, 3) if options.quick else (1000, 7)

    context = get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    url, key = ours.recv()
    times: dict[bool, list[float]] = {False: [], True: []}
    probes = {False: StepProbe(), True: StepProbe()}
    with tempfile.TemporaryDirectory() as folder:

        def once(name: str, *, journalled: bool) -> float:
            return asyncio.run(run(url, key, Path(folder) / f"{name}.db" if journalled else None, effects))

        once("warm", journalled=True)
        for number in range(rounds):
            for journalled in (True, False) if number % 2 else (False, True):
                times[journalled].append(once(str(number), journalled=journalled))
        for journalled, probe in probes.items():  # apart, because timing each step costs time
            with probe:
                once("probed", journalled=journalled)
    ours.send("stop")
    server.join()

    ratios = sorted(a / b for a, b in zip(times[True], times[False], strict=True))
    cost = statistics.median(ratios) - 1
    print(f"| {effects} effects, {PLACES} places | effects/s, median | step of the loop, p99.9 | longest step |")
    print("|---|---|---|---|")
    for journalled, probe in probes.items():
        steps = sorted(probe.steps)
        p999, worst = steps[int(0.999 * (len(steps) - 1))] * 1000, steps[-1] * 1000
        name = "with a journal" if journalled else "without"
        print(f"| {name} | {effects / statistics.median(times[journalled]):.0f} | {p999:.1f} ms | {worst:.1f} ms |")
    print(f"\nThe journal costs {cost:+.1%} (pairs: {ratios[0] - 1:+.1%} to {ratios[-1] - 1:+.1%}).")
    if options.check and max(probes[True].steps) > ALLOWED_BLOCK:
        print(f"a step took more than {ALLOWED_BLOCK * 1000:.0f} ms", file=sys.stderr)
        return 1
    if options.check and cost > ALLOWED_COST:
        print(f"more than {ALLOWED_COST:.0%}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
