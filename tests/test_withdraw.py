"""A wish is taken back: while it has not been sent, for everybody who waits for it, and for good."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from ledger.helpers import (
    DONE,
    QUEUED,
    REFUSED,
    Connect,
    FaultyJournal,
    HeldJournal,
    Left,
    all_of,
    leave,
    occupied,
    prompts,
    rows,
    the_row,
)
from parts import told

from finevoice_async import (
    Budget,
    BudgetExceededError,
    FineVoiceError,
    SubmitNotSentError,
    TaskStatus,
)
from finevoice_async.core.ledger import Move
from finevoice_async.emulator import Emulator


async def nothing_is_sent_later(connect: Connect, emulator: Emulator, path: Path, prompt: str = "door") -> None:
    """Check that neither this nor a later session sends what was withdrawn."""
    async with connect(journal=path) as session:
        await all_of(session.recover())
    assert prompt not in prompts(emulator)


async def test_while_it_is_queued(connect: Connect, emulator: Emulator, kept_in: dict[str, Any]) -> None:
    """It leaves the queue, whoever waits or comes later hears why, twice is as once, and its key is free at once."""
    async with connect(max_concurrency=1, **kept_in) as session:
        await occupied(session)
        tasks = [await session.enqueue(f"sound {number}", key=f"k{number}") for number in range(3)]
        waiting = asyncio.create_task(tasks[1].wait())
        await asyncio.sleep(0.1)
        assert await tasks[1].withdraw() is True
        assert [task.position for task in tasks] == [1, None, 2]
        assert (tasks[1].status, tasks[1].done(), tasks[1].id) == (TaskStatus.FAILED, True, None)
        for job in (waiting, asyncio.ensure_future(tasks[1].wait())):
            error = await told(job)
            assert isinstance(error, SubmitNotSentError)
            assert str(error) == "It was withdrawn. Nothing was sent and nothing paid."
            assert error.user_message.startswith("The order was taken back")
            assert error.request is not None
        assert await tasks[1].withdraw() is True
        again = await session.enqueue("another sound", key="k1")
        assert (await again).task_id in emulator.ledger.accepted
        await asyncio.gather(tasks[0], tasks[2])
    assert prompts(emulator) == ["another sound", "something else", "sound 0", "sound 2"]


async def test_for_all_who_share_it(connect: Connect, emulator: Emulator, kept_in: dict[str, Any]) -> None:
    """All callers of its key hear that it was withdrawn, also those of submit() and generate_many()."""
    async with connect(max_concurrency=1, **kept_in) as session:
        await occupied(session)
        task = await session.enqueue("door", key="k")
        calls = [asyncio.create_task(session.submit("door", key="k")), asyncio.create_task(task.wait())]
        many = asyncio.create_task(all_of(session.generate_many([{"prompt": "door", "key": "k"}])))
        await asyncio.sleep(0.1)
        found = await session.find(key="k")
        assert found is not None
        assert await found.withdraw()
        (outcome,) = await many
        for error in (*[await told(call) for call in calls], outcome.error):
            assert isinstance(error, SubmitNotSentError)
            assert "withdrawn" in str(error)
    assert prompts(emulator) == ["something else"]


async def test_while_its_row_is_written(connect: Connect, emulator: Emulator, path: Path) -> None:
    """Who finds it by its key then takes it back as soon as the row is there; who enqueued it hears that."""
    journal = HeldJournal(path, QUEUED)
    async with connect(journal=journal, max_concurrency=1) as session:
        await occupied(session)
        calls = [asyncio.create_task(call("door", key="k")) for call in (session.enqueue, session.submit)]
        await asyncio.sleep(0.1)
        finding = asyncio.create_task(session.find(key="k"))
        await asyncio.sleep(0.1)
        assert not finding.done()
        journal.go.set()
        task = await finding
        assert task is not None
        assert (task.position, await task.withdraw()) == (1, True)
        kept = await calls[0]
        assert "withdrawn" in str(await told(asyncio.ensure_future(kept.wait())))
        assert "withdrawn" in str(await told(calls[1]))
        await asyncio.sleep(30)
    assert {row.key: row.state for row in await rows(path)}["k"] is REFUSED
    await nothing_is_sent_later(connect, emulator, path)


async def test_while_its_key_is_looked_up(connect: Connect, emulator: Emulator, path: Path) -> None:
    """What proves to be done already is not taken back, whatever others take the key for."""
    await leave(path, Left(DONE, "door", key="k"))
    journal = HeldJournal(path, QUEUED)
    async with connect(journal=journal) as session:
        enqueuing = asyncio.create_task(session.enqueue("window", key="k"))
        await asyncio.sleep(0.1)
        finding = asyncio.create_task(session.find(key="k"))
        await asyncio.sleep(0.1)
        journal.go.set()
        task = await finding
        assert task is not None
        assert (task.status, await task.withdraw()) == (TaskStatus.COMPLETED, False)
        assert "another request" in str(await told(enqueuing))
    assert (await the_row(path)).state is DONE


async def test_while_it_is_held(connect: Connect, emulator: Emulator, kept_in: dict[str, Any]) -> None:
    """After a 429 it waits to be sent again: taken back it is not, and its slot is free."""
    emulator.inject("submit.rate_limit", value=20)
    async with connect(max_concurrency=1, **kept_in) as session:
        task = await session.enqueue("door", key="k")
        await asyncio.sleep(1)
        assert (emulator.ledger.posts, task.status) == (1, TaskStatus.QUEUED)
        assert await task.withdraw() is True
        await session.generate("something else")
        await asyncio.sleep(60)
        assert "withdrawn" in str(await told(asyncio.ensure_future(task.wait())))
    assert prompts(emulator) == ["something else"]
    if kept_in:
        await nothing_is_sent_later(connect, emulator, kept_in["journal"])


async def test_while_its_post_is_out(connect: Connect, emulator: Emulator, kept_in: dict[str, Any]) -> None:
    """What is on its way cannot be taken back, what runs neither, and what has ended neither."""
    emulator.inject("submit.slow", value=3)
    async with connect(**kept_in) as session:
        task = await session.enqueue("door")
        await asyncio.sleep(1)
        assert (task.status, await task.withdraw()) == (TaskStatus.QUEUED, False)
        await asyncio.sleep(2.1)
        assert (task.id is None, task.done(), await task.withdraw()) == (False, False, False)
        await task
        assert (task.status, await task.withdraw()) == (TaskStatus.COMPLETED, False)
    assert prompts(emulator) == ["door"]


async def test_an_earlier_process_queued_it(connect: Connect, emulator: Emulator, path: Path) -> None:
    """A row that was found is taken back as well: all handles on it know, and its key is free."""
    await leave(path, Left(QUEUED, "door", key="k"))
    async with connect(journal=path) as session:
        task, other = await session.find(key="k"), await session.find(key="k")
        assert task is not None
        assert other is not None
        assert (task.status, task.key, task.done()) == (TaskStatus.QUEUED, "k", False)
        assert await task.withdraw() is True
        for each in (task, other):
            assert (each.status, each.done()) == (TaskStatus.FAILED, True)
            assert "withdrawn" in str(await told(asyncio.ensure_future(each.wait())))
            assert await each.withdraw() is True
    await nothing_is_sent_later(connect, emulator, path)


async def test_a_found_row_that_somebody_takes_up(connect: Connect, emulator: Emulator, path: Path) -> None:
    """recover() takes the row up that a handle is on: the handle follows it, and takes it back while it waits."""
    await leave(path, Left(QUEUED, "door", key="k"))
    async with connect(journal=path, max_concurrency=1) as session:
        await occupied(session)
        task = await session.find(key="k")
        assert task is not None
        recovering = asyncio.create_task(all_of(session.recover()))
        await asyncio.sleep(0.1)
        assert task.position == 1
        assert await task.withdraw() is True
        told_of = [outcome for outcome in await recovering if outcome.key == "k"]
        assert [str(outcome.error) for outcome in told_of] == ["It was withdrawn. Nothing was sent and nothing paid."]
    await nothing_is_sent_later(connect, emulator, path)


async def test_whoever_made_it_has_left(connect: Connect, emulator: Emulator, path: Path) -> None:
    """The loop that had taken a row up is left, and it waits in the journal again: it can still be taken back."""
    await leave(path, Left(QUEUED, "door", key="k"))
    async with connect(journal=path, max_concurrency=1) as session:
        await occupied(session)
        recovering = asyncio.create_task(all_of(session.recover()))
        await asyncio.sleep(0.1)
        task = await session.find(key="k")
        assert task is not None
        recovering.cancel()
        await asyncio.wait([recovering])
        assert (task.status, task.done()) == (TaskStatus.QUEUED, False)
        assert await task.withdraw() is True
    await nothing_is_sent_later(connect, emulator, path)


async def test_what_was_enqueued_and_not_sent_here(connect: Connect, emulator: Emulator, path: Path) -> None:
    """What this session could not send stays queued for a later one, and can still be taken back."""
    async with connect(journal=path, max_concurrency=1, budget=Budget(effects=1)) as session:
        await occupied(session)
        task = await session.enqueue("door")
        with pytest.raises(BudgetExceededError, match="stays queued"):
            await task
        assert (task.status, task.done()) == (TaskStatus.QUEUED, False)
        assert await task.withdraw() is True
        assert await task.withdraw() is True  # twice is as once
        assert (task.status, task.done()) == (TaskStatus.FAILED, True)
    await nothing_is_sent_later(connect, emulator, path)


async def test_a_found_row_that_was_given_up(connect: Connect, emulator: Emulator, path: Path) -> None:
    """discard() has given the row up that a handle is on: there is nothing to take back, and nothing is sent."""
    await leave(path, Left(QUEUED, "door", key="k"))
    async with connect(journal=path) as session:
        task = await session.find(key="k")
        assert task is not None
        (row,) = await all_of(session.rows())
        await session.discard(row)
        assert await task.withdraw() is False
        with pytest.raises(FineVoiceError, match="Nothing was sent"):
            await task
    assert not emulator.ledger.posts


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("left", [False, True])
async def test_the_journal_fails(connect: Connect, emulator: Emulator, path: Path, left: bool, at_once: bool) -> None:
    """If it cannot be noted, whoever takes it back and whoever waits hear that it may be sent later."""
    if left:
        await leave(path, Left(QUEUED, "door", key="k"))
    async with connect(journal=FaultyJournal(path, Move.REFUSE, at_once=at_once), max_concurrency=1) as session:
        await occupied(session)
        task = await session.find(key="k") if left else await session.enqueue("door", key="k")
        assert task is not None
        waiting = asyncio.create_task(task.wait())
        await asyncio.sleep(0.1)
        for job in (asyncio.ensure_future(task.withdraw()), waiting):
            error = await told(job)
            assert isinstance(error, SubmitNotSentError)
            assert "It was withdrawn" in str(error)
            assert "recover() may send it" in str(error)
        await asyncio.sleep(30)
    assert prompts(emulator) == ["something else"]
    assert {row.key: row.state for row in await rows(path)}["k"] is QUEUED


async def test_withdrawing_is_cancelled(connect: Connect, emulator: Emulator, path: Path) -> None:
    """A call of withdraw() that is cancelled has taken it back all the same."""
    journal = HeldJournal(path, Move.REFUSE)
    async with connect(journal=journal, max_concurrency=1) as session:
        await occupied(session)
        task = await session.enqueue("door", key="k")
        waiting, call = asyncio.create_task(task.wait()), asyncio.create_task(task.withdraw())
        await asyncio.sleep(0.1)
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()
        assert not waiting.done()
        journal.go.set()
        assert "withdrawn" in str(await told(waiting))
    await nothing_is_sent_later(connect, emulator, path)
