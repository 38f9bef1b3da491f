"""Who dies leads to what: sessions that are killed or paused, and a database that crashes or stands still."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from databases import Server
from fleets import Join, Member, sql, until
from journals import DONE, QUEUED, RAIN, SENDING, SUBMITTED, UNKNOWN

from finevoice_async.adapters.postgres import line, schema
from finevoice_async.config import Fleet
from finevoice_async.core.ledger import Move
from finevoice_async.errors import JournalError

pytestmark = pytest.mark.real_time
URLS = ("https://cdn.example/1.mp3",)


async def test_who_dies_while_it_waits(join: Join) -> None:
    """A queued row's slot is back at the next sweep; the row is sent only on a new call."""
    patient = Fleet(beat=0.05, lease=60)  # it is missed by its connection, not by its silence
    a, b = await join(plan=1, options=patient), await join(plan=1, options=patient)
    row = await a.wish("k")
    assert await a.move(row.id, Move.HOLD)  # queued, with the slot
    waits = await b.wish()
    await a.die()
    assert (await asyncio.wait_for(b.slots.acquire(), 20)).row_id == waits.id
    assert await b.state(row.id) is QUEUED
    assert not (await b.begin(row.request, key="k", state=QUEUED)).elsewhere


async def test_who_dies_while_it_sends(join: Join) -> None:
    """The row is unknown after the lease and not before, keeps its slot for `hold`, and its followers hear."""
    a, b = await join(plan=1), await join(plan=1)
    row = await a.wish("k")
    told: list[int] = []
    b.watch(row.id, lambda: told.append(1))
    waits = await b.wish()
    await a.die()
    await asyncio.sleep(0.5)
    assert await b.state(row.id) is SENDING
    assert await until(lambda: b.row_ids(UNKNOWN)) < 1 + 3
    assert "lost before the answer" in str((await b.get(row.id)).error)
    await until(lambda: told)
    assert b.slots.try_acquire() is None
    assert (await asyncio.wait_for(b.slots.acquire(), 20)).row_id == waits.id
    assert not await b.move(row.id, Move.SEND)


async def test_who_dies_once_it_has_submitted(join: Join) -> None:
    """The task is adopted within about a second, by one, and keeps its slot."""
    a, b, c = await join(plan=1), await join(plan=1), await join(plan=1)
    row = await a.submitted("k")
    await a.die()
    assert await until(lambda: b.followed or c.followed) < 1
    await asyncio.sleep(0.2)
    (followed,) = b.followed + c.followed
    assert (followed.id, followed.task_id) == (row.id, row.task_id)
    assert (await b.fleet()).taken == 1
    heir = b if b.followed else c
    assert await heir.move(row.id, Move.FINISH, task_id=row.task_id, urls=URLS)
    assert (await b.fleet()).taken == 0


async def test_who_is_paused_and_wakes(join: Join) -> None:
    """Paused beyond the lease, its sends are refused; what it had in the air settles its own row; then it is back."""
    a, b = await join(), await join()
    air, queued = await a.wish("air"), await a.wish("queued")
    assert await a.move(queued.id, Move.HOLD)
    former = a.me
    await a.go_silent()
    assert a.is_sure()
    await until(lambda: b.row_ids(UNKNOWN))
    assert not a.is_sure()
    assert not await a.move(queued.id, Move.SEND)
    assert await a.move(air.id, Move.ACCEPT, task_id="t")
    assert await b.state(air.id) is SUBMITTED
    assert a.me != former
    assert (await b.fleet()).sessions == 2


