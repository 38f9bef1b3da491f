"""Sessions that are silent for a while, and what a beat costs the others."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from fleets import Join, sql, until
from journals import LOST, QUEUED, SENDING, SUBMITTED, UNKNOWN, row_in

from finevoice_async.adapters.postgres import journal
from finevoice_async.config import Fleet
from finevoice_async.core.ledger import EffectState, Move

pytestmark = pytest.mark.real_time

PATIENT = Fleet(beat=0.05, lease=60, hold=60)
"""Nobody is taken for dead while a test runs."""

WAITS_FOR_A_LOCK = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


def be_silent(url: str, session: int | None, part: float) -> None:
    """Let a session's last beat be a part of its lease ago."""
    sql(url, "UPDATE finevoice.sessions SET beat = clock_timestamp() - lease * %s WHERE id = %s", part, session)


async def test_half_a_lease_of_silence(join: Join) -> None:
    """Its slots that are not used go to others, its tasks are followed, and what it is sending is left alone."""
    a, b = await join(plan=3, options=PATIENT), await join(plan=3, options=PATIENT)
    runs, air, waits = await a.submitted(), await a.wish("air"), await a.wish("waits")
    assert await a.move(waits.id, Move.HOLD)  # it has a slot, and was not sent
    theirs = await b.wish("theirs")
    assert theirs.state is QUEUED
    await a.go_silent()
    be_silent(a.url, a.me, 0.4)
    await b._sweep()
    assert b.followed == []
    assert b.slots.try_acquire() is None, "not yet"
    be_silent(a.url, a.me, 0.6)
    assert (await asyncio.wait_for(b.slots.acquire(), 5)).row_id == theirs.id
    await until(lambda: [row.id for row in b.followed] == [runs.id])
    assert await a.state(air.id) is SENDING
    assert not await a.move(waits.id, Move.SEND), "its slot is another's now"
    assert await a.move(air.id, Move.ACCEPT, task_id="t"), "but its task is its own"
    assert await a.move(runs.id, Move.FINISH, task_id=runs.task_id), "and whoever hears of an end may tell"
    assert await b.state(waits.id) is QUEUED
    assert sql(a.url, "SELECT place FROM finevoice.effects WHERE id = %s", waits.id) == [(None,)], "it sends nothing"


async def test_who_was_silent_gets_a_slot_again(join: Join) -> None:
    """Once it has given a sign of life, what it had waiting goes on in its turn, and its tasks stay with others."""
    a, b = await join(plan=1, options=PATIENT), await join(plan=1, options=PATIENT)
    waits = await a.wish("waits")
    assert await a.move(waits.id, Move.HOLD)
    await a.go_silent()
    be_silent(a.url, a.me, 0.6)
    await b._sweep()
    a.slots.release(a.slots.taken_up(waits.id))  # it wakes, and its engine asks anew
    assert await a.take(waits.id)
    await a._sweep()
    assert (await asyncio.wait_for(a.slots.acquire(), 5)).row_id == waits.id
    assert await a.move(waits.id, Move.SEND)
    assert await a.move(waits.id, Move.ACCEPT, task_id="t")
    assert await b.state(waits.id) is SUBMITTED
    assert (await b.fleet()).sessions == 2


async def test_a_beat_of_a_busy_fleet_waits_for_nobody(join: Join) -> None:
    """While all slots are taken and others wait, a sign of life needs no lock: fifty a second hold up no move."""
    member = await join(plan=1, options=Fleet(beat=60, lease=600))
    await member.submitted()
    assert (await member.wish("waits")).state is QUEUED
    async with await psycopg.AsyncConnection.connect(member.url) as other:
        await other.execute("SELECT finevoice.lock(%s)", (member.account,))
        await asyncio.wait_for(member._sweep(), 5)


async def test_a_beat_gives_out_what_became_free_by_itself(join: Join) -> None:
    """The slot of what is unknown is given out once its hold is over, though nothing happens then."""
    member = await join(plan=1, options=Fleet(beat=0.05, lease=60, hold=0.1))
    doubted = await member.wish("doubted")
    waits = await member.wish("waits")
    assert await member.move(doubted.id, Move.DOUBT)
    assert (await asyncio.wait_for(member.slots.acquire(), 5)).row_id == waits.id


