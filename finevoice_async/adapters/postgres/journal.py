"""The journal of a fleet: several processes and machines, one key, one PostgreSQL."""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import logging
import os
import secrets
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import psycopg

from finevoice_async.adapters.postgres import rows, schema
from finevoice_async.adapters.postgres.connection import explain, place_of
from finevoice_async.adapters.postgres.line import Line
from finevoice_async.adapters.postgres.membership import Membership
from finevoice_async.adapters.postgres.reading import FleetReader
from finevoice_async.adapters.postgres.slots import FleetSlots
from finevoice_async.adapters.postgres.watchers import Watchers
from finevoice_async.config import Fleet
from finevoice_async.core.ledger import GIVES_BACK, MOVES, OF_TASK, SPENDS, EffectState, JournalRow, Move
from finevoice_async.core.requests import SfxRequest
from finevoice_async.core.text import shorten
from finevoice_async.errors import JournalError
from finevoice_async.ports import Begun, Clock, TaskIdTakenError
from finevoice_async.reprs import with_safe_repr

log = logging.getLogger("finevoice_async")

CLOSE_TIMEOUT: Final = 10.0
"""Seconds that `aclose` gives the database: as `Timeouts.close`."""

LOOK: Final = 5.0
"""Seconds after which what is watched or waits is read again, in case news was lost."""

_NEW: Final = (EffectState.QUEUED, EffectState.SENDING)
_AGAIN: Final = (Move.QUEUE, Move.RETRY)
_TO_SEND: Final = (EffectState.QUEUED, EffectState.UNKNOWN, EffectState.LOST)
_OF_POST: Final = frozenset({Move.ACCEPT, Move.ANSWER, Move.HOLD, Move.REFUSE, Move.REVERT})
"""What tells of a POST. It is taken also if that was called unknown meanwhile, as it names its claim."""

_FINISHED: Final = frozenset(EffectState) - {EffectState.QUEUED, EffectState.SENDING, EffectState.SUBMITTED}
_UNIQUE_TASK: Final = "effects_account_task_id_key"


def account_of(api_key: str) -> str:
    """Return what stands for a key in the database: a hash, as the key itself is nobody's to read there."""
    return hashlib.sha256(b"finevoice account\0" + api_key.encode()).hexdigest()[:32]


