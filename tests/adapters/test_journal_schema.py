"""The journal's file: which ones are taken, what opening does to them, and how it fails."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from journals import (
    QUEUED,
    RAIN,
    SENDING,
    UNKNOWN,
    opened,
    row_in,
    sql,
    use,
)

from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.adapters.sqlite_journal import SqliteJournal
from finevoice_async.core.ledger import EffectState, Move
from finevoice_async.errors import JournalError

pytestmark = pytest.mark.real_time  # there is nothing to wait for but the disk


async def filled(path: Path, rows: int = 1) -> None:
    """Leave a journal with rows behind."""
    journal = await opened(path)
    await asyncio.gather(*[journal.begin(RAIN, key=f"k{number}", state=SENDING) for number in range(rows)])
    await journal.aclose()


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
    sql(path, "PRAGMA user_version = 5", "UPDATE effects SET state = 'sending'")
    with pytest.raises(JournalError, match=r"newer finevoice_async \(schema 5, here 4\)"):
        await opened(path)
    assert sql(path, "PRAGMA user_version") == [(5,)]
    assert sql(path, "SELECT state FROM effects") == [("sending",)]


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


# What an earlier owner left behind


async def test_what_was_being_sent_is_unknown(path: Path, no_leaks: object) -> None:
    """A row left as SENDING is UNKNOWN once the file is opened, in words; all others are as they were."""
    journal = await opened(path)
    for state in EffectState:
        await row_in(journal, state, key=state.value)
    noted = await row_in(journal, QUEUED, key="noted")
    await journal.move(noted, Move.SEND, error="attempt 2")
    before = {row.key: row for row in await journal.rows()}
    await journal.aclose()
    journal = await opened(path)
    after = {row.key: row for row in await journal.rows()}
    await journal.aclose()
    for key in ("sending", "noted"):
        assert (before[key].state, after[key].state) == (SENDING, UNKNOWN)
        assert after[key].updated_at == before[key].updated_at  # when the POST left
    assert after["sending"].error == "The program stopped before the answer to its submission came"
    assert after["noted"].error == "attempt 2"
    changed = {key for key, row in after.items() if row != before[key]}
    assert changed == {"sending", "noted"}


# Faults


OPENING = {
    ("locking protocol", sqlite3.SQLITE_PROTOCOL): "Network file systems",
    ("disk I/O error", sqlite3.SQLITE_IOERR_LOCK): "Network file systems",
    ("disk I/O error", sqlite3.SQLITE_IOERR_FSYNC): "the disk fails",
    ("database or disk is full", sqlite3.SQLITE_FULL): "the disk is full",
    ("database is locked", sqlite3.SQLITE_BUSY): "in use",
    ("attempt to write a readonly database", sqlite3.SQLITE_READONLY): "may not be written",
    ("something new", 99): "cannot be opened: something new",
}
STEPS = ["PRAGMA locking", "BEGIN EXCLUSIVE", "CREATE", "UPDATE", "PRAGMA journal", "BEGIN IMM", "COMMIT"]


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


async def test_a_log_that_cannot_be(path: Path, no_leaks: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where SQLite cannot keep a write-ahead log, the journal is refused."""

    class NoLog(sqlite3.Connection):
        def execute(self, statement: str, *parameters: Any) -> sqlite3.Cursor:
            return super().execute("SELECT 'delete'" if "= WAL" in statement else statement, *parameters)

    use(monkeypatch, NoLog)
    with pytest.raises(JournalError, match="cannot keep a write-ahead log"):
        await opened(path)


async def test_opening_proves_that_it_can_write(path: Path, no_leaks: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file with nothing to change sees one real commit all the same: it must fail here, not after a POST."""
    await filled(path, 0)
    log, grew = Path(f"{path}-wal"), []

    class Watched(sqlite3.Connection):
        def execute(self, statement: str, *parameters: Any) -> sqlite3.Cursor:
            before = log.stat().st_size if log.exists() else 0
            done = super().execute(statement, *parameters)
            if statement == "COMMIT":
                grew.append((log.stat().st_size if log.exists() else 0) > before)
            return done

    use(monkeypatch, Watched)
    journal = await opened(path)
    assert grew == [False, True]
    await journal.aclose()
