"""`finevoice journal` and `finevoice resume`: what a journal holds, and picking up what was left in it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from finevoice_async import (
    EffectState,
    FineVoiceSession,
    JournalError,
    JournalRow,
    SubmitUnknownError,
    TaskNotFoundError,
)
from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.adapters.sqlite_journal import SqliteJournal
from finevoice_async.cli.generate import say_what_runs
from finevoice_async.core.ledger import MAY_BE_PAID

PAGE = 500


@asynccontextmanager
async def _opened(path: Path) -> AsyncIterator[SqliteJournal]:
    """Open a journal that exists, without a key and a session.

    Raises:
        JournalError: There is none, or it cannot be opened.
    """
    _check_exists(path)
    journal = SqliteJournal(path, LoopClock())
    await journal.open()
    try:
        yield journal
    finally:
        await journal.aclose()


def _check_exists(path: Path) -> None:
    if not path.is_file():
        raise JournalError(f"There is no journal at {path}.")


async def show_journal(path: Path, *, as_json: bool) -> int:
    """Print the effects of a journal, by state."""
    async with _opened(path) as journal:
        rows: list[JournalRow] = []
        while page := await journal.rows(after=rows[-1].id if rows else 0, limit=PAGE):
            rows += page
    order = list(EffectState)
    rows.sort(key=lambda row: (order.index(row.state), row.id))
    if as_json:
        print(json.dumps([_as_data(row) for row in rows], ensure_ascii=False))
        return 0
    table = Table("row", "state", "task id", "key", "prompt", "file or error", "last change (UTC)")
    for row in rows:
        where = row.path or row.error or ""
        cells = (str(row.id), row.state.value, row.task_id or "", row.key or "", (row.request.prompt or "")[:60], where)
        table.add_row(*(_plain(cell) for cell in cells), f"{row.updated_at:%Y-%m-%d %H:%M:%S}")
    Console().print(table)
    unknown = sum(row.state in MAY_BE_PAID for row in rows)
    if unknown:
        print(f"{unknown} may have been paid for, and only you can settle them. Look at your account.")
    return 0


def _plain(text: str) -> str:
    """Make text inert: no markup of the table's, no control characters."""
    return "".join(c if c.isprintable() else "?" for c in text).replace("[", "\\[")


def _as_data(row: JournalRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "state": row.state.value,
        "key": row.key,
        "task_id": row.task_id,
        "prompt": row.request.prompt,
        "duration": row.request.duration,
        "urls": list(row.urls),
        "path": row.path,
        "sha256": row.sha256,
        "error": row.error,
        "created_at": row.created_at.isoformat(),
        "updated_at": row.updated_at.isoformat(),
    }


async def resume(path: Path, folder: Path, *, base_url: str | None) -> int:
    """Pick up what a journal left behind, and save every result."""
    _check_exists(path)
    folder.mkdir(parents=True, exist_ok=True)
    saved = failed = unknown = 0
    async with FineVoiceSession(base_url=base_url, journal=path) as session:
        try:
            async for outcome in session.recover():
                if outcome.effect is not None:
                    print(await outcome.effect.save(folder, overwrite=True))
                    saved += 1
                    continue
                print(f"finevoice: {outcome.error}", file=sys.stderr)
                may_be_paid = isinstance(outcome.error, SubmitUnknownError | TaskNotFoundError)
                unknown += may_be_paid
                failed += not may_be_paid
        except asyncio.CancelledError:
            say_what_runs(session, path)
            raise
    print(f"{saved} saved, {failed} failed, {unknown} unknown", file=sys.stderr)
    if unknown:
        return 5
    return 4 if failed else 0
