"""The caller's own hand in the ledger: rows(), adopt(), discard(), retry_failed=, and Outcome.key."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from ledger.helpers import (
    DONE,
    FAILED,
    LOST,
    QUEUED,
    REFUSED,
    SAVED,
    SUBMITTED,
    UNKNOWN,
    Connect,
    Left,
    all_of,
    leave,
    prompts,
    rows,
    the_row,
)

from finevoice_async import (
    ConfigurationError,
    EffectState,
    InvalidRequestError,
    RequestRejectedError,
    SfxItem,
    SfxTask,
    SubmitUnknownError,
    TaskFailedError,
    TaskNotFoundError,
)
from finevoice_async.emulator import Constant, Emulator

EVERY = [QUEUED, SUBMITTED, DONE, SAVED, REFUSED, UNKNOWN, FAILED, LOST]


async def paid_but_unknown(connect: Connect, emulator: Emulator) -> str:
    """Have a task made that no journal knows of, and return its id."""
    emulator.inject("submit.lose_reply")
    async with connect() as session:
        with pytest.raises(SubmitUnknownError):
            await session.submit("rain")
    return list(emulator.ledger.accepted)[-1]


# rows()


async def test_rows(connect: Connect, path: Path) -> None:
    """rows() gives every row in order, or those in some states."""
    ids = await leave(path, *[Left(state, state.value, key=state.name) for state in EVERY])
    async with connect(journal=path) as session:
        assert [row.id for row in await all_of(session.rows())] == ids
        assert [row.key for row in await all_of(session.rows(QUEUED, SAVED, LOST))] == ["QUEUED", "SAVED", "LOST"]
        assert [row.key for row in await session.unknown()] == ["UNKNOWN", "LOST"]


async def test_rows_beyond_a_page(connect: Connect, path: Path) -> None:
    """rows() gives more rows than are read at once, also while they change."""
    ids = await leave(path, *[Left(UNKNOWN) for _ in range(1100)])
    async with connect(journal=path) as session:
        seen = []
        async for row in session.rows(UNKNOWN):
            seen.append(row.id)
            if row.id % 100 == 0:
                await session.discard(row)
        assert seen == ids
        assert len(await session.unknown()) == 1089


async def test_a_journal_is_needed(connect: Connect, path: Path) -> None:
    """Without a journal there is nothing to settle, and the error says what is missing."""
    await leave(path, Left(UNKNOWN))
    row = await the_row(path)
    async with connect() as session:
        calls: list[Any] = [
            all_of(session.rows()),
            session.unknown(),
            session.adopt(row, task_id="t"),
            session.discard(row),
            session.resubmit(row, accept_double_charge=True),
            all_of(session.recover()),
        ]
        for told in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(told, ConfigurationError)


# adopt()


async def test_adopt(connect: Connect, path: Path, emulator: Emulator, tmp_path: Path) -> None:
    """An unknown row gets the task that the caller found: it is made, saved, and found by its key."""
    task_id = await paid_but_unknown(connect, emulator)
    await leave(path, Left(UNKNOWN, key="k"))
    async with connect(journal=path) as session:
        (row,) = await session.unknown()
        task = await session.adopt(row, task_id=task_id)
        assert (task.id, task.request) == (task_id, row.request)
        assert await session.unknown() == []
        await (await task).save(tmp_path / "rain.wav")
        assert (await session.generate("rain", key="k")).task_id == task_id
    assert ((await the_row(path)).state, emulator.ledger.posts) == (SAVED, 1)


async def test_adopt_after_a_restart(connect: Connect, path: Path, emulator: Emulator) -> None:
    """An adopted row is polled on by the next session."""
    task_id = await paid_but_unknown(connect, emulator)
    await leave(path, Left(UNKNOWN, key="k"))
    async with connect(journal=path) as session:
        await session.adopt((await session.unknown())[0], task_id=task_id)
    async with connect(journal=path) as session:
        (outcome,) = await all_of(session.recover())
        assert outcome.task_id == task_id
        assert outcome.effect is not None


async def test_adopt_of_a_lost_row(connect: Connect, path: Path, emulator: Emulator) -> None:
    """A lost row gets another task, or its own again."""
    first, second = [await paid_but_unknown(connect, emulator) for _ in range(2)]
    await leave(path, Left(LOST, task_id="gone"), Left(LOST, task_id=second))
    async with connect(journal=path) as session:
        lost = await session.unknown()
        tasks = [await session.adopt(row, task_id=task_id) for row, task_id in zip(lost, (first, second), strict=True)]
        assert [(await task).task_id for task in tasks] == [first, second]
    assert [row.state for row in await rows(path)] == [DONE, DONE]


async def test_adopt_of_a_task_that_never_was(connect: Connect, path: Path) -> None:
    """A row that gets an id which the service does not know is lost: as unknown as before."""
    await leave(path, Left(UNKNOWN, key="k"))
    async with connect(journal=path) as session:
        task = await session.adopt((await session.unknown())[0], task_id="nobody's")
        with pytest.raises(TaskNotFoundError):
            await task
        assert [(row.state, row.task_id) for row in await session.unknown()] == [(LOST, "nobody's")]


@pytest.mark.parametrize("state", [state for state in EVERY if state not in (UNKNOWN, LOST)])
async def test_what_cannot_be_adopted(connect: Connect, path: Path, state: EffectState) -> None:
    """A row whose fate is known gets no other task."""
    await leave(path, Left(state, task_id="t"))
    async with connect(journal=path) as session:
        (row,) = await all_of(session.rows())
        with pytest.raises(InvalidRequestError):
            await session.adopt(row, task_id="other")
    row = await the_row(path)
    assert row.state is state
    assert row.task_id != "other"


@pytest.mark.parametrize("task_id", ["t", "", "..", "a\nb", "x" * 600, 5, None])
async def test_ids_that_cannot_be_adopted(connect: Connect, path: Path, task_id: Any) -> None:
    """An id of another row, and what is no id, are refused, and the row stays unknown."""
    await leave(path, Left(DONE, task_id="t"), Left(UNKNOWN))
    async with connect(journal=path) as session:
        (row,) = await session.unknown()
        with pytest.raises(InvalidRequestError):
            await session.adopt(row, task_id=task_id)
    assert [(row.state, row.task_id) for row in await rows(path)] == [(DONE, "t"), (UNKNOWN, None)]


async def test_an_id_in_flight_cannot_be_adopted(connect: Connect, path: Path, emulator: Emulator) -> None:
    """A task that is another effect's is not adopted, also while it runs."""
    await leave(path, Left(UNKNOWN))
    async with connect(journal=path) as session:
        task = await session.submit("mine")
        (row,) = await session.unknown()
        with pytest.raises(InvalidRequestError):
            await session.adopt(row, task_id=str(task.id))
        assert (await task).request == task.request
    assert [row.state for row in await rows(path)] == [UNKNOWN, DONE]