@with_safe_repr
class PostgresJournal(FleetReader):
    """Fulfils `ports.SharedJournal`. One a session; any number of sessions use one database.

    - Two connections: one speaks (`Line`), one listens and says by its lock that the session lives (`Membership`).
    - While the database is away, whatever was called waits for it; the order stays.
    - What a session draws for a row that it is to send, the row's claim, is kept here: all that is said of the POST
      names it, so that a fact of an earlier POST moves nothing of a later one.
    """

    def __init__(self, url: str, api_key: str, plan: int, clock: Clock, options: Fleet) -> None:
        """Name the database.

        Args:
            url: Where it is: a URL or a connection string of libpq's.
            api_key: Whose effects; only a hash of it is kept.
            plan: How many tasks may run at once.
            clock: The session's clock.
            options: How the session lives in the fleet.
        """
        # All mutable state:
        self._url = url
        self._options = options
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
        self._pid = 0  # the opener's
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

        Args:
            adopted: Hears of each row of a session that died or left that this one is to follow from now on.

        Raises:
            JournalError: The database cannot be reached, or has no schema of this version.
        """
        self._pid, self._adopted = os.getpid(), adopted
        try:
            await schema.check(await self._line.open(), self._url)
            await self._membership.open()
        except (psycopg.Error, OSError, TimeoutError) as error:
            await self._give_up()
            what = f"The fleet's journal {place_of(self._url)} cannot be opened"
            raise JournalError(f"{what}: {explain(error)}.") from error
        except BaseException:
            await self._give_up()
            raise
        self._line.start()
        self._opened = True
        self._look_at = self._clock.monotonic() + LOOK
        await self._sweep()
        self._beat = asyncio.create_task(self._keep_beating(), name="finevoice-fleet", context=contextvars.Context())

    async def _give_up(self) -> None:
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

    async def _close(self) -> BaseException | None:
        if self._beat is not None:
            self._beat.cancel()
            await asyncio.wait([self._beat])
        await self.slots.aclose()
        hold = self._options.hold
        left = self._put(
            "SELECT finevoice.leave_fleet(%s, %s, make_interval(secs => %s))",
            lambda turn: (self.account, turn.me, hold),
            _nothing,
        )
        was_open, self._closed = self._opened, True
        await self._line.aclose(CLOSE_TIMEOUT)
        await self._membership.aclose()
        return left.exception() if was_open else None

    # Writing

    def begin(
        self,
        request: SfxRequest,
        *,
        key: str | None,
        state: EffectState,
        again: Move = Move.QUEUE,
        owner: str | None = None,
    ) -> asyncio.Future[Begun]:
        """Write a new row; or look up the one with this key, and act for it if nobody does.

        SENDING asks for a slot, too: the row is SENDING if one was free, else it is QUEUED and waits.
        """
        if state not in _NEW or again not in _AGAIN:
            words = f"A row of the journal cannot begin as {state.value} by {again.value}. Nothing was written."
            return self._failed(JournalError(words))
        claim, starts = secrets.randbits(63), [start.value for start in MOVES[again][0]]
        spelled = (claim, rows.spell_text(key), rows.spell_request(request), rows.spell_text(owner))
        return self._put(
            f"SELECT f.mine, f.elsewhere, {rows.OF_FUNCTION} "  # noqa: S608 - names of ours
            "FROM finevoice.begin_effect(%s, %s, %s, %s, %s, %s, %s, %s) AS f",
            lambda turn: (self.account, turn.me, *spelled, starts, state is EffectState.SENDING),
            partial(self._begun, claim),
            what="a new row" if key is None else f"a new row with key {shorten(key)}",
            needs_member=True,
            after=self._after_begin,
        )

    def _begun(self, claim: int, found: list[tuple[Any, ...]]) -> Begun:
        mine, elsewhere, *values = found[0]
        claimed = rows.read_row(values)
        row = claimed.row
        if claimed.claim == claim or (row.state is EffectState.SUBMITTED and not elsewhere):
            self._claims[row.id] = claimed.claim
        if row.state is EffectState.SENDING and claimed.claim == claim:
            self.slots.taken_up(row.id)
        return Begun(row, is_mine=mine, elsewhere=elsewhere)

    def _after_begin(self, begun: Begun) -> None:
        """Only now: whoever takes slots must know the row first."""
        if begun.row.state is EffectState.QUEUED and begun.row.id in self._claims:
            self.slots.expect(begun.row.id)

    def take(self, row_id: int, *, claim: int | None = None, owner: str | None = None) -> asyncio.Future[bool]:
        """Act for a row that is to be sent, or sent again, if nobody who lives does; it waits for a slot then."""
        mine, starts = secrets.randbits(63), [state.value for state in _TO_SEND]

        def taken(found: list[tuple[Any, ...]]) -> bool:
            if found[0][0]:
                self._claims[row_id] = mine
            return bool(found[0][0])

        def after(is_taken: bool) -> None:  # noqa: FBT001 - the result of the call
            if is_taken:
                self.slots.expect(row_id)

        return self._put(
            "SELECT finevoice.take_effect(%s, %s, %s, %s, %s, %s, %s)",
            lambda turn: (self.account, turn.me, row_id, claim, mine, rows.spell_text(owner), starts),
            taken,
            what=f"row {row_id} as this session's",
            needs_member=True,
            after=after,
        )

    def let_go(self, row_id: int) -> asyncio.Future[bool]:
        """Act no longer for a row that was not sent."""
        self._claims.pop(row_id, None)
        return self._put(
            "SELECT finevoice.let_go(%s, %s, %s)",
            lambda turn: (self.account, turn.me, row_id),
            _truth,
            what=f"row {row_id} as nobody's",
        )

    def move(
        self,
        row_id: int,
        move: Move,
        *,
        task_id: str | None = None,
        urls: tuple[str, ...] | None = None,
        path: str | None = None,
        sha256: str | None = None,
        error: str | None = None,
    ) -> asyncio.Future[bool]:
        """Make a move, if the row is in a state that it may start from and, where this session acts for it, still does.

        Raises:
            TaskIdTakenError: The task id belongs to another row.
            JournalError: There is no such row, or it could not be written.
        """
        if not -(2**63) <= row_id < 2**63:
            return self._failed(_no_such_row(row_id, move, task_id))
        if move in SPENDS:
            return self._send(row_id, move)
        starts, goal = MOVES[move]
        if goal is EffectState.SUBMITTED and not task_id:
            words = f"Row {row_id} of the journal cannot become submitted without a task id."
            return self._failed(JournalError(words))
        claim = self._claims.get(row_id)
        if claim is not None and move in _OF_POST:
            starts |= {EffectState.UNKNOWN}
        if goal in _FINISHED:
            self._claims.pop(row_id, None)
            if move is Move.DOUBT and claim is not None:
                self._doubted[row_id] = claim
        if goal is not EffectState.QUEUED:
            self.slots.forget(row_id)
        spelled = (
            rows.spell_text(task_id),
            rows.spell_urls(urls),
            rows.spell_text(path),
            sha256,
            rows.spell_words(error),
        )
        values = [start.value for start in starts], goal.value, move in OF_TASK, move in GIVES_BACK, move in _AGAIN
        return self._put(
            "SELECT finevoice.move_effect(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, "
            "make_interval(secs => %s))",
            lambda turn: (
                *(self.account, turn.me, row_id, claim, *values, turn.again),
                *(*spelled, self._options.hold),
            ),
            partial(self._moved, row_id, move, task_id),
            what=f"row {row_id} as {goal.value}",
            task_id=task_id,
            failed=partial(_taken, row_id, task_id),
        )

    def _moved(self, row_id: int, move: Move, task_id: str | None, found: list[tuple[Any, ...]]) -> bool:
        ((made,),) = found
        if made is None:
            raise _no_such_row(row_id, move, task_id)
        return bool(made)

    def _send(self, row_id: int, move: Move) -> asyncio.Future[bool]:
        seen = self._claims.get(row_id) or self._doubted.pop(row_id, None)
        if seen is None:
            return self._unclaimed(row_id, move)
        claim = seen if move is Move.SEND else secrets.randbits(63)
        starts = [start.value for start in MOVES[move][0]]

        def sent(found: list[tuple[Any, ...]]) -> bool:
            ((made,),) = found
            if made:
                self._claims[row_id] = claim
                self.slots.forget(row_id)
                self.slots.taken_up(row_id)
            return bool(made)

        return self._put(
            "SELECT finevoice.send_effect(%s, %s, %s, %s, %s, %s, %s)",
            lambda turn: (self.account, turn.me, row_id, seen, claim, starts, turn.again),
            sent,
            what=f"row {row_id} as sending",
            needs_member=True,
        )

    def _unclaimed(self, row_id: int, move: Move) -> asyncio.Future[bool]:
        """Nobody here acts for the row: it is not sent; say so, and whether it is there at all."""

        def found(values: list[tuple[Any, ...]]) -> bool:
            if not values:
                raise _no_such_row(row_id, move, None)
            return False

        return self._put(
            "SELECT 1 FROM finevoice.effects WHERE account = %s AND id = %s",
            lambda _: (self.account, row_id),
            found,
        )

    def store(self, name: str, text: str) -> asyncio.Future[None]:
        """Keep a text under a name."""
        return self._put(
            "INSERT INTO finevoice.notes (account, name, text) VALUES (%s, %s, %s) "
            "ON CONFLICT (account, name) DO UPDATE SET text = excluded.text RETURNING 1",
            lambda _: (self.account, rows.spell_text(name), rows.spell_text(text)),
            _nothing,
            what=f"the note {shorten(name)}",
        )

    def occupy(self, task_id: str) -> asyncio.Future[None]:
        """Let a task without a row take a slot."""
        return self._put(
            "SELECT finevoice.occupy(%s, %s, %s)",
            lambda turn: (self.account, turn.me, rows.spell_text(task_id)),
            _nothing,
            what="the slot of a task without a row",
            task_id=task_id,
        )

    def vacate(self, task_id: str) -> asyncio.Future[None]:
        """Free the slot of a task without a row."""
        return self._put(
            "SELECT finevoice.vacate(%s, %s, %s)",
            lambda turn: (self.account, turn.me, rows.spell_text(task_id)),
            _nothing,
            what="the end of a task without a row",
            task_id=task_id,
        )

    def slow_down(self, seconds: float) -> asyncio.Future[None]:
        """Let the whole fleet use fewer slots for a while."""
        return self._put(
            "SELECT finevoice.slow_down(%s, %s)",
            lambda _: (self.account, seconds),
            _nothing,
            what="that the service says 429",
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
            self._watchers.tell(row_id)

    async def _keep_beating(self) -> None:
        while True:
            await self._clock.sleep(self._options.beat)
            try:
                await self._sweep()
            except JournalError:  # logged by whoever gave it; the next one may succeed
                continue

    async def _sweep(self) -> None:
        """Say that this session lives, and clean up after those that do not."""
        asked_at = self._clock.monotonic()
        hold, adopt = self._options.hold, self._options.adopt
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

    def _look_soon(self) -> None:
        """News may have been missed."""
        self._look_at = 0.0

    async def _look(self) -> None:
        """Read again what is watched and what waits."""
        self._look_at = self._clock.monotonic() + LOOK
        watched, waiting = self._watchers.row_ids, self.slots.waiting_here
        self.slots.waiting_elsewhere = await self._put(
            "SELECT count(*) FROM finevoice.effects WHERE account = %s AND session <> %s "
            "AND state IN ('queued', 'unknown', 'lost') AND place IS NULL",
            lambda turn: (self.account, turn.me),
            lambda found: int(found[0][0]),
        )
        if not watched and not waiting:
            return
        found: list[tuple[Any, ...]] = await self._put(
            "SELECT id, state, claim, session = %s, session IS NULL, place > clock_timestamp() "
            "FROM finevoice.effects WHERE id = ANY(%s)",
            lambda turn: (turn.me, [*watched, *waiting]),
            list,
        )
        for row_id, state, claim, is_mine, is_free, has_place in found:
            if row_id in waiting and claim == self._claims.get(row_id):
                if is_mine and has_place:
                    self.slots.given(row_id)
                elif is_free and EffectState(state) in _TO_SEND:  # lost with a session that others took for dead
                    self.take(row_id, claim=claim)
            self._watchers.looked(row_id, (state, claim, is_free))


def _nothing(_: object) -> None:
    """Read no result."""


def _truth(found: list[tuple[Any, ...]]) -> bool:
    return bool(found[0][0])


def _no_such_row(row_id: int, move: Move, task_id: str | None) -> JournalError:
    words = f"Row {row_id} of the journal cannot become {MOVES[move][1].value}: there is no such row."
    return JournalError(words, task_id=task_id)


def _taken(row_id: int, task_id: str | None, error: psycopg.Error) -> JournalError | None:
    """Return the error of a task id that another row has."""
    if error.sqlstate != "23505" or error.diag.constraint_name != _UNIQUE_TASK:
        return None
    words = f"Row {row_id} of the journal cannot get task {task_id}: it belongs to another row."
    return TaskIdTakenError(words, task_id=task_id)
