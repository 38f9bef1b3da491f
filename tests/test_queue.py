"""The queue: a wish is kept at once, is submitted in its turn whether anybody waits or not, and survives a crash."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from ledger.helpers import DONE, QUEUED, REFUSED, Connect, all_of, occupied, prompts, rows, turns
from lives.oracle import copy_journal
from parts import told

from finevoice_async import (
    ConfigurationError,
    FineVoiceSession,
    InvalidRequestError,
    QueueFullError,
    RequestRejectedError,
    SessionClosedError,
    SfxTask,
    SubmitUnknownError,
    TaskFailedError,
    TaskStatus,
    TaskTimeoutError,
)
from finevoice_async.emulator import Constant, Emulator

# At once


async def test_enqueue_returns_at_once(connect: Connect, emulator: Emulator, kept_in: dict[str, Any]) -> None:
    """With all slots taken each of twelve wishes is kept within 0.1 s, is told its place, and is made once."""
    emulator.service_time = Constant(10)
    loop = asyncio.get_running_loop()
    async with connect(**kept_in) as session:
        tasks = []
        for number in range(12):
            began = loop.time()
            tasks.append(await session.enqueue(f"sound {number}"))
            assert loop.time() - began < 0.1
        await asyncio.sleep(1)
        assert [task.position for task in tasks] == [None] * 5 + [1, 2, 3, 4, 5, 6, 7]
        assert [task.status is TaskStatus.QUEUED for task in tasks] == [False] * 5 + [True] * 7
        assert (tasks[-1].id, tasks[-1].submitted_at, tasks[-1].done()) == (None, None, False)
        assert repr(tasks[-1]) == f"<SfxTask {tasks[-1].key!r} queued>"
        effects = await asyncio.gather(*tasks)
        assert [task.id for task in tasks] == [effect.task_id for effect in effects]
        assert len({task.key for task in tasks}) == 12
    assert prompts(emulator) == sorted(f"sound {number}" for number in range(12))


async def test_nobody_ever_waits(connect: Connect, emulator: Emulator, kept_in: dict[str, Any]) -> None:
    """What was enqueued is made although nobody waits for it, and although its handle was dropped."""
    emulator.service_time = Constant(2)
    async with connect(max_concurrency=2, **kept_in) as session:
        for number in range(6):
            await session.enqueue(f"sound {number}")
        await asyncio.sleep(60)
        assert session.stats.completed == 6
    assert len(emulator.ledger.accepted) == 6


async def test_a_waiter_is_cancelled(connect: Connect, emulator: Emulator, kept_in: dict[str, Any]) -> None:
    """Of those who wait for a wish all are cancelled, or run out of time: it goes on."""
    async with connect(max_concurrency=1, **kept_in) as session:
        await occupied(session)
        task = await session.enqueue("door")
        waiters = [asyncio.create_task(task.wait()) for _ in range(2)]
        await asyncio.sleep(0.1)
        for waiter in waiters:
            waiter.cancel()
        with pytest.raises(TaskTimeoutError, match="still waits to be submitted"):
            await task.wait(timeout=0.5)
        await asyncio.wait(waiters)
        assert all(waiter.cancelled() for waiter in waiters)
        await asyncio.sleep(60)
        assert task.status is TaskStatus.COMPLETED
        assert (await task).task_id in emulator.ledger.accepted


async def test_submit_and_generate_leave_a_wish_alone(connect: Connect, emulator: Emulator, path: Path) -> None:
    """A caller of submit() shares a wish's key and is cancelled: the wish is made."""
    async with connect(max_concurrency=1, journal=path) as session:
        await occupied(session)
        calling = asyncio.create_task(session.submit("door", key="k"))
        await asyncio.sleep(0.1)
        task = await session.enqueue("door", key="k")
        calling.cancel()
        assert (await task).task_id in emulator.ledger.accepted
    assert prompts(emulator) == ["door", "something else"]


