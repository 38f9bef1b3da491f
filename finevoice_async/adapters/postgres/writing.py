"""What a fleet's journal writes: each call is one function of the schema, and one commit or a part of one."""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, Final

import psycopg

from finevoice_async.adapters.postgres import rows
from finevoice_async.adapters.postgres.reading import FleetReader
from finevoice_async.adapters.postgres.slots import FleetSlots
from finevoice_async.config import Budget, Fleet
from finevoice_async.core.ledger import (
    FALLS_BACK,
    GIVES_BACK,
    KEEPS,
    MOVES,
    OF_TASK,
    SPENDS,
    EffectState,
    JournalRow,
    Move,
)
from finevoice_async.core.requests import SfxRequest
from finevoice_async.core.text import shorten
from finevoice_async.errors import BudgetExceededError, JournalError
from finevoice_async.ports import Begun, TaskIdTakenError

TO_SEND: Final = (EffectState.QUEUED, EffectState.UNKNOWN, EffectState.LOST)
"""What may wait for a slot."""

_NEW: Final = (EffectState.QUEUED, EffectState.SENDING)
_AGAIN: Final = (Move.QUEUE, Move.RETRY)
_OF_POST: Final = frozenset({Move.ACCEPT, Move.ANSWER, Move.HOLD, Move.REFUSE, Move.REVERT})
"""What tells of a POST. It is taken also if that was called unknown meanwhile, as it names its claim."""

_FINISHED: Final = frozenset(EffectState) - {EffectState.QUEUED, EffectState.SENDING, EffectState.SUBMITTED}
_UNIQUE_TASK: Final = "effects_account_task_id_key"


