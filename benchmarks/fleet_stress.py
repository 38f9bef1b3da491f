"""Worker processes that share a plan and are killed and paused, and whose database crashes: see `fleet`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections import Counter, deque
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import attrs
from databases import Server

from benchmarks.fleet_slots import Watch
from benchmarks.fleet_worker import Place, run
from finevoice_async import EffectState, FineVoiceSession, Fleet, Polling
from finevoice_async.emulator import Emulator, EmulatorThread, LogNormal

FORKS = get_context("forkserver")
FORKS.set_forkserver_preload(["benchmarks.fleet_worker"])
WORKERS, PLAN, AHEAD = 6, 5, 12
FLEET = Fleet(beat=0.5, lease=4.0, hold=4.0)  # sooner than by the defaults: effects take a second here
PATIENCE = 300.0


@attrs.define(eq=False)
class Worker:
    """A worker process, and the keys that it has and did not make yet."""

    process: BaseProcess
    pipe: Connection
    keys: Counter[str] = attrs.field(factory=Counter)
    paused_until: float = 0.0

    @property
    def pid(self) -> int:
        """Its process."""
        assert self.process.pid is not None
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)


class Crew:
    """Owns the workers, and the keys that nobody has."""

    def __init__(self, database: str, service: EmulatorThread, keys: list[str]) -> None:
        self._place = Place(database, service.url, service.api_key, PLAN, FLEET)
        self.todo = deque(keys)
        self.left = len(keys)
        self.ends: Counter[str] = Counter()
        self.failures: list[str] = []
        self.workers: list[Worker] = []
        self.finished = asyncio.Event()

    def hire(self) -> None:
        """Start one more: forked from a process that has imported all, so that it works at once."""
        ours, its = FORKS.Pipe()
        process = FORKS.Process(target=run, args=(self._place, its), daemon=True)
        process.start()
        its.close()
        worker = Worker(process, ours)
        asyncio.get_running_loop().add_reader(ours.fileno(), self._hear, worker)
        self.workers.append(worker)

    def _hear(self, worker: Worker) -> None:
        while worker.pipe.poll():
            try:
                what, key, why = worker.pipe.recv()
            except (EOFError, ConnectionError):  # it is dead
                asyncio.get_running_loop().remove_reader(worker.pipe.fileno())
                return
            if what != "ready":
                worker.keys[key] -= 1
                self.ends[what] += 1
                self.left -= 1
                if what == "failed":
                    self.failures.append(f"{key}: {why}")
                if not self.left:
                    self.finished.set()
            while self.todo and worker.keys.total() < AHEAD:
                worker.keys[self.todo[0]] += 1
                worker.pipe.send(self.todo.popleft())

    def kill(self, worker: Worker) -> None:
        """Let one die; what it had is given to others."""
        self.workers.remove(worker)
        worker.process.kill()
        worker.process.join()
        todo, self.todo = self.todo, deque()  # it is given nothing more
        self._hear(worker)  # what it had said
        asyncio.get_running_loop().remove_reader(worker.pipe.fileno())
        worker.pipe.close()
        self.todo = deque([*worker.keys.elements(), *todo])

    def dismiss(self) -> None:
        """End all of them."""
        for worker in list(self.workers):
            self.kill(worker)


@attrs.frozen(kw_only=True)
class Run:
    """What came of one stress; `makespan` and `worked`, what all tasks took, in seconds."""

    watch: Watch = attrs.field(kw_only=False)
    not_heard: int
    errors: int
    twice: int
    lost: int
    peak: int
    unknown: int
    makespan: float
    worked: float

    @property
    def over_ideal(self) -> float:
        """The makespan over that of slots which work, or are kept taken by the rules themselves, all the time."""
        return self.makespan * PLAN / (self.worked + self.watch.kept)

    @property
    def over_tasks(self) -> float:
        """The makespan over that of slots which work all the time."""
        return self.makespan * PLAN / self.worked


async def stress(url: str, server: Server | None, effects: int, *, chaos: bool, seed: int) -> Run:
    """Let the crew make all, while workers are killed; with `chaos` also paused, and the database crashed."""
    rng = random.Random(seed)
    keys = [f"effect-{number}" for number in range(effects)]
    wanted = keys * 2
    rng.shuffle(wanted)
    emulator = Emulator(service_time=LogNormal(median=0.9, scaled=False), seed=seed, quick_sounds=True)
    with EmulatorThread(emulator) as service:
        crew = Crew(url, service, wanted)
        for _ in range(WORKERS):
            crew.hire()
        watch = Watch(url, service, PLAN, FLEET.lease)
        watching = asyncio.create_task(watch.run())
        began = time.monotonic()
        crash_at = began + 9.0
        while not crew.finished.is_set() and time.monotonic() - began < PATIENCE:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(crew.finished.wait(), 1.0)
            now = time.monotonic()
            for worker in crew.workers:
                if worker.paused_until and worker.paused_until < now:
                    worker.signal(signal.SIGCONT)
                    worker.paused_until = 0.0
                    watch.goes_on(worker.pid)
            if crew.finished.is_set():
                break
            running = [worker for worker in crew.workers if not worker.paused_until]
            victim = rng.choice(running)
            if chaos and rng.random() < 0.5 and len(running) > 2:
                victim.signal(signal.SIGSTOP)
                watch.stands_still(victim.pid)
                victim.paused_until = now + rng.uniform(0.5, 2.0) * FLEET.lease
            else:
                watch.died(victim.pid)
                crew.kill(victim)
                crew.hire()
            if chaos and server is not None and now >= crash_at:
                watch.crashed()
                await asyncio.to_thread(server.crash)
                await asyncio.sleep(rng.uniform(0.1, 1.0))
                await asyncio.to_thread(server.start)
                crash_at = now + 9.0
        makespan = time.monotonic() - began
        watching.cancel()
        await asyncio.wait([watching])
        crew.dismiss()
        accepted = list(service.ledger.accepted.values())
        peak = service.ledger.most_running
        async with session_of(url, service) as session:
            await asyncio.sleep(FLEET.lease + 1)
            states = Counter([row.state async for row in session.rows()])
            made = {row.key async for row in session.rows(EffectState.DONE, EffectState.SAVED)}
            unknown = {row.key async for row in session.rows(EffectState.UNKNOWN)}
    times = Counter(str(task.request.prompt) for task in accepted)
    watch.show()
    print(f"  ends heard: {dict(crew.ends)}, rows: { {state.value: count for state, count in states.items()} }")
    for words in crew.failures[:5]:
        print(f"  {words}")
    return Run(
        watch,
        not_heard=crew.left,
        errors=len(crew.failures),
        twice=sum(count > 1 for count in times.values()),
        lost=len(set(keys) - made - unknown),
        peak=peak,
        unknown=len(unknown),
        makespan=makespan,
        worked=sum(task.service_time for task in accepted),
    )


def session_of(url: str, service: EmulatorThread, *, plan: int = PLAN, every: float = 0.02) -> FineVoiceSession:
    """Return a session in the fleet."""
    return FineVoiceSession(
        service.api_key,
        base_url=service.url,
        journal=url,
        fleet=FLEET,
        max_concurrency=plan,
        polling=Polling.fixed(every, min_gap=every),
    )
