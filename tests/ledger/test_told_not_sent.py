"""Who was told that nothing was sent can rely on it: no later recover() sends it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from ledger.helpers import (
    QUEUED,
    REFUSED,
    SENDING,
    BrokenSlots,
    Connect,
    FaultyJournal,
    HeldJournal,
    Left,
    Step,
    about,
    all_of,
    check_books,
    leave,
    prompts,
    rows,
    the_row,
    turns,
)

from finevoice_async import (
    AuthenticationError,
    FineVoiceError,
    FineVoiceSession,
    JournalError,
    SessionClosedError,
    SubmitNotSentError,
    SubmitUnknownError,
)
from finevoice_async.core.ledger import Move
from finevoice_async.emulator import Constant, Emulator
from finevoice_async.emulator.faults import as_fault_name

Way = str  # how an effect is asked for: submit, key or many


async def ask(session: FineVoiceSession, way: Way, prompt: str = "rain") -> object:
    """Ask for an effect in one of the ways there are, and raise the error of its outcome."""
    if way != "many":
        return await session.submit(prompt, key=f"key of {prompt}" if way == "key" else None)
    (outcome,) = await all_of(session.generate_many([prompt]))
    if outcome.error is not None:
        raise outcome.error
    return outcome


async def check_nothing_later(connect: Connect, path: Path, emulator: Emulator) -> None:
    """A later session finds nothing to send."""
    posts = emulator.ledger.posts
    async with connect(journal=path) as session:
        for outcome in await all_of(session.recover()):
            assert outcome.task_id in emulator.ledger.accepted
    assert emulator.ledger.posts == posts


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("error", [JournalError("The disk is full."), OSError(28, "no space")], ids=["own", "foreign"])
@pytest.mark.parametrize("step", [QUEUED, SENDING, Move.SEND])
@pytest.mark.parametrize("way", ["submit", "key", "many"])
async def test_the_journal_fails_before_the_post(
    connect: Connect, path: Path, emulator: Emulator, way: Way, step: Step, error: Exception, at_once: bool
) -> None:
    """A write fails before the POST: the caller hears, and neither this session nor a later one sends it."""
    journal = FaultyJournal(path, step, error=error, at_once=at_once)
    async with connect(journal=journal, max_concurrency=1) as session:
        try:
            await ask(session, way)  # it does not need every write
        except JournalError:
            assert not emulator.ledger.posts
            await turns(3)
            assert session.stats.waiting == session.stats.submitting == 0
        paid = prompts(emulator)
        journal.steps.clear()
        await session.generate("something else")  # its slot is free
    await check_nothing_later(connect, path, emulator)
    assert prompts(emulator) == sorted([*paid, "something else"])


@pytest.mark.parametrize("way", ["submit", "key", "many"])
async def test_the_journal_fails_while_it_waits(connect: Connect, path: Path, emulator: Emulator, way: Way) -> None:
    """The write before the POST fails after a wait for the slot: the row is not left to be sent later."""
    journal = FaultyJournal(path)
    async with connect(journal=journal, max_concurrency=1) as session:
        await session.submit("something else")
        asking = asyncio.create_task(ask(session, way))
        await asyncio.sleep(0.1)
        journal.steps = {Move.SEND}
        with pytest.raises(JournalError):
            await asking
    assert [row.state for row in await rows(path) if row.request.prompt == "rain"] == [REFUSED]
    await check_nothing_later(connect, path, emulator)
    assert prompts(emulator) == ["something else"]


async def test_the_journal_breaks_for_good(connect: Connect, path: Path, emulator: Emulator) -> None:
    """If not even the withdrawal can be written, the error says that recover() may send it."""
    journal = FaultyJournal(path)
    async with connect(journal=journal, max_concurrency=1) as session:
        await session.submit("something else")
        asking = asyncio.create_task(session.submit("rain", key="k"))
        await asyncio.sleep(0.1)
        journal.steps = {*Move}
        with pytest.raises(FineVoiceError, match="recover") as caught:
            await asking
        assert caught.value.task_id is None
    assert prompts(emulator) == ["something else"]
    assert [row.state for row in await rows(path) if row.key == "k"] == [QUEUED]


@pytest.mark.parametrize("way", ["submit", "key", "many"])
async def test_closed_while_it_waits_for_a_slot(connect: Connect, path: Path, emulator: Emulator, way: Way) -> None:
    """A session closes while an effect waits for its slot: it is not sent later."""
    emulator.service_time = Constant(100)
    session = connect(journal=path, max_concurrency=1)
    await session.submit("something else")
    asking = asyncio.create_task(ask(session, way))
    await asyncio.sleep(0.1)
    await session.aclose()
    with pytest.raises(SessionClosedError, match="Nothing was sent") as caught:
        await asking
    assert caught.value.request is not None
    assert caught.value.request.prompt == "rain"
    assert [row.state for row in await rows(path) if row.request.prompt == "rain"] == [REFUSED]
    await check_nothing_later(connect, path, emulator)
    assert prompts(emulator) == ["something else"]


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize("way", ["submit", "key", "many"])
async def test_closed_at_each_moment(connect: Connect, path: Path, emulator: Emulator, way: Way, busy: bool) -> None:
    """A session closes at each turn of a submission: what its caller hears is true, now and later."""
    for moment in range(40):
        file, prompt = path.with_name(f"{moment}.db"), f"rain {moment}"
        session = connect(journal=file, max_concurrency=1)
        await session.unknown()  # it is open
        if busy:
            emulator.service_time = Constant(20)
            await session.submit("something else")
        emulator.service_time = Constant(0.01)
        asking = asyncio.create_task(ask(session, way, prompt))
        await turns(moment)
        await session.aclose(timeout=0.5)
        async with asyncio.timeout(1):
            (told,) = await asyncio.gather(asking, return_exceptions=True)
        paid = prompts(emulator).count(prompt)
        if isinstance(told, BaseException):
            assert isinstance(told, SessionClosedError | SubmitUnknownError), repr(told)
            assert paid == 0 or told.task_id or isinstance(told, SubmitUnknownError), repr(told)
        async with connect(journal=file, max_concurrency=2) as later:
            await all_of(later.recover())
        assert prompts(emulator).count(prompt) == paid, f"sent later, but the caller heard {told!r}"


@pytest.mark.parametrize("step", [QUEUED, SENDING, Move.SEND])
@pytest.mark.parametrize("way", ["submit", "key", "many"])
async def test_closed_while_the_row_is_written(
    connect: Connect, path: Path, emulator: Emulator, way: Way, step: Step
) -> None:
    """The disk is slow and the session closes while the row is written: it is not sent, now or later."""
    journal = HeldJournal(path, step)
    session = connect(journal=journal, max_concurrency=1)
    await session.unknown()
    asking = asyncio.create_task(ask(session, way))
    await asyncio.sleep(0.1)
    closing = asyncio.create_task(session.aclose(timeout=5))
    await asyncio.sleep(1)
    journal.go.set()
    await closing
    (told,) = await asyncio.gather(asking, return_exceptions=True)
    assert not isinstance(told, BaseException) or isinstance(told, SessionClosedError), repr(told)
    if isinstance(told, SessionClosedError) and told.task_id is None:
        assert not emulator.ledger.posts
        assert (await the_row(path)).state is REFUSED
    await check_nothing_later(connect, path, emulator)
    await check_books(emulator, path)


@pytest.mark.parametrize("way", ["submit", "key", "many"])
async def test_cancelled_while_the_row_is_written(connect: Connect, path: Path, emulator: Emulator, way: Way) -> None:
    """The disk is slow and the caller goes while the row is written: it is not sent, now or later."""
    emulator.service_time = Constant(3)
    journal = HeldJournal(path, QUEUED)
    async with connect(journal=journal, max_concurrency=1) as session:
        await session.submit("something else")
        asking = asyncio.create_task(ask(session, way))
        await asyncio.sleep(1)
        asking.cancel()
        await asyncio.sleep(1)
        journal.go.set()
        await asyncio.sleep(10)
        assert asking.cancelled()
        assert session.stats.waiting == session.stats.running == 0
    assert [row.state for row in await rows(path) if row.request.prompt == "rain"] == [REFUSED]
    await check_nothing_later(connect, path, emulator)
    assert prompts(emulator) == ["something else"]


@pytest.mark.parametrize("way", ["submit", "key", "many"])
@pytest.mark.parametrize("broken", ["try_acquire", "acquire"])
async def test_slots_that_raise(connect: Connect, path: Path, emulator: Emulator, broken: str, way: Way) -> None:
    """Shared slots fail: the caller hears that nothing was sent, and nothing is, also not later."""
    slots = BrokenSlots(broken, OSError("the lock server is away"))
    async with connect(journal=path, slots=slots) as session:
        with pytest.raises(SubmitNotSentError) as caught:
            await ask(session, way)
        assert isinstance(caught.value.__cause__, OSError)
        assert session.stats.waiting == 0
    assert slots.slots.used == 0
    assert {row.state for row in await rows(path)} <= {REFUSED}
    await check_nothing_later(connect, path, emulator)
    assert not emulator.ledger.posts


async def test_left_behind_and_closed(connect: Connect, path: Path, emulator: Emulator) -> None:
    """What an earlier process wished for and this one could not send stays queued, and the error says so."""
    await leave(path, Left(QUEUED, "door", key="k"))
    emulator.inject("task.never_ends")
    session = connect(journal=path, max_concurrency=1)
    await session.submit("something else")
    recovering = asyncio.create_task(all_of(session.recover()))
    await asyncio.sleep(0.1)
    await session.aclose()
    (outcome,) = about(await recovering, "door")
    assert isinstance(outcome.error, SessionClosedError)
    assert "recover" in str(outcome.error)
    assert [row.state for row in await rows(path) if row.key == "k"] == [QUEUED]
    async with connect(journal=path, max_concurrency=2) as session:
        assert (await session.generate("door", key="k")).task_id
    assert prompts(emulator) == ["door", "something else"]


async def test_left_behind_shared_and_closed(connect: Connect, path: Path, emulator: Emulator) -> None:
    """recover() and a caller wait for one row's slot, and the session closes: both hear what the row says then."""
    await leave(path, Left(QUEUED, "door", key="k"))
    emulator.inject("task.never_ends")
    session = connect(journal=path, max_concurrency=1)
    await session.submit("something else")
    recovering = asyncio.create_task(all_of(session.recover()))
    await asyncio.sleep(0.1)
    calling = asyncio.create_task(session.submit("door", key="k"))
    await asyncio.sleep(0.1)
    await session.aclose()
    with pytest.raises(SessionClosedError) as caught:
        await calling
    (outcome,) = about(await recovering, "door")
    (row,) = [row for row in await rows(path) if row.key == "k"]
    for error in (caught.value, outcome.error):
        assert row.state is REFUSED or (row.state is QUEUED and "recover" in str(error))


