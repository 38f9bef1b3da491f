"""Who gets the next slot, and what the store costs."""

from __future__ import annotations

import asyncio

import pytest
from fleets import Join, Member, sql
from journals import QUEUED, RAIN, SENDING

from finevoice_async.adapters.postgres.slots import RowSlot
from finevoice_async.config import Fleet
from finevoice_async.core.ledger import JournalRow, Move

pytestmark = pytest.mark.real_time


async def starts(members: list[Member], running: list[JournalRow], count: int) -> list[int]:
    """Let the oldest task end, see who gets its slot and submits, and so on; return the rows in that order."""
    order: list[int] = []
    senders = {row.id: members[0] for row in running}
    while len(order) < count:
        done = running.pop(0)
        assert await senders[done.id].move(done.id, Move.DISCARD if done.state is QUEUED else Move.REFUSE)
        slots: list[tuple[Member, RowSlot]] = []
        while not slots:
            await asyncio.sleep(0.002)
            slots = [(member, slot) for member in members if (slot := member.slots.try_acquire()) is not None]
        for member, slot in slots:
            assert await member.move(slot.row_id, Move.SEND)
            order.append(slot.row_id)
            senders[slot.row_id] = member
            running.append(await member.get(slot.row_id))
    return order


async def test_a_web_request_behind_a_batch(join: Join) -> None:
    """One request goes among the next six behind a batch of 60 of another session."""
    batch, web = await join(plan=5), await join(plan=5)
    rows = [await batch.wish() for _ in range(60)]
    running = [row for row in rows if row.state is SENDING]
    assert len(running) == 5
    request = await web.wish("web")
    order = await starts([batch, web], running, 6)
    assert request.id in order


async def test_owners_take_turns(join: Join) -> None:
    """Within a session and over all of them: with one slot, owners go one after the other, each first come first."""
    a, b = await join(plan=1), await join(plan=1)
    running = [await a.wish(owner="alice")]
    alice = [await a.wish(f"a{n}", owner="alice") for n in range(4)]
    alice += [await b.wish(f"b{n}", owner="alice") for n in range(2)]
    bob = [await a.wish(f"c{n}", owner="bob") for n in range(3)]
    order = await starts([a, b], running, 6)
    assert [row_id in [row.id for row in bob] for row_id in order].count(True) == 3
    names = ["bob" if row_id in [row.id for row in bob] else "alice" for row_id in order]
    assert names[0] != names[1] != names[2] != names[3]
    assert [row_id for row_id in order if row_id in [row.id for row in alice]] == [row.id for row in alice[:3]]


async def test_a_session_without_owners_counts_as_one(join: Join) -> None:
    """The line that has the fewest slots goes first."""
    a, b = await join(plan=4), await join(plan=4)
    running = [await a.wish() for _ in range(4)]
    more = [await a.wish() for _ in range(4)]
    theirs = [await b.wish() for _ in range(2)]
    order = await starts([a, b], running, 4)
    assert order == [theirs[0].id, theirs[1].id, more[0].id, more[1].id]


async def test_an_effect_costs_three_commits(join: Join) -> None:
    """Begin with a slot, task id, end: three commits. What they take, `benchmarks/fleet.py` measures."""
    member = await join(options=Fleet())
    before, count = member.commits, 60
    for _ in range(count):
        row = await member.submitted()
        assert await member.move(row.id, Move.FINISH, task_id=row.task_id, urls=("https://cdn.example/1.mp3",))
    assert member.commits - before == 3 * count


async def test_what_waits_together_shares_commits(join: Join) -> None:
    """A batch of 60 with 5 slots costs less than three commits an effect."""
    member = await join(options=Fleet())
    before = member.commits
    rows = await asyncio.gather(*[member.begin(RAIN, key=None, state=SENDING) for _ in range(60)])
    running = [begun.row.id for begun in rows if begun.row.state is SENDING]
    done = 0
    while done < 60:
        await asyncio.gather(*[member.move(row_id, Move.ACCEPT, task_id=f"t{row_id}") for row_id in running])
        await asyncio.gather(*[member.move(row_id, Move.FINISH, task_id=f"t{row_id}") for row_id in running])
        done += len(running)
        running = []
        while done < 60 and len(running) < 5:
            running.append((await asyncio.wait_for(member.slots.acquire(), 20)).row_id)
        assert all(await asyncio.gather(*[member.move(row_id, Move.SEND) for row_id in running]))
    assert member.commits - before <= 3 * 60


async def test_what_is_finished_costs_nothing(join: Join, url: str) -> None:
    """A look at the slots reads what waits and runs, not what there was."""
    member = await join(plan=5)
    sql(
        url,
        "INSERT INTO finevoice.effects (account, key, state, request, claim, line, turn, task_id) "
        "SELECT %s, 'k' || n, 'saved', '{\"prompt\": \"Rain\"}', -n, 'session 1', n, 't' || n "
        "FROM generate_series(1, 50000) n",
        member.account,
    )
    sql(url, "ANALYZE finevoice.effects")
    for _ in range(11):
        await member.wish()
    ((seconds,),) = sql(
        url,
        "WITH looks AS MATERIALIZED (SELECT clock_timestamp() AS at, finevoice.grant_places(%s) "
        "FROM generate_series(1, 100)) SELECT extract(epoch FROM max(at) - min(at))::float / 99 FROM looks",
        member.account,
    )
    assert seconds < 0.006
    assert await member.row(key="k777") is not None
