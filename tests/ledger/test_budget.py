"""A session's budget by the service's own count: over many at once, lost answers, crashes and later sessions."""

from __future__ import annotations

import asyncio
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from ledger.helpers import QUEUED, REFUSED, SUBMITTED, UNKNOWN, Connect, Left, Visit, all_of, leave, rows, turns
from raw_server import Peer, RawServer, Request

from finevoice_async import (
    Budget,
    BudgetExceededError,
    ConfigurationError,
    EffectState,
    Retry,
    SfxRequest,
    SubmitUnknownError,
)
from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.adapters.sqlite_journal import SqliteJournal
from finevoice_async.core.ledger import Move
from finevoice_async.emulator import Emulator
from finevoice_async.ports import Begun

DAY = timedelta(days=1)


class NotedJournal(SqliteJournal):
    """Keeps what tells that its rows are written."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, LoopClock())
        self.begun: list[asyncio.Future[Begun]] = []

    def begin(
        self, request: SfxRequest, *, key: str | None, state: EffectState, again: Move = Move.QUEUE
    ) -> asyncio.Future[Begun]:
        """Begin a row."""
        self.begun.append(super().begin(request, key=key, state=state, again=again))
        return self.begun[-1]


async def loses(request: Request, peer: Peer) -> None:
    """Take a request, and break the connection."""
    await peer.reset()


@pytest.mark.parametrize("kept", [False, True])
async def test_many_at_once(connect: Connect, path: Path, emulator: Emulator, kept: bool) -> None:
    """Of many no more are made than the budget allows; each of the others is an outcome with the error."""
    async with connect(journal=path if kept else None, budget=Budget(effects=4)) as session:
        outcomes = await all_of(session.generate_many(f"sound {number}" for number in range(30)))
        errors = [outcome.error for outcome in outcomes if outcome.error is not None]
        assert len(outcomes) == 30
        assert len(errors) == 26
        assert {type(error) for error in errors} == {BudgetExceededError}
        assert all(
            outcome.request is not None and outcome.error.request == outcome.request
            for outcome in outcomes
            if outcome.error
        )
        with pytest.raises(BudgetExceededError, match="4 submissions of 4 in this session"):
            await session.generate("one more")
    assert emulator.ledger.posts == len(emulator.ledger.accepted) == 4
    async with connect(journal=path if kept else None, budget=Budget(effects=1)) as session:
        await session.generate("in another session")


async def test_sessions_share_a_budget_by_their_journal(connect: Connect, path: Path, emulator: Emulator) -> None:
    """What earlier sessions sent counts, with a budget of theirs or without; what was refused does not."""
    emulator.inject("submit.reject")
    async with connect(journal=path) as session:
        for number in range(4):
            await asyncio.gather(session.generate(f"sound {number}"), return_exceptions=True)
    assert len(emulator.ledger.accepted) == 3
    async with connect(journal=path, budget=Budget(effects=4, per=DAY)) as session:
        await session.generate("the fourth")
        with pytest.raises(BudgetExceededError, match=r"4 submissions of 4 in 1 day, 0:00:00\. The next is free in "):
            await session.generate("the fifth", key="k")
    async with connect(journal=path, budget=Budget(effects=4, per=DAY)) as session:
        with pytest.raises(BudgetExceededError):
            await session.generate("the fifth", key="k")
    assert (await rows(path))[-1].state is REFUSED
    assert len(emulator.ledger.accepted) == 4
    async with connect(journal=path, budget=Budget(effects=5, per=DAY)) as session:
        await session.generate("the fifth", key="k")
        with pytest.raises(BudgetExceededError):
            await session.generate("the sixth")


async def test_lost_answers_are_spent(visit: Visit, path: Path) -> None:
    """Nobody knows whether they were paid for: three are three, in this session and in later ones."""
    budget = Budget(effects=3, per=DAY)
    async with RawServer(loses) as server:
        for _ in range(2):
            async with visit(server.url, journal=path, budget=budget, retry=Retry(patience=1)) as session:
                told = [outcome.error async for outcome in session.generate_many(["a", "b", "c", "d", "e"])]
        assert {type(error) for error in told} == {BudgetExceededError}
        assert server.count("POST") == 3
        async with visit(server.url, journal=path, budget=budget) as session:
            (row, *_) = await session.unknown()
            with pytest.raises(BudgetExceededError, match="its row stays as it was"):
                await session.resubmit(row, accept_double_charge=True)
        assert server.count("POST") == 3
    assert [row.state for row in await rows(path)][:3] == [UNKNOWN] * 3


async def test_consent_to_pay_twice_is_bounded(visit: Visit) -> None:
    """`resend_unknown` spends with every attempt."""
    async with RawServer(loses) as server:
        reckless = Retry(attempts=9, resend_unknown=True)
        async with visit(server.url, budget=Budget(effects=2), retry=reckless) as session:
            with pytest.raises(SubmitUnknownError, match="The budget is spent: 2 submissions of 2"):
                await session.generate("rain")
        assert server.count("POST") == 2


async def test_a_crash_while_posts_are_out(visit: Visit, path: Path, tmp_path: Path) -> None:
    """What was out when the process died is spent, whether it arrived or not."""
    arrived = asyncio.Semaphore(0)

    async def hangs(request: Request, peer: Peer) -> None:
        arrived.release()
        await peer.hang()

    async with (
        RawServer(hangs) as server,
        visit(server.url, journal=path, budget=Budget(effects=3, per=DAY)) as session,
    ):
        jobs = [asyncio.create_task(session.generate(f"sound {number}")) for number in range(2)]
        await arrived.acquire()
        await arrived.acquire()
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{path}{suffix}", f"{tmp_path}/left.db{suffix}")
        async with visit(server.url, journal=tmp_path / "left.db", budget=Budget(effects=3, per=DAY)) as later:
            jobs.append(asyncio.create_task(later.generate("another")))
            await arrived.acquire()
            with pytest.raises(BudgetExceededError):
                await later.generate("one too many")
            await later.aclose(timeout=0)
        await session.aclose(timeout=0)
        assert {type(error) for error in await asyncio.gather(*jobs, return_exceptions=True)} == {SubmitUnknownError}
        assert server.count("POST") == 3


async def test_what_was_left_behind_waits_for_a_budget(connect: Connect, path: Path, emulator: Emulator) -> None:
    """`recover` sends what the budget allows; the other rows stay queued, and their outcomes say so."""
    await leave(path, *[Left(QUEUED, f"sound {number}", key=f"{number}") for number in range(3)])
    async with connect(journal=path, budget=Budget(effects=1)) as session:
        outcomes = await all_of(session.recover())
        errors = [outcome.error for outcome in outcomes if outcome.error is not None]
        assert [type(error) for error in errors] == [BudgetExceededError] * 2
        assert all("stays queued in the journal: recover() sends it later" in error.message for error in errors)
    assert sorted(row.state.value for row in await rows(path)) == ["done", "queued", "queued"]
    async with connect(journal=path, budget=Budget(effects=3, per=DAY)) as session:
        outcomes = await all_of(session.recover())
        assert [outcome.error for outcome in outcomes] == [None] * 3
    assert len(emulator.ledger.accepted) == 3


@pytest.mark.parametrize("later", range(4))
async def test_a_wish_that_is_called_off_as_the_budget_refuses_it(connect: Connect, path: Path, later: int) -> None:
    """A wish stays queued beyond the budget only if its caller was told that it is kept, whenever they leave."""
    journal = NotedJournal(path)
    async with connect(journal=journal, budget=Budget(effects=1)) as session:
        await session.generate("rain")
        wish = asyncio.create_task(session.enqueue("bell", key="k"))
        await turns(2)

        def call_off(after: int) -> None:
            """Cancel it after so many turns of the loop: not one of them is lost by waiting."""
            if after:
                asyncio.get_running_loop().call_soon(call_off, after - 1)
            else:
                wish.cancel()

        journal.begun[-1].add_done_callback(lambda _: call_off(later))
        await asyncio.wait([wish])
        await turns(3)
    (row,) = [row for row in await rows(path) if row.key == "k"]
    assert row.state is (REFUSED if wish.cancelled() else QUEUED)


async def test_long_ago_counts_no_more(connect: Connect, path: Path) -> None:
    """Of what earlier processes left only what lies within the time is spent."""
    await leave(path, Left(SUBMITTED, ago=2 * 86400), Left(UNKNOWN, ago=3600), Left(SUBMITTED, ago=86401))
    async with connect(journal=path, budget=Budget(effects=2, per=DAY)) as session:
        await session.submit("rain")
        with pytest.raises(
            BudgetExceededError, match=r"2 submissions of 2 in 1 day, 0:00:00\. .* free in (22:59|23:00)"
        ):
            await session.submit("wind")


def test_a_sliding_time_needs_a_journal(connect: Connect) -> None:
    """It is said where the session is made."""
    with pytest.raises(ConfigurationError, match="needs a journal"):
        connect(budget=Budget(effects=1, per=DAY))
