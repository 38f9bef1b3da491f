"""A short life of a fleet, drawn from a seed: whole sessions, one database, one service that counts."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import secrets
from collections.abc import Coroutine
from typing import Any

import attrs
from fleet_sessions import freeze, journal_of
from fleets import sql

from finevoice_async import EffectState, FineVoiceError, FineVoiceSession, Fleet, SfxTask, SubmitUnknownError
from finevoice_async.emulator import Emulator, FaultName
from finevoice_async.testing import POLLING, RETRY, TIMEOUTS

HASTY = Fleet(beat=0.05, lease=0.5, hold=0.3)
TASK = 0.04
"""Seconds that an effect takes."""

BOUND = 20.0
"""Seconds within which everybody hears, though nobody cancels him."""

PAUSE = "pause"
KEYS = ("a", "b", "c", "d", "e", "f")
FAULTS: tuple[FaultName, ...] = (
    *("submit.lose_reply", "submit.reset", "submit.error_500", "submit.bad_gateway", "submit.no_task_id"),
    *("submit.unavailable", "submit.refuse", "submit.rate_limit", "submit.hang", "submit.slow"),
    *("poll.error_500", "poll.close", "poll.not_found", "poll.garbage", "task.fail"),
)
_UNDER_WAY = (EffectState.QUEUED, EffectState.SENDING, EffectState.SUBMITTED)


@attrs.define(eq=False)
class _Op:
    """Something that was asked of a session."""

    name: str
    session: FineVoiceSession
    task: asyncio.Task[Any] | None = None
    cancelled: bool = False


class FleetLife:
    """Lives one seed; `story` says what happened, `faults` what must not have."""

    def __init__(self, url: str, seed: int) -> None:
        self._url = url
        self._luck = random.Random(seed)
        self._key = f"fv-life-{seed}-{secrets.token_hex(4)}"
        self._plan = self._luck.randint(1, 3)
        self._names = itertools.count()
        # All mutable state:
        self.story: list[str] = [f"seed {seed}, plan {self._plan}"]
        self.faults: list[str] = []
        self._consents: dict[str, int] = {}  # by prompt: how often somebody accepted to pay again
        self._given_up: set[str] = set()  # prompts
        self._given: dict[str, str] = {}  # task ids that callers were given, and for which prompt
        self._ops: list[_Op] = []
        self._open: list[FineVoiceSession] = []
        self._tasks: list[SfxTask] = []
        self._dead: set[FineVoiceSession] = set()

    async def live(self) -> list[str]:
        """Live it, and return what must not have happened."""
        async with Emulator(api_key=self._key, service_time=TASK, seed=1, quick_sounds=True) as self._service:
            try:
                for _ in range(self._luck.randint(2, 3)):
                    await self._join()
                for _ in range(self._luck.randint(8, 25)):
                    await self._do_something()
                    await asyncio.sleep(self._luck.choice([0, 0, 0.002, 0.01, 0.04]))
                await self._end()
            finally:
                for session in self._open:
                    await session.aclose()
        return self.faults

    def _note(self, words: str) -> None:
        self.story.append(f"{asyncio.get_running_loop().time():12.3f} {words}")

    async def _join(self) -> FineVoiceSession:
        session = FineVoiceSession(
            self._key,
            base_url=self._service.url,
            journal=self._url,
            fleet=HASTY,
            max_concurrency=self._plan,
            polling=POLLING,
            timeouts=TIMEOUTS,
            retry=RETRY,
        )
        await session.__aenter__()
        self._open.append(session)
        return session

    # What happens

    async def _do_something(self) -> None:
        draws = {
            self._wish: 12,
            self._cancel: 2,
            self._fault: 4,
            self._settle: 3,
            self._recover: 1,
            self._close: 1,
            self._crash: 1,
            self._cut: 1,
            self._pause: 1,
            self._withdraw: 1,
        }
        found = self._luck.choices(list(draws), list(draws.values()))[0]()
        if found is not None:
            await found

    def _start(self, name: str, session: FineVoiceSession, job: Coroutine[Any, Any, Any]) -> None:
        op = _Op(f"{len(self._ops)} {name} by {id(session) % 10_000}", session)
        op.task = asyncio.create_task(self._run(op, job))
        self._ops.append(op)

    async def _run(self, op: _Op, job: Coroutine[Any, Any, Any]) -> None:
        self._note(op.name)
        try:
            result = await job
        except FineVoiceError as error:
            self._note(f"{op.name}: {type(error).__name__}: {error}")
        except asyncio.CancelledError:
            self._note(f"{op.name}: cancelled")
            if not op.cancelled:
                self.faults.append(f"{op.name} was cancelled by nobody")
        except Exception as error:
            self.faults.append(f"{op.name}: {error!r}")
            raise
        else:
            self._note(f"{op.name}: {result}")

    def _wish(self) -> None:
        session, key = self._luck.choice(self._open), self._luck.choice((None, *KEYS))
        prompt = f"effect {next(self._names)}" if key is None else f"effect {key}"
        how, owner = self._luck.choice(["generate", "submit", "enqueue"]), self._luck.choice([None, None, "user"])

        async def job() -> str | None:
            if how == "generate":
                effect = await session.generate(prompt, key=key, owner=owner)
            else:
                call = session.submit if how == "submit" else session.enqueue
                task = await call(prompt, key=key, owner=owner)
                self._tasks.append(task)
                effect = await task
            assert effect.task_id is not None or key is not None
            if effect.task_id is not None:
                self._given[effect.task_id] = prompt
            return effect.task_id

        self._start(f"{how}({prompt}, {key})", session, job())

    def _cancel(self) -> None:
        running = [op for op in self._ops if op.task is not None and not op.task.done() and op.name != PAUSE]
        if running:
            op = self._luck.choice(running)
            op.cancelled = True
            assert op.task is not None
            op.task.cancel()

    def _fault(self) -> None:
        fault = self._luck.choice(FAULTS)
        self._note(fault)
        if fault == "submit.slow":
            self._service.inject(fault, value=self._luck.choice([0.1, 0.3]))
        else:
            self._service.inject(fault, times=self._luck.randint(1, 2))

    def _settle(self) -> None:
        session, how = self._luck.choice(self._open), self._luck.choice(["resubmit", "resubmit", "discard", "adopt"])
        number = self._luck.randint(0, 100)

        async def job() -> str:
            rows = await session.unknown()
            if not rows:
                return "nothing"
            row = rows[number % len(rows)]
            prompt = str(row.request.prompt)
            if how == "discard":
                self._given_up.add(prompt)
                self._consents[prompt] = self._consents.get(prompt, 0) + 1
                await session.discard(row)
            elif how == "resubmit":
                self._consents[prompt] = self._consents.get(prompt, 0) + 1
                await (await session.resubmit(row, accept_double_charge=True))
            else:
                ids = [task.task_id for task in self._service.ledger.accepted.values() if task.request.prompt == prompt]
                if ids:
                    await (await session.adopt(row, task_id=ids[number % len(ids)]))
            return f"{how} {row.id}"

        self._start(how, session, job())

    def _recover(self) -> None:
        session = self._luck.choice(self._open)

        async def job() -> str:
            return " ".join([f"{outcome.task_id}" async for outcome in session.recover()])

        self._start("recover", session, job())

    def _withdraw(self) -> None:
        if self._tasks:
            task = self._luck.choice(self._tasks)
            self._start("withdraw", self._open[0], task.withdraw())

    # What becomes of sessions

    async def _close(self) -> None:
        if len(self._open) > 1:
            session = self._open.pop(self._luck.randrange(len(self._open)))
            self._note(f"close {id(session) % 10_000}")
            await session.aclose()
            await self._join()

    async def _crash(self) -> None:
        """Let a session die: its connections are gone, and nothing is said."""
        if len(self._open) > 1:
            session = self._open.pop(self._luck.randrange(len(self._open)))
            self._note(f"crash {id(session) % 10_000}")
            self._dead.add(session)
            await freeze(session)
            journal = journal_of(session)
            journal._closed = True
            line = journal._line
            assert line._worker is not None
            line._worker.cancel()
            await asyncio.wait([line._worker])
            await line._disconnect()
            await journal._membership.aclose()
            line._idle.set()  # nobody waits for it any more
            with contextlib.suppress(FineVoiceError):
                await session.aclose()
            if self._luck.random() < 0.6:
                await self._join()

    async def _cut(self) -> None:
        """Cut a session's connections."""
        journal = journal_of(self._luck.choice(self._open))
        connections = (journal._line._connection, journal._membership._connection)
        for connection in connections:
            if connection is not None and not connection.closed and self._luck.random() < 0.7:
                self._note(f"cut {connection.info.backend_pid}")
                await asyncio.to_thread(sql, self._url, "SELECT pg_terminate_backend(%s)", connection.info.backend_pid)

    def _pause(self) -> None:
        """Let a session say nothing for longer than its lease."""
        session = self._luck.choice(self._open)
        journal = journal_of(session)
        if journal._beat is None or journal._beat.done():
            return

        async def job() -> None:
            self._note(f"pause {id(session) % 10_000}")
            await freeze(session)
            await asyncio.sleep(1.5 * HASTY.lease)
            if not journal._closed and journal._closing is None:
                journal._beat = asyncio.create_task(journal._keep_beating())
                self._note(f"awake {id(session) % 10_000}")

        self._ops.append(_Op(PAUSE, session, asyncio.create_task(job())))

    # The end

    async def _end(self) -> None:
        """Nothing goes wrong any more: everybody hears, and what is left is recovered; then count."""
        self._service.heal()
        await self._all_heard([op for op in self._ops if op.task is not None])
        keeper = await self._join()
        for session in self._open[:-1]:
            await session.aclose()
        self._open = [keeper]
        await asyncio.sleep(HASTY.lease + HASTY.hold + 0.1)
        self._note("recover at the end")
        recovering = asyncio.create_task(self._recover_all(keeper))
        await self._all_heard([_Op("the last recover", keeper, recovering)])
        await self._count(keeper)

    async def _recover_all(self, session: FineVoiceSession) -> None:
        async for outcome in session.recover():
            if not isinstance(outcome.error, SubmitUnknownError | None):
                self._note(f"recover: {outcome.error!r}")

    async def _all_heard(self, ops: list[_Op]) -> None:
        _, hanging = await asyncio.wait([op.task for op in ops if op.task is not None] or [_nothing()], timeout=BOUND)
        for op in ops:
            if op.task in hanging:
                self.faults.append(f"{op.name} hangs")
                self._show(op.session)
                op.cancelled = True
                op.task.cancel()
        if hanging:
            await asyncio.wait(hanging, timeout=1)

    def _show(self, session: FineVoiceSession) -> None:
        """Note how things stand, for whoever looks for what somebody waits for."""
        journal = journal_of(session)
        slots = journal.slots
        kept = {name: list(getattr(slots, name)) for name in ("_given", "_waiting", "_early", "_unsent", "_takers")}
        self._note(f"{journal!r} {kept} {session._parts.submitter!r} {session._parts._following!r}")
        seats = sql(
            self._url, "SELECT id, clock_timestamp() - beat FROM finevoice.sessions WHERE account = %s", journal.account
        )
        self._note(f"in the fleet: {seats}; {journal._beat!r}, sure: {journal.is_sure()}")
        query = "SELECT id, key, state, session, place, claim FROM finevoice.effects WHERE account = %s ORDER BY id"
        for row in sql(self._url, query.replace(" place", " place::text"), journal.account):
            self._note(f"{row}, here {journal._claims.get(row[0])}")

    async def _count(self, session: FineVoiceSession) -> None:
        """Compare the service's count with the journal's."""
        rows = [row async for row in session.rows()]
        ledger = self._service.ledger
        if ledger.most_running > self._plan:
            self.faults.append(f"{ledger.most_running} ran at once")
        accepted: dict[str, list[str]] = {}
        for task in ledger.accepted.values():
            accepted.setdefault(str(task.request.prompt), []).append(task.task_id)
        past = await asyncio.to_thread(
            sql,
            self._url,
            "SELECT past_task_ids FROM finevoice.effects WHERE account = %s",
            journal_of(session).account,
        )
        kept = {row.task_id for row in rows} | {task_id for (text,) in past for task_id in text.split()}
        states = {str(row.request.prompt): row.state for row in rows}
        for prompt, ids in accepted.items():
            if len(ids) > 1 + self._consents.get(prompt, 0):
                self.faults.append(f"{prompt!r} was paid for {len(ids)} times: {ids}")
            lost = set(ids) - kept
            listed = states.get(prompt) is EffectState.UNKNOWN or prompt in self._given_up or prompt in self._consents
            if lost and not listed:
                self.faults.append(f"{prompt!r}: {lost} is neither known nor listed, but {states.get(prompt)}")
        for task_id, prompt in self._given.items():
            if task_id not in accepted.get(prompt, []):
                self.faults.append(f"{prompt!r} was given as {task_id}, which is none of its tasks")
        self.faults += [f"left {row}" for row in rows if row.state in _UNDER_WAY]
        stats = await session.fleet()
        if (stats.taken, stats.running, stats.waiting, stats.sending, stats.sessions) != (0, 0, 0, 0, 1):
            self.faults.append(f"the fleet is not idle: {stats}")


def _nothing() -> asyncio.Task[None]:
    return asyncio.create_task(asyncio.sleep(0))