async def test_who_is_left_is_told_why(connect: Connect, emulator: Emulator, kept_in: dict[str, Any]) -> None:
    """Somebody holds a handle on what submit() waits for, which is cancelled: nothing was sent, says the handle."""
    async with connect(max_concurrency=1, **kept_in) as session:
        await occupied(session)
        calling = asyncio.create_task(session.submit("door", key="k"))
        await asyncio.sleep(0.1)
        task = await session.find(key="k")
        assert task is not None
        calling.cancel()
        await asyncio.sleep(0.1)
        assert task.status is TaskStatus.FAILED
        error = await told(asyncio.ensure_future(task.wait()))
        assert "Nobody waited for it any more. Nothing was sent" in str(error)
    assert prompts(emulator) == ["something else"]


# Crashes and closing


async def test_a_crash_after_enqueue(connect: Connect, emulator: Emulator, path: Path) -> None:
    """What enqueue() has returned is on disk: after a crash at that moment recover() sends it once."""
    crashed = path.with_name("crashed.db")
    async with connect(journal=path, max_concurrency=1) as session:
        await occupied(session)
        tasks = [await session.enqueue(f"sound {number}", key=f"k{number}") for number in range(8)]
        copy_journal(path, crashed)
        assert all([await task.withdraw() for task in tasks])  # so that the copy alone sends them
    assert prompts(emulator) == ["something else"]
    async with connect(journal=crashed) as session:
        outcomes = await all_of(session.recover())
        assert all(outcome.effect for outcome in outcomes)
        assert {outcome.key for outcome in outcomes} == {f"k{number}" for number in range(8)} | {None}
    assert prompts(emulator) == sorted([*[f"sound {number}" for number in range(8)], "something else"])


async def test_closed_with_a_full_queue(connect: Connect, emulator: Emulator, path: Path) -> None:
    """Wishes that were kept stay queued at closing, whoever waits hears just that, and the next session sends them."""
    async with connect(journal=path, max_concurrency=1) as session:
        await occupied(session)
        tasks = [await session.enqueue(f"sound {number}", key=f"k{number}") for number in range(4)]
        submitting = asyncio.create_task(session.submit("submitted", key="s"))
        waiting = asyncio.create_task(tasks[0].wait())
        await asyncio.sleep(0.1)
    for job in (waiting, asyncio.ensure_future(tasks[1].wait()), asyncio.ensure_future(tasks[2].withdraw())):
        error = await told(job)
        assert isinstance(error, SessionClosedError)
        assert "Nothing was sent. Its row stays queued" in str(error)
    error = await told(submitting)
    assert isinstance(error, SessionClosedError)
    assert "stays queued" not in str(error)
    assert {row.key: row.state for row in await rows(path) if row.key} == {
        "s": REFUSED,
        **{f"k{number}": QUEUED for number in range(4)},
    }
    assert prompts(emulator) == ["something else"]
    async with connect(journal=path) as session:
        task = await session.find(key="k3")
        assert task is not None
        assert (task.status, task.position, task.done(), task.estimate()) == (TaskStatus.QUEUED, None, False, None)
        assert (await task).key == "k3"
        await all_of(session.recover())
    assert prompts(emulator) == sorted([*[f"sound {number}" for number in range(4)], "something else"])


async def test_closed_while_a_wish_is_held(connect: Connect, emulator: Emulator, path: Path) -> None:
    """A wish that waits to be sent again after a 429 stays queued at closing, too."""
    emulator.inject("submit.rate_limit", value=60)
    async with connect(journal=path) as session:
        await session.enqueue("door", key="k")
        await asyncio.sleep(1)
    assert [row.state for row in await rows(path)] == [QUEUED]
    async with connect(journal=path) as session:
        assert [outcome.key for outcome in await all_of(session.recover())] == ["k"]
    assert prompts(emulator) == ["door"]


async def test_closed_without_a_journal(connect: Connect, emulator: Emulator) -> None:
    """Without a journal nothing stays: whoever waits hears that nothing was sent, and no more."""
    async with connect(max_concurrency=1) as session:
        await occupied(session)
        task = await session.enqueue("door")
    error = await told(asyncio.ensure_future(task.wait()))
    assert isinstance(error, SessionClosedError)
    assert str(error) == "The session was closed. Nothing was sent."
    assert await task.withdraw() is False


