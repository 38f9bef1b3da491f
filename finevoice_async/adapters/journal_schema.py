"""The journal's file: its schema, who owns it, and every statement that runs on it.

All of this is synchronous and belongs on the journal's own thread. `sqlite_journal` is the asyncio side.
"""

from __future__ import annotations

import ctypes
import json
import os
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs

from finevoice_async.core.ledger import TRANSITIONS, EffectState, JournalRow
from finevoice_async.core.requests import SfxRequest
from finevoice_async.errors import JournalError

APPLICATION_ID = int.from_bytes(b"FVsx")
"""Stands in the file's header, so that another program's database is not taken for a journal."""

VERSION = 1
"""Of the schema; stands in the file's header as `user_version`."""

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
        updated_at TEXT NOT NULL
    )""",  # past_task_ids: a line for each id that a later submission of the same effect replaced
    "CREATE TABLE notes (name TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {VERSION}",
)
_SELECT = "SELECT id, key, state, request, task_id, urls, path, sha256, error, created_at, updated_at FROM effects"
_BEFORE = {
    state: ", ".join(f"'{before.value}'" for before, after in TRANSITIONS.items() if state in after)
    for state in EffectState
}
"""For each state the ones that it may follow, as an SQL list."""
_PAST = "past_task_ids || CASE WHEN task_id <> ? THEN task_id || char(10) ELSE '' END"

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

_creating = threading.Lock()


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
    """Merge the write-ahead log into the file, and give the file up. Gives the error, if there is one."""
    try:
        db.close()
    except sqlite3.Error as error:
        return JournalError(f"The journal {path} could not be closed: {explain(error)}.")
    finally:
        ctypes.pythonapi.Py_DecRef(ctypes.py_object(db))
    return None


def _connect(path: Path) -> sqlite3.Connection:
    _create(path)
    # No waiting for locks: an owner keeps its lock for hours.
    db = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=256)
    try:
        _take(db, path)
    except BaseException:
        db.close()
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
    with _creating:
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except FileExistsError:
            if not path.is_file():
                raise JournalError(f"The journal {path} cannot be opened: it is no file.") from None
            # SQLite would open it for reading, and then take its own failure to lock it for a fault of the disk.
            if not os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
                raise PermissionError(0, _WORDS[sqlite3.SQLITE_READONLY]) from None


def _take(db: sqlite3.Connection, path: Path) -> None:
    """Become the only owner, and prove that the file is a sound journal that can be written."""
    db.execute("PRAGMA locking_mode = EXCLUSIVE")  # before the first read: keeps every lock, needs no shared memory
    db.execute("BEGIN EXCLUSIVE")
    application, version, objects = (
        db.execute(query).fetchone()[0]
        for query in ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
    )
    if (application, version, objects) == (0, 0, 0):  # new, or a crash came before the first commit
        for statement in _SCHEMA:
            db.execute(statement)
    elif application != APPLICATION_ID:
        raise JournalError(f"{path} belongs to another program: it is no journal. Its content was left as it is.")
    elif version > VERSION:
        raise JournalError(
            f"The journal {path} was written by a newer finevoice_async (schema {version}, here {VERSION}). Upgrade."
        )
    elif (found := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
        raise JournalError(f"The journal {path} is damaged: {found}. Keep it, and bring back a copy.")
    db.execute("COMMIT")
    if db.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
        raise JournalError(f"The journal {path} cannot keep a write-ahead log there. Keep it on a local disk.")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA fullfsync = ON")  # macOS: else the disk's own cache is not written
    db.execute("BEGIN IMMEDIATE")
    db.execute(f"PRAGMA user_version = {VERSION}")  # one real commit: it must fail here, not after a POST
    db.execute("COMMIT")


def begin(
    db: sqlite3.Connection, *, request: SfxRequest, key: str | None, state: EffectState, at: datetime
) -> JournalRow:
    """Write a new row; if there is one with this key, give that instead."""
    if state not in (EffectState.PREPARED, EffectState.SENDING):
        raise JournalError(f"A new row of the journal cannot begin as {state.value}. Nothing was written.")
    text = json.dumps({field.name: getattr(request, field.name) for field in attrs.fields(SfxRequest)})
    when = _stamp(at)
    cursor = db.execute(
        "INSERT INTO effects (key, state, request, created_at, updated_at) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (key) DO NOTHING",
        (key, state.value, text, when, when),
    )
    if cursor.rowcount == 0:
        return _read_row(db.execute(f"{_SELECT} WHERE key = ?", (key,)).fetchone())
    moment = datetime.fromisoformat(when)
    return JournalRow(
        id=cursor.lastrowid or 0, key=key, state=state, request=request, created_at=moment, updated_at=moment
    )


def advance(
    db: sqlite3.Connection,
    *,
    row_id: int,
    state: EffectState,
    seen: EffectState | None,
    urls: Sequence[str] | None,
    fields: Mapping[str, str | None],
    at: datetime,
) -> None:
    """Move a row to a state, if it still is in the one that was `seen`, and set the fields that are not None.

    One statement checks and writes, so that a refusal leaves nothing behind.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    if urls is not None:
        given["urls"] = json.dumps(urls)
    if "error" in given:
        given["error"] = given["error"].encode(errors="replace").decode()  # what went wrong can always be noted
    task_id = given.get("task_id")
    if state is EffectState.SUBMITTED and not task_id:
        raise JournalError(f"Row {row_id} of the journal cannot become submitted without a task id.")
    given |= {"state": state.value, "updated_at": _stamp(at)}
    settings = ", ".join(f"{name} = ?" for name in given)
    values: list[str | int] = [*given.values()]
    if task_id is not None:
        settings += f", past_task_ids = {_PAST}"  # which sees the old task_id
        values.append(task_id)
    query = f"UPDATE effects SET {settings} WHERE id = ? AND state IN ({_BEFORE[state]})"  # noqa: S608 - names of ours
    values.append(row_id)
    if seen is not None:
        query += " AND state = ?"
        values.append(seen.value)
    try:
        moved = db.execute(query, values).rowcount
    except sqlite3.IntegrityError as error:
        owner = db.execute("SELECT id FROM effects WHERE task_id = ?", (task_id,)).fetchone()
        raise JournalError(
            f"Row {row_id} of the journal cannot get task {task_id}: "
            + (f"it belongs to row {owner[0]}." if owner else f"{error}."),
            task_id=task_id,
        ) from error
    if moved == 0:
        found = db.execute("SELECT state FROM effects WHERE id = ?", (row_id,)).fetchone()
        why = f"it is {found[0]}, and {state.value} cannot follow that" if found else "there is no such row"
        raise JournalError(f"Row {row_id} of the journal cannot become {state.value}: {why}.", task_id=task_id)


