"""A fleet under stress: worker processes that share a plan, and are killed, paused, and lose their database.

    PYTHONPATH=.:tests python benchmarks/fleet.py [--quick] [--check] [--only NAME]

Six workers, a plan of five, 400 effects with keys, each key wanted twice. A worker that is killed is replaced at once,
and what it had not made is given to another. Two runs: in `kills` a random worker dies by SIGKILL every second; in
`chaos` one is killed or stands still (SIGSTOP) beyond its lease every second, and the database crashes every nine.

- twice: keys that the service accepted more than once;
- lost: keys that were neither made nor are known as unknown;
- peak: the most tasks that ran at once;
- unknown: rows in doubt at the end; at most one for each kill and each place;
- makespan: beside the time that all tasks, and all that was held for what is unknown, take at five places.

`cost` is commits for each of many effects, and the store's time for each of some one after another. `news` is how long
after one session another hears of an end. `dead` is when a killed worker's slots are free, after its tasks have ended.

The database is Debian's PostgreSQL in a temporary folder, as in the tests; FINEVOICE_TEST_POSTGRES names another, which
is never crashed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import signal
import statistics
import time
from collections import Counter, deque
from collections.abc import AsyncIterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import attrs
from databases import Databases, Server, folder_of_programs

from benchmarks.fleet_worker import Place, run
from finevoice_async import EffectState, FineVoiceSession, Fleet, Polling, SfxItem, SfxRequest
from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.adapters.postgres import schema
from finevoice_async.adapters.postgres.journal import PostgresJournal
from finevoice_async.core.ledger import Move
from finevoice_async.emulator import Constant, Emulator, EmulatorThread, LogNormal

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

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process.pid is not None
        os.kill(self.process.pid, number)


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


@attrs.define
class Found:
    """A figure, and what it must not exceed."""

    name: str
    value: float
    most: float

    @property
    def is_good(self) -> bool:
        """Whether it is within the demand."""
        return self.value <= self.most

    def show(self) -> None:
        """Print it."""
        print(f"  {self.name:<34} {self.value:10.2f}   at most {self.most:.2f}{'' if self.is_good else '   MISSED'}")


async def stress(url: str, server: Server | None, effects: int, *, chaos: bool, seed: int) -> list[Found]:
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
        began, kills, pauses, crashes = time.monotonic(), 0, 0, 0
        crash_at = began + 9.0
        while not crew.finished.is_set() and time.monotonic() - began < PATIENCE:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(crew.finished.wait(), 1.0)
            now = time.monotonic()
            for worker in crew.workers:
                if worker.paused_until and worker.paused_until < now:
                    worker.signal(signal.SIGCONT)
                    worker.paused_until = 0.0
            if crew.finished.is_set():
                break
            running = [worker for worker in crew.workers if not worker.paused_until]
            victim = rng.choice(running)
            if chaos and rng.random() < 0.5 and len(running) > 2:
                victim.signal(signal.SIGSTOP)
                victim.paused_until = now + rng.uniform(0.5, 2.0) * FLEET.lease
                pauses += 1
            else:
                crew.kill(victim)
                crew.hire()
                kills += 1
            if chaos and server is not None and now >= crash_at:
                await asyncio.to_thread(server.crash)
                await asyncio.sleep(rng.uniform(0.1, 1.0))
                await asyncio.to_thread(server.start)
                crash_at, crashes = now + 9.0, crashes + 1
        makespan = time.monotonic() - began
        crew.dismiss()
        accepted = list(service.ledger.accepted.values())
        peak = service.ledger.most_running
        async with session_of(url, service) as session:
            await asyncio.sleep(FLEET.lease + 1)
            states = Counter([row.state async for row in session.rows()])
            made = {row.key async for row in session.rows(EffectState.DONE, EffectState.SAVED)}
            unknown = {row.key async for row in session.rows(EffectState.UNKNOWN)}
    times = Counter(str(task.request.prompt) for task in accepted)
    worked = sum(task.service_time for task in accepted)
    ideal = (worked + len(unknown) * FLEET.hold) / PLAN
    name = "chaos" if chaos else "kills"
    print(f"{name}: {kills} kills, {pauses} pauses, {crashes} crashes, {makespan:.1f} s, ideal {ideal:.1f} s")
    print(f"  ends heard: {dict(crew.ends)}, rows: { {state.value: count for state, count in states.items()} }")
    for words in crew.failures[:5]:
        print(f"  {words}")
    return [
        Found("not heard", crew.left, 0),
        Found("errors that were heard", len(crew.failures), 0),
        Found("twice", sum(count > 1 for count in times.values()), 0),
        Found("lost", len(set(keys) - made - unknown), 0),
        Found("peak", peak, PLAN),
        Found("unknown", len(unknown), kills),
        Found("makespan, of the ideal", makespan / ideal, 2.0 if chaos else 1.5),
    ]


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


def journal_of(session: FineVoiceSession) -> PostgresJournal:
    """Return a session's journal."""
    journal = session._parts._journal
    assert isinstance(journal, PostgresJournal)
    return journal


