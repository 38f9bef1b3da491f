"""Whole effects, from the request to the saved file: this library with its journal, beside what people write.

    PYTHONPATH=. python benchmarks/pipeline.py [--quick] [--check] [--plot FILE]

What people write: a coroutine for each effect under a semaphore, which submits, sleeps 2.5 s (the vendor's advice)
between polls, downloads and saves. The emulator, in a process of its own, makes 300 effects with lognormal service
times (median 8 s, sigma 0.35), the same ones for both; its downloads take 0, 0.3 or 1 s. The bound is what somebody
could do who knew all the times: each effect begun, in order, the moment a slot is free, and the last one's download.

The world runs 5 times faster: the service's times are divided by 5, the clients run on an event loop whose time passes
5 times as fast, and the makespans are multiplied back. So what a process does on its own account weighs 5 times as much
here, against this library as well. Both clients run at once, each with a service of its own: they mostly wait.

Two more tables: how late the very first effect of a program is noticed, and 1,000 effects that were in flight when
their process was killed (SIGKILL), recovered by the next one.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.harness import environment, run_hastily, table
from finevoice_async import FineVoiceSession
from finevoice_async.emulator import Constant, Emulator, Fault, FaultName, LogNormal
from finevoice_async.emulator.laws import greedy_bound

FASTER = 5.0
ADVICE = 2.5  # seconds between polls, by the vendor's own example
LAW = LogNormal(median=8.0 / FASTER, sigma=0.35, scaled=False)
SLOTS = (5, 10, 50)
DOWNLOADS = (0.0, 0.3, 1.0)
ALLOWED = 1.10  # makespan over the bound, at 5 and 10 slots
KILLED = 1000


def serve(pipe: Connection, seconds: float | None, download: float) -> None:
    """Run the emulator until the pipe says stop; answer each other message with each task's times."""

    async def main() -> None:
        faults: dict[FaultName | Fault, float] = {Fault("download.slow", download): 1.0} if download else {}
        law = LAW if seconds is None else Constant(seconds)
        async with Emulator(
            service_time=law, seed=5, faults=faults, quick_sounds=True, dialect="quickstart"
        ) as emulator:
            pipe.send((emulator.url, emulator.api_key))
            while await asyncio.to_thread(pipe.recv) != "stop":
                tasks = list(emulator.ledger.accepted.values())
                pipe.send([(task.service_time, (task.noticed_at or 0.0) - task.ends_at) for task in tasks])

    asyncio.run(main())


@contextmanager
def emulator(seconds: float | None = None, download: float = 0.0) -> Iterator[tuple[str, str, Connection]]:
    """Run the service in a process of its own."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=serve, args=(theirs, seconds, download), daemon=True)
    server.start()
    url, key = ours.recv()
    try:
        yield url, key, ours
    finally:
        ours.send("stop")
        server.join()


def told(pipe: Connection) -> list[tuple[float, float]]:
    """Return each task's service time, and how long after its end it was noticed, in the order of submission."""
    pipe.send("report")
    tasks: list[tuple[float, float]] = pipe.recv()
    return tasks


async def library(url: str, key: str, folder: Path, effects: int, slots: int) -> None:
    """Make and save the effects with this library."""
    async with FineVoiceSession(key, base_url=url, journal=folder / "effects.db", max_concurrency=slots) as session:
        async for outcome in session.generate_many((f"sound {i}" for i in range(effects)), save_to=folder):
            outcome.unwrap()


async def by_hand(url: str, key: str, folder: Path, effects: int, slots: int) -> None:
    """Make and save the effects as people write it."""
    free, wish = asyncio.Semaphore(slots), {"useAsync": True}

    async def one(http: aiohttp.ClientSession, number: int) -> None:
        async with free:
            async with http.post("/v1/audio/sfx-generation", json=wish | {"prompt": f"sound {number}"}) as response:
                answer = await response.json()
            task_id = answer.get("task_id") or answer.get("taskId")
            while not answer.get("url"):
                await asyncio.sleep(ADVICE)
                async with http.get(f"/v1/task/{task_id}") as response:
                    answer = await response.json()
            async with http.get(answer["url"], headers={"Authorization": ""}) as response:
                (folder / f"{number}.wav").write_bytes(await response.read())

    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(url, headers=headers) as http:
        await asyncio.gather(*(one(http, number) for number in range(effects)))


CLIENTS = {"this library": library, "by hand": by_hand}


def measured(client: str, effects: int, slots: int, download: float) -> tuple[float, float, float, float]:
    """Return seconds of the makespan, the bound, CPU an effect in milliseconds, and the first effect's lag.

    In a process of its own, so that its processor time is its own.
    """
    with emulator(download=download / FASTER) as (url, key, pipe), tempfile.TemporaryDirectory() as folder:
        job = {"client": client, "url": url, "key": key, "folder": folder, "effects": effects, "slots": slots}
        done = subprocess.run(
            [sys.executable, __file__, "--worker", json.dumps(job)], env=environment(), check=True, capture_output=True
        )
        took, cpu = json.loads(done.stdout)
        tasks = told(pipe)
    assert len(tasks) == effects, f"{len(tasks)} submissions of {effects} effects"
    bound = greedy_bound([seconds for seconds, _ in tasks], slots) * FASTER + download
    return took * FASTER, bound, 1000 * cpu / effects, tasks[0][1] * FASTER


