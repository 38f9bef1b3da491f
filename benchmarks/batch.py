"""A batch of 2,000 sounds: how close it comes to the shortest time there is, and what five interruptions cost.

    PYTHONPATH=. [FASTER=4] python -m benchmarks.batch [--rows 2000] [--undisturbed] [--check]

The emulator, in a process of its own, allows 10 tasks at once and makes effects with lognormal service times (median
8 s, sigma 0.35). The whole world runs 4 times faster: service times are divided by 4, and the batch runs on an event
loop whose time passes 4 times as fast, so what a process does on its own account weighs 4 times as much. Two runs, each
from a manifest to files on disk, with journal and lock:

- undisturbed: its makespan over the bound, which is that of a scheduler who knows all service times and notices every
  end at once;
- with faults on (lost replies, 502, cut downloads), killed by SIGKILL three times and stopped by Ctrl-C twice: all that
  is missing at the end is perhaps paid, no key was accepted twice, the budget holds, and files and lock agree.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from benchmarks.harness import run_hastily
from finevoice_async import Budget, EffectState, FineVoiceSession
from finevoice_async.adapters.journal_reader import read_journal
from finevoice_async.batch import read_manifest, run_batch
from finevoice_async.batch.survey import JOURNAL_NAME
from finevoice_async.cli.signals import heard
from finevoice_async.cli.stopping import Stopping
from finevoice_async.emulator import Emulator, LogNormal

PLACES = 10
FASTER = float(os.environ.get("FASTER", "4"))  # by the environment, since the processes must agree
MEDIAN, SIGMA = 8.0, 0.35
FAULTS: dict[Any, float] = {"submit.lose_reply": 0.005, "submit.bad_gateway": 0.005, "download.cut": 0.05}
ALLOWED = 1.1
SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGKILL, signal.SIGINT, signal.SIGKILL)


def serve(pipe: Connection, *, faulty: bool) -> None:
    """Run the emulator; answer each message with the prompts accepted so far and the bound for them."""

    async def main() -> None:
        law = LogNormal(median=MEDIAN / FASTER, sigma=SIGMA, scaled=False)
        faults = FAULTS if faulty else {}
        async with Emulator(service_time=law, plan_limit=PLACES, faults=faults, quick_sounds=True, seed=5) as emulator:
            pipe.send((emulator.url, emulator.api_key))
            while await asyncio.to_thread(pipe.recv) != "stop":
                prompts = [str(task.request.prompt) for task in emulator.ledger.accepted.values()]
                pipe.send((prompts, emulator.bound(PLACES)))

    asyncio.run(main())


def work(url: str, key: str, folder: str, budget: int, began: Connection | None = None) -> None:
    """Run the batch until it is done, or until Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what is started in the background has it ignored

    async def main() -> None:
        out = Path(folder, "out")
        out.mkdir(exist_ok=True)
        stopping = Stopping(lambda: None)
        manifest = read_manifest(Path(folder, "m.jsonl"), out=out)
        session = FineVoiceSession(
            key,
            base_url=url,
            max_concurrency=PLACES,
            journal=out / JOURNAL_NAME,
            budget=Budget(effects=budget),
        )
        with heard(stopping.on):
            async with session:
                if began is not None:
                    began.send("began")
                report = await stopping.run(run_batch(session, manifest, out, stop=stopping.asked))
        assert not report.failed, report.failed[0].error

    run_hastily(main(), FASTER)


class Service:
    """The emulator's process."""

    def __init__(self, *, faulty: bool) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs,), kwargs={"faulty": faulty}, daemon=True)
        self._process.start()
        self.url, self.key = self._pipe.recv()

    def report(self) -> tuple[list[str], float]:
        """Return the prompts that were accepted, and the bound for them in seconds."""
        self._pipe.send("report")
        told: tuple[list[str], float] = self._pipe.recv()
        return told

    def stop(self) -> None:
        """End it."""
        self._pipe.send("stop")
        self._process.join()


def prepare(folder: Path, rows: int) -> None:
    """Write the manifest."""
    lines = (json.dumps({"key": f"s{i:05}", "prompt": f"sound {i}", "duration": 0.1}) for i in range(rows))
    (folder / "m.jsonl").write_text("\n".join(lines))


def start(service: Service, folder: Path, budget: int) -> tuple[BaseProcess, Connection]:
    """Start a run in a process of its own, and return once its session is open."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(service.url, service.key, str(folder), budget, theirs))
    process.start()
    ours.recv()
    return process, ours


def undisturbed(rows: int) -> tuple[float, float]:
    """Run without faults; return the makespan and the bound in seconds of the slower world."""
    service = Service(faulty=False)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, rows)
        process, _pipe = start(service, folder, rows)
        began = time.perf_counter()
        process.join()
        took = time.perf_counter() - began
        prompts, bound = service.report()
        assert process.exitcode == 0
        assert len(prompts) == rows
        check_files(folder)
    service.stop()
    return took * FASTER, bound * FASTER


def disturbed(rows: int) -> tuple[int, int]:
    """Run with faults, and interrupt it; return how many are there and how many perhaps paid."""
    service, rng = Service(faulty=True), random.Random(9)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, rows)
        for number in SIGNALS:
            process, _pipe = start(service, folder, rows)
            wanted = len(service.report()[0]) + rng.randint(rows // 10, rows // 8)
            while len(service.report()[0]) < wanted and process.is_alive():
                time.sleep(0.05)
            assert process.pid is not None
            assert process.is_alive(), "it was done before it was interrupted often enough"
            os.kill(process.pid, number)
            process.join()
            print(f"{number.name}: {len(service.report()[0])} accepted", flush=True)
        process, _pipe = start(service, folder, rows)
        process.join()
        assert process.exitcode == 0
        prompts, _ = service.report()
        accepted = Counter(prompts)
        assert max(accepted.values()) == 1, "a key was accepted twice"
        assert len(prompts) <= rows, "more was paid than the budget allows"
        made = check_files(folder)
        with read_journal(folder / "out" / JOURNAL_NAME) as journal:
            unknown = {str(row.key) for row in journal.rows(EffectState.UNKNOWN, limit=rows)}
    service.stop()
    assert made | unknown == {f"s{i:05}" for i in range(rows)}
    assert not made & unknown
    return len(made), len(unknown)


def check_files(folder: Path) -> set[str]:
    """Check that files and lock agree, and return the keys that are there."""
    lines = [json.loads(line) for line in (folder / "m.jsonl.lock").read_text().splitlines()]
    for line in lines:
        assert hashlib.sha256((folder / "out" / line["file"]).read_bytes()).hexdigest() == line["sha256"]
    there = {path.name for path in (folder / "out").iterdir() if not path.name.startswith(".")}
    assert there == {line["file"] for line in lines}
    return {line["key"] for line in lines}


def main() -> int:
    """Measure, print, and check if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000, help="sounds")
    parser.add_argument("--undisturbed", action="store_true", help="that run alone")
    parser.add_argument("--check", action="store_true", help="fail if the makespan is above 1.1 of the bound")
    options = parser.parse_args()
    took, bound = undisturbed(options.rows)
    print(f"{options.rows} sounds, {PLACES} at once: {took:.0f} s; the bound is {bound:.0f} s: {took / bound:.3f}")
    if not options.undisturbed:
        made, unknown = disturbed(options.rows)
        print(f"with faults, interrupted {len(SIGNALS)} times: {made} there, {unknown} perhaps paid, none paid twice")
    if options.check and took / bound > ALLOWED:
        print(f"more than {ALLOWED}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
