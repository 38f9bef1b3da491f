"""Lives of sessions on one journal, drawn from a seed: each is opened, used, and then closed or crashes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
import sys
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import attrs
import pytest
from lives.history import History
from lives.loop import LifeClock, LifeLoop, StuckError
from lives.operations import Operations
from lives.oracle import Oracle, copy_journal
from lives.queue_operations import CLOSED, Job, Kinds
from lives.service import Service
from lives.transport import FakeTransport, Network
from lives.wishes import Op

import finevoice_async.wiring
from finevoice_async import Budget, FineVoiceError, FineVoiceSession, Polling, Retry, Timeouts

SHM: Final = Path("/dev/shm")
AFTER_CLOSE: Final = 30.0
"""Virtual seconds within which every operation ends once the session is closed."""

BOUND: Final = 6 * 3600.0
"""Virtual seconds within which every operation ends anyhow: tasks that never end keep slots for an hour each."""

log = logging.getLogger("finevoice_async")


@attrs.frozen
class Options:
    """What a life's session is made with."""

    limit: int
    polling: Polling
    retry: Retry
    timeouts: Timeouts
    disk_seconds: float
    budget: Budget | None = None

    @classmethod
    def draw(cls, luck: random.Random) -> Options:
        """Draw them."""
        grace, failures = luck.choice([0.0, 2.0, 8.0]), luck.choice([2, 8])
        learned = luck.random() < 0.15
        polling = (
            Polling(grace=grace, failures=failures) if learned else Polling.fixed(1.5, grace=grace, failures=failures)
        )
        return cls(
            luck.choice([1, 2, 3]),
            polling,
            Retry(attempts=luck.choice([1, 3]), max_retry_after=20, resend_unknown=luck.random() < 0.06),
            Timeouts(connect=1, read=luck.choice([1, 4]), task=luck.choice([5, 60, 900]), close=luck.choice([0.5, 2])),
            luck.choice([0.0005, 0.002, 0.002, 0.05]),
        )

    @classmethod
    def fair(cls) -> Options:
        """Return those of the last life."""
        return cls(2, Polling.fixed(1.5), Retry(), Timeouts(), 0.002)


class Budgets:
    """Draws the budgets of the lives of a seed: most have none. In a time, it is the same time for all of them."""

    def __init__(self, luck: random.Random) -> None:
        self._luck = luck
        self._likely = luck.choice([0.0, 0.0, 0.7, 1.0])
        self._per = luck.choice([None, *[timedelta(seconds=seconds) for seconds in (10, 60, 600)]])

    def draw(self) -> Budget | None:
        """Draw the budget of a life."""
        if self._luck.random() >= self._likely:
            return None
        return Budget(effects=self._luck.choice([1, 2, 3, 6, 12]), per=self._per)


