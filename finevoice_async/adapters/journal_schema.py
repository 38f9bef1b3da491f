"""The journal's file: its schema, its versions, and who owns it.

All of this is synchronous and belongs on the journal's own thread. `journal_rows` has the statements for its rows,
`sqlite_journal` is the asyncio side.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from finevoice_async.core.ledger import GIVEN_UP, PERHAPS_PAID, EffectState
from finevoice_async.errors import JournalError

log = logging.getLogger("finevoice_async")

APPLICATION_ID = int.from_bytes(b"FVsx")
"""Stands in the file's header, so that another program's database is not taken for a journal."""

VERSION = 4
"""Of the schema; stands in the file's header as `user_version`."""

FINISHED: Final = (EffectState.SAVED, EffectState.REFUSED, EffectState.FAILED)
"""The states that nobody asks for to go on: most rows of an old journal. The few others are found by an index."""

IS_UNFINISHED: Final = " AND ".join(f"state <> '{state.value}'" for state in FINISHED)
"""The index's condition. SQLite uses it for a query that has these very words; `NOT IN` would double a write's cost."""

_EARLIER = "ALTER TABLE effects ADD COLUMN earlier TEXT"  # what a row was before it was begun anew, as JSON
_PRUNED = (
    "CREATE TABLE pruned (sent_at TEXT, past_sent_at TEXT NOT NULL)",  # as in effects
    """CREATE TRIGGER keep_when_sent AFTER DELETE ON effects WHEN OLD.sent_at IS NOT NULL OR OLD.past_sent_at <> ''
        BEGIN INSERT INTO pruned VALUES (OLD.sent_at, OLD.past_sent_at); END""",
)
"""Of a row that is deleted it stays when its submissions left: budgets count them, nobody here knows for how long."""

_INDEX = f"CREATE INDEX unfinished_effects ON effects (state) WHERE {IS_UNFINISHED}"
_SET_VERSION = f"PRAGMA user_version = {VERSION}"
_SCHEMA = (
    """CREATE TABLE effects (
        id INTEGER PRIMARY KEY,
        key TEXT UNIQUE,
        state TEXT NOT NULL,
        request TEXT NOT NULL,
        task_id TEXT UNIQUE,
        past_task_ids TEXT NOT NULL DEFAULT '',
        urls TEXT NOT NULL DEFAULT '[]',
        path TEXT,
        sha256 TEXT,
        error TEXT,
        created_at TEXT NOT NULL,
        updated_at TEXT NOT NULL,
        submitted_at TEXT,
        sent_at TEXT,
        past_sent_at TEXT NOT NULL DEFAULT ''
    )""",  # past_task_ids, past_sent_at: a line for each one that a later submission of the same effect replaced
    _EARLIER,
    _INDEX,
    *_PRUNED,
    "CREATE TABLE notes (name TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID",
    f"PRAGMA application_id = {APPLICATION_ID}",
    _SET_VERSION,
)
_FROM_1 = (
    "ALTER TABLE effects ADD COLUMN submitted_at TEXT",
    """UPDATE effects SET past_task_ids = past_task_ids || task_id || char(10), task_id = NULL
        WHERE state IN ('prepared', 'sending') AND task_id IS NOT NULL""",  # of a task that failed before
    """UPDATE effects SET
        submitted_at = CASE state WHEN 'submitted' THEN updated_at END,
        state = CASE
            WHEN state = 'prepared' THEN 'queued'
            WHEN state = 'submitted' THEN 'submitted'
            WHEN task_id IS NULL THEN 'refused'
            WHEN error LIKE 'The service answered 404%' THEN 'lost'
            ELSE 'failed'
        END
        WHERE state IN ('prepared', 'submitted', 'failed')""",
    _INDEX,
)
_FROM_2 = (
    "ALTER TABLE effects ADD COLUMN sent_at TEXT",
    "ALTER TABLE effects ADD COLUMN past_sent_at TEXT NOT NULL DEFAULT ''",
    """UPDATE effects SET sent_at = coalesce(submitted_at, updated_at)
        WHERE state NOT IN ('queued', 'refused') OR error = 'given up by the caller'""",
    """UPDATE effects SET past_sent_at = replace(
            printf('%.*c', length(past_task_ids) - length(replace(past_task_ids, char(10), '')), '.'),
            '.', updated_at || char(10)
        ) WHERE past_task_ids <> ''""",
)
"""What makes a journal of version 2 one of version 3.

Version 2 did not keep when submissions left. The latest time that it can have been stands for it, in doubt also for
what was never sent: a budget may let fewer pass for that, never more.
"""

