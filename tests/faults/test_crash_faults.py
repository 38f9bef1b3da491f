"""The process is killed, or the journal fails."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from finevoice_async import EffectState, FineVoiceSession, JournalError, JournalRow
from finevoice_async.adapters.local_slots import LocalSlots
from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.adapters.sqlite_journal import SqliteJournal
from finevoice_async.core.ledger import MOVES, Move
from finevoice_async.emulator import Constant, Emulator

CHILD = Path(__file__).with_name("crash_child.py")
EFFECTS, KILLS = 200, 40
Connect = Callable[..., FineVoiceSession]


@pytest.fixture
async def service() -> AsyncIterator[Emulator]:
    """An emulator in real time, for children in real processes; its effects take 30 ms."""
    async with Emulator(service_time=Constant(0.03)) as emulator:
        yield emulator


async def child(service: Emulator, folder: Path, count: int, *deadly: str) -> asyncio.subprocess.Process:
    """Start the program."""
    arguments = (service.url, service.api_key, str(folder / "effects.db"), str(folder / "out"), str(count), *deadly)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return await asyncio.create_subprocess_exec(
        sys.executable, str(CHILD), *arguments, env=environment, stderr=subprocess.PIPE
    )


async def rows(folder: Path) -> list[JournalRow]:
    """Read the journal that the dead left."""
    journal = SqliteJournal(folder / "effects.db", LoopClock())
    await journal.open()
    try:
        return await journal.rows()
    finally:
        await journal.aclose()


async def check(service: Emulator, folder: Path) -> None:
    """Nothing accepted twice; every accepted effect saved, or listed as unknown."""
    kept = await rows(folder)
    saved = {row.task_id for row in kept if row.state is EffectState.SAVED}
    unknown = [row for row in kept if row.state is EffectState.UNKNOWN]
    assert {row.state for row in kept} <= {EffectState.SAVED, EffectState.UNKNOWN}
    accepted = [task.request.prompt for task in service.ledger.accepted.values()]
    assert len(accepted) == len(set(accepted)), "an effect was accepted twice"
    lost = {task.request.prompt for id_, task in service.ledger.accepted.items() if id_ not in saved}
    assert lost <= {row.request.prompt for row in unknown}
    for row in kept:
        if row.state is EffectState.SAVED:
            assert row.path is not None
            assert Path(row.path).read_bytes()[:4] == b"RIFF"


@pytest.mark.real_time
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("state", ["sending", "submitted", "done", "saved"])
async def test_process_is_killed_at_each_step(service: Emulator, tmp_path: Path, state: str, when: str) -> None:
    """SIGKILL before and after the commit of each state: the restart pays for nothing twice, and loses nothing."""
    process = await child(service, tmp_path, 3, state, when)
    _, told = await process.communicate()
    assert process.returncode == -signal.SIGKILL, told.decode()
    process = await child(service, tmp_path, 3)
    _, told = await process.communicate()
    assert process.returncode == 0, told.decode()
    await check(service, tmp_path)


@pytest.mark.real_time
async def test_process_is_killed_while_queued(service: Emulator, tmp_path: Path) -> None:
    """SIGKILL after a row was queued: it was never sent, and the restart sends it once."""
    process = await child(service, tmp_path, 3, "queued", "after")
    await process.communicate()
    assert service.ledger.posts == 0
    process = await child(service, tmp_path, 3)
    _, told = await process.communicate()
    assert process.returncode == 0, told.decode()
    assert len(service.ledger.accepted) == 3
    await check(service, tmp_path)


@pytest.mark.real_time
@pytest.mark.timeout(300)
async def test_process_is_killed_forty_times(service: Emulator, tmp_path: Path) -> None:
    """A batch of 200 effects is killed 40 times at random moments and ends whole all the same."""
    rng = random.Random(20)
    kills = 0
    while True:
        process = await child(service, tmp_path, EFFECTS)
        if kills < KILLS:
            before = service.ledger.posts
            while service.ledger.posts == before and process.returncode is None:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.002)
            await asyncio.sleep(rng.uniform(0, 0.03))
            if process.returncode is None:
                process.kill()
                kills += 1
        _, told = await process.communicate()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, told.decode()
    assert kills == KILLS, "the batch was done before it was killed often enough"
    await check(service, tmp_path)


def _foreign(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE somebody_elses (x)")
    db.close()


def _damaged(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\x00" + b"garbage" * 1000)


def _folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("harm", [_foreign, _damaged, _folder], ids=["foreign", "damaged", "folder"])
async def test_journal_cannot_be_opened(
    connect: Connect, emulator: Emulator, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    """A journal that cannot be opened is a clear error before anything is sent."""
    path = tmp_path / "effects.db"
    harm(path)
    session = connect(journal=path)
    with pytest.raises(JournalError, match=r"effects\.db"):
        await session.submit("rain")
    await session.aclose()
    assert emulator.ledger.posts == 0


async def test_journal_in_use(connect: Connect, emulator: Emulator, tmp_path: Path) -> None:
    """A journal has one owner at a time."""
    async with connect(journal=tmp_path / "j.db"):
        second = connect(journal=tmp_path / "j.db")
        with pytest.raises(JournalError, match="use"):
            await second.submit("rain")
        await second.aclose()
    assert emulator.ledger.posts == 0


class FailingJournal(SqliteJournal):
    """Fails to write one state."""

    def __init__(self, path: Path, fails: EffectState) -> None:
        super().__init__(path, LoopClock())
        self.fails = fails

    def _failed(self) -> asyncio.Future[Any]:
        failed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        failed.set_exception(JournalError("The disk is full."))
        failed.exception()
        return failed

    def begin(self, request: Any, *, key: Any, state: EffectState, again: Move = Move.QUEUE) -> Any:
        """Begin a row, or fail."""
        return self._failed() if state is self.fails else super().begin(request, key=key, state=state, again=again)

    def move(self, row_id: int, move: Move, **fields: Any) -> Any:
        """Move a row, or fail."""
        return self._failed() if MOVES[move][1] is self.fails else super().move(row_id, move, **fields)


async def test_journal_fails_before_the_post(connect: Connect, emulator: Emulator, tmp_path: Path) -> None:
    """A row that cannot be written means no POST, and the place is free again."""
    slots = LocalSlots(1, LoopClock())
    async with connect(journal=FailingJournal(tmp_path / "j.db", EffectState.SENDING), slots=slots) as session:
        for _ in range(2):
            with pytest.raises(JournalError, match="disk is full"):
                await session.submit("rain")
        outcomes = [outcome async for outcome in session.generate_many(["a", "b"])]
        assert [type(outcome.error) for outcome in outcomes] == [JournalError] * 2
        assert slots.used == 0
    assert emulator.ledger.posts == 0


async def test_journal_fails_after_the_post(
    connect: Connect, emulator: Emulator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """If the id cannot be written, it is in the error and in the log, and the task is followed all the same."""
    async with connect(journal=FailingJournal(tmp_path / "j.db", EffectState.SUBMITTED)) as session:
        with pytest.raises(JournalError) as caught:
            await session.submit("rain")
        (task_id,) = emulator.ledger.accepted
        assert caught.value.task_id == task_id
        assert task_id in str(caught.value)
        assert task_id in caplog.text
        assert (await (await session.attach(task_id))).task_id == task_id
    assert emulator.ledger.posts == 1
