"""What is heard late of a POST, while somebody else is about to send its effect again: it may spare that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from fleet_sessions import Sessions, journal_of
from fleets import Join, Member, sql, until
from journals import DONE, FAILED, LOST, REFUSED, SUBMITTED, UNKNOWN

from finevoice_async import FineVoiceSession, SfxTask, SubmitNotSentError
from finevoice_async.core.ledger import EffectState, JournalRow, Move
from finevoice_async.core.requests import SfxRequest
from finevoice_async.testing import EmulatedService, make_service

pytestmark = pytest.mark.real_time


async def _in_doubt(a: Member, b: Member, key: str = "k") -> JournalRow:
    """Return a row that `a` is sending, which was taken for dead, and that `b` waits to send again."""
    row = await a.wish(key)
    await a.go_silent()
    await until(lambda: b.row_ids(UNKNOWN))
    assert await b.take(row.id)
    await until(lambda: b.slots.try_acquire())
    return row


@pytest.mark.parametrize(
    ("move", "state"), [(Move.ACCEPT, SUBMITTED), (Move.ANSWER, DONE), (Move.REFUSE, REFUSED), (Move.HOLD, "queued")]
)
async def test_a_late_answer_before_it_is_sent_again(join: Join, move: Move, state: object) -> None:
    """Whatever becomes known of the first POST is taken, and the second one is not sent."""
    a, b = await join(plan=1), await join(plan=1)
    row = await _in_doubt(a, b)
    assert await a.move(row.id, move, task_id="first" if move is Move.ACCEPT else None)
    assert not await b.move(row.id, Move.RESEND)
    assert await b.state(row.id) is EffectState(state)
    assert (await b.fleet()).taken == (1 if move is Move.ACCEPT else 0)


@pytest.mark.parametrize(("move", "state"), [(Move.FINISH, DONE), (Move.FAIL, FAILED)])
async def test_a_late_end_of_what_was_lost(join: Join, move: Move, state: EffectState) -> None:
    """A task that one session could not find, and another one did: it is not sent again."""
    a, b = await join(plan=1), await join(plan=1)
    row = await a.submitted("k")
    assert await b.move(row.id, Move.LOSE, task_id=row.task_id)
    assert await b.state(row.id) is LOST
    assert await b.take(row.id)
    assert await a.move(row.id, move, task_id=row.task_id)
    await until(lambda: not b.slots.waiting_here)
    assert not await b.move(row.id, Move.RESEND)
    assert await b.state(row.id) is state


async def test_who_is_to_send_it_again_cannot_tell_what_became_of_the_first(join: Join, url: str) -> None:
    """Nothing that it says of its own try, which was not sent, is taken for the first one's: that stays counted."""
    a, b = await join(plan=1), await join(plan=1)
    row = await _in_doubt(a, b)
    for move in (Move.REVERT, Move.REFUSE, Move.HOLD):
        assert not await b.move(row.id, move)
    assert await b.let_go(row.id)
    assert await b.state(row.id) is UNKNOWN
    assert len(sql(url, "SELECT FROM finevoice.posts")) == 1


async def test_a_task_id_that_the_row_has_by_now(join: Join) -> None:
    """Named by hand while its answer was on its way, and followed to its end by others: it is kept, and no error."""
    a, b = await join(), await join()
    row = await a.wish("k")
    await a.go_silent()
    await until(lambda: b.row_ids(UNKNOWN))
    assert await b.move(row.id, Move.ADOPT, task_id="first")
    assert await a.move(row.id, Move.ACCEPT, task_id="first")
    assert await b.move(row.id, Move.FINISH, task_id="first")
    assert await a.move(row.id, Move.ACCEPT, task_id="first")
    assert not await a.move(row.id, Move.ACCEPT, task_id="another")
    assert await b.state(row.id) is DONE


async def test_who_acted_for_a_row_before_takes_it_back(join: Join) -> None:
    """It was taken for dead, and another has its rows in line now: there they are withdrawn, until they are sent."""
    a, b = await join(plan=1), await join(plan=1)
    running = await b.submitted()
    row, other = await a.wish("k"), await a.wish("l")
    await a.go_silent()
    await until(lambda: _sessions(b, 1))
    assert await b.take(row.id)
    assert await b.take(other.id)
    assert await a.withdraw(row.id, "It was withdrawn.")
    assert await b.state(row.id) is REFUSED
    assert await b.move(running.id, Move.FINISH, task_id=running.task_id)
    await until(lambda: b.slots.try_acquire())
    assert not await b.move(row.id, Move.SEND)
    assert await b.move(other.id, Move.SEND)
    assert not await a.withdraw(other.id, "It was withdrawn.")


