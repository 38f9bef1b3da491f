"""404s of polls, and the ages of tasks that an earlier process submitted."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from ledger.helpers import (
    ACCEPTED,
    DONE,
    FINISHED,
    LOST,
    RUNNING,
    SUBMITTED,
    Connect,
    Left,
    Visit,
    all_of,
    in_turn,
    leave,
    the_row,
)
from raw_server import RawServer

from finevoice_async import Polling, TaskNotFoundError
from finevoice_async.emulator import Constant, Emulator

MISSING = b'{"detail": "Task not found"}'
RUNS, GONE, ENDS = (200, RUNNING), (404, MISSING), (200, FINISHED)
HOUR = 3600


@pytest.mark.parametrize(
    "polls",
    [
        [RUNS] * 7 + [GONE, ENDS],
        [RUNS] * 7 + [GONE] * 4 + [RUNS, ENDS],
        [RUNS] * 7 + [GONE, RUNS] * 10 + [ENDS],
        [RUNS] * 7 + [GONE, GONE, RUNS] * 5 + [ENDS],
        [GONE] * 3 + [RUNS] * 5 + [GONE] * 3 + [ENDS],
    ],
    ids=["once", "nearly a grace", "every other", "two of three", "before and after"],
)
async def test_a_task_that_was_seen_bears_404s(visit: Visit, path: Path, polls: list[tuple[int, bytes]]) -> None:
    """404s after a task was seen running are borne, as long as they do not come for a whole grace in a row."""
    async with (
        RawServer(in_turn(posts=[(200, ACCEPTED)], polls=polls)) as server,
        visit(server.url, journal=path) as session,
    ):
        assert (await session.generate("rain", key="k")).task_id == "t"
    assert (await the_row(path)).state is DONE


@pytest.mark.parametrize("polling", [Polling.fixed(25, grace=10), Polling.fixed(2, grace=0)])
async def test_one_404_after_a_long_gap(visit: Visit, polling: Polling) -> None:
    """With a gap between polls that is longer than the grace, one 404 still is only one."""
    polls = [RUNS, RUNS, GONE, ENDS]
    async with (
        RawServer(in_turn(posts=[(200, ACCEPTED)], polls=polls)) as server,
        visit(server.url, polling=polling) as session,
    ):
        assert (await session.generate("rain")).task_id == "t"


async def test_a_task_that_was_seen_is_lost(visit: Visit, path: Path) -> None:
    """404s for a whole grace end it: it is lost, may be paid for, and its key does not pay again."""
    async with (
        RawServer(in_turn(posts=[(200, ACCEPTED)], polls=[RUNS, RUNS, GONE])) as server,
        visit(server.url, journal=path) as session,
    ):
        began = asyncio.get_running_loop().time()
        with pytest.raises(TaskNotFoundError):
            await session.generate("rain", key="k")
        assert 14 <= asyncio.get_running_loop().time() - began <= 20
        for retry_failed in (False, True):
            with pytest.raises(TaskNotFoundError) as caught:
                await session.generate("rain", key="k", retry_failed=retry_failed)
            assert caught.value.task_id == "t"
        assert [row.state for row in await session.unknown()] == [LOST]
        assert server.count("POST") == 1
    row = await the_row(path)
    assert (row.state, row.task_id) == (LOST, "t")


async def test_a_task_that_was_never_seen_is_lost(visit: Visit, path: Path) -> None:
    """404s from the submission on end it after the grace."""
    async with (
        RawServer(in_turn(posts=[(200, ACCEPTED)], polls=[GONE])) as server,
        visit(server.url, journal=path) as session,
    ):
        began = asyncio.get_running_loop().time()
        with pytest.raises(TaskNotFoundError):
            await session.generate("rain", key="k")
        assert 10 <= asyncio.get_running_loop().time() - began <= 13
    assert (await the_row(path)).state is LOST


@pytest.mark.parametrize("found", ["recover", "key", "attach"])
async def test_the_grace_counts_from_the_submission(visit: Visit, path: Path, found: str) -> None:
    """A row was written two hours ago and submitted a moment ago: 404s are borne as for a new task."""
    await leave(path, Left(SUBMITTED, key="k", task_id="t", created_ago=2 * HOUR, ago=2))
    async with (
        RawServer(in_turn(posts=[(500, b"")], polls=[GONE, GONE, ENDS])) as server,
        visit(server.url, journal=path) as session,
    ):
        if found == "recover":
            (outcome,) = await all_of(session.recover())
            assert outcome.error is None
        elif found == "key":
            assert (await session.generate("rain", key="k")).task_id == "t"
        else:
            assert (await (await session.attach("t"))).task_id == "t"
    assert (await the_row(path)).state is DONE


async def test_an_old_submission_that_is_missing_is_lost(visit: Visit, path: Path) -> None:
    """A row was submitted two hours ago, and the service does not know it: it is lost, and listed."""
    await leave(path, Left(SUBMITTED, key="k", task_id="t", created_ago=2 * HOUR, ago=2 * HOUR))
    async with (
        RawServer(in_turn(posts=[(500, b"")], polls=[GONE])) as server,
        visit(server.url, journal=path) as session,
    ):
        (outcome,) = await all_of(session.recover())
        assert isinstance(outcome.error, TaskNotFoundError)
        assert outcome.task_id == outcome.error.task_id == "t"
        assert [row.task_id for row in await session.unknown()] == ["t"]
        assert not server.count("POST")


async def test_the_hour_counts_from_the_submission(connect: Connect, path: Path, emulator: Emulator) -> None:
    """A row was written two hours ago and submitted a moment ago: nobody waits, and it is not given up."""
    emulator.service_time = Constant(300)
    async with connect() as session:
        task_id = (await session.submit("rain")).id
    await leave(path, Left(SUBMITTED, task_id=task_id, created_ago=2 * HOUR, ago=2))
    async with connect(journal=path, max_concurrency=1) as session:
        recovering = asyncio.create_task(all_of(session.recover()))
        await asyncio.sleep(1)
        recovering.cancel()
        await asyncio.sleep(200)
        assert [task.id for task in session.tasks] == [task_id]
        await asyncio.sleep(200)
    assert (await the_row(path)).state is DONE


async def test_a_task_grows_no_younger_by_a_restart(connect: Connect, path: Path, emulator: Emulator) -> None:
    """A task that was submitted 50 minutes ago, never ends, and nobody waits for keeps its slot 10 minutes more."""
    emulator.inject("task.never_ends")
    async with connect() as session:
        task_id = (await session.submit("rain")).id
    await leave(path, Left(SUBMITTED, key="k", task_id=task_id, created_ago=3000, ago=3000))
    async with connect(journal=path, max_concurrency=1) as session:
        submission = asyncio.create_task(session.submit("something else"))
        await asyncio.sleep(550)
        assert [task.id for task in session.tasks] == [task_id]
        assert not submission.done()
        await asyncio.sleep(150)
        assert submission.done()
        assert emulator.ledger.posts == 2
    async with connect(journal=path) as session:
        assert (await session.submit("rain", key="k")).id == task_id
    assert emulator.ledger.posts == 2


async def test_a_recovered_task_is_as_old_as_it_is(connect: Connect, path: Path, emulator: Emulator) -> None:
    """The date of the submission goes with a task that is picked up."""
    emulator.service_time = Constant(60)
    async with connect() as session:
        task_id = (await session.submit("rain")).id
    await leave(path, Left(SUBMITTED, key="k", task_id=task_id, created_ago=2 * HOUR, ago=1000))
    row = await the_row(path)
    assert row.submitted_at is not None
    assert (row.submitted_at - row.created_at).total_seconds() == pytest.approx(2 * HOUR - 1000, abs=10)
    async with connect(journal=path) as session:
        assert (await session.submit("rain", key="k")).submitted_at == row.submitted_at
