"""attach() knows the journal, and an id that may be garbage holds up nobody."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from ledger.helpers import (
    DONE,
    FAILED,
    LOST,
    SAVED,
    SUBMITTED,
    Connect,
    Left,
    all_of,
    leave,
    the_row,
)

from finevoice_async import InvalidRequestError, SfxRequest, TaskFailedError, TaskNotFoundError
from finevoice_async.emulator import Constant, Emulator

REQUEST = SfxRequest("rain", duration=2)


async def left_running(connect: Connect, path: Path) -> str:
    """Submit an effect with a key in a session that closes, and return its id."""
    async with connect(journal=path) as session:
        task = await session.submit(REQUEST, key="k")
    return str(task.id)


async def test_attach_knows_the_row(connect: Connect, path: Path, tmp_path: Path) -> None:
    """An attached task has its row's request; its save is noted, and recover() does not give it again."""
    task_id = await left_running(connect, path)
    async with connect(journal=path) as session:
        task = await session.attach(task_id)
        assert (task.id, task.request) == (task_id, REQUEST)
        effect = await task
        assert effect.request == REQUEST
        await effect.save(tmp_path / "rain.wav")
        assert not await all_of(session.recover())
    row = await the_row(path)
    assert (row.state, row.key, row.path) == (SAVED, "k", str(tmp_path / "rain.wav"))


@pytest.mark.parametrize("first", ["attach", "recover", "key"])
async def test_one_task_however_it_is_found(connect: Connect, path: Path, emulator: Emulator, first: str) -> None:
    """attach(), recover() and the key find one task, in whatever order they come."""
    emulator.service_time = Constant(5)
    task_id = await left_running(connect, path)
    async with connect(journal=path) as session:
        recovering = None
        if first == "attach":
            await session.attach(task_id)
        elif first == "key":
            await session.submit(REQUEST, key="k")
        else:
            recovering = asyncio.create_task(all_of(session.recover()))
            await asyncio.sleep(1)
        attached, keyed = await session.attach(task_id), await session.submit(REQUEST, key="k")
        (outcome,) = await (recovering or asyncio.create_task(all_of(session.recover())))
        assert len(session.tasks) <= 1
        assert attached.request == keyed.request == outcome.request == REQUEST
        assert (await attached).task_id == (await keyed).task_id == outcome.task_id == task_id
    assert (await the_row(path)).state is DONE
    assert emulator.ledger.posts == 1


async def test_attach_beside_its_own_submission(connect: Connect, path: Path) -> None:
    """A session attaches to what it submitted itself: the same task, request and row."""
    async with connect(journal=path) as session:
        task = await session.submit(REQUEST, key="k")
        assert (await session.attach(str(task.id))).request == REQUEST
        assert len(session.tasks) == 1


async def test_attach_of_what_is_done(connect: Connect, path: Path, emulator: Emulator, tmp_path: Path) -> None:
    """An effect that was made in an earlier session can be saved by its id, and that is noted."""
    async with connect(journal=path) as session:
        effect = await session.generate(REQUEST, key="k")
    async with connect(journal=path) as session:
        again = await (await session.attach(str(effect.task_id)))
        assert again.request == REQUEST
        await again.save(tmp_path / "rain.wav")
    assert (await the_row(path)).state is SAVED


async def test_attach_of_what_failed(connect: Connect, path: Path, emulator: Emulator) -> None:
    """An effect that failed is a failure by its id, too, with its request."""
    emulator.inject("task.fail")
    async with connect(journal=path) as session:
        with pytest.raises(TaskFailedError) as failed:
            await session.generate(REQUEST, key="k")
    async with connect(journal=path) as session:
        with pytest.raises(TaskFailedError) as caught:
            await (await session.attach(str(failed.value.task_id)))
        assert caught.value.request == REQUEST
    assert (await the_row(path)).state is FAILED


async def test_attach_asks_again_for_what_was_lost(connect: Connect, path: Path, emulator: Emulator) -> None:
    """A row is lost, and the service knows its task again: attach() finds it, and its key has it from then on."""
    async with connect() as session:
        task_id = str((await session.submit("rain")).id)
    await leave(path, Left(LOST, key="k", task_id=task_id))
    async with connect(journal=path) as session:
        assert (await (await session.attach(task_id))).task_id == task_id
        assert (await session.generate("rain", key="k")).task_id == task_id
        assert await session.unknown() == []
    assert emulator.ledger.posts == 1


async def test_garbage_ids_block_nobody(connect: Connect, emulator: Emulator) -> None:
    """Ids that the service does not know take no slot: a submission goes out at once beside them."""
    loop = asyncio.get_running_loop()
    async with connect(max_concurrency=5) as session:
        attached = [await session.attach(f"garbage {number}") for number in range(5)]
        began = loop.time()
        await session.submit("rain")
        assert loop.time() - began < 1
        for task in attached:
            with pytest.raises(TaskNotFoundError) as caught:
                await task
            assert caught.value.task_id == task.id


async def test_an_attached_task_that_runs_has_a_slot(connect: Connect, emulator: Emulator) -> None:
    """Once the service says that an attached task runs, it holds a slot of the plan until its end."""
    emulator.service_time = Constant(20)
    emulator.plan_limit = 1
    async with connect(max_concurrency=1) as other, connect(max_concurrency=1) as session:
        task = await other.submit("theirs")
        await session.attach(str(task.id))
        await asyncio.sleep(5)
        await session.submit("ours")
        assert emulator.ledger.rate_limited == 0
        assert task.done() or emulator.running == 1
    assert len(emulator.ledger.accepted) == 2


@pytest.mark.parametrize("task_id", ["", "..", "a\r\nb", "x" * 600, 7, None])
async def test_what_is_no_id(connect: Connect, path: Path, task_id: object) -> None:
    """What cannot be an id is refused, with a journal and without."""
    for journal in (None, path):
        async with connect(journal=journal) as session:
            with pytest.raises(InvalidRequestError):
                await session.attach(task_id)  # type: ignore[arg-type]  # on purpose
            assert session.tasks == ()


async def test_an_attached_row_is_as_its_state_says(connect: Connect, path: Path, emulator: Emulator) -> None:
    """An attached row that was submitted holds its slot at once, for it is known to run."""
    emulator.service_time = Constant(30)
    async with connect() as session:
        task_id = str((await session.submit("rain")).id)
    await leave(path, Left(SUBMITTED, key="k", task_id=task_id))
    async with connect(journal=path, max_concurrency=1) as session:
        await session.attach(task_id)
        waiting = asyncio.create_task(session.submit("something else"))
        await asyncio.sleep(10)
        assert not waiting.done()
        await waiting
    assert emulator.ledger.most_running == 1
