"""Somebody cancels the session's own asyncio tasks: whoever waits hears, and so does whoever comes later."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from ledger.helpers import QUEUED, REFUSED, SENDING, Connect, HeldJournal, Left, all_of, check_books, leave, rows, turns

from finevoice_async import FineVoiceError, FineVoiceSession, PollError, SubmitUnknownError
from finevoice_async.core.polling.schedule import LearnedSchedule
from finevoice_async.emulator import Constant, Emulator


def own_tasks() -> list[asyncio.Task[Any]]:
    """Return the asyncio tasks whose code is the library's (without the emulator's), oldest first."""
    found = []
    for task in asyncio.all_tasks():
        code = getattr(task.get_coro(), "cr_code", None)
        file = "" if code is None else code.co_filename
        if "/finevoice_async/" in file and "/emulator/" not in file:
            found.append(task)
    return sorted(found, key=lambda task: task.get_name())


def busy_calls(session: FineVoiceSession, *, journalled: bool = True) -> list[asyncio.Task[Any]]:
    """Start calls that wait for everything there is: a task's end, a slot, an answer, a row."""

    async def generate(prompt: str, key: str | None = None) -> object:
        return await session.generate(prompt, key=key)

    async def many() -> object:
        return await all_of(session.generate_many([f"many {number}" for number in range(5)]))

    async def recover() -> object:
        return await all_of(session.recover())

    async def attach() -> object:
        return await (await session.attach("garbage"))

    calls: list[Any] = [generate("a"), generate("c"), many(), attach()]
    if journalled:
        calls += [generate("b", "k"), generate("b", "k"), recover()]
    return [asyncio.create_task(call) for call in calls]


async def check_told(jobs: list[asyncio.Task[Any]]) -> None:
    """Everybody gets something, or hears an error of the library or a RuntimeError, never a CancelledError."""
    async with asyncio.timeout(2000):
        told = await asyncio.gather(*jobs, return_exceptions=True)
    for one in told:
        assert not isinstance(one, BaseException) or isinstance(one, FineVoiceError | RuntimeError), repr(one)


async def check_later(session: FineVoiceSession) -> None:
    """Later calls work, or raise an error of the library; they do not hang."""

    async def generate(prompt: str) -> object:
        return await session.generate(prompt)

    async def many() -> object:
        return await all_of(session.generate_many(["later", "later"]))

    await check_told([asyncio.create_task(generate("later")), asyncio.create_task(many())])


@pytest.mark.parametrize("journalled", [False, True])
@pytest.mark.parametrize("seconds", [0.001, 0.5, 3.0])
async def test_all_are_cancelled(
    connect: Connect, path: Path, emulator: Emulator, seconds: float, journalled: bool
) -> None:
    """All tasks of a busy session are cancelled at once: nobody is left waiting, now or later."""
    emulator.inject("submit.slow")
    if journalled:
        await leave(path, Left(QUEUED, "left"))
    async with connect(journal=path if journalled else None, max_concurrency=2) as session:
        jobs = busy_calls(session, journalled=journalled)
        await asyncio.sleep(seconds)
        doomed = own_tasks()
        assert doomed
        for task in doomed:
            task.cancel()
        await check_told(jobs)
        await check_later(session)
        async with asyncio.timeout(60):
            await session.aclose()
    if journalled:
        await check_books(emulator, path)


@pytest.mark.parametrize("seconds", [0.001, 0.5, 3.0])
@pytest.mark.parametrize("which", range(8))
async def test_one_is_cancelled(connect: Connect, path: Path, emulator: Emulator, which: int, seconds: float) -> None:
    """Any one of the session's tasks is cancelled: nobody is left waiting, now or later."""
    emulator.inject("submit.slow")
    await leave(path, Left(QUEUED, "left"))
    async with connect(journal=path, max_concurrency=2) as session:
        jobs = busy_calls(session)
        await asyncio.sleep(seconds)
        doomed = own_tasks()
        doomed[which % len(doomed)].cancel()
        await check_told(jobs)
        await check_later(session)
        async with asyncio.timeout(60):
            await session.aclose()
    await check_books(emulator, path)