_FROM_3 = (
    _EARLIER,
    *_PRUNED,
    f"""UPDATE effects SET error = '{PERHAPS_PAID}'
        WHERE state = 'refused' AND error = '{GIVEN_UP}' AND sent_at IS NOT NULL""",  # noqa: S608 - words of ours
    _SET_VERSION,
)
_MIGRATIONS = {1: (*_FROM_1, *_FROM_2, *_FROM_3), 2: (*_FROM_2, *_FROM_3), 3: _FROM_3}

_DOUBT = f"""UPDATE effects SET state = 'unknown',
        error = coalesce(error, 'The program stopped before the answer to its submission came')
    WHERE state = 'sending' AND {IS_UNFINISHED}"""  # noqa: S608 - names of ours
"""For what an earlier owner left behind. `updated_at` stays: it tells when the POST left, as the account does."""

_IN_USE = "it is in use, by another process or a second time in this one. Only one may have it open"
_NO_LOCKS = "locking it fails. Network file systems often cannot lock: keep the journal on a local disk"
_WORDS = {
    sqlite3.SQLITE_BUSY: _IN_USE,
    sqlite3.SQLITE_LOCKED: _IN_USE,
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_READONLY: "it may not be written. See to the permissions of the file and its folder",
    sqlite3.SQLITE_CANTOPEN: "it, or a file beside it, cannot be opened. See to the permissions of its folder",
    sqlite3.SQLITE_NOTADB: "it is no SQLite file, or a damaged one",
    sqlite3.SQLITE_CORRUPT: "it is damaged",
    sqlite3.SQLITE_PROTOCOL: _NO_LOCKS,
    sqlite3.SQLITE_NOLFS: _NO_LOCKS,
    sqlite3.SQLITE_IOERR: "the disk fails",
    sqlite3.SQLITE_IOERR_LOCK: _NO_LOCKS,
    sqlite3.SQLITE_IOERR_RDLOCK: _NO_LOCKS,
    sqlite3.SQLITE_IOERR_CHECKRESERVEDLOCK: _NO_LOCKS,
}
_PASSING = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY)
_HARMLESS = (sqlite3.DataError, sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError)

_touching = threading.Lock()  # held while a descriptor of a journal is opened or closed outside of SQLite
_owned: dict[
    tuple[int, int], list[int]
] = {}  # this process's journals, by device and inode: descriptors to close later


def explain(error: Exception) -> str:
    """Say in words why SQLite or the system refused."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return str(error) or type(error).__name__
    words = _WORDS.get(code) or _WORDS.get(code & 0xFF)
    return f"{words} ({error})" if words else str(error)


def may_pass(error: Exception) -> bool:
    """Tell if a later write may succeed. After a failed fsync nobody knows what is on the disk."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_FULL) & 0xFF in _PASSING


def spares_others(error: Exception) -> bool:
    """Tell if it comes of one bad value: the statement wrote nothing, and the transaction stands."""
    return isinstance(error, _HARMLESS) or not isinstance(error, sqlite3.Error | MemoryError)


def open_file(path: Path) -> sqlite3.Connection:
    """Open the journal and become its only owner, making the file if need be.

    Raises:
        JournalError: It is no journal, is damaged, newer, in use, or cannot be written.
    """
    try:
        return _connect(path.resolve())  # SQLite puts its log beside the real file
    except (OSError, ValueError, sqlite3.Error, MemoryError) as error:
        raise JournalError(f"The journal {path} cannot be opened: {explain(error)}.") from error


def close_file(db: sqlite3.Connection, path: Path) -> JournalError | None:
    """Merge the write-ahead log into the file, and give the file up. Return the error, if there is one."""
    try:
        db.close()
    except sqlite3.Error as error:
        return JournalError(f"The journal {path} could not be closed: {explain(error)}.")
    finally:
        _disown(path.resolve())
        ctypes.pythonapi.Py_DecRef(ctypes.py_object(db))
    return None


