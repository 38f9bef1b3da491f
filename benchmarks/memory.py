"""What an effect costs in memory while it runs and after it has ended, and how long the event loop is blocked.

    python benchmarks/memory.py                   the tables, as Markdown (some minutes)
    python benchmarks/memory.py --quick           a tenth of the effects
    python benchmarks/memory.py --check           and exit with 1 when a required figure is missed

In flight: 200 effects are made first, so that connections and caches exist. Then the server lets every task run for
ever, and once all are submitted, the growth of resident memory is divided by their number. The loop by hand is one
coroutine an effect that sleeps 30 s between polls; this library polls by its defaults, 50 times a second.

Finished: effects are made one after another in one session, 100 in flight, none kept; resident memory is read after a
tenth of them and at the end.

Blocked: a coroutine that sleeps 5 ms at a time notes how late it wakes, while the tasks are submitted and polled. The
figure in CPU time leaves out what other processes took from this one.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
import time
from collections.abc import Awaitable, Callable

from benchmarks.harness import Child, FastServer, Spread, alternated, messages, reply, resident, sockets, table

KEY = "bench-key"
SUBMIT = "/v1/audio/sfx-generation"
WARM = 200
BYTES = 4096.0
"""Bytes an effect in flight, at most."""

GROWTH = 1.05
BLOCKED = 0.050
SOCKETS = 64
LABELS = {"finevoice": "finevoice_async", "aiohttp": "aiohttp by hand"}


class Beat:
    """Notes how long the event loop lets a coroutine wait that is ready to run."""

    PAUSE = 0.005

    def __init__(self) -> None:
        self.wall = 0.0
        self.cpu = 0.0

    async def run(self) -> None:
        """Note until cancelled."""
        while True:
            wall, cpu = time.perf_counter(), time.thread_time()
            await asyncio.sleep(self.PAUSE)
            self.wall = max(self.wall, time.perf_counter() - wall - self.PAUSE)
            self.cpu = max(self.cpu, time.thread_time() - cpu)


def _prompts(count: int) -> list[str]:
    return [f"effect {number}" for number in range(count)]


async def _observe(before: int, effects: int, submitted: Callable[[], int]) -> dict[str, float]:
    """Wait until all are in flight, watch for two seconds more, and read what they take."""
    beat = Beat()
    beating = asyncio.create_task(beat.run())
    while submitted() < effects:  # noqa: ASYNC110 - the clients are told nothing of this
        await asyncio.sleep(0.05)
    await asyncio.sleep(2)
    beating.cancel()
    tasks = len(asyncio.all_tasks())
    gc.collect()
    return {
        "bytes": (resident() - before) / effects,
        "tasks": tasks,
        "sockets": sockets(),
        "wall": beat.wall,
        "cpu": beat.cpu,
    }


async def finevoice_in_flight(url: str, effects: int) -> dict[str, float]:
    """Measure this library with so many effects in flight."""
    from finevoice_async import FineVoiceSession

    async with FineVoiceSession(KEY, base_url=url, max_concurrency=effects) as session:

        async def take(prompts: list[str]) -> None:
            async for outcome in session.generate_many(prompts):
                if outcome.error is not None:
                    raise outcome.error

        await take(_prompts(WARM))
        prompts = _prompts(effects)
        gc.collect()
        before = resident()
        taking = asyncio.create_task(take(prompts))
        result = await _observe(before, effects, lambda: session.stats.running)
        taking.cancel()
        await asyncio.wait([taking])
    return result


async def aiohttp_in_flight(url: str, effects: int) -> dict[str, float]:
    """Measure a loop by hand: a coroutine an effect, on one aiohttp session."""
    import aiohttp

    submitted = 0
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session:

        async def effect(prompt: str, pause: float) -> str:
            nonlocal submitted
            async with session.post(url + SUBMIT, json={"prompt": prompt, "useAsync": True}) as response:
                task = json.loads(await response.read())
            submitted += 1
            while True:
                await asyncio.sleep(pause)
                async with session.get(f"{url}/v1/task/{task['task_id']}") as response:
                    state = json.loads(await response.read())
                if state["status"] == "completed":
                    return str(state["url"])

        await asyncio.gather(*(effect(prompt, 0.5) for prompt in _prompts(WARM)))
        prompts = _prompts(effects)
        submitted = 0
        gc.collect()
        before = resident()
        running = [asyncio.create_task(effect(prompt, 30.0)) for prompt in prompts]
        result = await _observe(before, effects, lambda: submitted)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    return result


async def finished(url: str, effects: int) -> dict[str, float]:
    """Measure this library after a tenth of the effects, and after all."""
    from finevoice_async import FineVoiceSession, Polling

    sizes: list[int] = []
    polling = Polling(min_gap=0.01, max_gap=0.01, budget=1e6)
    async with FineVoiceSession(KEY, base_url=url, max_concurrency=100, polling=polling) as session:
        made = 0
        async for outcome in session.generate_many(f"effect {number}" for number in range(effects)):
            if outcome.error is not None:
                raise outcome.error
            made += 1
            if made in (effects // 10, effects):
                gc.collect()
                sizes.append(resident())
    return {"early": sizes[0], "late": sizes[1]}


WORK: dict[str, Callable[[str, int], Awaitable[dict[str, float]]]] = {
    "finevoice": finevoice_in_flight,
    "aiohttp": aiohttp_in_flight,
    "finished": finished,
}


async def _do(name: str, url: str, effects: int) -> dict[str, float]:
    return await WORK[name](url, effects)


def work(name: str) -> None:
    """Be one client's process."""
    for message in messages():
        reply(**asyncio.run(_do(name, message["url"], message["effects"])))


