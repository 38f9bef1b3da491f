"""The moves of a row in a fleet: who may make which, and what becomes of its slot."""

from __future__ import annotations

import asyncio

import pytest
from fleet_lives.players import AheadClock, Player
from fleets import KEY, QUICK, Join, sql, until
from journals import DONE, FAILED, QUEUED, REFUSED, SENDING, SUBMITTED, UNKNOWN

from finevoice_async.config import Fleet
from finevoice_async.core.ledger import Move
from finevoice_async.errors import ConfigurationError, JournalError

pytestmark = pytest.mark.real_time
URLS = ("https://cdn.example/1.mp3",)


async def test_a_new_key_gets_a_free_slot_at_once(join: Join) -> None:
    """One commit: the row is SENDING, and its slot is taken."""
    a = await join(plan=1)
    before = a.commits
    first = await a.begin((await a.wish()).request, key="k", state=SENDING)
    assert (first.row.state, first.is_mine) == (QUEUED, True)  # the wish has the only slot
    assert a.commits == before + 2
    assert (await a.fleet()).taken == 1


async def test_what_gets_its_slot_at_once_is_written_once(join: Join, url: str) -> None:
    """Its row is the first that the table has, and was not changed since; nor does it overtake who waits."""
    a = await join(plan=2)
    first = await a.wish("first")
    assert sql(url, "SELECT state, ctid::text FROM finevoice.effects") == [("sending", "(0,1)")]
    sql(url, "UPDATE finevoice.sessions SET plan = 1")
    waits = await a.wish("second")
    sql(url, "UPDATE finevoice.sessions SET plan = 2")  # a slot is free, and nobody has been told
    assert (await a.wish("third")).state is QUEUED
    assert (await a.slots.acquire()).row_id == waits.id
    assert await a.state(first.id) is SENDING


async def test_calls_that_wait_together_are_one_transaction(join: Join, url: str) -> None:
    """However many they are, the server writes them in one, and none of them is written where one cannot be."""
    a = await join(plan=100)
    before = a.commits
    rows = await asyncio.gather(*[a.wish(f"{number}") for number in range(20)])
    assert len(rows) == 20
    assert a.commits <= before + 2  # the first may have left alone
    assert len(sql(url, "SELECT DISTINCT xmin::text FROM finevoice.effects")) <= 2


async def test_a_key_has_one_row_in_the_whole_fleet(join: Join) -> None:
    """Of two sessions that begin one key at once, one sends; the other hears that somebody who lives does."""
    a, b = await join(), await join()
    request = (await a.wish("other")).request
    begun = await asyncio.gather(*[each.begin(request, key="k", state=SENDING) for each in (a, b)])
    assert sorted(each.is_mine for each in begun) == [False, True]
    assert sorted(each.elsewhere for each in begun) == [False, True]
    assert len({each.row.id for each in begun}) == 1


@pytest.mark.parametrize("move", [Move.REFUSE, Move.FAIL])
async def test_a_refused_key_is_anybodys(join: Join, move: Move) -> None:
    """A key that was refused, or failed and is tried again, is begun anew by whoever comes, with its own request."""
    a, b = await join(), await join()
    row = await a.submitted("k") if move is Move.FAIL else await a.wish("k")
    assert await a.move(row.id, move, error="no")
    again = await b.wish("k", prompt="Wind", again=Move.RETRY)
    assert (again.id, again.state, again.request.prompt, again.error) == (row.id, SENDING, "Wind", None)


async def test_a_key_that_nobody_acts_for(join: Join) -> None:
    """A queued row whose session left is the next caller's, for the same request alone; it is no new one."""
    a, b = await join(plan=1), await join(plan=1)
    await a.wish("first")
    row = await a.wish("k")
    await a.aclose()
    other = await b.begin((await b.wish(prompt="Wind")).request, key="k", state=SENDING)
    assert (other.is_mine, other.elsewhere, other.row.state) == (False, False, QUEUED)
    begun = await b.begin(row.request, key="k", state=SENDING)
    assert (begun.is_mine, begun.elsewhere, begun.row.id) == (False, False, row.id)
    assert begun.row.state is QUEUED
    assert row.id in b.slots.waiting_here


async def test_a_slot_that_is_freed_goes_on_at_once(join: Join) -> None:
    """Whoever learns that a task has ended frees its slot in that commit, and who waits elsewhere hears."""
    a, b = await join(plan=1), await join(plan=1)
    row = await a.submitted()
    waits = await b.wish()
    slot = asyncio.ensure_future(b.slots.acquire())
    assert await a.move(row.id, Move.FINISH, task_id=row.task_id, urls=URLS)
    assert (await asyncio.wait_for(slot, 20)).row_id == waits.id
    assert await b.move(waits.id, Move.SEND)
    assert (await b.fleet()).taken == 1


