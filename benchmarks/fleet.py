"""A fleet under stress: worker processes that share a plan, and are killed, paused, and lose their database.

    PYTHONPATH=.:tests python benchmarks/fleet.py [--quick] [--check] [--only NAME] [--turns N] [--plot FILE]

Six workers, a plan of five, 400 effects with keys, each key wanted twice. A worker that is killed is replaced at once,
and what it had not made is given to another. Two runs: in `kills` a random worker dies by SIGKILL every second; in
`chaos` one is killed or stands still (SIGSTOP) beyond its lease every second, and the database crashes every nine.

- twice: keys that the service accepted more than once;
- lost: keys that were neither made nor are known as unknown;
- peak: the most tasks that ran at once;
- unknown: rows in doubt at the end; at most one for each kill and each place;
- makespan: beside the ideal. That is the time that five places take for all tasks, and for what the rules themselves
  keep taken: places of rows in doubt (for `hold`), of rows that a dead worker was sending and of those of a worker that
  stands still (both for its lease, at most), and all that is idle while the database is down. `fleet_slots` counts it,
  ten times a second. The makespan beside the tasks alone is told, too.

`cost` is commits for each of many effects, and the store's time for each of some one after another: what the session's
process of the server works for its three calls, as what waits for a processor waits for no store. How long a session
waits for the answers is told, too, and is the figure where the server is not ours. `news` is how long after one session
another hears of an end. `dead` is when a killed worker's slots are free, after its tasks have ended.

The database is Debian's PostgreSQL in a temporary folder, as in the tests; FINEVOICE_TEST_POSTGRES names another, which
is never crashed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import time
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
from databases import Databases, Server, folder_of_programs

from benchmarks.fleet_slots import draw
from benchmarks.fleet_stress import FLEET, PLAN, Crew, Run, session_of, stress
from benchmarks.harness import table
from finevoice_async import EffectState, FineVoiceSession, SfxItem, SfxRequest
from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.adapters.postgres import schema
from finevoice_async.adapters.postgres.journal import PostgresJournal
from finevoice_async.core.ledger import Move
from finevoice_async.emulator import Constant, Emulator, EmulatorThread


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


def demands(run: Run) -> list[Found]:
    """Return what a stress must show."""
    return [
        Found("not heard", run.not_heard, 0),
        Found("errors that were heard", run.errors, 0),
        Found("twice", run.twice, 0),
        Found("lost", run.lost, 0),
        Found("peak", run.peak, PLAN),
        Found("unknown", run.unknown, len(run.watch.kills)),
        Found("makespan, of the ideal", run.over_ideal, 1.5),
    ]


HEAD = (
    "run",
    "kills",
    "pauses",
    "crashes",
    "twice",
    "lost",
    "peak",
    "unknown",
    "makespan",
    "of the ideal",
    "of the tasks",
)


def row_of(name: str, run: Run) -> list[str]:
    """Return a stress as a row of the table."""
    watch = run.watch
    counts = (len(watch.kills), len(watch.pauses), len(watch.crashes), run.twice, run.lost, run.peak, run.unknown)
    ratios = (f"{run.makespan:.0f} s", f"{run.over_ideal:.2f}", f"{run.over_tasks:.2f}")
    return [name, *map(str, counts), *ratios]


def journal_of(session: FineVoiceSession) -> PostgresJournal:
    """Return a session's journal."""
    journal = session._parts._journal
    assert isinstance(journal, PostgresJournal)
    return journal


def work_of(server: Server | None, process: int) -> float:
    """Return for how many seconds a process of a server of ours has had a processor."""
    return 0.0 if server is None else int(Path(f"/proc/{process}/schedstat").read_text().split()[0]) / 1e9


async def cost(url: str, server: Server | None, effects: int) -> list[Found]:
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
    connection = alone._line._connection
    assert connection is not None
    worked, times = work_of(server, connection.info.backend_pid), []
    for number in range(effects):
        before = alone.seconds
        row = (await alone.begin(SfxRequest("rain"), key=f"{number}", state=EffectState.SENDING)).row
        await alone.move(row.id, Move.ACCEPT, task_id=f"{number}")
        await alone.move(row.id, Move.FINISH, task_id=f"{number}", urls=("https://cdn.example/1.mp3",))
        times.append(1000 * (alone.seconds - before))
    worked = 1000 * (work_of(server, connection.info.backend_pid) - worked) / effects
    await alone.aclose()
    print(f"cost: {statistics.median(times):.2f} ms from calls to answers in the middle, {worked:.2f} ms at the server")
    return [
        Found("commits an effect", commits / effects, 3.0),
        Found("ms of the store an effect", worked if server else statistics.median(times), 3.0),
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
    parser.add_argument("--turns", type=int, default=3, help="how often each stress is run")
    parser.add_argument("--plot", metavar="FILE", help="draw where the slots were in the last stress of each kind")
    options = parser.parse_args()
    effects = 80 if options.quick else 400
    found: list[Found] = []
    runs: list[tuple[str, Run]] = []
    async with databases() as (made, server):

        async def fresh() -> str:
            url = made.make()
            await schema.init(url)
            return url

        for name in ["cost", "news", "dead", "kills", "chaos"]:
            if options.only not in (None, name):
                continue
            if name == "cost":
                figures = await cost(await fresh(), server, effects)
            elif name == "news":
                figures = await news(await fresh(), effects // 20)
            elif name == "dead":
                figures = await dead(await fresh())
            else:
                figures = []
                for turn in range(options.turns):
                    run = await stress(await fresh(), server, effects, chaos=name == "chaos", seed=options.seed + turn)
                    runs.append((name, run))
                    figures += demands(run)
            print(f"{name}:")
            for each in figures:
                each.show()
            found += figures
    if runs:
        print(table(HEAD, [row_of(name, run) for name, run in runs]))
    if options.plot:
        draw({name: run.watch for name, run in runs}, options.plot)
    if options.check and not all(each.is_good for each in found):
        raise SystemExit(1)


if __name__ == "__main__":
    asyncio.run(main())
