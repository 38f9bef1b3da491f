"""Opening a fleet's journal while its database is down, starts, or crashes in that very moment."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from conftest import open_sockets
from databases import Databases, Server
from fleets import Member, until

from finevoice_async.adapters.postgres import journal as postgres_journal
from finevoice_async.adapters.postgres import schema
from finevoice_async.adapters.postgres.membership import Membership
from finevoice_async.errors import JournalError

pytestmark = pytest.mark.real_time


@pytest.fixture
async def crashable(server: Server, no_leaks: object) -> str:
    """A database with the schema, on a server that may be crashed."""
    return Databases(server.url).take()


@pytest.fixture(params=["reading the schema", "joining", "the first sign of life"])
def crash(request: pytest.FixtureRequest, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the server crash once, at one of the steps of opening."""
    owner: Any
    owner, name = {
        "reading the schema": (schema, "check"),
        "joining": (Membership, "open"),
        "the first sign of life": (Member, "_sweep"),
    }[request.param]
    step, crashes = getattr(owner, name), iter([True])

    async def with_crash(*arguments: Any) -> Any:
        if next(crashes, False):
            await asyncio.to_thread(server.crash)
        return await step(*arguments)

    monkeypatch.setattr(owner, name, with_crash)


async def open_and_close(url: str) -> float:
    """Open a journal, use it, close it; return how long the opening took."""
    member = Member(url)
    began = time.monotonic()
    await member.open()
    took = time.monotonic() - began
    assert (await member.wish("k")).key == "k"
    await member.aclose()
    return took


async def test_a_database_that_is_down(crashable: str, server: Server) -> None:
    """An error at once, which says so, without the password; opened again once it is up, it works."""
    secret = crashable.replace("finevoice@", "finevoice:hunter2@")
    await asyncio.to_thread(server.crash)
    member = Member(secret)
    began = time.monotonic()
    with pytest.raises(JournalError, match=r"cannot be opened: .*refused") as caught:
        await member.open()
    assert time.monotonic() - began < 3.0
    assert isinstance(caught.value.__cause__, psycopg.OperationalError)
    assert "hunter2" not in str(caught.value) + repr(caught.value.__cause__)
    await asyncio.to_thread(server.start)
    await member.open()
    assert (await member.wish("k")).key == "k"
    await member.aclose()


async def test_a_crash_meanwhile(crashable: str, server: Server, crash: None) -> None:
    """Whoever opens it in that moment waits until it is back, and is in the fleet once."""
    opening = asyncio.create_task(open_and_close(crashable))
    await asyncio.sleep(0.3)
    await asyncio.to_thread(server.start)
    assert await opening < postgres_journal.OPEN_PATIENCE


async def test_a_crash_that_lasts(crashable: str, server: Server, crash: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not come back in time is an error, and nothing is left open; later it may be tried again."""
    monkeypatch.setattr(postgres_journal, "OPEN_PATIENCE", 0.3)
    member = Member(crashable)
    with pytest.raises(JournalError, match="cannot be opened"):
        await member.open()
    with pytest.raises(JournalError, match="it is not open"):
        await member.load("x")
    monkeypatch.undo()
    await asyncio.to_thread(server.start)
    await member.open()
    assert (await member.wish("k")).key == "k"
    await member.aclose()


class Refusing:
    """A server that refuses everybody, and says why."""

    def __init__(self) -> None:
        self.code, self.words = "57P03", ""
        self.told: list[float] = []  # when

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Refuse one."""
        while not await self._begins(reader):
            writer.write(b"N")  # no encryption
        self.told.append(time.monotonic())
        fields = f"SFATAL\0VFATAL\0C{self.code}\0M{self.words}\0\0".encode()
        writer.write(b"E" + (len(fields) + 4).to_bytes(4) + fields)
        writer.close()
        await writer.wait_closed()

    async def _begins(self, reader: asyncio.StreamReader) -> bool:
        length = int.from_bytes(await reader.readexactly(4))
        kind = int.from_bytes((await reader.readexactly(length - 4))[:4])
        return kind not in (80877103, 80877104)


@pytest.mark.parametrize(
    ("code", "words", "is_asked_again"),
    [
        ("57P03", "the database system is starting up", True),
        ("57P03", "the database system is in recovery mode", True),
        ("57P03", "the database system is not yet accepting connections", True),
        ("57P03", "the database system is shutting down", True),
        ("28P01", "password authentication failed for user", False),
        ("3D000", "database does not exist", False),
    ],
)
async def test_a_server_that_refuses(
    no_leaks: object, monkeypatch: pytest.MonkeyPatch, code: str, words: str, is_asked_again: bool
) -> None:
    """One that starts is asked again for a while; what will not change is told at once; and both in its own words."""
    monkeypatch.setattr(postgres_journal, "OPEN_PATIENCE", 0.5)
    refusing = Refusing()
    refusing.code, refusing.words = code, words
    async with await asyncio.start_server(refusing.serve, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        with pytest.raises(JournalError, match=words):
            await Member(f"postgresql://x:hunter2@127.0.0.1:{port}/d?sslmode=disable").open()
    assert (len(refusing.told) > 2) is is_asked_again
    assert refusing.told[-1] - refusing.told[0] < 3.0


class Silent(str):
    """The URL of a server that takes connections, and answers nothing."""

    __slots__ = ("peers",)
    peers: list[asyncio.StreamWriter]


@pytest.fixture
async def silent() -> AsyncIterator[Silent]:
    """Such a server, and the connections that it has taken."""
    peers: list[asyncio.StreamWriter] = []

    def keep(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.append(writer)

    async with await asyncio.start_server(keep, "127.0.0.1", 0) as listening:
        url = Silent(f"postgresql://x:hunter2@127.0.0.1:{listening.sockets[0].getsockname()[1]}/d")
        url.peers = peers
        yield url
        for writer in peers:
            writer.close()


async def test_a_cancelled_opening(silent: Silent) -> None:
    """Its connection, half made, is closed by then, whoever keeps the task and its error."""
    gc.disable()
    try:
        before = open_sockets()
        member = Member(silent)
        opening = asyncio.create_task(member.open())
        await until(lambda: open_sockets() == before + 2)  # both ends
        opening.cancel()
        with pytest.raises(asyncio.CancelledError) as kept:
            await opening
        assert open_sockets() == before + 1
        assert kept.value is not None
    finally:
        gc.enable()


async def test_closing_while_a_connection_is_made_anew(
    crashable: str, server: Server, silent: Silent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that closes while its database is away leaves no connection half made."""
    monkeypatch.setattr(postgres_journal, "CLOSE_TIMEOUT", 0.1)
    before = open_sockets()
    member = Member(crashable)
    await member.open()
    member._line._url = member._membership._url = silent
    gc.disable()
    try:
        await asyncio.to_thread(server.crash)
        reading = asyncio.ensure_future(member.load("x"))
        await until(lambda: silent.peers)  # one of its connections is half made, or both
        with pytest.raises(JournalError, match="no answer in time"):
            await member.aclose()
        assert open_sockets() == before + len(silent.peers), "theirs alone"
        with pytest.raises(JournalError, match="may have been written or not"):
            await reading
    finally:
        gc.enable()
        await asyncio.to_thread(server.start)
