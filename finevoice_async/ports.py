"""What the client needs from the world, as protocols. `adapters` holds what fulfils them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol

from finevoice_async.core.effects import EffectState, JournalRow
from finevoice_async.core.models import SfxRequest
from finevoice_async.core.wire import Reply


class Timer(Protocol):
    """A callback that is due later and can be called off."""

    def cancel(self) -> None:
        """Call it off; does nothing if it ran already."""
        ...


class Clock(Protocol):
    """Time, injected: tests bring a clock of their own."""

    def monotonic(self) -> float:
        """Give seconds that never run backwards, whatever happens to the date."""
        ...

    def utcnow(self) -> datetime:
        """Give the date and time, for people and for HTTP dates."""
        ...

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        """Call back when `monotonic` reaches `when`."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class TransportError(Exception):
    """A call brought no reply. Carries words only, never the library's exception, which may hold the key."""


class NotSentError(TransportError):
    """The connection itself failed (DNS, refused, connect timeout, TLS handshake): nothing was sent."""


class CertificateError(NotSentError):
    """The server's certificate is not trusted: nothing was sent, and trying again does not help."""


class RefusedAddressError(NotSentError):
    """A link leads where results must not be fetched from: no connection was made."""


class LostError(TransportError):
    """The connection failed once something may have been sent, or the reply could not be read."""


class Transport(Protocol):
    """HTTP to the service: one call, one plain reply. It knows nothing of the API and never tries again."""

    def post(self, path: str, body: bytes) -> Awaitable[Reply]:
        """Send a JSON body.

        Raises:
            NotSentError: Certainly nothing was sent.
            LostError: Something may have been sent.
        """
        ...

    def get(self, path: str) -> Awaitable[Reply]:
        """Ask for a path, which is percent-encoded already.

        Raises:
            NotSentError: The service was not reached.
            LostError: There was no reply, or an unreadable one.
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
        """Give the body as it comes. Raises `LostError` if the connection fails on the way."""
        ...


class Fetcher(Protocol):
    """HTTP to wherever the results lie, without key and cookies, never redirected."""

    def get(self, url: str, headers: Mapping[str, str]) -> AbstractAsyncContextManager[Body]:
        """Ask for a link.

        Raises:
            RefusedAddressError: The address is not allowed.
            NotSentError: The server was not reached.
            LostError: It gave no readable reply.
        """
        ...

    async def aclose(self) -> None:
        """Close the connections. Idempotent."""
        ...


class Slots(Protocol):
    """The places of the plan: how many tasks may run at the service at once."""

    def try_acquire(self) -> object | None:
        """Take a place if one is free now and nobody waits for it; else give None."""
        ...

    async def acquire(self) -> object:
        """Wait for a place and take it. First come, first served; a cancelled wait takes none."""
        ...

    def occupy(self) -> object:
        """Take a place at once, free or not: for a task that runs at the service already."""
        ...

    def release(self, slot: object) -> None:
        """Give a place back. Returns at once; what must be told to others happens behind."""
        ...

    def slow_down(self, seconds: float) -> None:
        """Use fewer places for a while: the service said 429."""
        ...

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        ...

    async def aclose(self) -> None:
        """Give everything back. Idempotent."""
        ...


class Journal(Protocol):
    """What must survive a crash: one row an effect.

    Writes are put in order by the call itself and committed soon after; the future that a write gives is done once
    the commit is on disk. No method blocks the event loop. Every failure is a `JournalError`.
    """

    async def open(self) -> None:
        """Open the file and become its only owner.

        Raises:
            JournalError: It is no journal, is damaged, newer, in use, or cannot be written.
        """
        ...

    def begin(self, request: SfxRequest, *, key: str | None, state: EffectState) -> asyncio.Future[JournalRow]:
        """Write a new row in `state` (PREPARED or SENDING).

        If a row with this key exists already, that row is given as it is and nothing is written: compare its
        `state` and `request`.
        """
        ...

    def advance(
        self,
        row_id: int,
        state: EffectState,
        *,
        seen: EffectState | None = None,
        task_id: str | None = None,
        urls: tuple[str, ...] | None = None,
        path: str | None = None,
        sha256: str | None = None,
        error: str | None = None,
    ) -> asyncio.Future[None]:
        """Move a row to `state`, if that is a legal transition, and note what is given; None leaves a field.

        With `seen`, the row must still be in that state: whoever read it earlier may be late.
        """
        ...

    async def rows(self, *states: EffectState, after: int = 0, limit: int = 1000) -> list[JournalRow]:
        """Give the rows in these states (none named: in any) with an id above `after`, in the order of their ids."""
        ...

    async def counts(self) -> dict[EffectState, int]:
        """Give the number of rows in each state that has any."""
        ...

    async def load(self, name: str) -> str | None:
        """Give the text stored under a name, if any."""
        ...

    def store(self, name: str, text: str) -> asyncio.Future[None]:
        """Keep a text under a name."""
        ...

    async def aclose(self) -> None:
        """Commit what was written, and close. Idempotent."""
        ...
