"""Sessions of the command: with the service or an embedded emulator, warm from earlier runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from finevoice_async import FineVoiceError, FineVoiceSession, Retry
from finevoice_async.cli.memory import Memory
from finevoice_async.config import BASE_URL

PATIENCE = 10.0
"""Seconds for which a command waits for a service that is not reached or is full: whoever sits at a terminal wants to
hear by then, and can type it again; two minutes of silence look like a hang."""


def host_of(base_url: str | None) -> str:
    """Return the name of the service at an address, for people; no user and no password that stand before it."""
    try:
        return urlsplit(base_url or BASE_URL).netloc.rpartition("@")[2] or "the service"
    except ValueError:
        return "the service"  # the session will say what is wrong with it


@asynccontextmanager
async def connected(
    *, emulator: bool = False, base_url: str | None = None, journal: Path | str | None = None, **options: Any
) -> AsyncIterator[FineVoiceSession]:
    """Give a session with the service, or with an emulator of its own; keep afterwards what it has learned."""
    memory = Memory(base_url, emulator=emulator)
    options = {"polling": memory.polling(), "retry": Retry(patience=PATIENCE), "journal": journal, **options}
    if not emulator:
        async with _remembered(FineVoiceSession(base_url=base_url, **options), memory) as session:
            yield session
        return
    from finevoice_async.emulator import Emulator, LogNormal

    async with Emulator(service_time=LogNormal(median=1.5, scaled=False)) as service:
        session = FineVoiceSession(service.api_key, base_url=service.url, **options)
        async with _remembered(session, memory):
            yield session


@asynccontextmanager
async def _remembered(session: FineVoiceSession, memory: Memory) -> AsyncIterator[FineVoiceSession]:
    try:
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(session)
            except FineVoiceError as error:
                error.paid = False  # such as for a journal that cannot be opened: nothing was sent yet
                raise
            yield session
    finally:
        if session.stats.completed:
            memory.keep(session.polling_state())
