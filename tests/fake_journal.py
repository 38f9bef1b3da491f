"""A journal in memory, by the rules of `core.ledger`: writes can be slow, fail, or never be told of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, TypeVar

import attrs
from fakes import DateClock

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
from finevoice_async.errors import JournalError
from finevoice_async.ports import Begun, TaskIdTakenError

T = TypeVar("T")

Step = EffectState | Move | str
"""A use of the journal: a row's beginning by its state, a move, or any other method by its name."""

_AFRESH = (Move.QUEUE, Move.RETRY, Move.SEND, Move.RESEND)
_FORGOTTEN: Final[dict[str, Any]] = {
    "task_id": None,
    "urls": (),
    "path": None,
    "sha256": None,
    "error": None,
    "submitted_at": None,
}


class FakeJournal:
    """Rows in a dict, moved by `core.ledger`. A write is made by its call, and told of a turn later, or when it may."""

    def __init__(self, *, delay: float = 0.0) -> None:
        self.delay = delay  # seconds until a write is told of; 0: a turn of the loop
        self.delays: dict[Step, float] = {}  # the same, for some
        self.failing: dict[Step, BaseException] = {}  # what is not made, and why: told by the future
        self.raising: dict[Step, BaseException] = {}  # the same, but raised by the call
        self.hanging: set[Step] = set()  # what is made, and told of only by `let_go`
        self.steps: list[tuple[int, Step]] = []  # the rows that began, and the moves that were made, in order
        self.missed: list[tuple[int, Move]] = []  # moves that did not fit
        self.contents: dict[int, JournalRow] = {}
        self.sent: dict[int, list[datetime]] = {}  # when the submissions of a row left that may have been accepted
        self.earlier: dict[int, JournalRow] = {}  # what rows were before they were begun anew
        self.notes: dict[str, str] = {}
        self.is_open = False
        self.opened = 0  # times
        self._held: list[Callable[[], None]] = []
        self._clock = DateClock()

    @property
    def states(self) -> list[EffectState]:
        """The states of all rows, in the order of their numbers."""
        return [row.state for row in self.contents.values()]

    def moves(self, row_id: int = 1) -> list[Step]:
        """Return how a row began, and its moves since."""
        return [step for number, step in self.steps if number == row_id]

    def leave(self, state: EffectState, prompt: str = "rain", *, ago: float = 0.0, **fields: Any) -> JournalRow:
        """Put a row there as an earlier process left it, so many seconds ago."""
        at = self._clock.utcnow() - timedelta(seconds=ago)
        row = JournalRow(
            id=len(self.contents) + 1, state=state, request=SfxRequest(prompt), created_at=at, updated_at=at, **fields
        )
        self.contents[row.id] = row
        self.sent[row.id] = [] if state in (EffectState.QUEUED, EffectState.REFUSED) else [at]
        return row

    def let_go(self) -> None:
        """Tell of what was held back, and hold back no more."""
        self.hanging.clear()
        held, self._held = self._held, []
        for tell in held:
            tell()

    async def open(self) -> None:
        """Open it; what was being sent is unknown now."""
        self.opened += 1
        self.is_open = True
        try:
            await self._put("open", lambda: None)
        except BaseException:
            self.is_open = False
            raise
        for row in self.contents.values():
            if row.state is EffectState.SENDING:
                error = row.error or "The program stopped before the answer to its submission came"
                self.contents[row.id] = attrs.evolve(row, state=EffectState.UNKNOWN, error=error)

    def begin(
        self, request: SfxRequest, *, key: str | None, state: EffectState, again: Move = Move.QUEUE
    ) -> asyncio.Future[Begun]:
        """Write a row, or queue the one of the key again where that fits."""
        return self._put(state, partial(self._begin, request, key, state, again))

    def _begin(self, request: SfxRequest, key: str | None, state: EffectState, again: Move) -> Begun:
        assert state in (EffectState.QUEUED, EffectState.SENDING)
        assert again in (Move.QUEUE, Move.RETRY)
        found = next((row for row in self.contents.values() if key is not None and row.key == key), None)
        at = self._clock.utcnow()
        if found is None:
            number = len(self.contents) + 1
            row = JournalRow(id=number, key=key, state=state, request=request, created_at=at, updated_at=at)
            self.steps.append((number, state))
            self.sent[number] = [at] if state is EffectState.SENDING else []
        elif found.state in MOVES[again][0]:
            row = attrs.evolve(found, state=EffectState.QUEUED, request=request, updated_at=at, **_FORGOTTEN)
            self.earlier.pop(row.id, None)
            self._keep(found, again)
            self.steps.append((row.id, again))
        else:
            return Begun(found, is_mine=False)
        self.contents[row.id] = row
        return Begun(row, is_mine=True)

    def move(self, row_id: int, move: Move, **fields: Any) -> asyncio.Future[bool]:
        """Make a move, if it fits."""
        return self._put(move, partial(self._move, row_id, move, **fields))

    def _move(self, row_id: int, move: Move, **fields: Any) -> bool:
        row, (starts, state) = self.contents.get(row_id), MOVES[move]
        if row is None:
            raise JournalError(f"There is no row {row_id}.", task_id=fields.get("task_id"))
        task_id = fields.get("task_id")
        assert task_id is not None or state is not EffectState.SUBMITTED
        if row.state not in starts or (move in OF_TASK and task_id not in (None, row.task_id)):
            self.missed.append((row_id, move))
            return False
        if task_id is not None and any(other.task_id == task_id for other in self._others(row)):
            raise TaskIdTakenError(f"Row {row_id} cannot get task {task_id}.", task_id=task_id)
        changes: dict[str, Any] = {"state": state, "updated_at": self._clock.utcnow()}
        changes |= _FORGOTTEN if move in _AFRESH else {}
        if state is EffectState.SUBMITTED or move is Move.ANSWER:
            changes["submitted_at"] = self._clock.utcnow()
        changes |= {name: value for name, value in fields.items() if value is not None}
        self._keep(row, move)
        changes |= self._fallback(row, move)
        self._count(row, move)
        self.contents[row_id] = attrs.evolve(row, **changes)
        self.steps.append((row_id, move))
        return True

    def _keep(self, row: JournalRow, move: Move) -> None:
        if row.state in KEEPS.get(move, ()):
            self.earlier[row.id] = row

    def _fallback(self, row: JournalRow, move: Move) -> dict[str, Any]:
        """Return what a row was before its new try, which came to nothing."""
        if row.state not in FALLS_BACK.get(move, ()) or row.id not in self.earlier:
            return {}
        was = self.earlier.pop(row.id)
        kept = {name: getattr(was, name) for name in ("state", "request", "task_id", "error", "submitted_at")}
        if was.task_id is not None and any(other.task_id == was.task_id for other in self._others(row)):
            kept |= {"task_id": None, "state": EffectState.UNKNOWN if was.state is EffectState.LOST else was.state}
        return kept

    def _count(self, row: JournalRow, move: Move) -> None:
        sent = self.sent.setdefault(row.id, [])
        if move in SPENDS:
            sent.append(self._clock.utcnow())
        elif move in GIVES_BACK and row.state is EffectState.SENDING and sent:
            sent.pop()

    def _others(self, row: JournalRow) -> Iterator[JournalRow]:
        return (other for other in self.contents.values() if other.id != row.id)

    async def row(
        self, *, row_id: int | None = None, key: str | None = None, task_id: str | None = None
    ) -> JournalRow | None:
        """Look a row up by what is given."""
        given = {"id": row_id, "key": key, "task_id": task_id}
        ((name, value),) = [(name, value) for name, value in given.items() if value is not None]
        rows = self.contents.values()
        return await self._put("row", lambda: next((row for row in rows if getattr(row, name) == value), None))

    async def row_ids(self, *states: EffectState) -> list[int]:
        """Return the numbers of the rows in these states."""
        return await self._put("row_ids", lambda: [row.id for row in self._in(states)])

    async def rows(self, *states: EffectState, after: int = 0, limit: int = 1000) -> list[JournalRow]:
        """Return the rows in these states whose numbers are above `after`."""
        return await self._put("rows", lambda: [row for row in self._in(states) if row.id > after][:limit])

    def _in(self, states: tuple[EffectState, ...]) -> list[JournalRow]:
        return [row for row in self.contents.values() if not states or row.state in states]

    async def sent_since(self, moment: datetime) -> list[datetime]:
        """Return when submissions left."""
        every = [at for sent in self.sent.values() for at in sent]
        return await self._put("sent_since", lambda: sorted(at for at in every if at >= moment))

    async def load(self, name: str) -> str | None:
        """Return a note."""
        return await self._put("load", lambda: self.notes.get(name))

    def store(self, name: str, text: str) -> asyncio.Future[None]:
        """Keep a note."""
        return self._put("store", lambda: self.notes.update({name: text}))

    async def aclose(self) -> None:
        """Close it, once all is told that can be."""
        await self._put("aclose", lambda: None)
        if self.is_open:
            await asyncio.sleep(max(self.delay, *self.delays.values(), 0.0))
        self.is_open = False

    def _put(self, step: Step, use: Callable[[], T]) -> asyncio.Future[T]:
        if step in self.raising:
            raise self.raising[step]
        loop = asyncio.get_running_loop()
        told: asyncio.Future[T] = loop.create_future()
        tell = partial(_tell, told, *self._outcome(step, use))
        delay = self.delays.get(step, self.delay)
        if step in self.hanging:
            self._held.append(tell)
        elif delay:
            loop.call_later(delay, tell)
        else:
            loop.call_soon(tell)
        return told

    def _outcome(self, step: Step, use: Callable[[], T]) -> tuple[T | None, BaseException | None]:
        if not self.is_open and step != "aclose":
            return None, JournalError("The journal is closed.")
        if step in self.failing:
            return None, self.failing[step]
        try:
            return use(), None
        except JournalError as error:
            return None, error


def _tell(told: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if told.done():
        return
    if error is None:
        told.set_result(result)
    elif isinstance(error, asyncio.CancelledError):
        told.cancel()
    else:
        told.set_exception(error)
        told.exception()  # who does not wait makes no noise
