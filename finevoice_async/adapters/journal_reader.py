"""Looking into a journal's file while its owner writes to it, without a lock and without writing.

The owner keeps the file locked for as long as it runs, so SQLite would refuse a second connection, also one that only
reads. What is read is a copy of the file and of its log, taken in an order that gives a consistent moment: the log
still holds all that was merged into the file while the file was being copied, as long as the log was not begun anew
meanwhile, which its first bytes tell. SQLite then plays the copied log into the copied file.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Final

from finevoice_async.adapters import journal_rows, journal_schema
from finevoice_async.adapters.journal_schema import APPLICATION_ID, VERSION
from finevoice_async.core.ledger import EffectState, JournalRow
from finevoice_async.errors import JournalError

_LOGS: Final = ("-wal", "-journal")  # as SQLite names them; at most one of the two is in use
_LOG_HEAD: Final = 32  # bytes of a log's header; two random salts in it change when the log begins anew
_ATTEMPTS: Final = 5  # an owner begins its log anew after thousands of writes: two in a row are rare


class JournalReader:
    """A journal as it was at one moment. Everything here blocks."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def rows(self, *states: EffectState, after: int = 0, limit: int = 1000) -> list[JournalRow]:
        """Return the rows in these states (none named: in any) with an id above `after`, in the order of their ids."""
        return journal_rows.rows(self._db, states=states, after=after, limit=limit)

    def row(self, *, key: str) -> JournalRow | None:
        """Return the row with this key."""
        return journal_rows.row(self._db, column="key", value=key)

    def sent_since(self, moment: datetime) -> list[datetime]:
        """Return when each submission left, from a moment on, that may have been accepted; the earliest first."""
        return journal_rows.sent_since(self._db, moment=moment)

    def past_task_ids(self, row_ids: Sequence[int]) -> dict[int, list[str]]:
        """Return, for those of the rows that were submitted more than once, the ids of the earlier submissions."""
        places = ", ".join("?" * len(row_ids))
        query = f"SELECT id, past_task_ids FROM effects WHERE past_task_ids <> '' AND id IN ({places})"  # noqa: S608 - marks
        return {row_id: text.split("\n")[:-1] for row_id, text in self._db.execute(query, row_ids)}


@contextmanager
def read_journal(path: Path) -> Iterator[JournalReader]:
    """Read a journal as it is now, whoever has it open. Nothing is locked, written or brought up to date.

    Raises:
        JournalError: There is none, it is of another version or another program, or it cannot be read.
    """
    if not path.is_file():
        raise JournalError(f"There is no journal at {path}.")
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="finevoice-"))  # for this user alone
            copy = _copy(path.resolve(), Path(folder))
            db = stack.enter_context(closing(sqlite3.connect(copy, isolation_level=None, check_same_thread=False)))
            _check(db, path)
        except (OSError, sqlite3.Error, MemoryError) as error:
            raise JournalError(f"The journal {path} cannot be read: {journal_schema.explain(error)}.") from error
        yield JournalReader(db)


def _copy(path: Path, folder: Path) -> Path:
    """Copy the file and its log as of one moment.

    Raises:
        JournalError: The owner writes faster than it can be copied.
    """
    copy = folder / "journal"
    for _ in range(_ATTEMPTS):
        before = _moment(path)
        journal_schema.copy_file(path, copy)
        for log in _LOGS:
            target = copy.with_name(copy.name + log)
            target.unlink(missing_ok=True)
            with suppress(FileNotFoundError):
                shutil.copyfile(f"{path}{log}", target)
        if before == _moment(path):
            return copy
    raise JournalError(f"The journal {path} changes faster than it can be read. Try again.")


def _moment(path: Path) -> tuple[object, ...]:
    """Return what changes when a copy of the file and its log may not fit together."""
    try:
        with Path(f"{path}-wal").open("rb") as log:
            head = log.read(_LOG_HEAD)
    except FileNotFoundError:
        head = b""
    if head:
        return (head,)
    now = path.stat()
    return now.st_size, now.st_mtime_ns, os.path.lexists(f"{path}-journal")


def _check(db: sqlite3.Connection, path: Path) -> None:
    """Check that it is a journal of this version.

    Raises:
        JournalError: It is not.
    """
    application, version = (
        db.execute(query).fetchone()[0] for query in ("PRAGMA application_id", "PRAGMA user_version")
    )
    if application != APPLICATION_ID:
        raise JournalError(f"{path} is no journal, or an empty one. Nothing was changed.")
    if version > VERSION:
        raise JournalError(
            f"The journal {path} was written by a newer finevoice_async (schema {version}, here {VERSION}). Upgrade."
        )
    if version < VERSION:
        raise JournalError(
            f"The journal {path} was written by an older finevoice_async (schema {version}, here {VERSION}). Looking "
            "at it changes nothing; whatever opens it to go on brings it up to date, such as `finevoice resume`."
        )
    if (found := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
        raise JournalError(f"The journal {path} is damaged: {found}. Keep it, and bring back a copy.")
