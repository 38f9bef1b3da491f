"""What sessions that share a journal need beyond `ports`. `adapters.postgres` fulfils it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import attrs

from finevoice_async.core.ledger import EffectState, JournalRow, Move
from finevoice_async.core.requests import SfxRequest
from finevoice_async.ports import Begun, Journal, Slots
from finevoice_async.reprs import with_safe_repr


@with_safe_repr
@attrs.frozen
class FleetStats:
    """What a whole fleet is doing.

    Attributes:
        sessions: Sessions that live.
        plan: The slots that may be used now.
        taken: The slots that are taken: by tasks that run or are being submitted, and by what is unknown and may run.
        running: Tasks at the service.
        waiting: Effects that wait for a slot.
        sending: Submissions under way.
        unknown: Effects that may have been paid for, and that only you can settle.
        done: Effects that were made.
        failed: Effects that the service could not make.
        longest_wait: Seconds that the oldest of those that wait has waited.
    """

    sessions: int
    plan: int | None
    taken: int
    running: int
    waiting: int
    sending: int
    unknown: int
    done: int
    failed: int
    longest_wait: float


class RowSlot(Protocol):
    """A slot that a row has."""

    @property
    def row_id(self) -> int:
        """The row's number."""
        ...


class RowSlots(Slots, Protocol):
    """Slots that belong to rows of a journal which sessions share: a column there, not a semaphore.

    A slot changes hands with its row's state, in one commit. So it outlives a process that dies, is freed by whoever
    learns that the task has ended, and nobody has to give it back: `release` only tells of a row that was not sent.

    Whose turn it is over all sessions is decided where the rows are; `acquire` waits for any row of this session's to
    get a slot, and its slot says which (`row_id`). A cancelled wait loses none. `waiting` and `slow_down` are about
    the whole fleet. `aclose` sends home whoever waits, and frees nothing: tasks run on, and others follow them.
    """

    def try_acquire(self) -> RowSlot | None:
        """Take up the slot of a row that has got one, if there is one."""
        ...

    async def acquire(self) -> RowSlot:
        """Wait for a row of this session's to get a slot, and take it up."""
        ...

    def occupy(self, *, row_id: int | None = None, task_id: str | None = None) -> object:
        """Take a slot at once, free or not: a row that was submitted has its own; a task without a row gets one."""
        ...

    def position(self, row_id: int) -> int | None:
        """Return a row's place in the fleet's line as it was a moment ago, 1 for who is next; None if not known."""
        ...

    @property
    def running_elsewhere(self) -> int:
        """How many slots are taken by what this session does not act for, as it was a moment ago."""
        ...


class SharedJournal(Journal, Protocol):
    """A journal that several sessions have open at once.

    What `Journal` promises holds, with these differences. A journal of one session keeps both promises for nothing:
    all its rows are its session's, nobody else changes them, and there is no news.

    - To *open* is to join, to close is to *leave*: what was submitted keeps its slot, and others follow it.
    - Whose a row is, who is under way and what is unknown is decided in the store. `begin` says whose it is
      (`Begun.elsewhere`). What is SENDING is unknown only once its session was silent for a whole lease.
    - *Intents* (`begin`, `take`, SEND, RESEND) need the session to be in the fleet, and the row to be its own. To send,
      a row needs a slot, too: begun as SENDING it gets one at once if one is free, and is QUEUED else.
    - *Facts* are true whoever tells them and however late, if they are about the last submission of the row: the store
      draws a *claim* for each, and names it in all that is said of it.
    - While the store is *away*, nothing fails: intents wait, so nothing is sent, and facts are written when it is
      back. A store that is *broken* (no schema, no permission) is a `JournalError`.
    - Times are those of the store's clock.
    """

    @property
    def slots(self) -> RowSlots:
        """The slots, which its rows have."""
        ...

    async def open(self, adopted: Callable[[JournalRow], None] = ...) -> None:
        """Join. `adopted` hears of each submitted row that this session is to follow from now on."""
        ...

    def begin(
        self,
        request: SfxRequest,
        *,
        key: str | None,
        state: EffectState,
        again: Move = Move.QUEUE,
        owner: str | None = None,
    ) -> asyncio.Future[Begun]:
        """As `Journal.begin`. A row that nobody who lives acts for is this session's from then on.

        Args:
            request: What is asked for.
            key: The caller's own name for it.
            state: SENDING if it may go at once.
            again: What may move a row that is there.
            owner: On whose behalf: owners, and sessions where there is none, take turns in the whole fleet.
        """
        ...

    def take(self, row_id: int, *, claim: int | None = None, owner: str | None = None) -> asyncio.Future[bool]:
        """Act for a row that is QUEUED, UNKNOWN or LOST, to send it (again), once it has a slot.

        False: somebody who lives does, or it is not as its caller saw it (`claim`) any more.
        """
        ...

    def let_go(self, row_id: int) -> asyncio.Future[bool]:
        """Act no longer for a row that was not sent."""
        ...

    def withdraw(self, row_id: int, error: str) -> asyncio.Future[bool]:
        """Refuse a row that waits to be sent, whoever acts for it."""
        ...

    def give_away(self) -> asyncio.Future[None]:
        """Act no longer for any row that runs, nor for any that others leave: other sessions do."""
        ...

    def free_slot(self, row_id: int) -> asyncio.Future[None]:
        """Let a row of this session's that runs keep no slot any more: its task was given up."""
        ...

    def close_at_once(self) -> None:
        """Drop the connections, for who has no event loop any more: for the others this session has died."""
        ...

    def whose(self, row_id: int) -> asyncio.Future[Begun | None]:
        """Return a row, and whether another living session acts for it; one that runs and nobody follows is taken."""
        ...

    def watch(self, row_id: int, told: Callable[[], None]) -> Callable[[], None]:
        """Call `told` whenever a row may have changed, whoever changed it; return what ends that.

        Watch first, then read: what changes in between is told. News that is lost comes within seconds.
        """
        ...

    def is_sure(self) -> bool:
        """Tell whether nobody can have taken this session for dead: to be asked right before a POST."""
        ...

    async def until_sure(self) -> None:
        """Wait until that is so: while the database is away, it is not."""
        ...

    async def fleet(self) -> FleetStats:
        """Return what all sessions together are doing."""
        ...