def measure(server: FastServer, name: str, effects: int, **law: float) -> dict[str, float]:
    """Let a fresh process measure."""
    server.reset(**law)
    with Child(__file__, "--worker", name) as child:
        return child.ask(url=server.url, effects=effects)


def main() -> int:
    """Measure, print, check."""
    parser = argparse.ArgumentParser(description="What an effect costs in memory.")
    parser.add_argument("--quick", action="store_true", help="a tenth of the effects")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a required figure is missed")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker)
        return 0
    effects, turns = (1_000, 2) if options.quick else (10_000, 3)
    results: dict[str, list[dict[str, float]]] = {name: [] for name in LABELS}
    with FastServer() as server:
        for turn in range(turns):
            for name in alternated(list(LABELS), turn):
                results[name].append(measure(server, name, effects, seconds=1e6, instant_first=WARM))
        sizes = measure(server, "finished", 10 * effects)
    rows = []
    for name, label in LABELS.items():
        spreads = {key: Spread.of([run[key] for run in results[name]]) for key in results[name][0]}
        blocked = f"{1000 * spreads['wall'].median:.0f} ({1000 * spreads['cpu'].median:.0f} of CPU)"
        counts = [f"{spreads[key].median:.0f}" for key in ("tasks", "sockets")]
        rows.append([label, spreads["bytes"].show(0), *counts, blocked])
    head = ["client", "bytes an effect", "asyncio tasks", "sockets", "loop blocked at most, ms"]
    print(f"### {effects:,} effects in flight\n\n{table(head, rows)}\n")
    growth = sizes["late"] / sizes["early"]
    early, late = sizes["early"] / 2**20, sizes["late"] / 2**20
    print(
        f"Resident after {effects:,} finished effects: {early:.1f} MiB; after {10 * effects:,}: {late:.1f} MiB", end=""
    )
    print(f" ({growth - 1:+.1%}).")
    if not options.check:
        return 0
    ours = {key: Spread.of([run[key] for run in results["finevoice"]]).median for key in results["finevoice"][0]}
    limits = [
        ("bytes an effect in flight", ours["bytes"], BYTES),
        ("growth between finished effects", growth, GROWTH),
        ("sockets", ours["sockets"], SOCKETS),
        ("seconds of a blocked loop", ours["cpu"], BLOCKED),
    ]
    problems = [f"{what}: {value:.4g}, at most {limit:g}" for what, value, limit in limits if value > limit]
    for problem in problems:
        print(f"missed: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
