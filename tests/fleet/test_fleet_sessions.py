"""Whole sessions in a fleet: one plan, one row a key, one poller a task, and the same news for all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import attrs
import pytest
from fleet_sessions import SOON, Sessions, journal_of, timed
from fleets import QUICK, sql, until

from finevoice_async import (
    Budget,
    BudgetExceededError,
    EffectState,
    FineVoiceSession,
    InvalidRequestError,
    RequestRejectedError,
    SubmitNotSentError,
    TaskStatus,
)
from finevoice_async.core.ledger import Move
from finevoice_async.testing import EmulatedService, make_service

pytestmark = pytest.mark.real_time


@pytest.fixture
def service() -> Iterator[EmulatedService]:
    """A service that lets two tasks run at once, for a fifth of a second each."""
    with make_service(plan_limit=2, service_time=0.2) as service:
        yield service


@pytest.fixture
async def fleet(service: EmulatedService, url: str, no_leaks: object) -> AsyncIterator[Sessions]:
    """Sessions that share a database."""
    async with Sessions(service, url) as sessions:
        yield sessions


async def test_two_sessions_share_a_plan(fleet: Sessions) -> None:
    """Together they never have more tasks than the plan allows, and keep it full."""
    a, b = await fleet.open(), await fleet.open()
    wishes = [
        each.generate(f"{number}", key=None if number % 2 else f"{number}") for number in range(8) for each in (a, b)
    ]
    effects = await asyncio.gather(*wishes)
    ledger = fleet.service.ledger
    assert (ledger.most_running, ledger.rate_limited) == (2, 0)
    assert ledger.posts == len({effect.task_id for effect in effects}) == 12  # four keys are both sessions'


async def test_a_key_is_one_effect_in_the_whole_fleet(fleet: Sessions) -> None:
    """Of two that want a key at once one submits and asks; the other hears as soon, and nothing is paid twice."""
    a, b = await fleet.open(), await fleet.open()
    (first, at), (second, heard_at) = await asyncio.gather(
        timed(a.generate("Door", key="k")), timed(b.generate("Door", key="k"))
    )
    assert first.task_id == second.task_id
    assert abs(heard_at - at) < SOON
    assert fleet.service.ledger.posts == 1
    assert sorted(each.stats.submitted for each in (a, b)) == [0, 1]
    assert min(a.stats.polls, b.stats.polls) == 0
    assert await first.read() == await second.read()


async def test_one_awaits_what_another_submitted(fleet: Sessions) -> None:
    """Found by its key or its task id it is followed: no slot, no poll, and its end within a moment."""
    a, b = await fleet.open(), await fleet.open()
    task = await a.submit("Door", key="k")
    found = await b.find(key="k")
    attached = await b.attach(str(task.id))
    assert found is not None
    assert (found.id, found.key, found.status, found.request) == (task.id, "k", TaskStatus.PENDING, task.request)
    effects = await asyncio.gather(timed(task), timed(found), timed(attached))
    assert max(at for _, at in effects) - effects[0][1] < SOON
    assert {effect.task_id for effect, _ in effects} == {task.id}
    assert (b.stats.polls, b.stats.running, (await b.fleet()).taken) == (0, 0, 0)
    await until(lambda: not journal_of(b)._watchers.row_ids)  # nor is it watched any more


async def test_a_wish_for_what_another_session_makes(fleet: Sessions) -> None:
    """To enqueue it, too, gives a handle that shows how it goes on, and the same effect."""
    fleet.service.inject("task.never_ends")
    a, b = await fleet.open(max_concurrency=1), await fleet.open(max_concurrency=1)
    blocking = await a.submit("for ever")
    task = await a.enqueue("Door", key="k")
    wish = await b.enqueue("Door", key="k")
    assert (wish.status, wish.id, b.stats.waiting) == (TaskStatus.QUEUED, None, 0)
    await until(lambda: wish.position == 1)
    assert await journal_of(a).move(1, Move.FAIL, task_id=blocking.id)
    await until(lambda: wish.id is not None)
    assert (wish.id, wish.status) == (task.id, TaskStatus.PENDING)
    assert [update.status async for update in wish.updates()][-1] is TaskStatus.COMPLETED
    assert wish.done()
    assert (await wish).task_id == (await task).task_id


async def test_what_is_taken_up_keeps_its_owner(fleet: Sessions) -> None:
    """A row that one session left waits on behalf of the same owner in another."""
    fleet.service.inject("task.never_ends")
    a, b = await fleet.open(max_concurrency=1), await fleet.open(max_concurrency=1)
    blocking = await a.submit("for ever")
    await a.enqueue("Door", key="k", owner="one")
    await a.aclose()
    found = await b.find(key="k")
    assert found is not None
    wait = asyncio.ensure_future(found.wait())
    await until(lambda: journal_of(b).slots.waiting_here)
    assert sql(fleet.url, "SELECT owner, line FROM finevoice.effects WHERE key = 'k'") == [("one", "owner one")]
    assert await journal_of(b).move(1, Move.FAIL, task_id=blocking.id)
    await wait


async def test_a_request_that_a_key_is_not_for(fleet: Sessions) -> None:
    """A key of another session's stands for its request alone."""
    a, b = await fleet.open(), await fleet.open()
    await a.submit("Door", key="k")
    with pytest.raises(InvalidRequestError, match="another request"):
        await b.submit("Wind", key="k")
    assert fleet.service.ledger.posts == 1


