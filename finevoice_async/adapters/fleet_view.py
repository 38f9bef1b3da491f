"""One look at a fleet's database from outside: nobody joins, nothing is written, no key is needed."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import datetime

import attrs
import psycopg

from finevoice_async.adapters.postgres import rows, schema
from finevoice_async.adapters.postgres.connection import Connection, connect, explain, place_of
from finevoice_async.adapters.postgres.journal import account_of
from finevoice_async.core.ledger import EffectState, JournalRow
from finevoice_async.errors import JournalError
from finevoice_async.shared_ports import FleetStats

_NAMES = ", ".join(f"f.{field.name}" for field in attrs.fields(FleetStats))
_ACCOUNTS = f"SELECT a.account, {_NAMES} FROM finevoice.accounts a, finevoice.fleet(a.account) f ORDER BY a.account"  # noqa: S608 - names of ours
_SENT = "SELECT count(*) FROM finevoice.sent_since(%s, %s)"
_PAST = "SELECT id, past_task_ids FROM finevoice.effects WHERE account = %s AND id = ANY(%s) AND past_task_ids <> ''"
_JOBS = (
    "SELECT count(*) FILTER (WHERE status = 'todo'), count(*) FILTER (WHERE status = 'doing'), "
    "count(*) FILTER (WHERE status IN ('failed', 'aborted')) FROM procrastinate_jobs WHERE queue_name = 'finevoice'"
)


async def read_rows(url: str, api_key: str) -> list[JournalRow]:
    """Return all effects of a key, in the order of their rows.

    Raises:
        JournalError: The database cannot be read, or has no schema of this version.
    """
    async with _looking(url) as connection:
        cursor = await connection.execute(f"{rows.SELECT} ORDER BY id", (account_of(api_key),))
        return [rows.read_row(each).row for each in await cursor.fetchall()]


async def spent_since(url: str, api_key: str, moment: datetime) -> int:
    """Return how many submissions of a key left from a moment on that may have been accepted.

    Raises:
        JournalError: The database cannot be read, or has no schema of this version.
    """
    async with _looking(url) as connection:
        cursor = await connection.execute(_SENT, (account_of(api_key), rows.as_utc(moment)))
        found = await cursor.fetchone()
        return 0 if found is None else int(found[0])


class FleetJournalReader:
    """The journal of a key in a fleet's database, for who only looks."""

    def __init__(self, connection: Connection, account: str) -> None:
        self._connection = connection
        self._account = account

    async def rows(self, *states: EffectState, after: int = 0, limit: int = 1000) -> list[JournalRow]:
        """Return the rows in these states (none named: in any) with an id above `after`, in the order of their ids."""
        condition, values = rows.in_states(states)
        return await self._read(f"{condition} AND id > %s ORDER BY id LIMIT %s", *values, after, limit)

    async def row(self, *, key: str) -> JournalRow | None:
        """Return the row with this key."""
        return next(iter(await self._read(" AND key = %s", rows.spell_text(key))), None)

    async def past_task_ids(self, row_ids: Sequence[int]) -> dict[int, list[str]]:
        """Return, for those of the rows that were submitted more than once, the ids of the earlier submissions."""
        cursor = await self._connection.execute(_PAST, (self._account, list(row_ids)))
        return {
            row_id: [str(rows.read_text(line)) for line in text.split("\n")[:-1]]
            for row_id, text in await cursor.fetchall()
        }

    async def _read(self, condition: str, *values: object) -> list[JournalRow]:
        cursor = await self._connection.execute(f"{rows.SELECT}{condition}", (self._account, *values))
        return [rows.read_row(each).row for each in await cursor.fetchall()]


@contextlib.asynccontextmanager
async def reading(url: str, api_key: str) -> AsyncIterator[FleetJournalReader]:
    """Read the journal of a key.

    Raises:
        JournalError: The database cannot be read, or has no schema of this version.
    """
    async with _looking(url) as connection:
        yield FleetJournalReader(connection, account_of(api_key))


@contextlib.asynccontextmanager
async def _looking(url: str) -> AsyncIterator[Connection]:
    try:
        connection = await connect(url)
        try:
            await schema.check(connection, url)
            yield connection
        finally:
            await connection.close()
    except (psycopg.Error, OSError, TimeoutError) as error:
        raise JournalError(f"The fleet's database {place_of(url)} cannot be read: {explain(error)}.") from error


@attrs.frozen
class JobCounts:
    """The jobs of the queue.

    Attributes:
        waiting: They wait for a worker, or to be tried again.
        in_hand: A worker has them.
        failed: They came to nothing, and stay to be looked at.
    """

    waiting: int
    in_hand: int
    failed: int


@attrs.frozen
class FleetLook:
    """What a database holds.

    Attributes:
        accounts: What the sessions of each key do; a key by its hash.
        jobs: The queue's, for all keys; None if there is no queue.
    """

    accounts: dict[str, FleetStats]
    jobs: JobCounts | None


async def look(url: str) -> FleetLook:
    """Look.

    Raises:
        JournalError: The database cannot be reached, or has no schema of this version.
    """
    async with _looking(url) as connection:
        cursor = await connection.execute(_ACCOUNTS)
        accounts = {account: FleetStats(*numbers) for account, *numbers in await cursor.fetchall()}
        cursor = await connection.execute("SELECT to_regclass('procrastinate_jobs') IS NOT NULL")
        has_queue = await cursor.fetchone()
        if has_queue is None or not has_queue[0]:
            return FleetLook(accounts, None)
        cursor = await connection.execute(_JOBS)
        counts = await cursor.fetchone()
        return FleetLook(accounts, None if counts is None else JobCounts(*counts))