def copy_file(path: Path, target: Path) -> None:
    """Copy a journal's main file, whoever owns it.

    If this very process owns it, the descriptor stays open until the owner closes: to close it would drop its locks.
    """
    with _touching:
        source = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        kept = _owned.get(_identity(os.fstat(source)))
        if kept is not None:
            kept.append(source)
        with os.fdopen(source, "rb", closefd=kept is None) as file, target.open("wb") as copy:
            shutil.copyfileobj(file, copy, 1024 * 1024)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _own(path: Path) -> bool:
    """Note that this process is about to lock a file; False if it was noted before."""
    with _touching:
        identity = _identity(path.stat())
        is_new = identity not in _owned
        _owned.setdefault(identity, [])
    return is_new


def _disown(path: Path) -> None:
    """The file's locks are gone, so that descriptors of it may be closed."""
    with _touching, contextlib.suppress(OSError):
        for descriptor in _owned.pop(_identity(path.stat()), ()):
            os.close(descriptor)


def _connect(path: Path) -> sqlite3.Connection:
    _create(path)
    is_first = _own(path)
    # No waiting for locks: an owner keeps its lock for hours.
    db = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=256)
    try:
        _take(db, path)
    except BaseException:
        db.close()
        if is_first:
            _disown(path)
        raise
    # If a forked child dropped its copy, SQLite would delete the parent's write-ahead log, and with it what was
    # committed. This reference keeps the copy for ever; the owner gives it back in close_file.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(db))
    return db


def _create(path: Path) -> None:
    """Make an empty file that only its owner can read: prompts are private. An existing file is not touched.

    Closing any descriptor of a file drops all locks that this process has on it; hence only a new one is opened
    here, and only one at a time.
    """
    if not path.parent.is_dir():
        raise JournalError(f"The journal {path} cannot be opened: its folder does not exist. Make it first.")
    with _touching:
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except FileExistsError:
            if not path.is_file():
                raise JournalError(f"The journal {path} cannot be opened: it is no file.") from None
            # SQLite would open it for reading, and then take its own failure to lock it for a fault of the disk.
            if not os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
                raise PermissionError(0, _WORDS[sqlite3.SQLITE_READONLY]) from None


def _run(db: sqlite3.Connection, statements: Iterable[str]) -> None:
    for statement in statements:
        db.execute(statement)


def _take(db: sqlite3.Connection, path: Path) -> None:
    """Become the only owner, bring the file up to date, and prove that it is a sound journal that can be written."""
    db.execute("PRAGMA locking_mode = EXCLUSIVE")  # before the first read: keeps every lock, needs no shared memory
    db.execute("BEGIN EXCLUSIVE")
    application, version, objects = (
        db.execute(query).fetchone()[0]
        for query in ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
    )
    if (application, version, objects) == (0, 0, 0):  # new, or a crash came before the first commit
        _run(db, _SCHEMA)
    elif application != APPLICATION_ID:
        raise JournalError(f"{path} belongs to another program: it is no journal. Its content was left as it is.")
    elif version > VERSION:
        raise JournalError(
            f"The journal {path} was written by a newer finevoice_async (schema {version}, here {VERSION}). Upgrade."
        )
    elif (found := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
        raise JournalError(f"The journal {path} is damaged: {found}. Keep it, and bring back a copy.")
    elif version < VERSION:
        _run(db, _MIGRATIONS.get(version, _MIGRATIONS[1]))
    db.execute(_DOUBT)
    db.execute("COMMIT")
    if db.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
        raise JournalError(f"The journal {path} cannot keep a write-ahead log there. Keep it on a local disk.")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA fullfsync = ON")  # macOS: else the disk's own cache is not written
    db.execute("BEGIN IMMEDIATE")
    db.execute(_SET_VERSION)  # one real commit: it must fail here, not after a POST
    db.execute("COMMIT")
    if 0 < version < VERSION:
        log.info("the journal %s was brought from schema %d to %d", path.name, version, VERSION)
