"""The life of a session: used in one loop and one process, opened once, closed once."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import enum
import os
from collections.abc import Callable, Coroutine
from typing import Any

from finevoice_async.errors import ConfigurationError, FineVoiceError, SessionClosedError


class SessionState(enum.Enum):
    """The life of a session; each state is entered once."""

    NEW = "new"  # made, not used: nothing is open
    OPEN = "open"  # in use
    CLOSING = "closing"  # takes nothing more; what runs is settled
    CLOSED = "closed"  # everything is given back


OPENING = 10.0
"""Seconds that closing waits for an opening under way: as long as the journal gives its disk."""


class Life:
    """Owns the state of a session, and the two tasks that open and close it."""

    def __init__(self) -> None:
        # All mutable state:
        self.state = SessionState.NEW
        self._loop: asyncio.AbstractEventLoop | None = None  # the one it belongs to, from the first use on
        self._pid: int | None = None  # the process that it belongs to, from the first use on
        self._opening: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None

    def bind(self) -> None:
        """Check that the session is used where it belongs; it belongs where it is used first.

        Raises:
            ConfigurationError: It belongs to another event loop or process.
            SessionClosedError: It is closed.
        """
        loop = asyncio.get_running_loop()
        if self._pid not in (None, os.getpid()):
            raise ConfigurationError("This session belongs to another process; make one after the fork.")
        if self._loop is None:
            self._loop, self._pid = loop, os.getpid()
        elif self._loop is not loop:
            raise ConfigurationError("This session belongs to another event loop; make one for each.")
        if self.state in (SessionState.CLOSING, SessionState.CLOSED):
            raise SessionClosedError("The session is closed. Nothing was sent.")

    async def open(self, opener: Callable[[], Coroutine[Any, Any, None]] | None) -> None:
        """Open it, once for all callers; after a failure the next call tries again.

        Args:
            opener: Does it; it goes on if a caller is cancelled. None: there is nothing to open.

        Raises:
            FineVoiceError: As the opener, and as `bind`.
        """
        self.bind()
        if self.state is SessionState.OPEN:
            return
        if opener is not None:
            if self._opening is None:
                self._opening = asyncio.create_task(opener(), name="finevoice-open", context=contextvars.Context())
            opening = self._opening
            await asyncio.wait([opening])
            if opening.cancelled() or opening.exception() is not None:
                if self._opening is opening:
                    self._opening = None
                self.bind()
                raise ConfigurationError("Opening was cancelled from outside.") if opening.cancelled() else _of(opening)
            self.bind()  # it may have been closed meanwhile
        self.state = SessionState.OPEN

    async def close(self, closer: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Close it, once for all callers, who may be cancelled: it goes on.

        Args:
            closer: Does it.

        Raises:
            ConfigurationError: It belongs to another process or event loop.
        """
        if self.state is SessionState.CLOSED:
            return
        if self._pid not in (None, os.getpid()) or self._loop not in (None, asyncio.get_running_loop()):
            raise ConfigurationError("This session belongs to another process or event loop; close it there.")
        if self._closing is None:
            self.state = SessionState.CLOSING
            self._closing = asyncio.create_task(
                self._close(closer), name="finevoice-close", context=contextvars.Context()
            )
        await asyncio.shield(self._closing)

    def finish(
        self, closer: Callable[[], Coroutine[Any, Any, None]], giver: Callable[[], Coroutine[Any, Any, None]]
    ) -> bool:
        """Close it from outside of any event loop, for who cannot await that; not while its own runs elsewhere.

        Args:
            closer: Closes it, in its own loop.
            giver: Gives back what is open once that loop is closed, and all in it has ended; runs in another.

        Returns:
            Whether its loop was closed, and it was not.
        """
        loop = self._loop
        if loop is None or self.state is SessionState.CLOSED or self._pid != os.getpid() or loop.is_running():
            return False
        if not loop.is_closed():
            loop.run_until_complete(self.close(closer))
            return False
        self.state = SessionState.CLOSED
        asyncio.run(giver())
        return True

    async def _close(self, closer: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            opening = self._opening
            if opening is not None:
                await asyncio.wait([opening], timeout=OPENING)
                opening.cancel()  # a disk that gives no answer
            await closer()
        finally:
            self.state = SessionState.CLOSED


def _of(opening: asyncio.Task[None]) -> BaseException:
    """Return why an opening failed, for one of its callers, who had nothing sent."""
    error = opening.exception()
    assert error is not None  # noqa: S101 - the caller has looked
    if isinstance(error, FineVoiceError):
        error = copy.copy(error)
        error.paid = False
    return error
