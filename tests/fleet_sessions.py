"""What the tests of whole sessions in a fleet share: sessions that notice soon, and what becomes of them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any, Unpack

from fleets import QUICK

from finevoice_async import FineVoiceSession
from finevoice_async.adapters.postgres.journal import PostgresJournal
from finevoice_async.testing import EmulatedService, SessionOptions

SOON = 0.3
"""Seconds within which everybody who waits for an effect hears of its end."""


class Sessions:
    """Opens sessions with one service and one database, and closes them at the end."""

    def __init__(self, service: EmulatedService, url: str) -> None:
        self.service = service
        self.url = url
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Sessions:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def open(self, **options: Unpack[SessionOptions]) -> FineVoiceSession:
        """Open one more."""
        chosen: SessionOptions = {"journal": self.url, "fleet": QUICK, "max_concurrency": 2, **options}
        session = self.service.session(**chosen)
        await self._stack.enter_async_context(session)
        return session

    @property
    def prompts(self) -> list[str]:
        """What the service has accepted, in order."""
        return [str(task.request.prompt) for task in self.service.ledger.accepted.values()]


def journal_of(session: FineVoiceSession) -> PostgresJournal:
    """Return a session's journal."""
    journal = session._parts._journal
    assert isinstance(journal, PostgresJournal)
    return journal


async def freeze(session: FineVoiceSession) -> None:
    """Let a session say nothing more, as one that is paused: its connections stay."""
    beat = journal_of(session)._beat
    assert beat is not None
    beat.cancel()
    await asyncio.wait([beat])


async def timed(job: Any, told: Callable[[], float] = time.monotonic) -> tuple[Any, float]:
    """Await something, and return its result, and when it came."""
    result = await job
    return result, told()
