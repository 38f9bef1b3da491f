"""What stands in a fleet's tables, at once: read from outside between two steps."""

from __future__ import annotations

import math
from typing import Any

import attrs
import psycopg

from finevoice_async.core.ledger import EffectState

_EFFECTS = """
    SELECT id, key, state, request, session, claim, extract(epoch FROM place)::float8, task_id, past_task_ids,
           earlier IS NOT NULL
      FROM finevoice.effects WHERE account = %s ORDER BY id
"""
_SESSIONS = """
    SELECT id, plan, extract(epoch FROM clock_timestamp() - beat)::float8, extract(epoch FROM lease)::float8
      FROM finevoice.sessions WHERE account = %s
"""
_ACCOUNT = """
    SELECT reduced, extract(epoch FROM reduced_until)::float8, extract(epoch FROM clock_timestamp())::float8
      FROM finevoice.accounts WHERE account = %s
"""
_ALL_OF = """
    SELECT (SELECT coalesce(string_agg(e::text, ';' ORDER BY id), '') FROM finevoice.effects e WHERE account = %(a)s)
        || (SELECT coalesce(string_agg(s::text, ';' ORDER BY id), '') FROM finevoice.sessions s WHERE account = %(a)s)
        || (SELECT coalesce(string_agg(p::text, ';' ORDER BY claim), '') FROM finevoice.posts p WHERE account = %(a)s)
        || (SELECT coalesce(string_agg(c::text, ';'), '') FROM finevoice.accounts c WHERE account = %(a)s)
"""


@attrs.frozen
class Row:
    """A row of an effect's.

    Attributes:
        place: Until when it takes a slot, in seconds since 1970; infinite, or None.
        kept_ids: Its task id, and those that it had before.
        has_earlier: It was begun anew, and keeps what it was.
    """

    id: int
    key: str | None
    state: EffectState
    request: str
    session: int | None
    claim: int
    place: float | None
    task_id: str | None
    kept_ids: frozenset[str]
    has_earlier: bool

    def takes_a_slot(self, now: float) -> bool:
        """Tell whether it takes one."""
        return self.place is not None and self.place > now


@attrs.frozen
class Seat:
    """A session that is in the fleet."""

    plan: int
    age: float
    lease: float

    @property
    def is_late(self) -> bool:
        """Whether it was silent for its whole lease."""
        return self.age > self.lease

    @property
    def is_quiet(self) -> bool:
        """Whether it was silent for half of it, so that it sends nothing by itself."""
        return self.age > self.lease / 2


@attrs.frozen
class Table:
    """All that is kept of an account, and what is kept of another one."""

    now: float
    rows: dict[int, Row]
    seats: dict[int, Seat]
    posts: frozenset[int]
    strangers: int
    reduced: int | None
    reduced_until: float
    other: str

    def taken(self, now: float | None = None) -> int:
        """Return how many slots are taken."""
        return sum(row.takes_a_slot(self.now if now is None else now) for row in self.rows.values()) + self.strangers

    def limit(self, now: float | None = None) -> int:
        """Return how many slots there are: the least plan, and fewer for a while after a 429."""
        now = self.now if now is None else now
        whole = min((seat.plan for seat in self.seats.values()), default=0)
        if self.reduced is None:
            return whole
        steps = math.floor((now - self.reduced_until) / 5) + 1 if now >= self.reduced_until else 0
        return min(whole, self.reduced + steps * max(1, whole // 10))

    def waiting(self) -> list[Row]:
        """Return the rows that wait for a slot, and may get one."""
        states = (EffectState.QUEUED, EffectState.UNKNOWN, EffectState.LOST)
        waiting = (row for row in self.rows.values() if row.state in states and row.place is None)
        return [row for row in waiting if row.session is not None and not self.is_quiet(row.session)]

    def is_quiet(self, session: int) -> bool:
        """Tell whether a session was silent for half its lease."""
        return session in self.seats and self.seats[session].is_quiet

    def of_key(self, key: str | None) -> Row | None:
        """Return the row with a key."""
        return next((row for row in self.rows.values() if key is not None and row.key == key), None)


def read(connection: psycopg.Connection[Any], account: str, other: str) -> Table:
    """Read it in one transaction, so that all is of one moment."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        rows = [_row(each) for each in connection.execute(_EFFECTS, (account,))]
        seats = {seat: Seat(*rest) for seat, *rest in connection.execute(_SESSIONS, (account,))}
        posts = connection.execute("SELECT claim FROM finevoice.posts WHERE account = %s", (account,)).fetchall()
        ((strangers,),) = connection.execute("SELECT count(*) FROM finevoice.strangers WHERE account = %s", (account,))
        ((reduced, until, now),) = connection.execute(_ACCOUNT, (account,))
        ((text,),) = connection.execute(_ALL_OF, {"a": other})
    claims = frozenset(claim for (claim,) in posts)
    return Table(now, {row.id: row for row in rows}, seats, claims, strangers, reduced, until or 0.0, text)


def _row(values: tuple[Any, ...]) -> Row:
    number, key, state, request, session, claim, place, task_id, past, has_earlier = values
    kept = frozenset([*past.split("\n"), task_id or ""]) - {""}
    return Row(number, key, EffectState(state), request, session, claim, place, task_id, kept, has_earlier)


_SHIFTS = (
    """UPDATE finevoice.effects SET place = place - %(by)s, created_at = created_at - %(by)s,
       updated_at = updated_at - %(by)s, submitted_at = submitted_at - %(by)s WHERE account = %(account)s""",
    "UPDATE finevoice.posts SET at = at - %(by)s WHERE account = %(account)s",
    "UPDATE finevoice.accounts SET reduced_until = reduced_until - %(by)s WHERE account = %(account)s",
    "UPDATE finevoice.sessions SET beat = beat - %(by)s WHERE account = %(account)s AND id = ANY(%(silent)s)",
)


def let_pass(connection: psycopg.Connection[Any], account: str, by: Any, silent: list[int]) -> None:
    """Let time pass for an account: all its times lie further back; who is not silent has said that it lives."""
    with connection.transaction():
        for statement in _SHIFTS:
            connection.execute(statement.encode(), {"by": by, "account": account, "silent": silent})