async def test_an_attached_task_is_adopted(connect: Connect, path: Path, emulator: Emulator) -> None:
    """A task that was attached by its id alone belongs to the row that adopts it, and is asked for once."""
    emulator.service_time = Constant(5)
    task_id = await paid_but_unknown(connect, emulator)
    await leave(path, Left(UNKNOWN, key="k"))
    async with connect(journal=path) as session:
        attached = await session.attach(task_id)
        adopted = await session.adopt((await session.unknown())[0], task_id=task_id)
        assert len(session.tasks) == 1
        assert (await attached).task_id == (await adopted).task_id == task_id
    row = await the_row(path)
    assert (row.state, row.task_id) == (DONE, task_id)


async def test_an_adopted_task_holds_a_slot(connect: Connect, path: Path, emulator: Emulator) -> None:
    """An adopted task that runs counts in the plan."""
    emulator.service_time = Constant(60)
    task_id = await paid_but_unknown(connect, emulator)
    await leave(path, Left(UNKNOWN))
    async with connect(journal=path, max_concurrency=1) as session:
        await session.adopt((await session.unknown())[0], task_id=task_id)
        await asyncio.sleep(5)
        await session.submit("something else")
    assert emulator.ledger.most_running == 1


async def test_two_settle_one_row(connect: Connect, path: Path, emulator: Emulator) -> None:
    """Of several who settle one row at once, one does; the others hear that it is settled."""
    task_id = await paid_but_unknown(connect, emulator)
    await leave(path, Left(UNKNOWN))
    async with connect(journal=path) as session:
        (row,) = await session.unknown()
        calls: list[Any] = [
            session.adopt(row, task_id=task_id),
            session.discard(row),
            session.resubmit(row, accept_double_charge=True),
            session.adopt(row, task_id="other"),
            session.discard(row),
        ]
        told = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(one) for one in told if isinstance(one, BaseException)} == {InvalidRequestError}
        settled, *same = {one.id for one in told if isinstance(one, SfxTask)}  # who resubmits may find it adopted
        assert not same
        await asyncio.sleep(60)
    assert emulator.ledger.posts <= 2
    assert (await the_row(path)).task_id == settled


