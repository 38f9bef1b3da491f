"""What an observer costs: CPU an effect without one, with one that does nothing, and with OpenTelemetry's.

    python -m benchmarks.observing                the table, as Markdown
    python -m benchmarks.observing --quick        a minute: fewer effects and turns
    python -m benchmarks.observing --check        and exit with 1 when one that does nothing costs more than 3 %

OpenTelemetry runs with its SDK, which makes every span and figure and exports none. Each way is a process of its own,
and so is the server; a ratio is taken within a turn. Every effect is one POST and one GET, as in `overhead`: more work
an effect makes the ratios smaller. On a machine that does other things the ratio of a single turn is off by more than
the limit; the median of many is compared.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
import time
from typing import Any

from benchmarks.harness import Child, FastServer, Spread, alternated, messages, reply, table
from benchmarks.overhead import KEY, PAUSE_EACH, free_a_large_block
from finevoice_async import FineVoiceSession, Observer, Polling, SfxEvent

LIMIT = 1.03
WAYS = {"none": "no observer", "no-op": "one that does nothing", "otel": "OpenTelemetryObserver, its SDK drops all"}


class Idle:
    """Hears, and does nothing."""

    def on_event(self, event: SfxEvent) -> None:
        """Hear."""


def _observer(way: str) -> Observer | None:
    if way == "otel":
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.trace import TracerProvider

        from finevoice_async.telemetry import OpenTelemetryObserver

        return OpenTelemetryObserver(TracerProvider(), MeterProvider())
    return Idle() if way == "no-op" else None


async def _run(observer: Observer | None, url: str, effects: int, in_flight: int) -> int:
    """Make effects, and return how many failed."""
    pause, failed = max(0.005, PAUSE_EACH * in_flight), 0
    polling = Polling(min_gap=pause, max_gap=pause, budget=1e6)
    session = FineVoiceSession(KEY, base_url=url, max_concurrency=in_flight, polling=polling, observer=observer)
    async with session:
        async for outcome in session.generate_many(f"effect {number}" for number in range(effects)):
            failed += outcome.error is not None
    return failed


def work(way: str) -> None:
    """Be one way's process."""
    free_a_large_block()
    observer = _observer(way)
    for message in messages():
        gc.collect()
        cpu = time.process_time()
        failed = asyncio.run(_run(observer, **message))
        reply(cpu=time.process_time() - cpu, failed=failed)


def measure(server: FastServer, children: dict[str, Child], effects: int, in_flight: int, turns: int) -> dict[str, Any]:
    """Return milliseconds of CPU an effect by way, turn by turn."""
    pause = max(0.005, PAUSE_EACH * in_flight)
    costs: dict[str, list[float]] = {way: [] for way in children}
    for turn in range(turns):
        for way in alternated(list(children), turn):
            server.reset(seconds=0.8 * pause)
            answer = children[way].ask(url=server.url, effects=effects, in_flight=in_flight)
            assert not answer["failed"], answer
            costs[way].append(1000 * answer["cpu"] / effects)
    return costs


def main() -> int:
    """Measure, print, check."""
    parser = argparse.ArgumentParser(description="What an observer costs.")
    parser.add_argument("--quick", action="store_true", help="a minute")
    parser.add_argument("--check", action="store_true", help="exit with 1 when one that does nothing costs too much")
    parser.add_argument("--cells", help="only these, as effects:in_flight,...")
    parser.add_argument("--turns", type=int, help="how often each way does each job")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker)
        return 0
    cells = options.cells or ("300:5,1000:100,1000:1000" if options.quick else "2000:5,2000:100,4000:1000")
    turns = options.turns or (5 if options.quick else 21)
    missed = False
    rows = []
    children: dict[str, Child] = {}
    with FastServer() as server:
        try:
            for way in WAYS:
                children[way] = Child(__file__, "--worker", way)
                children[way].ask(url=server.url, effects=50, in_flight=5)  # warm up
            for cell in cells.split(","):
                effects, in_flight = map(int, cell.split(":"))
                costs = measure(server, children, effects, in_flight, turns)
                for way, label in WAYS.items():
                    ratio = Spread.of([mine / bare for mine, bare in zip(costs[way], costs["none"], strict=True)])
                    missed |= way == "no-op" and ratio.median > LIMIT
                    rows.append([f"{in_flight:,}", label, Spread.of(costs[way]).show(), ratio.show(3)])
        finally:
            for child in children.values():
                child.__exit__()
    print(table(["in flight", "observer", "CPU an effect, ms", "over none"], rows))
    if options.check and missed:
        print(f"missed: an observer that does nothing may cost {LIMIT - 1:.0%} at most", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
