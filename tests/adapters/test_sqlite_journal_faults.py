"""The journal when files, disks, processes and other programs misbehave."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest

from finevoice_async.adapters import journal_schema, sqlite_journal
from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.adapters.sqlite_journal import SqliteJournal
from finevoice_async.core.ledger import EffectState
from finevoice_async.core.requests import SfxRequest
from finevoice_async.errors import JournalError

pytestmark = pytest.mark.real_time  # there is nothing to wait for but the disk

RAIN = SfxRequest("Rain")
SENDING, SUBMITTED = EffectState.SENDING, EffectState.SUBMITTED


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file."""
    return tmp_path / "effects.db"


async def opened(path: Path) -> SqliteJournal:
    """Make a journal and open it."""
    journal = SqliteJournal(path, LoopClock())
    await journal.open()
    return journal


async def filled(path: Path, rows: int = 1) -> None:
    """Leave a journal with rows behind."""
    journal = await opened(path)
    await asyncio.gather(*[journal.begin(RAIN, key=f"k{number}", state=SENDING) for number in range(rows)])
    await journal.aclose()


def sql(path: Path, *statements: str) -> None:
    """Do something to a file from outside."""
    db = sqlite3.connect(path)
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


# Files


def _foreign(path: Path) -> None:
    sql(path, "CREATE TABLE theirs (x)", "INSERT INTO theirs VALUES (1)")


def _spoilt(path: Path) -> None:
    asyncio.run(filled(path, 300))
    with path.open("r+b") as file:
        file.seek(4 * 4096)
        file.write(b"\xff" * 4096)


def _half(path: Path) -> None:
    asyncio.run(filled(path, 300))
    os.truncate(path, path.stat().st_size // 2)


UNFIT: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (lambda path: path.write_text("a shopping list\n" * 99), "it is no SQLite file"),
    "foreign": (_foreign, "belongs to another program"),
    "foreign, empty": (lambda path: sql(path, "PRAGMA application_id = 7"), "belongs to another program"),
    "foreign, in WAL": (lambda path: sql(path, "PRAGMA journal_mode = WAL", "CREATE TABLE t (x)"), "another program"),
    "spoilt": (_spoilt, "is damaged"),
    "half": (_half, "is damaged"),
    "folder": (lambda path: path.mkdir(), "it is no file"),
    "pipe": (lambda path: os.mkfifo(path), "it is no file"),
    "link to nowhere": (lambda path: path.symlink_to(path.parent / "none" / "x"), "its folder does not exist"),
}


@pytest.mark.parametrize("kind", UNFIT)
async def test_an_unfit_file_is_refused(path: Path, no_leaks: object, kind: str) -> None:
    """What is no sound journal of this version is refused in words, and its content is not touched."""
    make, words = UNFIT[kind]
    await asyncio.to_thread(make, path)
    before = path.read_bytes() if path.is_file() else None
    journal = SqliteJournal(path, LoopClock())
    for _ in range(2):
        with pytest.raises(JournalError, match=words):
            await journal.open()
    await journal.aclose()
    assert (path.read_bytes() if path.is_file() else None) == before


async def test_a_newer_file_is_refused(path: Path, no_leaks: object) -> None:
    """A journal of a later schema is refused by both numbers, and not changed."""
    await filled(path)
    sql(path, "PRAGMA user_version = 2")
    with pytest.raises(JournalError, match=r"newer finevoice_async \(schema 2, here 1\)"):
        await opened(path)
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA user_version").fetchone() == (2,)
    db.close()


async def test_names_that_cannot_be(tmp_path: Path, no_leaks: object) -> None:
    """A missing folder, a file as folder and an impossible name are told, and no folder is made."""
    (tmp_path / "file").touch()
    for name, words in {"no/x.db": "folder does not exist", "file/x.db": "folder", "a\0b": "null"}.items():
        with pytest.raises(JournalError, match=words):
            await opened(tmp_path / name)
    assert not (tmp_path / "no").exists()


async def test_an_empty_file_becomes_a_journal(path: Path, no_leaks: object) -> None:
    """What a crash left before the first commit is a journal without rows."""
    path.touch()
    await filled(path)
    await filled(path)