async def test_who_follows_goes_on_with_what_was_left(fleet: Sessions) -> None:
    """A session that closes with the effect queued leaves it to whoever waits for it elsewhere."""
    fleet.service.inject("task.never_ends")
    a, b = await fleet.open(max_concurrency=1), await fleet.open(max_concurrency=1)
    blocking = await a.submit("for ever")
    queued = await a.enqueue("Door", key="k")
    wanted = asyncio.ensure_future(b.generate("Door", key="k"))
    await until(lambda: "Following 1" in repr(b._parts._following))
    await a.aclose()
    assert not wanted.done()
    assert queued.status is TaskStatus.QUEUED
    assert await journal_of(b).move(1, Move.FAIL, task_id=blocking.id)
    assert (await wanted).key == "k"
    assert fleet.service.ledger.posts == 2


async def test_all_who_follow_go_on_as_one(fleet: Sessions) -> None:
    """A handle that was found, and a caller of the same key, share what they take up together."""
    fleet.service.inject("task.never_ends")
    a, b = await fleet.open(max_concurrency=1), await fleet.open(max_concurrency=1)
    blocking = await a.submit("for ever")
    await a.enqueue("Door", key="k")
    found = await b.find(key="k")
    assert found is not None
    waits = [asyncio.ensure_future(wait) for wait in (found.wait(), b.generate("Door", key="k"))]
    again = await b.find(key="k")
    assert again is not None
    waits.append(asyncio.ensure_future(again.wait()))
    await asyncio.sleep(0.1)
    await a.aclose()
    await until(lambda: journal_of(b).slots.waiting_here)
    assert await journal_of(b).move(1, Move.FAIL, task_id=blocking.id)
    effects = await asyncio.gather(*waits)
    assert len({effect.task_id for effect in effects}) == 1
    assert fleet.service.ledger.posts == 2


async def test_what_runs_keeps_its_slot_and_finds_another_owner(fleet: Sessions) -> None:
    """A session that closes leaves its tasks, with their slots, to one that lives, whoever awaits them."""
    fleet.service.service_time = 0.6
    a, b = await fleet.open(max_concurrency=1), await fleet.open(max_concurrency=1)
    task = await a.submit("Door", key="k")
    followed = asyncio.ensure_future(b.generate("Door", key="k"))
    other = asyncio.ensure_future(b.generate("Wind"))
    await until(lambda: b.stats.waiting == 1)
    await a.aclose()
    assert (await b.fleet()).taken == 1
    assert (await followed).task_id == task.id
    await other
    ledger = fleet.service.ledger
    assert (ledger.most_running, ledger.rate_limited, ledger.posts) == (1, 0, 2)
    assert b.stats.polls > 0