def rows(db: sqlite3.Connection, *, states: Sequence[EffectState], after: int, limit: int) -> list[JournalRow]:
    """Return the rows in these states (none: in any) with an id above `after`."""
    wanted = f"AND state IN ({', '.join('?' * len(states))})" if states else ""
    query = f"{_SELECT} WHERE id > ? {wanted} ORDER BY id LIMIT ?"
    return [_read_row(values) for values in db.execute(query, (after, *(state.value for state in states), limit))]


def counts(db: sqlite3.Connection) -> dict[EffectState, int]:
    """Count the rows in each state."""
    found = db.execute("SELECT state, count(*) FROM effects GROUP BY state")
    return {EffectState(state): number for state, number in found}


def load(db: sqlite3.Connection, *, name: str) -> str | None:
    """Return the text under a name."""
    found = db.execute("SELECT text FROM notes WHERE name = ?", (name,)).fetchone()
    return None if found is None else str(found[0])


def store(db: sqlite3.Connection, *, name: str, text: str) -> None:
    """Keep a text under a name."""
    db.execute("INSERT OR REPLACE INTO notes (name, text) VALUES (?, ?)", (name, text))


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def _read_row(values: Sequence[Any]) -> JournalRow:
    row_id, key, state, request, task_id, urls, path, sha256, error, created_at, updated_at = values
    try:
        return JournalRow(
            id=row_id,
            key=key,
            state=EffectState(state),
            request=SfxRequest(**json.loads(request)),
            task_id=task_id,
            urls=tuple(json.loads(urls)),
            path=path,
            sha256=sha256,
            error=error,
            created_at=datetime.fromisoformat(created_at),
            updated_at=datetime.fromisoformat(updated_at),
        )
    except (TypeError, ValueError) as wrong:
        raise JournalError(f"Row {row_id} of the journal cannot be read: {wrong}", task_id=task_id) from wrong