async def test_only_the_owner_may_read_it(tmp_path: Path, no_leaks: object) -> None:
    """The file and its log are made with mode 0600, also behind a link; they are called as the user named them."""
    (tmp_path / "link").symlink_to(tmp_path / "odd ?#%.db")
    old = os.umask(0)
    try:
        journal = await opened(tmp_path / "link")
        await journal.begin(RAIN, key=None, state=SENDING)
    finally:
        os.umask(old)
    files = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir() if not file.is_symlink()}
    assert files == {"odd ?#%.db": 0o600, "odd ?#%.db-wal": 0o600}
    await journal.aclose()


@pytest.fixture
def nobody() -> Iterator[None]:
    """Give up root's power to write anywhere, for a test."""
    if os.geteuid() == 0:
        os.seteuid(65534)
        yield
        os.seteuid(0)
    else:
        yield


@pytest.mark.parametrize("target", ["file", "folder", "new"])
async def test_without_permission(path: Path, request: pytest.FixtureRequest, target: str) -> None:
    """A file or a folder that may not be written is refused at the start, not after a POST."""
    for parent in [path.parent, path.parent.parent, path.parent.parent.parent]:
        parent.chmod(0o755)
    if target != "new":
        await filled(path)
        path.chmod(0o444 if target == "file" else 0o666)
    path.parent.chmod(0o777 if target == "file" else 0o555)
    request.getfixturevalue("nobody")
    with pytest.raises(JournalError, match=r"cannot be opened: .*([Pp]ermission|may not be written)"):
        await opened(path)


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
from finevoice_async.core.ledger import EffectState as S
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
            lambda: journal.advance(1, S.FAILED),
            lambda: journal.store("a", "b"),
            lambda: journal.rows().send(None),
            lambda: journal.counts().send(None),
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
    assert done.stdout == repr([True] * 8).encode()
    assert done.returncode == -signal.SIGKILL
    journal = await opened(path)
    assert [row.key for row in await journal.rows()] == ["0", "1", "2", "3", "4", "after"]
    await journal.aclose()


# Crashes

WRITING = """
async def effect(journal, number, mark):
    row = await journal.begin(SfxRequest("Rain"), key=f"{mark}-{number}", state=S.SENDING)
    os.write(1, f"{row.id} sending\\n".encode())
    await journal.advance(row.id, S.SUBMITTED, task_id=f"task-{row.id}")
    os.write(1, f"{row.id} submitted\\n".encode())
    await journal.advance(row.id, S.DONE, urls=("https://x/y",))
    os.write(1, f"{row.id} done\\n".encode())
async def main():
    journal = await opened()
    mark = os.getpid()
    for number in range(0, 10**9, 20):
        await asyncio.gather(*[effect(journal, number + i, mark) for i in range(20)])
asyncio.run(main())
"""
ORDER = ["sending", "submitted", "done"]


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
            assert row.task_id == (None if row.state is SENDING else f"task-{number}")
            assert row.urls == (("https://x/y",) if row.state is EffectState.DONE else ())
        await journal.aclose()
    assert len(told) > 400


# Disks


class Faulty(sqlite3.Connection):
    """A connection that refuses a statement."""

    faults: ClassVar[dict[str, tuple[str, int]]] = {}  # how the statement begins: words and code

    def execute(self, statement: str, *parameters: Any) -> sqlite3.Cursor:
        """Fail as SQLite does, or do it."""
        for start, (words, code) in self.faults.items():
            if statement.startswith(start):
                error = sqlite3.OperationalError(words)
                error.sqlite_errorcode = code
                raise error
        return super().execute(statement, *parameters)


def use(monkeypatch: pytest.MonkeyPatch, connection: type[sqlite3.Connection]) -> None:
    """Let journals open connections of this class."""
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=connection))


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, int]]:
    """Faults to order."""
    use(monkeypatch, Faulty)
    monkeypatch.setattr(Faulty, "faults", {})
    return Faulty.faults


OPENING = {
    ("locking protocol", sqlite3.SQLITE_PROTOCOL): "Network file systems",
    ("disk I/O error", sqlite3.SQLITE_IOERR_LOCK): "Network file systems",
    ("disk I/O error", sqlite3.SQLITE_IOERR_FSYNC): "the disk fails",
    ("database or disk is full", sqlite3.SQLITE_FULL): "the disk is full",
    ("database is locked", sqlite3.SQLITE_BUSY): "in use",
    ("attempt to write a readonly database", sqlite3.SQLITE_READONLY): "may not be written",
    ("something new", 99): "cannot be opened: something new",
}
STEPS = ["PRAGMA locking", "BEGIN EXCLUSIVE", "CREATE", "PRAGMA journal", "BEGIN IMM", "COMMIT"]


