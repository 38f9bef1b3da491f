"""The journal's file: which ones are taken, what opening does to them, and how it fails."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from journals import (
    DONE,
    FAILED,
    LOST,
    QUEUED,
    RAIN,
    REFUSED,
    SAVED,
    SENDING,
    SUBMITTED,
    UNKNOWN,
    opened,
    row_in,
    sql,
    use,
)

from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.adapters.sqlite_journal import SqliteJournal
from finevoice_async.core.ledger import EffectState, Move
from finevoice_async.core.requests import SfxRequest
from finevoice_async.errors import JournalError

pytestmark = pytest.mark.real_time  # there is nothing to wait for but the disk

V1 = Path(__file__).parent.parent / "samples" / "journal_v1.db"


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
    sql(path, "PRAGMA user_version = 3", "UPDATE effects SET state = 'sending'")
    with pytest.raises(JournalError, match=r"newer finevoice_async \(schema 3, here 2\)"):
        await opened(path)
    assert sql(path, "PRAGMA user_version") == [(3,)]
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


# Version 1


@pytest.fixture
def old(path: Path) -> Path:
    """A copy of a journal that version 1 of the schema made."""
    return Path(shutil.copyfile(V1, path))


FIRST = SfxRequest("Rain on a tin roof", negative_prompt="music, voices", duration=5)
CLIP = SfxRequest(source_url="https://example.org/clip.mp4?sig=1", source_type="video", duration=2.5, use_async=False)
LOST_ANSWER = "No answer came back: the connection broke. The request may have been accepted and paid for."
STOPPED = "The program stopped before the answer to its submission came"
NO_SOURCE = "Task p1-failed failed: The service answered 404: its source is gone (code 500)."
NOT_FOUND = "The service answered 404: task not found."
# What became of each row: key, state, task id, earlier ids, error.
MIGRATED: dict[int, tuple[str | None, EffectState, str | None, str, str | None]] = {
    1: ("scene 1, door", QUEUED, None, "", None),
    2: (None, QUEUED, None, "", None),
    3: (None, UNKNOWN, None, "", STOPPED),
    4: ("scene 2, rain", UNKNOWN, None, "", LOST_ANSWER),
    5: ("scene 3, wind", SUBMITTED, "p1-submitted", "", None),
    6: (None, DONE, "p1-done", "", None),
    7: (None, DONE, None, "", None),
    8: ("scene 4, thunder", SAVED, "p1-saved", "", None),
    9: ("scene 5, bird", REFUSED, None, "", "cancelled before it was sent"),
    10: ("scene 6, bell", REFUSED, None, "", "The service answered 404: no such path."),
    11: ("scene 7, dog", FAILED, "p1-failed", "", NO_SOURCE),
    12: ("scene 8, cat", LOST, "p1-lost", "", NOT_FOUND),
    13: ("scene 9, sea", QUEUED, None, "p1-first\n", "Task p1-first failed: overloaded."),
    14: ("scene 10, fire", UNKNOWN, None, "p1-one\np1-two\n", "Task p1-two failed: overloaded."),
}


async def test_version_1_is_migrated(old: Path, no_leaks: object, caplog: pytest.LogCaptureFixture) -> None:
    """Every row of an old journal is found in its new state, with all that was known; and so it stays."""
    stamps = {row[0]: row[1:] for row in sql(old, "SELECT id, created_at, updated_at FROM effects")}
    with caplog.at_level(logging.INFO, "finevoice_async"):
        journal = await opened(old)
    assert "effects.db was brought from schema 1 to 2" in caplog.text
    rows = await journal.rows()
    assert await journal.load("polling") == '{"a": 1}'
    await journal.aclose()
    aside = dict(sql(old, "SELECT id, past_task_ids FROM effects"))
    assert {row.id: (row.key, row.state, row.task_id, aside[row.id], row.error) for row in rows} == MIGRATED
    for row in rows:
        assert row.request == (CLIP if row.id in (2, 5, 7) else FIRST)
        assert [row.created_at, row.updated_at] == [datetime.fromisoformat(stamp) for stamp in stamps[row.id]]
        assert row.submitted_at == (row.updated_at if row.state is SUBMITTED else None)
        links = ("https://cdn.example/a.mp3?sig=1", "https://cdn.example/b.mp3") if row.state in (DONE, SAVED) else ()
        assert row.urls == (links[:1] if row.id == 7 else links)
        assert (row.path, row.sha256) == (("/srv/effects/thunder ä.mp3", "ab" * 32) if row.id == 8 else (None, None))
    journal = await opened(old)
    assert await journal.rows() == rows
    await journal.aclose()


async def test_a_migrated_file_is_as_a_new_one(old: Path, tmp_path: Path, no_leaks: object) -> None:
    """After the migration nothing tells the file from a new one but its rows."""
    await filled(old)
    await filled(tmp_path / "new.db")
    shapes: list[list[Any]] = [
        [
            sql(file, "PRAGMA user_version"),
            sql(file, "PRAGMA table_info(effects)"),
            sql(file, "PRAGMA table_info(notes)"),
            sql(file, "SELECT name, sql FROM sqlite_master WHERE type = 'index' ORDER BY name"),
        ]
        for file in (old, tmp_path / "new.db")
    ]
    assert shapes[0] == shapes[1]


def content(path: Path) -> list[list[Any]]:
    """Return all that is in a file."""
    queries = ("PRAGMA user_version", "SELECT * FROM effects", "SELECT * FROM notes", "SELECT sql FROM sqlite_master")
    return [sql(path, query) for query in queries]


MIGRATING = [
    "ALTER",
    "UPDATE effects SET past",
    "UPDATE effects SET\n",
    "CREATE INDEX",
    "PRAGMA user_version =",
    "UPDATE effects SET state",
    "COMMIT",
]


@pytest.mark.parametrize("step", MIGRATING)
async def test_a_migration_that_fails(
    old: Path, no_leaks: object, faults: dict[str, tuple[str, int]], step: str
) -> None:
    """A fault at any step leaves the old file as it was; the next try does it all."""
    before = content(old)
    faults[step] = ("disk I/O error", sqlite3.SQLITE_IOERR_FSYNC)
    with pytest.raises(JournalError, match="the disk fails"):
        await opened(old)
    faults.clear()
    assert content(old) == before
    journal = await opened(old)
    assert {row.id: row.state for row in await journal.rows()} == {number: row[1] for number, row in MIGRATED.items()}
    await journal.aclose()


KILLED = """
import asyncio, os, signal, sqlite3, sys
from functools import partial
from finevoice_async.adapters.sqlite_journal import SqliteJournal
from finevoice_async.adapters.loop_clock import LoopClock
class Deadly(sqlite3.Connection):
    def execute(self, statement, *parameters):
        if statement == "COMMIT":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().execute(statement, *parameters)
sqlite3.connect = partial(sqlite3.connect, factory=Deadly)
asyncio.run(SqliteJournal(sys.argv[1], LoopClock()).open())
"""


async def test_a_migration_that_is_killed(old: Path, no_leaks: object) -> None:
    """A process that dies before its commit leaves version 1."""
    before = content(old)
    done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", KILLED, str(old)], timeout=30, check=False)
    assert done.returncode == -signal.SIGKILL
    assert content(old) == before
    await (await opened(old)).aclose()
    assert sql(old, "PRAGMA user_version") == [(2,)]


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
