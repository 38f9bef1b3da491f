"""The whole session as a state machine, against a model and the emulator's ledger, on virtual time."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from virtual_time import VirtualTimeLoop

from finevoice_async import (
    FineVoiceError,
    FineVoiceSession,
    Polling,
    SessionClosedError,
    SfxTask,
    SubmitUnknownError,
    Timeouts,
)
from finevoice_async.core.ledger import EffectState
from finevoice_async.emulator import FAULTS, Emulator, FaultName, LogNormal

EXAMPLES = int(os.environ.get("FINEVOICE_EXAMPLES", "200"))
PLACES = 3
ORDERS = [name for name in FAULTS if name.startswith(("submit.", "poll.")) or name == "task.fail"]


class SessionMachine(RuleBasedStateMachine):
    """Submits, lets time pass, orders faults, cancels, crashes, recovers and closes; money is counted at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=VirtualTimeLoop)
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "effects.db"
        self.waiters: list[asyncio.Future[Any]] = []
        self.tasks: list[SfxTask] = []
        self.known: set[str] = set()  # task ids that the client ever had
        self.unknown = 0  # submissions that ended as unknown
        self.session: FineVoiceSession | None = None

    def do(self, job: Any) -> Any:
        """Run something on the machine's own loop."""
        return self.runner.run(job)

    @initialize()
    def begin(self) -> None:
        """Start the service and a session."""

        async def start() -> None:
            self.emulator = Emulator(service_time=LogNormal(median=6, scaled=False), plan_limit=PLACES, seed=7)
            await self.emulator.start()

        self.do(start())
        self.open()

    def open(self) -> None:
        """Open a session on the journal."""

        async def start() -> None:
            self.session = FineVoiceSession(
                self.emulator.api_key,
                base_url=self.emulator.url,
                max_concurrency=PLACES,
                journal=self.path,
                polling=Polling(grace=5),
                timeouts=Timeouts(task=120, read=10, close=2),
            )
            await self.session.__aenter__()

        self.do(start())

    @precondition(lambda self: self.session is not None)
    @rule(count=st.integers(1, 4))
    def submit(self, count: int) -> None:
        """Submit some effects; each waits for its end by itself."""

        async def one(session: FineVoiceSession) -> None:
            try:
                task = await session.submit("rain")
            except SubmitUnknownError:
                self.unknown += 1
                raise
            self.tasks.append(task)
            self.known.add(str(task.id))
            await task

        async def start() -> None:
            assert self.session is not None
            self.waiters += [asyncio.ensure_future(one(self.session)) for _ in range(count)]
            await asyncio.sleep(0.01)

        self.do(start())

    @rule(seconds=st.sampled_from([0.0, 0.3, 3.0, 20.0]))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.do(asyncio.sleep(seconds))

    @rule(name=st.sampled_from(ORDERS), times=st.integers(1, 3))
    def order(self, name: FaultName, times: int) -> None:
        """Order a fault."""
        self.emulator.inject(name, times)

    @precondition(lambda self: self.waiters)
    @rule(index=st.integers(0, 100))
    def cancel(self, index: int) -> None:
        """Cancel one waiter, wherever it is."""

        async def stop() -> None:
            self.waiters[index % len(self.waiters)].cancel()
            await asyncio.sleep(0)

        self.do(stop())

    @precondition(lambda self: self.session is not None)
    @rule(settled=st.booleans())
    def close(self, settled: bool) -> None:
        """Close the session in the middle of everything; every waiter hears."""

        async def stop() -> None:
            assert self.session is not None
            if settled:
                await asyncio.sleep(30)
            await self.session.aclose()
            if self.waiters:
                await asyncio.wait(self.waiters, timeout=1)

        self.do(stop())
        assert all(waiter.done() for waiter in self.waiters)
        self.session = None

    @precondition(lambda self: self.session is None)
    @rule()
    def recover(self) -> None:
        """Open the journal again and pick up what was left."""
        self.open()

        async def pick_up() -> None:
            assert self.session is not None
            async for outcome in self.session.recover():
                if outcome.task_id:
                    self.known.add(outcome.task_id)

        self.do(pick_up())

    @invariant()
    def never_overdrawn(self) -> None:
        """The plan's places are never overdrawn, whatever goes wrong."""
        if not hasattr(self, "emulator"):
            return
        assert self.emulator.ledger.most_running <= PLACES
        assert self.emulator.ledger.leaked_keys == 0

    def teardown(self) -> None:
        """Let everything end, and count: each accepted effect is known, or listed as unknown."""
        try:
            if hasattr(self, "emulator"):
                self.do(self.settle())
        finally:
            self.do(self.give_up())
            self.runner.close()
            self.folder.cleanup()

    async def give_up(self) -> None:
        """Close what a failed check has left open."""
        if self.session is not None:
            await self.session.aclose()
        if hasattr(self, "emulator"):
            await self.emulator.aclose()

    async def settle(self) -> None:
        """Heal the service, finish what runs, and compare the ledger with the journal."""
        self.emulator.heal()
        if self.session is not None:
            await self.session.aclose()
        if self.waiters:
            await asyncio.wait(self.waiters)
        for waiter in self.waiters:
            if not waiter.cancelled() and (error := waiter.exception()) is not None:
                assert isinstance(error, FineVoiceError), error
                if isinstance(error, SessionClosedError) and error.task_id:
                    assert error.task_id in self.emulator.ledger.accepted
        async with FineVoiceSession(
            self.emulator.api_key, base_url=self.emulator.url, max_concurrency=PLACES, journal=self.path
        ) as session:
            before = len(self.emulator.ledger.accepted)
            fresh = len([row async for row in session.rows(EffectState.QUEUED)])
            async for outcome in session.recover():
                assert outcome.effect or outcome.error
            assert len(self.emulator.ledger.accepted) <= before + fresh, "recovery may send only what was never sent"
            rows = [row async for row in session.rows()]
        ids = [row.task_id for row in rows if row.task_id]
        accepted = set(self.emulator.ledger.accepted)
        assert len(ids) == len(set(ids))
        assert set(ids) <= accepted
        unknown = [row for row in rows if row.state is EffectState.UNKNOWN]
        assert len(accepted - set(ids)) <= len(unknown), "an accepted effect is neither known nor listed as unknown"
        assert self.known <= set(ids)
        running = {row.state for row in rows} & {EffectState.QUEUED, EffectState.SENDING, EffectState.SUBMITTED}
        assert not running, rows
        await self.emulator.aclose()


TestSession = pytest.mark.timeout(1800)(SessionMachine.TestCase)
SessionMachine.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