@pytest.mark.parametrize(
    ("fault", "step"),
    [(fault, "BEGIN EXCLUSIVE") for fault in OPENING]
    + [(("disk I/O error", sqlite3.SQLITE_IOERR_FSYNC), step) for step in STEPS],
)
async def test_opening_fails_in_words(
    path: Path, no_leaks: object, faults: dict[str, tuple[str, int]], fault: tuple[str, int], step: str
) -> None:
    """A fault at any step of opening is told in words and leaves nothing open; then opening may be tried again."""
    journal = SqliteJournal(path, LoopClock())
    faults[step] = fault
    with pytest.raises(JournalError, match=OPENING[fault]):
        await journal.open()
    faults.clear()
    await journal.open()
    await journal.begin(RAIN, key=None, state=SENDING)
    await journal.aclose()


@pytest.mark.parametrize("step", ["BEGIN", "INSERT", "COMMIT"])
async def test_after_a_fault_the_journal_takes_no_more(
    path: Path, no_leaks: object, faults: dict[str, tuple[str, int]], caplog: pytest.LogCaptureFixture, step: str
) -> None:
    """A failed disk fails the whole batch and all that comes later; what was committed before is kept."""
    journal = await opened(path)
    row = await journal.begin(RAIN, key="kept", state=SENDING)
    faults[step] = ("disk I/O error", sqlite3.SQLITE_IOERR_FSYNC)
    batch: list[asyncio.Future[Any]] = [
        journal.advance(row.id, SUBMITTED, task_id="t-1"),
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
    assert [(row.key, row.state) for row in await journal.rows()] == [("kept", SENDING)]
    await journal.aclose()


async def test_a_full_disk_may_pass(path: Path, no_leaks: object) -> None:
    """What does not fit fails with its whole batch, the rest is kept, and once there is room writes succeed again."""
    journal = await opened(path)
    first = await journal.begin(RAIN, key="first", state=SENDING)
    await _on_thread(journal, "PRAGMA max_page_count = 1")  # no more pages than there are
    long = SfxRequest("x" * 100_000)
    batch = journal.advance(first.id, SUBMITTED, task_id="t"), journal.begin(long, key="long", state=SENDING)
    results = await asyncio.gather(*batch, return_exceptions=True)
    assert all(isinstance(result, JournalError) and "the disk is full" in result.message for result in results)
    assert await journal.rows() == [first]
    await _on_thread(journal, "PRAGMA max_page_count = 100000")
    await journal.advance(first.id, SUBMITTED, task_id="t")
    await journal.begin(long, key="long", state=SENDING)
    await journal.aclose()


async def _on_thread(journal: SqliteJournal, statement: str) -> Any:
    """Give the first value of what a statement gives on the journal's own connection."""

    def run() -> Any:
        assert journal._worker._db is not None
        return journal._worker._db.execute(statement).fetchone()[0]

    return await asyncio.get_running_loop().run_in_executor(journal._executor, run)


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
        patch.setattr(journal_schema, "begin", fail)
        with pytest.raises(JournalError, match="MemoryError"):
            await journal.begin(RAIN, key=None, state=SENDING)
    with monkeypatch.context() as patch:
        patch.setattr(sqlite_journal.log, "error", fail)
        with pytest.raises(JournalError, match=r"MemoryError.* may have been written or not"):
            await journal.advance(99, SENDING)
    await journal.begin(RAIN, key=None, state=SENDING)
    await journal.aclose()


async def test_a_log_that_cannot_be(path: Path, no_leaks: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where SQLite cannot keep a write-ahead log, the journal is refused."""

    class NoLog(sqlite3.Connection):
        def execute(self, statement: str, *parameters: Any) -> sqlite3.Cursor:
            return super().execute("SELECT 'delete'" if "= WAL" in statement else statement, *parameters)

    use(monkeypatch, NoLog)
    with pytest.raises(JournalError, match="cannot keep a write-ahead log"):
        await opened(path)


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
    row = await journal.begin(RAIN, key=None, state=SENDING)
    await journal.advance(row.id, SUBMITTED, task_id="t")
    await journal.rows()
    for name, value in {"journal_mode": "wal", "synchronous": 2, "locking_mode": "exclusive"}.items():
        assert await _on_thread(journal, f"PRAGMA {name}") == value
    await journal.aclose()
    assert len(threads) == 1
    assert threads.pop().startswith("finevoice-journal")