# discard()


@pytest.mark.parametrize("state", [UNKNOWN, LOST, QUEUED])
async def test_discard(connect: Connect, path: Path, emulator: Emulator, state: EffectState) -> None:
    """What is given up is listed, recovered and sent no more, and its key is free."""
    await leave(path, Left(state, key="k"))
    async with connect(journal=path) as session:
        (row,) = await all_of(session.rows())
        await session.discard(row)
        with pytest.raises(InvalidRequestError):
            await session.discard(row)
        assert await session.unknown() == []
        assert not await all_of(session.recover())
        assert not emulator.ledger.posts
        assert (await the_states(session)) == [REFUSED]
        assert (await session.generate("another", key="k")).task_id
    assert prompts(emulator) == ["another"]


async def the_states(session: Any) -> list[EffectState]:
    """Return the states of all rows."""
    return [row.state async for row in session.rows()]


@pytest.mark.parametrize("state", [state for state in EVERY if state not in (UNKNOWN, LOST, QUEUED)])
async def test_what_cannot_be_discarded(connect: Connect, path: Path, state: EffectState) -> None:
    """What runs, is made or has ended is not given up."""
    await leave(path, Left(state))
    async with connect(journal=path) as session:
        (row,) = await all_of(session.rows())
        with pytest.raises(InvalidRequestError):
            await session.discard(row)
        assert await the_states(session) == [state]


async def test_discard_of_what_is_being_sent(connect: Connect, path: Path, emulator: Emulator) -> None:
    """A row whose POST is under way is not given up, for the first time or again."""
    emulator.inject("submit.slow", 2)
    await leave(path, Left(UNKNOWN, "again"))
    async with connect(journal=path) as session:
        (unknown,) = await session.unknown()
        calls: list[Any] = [session.resubmit(unknown, accept_double_charge=True), session.submit("new")]
        jobs = [asyncio.create_task(call) for call in calls]
        await asyncio.sleep(1)
        for row in [unknown, *await all_of(session.rows())]:
            with pytest.raises(InvalidRequestError):
                await session.discard(row)
            with pytest.raises(InvalidRequestError):
                await session.adopt(row, task_id="t")
        await asyncio.gather(*jobs)
    assert [row.state for row in await rows(path)] == [SUBMITTED, SUBMITTED]


async def test_discard_of_what_waits_here(connect: Connect, path: Path, emulator: Emulator) -> None:
    """A row that waits for its slot in this session is not given up: somebody waits for it."""
    async with connect(journal=path, max_concurrency=1) as session:
        await session.submit("something else")
        waiting = asyncio.create_task(session.generate("rain", key="k"))
        await asyncio.sleep(0.1)
        (row,) = await all_of(session.rows(QUEUED))
        with pytest.raises(InvalidRequestError):
            await session.discard(row)
        assert (await waiting).task_id
    assert prompts(emulator) == ["rain", "something else"]


# retry_failed=