async def test_nothing_is_sent_without_slot_owner_and_claim(join: Join) -> None:
    """SEND is refused to who has no slot, to who does not act for the row, and to who acted for it before."""
    a, b = await join(plan=1), await join(plan=1)
    running = await a.wish("running")
    row = await a.wish("k")
    assert not await a.move(row.id, Move.SEND)  # no slot
    assert not await b.move(row.id, Move.SEND)  # not its row
    await a.go_silent()
    await until(lambda: b.row_ids(UNKNOWN))
    assert await b.take(row.id)
    await until(lambda: b.slots.try_acquire())
    assert await b.move(row.id, Move.SEND)
    assert not await a.move(row.id, Move.SEND)  # not its row any more
    assert await b.state(running.id) is UNKNOWN


async def test_a_fact_is_taken_from_whoever_was_taken_for_dead(join: Join) -> None:
    """The POST of a session that was taken for dead settles its own row: it names its claim."""
    a, b = await join(), await join()
    accepted, refused = await a.wish("accepted"), await a.wish("refused")
    await a.go_silent()
    await until(lambda: b.row_ids(UNKNOWN))
    assert await a.move(accepted.id, Move.ACCEPT, task_id="t")
    assert await a.move(refused.id, Move.REFUSE, error="no credits")
    assert (await b.get(accepted.id)).task_id == "t"
    assert await b.state(refused.id) is REFUSED
    assert len(await b.sent_since((await b.get(accepted.id)).created_at)) == 1
    await until(lambda: [row.id for row in b.followed] == [accepted.id])


async def test_a_fact_of_an_earlier_claim_moves_nothing(join: Join) -> None:
    """Once the user has it sent again, what comes of the first POST moves nothing; but its task id is kept."""
    a, b = await join(), await join()
    row = await a.wish("k")
    await a.go_silent()
    await until(lambda: b.row_ids(UNKNOWN))
    assert await b.take(row.id)
    await until(lambda: b.slots.try_acquire())
    assert await b.move(row.id, Move.RESEND)
    assert not await a.move(row.id, Move.ACCEPT, task_id="first")
    assert not await a.move(row.id, Move.REFUSE)
    assert await b.move(row.id, Move.ACCEPT, task_id="second")
    assert sql(a.url, "SELECT task_id, past_task_ids FROM finevoice.effects") == [("second", "first\n")]


async def test_only_one_sends_an_unknown_row_again(join: Join) -> None:
    """Of two who have it sent again, and of one who saw an earlier claim, one does."""
    a, b, c = await join(), await join(), await join()
    row = await a.wish("k")
    assert await a.move(row.id, Move.DOUBT, error="lost")
    taken = await asyncio.gather(b.take(row.id), c.take(row.id))
    assert sorted(taken) == [False, True]
    ((claim,),) = sql(a.url, "SELECT claim FROM finevoice.effects")
    assert not await a.take(row.id, claim=claim)  # somebody who lives has it
    assert not await a.take(row.id, claim=claim - 1)


async def test_what_is_unknown_keeps_its_slot_for_a_while(join: Join) -> None:
    """It may run; after `hold` its slot goes on, at the next beat."""
    a = await join(plan=1, options=Fleet(beat=0.05, lease=5, hold=0.6))
    row = await a.wish()
    await a.move(row.id, Move.DOUBT, error="lost")
    waits = await a.wish()
    assert waits.state is QUEUED
    slot = asyncio.ensure_future(a.slots.acquire())
    await asyncio.sleep(0.3)
    assert not slot.done()
    assert (await asyncio.wait_for(slot, 20)).row_id == waits.id


async def test_what_certainly_was_not_accepted_frees_its_slot(join: Join) -> None:
    """A refusal frees it at once; what is held to be sent again keeps it."""
    a = await join(plan=1)
    row = await a.wish()
    assert await a.move(row.id, Move.HOLD, error="429")
    assert (await a.fleet()).taken == 1
    assert await a.move(row.id, Move.SEND)
    assert await a.move(row.id, Move.REFUSE, error="no")
    assert (await a.fleet()).taken == 0


