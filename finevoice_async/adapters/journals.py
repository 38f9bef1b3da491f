"""Which journal a session gets: what it is given, a file, or the database of a fleet."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

from finevoice_async.config import Budget, Fleet, check_api_key
from finevoice_async.errors import ConfigurationError
from finevoice_async.ports import Clock, Journal

if TYPE_CHECKING:
    from finevoice_async.shared_ports import SharedJournal

_SCHEMES: Final = ("postgresql://", "postgres://")

_OTHER_URL: Final = re.compile(r"://|^\s*[a-z][a-z0-9+.-]+:/|^\s*postgres[a-z]*:|\bpassword\s*=", re.IGNORECASE)
"""What is no name of a file: a URL, also as a path of such text is spelled (one slash), or a string of libpq's."""

NO_PLACE: Final = (
    "A journal is a file, or a database: postgresql://user@host/database. "
    "Not postgresql+asyncpg://, mysql:// or another URL."
)
"""What is said of a URL of something else, which may hold a password and is not shown."""

EXTRA: Final = "A journal in PostgreSQL needs psycopg, which is not installed: pip install 'finevoice-async[postgres]'."


def make_journal(journal: str | os.PathLike[str] | Journal | None, clock: Clock) -> Journal | None:
    """Return the journal for a path; any other is the caller's own, and returned as it is.

    Raises:
        ConfigurationError: It is a URL of something else, which is not shown.
    """
    if not isinstance(journal, str | os.PathLike):
        return journal
    if names_something_else(journal):
        raise ConfigurationError(NO_PLACE)
    from finevoice_async.adapters.sqlite_journal import SqliteJournal  # with SQLite and threads, for who keeps one

    return SqliteJournal(journal, clock)


def names_a_database(journal: object) -> bool:
    """Tell whether what is given as a journal is the URL of a PostgreSQL database."""
    return isinstance(journal, str) and journal.lower().startswith(_SCHEMES)


def names_something_else(journal: str | os.PathLike[str]) -> bool:
    """Tell whether a text, or a path made of it, is neither a file nor the URL of a PostgreSQL database."""
    return not names_a_database(journal) and _OTHER_URL.search(os.fsdecode(journal)) is not None


def make_shared_journal(
    journal: object, api_key: str | None, plan: int, clock: Clock, fleet: Fleet | None, budget: Budget | None
) -> SharedJournal | None:
    """Return the journal of a fleet for the URL of its database; None for anything else.

    Raises:
        ConfigurationError: psycopg is missing, or there are options for a fleet, and no database.
    """
    if not isinstance(journal, str) or not names_a_database(journal):
        if fleet is not None:
            raise ConfigurationError("fleet needs a journal in PostgreSQL: journal='postgresql://user@host/database'.")
        return None
    if fleet is not None and not isinstance(fleet, Fleet):
        raise ConfigurationError(f"fleet must be a Fleet, such as Fleet(lease=15), not a {type(fleet).__name__}.")
    try:
        from finevoice_async.adapters.postgres.journal import PostgresJournal  # with psycopg, for who has a fleet
    except ImportError as error:  # also of the libpq that it wraps
        raise ConfigurationError(EXTRA) from error
    return PostgresJournal(journal, check_api_key(api_key), plan, clock, fleet or Fleet(), budget)


def close_at_once(journal: Journal | None) -> None:
    """Close a journal's file once its event loop is gone; one of the caller's own is theirs to close."""
    from finevoice_async.adapters.sqlite_journal import SqliteJournal

    if isinstance(journal, SqliteJournal):
        journal.close_at_once()
