"""The journal of a fleet: several processes and machines, one key, one PostgreSQL."""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import psycopg

from finevoice_async.adapters.postgres import rows, schema
from finevoice_async.adapters.postgres.connection import explain, is_away, is_starting, place_of, read_url
from finevoice_async.adapters.postgres.line import Line
from finevoice_async.adapters.postgres.membership import Membership
from finevoice_async.adapters.postgres.slots import FleetSlots
from finevoice_async.adapters.postgres.watchers import Watchers
from finevoice_async.adapters.postgres.writing import TO_SEND, FleetWriter, nothing
from finevoice_async.config import Budget, Fleet
from finevoice_async.core.ledger import EffectState, JournalRow
from finevoice_async.errors import JournalError
from finevoice_async.ports import Clock
from finevoice_async.reprs import with_safe_repr

log = logging.getLogger("finevoice_async")

CLOSE_TIMEOUT: Final = 10.0
"""Seconds that `aclose` gives the database: as `Timeouts.close`."""

TO_SEND_NAMES: Final = frozenset(state.value for state in TO_SEND)

OPEN_PATIENCE: Final = 10.0
"""Seconds that a database gets to come back which was there as it was opened: as `Timeouts.connect`."""

OPEN_PAUSE: Final = 0.1
"""Seconds between two tries."""

PRUNED_AT_ONCE: Final = 2000
"""Rows that are looked at in one commit: the account is locked meanwhile, for some 10 ms."""

LOOK: Final = 5.0
"""Seconds after which what is watched or waits is read again, in case news was lost."""

REST: Final = 500
"""Times as long as a look at the line took until the next: all of a long line is read, and every session reads it."""


def account_of(api_key: str) -> str:
    """Return what stands for a key in the database: a hash, as the key itself is nobody's to read there."""
    return hashlib.sha256(b"finevoice account\0" + api_key.encode()).hexdigest()[:32]


