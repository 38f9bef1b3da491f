"""What the client needs from the world, as protocols. `adapters` holds what fulfils them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

import attrs

from finevoice_async.core.ledger import EffectState, JournalRow, Move
from finevoice_async.core.requests import SfxRequest
from finevoice_async.errors import JournalError

if TYPE_CHECKING:  # what reads answers is imported with the first session, events for who has an observer
    from finevoice_async.core.wire import Reply
    from finevoice_async.events import SfxEvent


class Timer(Protocol):
    """A callback that is due later and can be called off."""

    def cancel(self) -> None:
        """Call it off; does nothing if it ran already."""
        ...


class Clock(Protocol):
    """Time, injected: tests bring a clock of their own."""

    def monotonic(self) -> float:
        """Return seconds that never run backwards, whatever happens to the date."""
        ...

    def utcnow(self) -> datetime:
        """Return the date and time, for people and for HTTP dates."""
        ...

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        """Call back when `monotonic` reaches `when`."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class Observer(Protocol):
    """Whoever wants to hear what a session does: for logs, progress, metrics, traces."""

    def on_event(self, event: SfxEvent) -> None:
        """Hear of a step. Called in the event loop, which waits: be quick.

        What it raises is logged, once of a kind, and harms nobody: be it a `KeyboardInterrupt`.
        """
        ...


class UnsentCancelledError(asyncio.CancelledError):
    """A POST was cancelled while certainly nothing of it was sent, nor will be: it still resolved a name, say."""


class Transport(Protocol):
    """HTTP to the service: one call, one plain reply. It knows nothing of the API and never tries again."""

    def post(self, path: str, body: bytes, *, deadline: AbstractContextManager[None] | None = None) -> Awaitable[Reply]:
        """Send a JSON body.

        Args:
            path: Where to.
            body: The JSON.
            deadline: Entered for this call, which ends with a Failure when `TimeoutError` leaves it; left out, the
                transport's own.

        Raises:
            Failure: There is no reply. NOT_SENT or CERTIFICATE: certainly nothing was sent, nor will be.
            UnsentCancelledError: It was cancelled, where the same is certain.
        """
        ...

    def get(self, path: str) -> Awaitable[Reply]:
        """Ask for a path, which is percent-encoded already.

        Raises:
            Failure: There is no reply.
        """
        ...

    def conceal(self, body: bytes) -> bytes:
        """Strike the key out of a body that an error will keep."""
        ...

    async def aclose(self) -> None:
        """Close what this transport opened. Idempotent."""
        ...


class Body(Protocol):
    """A reply whose body is still to come."""

    status: int
    headers: Mapping[str, str]

    def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes. Raises `Failure` if the connection fails on the way."""
        ...


class Fetcher(Protocol):
    """HTTP to wherever the results lie, without key and cookies, never redirected."""

    def get(self, url: str, headers: Mapping[str, str]) -> AbstractAsyncContextManager[Body]:
        """Ask for a link.

        Raises:
            Failure: The address is not allowed (INVALID), or there is no reply.
        """
        ...

    async def aclose(self) -> None:
        """Close the connections. Idempotent."""
        ...


class Slots(Protocol):
    """The slots of the plan: how many tasks may run at the service at once."""

    def try_acquire(self) -> object | None:
        """Take a slot if one is free now and nobody waits for it; else return None."""
        ...

    async def acquire(self) -> object:
        """Wait for a slot and take it. First come, first served; a cancelled wait takes none."""
        ...

    def occupy(self) -> object:
        """Take a slot at once, free or not: for a task that runs at the service already."""
        ...

    def release(self, slot: object) -> None:
        """Take a slot back. Returns at once; what must be told to others happens behind."""
        ...

    def slow_down(self, seconds: float) -> None:
        """Use fewer slots for a while: the service said 429."""
        ...

    @property
    def waiting(self) -> int:
        """How many wait for a slot."""
        ...

    async def aclose(self) -> None:
        """Take everything back. Idempotent."""
        ...


@attrs.frozen(eq=False)
class Begun:
    """What `Journal.begin` found.

    Attributes:
        row: The row, as it stands now.
        is_mine: It was written for this call; else it was there before, and is as it was.
        elsewhere: Another living session acts for it: it is to be followed, neither sent nor asked for. Only a journal
            that sessions share says so; any other one's rows are always its session's.
        has_slot: It is SENDING by this very call, as a slot was free; by the same rule.
    """

    row: JournalRow
    is_mine: bool
    elsewhere: bool = False
    has_slot: bool = False


class TaskIdTakenError(JournalError):
    """The task id belongs to another row. Nothing was written."""


class Journal(Protocol):
    """What must survive a crash: one row an effect, moved by `core.ledger`.

    Writes are put in order by the call itself and committed soon after; the future that a write gives is done once
    the commit is on disk. No method blocks the event loop. Every failure is a `JournalError`.
    """

    async def open(self) -> None:
        """Open it and become its only owner. What an earlier owner left as SENDING is UNKNOWN from now on.

        Raises:
            JournalError: It is no journal, is damaged, newer, in use, or cannot be written.
        """
        ...

    def begin(
        self, request: SfxRequest, *, key: str | None, state: EffectState, again: Move = Move.QUEUE
    ) -> asyncio.Future[Begun]:
        """Write a new row in `state` (QUEUED or SENDING).

        If a row with this key exists, it is moved by `again` (QUEUE or RETRY) and gets this request, where that move
        may start from its state; else it stays as it is. Either way it is given: compare its `state` and `request`.
        """
        ...

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
        """Make a move, if the row is in a state that it may start from, and note what is given; None leaves a field.

        The result tells whether it was made. What a task tells of itself (`ledger.OF_TASK`) moves the row only if
        that is the row's task, where one is named. A move to SENDING puts the task id of an earlier submission aside,
        and forgets its links and error.

        What begins anew what came to something (`ledger.KEEPS`; `begin` with RETRY, too) keeps what the row was, and
        what says that it came to nothing (`ledger.FALLS_BACK`) makes the row what it was, in place of the move's own
        state and of the `error` that is given.

        A row that becomes SENDING, or begins so, keeps when, for `sent_since`, beside the times of its earlier
        submissions. What `ledger.GIVES_BACK` names takes the last one back, if the row was SENDING.

        Raises:
            TaskIdTakenError: The task id belongs to another row.
        """
        ...

    async def row(
        self, *, row_id: int | None = None, key: str | None = None, task_id: str | None = None
    ) -> JournalRow | None:
        """Return the row with this number, key or task id (one is given), as it stands now."""
        ...

    async def row_ids(self, *states: EffectState) -> list[int]:
        """Return the numbers of the rows in these states, in order."""
        ...

    async def rows(self, *states: EffectState, after: int = 0, limit: int = 1000) -> list[JournalRow]:
        """Return the rows in these states (none named: in any) with an id above `after`, in the order of their ids."""
        ...

    async def sent_since(self, moment: datetime) -> list[datetime]:
        """Return when each submission left, from a moment on, that may have been accepted; the earliest first.

        Several of one row are several.
        """
        ...

    async def load(self, name: str) -> str | None:
        """Return the text stored under a name, if any."""
        ...

    def store(self, name: str, text: str) -> asyncio.Future[None]:
        """Keep a text under a name."""
        ...

    async def aclose(self) -> None:
        """Commit what was written, and close. Idempotent."""
        ...