# Keys


async def test_two_enqueue_one_key_at_once(connect: Connect, emulator: Emulator, kept_in: dict[str, Any]) -> None:
    """Two wishes under one key are one effect; another request at the same time is refused."""
    async with connect(**kept_in) as session:
        one, other, strange = await asyncio.gather(
            *[session.enqueue(prompt, key="k") for prompt in ("door", "door", "window")], return_exceptions=True
        )
        assert isinstance(one, SfxTask)
        assert isinstance(other, SfxTask)
        assert isinstance(strange, InvalidRequestError)
        assert (await one).task_id == (await other).task_id
    assert prompts(emulator) == ["door"]


async def test_the_key_of_an_effect_that_runs_or_is_done(
    connect: Connect, emulator: Emulator, kept_in: dict[str, Any]
) -> None:
    """The key gives the task it has, and its effect; another request is refused."""
    async with connect(**kept_in) as session:
        first = await session.submit("door", key="k")
        running = await session.enqueue("door", key="k")
        assert (running.id, running.status) == (first.id, TaskStatus.PENDING)
        await first
        done = await session.enqueue("door", key="k")
        assert (done.id, done.done(), done.status) == (first.id, True, TaskStatus.COMPLETED)
        assert (await done).task_id == first.id
        with pytest.raises(InvalidRequestError, match="another request"):
            await session.enqueue("window", key="k")
    assert prompts(emulator) == ["door"]


async def test_the_key_of_an_effect_that_failed(connect: Connect, emulator: Emulator, kept_in: dict[str, Any]) -> None:
    """The task says that it failed; with retry_failed another is made, whose effect the key has from then on."""
    emulator.inject("task.fail")
    async with connect(**kept_in) as session:
        task = await session.enqueue("door", key="k")
        with pytest.raises(TaskFailedError):
            await task
        again = await session.enqueue("door", key="k")
        assert (again.id, again.status) == (task.id, TaskStatus.FAILED)
        with pytest.raises(TaskFailedError):
            await again
        paid = await session.enqueue("window", key="k", retry_failed=True)
        assert (await paid).task_id != task.id
        assert (await (await session.enqueue("window", key="k"))).task_id == paid.id
    assert emulator.ledger.posts == 2


async def test_the_key_of_an_effect_that_is_unknown(
    connect: Connect, emulator: Emulator, kept_in: dict[str, Any]
) -> None:
    """What may have been paid for is not sent again, whoever wishes for it."""
    emulator.inject("submit.lose_reply")
    async with connect(**kept_in) as session:
        task = await session.enqueue("door", key="k")
        with pytest.raises(SubmitUnknownError):
            await task
        assert (task.status, task.done(), task.id) == (TaskStatus.UNKNOWN, True, None)
        assert await task.withdraw() is False
        for retry in (False, True):
            with pytest.raises(SubmitUnknownError):
                await session.enqueue("door", key="k", retry_failed=retry)
    assert emulator.ledger.posts == 1


async def test_the_key_of_an_effect_that_was_refused(
    connect: Connect, emulator: Emulator, kept_in: dict[str, Any]
) -> None:
    """Its key is free, also for another request; the first task keeps its error."""
    emulator.inject("submit.reject")
    async with connect(**kept_in) as session:
        task = await session.enqueue("door", key="k")
        with pytest.raises(RequestRejectedError):
            await task
        assert (task.status, task.done()) == (TaskStatus.FAILED, True)
        effect = await (await session.enqueue("window", key="k"))
        assert effect.task_id in emulator.ledger.accepted
        with pytest.raises(RequestRejectedError):
            await task
    assert prompts(emulator) == ["window"]


# Cancellation


