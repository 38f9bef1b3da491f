"""Pruning a fleet's journal: what goes, what stays, and that no budget counts otherwise afterwards."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from fleets import KEY, Join, Member, sql
from journals import FAILED, QUEUED, RAIN, REFUSED, SAVED, SENDING, row_in

from finevoice_async.adapters import fleet_view
from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.adapters.postgres import journal as postgres_journal
from finevoice_async.adapters.postgres.journal import PostgresJournal
from finevoice_async.config import Budget, Fleet
from finevoice_async.core.ledger import EffectState, Move
from finevoice_async.errors import BudgetExceededError

pytestmark = pytest.mark.real_time

LONG_AGO = datetime.min.replace(tzinfo=UTC)
SETTLED = {SAVED, REFUSED, FAILED}


def tomorrow() -> datetime:
    """Return a time that everything is older than."""
    return datetime.now(UTC) + timedelta(days=1)


@pytest.mark.parametrize("state", EffectState)
async def test_settled_rows_only(join: Join, state: EffectState) -> None:
    """Only what is saved, refused or failed is removed, and only if it was written last before the time given."""
    member = await join()
    row_id = await row_in(member, state, key="a")
    assert await member.prune(datetime.now(UTC) - timedelta(days=1)) == 0
    assert await member.prune(tomorrow()) == int(state in SETTLED)
    assert (await member.row(row_id=row_id) is None) is (state in SETTLED)
    assert (await member.begin(RAIN, key="a", state=QUEUED)).is_mine is (state in SETTLED)


async def test_submissions_count_still(join: Join, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of rows that are removed it stays when their submissions left, in portions, too; the table is trimmed."""
    monkeypatch.setattr(postgres_journal, "PRUNED_AT_ONCE", 2)
    member = await join(plan=1000)
    for number in range(5):
        for state in (SAVED, FAILED, REFUSED, SENDING):
            await row_in(member, state, key=f"{state.value} {number}")
    before = await member.sent_since(LONG_AGO)
    assert len(before) == 15
    for removed in (15, 0):
        assert await member.prune(tomorrow()) == removed
        assert await member.sent_since(LONG_AGO) == before
        assert await member.sent_since(before[7]) == before[7:]
        assert await fleet_view.spent_since(url, KEY, before[3]) == 12
        assert sql(url, "SELECT count(*) FROM finevoice.posts") == [(5,)]
    assert len(sql(url, "SELECT day FROM finevoice.past_posts")) <= 2  # midnight may pass


async def test_replaced_submissions_are_trimmed(join: Join, url: str) -> None:
    """One that a later one of its row has replaced counts, and takes no room; the last one may be given back yet."""
    member = await join()
    row = await member.wish("k")
    await member.move(row.id, Move.DOUBT)
    assert await member.take(row.id)
    await member.slots.acquire()
    assert await member.move(row.id, Move.RESEND)
    assert await member.prune(tomorrow()) == 0
    assert sql(url, "SELECT count(*) FROM finevoice.posts") == [(1,)]
    assert len(await member.sent_since(LONG_AGO)) == 2
    assert await member.move(row.id, Move.REFUSE, error="no")  # it was certainly not accepted
    assert len(await member.sent_since(LONG_AGO)) == 1


async def test_submissions_after_the_time_stay(join: Join, url: str) -> None:
    """What left later than the time given is not touched."""
    member = await join()
    await row_in(member, SAVED, key="a")
    assert await member.prune(datetime.now(UTC) - timedelta(hours=1)) == 0
    assert sql(url, "SELECT count(*) FROM finevoice.posts") == [(1,)]
    assert sql(url, "SELECT count(*) FROM finevoice.past_posts") == [(0,)]


async def test_a_budget_counts_them(join: Join, url: str) -> None:
    """A budget of the fleet's knows submissions of removed rows, and of days that are over as long as they count."""
    member = await join()
    for key in ("a", "b"):
        await row_in(member, SAVED, key=key)
    assert await member.prune(tomorrow()) == 2
    budget = Budget(effects=3, per=timedelta(hours=1))
    spender = PostgresJournal(url, KEY, 5, LoopClock(), Fleet(), budget)
    await spender.open()
    try:
        assert (await spender.begin(RAIN, key="c", state=SENDING)).row.state is SENDING
        row = (await spender.begin(RAIN, key="d", state=SENDING)).row
        assert row.state is QUEUED
        await spender.slots.acquire()
        with pytest.raises(BudgetExceededError) as caught:
            await spender.move(row.id, Move.SEND)
        assert 3590 < (caught.value.retry_after or 0) <= 3600
        sql(url, "UPDATE finevoice.past_posts SET at = ARRAY(SELECT each - interval '2 h' FROM unnest(at) AS each)")
        assert await spender.move(row.id, Move.SEND)
    finally:
        await spender.aclose()


async def test_two_keys(join: Join) -> None:
    """Pruning one key's effects leaves another's."""
    one: Member = await join()
    other: Member = await join(key="another-key-of-the-service")
    await row_in(one, SAVED, key="a")
    theirs = await row_in(other, SAVED, key="a")
    assert await one.prune(tomorrow()) == 1
    assert await other.row(row_id=theirs) is not None
    assert len(await other.sent_since(LONG_AGO)) == 1


async def test_days_are_those_of_utc(url: str) -> None:
    """Where the database counts its days elsewhere, what left late on a day of UTC is not missed."""
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    left, since = midnight - timedelta(minutes=30), midnight - timedelta(hours=1)  # both are of the next day there
    budget = Budget(effects=1, per=datetime.now(UTC) - since)
    there = f"{url}?options=-c%20TimeZone%3DPacific/Kiritimati"
    spender = PostgresJournal(there, KEY, 5, LoopClock(), Fleet(), budget)
    await spender.open()
    try:
        statement = "INSERT INTO finevoice.past_posts (account, day, at) VALUES (%s, %s, %s)"
        sql(url, statement, spender.account, left.date(), [left])
        assert await spender.sent_since(since) == [left]
        assert (await spender.begin(RAIN, key="a", state=SENDING)).row.state is QUEUED
        statement = "INSERT INTO finevoice.posts (claim, account, at) VALUES (1, %s, %s)"
        sql(url, statement, spender.account, left + timedelta(minutes=1))
        await spender.prune(tomorrow())
        assert sql(url, "SELECT day, cardinality(at) FROM finevoice.past_posts") == [(left.date(), 2)]
    finally:
        await spender.aclose()


async def test_who_counts_sees_all(join: Join, url: str) -> None:
    """What is moved from one table to the other is missed by nobody who counts: both have the account locked."""
    member = await join()
    async with await psycopg.AsyncConnection.connect(url) as other:
        await other.execute("SELECT finevoice.lock(%s)", (member.account,))
        statement = "SELECT finevoice.prune_posts(%s, now(), '-infinity', 10)"
        with (
            psycopg.connect(url, options="-c lock_timeout=20ms") as pruning,
            pytest.raises(psycopg.errors.LockNotAvailable),
        ):
            pruning.execute(statement, (member.account,))
