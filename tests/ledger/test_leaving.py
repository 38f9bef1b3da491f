"""What a closing session leaves: nothing is sent any more, what never left was not sent, and the log names the rest."""

from __future__ import annotations

import asyncio
import logging
import socket
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from ledger.helpers import QUEUED, REFUSED, UNKNOWN, Connect, Left, Visit, leave, rows, the_row
from parts import told
from raw_server import Peer, RawServer, Request

from finevoice_async import FineVoiceSession, SessionClosedError, SubmitUnknownError, TaskStatus
from finevoice_async.emulator import Constant, Emulator
from finevoice_async.engine.inflight import MOST_NAMED


class Silent(AbstractResolver):
    """A name server that never answers."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Wait for ever."""
        await asyncio.Event().wait()
        return []

    async def close(self) -> None:
        """Nothing is open."""


def nowhere(http: aiohttp.ClientSession | None, **options: Any) -> FineVoiceSession:
    """Return a session with a service whose name nobody resolves."""
    return FineVoiceSession("a-key-for-tests", base_url="http://service.test", http=http, **options)


@pytest.mark.parametrize("journalled", [False, True])
async def test_closed_while_a_name_is_looked_up(path: Path, no_leaks: object, journalled: bool) -> None:
    """A submission that never had a connection was not sent: it is refused, or stays queued, and is not unknown."""
    options = {"journal": path} if journalled else {}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=Silent())) as http:
        session = nowhere(http, **options)
        submitting = asyncio.create_task(session.submit("rain"))
        kept = await session.enqueue("wind", key="k")
        await asyncio.sleep(1)
        await session.aclose(timeout=2)
    error = await told(submitting)
    assert isinstance(error, SessionClosedError)
    assert (error.paid, "Nothing was sent" in error.message) == (False, True)
    assert kept.status is (TaskStatus.QUEUED if journalled else TaskStatus.FAILED)
    if journalled:
        assert {row.request.prompt: row.state for row in await rows(path)} == {"rain": REFUSED, "wind": QUEUED}


async def test_a_resend_that_was_looking_up_a_name(path: Path, no_leaks: object) -> None:
    """What may be paid for stays so, with its reason, when its resend never left."""
    await leave(path, Left(UNKNOWN, "rain", key="k"))
    before = await the_row(path)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=Silent())) as http:
        session = nowhere(http, journal=path)
        resending = asyncio.create_task(session.resubmit(before, accept_double_charge=True))
        await asyncio.sleep(1)
        await session.aclose(timeout=0)
    error = await told(resending)
    assert isinstance(error, SessionClosedError)
    assert error.paid is None
    after = await the_row(path)
    assert (after.state, after.error) == (before.state, before.error)


async def test_closed_once_it_may_have_left(visit: Visit, path: Path, no_leaks: object) -> None:
    """A submission that was written is unknown, as ever."""

    async def hang(request: Request, peer: Peer) -> None:
        await peer.hang()

    async with RawServer(hang) as server:
        session = visit(server.url, journal=path)
        submitting = asyncio.create_task(session.submit("rain"))
        await asyncio.sleep(1)
        await session.aclose(timeout=0)
    assert isinstance(await told(submitting), SubmitUnknownError)
    assert (await the_row(path)).state is UNKNOWN


# What the log says


async def test_tasks_that_no_journal_keeps(
    connect: Connect, emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """Closed without a journal, a session names the tasks that run on, in one line."""
    emulator.service_time = Constant(100)
    async with connect() as session:
        ids = [(await session.submit(f"sound {number}")).task_id for number in range(3)]
    (said,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "without a journal" in said.message
    assert [each for each in ids if each is not None and each in said.message] == ids
    assert "unanswered" not in said.message


async def test_submissions_that_were_unanswered(visit: Visit, caplog: pytest.LogCaptureFixture) -> None:
    """It counts what may have been paid for; twice closed is as once."""

    async def hang(request: Request, peer: Peer) -> None:
        await peer.hang()

    async with RawServer(hang) as server:
        session = visit(server.url)
        jobs = [asyncio.create_task(session.submit(f"sound {number}")) for number in range(2)]
        await asyncio.sleep(1)
        await session.aclose(timeout=0)
        await session.aclose()
    for job in jobs:
        assert isinstance(await told(job), SubmitUnknownError)
    (said,) = [record.message for record in caplog.records if "without a journal" in record.message]
    assert said.endswith("submissions that were unanswered, and may have been paid for: 2")


@pytest.mark.parametrize("how", ["with a journal", "with nothing running", "never used"])
async def test_nothing_to_say(
    connect: Connect, emulator: Emulator, path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """With a journal, which has the ids, and where nothing runs, there is no such line."""
    session = connect(journal=path if how == "with a journal" else None)
    if how == "with a journal":
        await session.submit("rain")
    elif how == "with nothing running":
        await session.generate("rain")
    await session.aclose()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_the_line_has_an_end(connect: Connect, emulator: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    """Of a crowd of tasks so many are named, and the others counted."""
    emulator.service_time = Constant(1000)
    emulator.plan_limit = None
    async with connect(max_concurrency=MOST_NAMED + 7) as session:
        await asyncio.gather(*[session.submit(f"sound {number}") for number in range(MOST_NAMED + 7)])
    (said,) = [record.message for record in caplog.records if "without a journal" in record.message]
    assert said.endswith("and 7 more")
    assert sum(task_id in said for task_id in emulator.ledger.accepted) == MOST_NAMED
