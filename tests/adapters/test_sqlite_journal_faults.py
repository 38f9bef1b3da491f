"""The journal when disks, processes and other programs misbehave."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from journals import DONE, RAIN, SENDING, UNKNOWN, on_thread, opened, use

from finevoice_async.adapters import journal_rows, sqlite_journal
from finevoice_async.adapters.sqlite_journal import SqliteJournal
from finevoice_async.core.ledger import Move
from finevoice_async.core.requests import SfxRequest
from finevoice_async.errors import JournalError

pytestmark = pytest.mark.real_time  # there is nothing to wait for but the disk


# Owners


async def test_one_owner_at_a_time(path: Path, no_leaks: object) -> None:
    """A second instance and a second process are refused at once, harm nothing, and may have the file later."""
    journal = await opened(path)
    await journal.begin(RAIN, key=None, state=SENDING)
    with pytest.raises(JournalError, match="in use"):
        await opened(path)
    assert b"in use" in child("asyncio.run(opened())", path).stderr
    await journal.begin(RAIN, key=None, state=SENDING)
    assert b"in use" in child("asyncio.run(opened())", path).stderr  # the refused instance took no lock with it
    await journal.aclose()
    await (await opened(path)).aclose()


PRELUDE = """
import asyncio, gc, os, signal, sys
from pathlib import Path
from finevoice_async.adapters.sqlite_journal import SqliteJournal
from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.core.ledger import EffectState as S, Move
from finevoice_async.core.requests import SfxRequest
from finevoice_async.errors import JournalError
path = Path(sys.argv[1])
async def opened():
    journal = SqliteJournal(path, LoopClock())
    await journal.open()
    return journal
"""


def child(code: str, path: Path) -> subprocess.CompletedProcess[bytes]:
    """Run code in another process."""
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + code, str(path)], capture_output=True, timeout=30, check=False
    )


FORKING = """
async def main():
    journal = await opened()
    for number in range(5):
        await journal.begin(SfxRequest("Rain"), key=str(number), state=S.SENDING)
    if os.fork() == 0:
        told = []
        for call in (
            lambda: journal.begin(SfxRequest("Rain"), key="child", state=S.SENDING),
            lambda: journal.move(1, Move.REFUSE),
            lambda: journal.store("a", "b"),
            lambda: journal.rows().send(None),
            lambda: journal.row(key="0").send(None),
            lambda: journal.row_ids().send(None),
            lambda: journal.load("a").send(None),
            lambda: journal.open().send(None),
        ):
            try:
                call()
            except JournalError as error:
                told.append("fork" in str(error))
        try:
            journal.aclose().send(None)
        except StopIteration:
            told.append(True)
        del journal, call
        gc.collect()
        os.write(1, repr(told).encode())
        os._exit(0)  # the child's copy of the event loop shares its epoll with the parent's
    os.wait()
    await journal.begin(SfxRequest("Rain"), key="after", state=S.SENDING)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


async def test_a_forked_child_touches_nothing(path: Path, no_leaks: object) -> None:
    """A child is refused, may drop its copy, and all that the parent committed outlives the parent's crash."""
    done = await asyncio.to_thread(child, FORKING, path)
    assert done.stdout == repr([True] * 9).encode()
    assert done.returncode == -signal.SIGKILL
    journal = await opened(path)
    assert [row.key for row in await journal.rows()] == ["0", "1", "2", "3", "4", "after"]
    await journal.aclose()


# Crashes

WRITING = """
async def effect(journal, number, mark):
    row = (await journal.begin(SfxRequest("Rain"), key=f"{mark}-{number}", state=S.SENDING)).row
    os.write(1, f"{row.id} unknown\\n".encode())
    await journal.move(row.id, Move.ACCEPT, task_id=f"task-{row.id}")
    os.write(1, f"{row.id} submitted\\n".encode())
    await journal.move(row.id, Move.FINISH, urls=("https://x/y",))
    os.write(1, f"{row.id} done\\n".encode())
async def main():
    journal = await opened()
    mark = os.getpid()
    for number in range(0, 10**9, 20):
        await asyncio.gather(*[effect(journal, number + i, mark) for i in range(20)])
asyncio.run(main())
"""
ORDER = ["unknown", "submitted", "done"]  # a row is told of once it is sending, which opening makes unknown