def work(job: dict[str, Any]) -> None:
    """Be the worker of one measurement."""
    run = CLIENTS[job["client"]]
    folder = Path(job["folder"])
    began, used = time.perf_counter(), time.process_time()
    run_hastily(run(job["url"], job["key"], folder, job["effects"], job["slots"]), FASTER)
    took, cpu = time.perf_counter() - began, time.process_time() - used
    saved = sum(path.suffix != ".db" for path in folder.iterdir() if path.is_file() and ".db" not in path.name)
    assert saved == job["effects"], f"{saved} files of {job['effects']}"
    print(json.dumps([took, cpu]))


async def submit_all(url: str, key: str, folder: Path) -> None:
    """Have 1,000 effects in flight, say so, and wait for the end."""
    async with FineVoiceSession(key, base_url=url, journal=folder / "effects.db", max_concurrency=KILLED) as session:
        await asyncio.gather(*(session.submit(f"sound {i}", key=f"effect {i}") for i in range(KILLED)))
        print("all in flight", flush=True)
        await asyncio.Event().wait()


async def recover_all(url: str, key: str, folder: Path) -> tuple[float, int]:
    """Return the seconds until all is saved, and how many files there are."""
    began = time.perf_counter()
    async with FineVoiceSession(key, base_url=url, journal=folder / "effects.db", max_concurrency=KILLED) as session:
        async for outcome in session.recover(save_to=folder):
            outcome.unwrap()
    took = time.perf_counter() - began
    return took, sum(".db" not in path.name for path in folder.iterdir())


def killed() -> str:
    """Kill a process with 1,000 effects in flight, recover them in the next, and say how that went."""
    with emulator(seconds=1.0) as (url, key, pipe), tempfile.TemporaryDirectory() as folder:
        job = {"client": "submit", "url": url, "key": key, "folder": folder}
        child = subprocess.Popen(
            [sys.executable, __file__, "--worker", json.dumps(job)], env=environment(), stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        assert child.stdout.readline().strip() == b"all in flight"
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        took, saved = asyncio.run(recover_all(url, key, Path(folder)))
        submissions = len(told(pipe))
    assert (saved, submissions) == (KILLED, KILLED), f"{saved} files, {submissions} submissions of {KILLED} effects"
    return f"{KILLED} effects in flight at a SIGKILL: all saved {took:.1f} s after the next start, none paid for twice."


def plot(ratios: dict[tuple[int, float], dict[str, float]], path: str) -> None:
    """Draw makespan over bound, a pair of bars for each cell."""
    pyplot = importlib.import_module("matplotlib.pyplot")
    figure, axes = pyplot.subplots(figsize=(7.5, 4), layout="constrained")
    places = range(len(ratios))
    for shift, client in enumerate(CLIENTS):
        heights = [cell[client] for cell in ratios.values()]
        bars = axes.bar([place + 0.4 * shift for place in places], heights, 0.38, label=client)
        axes.bar_label(bars, fmt="%.2f", fontsize=8)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_xticks([place + 0.2 for place in places], [f"{slots} slots\n{wait:g} s" for slots, wait in ratios])
    axes.set_ylabel("makespan over the bound")
    axes.set_title("300 effects, from request to saved file, by slots and seconds of a download")
    figure.legend(frameon=False, ncols=2, loc="outside lower center")
    figure.savefig(path, dpi=120)


def main() -> int:
    """Measure, print, and check if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer effects, one turn")
    parser.add_argument("--turns", type=int, default=3, help="how often each cell is measured; the median counts")
    parser.add_argument("--check", action="store_true", help="fail if a makespan is more than 10 %% above the bound")
    parser.add_argument("--plot", metavar="FILE", help="draw a picture")
    parser.add_argument("--worker", metavar="JOB", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        job = json.loads(options.worker)
        if job["client"] == "submit":
            asyncio.run(submit_all(job["url"], job["key"], Path(job["folder"])))
        else:
            work(job)
        return 0

    effects, turns = (100, 1) if options.quick else (300, options.turns)
    rows, first, ratios = [], {name: list[float]() for name in CLIENTS}, {}
    for slots, download in itertools.product(SLOTS, DOWNLOADS):
        runs: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in CLIENTS}
        for _ in range(turns):
            with ThreadPoolExecutor() as pool:
                jobs = {name: pool.submit(measured, name, effects, slots, download) for name in CLIENTS}
            for name, job in jobs.items():
                runs[name].append(job.result())
        ours, theirs = ([statistics.median(figures) for figures in zip(*each, strict=True)] for each in runs.values())
        for name, each in runs.items():
            first[name] += [lag for *_, lag in each]
        ratios[slots, download] = {"this library": ours[0] / ours[1], "by hand": theirs[0] / theirs[1]}
        rows.append(
            [f"{slots}", f"{download:g} s", f"{ours[1]:.0f} s"]
            + [f"{each[0]:.0f} s ({each[0] / each[1]:.2f})" for each in (ours, theirs)]
            + [f"{ours[2] / theirs[2]:.2f}"]
        )
        print("; ".join(rows[-1]), file=sys.stderr, flush=True)
    head = ["slots", "a download", "bound", "this library (over bound)", "by hand (over bound)", "CPU, ratio"]
    print(table(head, rows))
    lags = ", ".join(f"{name} {statistics.median(lag):.2f} s" for name, lag in first.items())
    print(f"\nThe first effect is noticed after its end by (median): {lags}.")
    print(killed())
    if options.plot:
        plot(ratios, options.plot)
    late = {cell: each["this library"] for cell, each in ratios.items() if cell[0] <= 10}
    if options.check and max(late.values()) > ALLOWED:
        print(f"more than {ALLOWED} times the bound: {late}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
