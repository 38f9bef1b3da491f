"""Sessions of the command: with the service or an embedded emulator, warm from earlier runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from finevoice_async import FineVoiceSession, Retry
from finevoice_async.cli.memory import Memory

PATIENCE = 10.0
"""Seconds for which a command waits for a service that is not reached or is full: whoever sits at a terminal wants to
hear by then, and can type it again; two minutes of silence look like a hang."""


@asynccontextmanager
async def connected(
    *, emulator: bool = False, base_url: str | None = None, journal: Path | None = None, **options: Any
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
        async with session:
            yield session
    finally:
        if session.stats.completed:
            memory.keep(session.polling_state())