@pytest.mark.parametrize("busy", [False, True])
async def test_a_beat_while_it_is_taken_for_dead(join: Join, busy: bool) -> None:
    """Who is removed by another in the very moment in which it wakes learns that, and believes itself in no fleet."""
    member = await join(plan=1, options=Fleet(beat=60, lease=600))
    former = member.me
    if busy:  # else a beat needs no lock
        await member.wish("doubted")
        sql(member.url, "UPDATE finevoice.effects SET state = 'submitted', task_id = 't', session = NULL")
    async with await psycopg.AsyncConnection.connect(member.url) as other:
        await other.execute("SELECT finevoice.lock(%s)", (member.account,))
        await other.execute("DELETE FROM finevoice.sessions WHERE id = %s", (former,))
        beat = asyncio.ensure_future(member._sweep())
        await until(lambda: sql(member.url, "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))
        await other.commit()
    await asyncio.wait_for(beat, 5)
    assert member.me != former
    assert (await member.fleet()).sessions == 1
    assert [row.task_id for row in member.followed] == ["t"] * busy


async def test_a_long_line_is_read_seldom(join: Join, monkeypatch: pytest.MonkeyPatch) -> None:
    """The longer a look at the line takes, the longer until the next: all sessions read all of it."""
    monkeypatch.setattr(journal, "REST", 1e9)
    member = await join(plan=1, options=Fleet(beat=60, lease=600))
    first, second = await member.submitted(), await member.wish("second")
    await member._sweep()
    assert member.slots.position(second.id) == 1
    third = await member.wish("third")
    await member._sweep()
    assert member.slots.position(third.id) is None, "not yet"
    monkeypatch.setattr(member, "_look_at_line_at", 0.0)
    await member._sweep()
    assert member.slots.position(third.id) == 2
    assert await member.move(first.id, Move.FINISH, task_id=first.task_id)


async def test_a_short_line_is_read_at_each_beat(join: Join) -> None:
    """A position is as old as a beat."""
    member = await join(plan=1, options=Fleet(beat=0.05, lease=60))
    await member.submitted()
    rows = [await member.wish(f"{number}") for number in range(3)]
    await until(lambda: [member.slots.position(row.id) for row in rows] == [1, 2, 3])


@pytest.mark.parametrize("state", [UNKNOWN, LOST])
async def test_what_may_be_paid_for_gives_way_too(join: Join, state: EffectState) -> None:
    """A slot that a silent session has for what it was to send again goes to others, as that of what is new."""
    a, b = await join(plan=1, options=PATIENT), await join(plan=1, options=PATIENT)
    doubted = await row_in(a, state)
    assert await a.take(doubted)
    sql(a.url, "UPDATE finevoice.effects SET place = 'infinity' WHERE id = %s", doubted)  # however long the hold is
    theirs = await b.wish("theirs")
    assert theirs.state is QUEUED
    await a.go_silent()
    be_silent(a.url, a.me, 0.6)
    assert (await asyncio.wait_for(b.slots.acquire(), 5)).row_id == theirs.id
    assert await b.state(doubted) is state


async def test_a_whole_lease_of_silence(join: Join) -> None:
    """Its connection is there and it says nothing: the slots of its tasks without rows are free, too."""
    a, b = await join(plan=1, options=PATIENT), await join(plan=1, options=PATIENT)
    await a.occupy("stranger")
    await a.go_silent()
    theirs = await b.wish("theirs")
    be_silent(a.url, a.me, 0.6)
    await b._sweep()
    assert (await b.fleet()).taken == 1, "it may run, and its session is there"
    be_silent(a.url, a.me, 1.1)
    assert (await asyncio.wait_for(b.slots.acquire(), 5)).row_id == theirs.id
    assert sql(a.url, "SELECT count(*) FROM finevoice.strangers") == [(0,)]


async def test_who_wakes_while_others_clean_up(join: Join) -> None:
    """A sign of life that comes while a sweep waits for its turn counts: nothing of that session is anybody's."""
    a, b = await join(plan=3, options=PATIENT), await join(plan=3, options=PATIENT)
    air, held = await a.wish("air"), await a.wish("held")
    assert await a.move(held.id, Move.HOLD)
    await a.occupy("stranger")
    await a.go_silent()
    async with await psycopg.AsyncConnection.connect(a.url) as other:
        await other.execute("SELECT finevoice.lock(%s)", (a.account,))
        be_silent(a.url, a.me, 1.1)
        await until(lambda: sql(a.url, WAITS_FOR_A_LOCK) == [(1,)])
        be_silent(a.url, a.me, 0.0)
    await b._sweep()
    assert (await b.fleet()).sessions == 2
    assert await b.state(air.id) is SENDING
    assert sql(a.url, "SELECT session FROM finevoice.effects WHERE id = %s", held.id) == [(a.me,)]
    assert sql(a.url, "SELECT session FROM finevoice.strangers") == [(a.me,)]