async def test_recover_is_left(connect: Connect, path: Path, emulator: Emulator) -> None:
    """recover() is left before its rows had slots: they stay queued, and are sent by the next one, once."""
    await leave(path, *[Left(QUEUED, f"door {number}") for number in range(6)])
    async with connect(journal=path, max_concurrency=1) as session:
        outcomes: AsyncIterator[Any] = session.recover()
        async for _ in outcomes:
            break
        await outcomes.aclose()  # type: ignore[attr-defined]  # an async generator, as its docstring says
        await asyncio.sleep(60)
        sent = len(emulator.ledger.accepted)
        assert sent <= 2
    states = [row.state for row in await rows(path)]
    assert states.count(QUEUED) == 6 - sent
    async with connect(journal=path) as session:
        await all_of(session.recover())
    assert prompts(emulator) == [f"door {number}" for number in range(6)]


@pytest.mark.parametrize("fault", ["unauthorized", "forbidden", "no_credits"])
async def test_recover_after_a_fatal_error(connect: Connect, path: Path, emulator: Emulator, fault: str) -> None:
    """A refused key or spent credits end a recover(): what it did not send stays queued for the next."""
    await leave(path, *[Left(QUEUED, f"door {number}") for number in range(6)])
    emulator.inject(as_fault_name(f"submit.{fault}"))
    async with connect(journal=path, max_concurrency=1) as session:
        outcomes = await all_of(session.recover())
        assert len(outcomes) == 6
        assert all(outcome.error for outcome in outcomes)
    assert emulator.ledger.posts == 1
    states = [row.state for row in await rows(path)]
    assert (states.count(REFUSED), states.count(QUEUED)) == (1, 5)
    async with connect(journal=path) as session:
        assert all(outcome.effect for outcome in await all_of(session.recover()))
    assert len(emulator.ledger.accepted) == 5


async def test_a_fatal_error_elsewhere_spares_what_was_left(connect: Connect, path: Path, emulator: Emulator) -> None:
    """A refused key ends a generate_many() beside recover(): the rows of recover() are sent, or stay queued."""
    await leave(path, *[Left(QUEUED, f"door {number}") for number in range(6)])
    async with connect(journal=path, max_concurrency=1) as session:
        emulator.inject("submit.unauthorized")
        many = asyncio.create_task(all_of(session.generate_many(["a", "b", "c"])))
        while not session.stats.submitting:  # noqa: ASYNC110 - turn by turn
            await asyncio.sleep(0)
        await all_of(session.recover())
        assert {type(outcome.error) for outcome in await many} == {AuthenticationError}
    left = [row for row in await rows(path) if str(row.request.prompt).startswith("door")]
    assert {row.state for row in left if row.task_id is None} <= {QUEUED}
    async with connect(journal=path) as session:
        await all_of(session.recover())
    assert prompts(emulator) == [f"door {number}" for number in range(6)]
