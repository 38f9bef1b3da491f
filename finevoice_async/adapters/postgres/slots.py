"""A fleet's slots as its session sees them: given to rows by the database, taken up here one after another."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from typing import Any, Protocol

import attrs

from finevoice_async.errors import SessionClosedError


@attrs.frozen
class RowSlot:
    """A slot that a row has: it changes hands with the row's state, and is given up by hand only before that."""

    row_id: int


@attrs.frozen
class StrangersSlot:
    """The slot of a task that has no row."""

    task_id: str


class Store(Protocol):
    """What the slots need of the journal, which has the connection."""

    def let_go(self, row_id: int) -> asyncio.Future[bool]:
        """Act no longer for a row that was not sent."""
        ...

    def occupy(self, task_id: str) -> asyncio.Future[None]:
        """Let a task without a row take a slot."""
        ...

    def vacate(self, task_id: str) -> asyncio.Future[None]:
        """Free that slot."""
        ...

    def slow_down(self, seconds: float) -> asyncio.Future[None]:
        """Use fewer slots for a while."""
        ...


class FleetSlots:
    """Fulfils `shared_ports.RowSlots`. The database decides whose turn it is, over all sessions."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # All mutable state:
        self.waiting_elsewhere = 0  # how many wait in the other sessions, by the last look
        self.running_elsewhere = 0  # slots that are taken by what this session does not act for, by the same look
        self.places: dict[int, int] = {}  # of rows that matter here in the fleet's line, by the same look
        self._given: OrderedDict[int, None] = OrderedDict()  # rows that have a slot which nobody took up yet
        self._waiting: dict[int, None] = {}  # rows of this session that have none
        self._early: dict[int, None] = {}  # rows that have one, and that nobody expects yet
        self._takers: deque[asyncio.Future[RowSlot]] = deque()
        self._unsent: dict[int, None] = {}  # rows with a slot that was taken up, and that were not sent
        self._closed = False

    def __repr__(self) -> str:
        return f"<FleetSlots: {self.waiting} waiting, {len(self._given)} to be taken up>"

    @property
    def waiting(self) -> int:
        """How many wait in the whole fleet, as far as is known here."""
        return len(self._waiting) + self.waiting_elsewhere

    # What the journal tells

    @property
    def waiting_here(self) -> list[int]:
        """The rows of this session that wait."""
        return list(self._waiting)

    def position(self, row_id: int) -> int | None:
        """Return a row's place in the fleet's line, by the last look."""
        return self.places.get(row_id)

    def lost(self, row_id: int) -> None:
        """A row that waits here has gone on elsewhere: whoever waits for its slot is to find that out."""
        if row_id in self._waiting:
            self.given(row_id)

    def expect(self, row_id: int) -> None:
        """A row of this session's waits from now on, and whoever takes slots knows it."""
        if row_id in self._early:
            del self._early[row_id]
            self._given[row_id] = None
            self._match()
        elif row_id not in self._given and row_id not in self._unsent:
            self._waiting[row_id] = None

    def given(self, row_id: int) -> None:
        """The database gave a row of this session's a slot. It may say so before the row is known here."""
        if row_id in self._waiting:
            del self._waiting[row_id]
            self._given[row_id] = None
            self._match()
        elif row_id not in self._given and row_id not in self._unsent:
            self._early[row_id] = None

    def forget(self, row_id: int) -> None:
        """A row waits no more, and has no slot that was to be taken up."""
        for rows in (self._waiting, self._early, self._given, self._unsent):
            rows.pop(row_id, None)

    def taken_up(self, row_id: int) -> RowSlot:
        """Return the slot that a row has begun with."""
        self.forget(row_id)
        self._unsent[row_id] = None
        return RowSlot(row_id)

    # What the engine asks

    def try_acquire(self) -> RowSlot | None:
        """Take up the slot of a row that has got one, if there is one and nobody waits for it."""
        return None if self._closed or self._takers or not self._given else self._next()

    async def acquire(self) -> RowSlot:
        """Wait for a row of this session's to get a slot, and take it up.

        Raises:
            SessionClosedError: The session was closed meanwhile.
        """
        if self._closed:
            raise SessionClosedError("The session is closed. Nothing was sent.")
        if (slot := self.try_acquire()) is not None:
            return slot
        taker: asyncio.Future[RowSlot] = asyncio.get_running_loop().create_future()
        self._takers.append(taker)
        try:
            return await taker
        except asyncio.CancelledError:
            if taker in self._takers:
                self._takers.remove(taker)
            elif taker.done() and not taker.cancelled() and taker.exception() is None:
                row_id = taker.result().row_id  # it came in the same step: for the next one
                self._unsent.pop(row_id, None)
                self._given[row_id] = None
                self._match()
            raise

    def occupy(self, *, row_id: int | None = None, task_id: str | None = None) -> Any:
        """Take a slot at once for a task that runs: that of its row, or one of its own."""
        if row_id is not None:
            return RowSlot(row_id)
        if task_id is None:
            return None
        _unheard(self._store.occupy(task_id))
        return StrangersSlot(task_id)

    def release(self, slot: Any) -> None:
        """Give a slot up. That of a row which was sent goes with the row's state."""
        if isinstance(slot, StrangersSlot):
            _unheard(self._store.vacate(slot.task_id))
        elif isinstance(slot, RowSlot) and slot.row_id in self._unsent:
            self.forget(slot.row_id)
            _unheard(self._store.let_go(slot.row_id))

    def slow_down(self, seconds: float) -> None:
        """Use fewer slots for a while, in the whole fleet: the service said 429."""
        _unheard(self._store.slow_down(seconds))

    async def aclose(self) -> None:
        """Send home whoever waits. Tasks that run keep their slots. Idempotent."""
        self._closed = True
        while self._takers:
            taker = self._takers.popleft()
            if not taker.done():
                taker.set_exception(SessionClosedError("The session was closed. Nothing was sent."))

    def _next(self) -> RowSlot:
        row_id, _ = self._given.popitem(last=False)
        self._unsent[row_id] = None
        return RowSlot(row_id)

    def _match(self) -> None:
        while self._takers and self._given:
            taker = self._takers.popleft()
            if not taker.done():
                taker.set_result(self._next())


def _unheard(write: asyncio.Future[Any]) -> None:
    """A write that nobody waits for: the journal logs what goes wrong."""
    write.add_done_callback(lambda done: done.cancelled() or done.exception())
