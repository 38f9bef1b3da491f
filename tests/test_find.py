"""An effect is found again by its key or its task id; and a task's state is asked for without keeping anything."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from ledger.helpers import DONE, QUEUED, SAVED, SUBMITTED, Connect, Left, all_of, leave, prompts, rows, the_row
from parts import told
from raw_server import Peer, RawServer, Request

from finevoice_async import (
    AuthenticationError,
    FineVoiceError,
    FineVoiceSession,
    InvalidRequestError,
    JournalRow,
    PollError,
    SessionClosedError,
    SfxTask,
    SubmitUnknownError,
    TaskNotFoundError,
    TaskStatus,
)
from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.adapters.sqlite_journal import SqliteJournal
from finevoice_async.emulator import Constant, Emulator
from finevoice_async.emulator.faults import FaultName


async def found(session: FineVoiceSession, **by: str) -> SfxTask:
    """Find what must be there."""
    task = await session.find(**by)
    assert task is not None
    return task


# Finding


async def test_queued_running_and_ended(connect: Connect, emulator: Emulator, kept_in: dict[str, Any]) -> None:
    """By its key a wish is found while it waits; by its task id, too, from then on; also after its end."""
    async with connect(max_concurrency=1, **kept_in) as session:
        await session.submit("something else")
        made = await session.enqueue("door")
        assert made.key is not None
        task = await found(session, key=made.key)
        assert (task.status, task.position, task.request, task.id) == (TaskStatus.QUEUED, 1, made.request, None)
        async for update in made.updates():
            if update.status is TaskStatus.PENDING:
                break
        for each in (task, await found(session, key=made.key), await found(session, task_id=str(made.id))):
            assert (each.id, each.key, each.status, each.position) == (made.id, made.key, TaskStatus.PENDING, None)
        effect = await made
        for each in (task, await found(session, key=made.key), await found(session, task_id=str(made.id))):
            assert (each.status, each.done(), (await each).url) == (TaskStatus.COMPLETED, True, effect.url)
    assert prompts(emulator) == ["door", "something else"]


async def test_what_nobody_knows(connect: Connect, kept_in: dict[str, Any]) -> None:
    """What neither session nor journal knows is None, and nothing is asked."""
    async with connect(**kept_in) as session:
        await session.submit("door", key="k")
        assert await session.find(key="other") is None
        assert await session.find(task_id="other") is None


@pytest.mark.parametrize("by", [{}, {"key": "k", "task_id": "t"}, {"key": " "}, {"task_id": ""}, {"key": 7}])
async def test_what_cannot_be_found(connect: Connect, by: dict[str, Any]) -> None:
    """One of the two is given, and it can be one."""
    async with connect() as session:
        with pytest.raises(InvalidRequestError):
            await session.find(**by)


async def test_of_yesterday(connect: Connect, emulator: Emulator, path: Path) -> None:
    """A task id from before the restart is enough: status, effect and file; and the row says that it was saved."""
    emulator.service_time = Constant(20)
    async with connect(journal=path) as session:
        task_id = str((await session.submit("door", key="k")).id)
    async with connect(journal=path) as session:
        task = await found(session, task_id=task_id)
        assert (task.key, task.done()) == ("k", False)
        assert task.request is not None
        effect = await task
        saved = await effect.save(path.with_name("door.wav"))
        assert saved.is_file()
    assert (await the_row(path)).state is SAVED
    async with connect(journal=path) as session:
        for by in ({"task_id": task_id}, {"key": "k"}):
            task = await found(session, **by)
            assert (task.status, task.done()) == (TaskStatus.COMPLETED, True)
            assert (await (await task).read())[:4] == b"RIFF"
    assert emulator.ledger.posts == 1


async def test_queued_yesterday(connect: Connect, emulator: Emulator, path: Path) -> None:
    """A found row waits until somebody awaits it; then all handles on it follow, and cancelling that stops nothing."""
    await leave(path, Left(QUEUED, "door", key="k"), Left(QUEUED, "window"))
    async with connect(journal=path, max_concurrency=1) as session:
        task, other = await found(session, key="k"), await found(session, key="k")
        await asyncio.sleep(10)
        assert (emulator.ledger.posts, task.status, task.submitted_at) == (0, TaskStatus.QUEUED, None)
        await session.submit("something else")
        waiting = asyncio.create_task(task.wait())
        await asyncio.sleep(0.1)
        assert [each.position for each in (task, other)] == [1, 1]
        waiting.cancel()
        await asyncio.sleep(30)
        assert (task.status, other.status) == (TaskStatus.COMPLETED, TaskStatus.COMPLETED)
        assert (await task).url == (await other).url
    assert prompts(emulator) == ["door", "something else"]


async def test_a_found_row_that_others_make(connect: Connect, emulator: Emulator, path: Path) -> None:
    """recover(), or a caller of its key, makes what a handle is on: it tells so, also when all is over."""
    await leave(path, Left(QUEUED, "door", key="k"), Left(QUEUED, "window", key="l"))
    async with connect(journal=path) as session:
        tasks = [await found(session, key=key) for key in "kl"]
        await session.generate("door", key="k")
        await all_of(session.recover())
        assert [task.status for task in tasks] == [TaskStatus.COMPLETED] * 2
        assert [(await task).key for task in tasks] == ["k", "l"]
    assert prompts(emulator) == ["door", "window"]


async def test_a_found_row_that_a_caller_leaves(connect: Connect, emulator: Emulator, path: Path) -> None:
    """A caller takes the row up and goes before it is sent: it waits in the journal again, says the handle."""
    await leave(path, Left(QUEUED, "door", key="k"))
    async with connect(journal=path, max_concurrency=1) as session:
        await session.submit("something else")
        task = await found(session, key="k")
        calling = asyncio.create_task(session.submit("door", key="k"))
        await asyncio.sleep(0.1)
        assert task.position is not None
        calling.cancel()
        await asyncio.sleep(0.1)
        assert (task.status, task.done()) == (TaskStatus.QUEUED, False)
        assert (await task).task_id in emulator.ledger.accepted
    assert prompts(emulator) == ["door", "something else"]


async def test_found_while_a_loop_makes_it_that_is_left(connect: Connect, emulator: Emulator, path: Path) -> None:
    """A handle on what recover() has taken up outlives that loop: awaited, it is made all the same, once."""
    await leave(path, Left(QUEUED, "door", key="k"))
    async with connect(journal=path, max_concurrency=1) as session:
        await session.submit("something else")
        recovering = asyncio.create_task(all_of(session.recover()))
        await asyncio.sleep(0.1)
        task = await found(session, key="k")
        assert task.position == 1
        recovering.cancel()
        await asyncio.wait([recovering])
        assert (task.status, task.done()) == (TaskStatus.QUEUED, False)
        assert (await task).task_id in emulator.ledger.accepted
    assert prompts(emulator) == ["door", "something else"]


async def test_the_key_is_being_looked_up_for_another_request(connect: Connect, emulator: Emulator, path: Path) -> None:
    """Somebody asks for another request under the key of a found row just now: that is their error alone."""
    await leave(path, Left(QUEUED, "door", key="k"))
    async with connect(journal=path) as session:
        task = await found(session, key="k")
        calling = asyncio.create_task(session.submit("window", key="k"))
        await asyncio.sleep(0)
        effect, error = await asyncio.gather(task, told(calling))
        assert "another request" in str(error)
        assert effect.key == "k"
    assert prompts(emulator) == ["door"]


class LateReads(SqliteJournal):
    """Tells two seconds late how a row stood."""

    async def row(
        self, *, row_id: int | None = None, key: str | None = None, task_id: str | None = None
    ) -> JournalRow | None:
        """Read a row."""
        row = await super().row(row_id=row_id, key=key, task_id=task_id)
        await asyncio.sleep(2)
        return row


@pytest.mark.parametrize("seconds", [0.1, 1.9, 3.0])
async def test_it_goes_on_while_it_is_looked_for(
    connect: Connect, emulator: Emulator, path: Path, seconds: float
) -> None:
    """A journal tells what is past: the handle says how the effect stands, whether it runs or has ended meanwhile."""
    emulator.service_time = Constant(seconds)
    await leave(path, Left(QUEUED, "door", key="k"))
    async with connect(journal=LateReads(path, LoopClock())) as session:
        finding = asyncio.create_task(session.find(key="k"))
        await asyncio.sleep(0.1)
        calling = asyncio.create_task(session.generate("door", key="k"))
        task = await finding
        assert task is not None
        if seconds > 2:
            assert task.status in (TaskStatus.PENDING, TaskStatus.PROCESSING)  # by when it was asked for last
            assert not task.done()
        effect = await calling
        assert (task.status, task.done()) == (TaskStatus.COMPLETED, True)
        assert (await task).url == effect.url
    assert emulator.ledger.posts == 1


async def test_what_may_be_paid_for(connect: Connect, emulator: Emulator, kept_in: dict[str, Any]) -> None:
    """A key whose submission is unknown is found, and says so."""
    emulator.inject("submit.lose_reply")
    async with connect(**kept_in) as session:
        with pytest.raises(SubmitUnknownError):
            await session.generate("door", key="k")
        task = await found(session, key="k")
        assert (task.status, task.done()) == (TaskStatus.UNKNOWN, True)
        with pytest.raises(SubmitUnknownError):
            await task


async def test_find_takes_a_slot_for_what_runs(connect: Connect, emulator: Emulator, path: Path) -> None:
    """A task that runs is not polled twice for being found twice."""
    emulator.service_time = Constant(20)
    async with connect(journal=path) as session:
        task = await session.submit("door", key="k")
        again = [await found(session, key="k"), await found(session, task_id=str(task.id))]
        assert len(session.tasks) == 1
        assert {each.id for each in again} == {task.id}
    states = [row.state for row in await rows(path)]
    assert states == [SUBMITTED]


# Status and attach


async def test_status_asks_once(connect: Connect, emulator: Emulator, path: Path) -> None:
    """It is one GET: nothing is kept, no slot is taken, although the plan is full."""
    emulator.service_time = Constant(10)
    async with connect() as stranger:
        task_id = str((await stranger.submit("door")).id)
    async with connect(journal=path, max_concurrency=1) as session:
        polls = emulator.ledger.polls
        update = await session.status(task_id)
        assert (update.status, update.task_id) == (TaskStatus.PROCESSING, task_id)
        assert emulator.ledger.polls == polls + 1
        assert (session.tasks, session.stats.running) == ((), 0)
        await asyncio.sleep(20)
        assert emulator.ledger.polls == polls + 1
        update = await session.status(task_id)
        assert update.status is TaskStatus.COMPLETED
        assert update.urls
        assert await session.find(task_id=task_id) is None
    assert await rows(path) == []


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("poll.not_found", TaskNotFoundError),
        ("poll.error_500", PollError),
        ("poll.refuse", PollError),
        ("poll.unauthorized", AuthenticationError),
        ("poll.rate_limit", PollError),
        ("poll.redirect", PollError),
        ("poll.garbage", PollError),
        ("poll.close", PollError),
        ("poll.reset", PollError),
        ("poll.hang", PollError),
    ],
)
async def test_status_fails(connect: Connect, emulator: Emulator, fault: FaultName, kind: type[FineVoiceError]) -> None:
    """Whatever goes wrong is one error with the task's id, and is not tried again."""
    async with connect() as session:
        task_id = str((await session.submit("door")).id)
        emulator.inject(fault, 2 if fault in ("poll.close", "poll.reset") else 1)  # of these aiohttp itself asks twice
        with pytest.raises(FineVoiceError) as caught:
            await session.status(task_id)
        assert type(caught.value) is kind
        assert caught.value.task_id == task_id
        assert (await session.status(task_id)).task_id == task_id


async def test_status_of_what_cannot_be() -> None:
    """No id, no GET; and none once the session is closed, nor a bare error for who waits as it closes."""

    async def silent(request: Request, peer: Peer) -> None:
        await asyncio.sleep(1000)

    async with RawServer(silent) as server:
        session = FineVoiceSession("a-key-for-tests", base_url=server.url)
        with pytest.raises(InvalidRequestError):
            await session.status("")
        asking = asyncio.create_task(session.status("t1"))
        await asyncio.sleep(1)
        await session.aclose()
        assert isinstance(await told(asking), SessionClosedError)
        with pytest.raises(SessionClosedError):
            await session.status("t1")


async def test_attach_knows_the_journal(connect: Connect, emulator: Emulator, path: Path) -> None:
    """A row of that task gives it its request and its key, and a save is noted in it."""
    async with connect(journal=path) as session:
        task_id = str((await session.submit("door", key="k")).id)
    async with connect(journal=path) as session:
        task = await session.attach(task_id)
        assert (task.key, task.request and task.request.prompt) == ("k", "door")
        effect = await task
        assert [row.state for row in await all_of(session.rows())] == [DONE]
        await effect.save(path.with_name("door.wav"))
    assert (await the_row(path)).state is SAVED
