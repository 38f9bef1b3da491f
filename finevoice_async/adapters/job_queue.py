"""The queue of a fleet: procrastinate's tables and code, in the database of the fleet's journal.

What a job holds is text that PostgreSQL takes as it is: jsonb refuses the character NUL, so the request is JSON within
it, and the names are spelled as in the journal.
"""

from __future__ import annotations

import json
from typing import Any, Final

import attrs
import procrastinate
import psycopg
from procrastinate import exceptions

from finevoice_async.adapters.postgres.connection import CONNECT_TIMEOUT, connect, explain, place_of, read_url
from finevoice_async.adapters.postgres.rows import read_text, spell_text
from finevoice_async.core.requests import SfxRequest, as_request
from finevoice_async.errors import FineVoiceError, JournalError

TASK: Final = "finevoice.generate"
QUEUE: Final = "finevoice"

POOL: Final = 4
"""Connections at most, beside the one that listens: a job takes two short statements."""

QUEUE_ERRORS: Final = (exceptions.ProcrastinateException, psycopg.Error, OSError, TimeoutError)
"""What a call of the queue's may fail with."""

_MISSING: Final = ("42P01", "42883", "42704")  # no such table, function, type
_MAKE = """BEGIN;
SELECT pg_advisory_xact_lock(1180070776, 0);  -- two at once take turns
-- Where the user's tables are, but never in the schema finevoice: a user of that name has it first in the search path.
SELECT set_config('search_path', string_agg(quote_ident(name), ', '), true)
  FROM unnest(current_schemas(false)) AS name WHERE name <> 'finevoice';
DO $queue$ BEGIN
    IF to_regclass('procrastinate_jobs') IS NULL THEN EXECUTE $finevoice$
{statements}
$finevoice$; END IF;
END $queue$;
COMMIT;
"""


@attrs.frozen(kw_only=True)
class Job:
    """What is to be made.

    Attributes:
        request: The request.
        key: The caller's name for it.
        owner: On whose behalf.
    """

    request: SfxRequest
    key: str
    owner: str | None = None

    def spell(self) -> dict[str, Any]:
        """Return it as procrastinate keeps it."""
        request = json.dumps(attrs.asdict(self.request))
        return {"request": request, "key": spell_text(self.key), "owner": spell_text(self.owner)}

    @classmethod
    def read(cls, *, request: str, key: str, owner: str | None) -> Job:
        """Return it as it was.

        Raises:
            InvalidRequestError: It is of a later version, or nobody of this library has written it.
            ValueError: It is damaged.
        """
        return cls(request=as_request(None, json.loads(request)), key=read_text(key) or "", owner=read_text(owner))


def make_app(url: str, *, pool: int = POOL) -> procrastinate.App:
    """Return procrastinate's face of a database. Nothing is opened.

    Raises:
        ConfigurationError: The URL cannot be read.
    """
    read_url(url)
    settings = {"connect_timeout": CONNECT_TIMEOUT, "application_name": "finevoice queue"}
    connector = procrastinate.PsycopgConnector(
        conninfo=url, kwargs=settings, min_size=1, max_size=pool, timeout=CONNECT_TIMEOUT
    )
    return procrastinate.App(connector=connector)


def script() -> str:
    """Return what makes the queue's tables, if they are not there."""
    return _MAKE.format(statements=procrastinate.schema.SchemaManager.get_schema().strip())


async def init(url: str) -> None:
    """Make the queue's tables, if they are not there.

    Raises:
        JournalError: The database cannot be reached, or does not allow it.
    """
    try:
        connection = await connect(url)
        try:
            await connection.execute(script().encode())
        finally:
            await connection.close()
    except (psycopg.Error, OSError, TimeoutError) as error:
        raise JournalError(f"The queue of the database {place_of(url)} cannot be made: {explain(error)}.") from error


async def check(url: str) -> None:
    """Check that the database answers, and has the queue's tables.

    Raises:
        JournalError: It does not, or they are missing.
    """
    try:
        connection = await connect(url)
        try:
            cursor = await connection.execute("SELECT to_regclass('procrastinate_jobs') IS NOT NULL")
            found = await cursor.fetchone()
        finally:
            await connection.close()
    except (psycopg.Error, OSError, TimeoutError) as error:
        raise unpaid(f"The queue of the database {place_of(url)} cannot be opened: {explain(error)}.") from error
    if found is None or not found[0]:
        raise unpaid(_missing(url))


def failure(url: str, error: BaseException, *, known_not_kept: bool) -> JournalError:
    """Return the error of a job that could not be queued.

    Args:
        url: The database.
        error: Procrastinate's error, which hides psycopg's.
        known_not_kept: It was refused, or its transaction is the caller's: it certainly is not in the queue.
    """
    cause = error.__cause__ or error
    state = getattr(cause, "sqlstate", None)
    if state in _MISSING:
        return unpaid(f"{_missing(url)} Nothing was queued.")
    end = "Nothing was queued." if known_not_kept or state else "To queue it again is harmless: a key is one effect."
    return unpaid(f"The effect could not be queued in the database {place_of(url)}: {explain(cause)}. {end}")


def failure_of_theirs(url: str, error: BaseException, connection: psycopg.AsyncConnection[Any]) -> JournalError:
    """Return the error of a job that could not be queued on a connection of the caller's: certainly it is not."""
    there = _server_of(connection)
    if getattr(error.__cause__ or error, "sqlstate", None) in _MISSING and there != place_of(url):
        return unpaid(f"connection goes to the database {there}, the queue is in {place_of(url)}. Nothing was queued.")
    return failure(url, error, known_not_kept=True)


def goes_elsewhere(url: str, connection: psycopg.AsyncConnection[Any]) -> str | None:
    """Return what is wrong with a connection to a database of another name; None: it may well be the queue's."""
    ours = read_url(url).get("dbname")
    if ours is None or connection.closed or connection.info.dbname == ours:
        return None
    return f"connection goes to the database {connection.info.dbname}, the queue is in {ours}. Nothing was queued."


def _server_of(connection: psycopg.AsyncConnection[Any]) -> str:
    """Return which database a connection goes to, spelled as `place_of` does."""
    if connection.closed:
        return "of a closed connection"
    return f"{connection.info.dbname} at {connection.info.host or 'the local socket'}"


def unpaid(words: str) -> JournalError:
    """Return an error of the queue's: whatever is in it, nothing was sent to the service yet."""
    error = JournalError(words)
    error.paid = False
    return error


def describe(error: BaseException) -> str:
    """Say in a line why a call of the queue's failed."""
    return str(error) if isinstance(error, FineVoiceError) else explain(error.__cause__ or error)


def _missing(url: str) -> str:
    return f"The queue of the database {place_of(url)} is missing. Make it once: finevoice fleet init URL."