async def test_a_task_that_nobody_followed_is_asked_for_by_who_meets_it(fleet: Sessions) -> None:
    """Where nobody adopts, a look at a row that runs makes it one's own, also if whoever looked has gone by then."""
    fleet.service.service_time = 0.4
    keeps_off = attrs.evolve(QUICK, adopt=False)
    a, b = await fleet.open(fleet=keeps_off), await fleet.open(fleet=keeps_off)
    task = await a.submit("Door", key="k")
    await a.aclose()
    with pytest.raises(InvalidRequestError, match="another request"):
        await b.submit("Wind", key="k")
    assert b.stats.running == 0
    (row,) = [row async for row in b.rows()]
    looks = journal_of(b).whose(row.id)
    looks.cancel()
    await until(lambda: b.stats.running == 1)
    assert (await b.generate("Door", key="k")).task_id == task.id
    assert (await b.fleet()).taken == 0


async def test_a_caller_who_leaves_takes_nothing_from_another_session(fleet: Sessions) -> None:
    """The effect is withdrawn by its only caller here, but somebody waits for it there: it is made."""
    fleet.service.service_time = 0.4
    a, b = await fleet.open(max_concurrency=1), await fleet.open(max_concurrency=1)
    running = await a.submit("first")
    wish = asyncio.ensure_future(a.generate("Door", key="k"))
    await until(lambda: journal_of(a).slots.waiting_here)
    other = asyncio.ensure_future(b.generate("Door", key="k"))
    await until(lambda: "Following 1" in repr(b._parts._following))
    wish.cancel()
    effect = await other
    await running
    assert fleet.prompts == ["first", "Door"]
    assert effect.key == "k"


async def test_withdrawn_elsewhere(fleet: Sessions) -> None:
    """Whoever has a handle may withdraw what waits, in any session; all who wait for it hear."""
    fleet.service.service_time = 0.5
    a, b = await fleet.open(max_concurrency=1), await fleet.open(max_concurrency=1)
    running = await a.submit("first")
    wish = await a.enqueue("Door", key="k")
    found = await b.find(key="k")
    assert found is not None
    waits = [asyncio.ensure_future(each.wait()) for each in (wish, found)]
    await asyncio.sleep(0)
    assert await found.withdraw()
    for wait in waits:
        with pytest.raises(SubmitNotSentError, match="withdrawn"):
            await wait
    await running
    assert fleet.prompts == ["first"]
    assert not await found.withdraw()


async def test_what_the_service_refuses_elsewhere(fleet: Sessions) -> None:
    """Who follows a submission that the service refuses hears it from the service, too; nothing is paid."""
    fleet.service.inject("submit.slow", value=0.2)
    fleet.service.inject("submit.refuse", times=5)
    a, b = await fleet.open(), await fleet.open()
    await a.submit("first")
    results = await asyncio.gather(*[each.generate("Door", key="k") for each in (a, b)], return_exceptions=True)
    assert [type(result) for result in results] == [RequestRejectedError] * 2
    assert [row.state async for row in a.rows() if row.key == "k"] == [EffectState.REFUSED]


async def test_recover_takes_what_nobody_acts_for(fleet: Sessions) -> None:
    """Rows of living sessions are theirs: `recover` and `unknown` give none that is being sent, waits or runs."""
    fleet.service.inject("submit.slow", value=0.5)
    a, b = await fleet.open(max_concurrency=1), await fleet.open(max_concurrency=1)
    sending = asyncio.ensure_future(a.submit("sending"))
    await until(lambda: a.stats.submitting == 1)
    waits = await a.enqueue("waits", key="w")
    assert await b.unknown() == []
    assert [outcome async for outcome in b.recover()] == []
    assert waits.status is TaskStatus.QUEUED
    await (await sending)
    await waits
    assert [outcome.key async for outcome in b.recover()] == [None, "w"]  # made, and saved by nobody


async def test_rows_are_settled_by_one(fleet: Sessions) -> None:
    """What is unknown can be sent again, named or given up by any session, once."""
    fleet.service.inject("submit.lose_reply", times=3)
    a, b = await fleet.open(), await fleet.open()
    for key in ("again", "named", "given up"):
        with pytest.raises(Exception, match="may have been accepted"):
            await a.submit(key, key=key)
    again, named, given_up = await b.unknown()
    ids = dict(zip(fleet.prompts, fleet.service.ledger.accepted, strict=True))
    task = await b.resubmit(again, accept_double_charge=True)
    with pytest.raises(InvalidRequestError):
        await a.resubmit(again, accept_double_charge=True)
    adopted = await b.adopt(named, task_id=ids["named"])
    await b.discard(given_up)
    assert await a.unknown() == []
    assert (await a.generate("again", key="again")).task_id == (await task).task_id
    assert (await a.generate("named", key="named")).task_id == (await adopted).task_id == ids["named"]
    assert fleet.service.ledger.posts == 4


