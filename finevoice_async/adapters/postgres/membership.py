"""A session's membership of the fleet: its connection that listens and holds the lock which says that it lives."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import os
import socket
from collections.abc import Callable
from typing import Final

import psycopg

from finevoice_async.adapters.postgres.connection import Connection, connect, explain, is_away
from finevoice_async.adapters.postgres.contact import Contact
from finevoice_async.config import Fleet
from finevoice_async.ports import Clock

log = logging.getLogger("finevoice_async")

SHORTEST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 0.5
"""Seconds between two tries to join: at first, and at most."""

LOOK: Final = 5.0
"""Seconds without news after which the connection is tried: one that was cut off in the middle says nothing."""

News = Callable[[str, int], None]
"""Hears what happened to a row: `place` for a slot of this session's, else the state that the row is in now."""


class Membership:
    """Joins, listens, and joins again when the connection was lost or the others took the session for dead."""

    def __init__(self, url: str, account: str, plan: int, options: Fleet, clock: Clock, *, news: News) -> None:
        self._url = url
        self.account = account
        self._plan = plan
        self._options = options
        self._clock = clock
        self._news = news
        # All mutable state:
        self.me: int | None = None  # the number in the fleet; kept when the connection is lost, to come back as it
        self.contact = Contact()  # of all connections of the session
        self.here = asyncio.Event()  # in the fleet, as far as is known
        self.seen = -float("inf")  # when the fleet surely had it, in seconds of the monotonic clock
        self.missed: Callable[[], None] = lambda: None  # called when news may have been missed
        self._connection: Connection | None = None
        self._listener: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Join.

        Raises:
            psycopg.Error: It could not be done.
        """
        await self._join()
        self._start_listening()

    def is_sure(self) -> bool:
        """Tell whether nobody can have taken this session for dead."""
        return self.here.is_set() and self._clock.monotonic() - self.seen < self._options.lease / 2

    async def join_again(self) -> None:
        """The others say that it is not in the fleet: join as a new session."""
        self.me = None
        await self._stop_listening()
        self._start_listening()
        await self.here.wait()

    def _start_listening(self) -> None:
        self._listener = asyncio.create_task(
            self._listen(), name="finevoice-fleet-listener", context=contextvars.Context()
        )

    async def _stop_listening(self) -> None:
        self.here.clear()
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.wait([self._listener])
        await self._disconnect()

    async def _join(self) -> None:
        connection = self._connection = await connect(self._url)
        began = self._clock.monotonic()
        await connection.execute(f"LISTEN finevoice_{self.account}")
        who = f"{socket.gethostname()}:{os.getpid()}"
        cursor = await connection.execute(
            "SELECT finevoice.join_fleet(%s, %s, %s, make_interval(secs => %s), %s)",
            (self.account, who, self._plan, self._options.lease, self.me),
        )
        found = await cursor.fetchone()
        assert found is not None  # noqa: S101 - a function gives a row
        self.me, self.seen = found[0], began
        self.here.set()
        self.contact.listens()

    async def _listen(self) -> None:
        pause = SHORTEST_PAUSE
        while True:
            try:
                if self._connection is None:
                    await self._join()
                    log.info("in the fleet again, as session %s", self.me)
                    self.missed()
                pause = SHORTEST_PAUSE
                await self._hear()
            except (psycopg.Error, OSError, TimeoutError) as error:
                if is_away(error):
                    self.contact.stopped_listening(error)
                else:
                    log.warning("the connection to the fleet was lost: %s", explain(error))
            except Exception:
                log.exception("an unexpected error in what listens to the fleet")
            self.here.clear()
            await self._disconnect()
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _hear(self) -> None:
        """Hear news until the connection is lost."""
        connection = self._connection
        assert connection is not None  # noqa: S101 - it has just been made
        while True:
            async for news in connection.notifies(timeout=LOOK):
                whom, what, row_id = news.payload.split()
                if int(whom) in (0, self.me):
                    self._news(what, int(row_id))
            async with asyncio.timeout(LOOK):
                await connection.execute("SELECT 1")

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error, OSError):  # it is lost already
                await connection.close()

    def drop(self) -> None:
        """Close the connection without an event loop."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.pgconn.finish()

    async def aclose(self) -> None:
        """Listen no more. Idempotent."""
        await self._stop_listening()