async def test_of_two_who_take_it_in_turn_one_sends(join: Join) -> None:
    """Who was taken for dead while it waited sends nothing, and hears that another acts for it."""
    a, b, c = await join(plan=1), await join(plan=1), await join(plan=1)
    row = await _in_doubt(a, b)
    await b.go_silent()
    await until(lambda: _sessions(c, 1))
    assert await c.take(row.id)
    assert not await b.move(row.id, Move.RESEND)
    await until(lambda: c.slots.try_acquire())
    assert await c.move(row.id, Move.RESEND)
    assert not await a.move(row.id, Move.ACCEPT, task_id="first")
    assert await c.move(row.id, Move.ACCEPT, task_id="second")


async def _sessions(member: Member, count: int) -> bool:
    return (await member.fleet()).sessions == count


@pytest.fixture
def service() -> Iterator[EmulatedService]:
    """A service that lets two tasks run at once."""
    with make_service(plan_limit=2, service_time=0.3) as service:
        yield service


@pytest.fixture
async def fleet(service: EmulatedService, url: str, no_leaks: object) -> AsyncIterator[Sessions]:
    """Sessions that share a database."""
    async with Sessions(service, url) as sessions:
        yield sessions


async def _resubmitting(
    fleet: Sessions, a: Member, b: FineVoiceSession, key: str | None
) -> tuple[JournalRow, asyncio.Future[SfxTask]]:
    """Return a row whose first POST is `a`'s, and what waits in `b` to send it again, while another effect runs."""
    begun = await a.begin(SfxRequest("Rain"), key=key, state=EffectState.SENDING)
    await a.go_silent()
    await until(lambda: _unknown(b))
    await b.submit("busy")
    (row,) = await b.unknown()
    assert row.id == begun.row.id
    again = asyncio.ensure_future(b.resubmit(row, accept_double_charge=True))
    await until(lambda: journal_of(b).slots.waiting_here == [row.id])
    return row, again


async def _unknown(session: FineVoiceSession) -> bool:
    return bool(await session.unknown())


async def _member(fleet: Sessions, join: Join) -> Member:
    return await join(url=fleet.url, plan=1, key=fleet.service.api_key)


async def test_a_late_task_id_reaches_who_waits_to_send_again(fleet: Sessions, join: Join) -> None:
    """It gets that task, and nothing is paid for a second time."""
    async with fleet.service.session() as elsewhere:
        first = await elsewhere.submit("Rain")
    a, b = await _member(fleet, join), await fleet.open(max_concurrency=1)
    row, again = await _resubmitting(fleet, a, b, "k")
    assert await a.move(row.id, Move.ACCEPT, task_id=first.id)
    await a.aclose()  # so that its task is followed by who waits
    task = await asyncio.wait_for(again, 5)
    assert task.id == first.id
    assert (await task).task_id == first.id
    assert fleet.prompts == ["Rain", "busy"]


@pytest.mark.parametrize("move", [Move.HOLD, Move.REFUSE])
async def test_a_late_refusal_reaches_who_waits_to_send_again(fleet: Sessions, join: Join, move: Move) -> None:
    """The first POST cost nothing, so it is sent as any other, once."""
    a, b = await _member(fleet, join), await fleet.open(max_concurrency=1)
    row, again = await _resubmitting(fleet, a, b, "k")
    assert await a.move(row.id, move, error="429")
    task = await asyncio.wait_for(again, 10)
    assert (await task).task_id == task.id
    assert fleet.prompts == ["busy", "Rain"]


async def test_a_late_refusal_of_what_has_no_key(fleet: Sessions, join: Join) -> None:
    """Who waits to send it again hears of it: what was refused once and has no key is nobody's to begin anew."""
    a, b = await _member(fleet, join), await fleet.open(max_concurrency=1)
    row, again = await _resubmitting(fleet, a, b, None)
    assert await a.move(row.id, Move.REFUSE, error="The prompt is not allowed.")
    with pytest.raises(SubmitNotSentError, match="not allowed"):
        await asyncio.wait_for(again, 5)
    assert fleet.prompts == ["busy"]