@with_safe_repr
class PostgresJournal(FleetWriter):
    """Fulfils `shared_ports.SharedJournal`. One a session; any number of sessions use one database.

    - Two connections: one speaks (`Line`), one listens and says by its lock that the session lives (`Membership`).
    - While the database is away, whatever was called waits for it; the order stays.
    - What a session draws for a row that it is to send, the row's claim, is kept here: all that is said of the POST
      names it, so that a fact of an earlier POST moves nothing of a later one.
    """

    def __init__(
        self, url: str, api_key: str, plan: int, clock: Clock, options: Fleet, budget: Budget | None = None
    ) -> None:
        """Name the database.

        Args:
            url: Where it is: a URL or a connection string of libpq's.
            api_key: Whose effects; only a hash of it is kept.
            plan: How many tasks may run at once.
            clock: The session's clock.
            options: How the session lives in the fleet.
            budget: What the whole fleet may submit in a time, as far as this session goes by it.

        Raises:
            ConfigurationError: The URL cannot be read.
        """
        read_url(url)
        # All mutable state:
        self._url = url
        self._options = options
        self._budget = budget
        self._clock = clock
        self.account = account_of(api_key)
        self.slots = FleetSlots(self)
        self._watchers = Watchers()
        self._membership = Membership(url, self.account, plan, options, clock, news=self._hear)
        self._membership.missed = self._look_soon
        self._line = Line(url, self._membership)
        self._claims: dict[int, int] = {}  # by row: of those that this session acts for
        self._doubted: dict[int, int] = {}  # by row: of those that it could not tell what became of
        self._adopted: Callable[[JournalRow], None] = lambda _: None  # hears of rows to follow from now on
        self._beat: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[BaseException | None] | None = None
        self._look_at = 0.0  # when to read again what is watched or waits
        self._look_at_line_at = 0.0  # when to read again who waits before whom
        self._pid = 0  # the opener's
        self._adopts = options.adopt  # it follows what others leave
        self._opened = False
        self._closed = False

    def __repr__(self) -> str:
        return (
            f"<PostgresJournal {place_of(self._url)}, session {self._membership.me}, {len(self._line)} calls waiting>"
        )

    @property
    def commits(self) -> int:
        """How many commits were made."""
        return self._line.commits

    @property
    def seconds(self) -> float:
        """How long they took, in seconds."""
        return self._line.seconds

    @property
    def me(self) -> int | None:
        """The session's number in the fleet."""
        return self._membership.me

    # Opening and closing

    async def open(self, adopted: Callable[[JournalRow], None] = lambda _: None) -> None:
        """Join the fleet. After a failure it may be tried again.

        A database that cannot be reached is an error at once. One that starts, or crashes while it is opened, is given
        some seconds to come back.

        Args:
            adopted: Hears of each row of a session that died or left that this one is to follow from now on.

        Raises:
            JournalError: The database cannot be reached, or has no schema of this version.
        """
        self._pid, self._adopted = os.getpid(), adopted
        until = self._clock.monotonic() + OPEN_PATIENCE
        reached = False  # it was there a moment ago, or says that it starts
        while True:
            try:
                await self._join()
                break
            except (psycopg.Error, OSError, TimeoutError) as error:
                reached = reached or self._line.is_connected or is_starting(error)
                await self._give_up()
                if not reached or not is_away(error) or self._clock.monotonic() >= until:
                    what = f"The fleet's journal {place_of(self._url)} cannot be opened"
                    raise JournalError(f"{what}: {explain(error)}.") from error
            except BaseException:
                await self._give_up()
                raise
            await self._clock.sleep(OPEN_PAUSE)
        self._beat = asyncio.create_task(self._keep_beating(), name="finevoice-fleet", context=contextvars.Context())

    async def _join(self) -> None:
        await schema.check(await self._line.open(), self._url)
        await self._membership.open()
        self._line.start()
        self._opened = True
        self._look_at = self._clock.monotonic() + LOOK
        async with asyncio.timeout(OPEN_PATIENCE):  # by now the line waits while the database is away
            await self._sweep()

    async def _give_up(self) -> None:
        self._opened = False
        await self._membership.aclose()
        await self._line.aclose(0)

    async def aclose(self) -> None:
        """Write what is left, and leave: what runs keeps its slot, and others follow it. Idempotent.

        Raises:
            JournalError: The database did not answer in time.
        """
        if self._opened and os.getpid() != self._pid:
            return
        if self._closing is None:
            self._closing = asyncio.create_task(
                self._close(), name="finevoice-fleet-close", context=contextvars.Context()
            )
        if (error := await asyncio.shield(self._closing)) is not None:
            raise error

    def close_at_once(self) -> None:
        """Drop the connections, for who has no event loop any more: for the others this session has died."""
        if self._opened and os.getpid() == self._pid:
            self._closed = True
            self._line.drop()
            self._membership.drop()

    async def _close(self) -> BaseException | None:
        if self._beat is not None:
            self._beat.cancel()
            await asyncio.wait([self._beat])
        await self.slots.aclose()
        hold = self._options.hold
        left = self._put(
            "SELECT finevoice.leave_fleet(%s, %s, make_interval(secs => %s))",
            lambda turn: (self.account, turn.me, hold),
            nothing,
        )
        was_open, self._closed = self._opened, True
        await self._line.aclose(CLOSE_TIMEOUT)
        await self._membership.aclose()
        return left.exception() if was_open else None

    # Keeping it small

    async def prune(self, before: datetime) -> int:
        """Delete the rows that are settled (SAVED, REFUSED, FAILED) and were written last before a time.

        Their keys are forgotten with them. When they were sent is kept apart, 8 bytes for each, so that a `Budget` with
        `per` counts them still. Little by little: others go on meanwhile. Return how many they were.
        """
        moment, removed = rows.as_utc(before), 0
        last: int | None = 0
        while last is not None:
            last, count = await self._prune_some("effects", moment, last, f"without rows from before {before:%Y-%m-%d}")
            removed += count
        sent: datetime | None = datetime.min.replace(tzinfo=UTC)
        while sent is not None:
            (sent,) = await self._prune_some("posts", moment, sent, "without submissions of rows that are gone")
        return removed

    def _prune_some(self, what: str, before: datetime, past: object, words: str) -> asyncio.Future[tuple[Any, ...]]:
        return self._put(
            f"SELECT * FROM finevoice.prune_{what}(%s, %s, %s, %s)",  # noqa: S608 - names of ours
            lambda _: (self.account, before, past, PRUNED_AT_ONCE),
            lambda found: found[0],
            what=words,
        )

    # Living in the fleet

    def is_sure(self) -> bool:
        """Tell if nobody can have taken this session for dead: to be asked right before a POST."""
        return self._membership.is_sure()

    def watch(self, row_id: int, told: Callable[[], None]) -> Callable[[], None]:
        """Call `told` whenever a row may have changed, whoever changed it; return what ends that.

        Watch first, then read: what changes in between is told.
        """
        return self._watchers.add(row_id, told)

    def _hear(self, what: str, row_id: int) -> None:
        if what == "place":
            self.slots.given(row_id)
        else:
            if what not in TO_SEND_NAMES:
                self.slots.lost(row_id)  # withdrawn, where it waited
            self._watchers.tell(row_id)

    async def until_sure(self) -> None:
        """Wait until that is so."""
        while not self.is_sure():
            await self._clock.sleep(self._options.beat / 4)

    async def _keep_beating(self) -> None:
        while True:
            await self._clock.sleep(self._options.beat)
            try:
                await self._sweep()
            except JournalError as error:
                log.warning("a sign of life failed; the next one may succeed: %s", error)
            except Exception:
                log.exception("an unexpected error in what keeps the session in the fleet")

    async def _sweep(self) -> None:
        """Say that this session lives, and clean up after those that do not."""
        asked_at = self._clock.monotonic()
        hold, adopt = self._options.hold, self._adopts
        swept = self._put(
            f"SELECT {rows.OF_SET} FROM finevoice.sweep(%s, %s, make_interval(secs => %s), %s)",  # noqa: S608 - ours
            lambda turn: (self.account, turn.me, hold, adopt),
            lambda found: [rows.read_row(each) for each in found],
            first=True,
            needs_member=True,
        )
        adopted = await swept
        self._membership.seen = max(self._membership.seen, asked_at)
        for each in adopted:
            self._claims[each.row.id] = each.claim
            self._adopted(each.row)
        if self._clock.monotonic() >= self._look_at:
            await self._look()
        if self._clock.monotonic() >= self._look_at_line_at and (self.slots.waiting_here or len(self._watchers)):
            await self._look_at_line()

    def _look_soon(self) -> None:
        """News may have been missed."""
        self._look_at = 0.0

    async def _look(self) -> None:
        """Read again what is watched and what waits."""
        self._look_at = self._clock.monotonic() + LOOK
        watched, waiting = self._watchers.row_ids, self.slots.waiting_here
        await self._look_at_line()
        if not watched and not waiting:
            return
        found: list[tuple[Any, ...]] = await self._put(
            "SELECT id, state, claim, session = %s, session IS NULL, place > clock_timestamp() "
            "FROM finevoice.effects WHERE id = ANY(%s)",
            lambda turn: (turn.me, [*watched, *waiting]),
            list,
        )
        for row_id, state, claim, is_mine, is_free, has_place in found:
            if row_id in waiting:
                known = self._claims.get(row_id) or self._doubted.get(row_id)
                if claim != known or EffectState(state) not in TO_SEND or not (is_mine or is_free):
                    self.slots.lost(row_id)
                elif is_mine and has_place:
                    self.slots.given(row_id)
                elif is_free:  # lost with a session that others took for dead
                    self.take(row_id, claim=claim)
            self._watchers.looked(row_id, (state, claim, is_free))

    async def _look_at_line(self) -> None:
        """Learn who waits and runs elsewhere, and where the rows stand that this session acts for or watches."""
        watched, began = self._watchers.row_ids, self._clock.monotonic()
        counts = await self._put(
            "SELECT count(*) FILTER (WHERE place IS NULL AND session <> %s AND state <> 'submitted'), "
            "count(*) FILTER (WHERE place > clock_timestamp() AND session IS DISTINCT FROM %s) FROM finevoice.effects "
            "WHERE account = %s AND state IN ('queued', 'unknown', 'lost', 'sending', 'submitted')",
            lambda turn: (turn.me, turn.me, self.account),
            lambda found: found[0],
        )
        self.slots.waiting_elsewhere, self.slots.running_elsewhere = counts
        self.slots.places = await self._put(
            "SELECT id, number FROM (SELECT id, session, row_number() OVER (ORDER BY turn, id) AS number "
            "FROM finevoice.effects WHERE account = %s AND state IN ('queued', 'unknown', 'lost') "
            "AND session IS NOT NULL AND place IS NULL) AS line WHERE session = %s OR id = ANY(%s)",
            lambda turn: (self.account, turn.me, watched),
            dict,
        )
        now = self._clock.monotonic()
        self._look_at_line_at = now + REST * (now - began)
