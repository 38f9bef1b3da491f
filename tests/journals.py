"""What the tests of the journal share: opened ones, rows in every state, and faults."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest

from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.adapters.sqlite_journal import SqliteJournal
from finevoice_async.core.ledger import EffectState, JournalRow, Move
from finevoice_async.core.requests import SfxRequest
from finevoice_async.ports import Journal

T = TypeVar("T")

QUEUED, SENDING, SUBMITTED = EffectState.QUEUED, EffectState.SENDING, EffectState.SUBMITTED
DONE, SAVED, REFUSED = EffectState.DONE, EffectState.SAVED, EffectState.REFUSED
UNKNOWN, FAILED, LOST = EffectState.UNKNOWN, EffectState.FAILED, EffectState.LOST
AFRESH = (Move.QUEUE, Move.RETRY, Move.SEND, Move.RESEND)
"""Moves after which a row knows nothing of what was."""

RAIN = SfxRequest("Rain", negative_prompt="music", duration=2.5, use_async=False)
VIDEO = SfxRequest(source_url="https://example.org/a.mp4?x=1", source_type="video", duration=5)
LINKS = ("https://cdn.example/1.mp3?sig=a", "https://cdn.example/2.mp3")

# How a row gets into each state: where it begins, and its moves.
WAYS: dict[EffectState, tuple[EffectState, list[Move]]] = {
    QUEUED: (QUEUED, []),
    SENDING: (SENDING, []),
    SUBMITTED: (SENDING, [Move.ACCEPT]),
    DONE: (SENDING, [Move.ACCEPT, Move.FINISH]),
    SAVED: (SENDING, [Move.ACCEPT, Move.FINISH, Move.SAVE]),
    REFUSED: (QUEUED, [Move.REFUSE]),
    UNKNOWN: (SENDING, [Move.DOUBT]),
    FAILED: (SENDING, [Move.ACCEPT, Move.FAIL]),
    LOST: (SENDING, [Move.ACCEPT, Move.LOSE]),
}
_ids = itertools.count()


async def opened(path: Path) -> SqliteJournal:
    """Make a journal and open it."""
    journal = SqliteJournal(path, LoopClock())
    await journal.open()
    return journal


def noted_by(move: Move) -> dict[str, Any]:
    """Return all that can come with a move."""
    fields = {"urls": LINKS, "path": "/tmp/ä.mp3", "sha256": "ab" * 32, "error": f"by {move.value}"}
    return fields | ({"task_id": f"task-{next(_ids)}"} if move in (Move.ACCEPT, Move.ADOPT) else {})


async def row_in(journal: Journal, state: EffectState, key: str | None = None) -> int:
    """Make a row and bring it into a state."""
    first, moves = WAYS[state]
    row = (await journal.begin(RAIN, key=key, state=first)).row
    for move in moves:
        assert await journal.move(row.id, move, **noted_by(move))
    return row.id


async def only(journal: Journal, row_id: int) -> JournalRow:
    """Return a row that is there."""
    row = await journal.row(row_id=row_id)
    assert row is not None
    return row


async def on_thread(journal: SqliteJournal, use: Callable[[sqlite3.Connection], T]) -> T:
    """Use the journal's own connection, on its thread."""

    def run() -> T:
        assert journal._worker._db is not None
        return use(journal._worker._db)

    return await asyncio.get_running_loop().run_in_executor(journal._executor, run)


async def past_task_ids(journal: SqliteJournal, row_id: int) -> str:
    """Return the task ids that a row has put aside, a line each."""
    query = "SELECT past_task_ids FROM effects WHERE id = ?"
    return str((await on_thread(journal, lambda db: db.execute(query, (row_id,)).fetchone()))[0])


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


def sql(path: Path, *statements: str) -> list[Any]:
    """Do something to a file from outside, and return what the last statement gives."""
    db = sqlite3.connect(path)
    try:
        for statement in statements:
            found = db.execute(statement).fetchall()
        db.commit()
    finally:
        db.close()
    return found