def killed_after(lines: int, path: Path) -> list[bytes]:
    """Let a child write, kill it once it has told so many lines, and give all whole lines."""
    with subprocess.Popen([sys.executable, "-c", PRELUDE + WRITING, str(path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        heard = [writer.stdout.readline() for _ in range(lines)]
        writer.send_signal(signal.SIGKILL)
        heard += writer.stdout.readlines()
    return [line for line in heard if line.endswith(b"\n")]


async def test_sigkill_loses_nothing(path: Path, no_leaks: object) -> None:
    """Whatever was told as written before a SIGKILL is in the file, which opens again, time after time."""
    told: dict[int, str] = {}
    for lines in (1, 137, 1500):
        for line in await asyncio.to_thread(killed_after, lines, path):
            row_id, state = line.decode().split()
            told[int(row_id)] = state
        journal = await opened(path)
        rows = {row.id: row for row in await journal.rows(limit=10**6)}
        for number, expected in told.items():
            row = rows[number]
            assert ORDER.index(row.state.value) >= ORDER.index(expected)
            assert row.task_id == (None if row.state is UNKNOWN else f"task-{number}")
            assert row.urls == (("https://x/y",) if row.state is DONE else ())
        await journal.aclose()
    assert len(told) > 400


# Disks


async def pragma(journal: SqliteJournal, words: str) -> Any:
    """Ask the journal's own connection for a setting, or change it."""
    return await on_thread(journal, lambda db: db.execute(f"PRAGMA {words}").fetchone()[0])


@pytest.mark.parametrize("step", ["BEGIN", "INSERT", "COMMIT"])
async def test_after_a_fault_the_journal_takes_no_more(
    path: Path, no_leaks: object, faults: dict[str, tuple[str, int]], caplog: pytest.LogCaptureFixture, step: str
) -> None:
    """A failed disk fails the whole batch and all that comes later; what was committed before is kept."""
    journal = await opened(path)
    row = (await journal.begin(RAIN, key="kept", state=SENDING)).row
    faults[step] = ("disk I/O error", sqlite3.SQLITE_IOERR_FSYNC)
    batch: list[asyncio.Future[Any]] = [
        journal.move(row.id, Move.ACCEPT, task_id="t-1"),
        journal.begin(RAIN, key="lost", state=SENDING),
    ]
    results = await asyncio.gather(*batch, return_exceptions=True)
    assert all(isinstance(result, JournalError) and "the disk fails" in result.message for result in results)
    assert isinstance(results[0], JournalError)
    assert results[0].task_id == "t-1"
    assert "task t-1" in caplog.text
    faults.clear()
    with pytest.raises(JournalError, match=r"failed before .*open it again"):
        await journal.begin(RAIN, key=None, state=SENDING)
    with pytest.raises(JournalError, match="could not be read: it failed before"):
        await journal.rows()
    await journal.aclose()
    journal = await opened(path)
    assert [(row.key, row.state) for row in await journal.rows()] == [("kept", UNKNOWN)]
    await journal.aclose()


async def test_a_full_disk_may_pass(path: Path, no_leaks: object) -> None:
    """What does not fit fails with its whole batch, the rest is kept, and once there is room writes succeed again."""
    journal = await opened(path)
    first = (await journal.begin(RAIN, key="first", state=SENDING)).row
    await pragma(journal, "max_page_count = 1")  # no more pages than there are
    long = SfxRequest("x" * 100_000)
    batch = journal.move(first.id, Move.ACCEPT, task_id="t"), journal.begin(long, key="long", state=SENDING)
    results = await asyncio.gather(*batch, return_exceptions=True)
    assert all(isinstance(result, JournalError) and "the disk is full" in result.message for result in results)
    assert await journal.rows() == [first]
    await pragma(journal, "max_page_count = 100000")
    await journal.move(first.id, Move.ACCEPT, task_id="t")
    await journal.begin(long, key="long", state=SENDING)
    await journal.aclose()


async def test_a_rollback_that_fails(path: Path, no_leaks: object, faults: dict[str, tuple[str, int]]) -> None:
    """If even the rollback fails, nothing more is written, also after a fault that may pass."""
    journal = await opened(path)
    faults |= {"COMMIT": ("full", sqlite3.SQLITE_FULL), "ROLLBACK": ("bad", sqlite3.SQLITE_IOERR)}
    for words in ("the disk is full", "it failed before"):
        with pytest.raises(JournalError, match=words):
            await journal.begin(RAIN, key=None, state=SENDING)
        faults.pop("COMMIT", None)
    await journal.aclose()


async def test_memory_and_bugs(path: Path, no_leaks: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong on the thread, everybody hears of it, and the next batch is tried."""
    journal = await opened(path)

    def fail(*_: Any, **__: Any) -> Any:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(journal_rows, "begin", fail)
        with pytest.raises(JournalError, match="MemoryError"):
            await journal.begin(RAIN, key=None, state=SENDING)
    with monkeypatch.context() as patch:
        patch.setattr(sqlite_journal.log, "error", fail)
        with pytest.raises(JournalError, match=r"MemoryError.* may have been written or not"):
            await journal.move(99, Move.SEND)
    await journal.begin(RAIN, key=None, state=SENDING)
    await journal.aclose()


async def test_closing_fails(path: Path, no_leaks: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure while closing is told, each time."""

    class Stuck(sqlite3.Connection):
        def close(self) -> None:
            super().close()
            raise sqlite3.OperationalError("no")

    use(monkeypatch, Stuck)
    journal = await opened(path)
    for _ in range(2):
        with pytest.raises(JournalError, match="could not be closed: no"):
            await journal.aclose()


async def test_a_disk_that_hangs(path: Path, no_leaks: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing is bounded: what is under way and what is queued fail, and say that it may be written or not."""
    monkeypatch.setattr(sqlite_journal, "CLOSE_TIMEOUT", 0.05)
    journal = await opened(path)
    hang, run = threading.Event(), journal._worker.run
    monkeypatch.setattr(journal._worker, "run", lambda jobs: (hang.wait(10), run(jobs))[1])
    under_way = journal.begin(RAIN, key="under way", state=SENDING)
    await asyncio.sleep(0)
    queued = journal.begin(RAIN, key="queued", state=SENDING)
    with pytest.raises(JournalError, match=r"could not be closed within 0\.05 s"):
        await journal.aclose()
    for write in (under_way, queued):
        with pytest.raises(JournalError, match="may have been written or not"):
            await write
    hang.set()
    await asyncio.to_thread(journal._executor.shutdown)
    await (await opened(path)).aclose()


async def test_sql_stays_off_the_loop(path: Path, no_leaks: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every statement runs on the journal's thread, in WAL with full synchronisation."""
    threads: set[str] = set()

    class Watched(sqlite3.Connection):
        def execute(self, *arguments: Any) -> sqlite3.Cursor:
            threads.add(threading.current_thread().name)
            return super().execute(*arguments)

        def close(self) -> None:
            threads.add(threading.current_thread().name)
            super().close()

    use(monkeypatch, Watched)
    journal = await opened(path)
    row = (await journal.begin(RAIN, key=None, state=SENDING)).row
    await journal.move(row.id, Move.ACCEPT, task_id="t")
    await journal.rows()
    for name, value in {"journal_mode": "wal", "synchronous": 2, "locking_mode": "exclusive"}.items():
        assert await pragma(journal, name) == value
    await journal.aclose()
    assert len(threads) == 1
    assert threads.pop().startswith("finevoice-journal")