@pytest.mark.parametrize("is_alone", [True, False])
async def test_a_beat_that_comes_too_late(join: Join, is_alone: bool) -> None:
    """Who is taken for dead while it says that it lives is not sure of itself: it comes back as another session."""
    a = await join()
    if not is_alone:  # with somebody to clean up after, the beat waits for the account
        await (await join()).die()
    await a.go_silent()
    former = a.me
    with psycopg.connect(a.url) as other:
        other.execute("SELECT finevoice.lock(%s)", (a.account,))
        other.execute("DELETE FROM finevoice.sessions WHERE id = %s", (former,))
        beat = asyncio.create_task(a._sweep())
        await until(lambda: sql(a.url, "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))
    await asyncio.wait_for(beat, 5)
    assert a.me != former
    assert sql(a.url, "SELECT FROM finevoice.sessions WHERE id = %s", a.me)


async def test_a_beat_that_comes_just_in_time(join: Join) -> None:
    """Who says that it lives before it is taken for dead keeps its rows, though others had begun to clean up."""
    a, b = await join(plan=1), await join(plan=1)
    runs, waits = await a.submitted(), await a.wish()
    a.occupy("stranger")
    await a.go_silent()
    await b.go_silent()
    sql(a.url, "UPDATE finevoice.sessions SET beat = beat - interval '1 hour' WHERE id = %s", a.me)
    with psycopg.connect(a.url) as other:
        other.execute("SELECT finevoice.lock(%s)", (a.account,))
        beat = asyncio.create_task(b._sweep())
        await until(lambda: sql(a.url, "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))
        other.execute("UPDATE finevoice.sessions SET beat = clock_timestamp() WHERE id = %s", (a.me,))
    await asyncio.wait_for(beat, 5)
    assert sql(a.url, "SELECT id, session FROM finevoice.effects ORDER BY id") == [(runs.id, a.me), (waits.id, a.me)]
    assert ((await b.fleet()).taken, b.followed) == (2, [])


async def test_who_waited_when_it_was_taken_for_dead(join: Join, monkeypatch: pytest.MonkeyPatch) -> None:
    """Back in the fleet it waits on for what nobody else has taken, and hears of what somebody has."""
    monkeypatch.setattr("finevoice_async.adapters.postgres.journal.LOOK", 0.1)
    a, b = await join(plan=1), await join(plan=1)
    first = await b.submitted()
    left, taken = await a.wish("left"), await a.wish("taken")
    told: list[int] = []
    a.watch(taken.id, lambda: told.append(1))
    await a.go_silent()
    await until(lambda: _sessions(b, 1))
    assert await b.take(taken.id)
    told.clear()
    await a._sweep()  # it wakes
    a._beat = asyncio.create_task(a._keep_beating())
    await until(lambda: told)
    await until(lambda: sql(a.url, "SELECT session FROM finevoice.effects WHERE id = %s", left.id) == [(a.me,)])
    lost = await asyncio.wait_for(a.slots.acquire(), 20)  # whoever waits for its slot finds out, too
    assert lost.row_id == taken.id
    assert not await a.move(taken.id, Move.SEND)
    a.slots.release(lost)
    await b.move(first.id, Move.FINISH, task_id=first.task_id)
    assert (await asyncio.wait_for(a.slots.acquire(), 20)).row_id == left.id
    assert await a.move(left.id, Move.SEND)


async def _sessions(member: Member, count: int) -> bool:
    return (await member.fleet()).sessions == count


async def test_a_connection_that_is_lost(join: Join) -> None:
    """The session is back at once as another one, with its rows, and nobody adopts anything."""
    a, b = await join(plan=2, options=Fleet(beat=0.5, lease=5)), await join(plan=2, options=Fleet(beat=5, lease=15))
    runs, air, waits = await a.submitted(), await a.wish(), await a.wish()
    former = a.me
    sql(
        a.url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query LIKE '%%'",
    )
    await until(lambda: a.me != former)
    await until(lambda: b.me is not None and _sessions(b, 2))
    assert await a.move(air.id, Move.ACCEPT, task_id="t")
    assert await a.move(runs.id, Move.FINISH, task_id=runs.task_id)
    assert (await asyncio.wait_for(a.slots.acquire(), 20)).row_id == waits.id
    assert b.followed == a.followed == []


async def test_who_dies_with_the_lock(join: Join) -> None:
    """A process that is paused within a transaction holds up the others for seconds, not for ever."""
    a = await join()
    stuck = await join()
    await stuck.go_silent()
    assert stuck._line._connection is not None
    await stuck._line._connection.execute("BEGIN")
    await stuck._line._connection.execute("SELECT finevoice.lock(%s)", (stuck.account,))
    row = await asyncio.wait_for(a.wish(), 5)
    assert row.state is SENDING


# The database


@pytest.fixture
async def own(server: Server, no_leaks: object) -> AsyncIterator[Member]:
    """A session on a server of its own."""
    await schema.init(f"{server.url}/postgres")
    member = Member(f"{server.url}/postgres", options=Fleet(beat=0.1, lease=3))
    await member.open()
    yield member
    await member.aclose()


async def test_the_database_crashes(own: Member, server: Server) -> None:
    """Intents wait, facts are written once it is back, in the order of the calls; the session is the same to itself."""
    runs, air = await own.submitted("runs"), await own.wish("air")
    await asyncio.to_thread(server.crash)
    writes: list[asyncio.Future[Any]] = [
        own.begin(runs.request, key="new", state=SENDING),
        own.move(air.id, Move.ACCEPT, task_id="t"),
        own.move(runs.id, Move.FINISH, task_id=runs.task_id, urls=URLS),
    ]
    await asyncio.sleep(0.3)
    assert not any(write.done() for write in writes)
    await asyncio.to_thread(server.start)
    begun, *_ = await asyncio.wait_for(asyncio.gather(*writes), 10)
    assert begun.row.state is SENDING
    assert [row.state for row in await own.rows()] == [DONE, SUBMITTED, SENDING]


async def test_the_database_is_down_for_longer_than_a_lease(own: Member, server: Server) -> None:
    """Then nobody knows who lives; sessions come back as new ones, and what is a fact is written all the same."""
    air = await own.wish("air")
    await asyncio.to_thread(server.crash)
    await until(lambda: not own.is_sure())  # no POST that was about to leave does
    await asyncio.sleep(1.7)
    written = own.move(air.id, Move.ACCEPT, task_id="t")
    await asyncio.sleep(1.5)
    await asyncio.to_thread(server.start)
    assert await asyncio.wait_for(written, 10)
    await until(lambda: own.is_sure())
    assert (await own.get(air.id)).task_id == "t"


async def test_the_database_stands_still(own: Member, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that gives no answer is away, too; what it was asked is asked again, and done once."""
    monkeypatch.setattr("finevoice_async.adapters.postgres.line.ANSWER", 0.3)
    server.pause()
    begun = own.begin(RAIN, key="k", state=SENDING)
    await asyncio.sleep(0.6)
    assert not begun.done()
    server.go_on()
    row = (await asyncio.wait_for(begun, 30)).row
    assert row.state is SENDING
    assert [each.id for each in await own.rows()] == [row.id]


async def test_closing_while_it_is_away(own: Member, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing does not wait for ever: what could not be written says so, with its task id."""
    monkeypatch.setattr("finevoice_async.adapters.postgres.journal.CLOSE_TIMEOUT", 0.2)
    air = await own.wish("air")
    await asyncio.to_thread(server.crash)
    written = own.move(air.id, Move.ACCEPT, task_id="t")
    with pytest.raises(JournalError, match="in time"):
        await own.aclose()
    error = written.exception()
    assert isinstance(error, JournalError)
    assert error.task_id == "t"
    own.is_dead = True
    await asyncio.to_thread(server.start)


async def test_an_answer_that_is_lost_for_longer_than_a_lease(join: Join, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new row was called unknown meanwhile: asked again it gets a slot of its own, and not what is left of a hold."""
    a = await join(plan=1, options=Fleet(beat=60, lease=600))
    together, cuts = line._together, iter([True])

    async def cut(connection: Any, account: str, statements: list[Any]) -> Any:
        results = await together(connection, account, statements)
        if next(cuts, False):
            place = "clock_timestamp() + interval '1 min'"
            sql(a.url, f"UPDATE finevoice.effects SET state = 'unknown', session = NULL, place = {place}")
            sql(a.url, "UPDATE finevoice.posts SET at = at - interval '1 h'")
            raise psycopg.OperationalError("cut")
        return results

    monkeypatch.setattr(line, "_together", cut)
    assert (await a.wish("k")).state is SENDING
    assert sql(a.url, "SELECT state, session, place = 'infinity' FROM finevoice.effects") == [("sending", a.me, True)]
    ((age,),) = sql(a.url, "SELECT extract(epoch FROM clock_timestamp() - at)::float FROM finevoice.posts")
    assert age < 600, "it leaves now, and counts from now on"


async def test_what_happened_while_it_could_not_hear(join: Join, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once its connection is back, a session looks at once at what it waits for: news may have been missed."""
    monkeypatch.setattr("finevoice_async.adapters.postgres.journal.LOOK", 1e6)
    a = await join(plan=1, options=Fleet(beat=0.05, lease=60))
    await a.submitted()
    waits = await a.wish("waits")
    sql(a.url, "UPDATE finevoice.effects SET place = 'infinity' WHERE id = %s", waits.id)  # and nobody says so
    sql(a.url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'finevoice'")
    assert (await asyncio.wait_for(a.slots.acquire(), 5)).row_id == waits.id


async def test_half_a_lease_is_sure(join: Join, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session sends as long as others leave it its slots, half a lease from when it asked for its beat."""
    a = await join(options=Fleet(beat=60, lease=600))
    now = a._clock.monotonic()
    for part, is_sure in ((0.45, True), (0.55, False)):
        monkeypatch.setattr(a._membership, "seen", now - part * 600)
        assert a.is_sure() is is_sure