@pytest.mark.parametrize("moment", range(8))
@pytest.mark.parametrize("is_free", [True, False])
async def test_enqueue_is_cancelled_at_each_moment(
    connect: Connect, emulator: Emulator, path: Path, moment: int, is_free: bool
) -> None:
    """A call that was cancelled keeps no wish: it is sent by nobody, unless its POST was on its way already."""
    async with connect(journal=path, max_concurrency=1) as session:
        if not is_free:
            await occupied(session)
        calling = asyncio.create_task(session.enqueue("door", key="k"))
        await turns(moment)
        if moment >= 6:
            await asyncio.wait([calling], timeout=0.05 if moment == 7 else None)
        calling.cancel()
        await asyncio.wait([calling])
        await asyncio.sleep(60)
    found = {row.key: row.state for row in await rows(path)}
    if not calling.cancelled():
        assert found["k"] is DONE
    else:
        assert found.get("k") in (None, REFUSED)
    assert ("door" in prompts(emulator)) is not calling.cancelled()
    async with connect(journal=path) as session:
        await all_of(session.recover())
    assert ("door" in prompts(emulator)) is not calling.cancelled()


async def test_cancelled_beside_another_who_enqueues(connect: Connect, emulator: Emulator, path: Path) -> None:
    """Of two who enqueue one key the first is cancelled while the row is written: the second has its wish."""
    async with connect(journal=path) as session:
        first = asyncio.create_task(session.enqueue("door", key="k"))
        await turns(2)
        second = asyncio.create_task(session.enqueue("door", key="k"))
        await turns(2)
        first.cancel()
        task = await second
        assert (await task).task_id in emulator.ledger.accepted


# How many may wait


async def test_the_queue_is_full(connect: Connect, emulator: Emulator, kept_in: dict[str, Any]) -> None:
    """Beyond max_queue a wish is refused and leaves nothing behind; there is room again once one has its slot."""
    emulator.service_time = Constant(10)
    async with connect(max_concurrency=1, max_queue=2, **kept_in) as session:
        await occupied(session)
        tasks = [await session.enqueue(f"sound {number}") for number in range(2)]
        for call in (session.enqueue, session.submit, session.generate):
            with pytest.raises(QueueFullError, match="2 effects wait") as caught:
                await call("too much", key="k")
            assert caught.value.request is not None
        assert await session.find(key="k") is None
        await tasks[0]
        again = [await session.enqueue("again", key=key) for key in "kl"]
        with pytest.raises(QueueFullError):
            await session.enqueue("too much")
        assert await again[0].withdraw()
        await session.enqueue("and again")
        assert session.stats.waiting == 2


@pytest.mark.parametrize("max_queue", [0, -1, 1.5, True, "9"])
def test_no_queue_of_that_length(max_queue: Any) -> None:
    """It is a whole number of at least 1."""
    with pytest.raises(ConfigurationError, match="max_queue"):
        FineVoiceSession("a-key-for-tests", max_queue=max_queue)


async def test_two_loops_wait_for_room(connect: Connect, emulator: Emulator, kept_in: dict[str, Any]) -> None:
    """generate_many waits where the queue is full, also twice at once, and every request has its effect."""
    emulator.service_time = Constant(1)
    async with connect(max_concurrency=1, max_queue=1, **kept_in) as session:
        await occupied(session)
        await session.enqueue("in the way")
        loops = [session.generate_many([f"{name} {number}" for number in range(5)]) for name in "ab"]
        for outcomes in await asyncio.gather(*[all_of(each) for each in loops]):
            assert [outcome.error for outcome in outcomes] == [None] * 5
    assert len(emulator.ledger.accepted) == 12


async def test_closed_while_a_loop_waits_for_room(connect: Connect, emulator: Emulator) -> None:
    """A loop that waits for room ends as the session closes."""
    async with connect(max_concurrency=1, max_queue=1) as session:
        await occupied(session)
        await session.enqueue("in the way")
        looping = asyncio.create_task(all_of(session.generate_many(["door"])))
        await asyncio.sleep(0.1)
    (outcome,) = await looping
    assert isinstance(outcome.error, SessionClosedError)