class Life:
    """One session, from its opening to its end, in a loop of its own."""

    def __init__(self, seed: int, number: int, options: Options, world: World) -> None:
        self._luck = random.Random(f"{seed} life {number}")
        self._world = world
        self._options = options
        self._history = world.history
        self._oracle = world.oracle
        self.loop = LifeLoop(world.now, random.Random(f"{seed} disk {number}"))
        self.loop.disk_seconds = options.disk_seconds
        self._history.life, self._history.now = number, self.loop.time
        self._network = Network(world.service, self._oracle, self._history, self._luck, options.polling.grace)
        self._ops: list[Op] = []
        self._over = False
        world.oracle.begin_life(world.path, limit=options.limit, resend_unknown=options.retry.resend_unknown)
        world.oracle.budget = options.budget
        world.history.note(f"a life with {options.budget}")
        world.service.plan = options.limit
        self._session = self._make_session(random.Random(f"{seed} session {number}"))
        self._draws = Operations(self._session, self._oracle, world.service, self._luck, world.numbers)

    def _make_session(self, luck: random.Random) -> FineVoiceSession:
        """Make the session, with the fakes in place of the world.

        The session makes its own transport, clock and jitter, and takes none from outside. Those three names in its
        module are the one seam: nothing else of the library is touched.
        """
        module = finevoice_async.wiring
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "AiohttpTransport", partial(FakeTransport, self._network))
            patch.setattr(module, "LoopClock", LifeClock)
            patch.setattr(module, "random", SimpleNamespace(Random=lambda: luck))
            return FineVoiceSession(
                "a-key-for-tests",
                base_url="https://service.test",
                max_concurrency=self._options.limit,
                journal=self._world.path,
                polling=self._options.polling,
                retry=self._options.retry,
                timeouts=self._options.timeouts,
                budget=self._options.budget,
            )

    # Operations

    def start(self, name: str, allowed: Kinds, job: Job, limit: float | None = None) -> Op:
        """Start an operation."""
        op = Op(next(self._world.op_numbers), name, allowed, self.loop.time())
        self._history.note(f"op {op.number}: {name}" + ("" if limit is None else f", within {limit} s"))
        self._ops.append(op)
        op.task = asyncio.ensure_future(self._run(op, job, limit))
        op.task.add_done_callback(lambda _: self._ended(op))
        return op

    def _ended(self, op: Op) -> None:
        if op.ended is None and not self._over:  # cancelled before it began
            op.ended = self.loop.time()

    async def _run(self, op: Op, job: Job, limit: float | None) -> None:
        said = ""
        try:
            async with asyncio.timeout(limit) as scope:
                said = await job(op)
        except asyncio.CancelledError:
            said = "cancelled"
            if not op.stopped and not self._over:
                self._oracle.violate("4", op, "CancelledError to one who was not cancelled")
            self._left(op)
        except FineVoiceError as error:
            said = f"{type(error).__name__}: {error} [{error.task_id}]"
            if not self._over:
                self._oracle.check_error(op, error, op.allowed)
        except TimeoutError as error:
            said, op.stopped = "time is up", True
            if not scope.expired() and not self._over:
                self._oracle.check_error(op, error, op.allowed)
            self._left(op)
        except Exception as error:  # noqa: BLE001 - whatever comes out is judged
            said = repr(error)
            if not self._over:
                self._oracle.check_error(op, error, op.allowed)
        if not self._over:
            op.ended = self.loop.time()
            self._history.note(f"op {op.number}: -> {said}")

    def _left(self, op: Op) -> None:
        if not self._over:
            self._oracle.left(op)

    async def _step(self) -> None:
        luck = self._luck
        running = [op for op in self._ops if op.ended is None and not op.stopped]
        if running and luck.random() < 0.15:
            op = luck.choice(running)
            assert op.task is not None
            self._history.note(f"op {op.number} is cancelled")
            op.stopped = True
            op.task.cancel()
        elif luck.random() < 0.02:
            self._draws.is_closing = True
            self.start(*self._closing(luck.choice([0.0, 0.1, 2.0])))
        else:
            limit = luck.choice([0.0, 0.003, 0.05, 0.5, 3.0, 20.0]) if luck.random() < 0.2 else None
            self.start(*self._draws.draw(), limit)

    def _closing(self, timeout: float) -> tuple[str, Kinds, Job]:
        async def job(op: Op) -> str:
            await self._session.aclose(timeout=timeout)
            return "closed"

        return f"aclose({timeout})", CLOSED, job

    async def _pause(self) -> None:
        luck = self._luck
        kind = luck.random()
        if kind < 0.35:
            for _ in range(luck.choice([0, 1, 2, 5, 10])):
                await asyncio.sleep(0)
        elif kind < 0.6:
            await asyncio.sleep(luck.random() * 0.02)
        elif kind < 0.8:
            await asyncio.sleep(luck.random() * 0.5)
        else:
            await asyncio.sleep(luck.choice([1, 3, 3, 10, 40]) * luck.random())

    # The course of a life

    async def live(self, steps: int, *, crashes: bool) -> None:
        """Open, do a few things, and close; or stop anywhere, for a crash."""
        if self._luck.random() < 0.7:
            await self._session.__aenter__()
        for _ in range(steps):
            for _ in range(self._luck.choice([1, 1, 1, 2, 4])):  # some at once
                await self._step()
            await self._pause()
            if self._draws.is_closing and self._luck.random() < 0.7:
                break
        if not crashes:
            if self._luck.random() < 0.4:
                await self._all_end(BOUND, "5", "has not ended")
            await self._close()

    async def _close(self) -> None:
        self._draws.is_closing = True
        closing = self.start(*self._closing(self._luck.choice([0.0, 0.1, 0.5, 2.0])))
        await self._all_end(AFTER_CLOSE, "5", "has not ended after aclose()")
        if closing.ended is not None:
            await asyncio.sleep(1)
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for task in left:
                self._history.violate("8", f"after aclose() this task is left: {task!r}")
        if self._session.tasks and closing.ended is None:
            self._history.violate("5", "tasks are left")

    async def _all_end(self, seconds: float, rule: str, words: str) -> None:
        tasks = [op.task for op in self._ops if op.task is not None and not op.task.done()]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        for op in self._ops:
            if op.task is None or not op.task.done():
                self._oracle.violate(rule, op, words)

    async def live_last(self) -> None:
        """Recover to the end, with a service that is well again, and close."""
        await self._session.__aenter__()
        self.start("recover() to the end", CLOSED, partial(self._draws.recover, leave_after=None, dropped=False))
        await self._all_end(BOUND, "5", "has not ended")
        left = self._session.tasks
        if left:
            self._history.violate("8", f"tasks are left after the last recover(): {left}")
        await self._close()

    def end(self) -> None:
        """The life is over: what is left of it is put away, and reaches neither the service nor the next life."""
        self._history.note("the life is over")
        self._network.crash()
        self._over = True
        self._world.now = self.loop.time() + self._luck.choice([0.01, 1.0, 30.0])
        if self.loop.complaints:
            self._history.violate("4", f"the loop was told of {self.loop.complaints}")

    def bury(self) -> None:
        """Close everything that the life had open; its journal is a file that nobody reads again."""

        async def close() -> None:
            for op in self._ops:
                if op.task is not None:
                    op.task.cancel()
            await asyncio.wait([asyncio.ensure_future(self._session.aclose(timeout=0))], timeout=60)
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for task in left:
                task.cancel()
            if left:
                await asyncio.wait(left, timeout=60)
            await asyncio.get_running_loop().shutdown_asyncgens()

        try:
            with contextlib.suppress(StuckError):
                self.loop.run_until_complete(close())
        finally:
            self.loop.close()