async def test_the_poller_is_cancelled(connect: Connect, emulator: Emulator) -> None:
    """What asks the service is cancelled: each waiter hears the id of its task, and later calls raise."""
    emulator.service_time = Constant(30)
    async with connect() as session:
        tasks = [await session.submit("rain") for _ in range(3)]
        waiters = [asyncio.create_task(_wait(task)) for task in tasks]
        await asyncio.sleep(5)
        for task in own_tasks():
            task.cancel()
        async with asyncio.timeout(120):
            told = await asyncio.gather(*waiters, return_exceptions=True)
        errors = [one for one in told if isinstance(one, FineVoiceError)]
        assert [error.task_id for error in errors] == [task.id for task in tasks]
        posts = emulator.ledger.posts
        later: list[Any] = [_wait(tasks[0]), session.submit("rain"), session.generate("rain")]
        async with asyncio.timeout(120):
            told = await asyncio.gather(*later, return_exceptions=True)
        assert all(isinstance(one, FineVoiceError) for one in told), told
        assert emulator.ledger.posts == posts, "nothing is paid for whose end nobody would see"


async def _wait(task: Any) -> object:
    return await task


@pytest.mark.parametrize("journalled", [False, True])
async def test_the_poller_dies_while_others_wait(
    connect: Connect, path: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, journalled: bool
) -> None:
    """The poller dies of a bug while others wait for a slot that nobody will free: they hear, and nothing is sent."""

    def broken(*_: object, **__: object) -> float:
        raise ZeroDivisionError("injected")

    emulator.inject("task.never_ends")
    async with connect(journal=path if journalled else None, max_concurrency=1) as session:
        task = await session.submit("runs")
        calls: list[Any] = [_wait(task), session.submit("a"), all_of(session.generate_many(["b", "c"]))]
        if journalled:
            calls += [session.submit("d", key="d"), session.submit("d", key="d")]
        jobs = [asyncio.create_task(call) for call in calls]
        await asyncio.sleep(0.1)
        monkeypatch.setattr(LearnedSchedule, "running", broken)
        async with asyncio.timeout(600):
            told = await asyncio.gather(*jobs, return_exceptions=True)
        errors = [each for one in told for each in ([one.error for one in one] if isinstance(one, list) else [one])]
        assert all(isinstance(error, PollError) for error in errors), errors
        assert emulator.ledger.posts == 1
    if journalled:
        assert {row.state for row in await rows(path) if row.task_id is None} == {REFUSED}


async def test_a_post_is_cancelled(connect: Connect, path: Path, emulator: Emulator) -> None:
    """A POST under way is cancelled: its caller hears that nobody knows, its slot is free, its row unknown."""
    emulator.inject("submit.slow")
    async with connect(journal=path, max_concurrency=1) as session:
        calls = [asyncio.create_task(_submit(session, "k")) for _ in range(2)]
        await asyncio.sleep(1)
        for task in own_tasks():
            task.cancel()
        async with asyncio.timeout(60):
            told = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(one) for one in told] == [SubmitUnknownError] * 2
        assert [row.key for row in await session.unknown()] == ["k"]
        assert session.stats.submitting == 0
    await check_books(emulator, path)


async def _submit(session: FineVoiceSession, key: str | None = None) -> object:
    return await session.submit("rain", key=key)


@pytest.mark.parametrize("step", [QUEUED, SENDING])
async def test_cancelled_while_rows_are_written(connect: Connect, path: Path, emulator: Emulator, step: Any) -> None:
    """The session's tasks are cancelled while the disk is slow: callers hear, and nothing is sent that they gave up."""
    journal = HeldJournal(path, step)
    async with connect(journal=journal, max_concurrency=1) as session:
        calls = [asyncio.create_task(_submit(session, key)) for key in (None, "k")]
        await asyncio.sleep(1)
        for task in own_tasks():
            task.cancel()
        await asyncio.sleep(1)
        journal.go.set()
        await check_told(calls)
    await check_books(emulator, path)


@pytest.mark.parametrize("moment", range(2, 6))
async def test_the_opening_is_cancelled(connect: Connect, path: Path, emulator: Emulator, moment: int) -> None:
    """The opening of the journal is cancelled: whoever waits for it hears, and once closed the file is free."""
    session = connect(journal=path)
    calls = [asyncio.create_task(_submit(session)) for _ in range(2)]
    await turns(moment)
    assert own_tasks()
    for task in own_tasks():
        task.cancel()
    await check_told(calls)
    async with asyncio.timeout(60):
        await session.aclose()
    async with connect(journal=path) as session:
        assert (await session.generate("rain")).task_id
    await check_books(emulator, path)