async def test_whoever_gives_a_row_up_frees_it(join: Join) -> None:
    """A slot that was taken up for a row which is not sent after all goes on, and the row is anybody's."""
    a, b = await join(plan=1), await join(plan=1)
    row = await a.wish("k")
    assert await a.move(row.id, Move.HOLD)
    waits = await b.wish()
    a.slots.release(a.slots.taken_up(row.id))
    assert (await asyncio.wait_for(b.slots.acquire(), 20)).row_id == waits.id
    begun = await b.begin(row.request, key="k", state=QUEUED)
    assert not begun.elsewhere


async def test_leaving(join: Join) -> None:
    """What runs keeps its slot and is followed by another; what waited gives way; what was in the air is unknown."""
    a, b = await join(plan=2), await join(plan=2)
    runs = await a.submitted("runs")
    air = await a.wish("in the air")
    queued = await a.wish("queued")
    waits = await b.wish("waits")
    await a.aclose()
    assert await until(lambda: [row.id for row in b.followed] == [runs.id]) < 1.5
    assert [await b.state(row.id) for row in (air, queued, waits)] == [UNKNOWN, QUEUED, QUEUED]
    assert (await b.fleet()).sessions == 1
    await asyncio.wait_for(b.slots.acquire(), 20)  # once the hold is over
    stats = await b.fleet()
    assert (stats.taken, stats.running, stats.unknown) == (2, 1, 1)


async def test_nobody_adopts_who_does_not_want_to(join: Join) -> None:
    """With adopt=False a session follows its own tasks; who asks for the key follows it."""
    a, b = await join(), await join(options=Fleet(beat=0.05, lease=1, adopt=False))
    row = await a.submitted("k")
    await a.aclose()
    await asyncio.sleep(0.3)
    assert b.followed == []
    begun = await b.begin(row.request, key="k", state=SENDING)
    assert (begun.row.state, begun.is_mine, begun.elsewhere) == (SUBMITTED, False, False)


async def test_watching(join: Join) -> None:
    """Whoever watches a row hears of what another session makes of it, soon, until it watches no more."""
    a, b = await join(), await join()
    row = await a.submitted("k")
    told: list[float] = []
    end = b.watch(row.id, lambda: told.append(1))
    await a.move(row.id, Move.FINISH, task_id=row.task_id, urls=URLS)
    assert await until(lambda: told) < 2
    assert (await b.get(row.id)).urls == URLS
    end()
    told.clear()
    await a.move(row.id, Move.SAVE, path="/p")
    await asyncio.sleep(0.1)
    assert told == []


async def test_news_that_is_lost(join: Join, monkeypatch: pytest.MonkeyPatch) -> None:
    """What changed without news is seen at the next look: a watched row, and a slot that was given."""
    monkeypatch.setattr("finevoice_async.adapters.postgres.journal.LOOK", 0.1)
    a = await join(plan=1)
    row = await a.submitted("k")
    waits = await a.wish()
    told: list[int] = []
    a.watch(row.id, lambda: told.append(1))
    await until(lambda: told)  # the first look tells in any case
    told.clear()
    sql(a.url, "UPDATE finevoice.effects SET state = 'done', place = NULL, session = NULL WHERE id = %s", row.id)
    sql(a.url, "UPDATE finevoice.effects SET place = 'infinity' WHERE id = %s", waits.id)
    await until(lambda: told)
    assert (await asyncio.wait_for(a.slots.acquire(), 20)).row_id == waits.id


async def test_two_keys_do_not_see_each_other(join: Join) -> None:
    """Two fleets in one database share nothing but its tables; the key itself is nowhere."""
    a, b = await join(plan=1, key="fv-secret-one"), await join(plan=1, key="fv-secret-two")
    row = await a.submitted("k")
    assert await b.row(row_id=row.id) is await b.row(key="k") is await b.row(task_id=row.task_id) is None
    assert [await b.rows(), await b.row_ids(), await b.sent_since(row.created_at)] == [[], [], []]
    with pytest.raises(JournalError, match="there is no such row"):
        await b.move(row.id, Move.FAIL)
    a.store("note", "one")
    assert await b.load("note") is None
    assert (await b.wish("k")).state is SENDING
    assert (await b.fleet()).sessions == 1
    await a.aclose()
    await asyncio.sleep(0.2)
    assert b.followed == []
    for table in ("accounts", "sessions", "effects", "notes", "posts"):
        assert "fv-secret" not in str(sql(a.url, f"SELECT t::text FROM finevoice.{table} t"))


