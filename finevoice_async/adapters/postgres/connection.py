"""Connections to a fleet's database: how they are made, and what their errors mean."""

from __future__ import annotations

import logging
import re
import traceback
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from finevoice_async.errors import ConfigurationError

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


_STARTING: Final = ("is starting up", "is shutting down", "in recovery mode", "not yet accepting connections")
"""What a server says that is there and lets nobody in."""


_UNREADABLE: Final = "The URL of the fleet's database cannot be read"
_MEANT: Final = f"{_UNREADABLE}: write @ / : # % in its password as %40 %2F %3A %23 %25, or put it into PGPASSWORD."
_PERCENT: Final = (
    f"{_UNREADABLE}: a % must be written %25. In its password write @ / : # as %40 %2F %3A %23, "
    "or put it into PGPASSWORD."
)

_FILES: Final = {"passfile", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslcrldir", "sslkeylogfile", "gsslib"}
_NAMES: Final = {"user", "application_name", "fallback_application_name", "service", "krbsrvname"}
_MAY_HOLD_AT: Final = {"password", "sslpassword", "options", *_NAMES, *_FILES}
"""Parameters in which an @ means nothing. In any other it is what is left of a password with an @ or a / in it."""

_BAD_PERCENT: Final = re.compile(r"%(?![0-9a-f]{2})|%00", re.IGNORECASE)
_PARAMETER: Final = re.compile(r"[A-Za-z_]{1,40}")


def read_url(url: str) -> dict[str, Any]:
    """Return the parts of a database's URL.

    Raises:
        ConfigurationError: It cannot be read, or not as it was meant: what of a password would be taken for a host or a
            database is neither looked for nor shown.
    """
    parts = _parse(url)
    if parts is None:
        raise ConfigurationError(_why_unreadable(url))
    if (
        "\0" in url  # libpq would read no further
        or any("@" in str(value) for name, value in parts.items() if name not in _MAY_HOLD_AT)
        or ":" in parts.get("dbname", "")
        or not set(parts.get("port", "")) <= set("0123456789,")
    ):
        raise ConfigurationError(_MEANT)
    return parts


def _parse(url: str) -> dict[str, Any] | None:
    try:
        return conninfo_to_dict(url)
    except (psycopg.Error, ValueError):  # what libpq says would show it; an error of Unicode has it as an attribute
        return None


def _why_unreadable(url: str) -> str:
    """Say what is wrong with a URL that libpq does not take; its own words would show a part of it."""
    if _BAD_PERCENT.search(url):
        return _PERCENT
    query = url.rpartition("?")[2] if "?" in url else ""
    if "@" in query:
        return _MEANT  # the end of a password with a ? in it
    known = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()} | {"ssl"}
    for pair in query.split("&") if query else ():
        name, separator, _ = pair.partition("=")
        if name not in known and _PARAMETER.fullmatch(name):
            return f"{_UNREADABLE}: unknown parameter {name}."
        if not separator:
            return f"{_UNREADABLE}: a parameter has no value."
    return _MEANT


async def connect(url: str) -> Connection:
    """Connect.

    Raises:
        ConfigurationError: The URL cannot be read.
        psycopg.Error: It could not be done.
    """
    given = read_url(url)
    ours = {
        "connect_timeout": CONNECT_TIMEOUT,
        "application_name": "finevoice",
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
    }
    defaults: dict[str, Any] = {name: value for name, value in ours.items() if name not in given}
    try:
        connection = await psycopg.AsyncConnection.connect(url, autocommit=True, **defaults)
    except BaseException as error:
        # Only frames of psycopg's have the half-made connection, and whoever keeps the error keeps them: a task that
        # was cancelled does so for as long as it is kept itself.
        traceback.clear_frames(error.__traceback__)
        raise
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


def is_starting(error: Exception) -> bool:
    """Tell whether a server that refused a connection is there: it starts, recovers from a crash or shuts down.

    By its words, as libpq tells no code of such an error. One that speaks another language counts as not there.
    """
    return isinstance(error, psycopg.OperationalError) and any(words in str(error) for words in _STARTING)


def explain(error: BaseException) -> str:
    """Say in a line why the database refused; without the password, which no message has once `read_url` took it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    words = lines[0] if lines else "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
    return words.rstrip(".")


def place_of(url: str) -> str:
    """Return which database a URL names, without user and password."""
    try:
        parts = read_url(url)
    except ConfigurationError:
        return "of that URL"
    name, host = parts.get("dbname") or "of the default name", parts.get("host") or "the local socket"
    return f"{name} at {host}"