@pytest.mark.parametrize("way", ["submit", "generate", "generate_many"])
async def test_retry_failed(connect: Connect, path: Path, emulator: Emulator, way: str) -> None:
    """A failed effect is paid for again only by a caller who says so; others hear of its failure, with the id."""

    async def ask(*, retry_failed: bool) -> str | None:
        if way == "submit":
            return (await (await session.submit("rain", key="k", retry_failed=retry_failed))).task_id
        if way == "generate":
            return (await session.generate("rain", key="k", retry_failed=retry_failed)).task_id
        wanted: list[SfxItem] = [{"prompt": "rain", "key": "k"}]
        (outcome,) = await all_of(session.generate_many(wanted, retry_failed=retry_failed))
        if outcome.error is not None:
            raise outcome.error
        return outcome.task_id

    emulator.inject("task.fail")
    async with connect(journal=path) as session:
        with pytest.raises(TaskFailedError):
            await ask(retry_failed=False)
    (failed,) = emulator.ledger.accepted
    async with connect(journal=path) as session:
        for _ in range(2):
            with pytest.raises(TaskFailedError) as caught:
                await ask(retry_failed=False)
            assert caught.value.task_id == failed
        assert emulator.ledger.posts == 1
        again = await ask(retry_failed=True)
        assert again != failed
        assert await ask(retry_failed=True) == await ask(retry_failed=False) == again
    assert emulator.ledger.posts == 2
    assert ((await the_row(path)).state, (await the_row(path)).task_id) == (DONE, again)


async def test_retry_failed_fails_again(connect: Connect, path: Path, emulator: Emulator) -> None:
    """A second failure is told with the second id, also after a third try that was refused: that is no consent."""
    emulator.inject("task.fail", 2)
    async with connect(journal=path) as session:
        for retry_failed in (False, True):
            with pytest.raises(TaskFailedError) as caught:
                await session.generate("rain", key="k", retry_failed=retry_failed)
        assert caught.value.task_id == list(emulator.ledger.accepted)[1]
        emulator.inject("submit.refuse")
        with pytest.raises(RequestRejectedError):
            await session.generate("rain", key="k", retry_failed=True)
        with pytest.raises(TaskFailedError) as still:
            await session.generate("rain", key="k")
        assert still.value.task_id == caught.value.task_id
        assert caught.value.message.rstrip(".") in still.value.message
        assert (await session.generate("rain", key="k", retry_failed=True)).task_id
    assert len(emulator.ledger.accepted) == 3


async def test_callers_who_retry_share_one_try(connect: Connect, path: Path, emulator: Emulator) -> None:
    """Several callers who pay for another try of one key at once pay for one."""
    await leave(path, Left(FAILED, key="k"))
    async with connect(journal=path) as session:
        calls = [session.generate("rain", key="k", retry_failed=True) for _ in range(5)]
        effects = await asyncio.gather(*calls)
    assert len({effect.task_id for effect in effects}) == 1
    assert emulator.ledger.posts == 1


# Outcome.key


async def test_outcomes_have_their_keys(connect: Connect, path: Path, emulator: Emulator) -> None:
    """Each outcome says whose it is: made, failed, refused, invalid, and without a key."""
    wanted: list[Any] = [
        {"prompt": "made", "key": "made"},
        {"prompt": "invalid", "key": "invalid", "duration": 99},
        {"prompt": "known", "key": "known"},
        "no key",
        {"prompt": "another request", "key": "known"},
    ]
    async with connect(journal=path) as session:
        await session.generate("known", key="known")
        outcomes = await all_of(session.generate_many(wanted, ordered=True))
        assert [outcome.key for outcome in outcomes] == ["made", "invalid", "known", None, "known"]
        emulator.inject("submit.refuse")
        (outcome,) = await all_of(session.generate_many([{"prompt": "refused", "key": "refused"}]))
        assert (outcome.key, outcome.effect) == ("refused", None)


async def test_recovered_outcomes_have_their_keys(connect: Connect, path: Path, emulator: Emulator) -> None:
    """recover() says whose each effect is, whatever became of it."""
    async with connect() as session:
        task_id = str((await session.submit("runs")).id)
    states = {"waits": QUEUED, "runs": SUBMITTED, "done": DONE, "unknown": UNKNOWN, "lost": LOST}
    left = [Left(state, name, key=name, task_id=task_id if name == "runs" else None) for name, state in states.items()]
    await leave(path, *left, Left(QUEUED, "no key"))
    async with connect(journal=path) as session:
        outcomes = await all_of(session.recover())
    keys = {str(outcome.request.prompt): outcome.key for outcome in outcomes if outcome.request}
    assert keys == {name: name for name in states} | {"no key": None}
    errors = {outcome.key: type(outcome.error) for outcome in outcomes if outcome.error}
    assert errors == {"unknown": SubmitUnknownError, "lost": TaskNotFoundError}