class World:
    """What outlives the lives of one seed: the service, its count, the journal's file."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed = seed
        self.folder = folder
        self.path = folder / "life-1.db"
        self.history = History()
        self.service = Service(random.Random(f"{seed} service"), self.history)
        self.oracle = Oracle(self.service, self.history)
        self.numbers = itertools.count(1)  # of prompts
        self.op_numbers = itertools.count(1)
        self.now = 1000.0

    def run(self) -> None:
        """Live all lives, and look at what is left."""
        luck = random.Random(f"{self.seed} lives")
        lives, budgets = luck.choice([1, 2, 2, 3, 4]), Budgets(random.Random(f"{self.seed} budgets"))
        for number in range(1, lives + 1):
            life = Life(self.seed, number, attrs.evolve(Options.draw(luck), budget=budgets.draw()), self)
            crashes = luck.random() < 0.55
            self._run(life, life.live(luck.randint(2, 16), crashes=crashes), crashed=crashes)
        self.service.heal(self.now)
        last = Life(self.seed, lives + 1, Options.fair(), self)
        self._run(last, last.live_last(), crashed=False)
        self.oracle.check_end(self.path)

    def _run(self, life: Life, course: Any, *, crashed: bool) -> None:
        try:
            life.loop.run_until_complete(course)
        except StuckError as error:
            self.history.violate("5", str(error))
            crashed = True
        finally:
            life.end()
            if crashed:
                self.history.note("a crash")
                self.oracle.crashed()
                copy = self.folder / f"life-{self.history.life + 1}.db"
                copy_journal(self.path, copy)
                self.path = copy
            life.bury()


class _Listener(logging.Handler):
    """Writes what the library logs into the history."""

    def __init__(self, history: History) -> None:
        super().__init__(logging.INFO)
        self._history = history

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line of what is a warning; an unexpected error is a finding."""
        self._history.hears(record.getMessage())
        if record.levelno < logging.WARNING:
            return
        self._history.note(f"   log: {record.levelname} {record.getMessage()}")
        if "unexpected" in record.getMessage() or "died" in record.getMessage():
            self._history.violate("4", f"logged: {record.getMessage()} {record.exc_info}")


@contextlib.contextmanager
def _listening(history: History) -> Iterator[None]:
    """Hear the library's log, and nobody else; and errors that nobody could be told."""
    listener = _Listener(history)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log, "propagate", False)
        patch.setattr(log, "isEnabledFor", lambda level: level >= logging.INFO)
        patch.setattr(log, "handlers", [listener])
        patch.setattr(sys, "unraisablehook", lambda unraisable: history.violate("4", f"unraisable: {unraisable}"))
        yield


def run_seed(seed: int) -> str | None:
    """Live the lives of a seed; return the story if a rule was broken."""
    with tempfile.TemporaryDirectory(dir=SHM if SHM.is_dir() else None, prefix="lives-") as folder:
        world = World(seed, Path(folder))
        with _listening(world.history):
            world.run()
    return world.history.report(seed) if world.history.violations else None