async def test_a_task_without_a_row_takes_a_slot(join: Join) -> None:
    """An attached id that runs counts; freed by hand, or with its session."""
    a, b = await join(plan=1), await join(plan=1)
    slot = a.slots.occupy(task_id="stranger")
    await until(lambda: _taken(b, 1))
    waits = await b.wish()
    assert waits.state is QUEUED
    a.slots.release(slot)
    assert (await asyncio.wait_for(b.slots.acquire(), 20)).row_id == waits.id
    a.slots.occupy(task_id="another")
    await until(lambda: _taken(b, 2))
    await a.die()
    await until(lambda: _taken(b, 1))


async def _taken(member: object, count: int) -> bool:
    stats = await member.fleet()  # type: ignore[attr-defined]  # it is a Member
    return bool(stats.taken == count)


async def test_a_429_slows_the_whole_fleet_down(join: Join) -> None:
    """One slot fewer than were taken, for everybody, for a while; then they come back."""
    a, b = await join(plan=3), await join(plan=3)
    rows = [await a.submitted() for _ in range(3)]
    a.slots.slow_down(0.3)
    await a.load("anything behind it")
    assert (await b.fleet()).plan == 2
    await a.move(rows[0].id, Move.FAIL, task_id=rows[0].task_id)
    assert (await b.wish()).state is QUEUED
    await until(lambda: b.slots.try_acquire())
    assert (await b.fleet()).plan == 3
    assert await a.state(rows[0].id) is FAILED


async def test_the_least_plan_counts(join: Join) -> None:
    """A change from 2 to 4 may roll: as long as one session knows of 2, there are 2."""
    a, b = await join(plan=2), await join(plan=4)
    assert (await b.fleet()).plan == 2
    waiting = [await b.wish() for _ in range(5)]
    assert [row.state for row in waiting] == [SENDING] * 2 + [QUEUED] * 3
    await a.aclose()
    await until(lambda: b.slots.try_acquire())
    await until(lambda: b.slots.try_acquire())
    assert b.slots.try_acquire() is None
    assert DONE not in [await b.state(row.id) for row in waiting]


def test_the_options_are_checked() -> None:
    """A lease must be longer than two beats."""
    with pytest.raises(ConfigurationError, match="more than twice the beat"):
        Fleet(beat=5, lease=10)
    assert QUICK.adopt


@pytest.mark.parametrize("is_told", [True, False])
@pytest.mark.parametrize("move", [Move.ADOPT, Move.DISCARD])
async def test_who_knows_an_old_claim_may_settle_the_row(join: Join, move: Move, is_told: bool) -> None:
    """What a caller decides of a row goes by how the row is, not by the POST that this session once made of it."""
    a, b = await join(), await join()
    row = await a.wish("k")
    await a.go_silent()
    await until(lambda: b.row_ids(UNKNOWN))
    assert await b.take(row.id)
    await b.slots.acquire()
    assert await b.move(row.id, Move.RESEND)
    assert await b.move(row.id, Move.DOUBT)
    if is_told:
        assert not await a.move(row.id, Move.ACCEPT, task_id="first")
    assert await a.state(row.id) is UNKNOWN
    assert await a.move(row.id, move, task_id="first" if move is Move.ADOPT else None)
    if move is Move.ADOPT:
        assert await a.move(row.id, Move.FINISH, task_id="first", urls=URLS)


async def test_who_knows_an_old_claim_may_save_what_another_made(join: Join) -> None:
    """A row that was taken from a session while it was silent, and was made elsewhere, is saved by it all the same."""
    a, b = await join(plan=1), await join(plan=1)
    first = await b.submitted()
    row = await a.wish("k")
    await a.go_silent()
    await until(lambda: sql(a.url, "SELECT FROM finevoice.effects WHERE key = 'k' AND session IS NULL"))
    assert await b.move(first.id, Move.FINISH, task_id=first.task_id)
    assert await b.take(row.id)
    await b.slots.acquire()
    assert await b.move(row.id, Move.SEND)
    assert await b.move(row.id, Move.ACCEPT, task_id="t")
    assert await b.move(row.id, Move.FINISH, task_id="t", urls=URLS)
    assert await a.move(row.id, Move.SAVE, path="/p")


async def test_letting_go_when_the_answer_is_lost(url: str, no_leaks: object) -> None:
    """Asked again, the store says that the row is nobody's, and the session knows no claim of it any more."""
    player = Player(url, AheadClock(), plan=1, key=KEY, budget=None, adopts=True)
    await player.start()
    row = await player.wish("k", state=QUEUED)
    player.line.lost = 1
    assert await player.let_go(row.id)
    assert player.claim_of(row.id) is None
    assert not await player.let_go(row.id)
    await player.aclose()
