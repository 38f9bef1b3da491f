"""Which journal a session gets: what it is given, or a file."""

from __future__ import annotations

import os

from finevoice_async.ports import Clock, Journal


def make_journal(journal: str | os.PathLike[str] | Journal | None, clock: Clock) -> Journal | None:
    """Return the journal for a path; any other is the caller's own, and returned as it is."""
    if not isinstance(journal, str | os.PathLike):
        return journal
    from finevoice_async.adapters.sqlite_journal import SqliteJournal  # with SQLite and threads, for who keeps one

    return SqliteJournal(journal, clock)


def close_at_once(journal: Journal | None) -> None:
    """Close a journal's file once its event loop is gone; one of the caller's own is theirs to close."""
    from finevoice_async.adapters.sqlite_journal import SqliteJournal

    if isinstance(journal, SqliteJournal):
        journal.close_at_once()