class FleetWriter(FleetReader):
    """The writing half of `PostgresJournal`."""

    slots: FleetSlots
    _options: Fleet
    _budget: Budget | None
    _adopts: bool
    _adopted: Callable[[JournalRow], None]
    _claims: dict[int, int]  # by row: of those that this session acts for
    _doubted: dict[int, int]  # by row: of those that it could not tell what became of

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
            "FROM finevoice.begin_effect(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) AS f",
            lambda turn: (
                *(self.account, turn.me, *spelled, starts, _kept(again), state is EffectState.SENDING),
                *(turn.again, *self._limit),
            ),
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
        has_slot = row.state is EffectState.SENDING and claimed.claim == claim
        return Begun(row, is_mine=mine, elsewhere=elsewhere, has_slot=has_slot)

    def _after_begin(self, begun: Begun) -> None:
        """Only now: whoever takes slots must know the row first."""
        if begun.row.state is EffectState.QUEUED and begun.row.id in self._claims:
            self.slots.expect(begun.row.id)

    def take(self, row_id: int, *, claim: int | None = None, owner: str | None = None) -> asyncio.Future[bool]:
        """Act for a row that is to be sent, or sent again, if nobody who lives does; it waits for a slot then."""
        mine, starts = secrets.randbits(63), [state.value for state in TO_SEND]

        def taken(found: list[tuple[Any, ...]]) -> bool:
            its = found[0][0]
            if its == mine:
                self._claims[row_id] = mine
            elif its is not None:  # of the POST before, of which this session can tell nothing
                self._claims.pop(row_id, None)
                self._doubted[row_id] = its
            return its is not None

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
        self.slots.forget(row_id)
        claim = self._claims.get(row_id)

        def after(is_free: bool) -> None:  # noqa: FBT001 - the result of the call
            if is_free and self._claims.get(row_id) == claim:
                self._claims.pop(row_id, None)
                self._doubted.pop(row_id, None)

        return self._put(
            "SELECT finevoice.let_go(%s, %s, %s) OR %s AND EXISTS (SELECT FROM finevoice.effects "
            "WHERE account = %s AND id = %s AND session IS NULL AND state = ANY(%s))",
            lambda turn: (
                *(self.account, turn.me, row_id, turn.again),
                *(self.account, row_id, [state.value for state in TO_SEND]),
            ),
            lambda found: bool(found[0][0]),
            what=f"row {row_id} as nobody's",
            after=after,
        )

    def give_away(self) -> asyncio.Future[None]:
        """Act no longer for any row that runs, nor for any that others leave: other sessions do."""
        self._adopts = False
        return self._put(
            "SELECT finevoice.give_away(%s, %s)",
            lambda turn: (self.account, turn.me),
            nothing,
            what="what runs as anybody's",
        )

    def free_slot(self, row_id: int) -> asyncio.Future[None]:
        """Let a row of this session's that runs keep no slot any more: its task was given up."""
        return self._put(
            "SELECT finevoice.free_slot(%s, %s, %s)",
            lambda turn: (self.account, turn.me, row_id),
            nothing,
            what=f"row {row_id} without a slot",
        )

    def whose(self, row_id: int) -> asyncio.Future[Begun | None]:
        """Return a row, and whether another living session acts for it; one that runs and nobody follows is taken."""
        adopted: list[JournalRow] = []

        def found(values: list[tuple[Any, ...]]) -> Begun | None:
            elsewhere, taken, *columns = values[0]
            if columns[0] is None:
                return None
            claimed = rows.read_row(columns)
            if taken:
                self._claims[row_id] = claimed.claim
                adopted.append(claimed.row)
            return Begun(claimed.row, is_mine=False, elsewhere=elsewhere)

        def after(_: Begun | None) -> None:  # also if whoever asked has gone: its task is asked for from now on
            for row in adopted:
                self._adopted(row)

        return self._put(
            f"SELECT f.elsewhere, f.taken, {rows.OF_FUNCTION} FROM finevoice.whose(%s, %s, %s) AS f",  # noqa: S608 - ours
            lambda turn: (self.account, turn.me, row_id),
            found,
            after=after,
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
        # What a caller decides, and what a task tells of itself, is not about this session's POST, which may be old.
        claim = self._claims.get(row_id) if move in _OF_POST or move is Move.DOUBT else None
        return self._move(row_id, move, claim, task_id=task_id, urls=urls, path=path, sha256=sha256, error=error)

    def withdraw(self, row_id: int, error: str) -> asyncio.Future[bool]:
        """Refuse a row that waits to be sent, whoever acts for it; a claim that this session had does not matter."""
        return self._move(row_id, Move.REFUSE, None, error=error)

    def _move(
        self,
        row_id: int,
        move: Move,
        claim: int | None,
        *,
        task_id: str | None = None,
        urls: tuple[str, ...] | None = None,
        path: str | None = None,
        sha256: str | None = None,
        error: str | None = None,
    ) -> asyncio.Future[bool]:
        starts, goal = MOVES[move]
        if goal is EffectState.SUBMITTED and not task_id:
            return self._failed(JournalError(f"Row {row_id} of the journal cannot become submitted without a task id."))
        falls = FALLS_BACK.get(move, frozenset())
        if claim is not None and move in _OF_POST:
            starts |= {EffectState.UNKNOWN}
            falls = falls and falls | {EffectState.UNKNOWN}
        elif claim is None and move is Move.REFUSE:
            starts -= {EffectState.SENDING}  # to withdraw it; only who sent it knows that it was not accepted
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
        values = (
            *([start.value for start in starts], [start.value for start in falls], goal.value),
            *(move in OF_TASK, move in GIVES_BACK, move in _AGAIN),
        )
        return self._put(
            "SELECT finevoice.move_effect(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, "
            "make_interval(secs => %s))",
            lambda turn: (
                *(self.account, turn.me, row_id, claim, *values, turn.again),
                *(*spelled, self._options.hold),
            ),
            partial(self._moved, row_id, move, task_id, claim),
            what=f"row {row_id} as {goal.value}",
            task_id=task_id,
            failed=partial(_taken, row_id, task_id),
        )

    def _moved(self, row_id: int, move: Move, task_id: str | None, claim: int | None, found: list[Any]) -> bool:
        ((made,),) = found
        if made is None:
            raise _no_such_row(row_id, move, task_id)
        if not made and claim is not None and self._claims.get(row_id) == claim:
            del self._claims[row_id]  # of a POST whose row has gone on without it: all is said of it
        return bool(made)

    def _send(self, row_id: int, move: Move) -> asyncio.Future[bool]:
        seen = self._claims.get(row_id) or self._doubted.pop(row_id, None)
        if seen is None:
            return self._unclaimed(row_id, move)
        claim = seen if move is Move.SEND else secrets.randbits(63)
        starts = [start.value for start in MOVES[move][0]]

        def sent(found: list[tuple[Any, ...]]) -> bool:
            ((made, free_in),) = found
            if free_in is not None:
                raise self._spent(free_in)
            if made:
                self._claims[row_id] = claim
                self.slots.forget(row_id)
                self.slots.taken_up(row_id)
            return bool(made)

        return self._put(
            "SELECT * FROM finevoice.send_effect(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            lambda turn: (self.account, turn.me, row_id, seen, claim, starts, _kept(move), turn.again, *self._limit),
            sent,
            what=f"row {row_id} as sending",
            needs_member=True,
        )

    @property
    def _limit(self) -> tuple[int | None, timedelta | None]:
        """How many submissions the fleet may make, and in what time."""
        budget = self._budget
        return (None, None) if budget is None or budget.per is None else (budget.effects, budget.per)

    def _spent(self, free_in: float) -> BudgetExceededError:
        most, per = self._limit
        seconds = math.ceil(max(free_in, 0.0))
        return BudgetExceededError(
            f"The budget is spent: {most} submissions in {per}, by all sessions that share the database. The next is "
            f"free in {timedelta(seconds=seconds)}, at the latest. Nothing was sent and nothing paid.",
            retry_after=seconds,
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
            nothing,
            what=f"the note {shorten(name)}",
        )

    def occupy(self, task_id: str) -> asyncio.Future[None]:
        """Let a task without a row take a slot."""
        return self._put(
            "SELECT finevoice.occupy(%s, %s, %s)",
            lambda turn: (self.account, turn.me, rows.spell_text(task_id)),
            nothing,
            what="the slot of a task without a row",
            task_id=task_id,
        )

    def vacate(self, task_id: str) -> asyncio.Future[None]:
        """Free the slot of a task without a row."""
        return self._put(
            "SELECT finevoice.vacate(%s, %s, %s)",
            lambda turn: (self.account, turn.me, rows.spell_text(task_id)),
            nothing,
            what="the end of a task without a row",
            task_id=task_id,
        )

    def slow_down(self, seconds: float) -> asyncio.Future[None]:
        """Let the whole fleet use fewer slots for a while."""
        return self._put(
            "SELECT finevoice.slow_down(%s, %s)",
            lambda _: (self.account, seconds),
            nothing,
            what="that the service says 429",
        )


def _kept(move: Move) -> list[str]:
    """Return the states in which a row comes to keep what it was."""
    return [state.value for state in KEEPS.get(move, ())]


def nothing(_: object) -> None:
    """Read no result."""


def _no_such_row(row_id: int, move: Move, task_id: str | None) -> JournalError:
    words = f"Row {row_id} of the journal cannot become {MOVES[move][1].value}: there is no such row."
    return JournalError(words, task_id=task_id)


def _taken(row_id: int, task_id: str | None, error: psycopg.Error) -> JournalError | None:
    """Return the error of a task id that another row has."""
    if error.sqlstate != "23505" or error.diag.constraint_name != _UNIQUE_TASK:
        return None
    words = f"Row {row_id} of the journal cannot get task {task_id}: it belongs to another row."
    return TaskIdTakenError(words, task_id=task_id)
