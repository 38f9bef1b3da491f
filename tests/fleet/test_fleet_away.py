"""The fleet's database goes away and comes back: who only looks hears of it soon, and it is said once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from databases import Databases, Server
from fleet_sessions import Sessions, journal_of
from fleets import until

from finevoice_async import FineVoiceSession, Fleet, JournalError
from finevoice_async.adapters.postgres import schema
from finevoice_async.engine.fleet import books
from finevoice_async.testing import EmulatedService, make_service

pytestmark = pytest.mark.real_time

RARELY = Fleet(beat=60, lease=600)
"""It says nothing by itself for as long as a test lasts."""


@pytest.fixture
def service() -> Iterator[EmulatedService]:
    """A service."""
    with make_service(service_time=0.1) as service:
        yield service


@pytest.fixture
async def session(service: EmulatedService, server: Server, no_leaks: object) -> AsyncIterator[FineVoiceSession]:
    """A session on a server of its own, with an effect that was made."""
    url = Databases(server.url).make()
    await schema.init(url)
    async with Sessions(service, url) as fleet:
        session = await fleet.open(fleet=RARELY)
        await session.generate("Rain", key="made")
        yield session


async def _rows(session: FineVoiceSession) -> list[Any]:
    return [row async for row in session.rows()]


LOOKS: list[Callable[[FineVoiceSession], Any]] = [
    lambda session: session.fleet(),
    lambda session: session.find(key="nobody's"),
    lambda session: session.find(task_id="task-of-nobody"),
    lambda session: session.attach("task-of-nobody"),
    _rows,
]


async def test_who_only_looks(session: FineVoiceSession, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look fails soon and leaves the line; what is to be written waits, and is written once it is back."""
    assert books.PATIENCE < 5
    monkeypatch.setattr(books, "PATIENCE", 0.2)
    await asyncio.to_thread(server.crash)
    line = journal_of(session)._line
    writes = asyncio.ensure_future(session.generate("Wind", key="later"))
    await until(lambda: len(line) == 1)
    for look in LOOKS:
        with pytest.raises(JournalError, match="The fleet's database is away"):
            await look(session)
    assert len(line) == 1
    await until(lambda: len(line._queue) + len(line._batch) == 1)
    assert not writes.done()
    await asyncio.to_thread(server.start)
    await writes
    assert [row.key for row in await _rows(session)] == ["made", "later"]
    assert (await session.fleet()).sessions == 1


async def test_a_server_that_stands_still(
    session: FineVoiceSession, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that gives no answer is away for who looks, too; what comes late is for nobody, and harms nobody."""
    monkeypatch.setattr(books, "PATIENCE", 0.2)
    server.pause()
    for look in LOOKS:
        with pytest.raises(JournalError, match="The fleet's database is away"):
            await look(session)
    server.go_on()
    await until(lambda: not journal_of(session)._line)
    assert [row.key for row in await _rows(session)] == ["made"]


async def test_who_looks_and_is_cancelled(session: FineVoiceSession, server: Server) -> None:
    """It is cancelled as ever, and its call leaves the line."""
    await asyncio.to_thread(server.crash)
    looking = asyncio.ensure_future(session.fleet())
    line = journal_of(session)._line
    await until(lambda: len(line) == 1)
    looking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await looking
    assert len(line) == 0
    await asyncio.to_thread(server.start)


async def test_it_is_said_at_once_and_once(
    session: FineVoiceSession, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Without any call it is logged that the database is away, and that it is back, however many tries it took."""
    caplog.set_level(logging.INFO, logger="finevoice_async")

    def told(words: str) -> int:
        return sum(words in record.getMessage() for record in caplog.records)

    await asyncio.to_thread(server.crash)
    await until(lambda: told("database is away; nothing is sent until it is back"), 2)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(session.fleet(), 0.5)  # a call meets it, too
    assert told("database is back") == 0
    await asyncio.to_thread(server.start)
    await until(lambda: told("database is back"), 5)
    assert (await session.fleet()).sessions == 1
    assert (told("database is away"), told("database is back")) == (1, 1)
