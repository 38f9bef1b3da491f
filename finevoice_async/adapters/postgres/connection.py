"""Connections to a fleet's database: how they are made, and what their errors mean."""

from __future__ import annotations

import logging
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

# Else a program that has not set up logging reads on stderr of connections that were lost, and are mended here.
logging.getLogger("psycopg").addHandler(logging.NullHandler())

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

CONNECT_TIMEOUT: Final = 10
"""Seconds for one connection, where the URL says nothing: as `Timeouts.connect`."""

STATEMENT_TIMEOUT: Final = 10.0
"""Seconds that the server gives a statement. The longest waits for a lock that is held for milliseconds."""

_SETTINGS: Final = {
    "statement_timeout": f"{STATEMENT_TIMEOUT:g}s",
    # A process that is paused within a transaction would hold the account's lock for everybody.
    "idle_in_transaction_session_timeout": "2s",
}

_AWAY: Final = (
    "08",  # the connection
    "25",  # a standby that takes no writes; a transaction that was idle for too long
    "40",  # a deadlock, a serialization failure
    "53",  # too many connections, a full disk, no memory
    "57",  # shut down, starting up, a statement that took too long
    "58",  # the system under it failed
)
"""Classes of SQLSTATEs of a database that may well do later what it does not do now."""


async def connect(url: str) -> Connection:
    """Connect.

    Raises:
        psycopg.Error: It could not be done.
    """
    try:
        given = conninfo_to_dict(url)
    except psycopg.Error:
        raise psycopg.ProgrammingError("its URL cannot be read") from None  # what libpq says would show it
    ours = {
        "connect_timeout": CONNECT_TIMEOUT,
        "application_name": "finevoice",
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
    }
    defaults: dict[str, Any] = {name: value for name, value in ours.items() if name not in given}
    connection = await psycopg.AsyncConnection.connect(url, autocommit=True, **defaults)
    try:
        settings = ", ".join(f"set_config('{name}', '{value}', false)" for name, value in _SETTINGS.items())
        await connection.execute(f"SELECT {settings}")
    except BaseException:
        await connection.close()
        raise
    return connection


def is_away(error: Exception) -> bool:
    """Tell whether the database is away: to ask again later may help. Else it is broken, or the statement is wrong."""
    if isinstance(error, TimeoutError | OSError):
        return True
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return error.sqlstate[:2] in _AWAY


def explain(error: BaseException) -> str:
    """Say in a line why the database refused; without the password, which no message of libpq's has."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    words = lines[0] if lines else type(error).__name__
    return words.rstrip(".")


def place_of(url: str) -> str:
    """Return which database a URL names, without user and password."""
    try:
        parts = conninfo_to_dict(url)
    except psycopg.Error:
        return "of that URL"
    name, host = parts.get("dbname") or "of the default name", parts.get("host") or "the local socket"
    return f"{name} at {host}"
