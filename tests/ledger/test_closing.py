"""Closing at every moment: each caller hears an error of the library that is true, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest
from ledger.helpers import (
    DONE,
    LINK,
    QUEUED,
    REFUSED,
    SENDING,
    SUBMITTED,
    UNKNOWN,
    Connect,
    HeldJournal,
    Left,
    Step,
    Visit,
    all_of,
    check_books,
    leave,
    prompts,
    rows,
    the_row,
    turns,
)
from raw_server import Peer, RawServer, Request

from finevoice_async import (
    FineVoiceError,
    FineVoiceSession,
    Polling,
    Retry,
    SessionClosedError,
    SfxTask,
    SubmitUnknownError,
)
from finevoice_async.adapters.local_slots import LocalSlots
from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.core.ledger import Move
from finevoice_async.emulator import Constant, Emulator
from finevoice_async.emulator.faults import as_fault_name


async def heard(*calls: Awaitable[Any]) -> list[Any]:
    """Return what callers got or heard; they must hear at once."""
    async with asyncio.timeout(1):
        return await asyncio.gather(*calls, return_exceptions=True)


def check_told(told: list[Any]) -> None:
    """Whoever got nothing heard that the session is closed, or that nobody knows."""
    for one in told:
        assert not isinstance(one, BaseException) or isinstance(one, SessionClosedError | SubmitUnknownError), repr(one)


@pytest.mark.parametrize("seconds", [0, 0.5, 5])
@pytest.mark.parametrize("key", [None, "k"])
async def test_during_the_commit_of_an_id(
    connect: Connect, path: Path, emulator: Emulator, key: str | None, seconds: float
) -> None:
    """The session closes while a task id is being written: its caller hears the id, and the row has it."""
    journal = HeldJournal(path, Move.ACCEPT)
    session = connect(journal=journal)
    submission = asyncio.create_task(session.submit("rain", key=key))
    await asyncio.sleep(1)
    (task_id,) = emulator.ledger.accepted
    closing = asyncio.create_task(session.aclose(timeout=seconds))
    await asyncio.sleep(1)
    journal.go.set()
    await closing
    (told,) = await heard(submission)
    if isinstance(told, SfxTask):
        assert told.id == task_id
    else:
        assert isinstance(told, SessionClosedError), repr(told)
        assert told.task_id == task_id
    row = await the_row(path)
    assert (row.state, row.task_id) == (SUBMITTED, task_id)


@pytest.mark.parametrize("way", ["429", "unreachable"])
async def test_during_the_wait_for_another_try(connect: Connect, path: Path, emulator: Emulator, way: str) -> None:
    """The session closes while a submission that certainly was not accepted waits: nothing was sent, now or later."""
    session = connect(journal=path, retry=Retry(first_delay=500, max_delay=1000))
    await session.unknown()
    if way == "429":
        emulator.inject("submit.rate_limit", 3, value=100)
    else:
        await emulator.aclose()
    calls: list[Any] = [session.submit("a"), session.submit("b", key="k"), all_of(session.generate_many(["c"]))]
    jobs = [asyncio.create_task(call) for call in calls]
    await asyncio.sleep(1)
    await session.aclose(timeout=0.5)
    for told in await heard(*jobs):
        error = told[0].error if isinstance(told, list) else told
        assert isinstance(error, SessionClosedError)
        assert error.task_id is None
    await emulator.start()
    assert {row.state for row in await rows(path)} == {REFUSED}
    async with connect(journal=path) as session:
        assert not await all_of(session.recover())
    assert not emulator.ledger.accepted


@pytest.mark.parametrize("where", ["row", "slot", "429", "hang", "slow", "commit", "running"])
async def test_seven_callers_of_one_key(connect: Connect, path: Path, emulator: Emulator, where: str) -> None:
    """All callers of one key hear the same of a closing, in words that fit, wherever their submission is."""
    steps: dict[str, Step] = {"row": QUEUED, "commit": Move.ACCEPT}
    journal = HeldJournal(path, *[step for name, step in steps.items() if name == where])
    session = connect(journal=journal, max_concurrency=1)
    await session.unknown()
    if where == "slot":
        await session.submit("something else")
    elif where == "429":
        emulator.inject("submit.rate_limit", value=100)
    elif where in ("hang", "slow"):
        emulator.inject(as_fault_name(f"submit.{where}"))
    calls = [asyncio.create_task(session.submit("rain", key="k")) for _ in range(7)]
    await asyncio.sleep(1)
    closing = asyncio.create_task(session.aclose(timeout=5))
    await asyncio.sleep(2)
    journal.go.set()
    await closing
    told = await heard(*calls)
    assert len({type(one) for one in told}) == 1, told
    kind = {"hang": SubmitUnknownError, "slow": SfxTask, "running": SfxTask, "commit": SfxTask}.get(where)
    assert isinstance(told[0], kind or SessionClosedError), repr(told[0])
    assert len({id(one) for one in told}) == 7, "each caller has an error, or a handle, of its own"
    (row,) = [row for row in await rows(path) if row.key == "k"]
    state = {"hang": UNKNOWN, "slow": SUBMITTED, "running": SUBMITTED, "commit": SUBMITTED}.get(where, REFUSED)
    assert row.state is state


@pytest.mark.parametrize("seconds", [0, 2])
@pytest.mark.parametrize("step", [QUEUED, SENDING])
@pytest.mark.parametrize("free", [0, 1])
async def test_shared_slots_and_a_row_being_written(
    connect: Connect, path: Path, emulator: Emulator, free: int, step: Step, seconds: float
) -> None:
    """With shared slots the session closes while rows are written: nobody waits for ever, and no slot is lost."""
    slots = LocalSlots(1, LoopClock())
    held = None if free else slots.occupy()
    journal = HeldJournal(path, step)
    session = connect(journal=journal, slots=slots)
    await session.unknown()
    calls: list[Any] = [session.submit("a"), session.submit("b", key="k"), all_of(session.generate_many(["c"]))]
    jobs = [asyncio.create_task(call) for call in calls]
    await asyncio.sleep(1)
    closing = asyncio.create_task(session.aclose(timeout=seconds))
    await asyncio.sleep(1)
    journal.go.set()
    async with asyncio.timeout(30):
        await closing
    check_told(await heard(*jobs))
    assert slots.used == 1 - free
    assert slots.waiting == 0
    if held is not None:
        slots.release(held)
    await check_books(emulator, path)


async def test_a_journal_that_never_answers(connect: Connect, path: Path, emulator: Emulator) -> None:
    """The disk hangs: closing ends all the same, and callers hear of it."""
    journal = HeldJournal(path, QUEUED, SENDING)
    session = connect(journal=journal, max_concurrency=1)
    await session.unknown()
    jobs = [asyncio.create_task(session.submit("rain", key=key)) for key in (None, "a", "a", "b")]
    await asyncio.sleep(1)
    async with asyncio.timeout(60):
        await session.aclose(timeout=1)
    told = await heard(*jobs)
    check_told(told)
    assert all(isinstance(one, BaseException) for one in told)
    journal.go.set()
    await asyncio.sleep(1)
    assert not emulator.ledger.posts


async def everything(session: FineVoiceSession) -> list[asyncio.Task[Any]]:
    """Start every kind of call there is."""

    async def wait() -> object:
        return await (await session.submit("waited for"))

    async def look() -> object:
        return await all_of((await session.submit("looked at")).updates())

    calls: list[Any] = [
        session.submit("submitted"),
        session.generate("generated"),
        session.generate("keyed", key="k"),
        session.generate("keyed", key="k"),
        wait(),
        look(),
        all_of(session.generate_many([f"many {number}" for number in range(4)])),
        all_of(session.generate_many([{"prompt": "in order", "key": "o"}, "in order"], ordered=True)),
        all_of(session.recover()),
    ]
    return [asyncio.create_task(call) for call in calls]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("seconds", [0, 1])
async def test_everything_at_each_moment(
    connect: Connect, path: Path, emulator: Emulator, seconds: float, shared: bool
) -> None:
    """A session full of work closes at each moment: callers hear what is true, and the books are right."""
    emulator.service_time = Constant(0.02)
    polling = Polling.fixed(0.005, min_gap=0.005, budget=1e6)
    for moment in range(45):
        file = path.with_name(f"{moment}.db")
        await leave(file, Left(QUEUED, "left"), Left(DONE, "done"), Left(UNKNOWN, "unknown"))
        slots = LocalSlots(2, LoopClock()) if shared else None
        session = connect(journal=file, max_concurrency=2, slots=slots, polling=polling)
        await session.unknown()
        if moment % 3 == 0:
            emulator.inject("submit.slow", value=0.5)
        before = set(emulator.ledger.accepted)
        jobs = await everything(session)
        await (turns(moment) if moment < 30 else asyncio.sleep((moment - 29) * 0.01))
        async with asyncio.timeout(10):
            await session.aclose(timeout=seconds)
        told = await heard(*jobs)
        flat = [each for one in told for each in (one if isinstance(one, list) else [one])]
        check_told([getattr(each, "error", each) for each in flat])
        ids = {task.id for task in told if isinstance(task, SfxTask)}
        assert ids <= set(emulator.ledger.accepted)
        assert slots is None or slots.used == slots.waiting == 0
        kept = await rows(file)
        known = {row.task_id for row in kept if row.task_id}
        lost = set(emulator.ledger.accepted) - before - known
        assert len(lost) <= len([row for row in kept if row.state is UNKNOWN]) - 1
        assert SENDING not in {row.state for row in kept}
        queued = [row.request.prompt for row in kept if row.state is QUEUED]
        assert queued in ([], ["left"]), "only what an earlier process wished for is left to be sent"
        emulator.heal()


async def test_waiters_hear_with_their_ids(connect: Connect, path: Path, emulator: Emulator) -> None:
    """Whoever waits for a task as the session closes hears its id, in each way of waiting."""
    emulator.service_time = Constant(100)
    session = connect(journal=path)
    task = await session.submit("rain", key="k")
    many = asyncio.create_task(all_of(session.generate_many([{"prompt": "rain", "key": "k"}])))
    recovering = asyncio.create_task(all_of(session.recover()))
    waits: list[Any] = [task.wait(), session.generate("rain", key="k"), all_of(task.updates())]
    jobs = [asyncio.create_task(wait) for wait in waits]
    await asyncio.sleep(5)
    await session.aclose()
    told = await heard(*jobs, many, recovering)
    errors = [one[0].error if isinstance(one, list) else one for one in told]
    assert {type(error) for error in errors} == {SessionClosedError}
    assert {error.task_id for error in errors} == {task.id}
    assert prompts(emulator) == ["rain"]


async def test_an_answer_that_comes_during_the_closing(connect: Connect, path: Path, emulator: Emulator) -> None:
    """A POST that is answered while the session closes gives its caller the task, and its row the id."""
    emulator.inject("submit.slow", value=2)
    session = connect(journal=path)
    submission = asyncio.create_task(session.submit("rain"))
    await asyncio.sleep(1)
    await session.aclose(timeout=5)
    (told,) = await heard(submission)
    assert isinstance(told, SfxTask), repr(told)
    assert [told.id] == list(emulator.ledger.accepted)
    with pytest.raises(SessionClosedError) as caught:
        await told
    assert caught.value.task_id == told.id
    row = await the_row(path)
    assert (row.state, row.task_id) == (SUBMITTED, told.id)


async def test_a_result_that_comes_during_the_closing(visit: Visit, path: Path) -> None:
    """A POST that is answered with its result while the session closes gives its caller the effect."""

    async def script(request: Request, peer: Peer) -> None:
        await asyncio.sleep(2)
        peer.answer(200, json.dumps({"task_id": "t", "status": "completed", "url": LINK}).encode())

    async with RawServer(script) as server:
        session = visit(server.url, journal=path)
        generating = asyncio.create_task(session.generate("rain"))
        await asyncio.sleep(1)
        await session.aclose(timeout=5)
        (told,) = await heard(generating)
        assert not isinstance(told, BaseException), repr(told)
        assert (told.task_id, told.urls) == ("t", (LINK,))
    row = await the_row(path)
    assert (row.state, row.task_id, row.urls) == (DONE, "t", (LINK,))


async def test_tasks_that_end_during_the_closing(connect: Connect, path: Path, emulator: Emulator) -> None:
    """While a closing waits for a POST, the others' ends are still noticed."""
    emulator.service_time = Constant(3)
    session = connect(journal=path)
    generating = asyncio.create_task(session.generate("soon done"))
    await asyncio.sleep(1)
    emulator.inject("submit.slow", value=9)
    submission = asyncio.create_task(session.submit("slow"))
    await asyncio.sleep(1)
    await session.aclose(timeout=20)
    effect, task = await heard(generating, submission)
    assert not isinstance(effect, BaseException), repr(effect)
    assert not isinstance(task, BaseException), repr(task)
    assert (await rows(path))[0].state is DONE


async def test_later_calls_are_refused(connect: Connect, path: Path, emulator: Emulator) -> None:
    """Whatever is called after the closing says that the session is closed."""
    await leave(path, Left(UNKNOWN))
    session = connect(journal=path)
    (row,) = await session.unknown()
    await session.aclose()
    calls: list[Any] = [
        session.submit("a"),
        session.generate("a", key="k"),
        session.attach("t"),
        session.unknown(),
        session.resubmit(row, accept_double_charge=True),
        session.adopt(row, task_id="t"),
        session.discard(row),
        all_of(session.rows()),
        all_of(session.recover()),
        all_of(session.generate_many(["a"])),
    ]
    for told in await heard(*calls):
        assert isinstance(told, SessionClosedError), repr(told)
        assert isinstance(told, FineVoiceError)
    assert not emulator.ledger.posts
    assert (await the_row(path)).state is UNKNOWN
