"""What the tests of a fleet's queue share: jobs as the database has them, and workers in the test's own process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Unpack

import attrs
from fleets import QUICK, sql

from finevoice_async import FineVoiceSession, Timeouts
from finevoice_async.queue import Queue
from finevoice_async.testing import EmulatedService, SessionOptions
from finevoice_async.worker import JobUpdate, Worker

PATIENT = Timeouts(connect=10.0, read=20.0, task=60.0, close=2.0)
"""The service shares the machine with a database and other programs."""


def jobs(url: str) -> list[tuple[str, str, int]]:
    """Return the jobs of a queue: key, status, how often each was delivered and came to nothing."""
    return sql(url, "SELECT args->>'key', status::text, attempts FROM procrastinate_jobs ORDER BY id")


async def fill(url: str, *keys: str, **fields: Any) -> None:
    """Queue a wish for each key."""
    async with Queue(url) as queue:
        for key in keys:
            await queue.enqueue(f"Sound {key}", key=key, **fields)


@attrs.define
class Shift:
    """A worker at work.

    Attributes:
        worker: It.
        session: Its session.
        stop: Tells it to end.
        work: Its run.
        updates: What it has told.
    """

    worker: Worker
    session: FineVoiceSession
    stop: asyncio.Event
    work: asyncio.Task[None]
    updates: list[JobUpdate]

    @property
    def saved(self) -> list[str]:
        """The keys of what it has saved."""
        return [update.key for update in self.updates if update.error is None]

    async def end(self) -> None:
        """Let it end in good order."""
        self.stop.set()
        await self.work


@contextlib.asynccontextmanager
async def at_work(
    service: EmulatedService, url: str, folder: Path, *, concurrency: int = 20, **options: Unpack[SessionOptions]
) -> AsyncIterator[Shift]:
    """Let a worker work, with a session of its own."""
    chosen: SessionOptions = {
        "journal": url,
        "fleet": QUICK,
        "max_concurrency": 2,
        "timeouts": PATIENT,
        **options,
    }
    updates: list[JobUpdate] = []
    stop = asyncio.Event()
    async with service.session(**chosen) as session:
        worker = Worker(
            url, session, folder, concurrency=concurrency, told=updates.append, fleet=chosen.get("fleet") or QUICK
        )
        work = asyncio.create_task(worker.run(stop))
        try:
            yield Shift(worker, session, stop, work, updates)
        finally:
            if not work.done():
                work.cancel()
                await asyncio.wait([work])