async def cost(url: str, effects: int) -> list[Found]:
    """Make effects at full slots and count commits; then take the store's time, with nothing else in the process."""
    with EmulatorThread(Emulator(service_time=Constant(0.05), quick_sounds=True)) as service:
        async with session_of(url, service) as session:
            await session.generate("first")
            journal = journal_of(session)
            commits = journal.commits
            wishes: list[SfxItem] = [{"prompt": f"{number}", "key": f"{number}"} for number in range(effects)]
            made = [outcome async for outcome in session.generate_many(wishes)]
            assert len(made) == effects
            await session.fleet()
            commits = journal.commits - commits
    alone = PostgresJournal(url, "key of its own", PLAN, LoopClock(), FLEET)
    await alone.open()
    for number in range(effects):
        row = (await alone.begin(SfxRequest("rain"), key=f"{number}", state=EffectState.SENDING)).row
        await alone.move(row.id, Move.ACCEPT, task_id=f"{number}")
        await alone.move(row.id, Move.FINISH, task_id=f"{number}", urls=("https://cdn.example/1.mp3",))
    seconds = alone.seconds
    await alone.aclose()
    return [
        Found("commits an effect", commits / effects, 3.0),
        Found("ms of the store an effect", 1000 * seconds / effects, 3.0),
    ]


async def news(url: str, effects: int) -> list[Found]:
    """Let one session follow what another makes."""
    lags = []
    with EmulatorThread(Emulator(service_time=Constant(0.2), quick_sounds=True)) as service:
        async with session_of(url, service) as one, session_of(url, service) as other:

            async def heard(session: FineVoiceSession, key: str) -> float:
                await session.generate(key, key=key)
                return time.monotonic()

            for number in range(effects):
                task = await one.submit(f"{number}", key=f"{number}")
                first, second = await asyncio.gather(heard(one, str(task.key)), heard(other, str(task.key)))
                lags.append(second - first)
    print(f"news: {statistics.median(lags) * 1000:.1f} ms in the middle")
    return [Found("a follower hears after, in seconds", max(lags), 0.3)]


async def until_taken(session: FineVoiceSession, count: int) -> None:
    """Wait until so many tasks run in the fleet."""
    for _ in range(1000):
        if (await session.fleet()).running == count:
            return
        await asyncio.sleep(0.01)
    raise SystemExit(f"{count} tasks did not come to run.")


async def dead(url: str) -> list[Found]:
    """Kill a worker with all slots; see when a survivor's effect is accepted after one of its tasks has ended."""
    with EmulatorThread(Emulator(service_time=Constant(3.0), quick_sounds=True)) as service:
        crew = Crew(url, service, [f"{number}" for number in range(PLAN)])
        crew.hire()
        async with session_of(url, service) as session:
            await until_taken(session, PLAN)
            wish = asyncio.create_task(session.submit("survivor"))
            await asyncio.sleep(0.3)
            crew.kill(crew.workers[0])
            await wish
            accepted = list(service.ledger.accepted.values())
    return [Found("a dead worker's slot is back, in s", accepted[-1].at - min(each.ends_at for each in accepted), 2.0)]


@contextlib.asynccontextmanager
async def databases() -> AsyncIterator[tuple[Databases, Server | None]]:
    """Start a server, or use the one that is named."""
    named = os.environ.get("FINEVOICE_TEST_POSTGRES")
    if named is not None:
        yield Databases(named), None
        return
    programs = folder_of_programs()
    if programs is None:
        raise SystemExit("There is no PostgreSQL server; install one, or name one in FINEVOICE_TEST_POSTGRES.")
    server = Server(programs)
    try:
        yield Databases(server.url), server
    finally:
        server.close()


async def main() -> None:
    """Measure all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a fifth of the effects")
    parser.add_argument("--check", action="store_true", help="fail if a demand is missed")
    parser.add_argument("--only", choices=["cost", "news", "dead", "kills", "chaos"])
    parser.add_argument("--seed", type=int, default=11)
    options = parser.parse_args()
    effects = 80 if options.quick else 400
    found: list[Found] = []
    async with databases() as (made, server):
        for name in ["cost", "news", "dead", "kills", "chaos"]:
            if options.only not in (None, name):
                continue
            url = made.make()
            await schema.init(url)
            if name == "cost":
                figures = await cost(url, effects)
            elif name == "news":
                figures = await news(url, effects // 20)
            elif name == "dead":
                figures = await dead(url)
            else:
                figures = await stress(url, server, effects, chaos=name == "chaos", seed=options.seed)
            print(f"{name}:")
            for each in figures:
                each.show()
            found += figures
    if options.check and not all(each.is_good for each in found):
        raise SystemExit(1)


if __name__ == "__main__":
    asyncio.run(main())