async def test_where_it_stands_in_the_fleets_line(fleet: Sessions) -> None:
    """Position and estimate go by all who wait, and the fleet's counts by all sessions."""
    fleet.service.service_time = 0.4
    a, b = await fleet.open(max_concurrency=1), await fleet.open(max_concurrency=1)
    await a.generate("teaches")
    first = await a.submit("first")
    waiting = [await a.enqueue(f"a{number}", owner="one") for number in range(3)]
    last = await b.enqueue("b", owner="one")
    await until(lambda: last.position == 4)
    assert [task.position for task in waiting] == [1, 2, 3]
    stats = await b.fleet()
    assert (stats.sessions, stats.plan, stats.running, stats.waiting, stats.done) == (2, 1, 1, 4, 1)
    assert stats.longest_wait > 0
    await asyncio.gather(first, *waiting, last)
    assert fleet.prompts[-1] == "b"


async def test_a_request_of_one_passes_a_batch_of_another(fleet: Sessions) -> None:
    """Behind a batch of 60, somebody else's request goes among the next six."""
    fleet.service.service_time = 0.02
    a, b = await fleet.open(), await fleet.open()
    batch = [await a.enqueue(f"batch {number}") for number in range(60)]
    await until(lambda: len(fleet.prompts) >= 5)
    seen = len(fleet.prompts)
    await b.generate("web")
    await asyncio.gather(*batch)
    assert fleet.prompts.index("web") - seen < 6 + 1


async def test_three_commits_an_effect(fleet: Sessions) -> None:
    """As many as an effect has moves, where a slot is free; who waits shares some with others."""
    a = await fleet.open()
    before = journal_of(a).commits
    for number in range(4):
        await a.generate(f"{number}", key=f"{number}")
    assert await _written(a, 4)
    assert journal_of(a).commits - before <= 3 * 4


async def _written(session: FineVoiceSession, count: int) -> bool:
    """Wait until the ends of so many effects are on disk."""

    async def are_done() -> bool:
        return (await session.fleet()).done == count

    return await until(are_done) >= 0


async def test_a_budget_is_the_fleets(fleet: Sessions) -> None:
    """What others have submitted in its time counts; what is beyond it is not sent, and says when the next may be."""
    budget = Budget(effects=3, per=timedelta(minutes=1))
    a, b = await fleet.open(budget=budget), await fleet.open(budget=budget)
    results = await asyncio.gather(
        *[each.generate(f"{number}", key=f"{number}") for number, each in enumerate((a, b, a, b, b))],
        return_exceptions=True,
    )
    errors = [result for result in results if isinstance(result, BaseException)]
    assert [type(error) for error in errors] == [BudgetExceededError] * 2
    assert all(0 < (error.retry_after or 0) <= 60 for error in errors if isinstance(error, BudgetExceededError))
    assert fleet.service.ledger.posts == 3
    assert [row async for row in a.rows(EffectState.SENDING, EffectState.UNKNOWN)] == []


async def test_keys_in_one_database(url: str, no_leaks: object) -> None:
    """Two keys of the service do not see each other: neither rows nor slots."""
    with make_service(plan_limit=1) as one, make_service(plan_limit=1) as other:
        async with Sessions(one, url) as ones, Sessions(other, url) as others:
            a, b = await ones.open(max_concurrency=1), await others.open(api_key=one.api_key + "x", max_concurrency=1)
            assert await b.find(key="k") is None
            one.inject("task.never_ends")
            await a.submit("Door", key="k")
            assert await b.find(key="k") is None
            assert (await b.fleet()).sessions == 1
            began = time.monotonic()
            with pytest.raises(Exception, match="key"):  # the emulator knows one key alone
                await b.submit("Wind", key="k")
            assert time.monotonic() - began < 2
