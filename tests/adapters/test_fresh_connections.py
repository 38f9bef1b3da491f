"""POSTs and idle connections: none is lost because a server closed one that had been idle."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import nullcontext

import aiohttp
import pytest
from parts import turns
from raw_server import Peer, RawServer, Request
from thread_server import ThreadServer
from virtual_time import VirtualTimeLoop

from finevoice_async.adapters.aiohttp_transport import AiohttpTransport
from finevoice_async.adapters.fresh_connector import FRESH, FreshConnector
from finevoice_async.config import Timeouts
from finevoice_async.core.failures import Failure, FailureKind

KEY = "secret-key-123"


def make(url: str, http: aiohttp.ClientSession | None = None) -> AiohttpTransport:
    """Make a transport without a time limit."""
    return AiohttpTransport(url, KEY, Timeouts(), http, deadline=nullcontext())


async def post(transport: AiohttpTransport) -> str:
    """Post once, and say what became of it."""
    try:
        await transport.post("/v1/x", b"{}")
    except Failure as failure:
        return failure.kind.name
    return "answered"


async def answer(request: Request, peer: Peer) -> None:
    """Answer at once."""
    peer.answer(200)


@pytest.mark.parametrize("idle", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("asks", [False, True], ids=["after a POST", "after a poll"])
async def test_a_server_closes_idle_connections_as_a_post_starts(no_leaks: object, idle: float, asks: bool) -> None:
    """Of 300 POSTs that start in the very turns in which the server closes what was idle, none is in doubt."""

    async def script(request: Request, peer: Peer) -> None:
        peer.answer(200)
        asyncio.get_running_loop().call_later(idle, peer.writer.close)

    told = Counter[str]()
    async with RawServer(script) as server:
        transport = make(server.url)
        for number in range(300):
            await (transport.get("/v1/y") if asks else transport.post("/v1/x", b"{}"))
            await asyncio.sleep(idle)
            await turns(number % 6)
            told[await post(transport)] += 1
        await transport.aclose()
    assert told == {"answered": 300}


async def test_a_post_takes_what_was_used_a_moment_ago(no_leaks: object) -> None:
    """Right after an answer its connection is taken again; after a pause a poll takes it, and a POST does not."""
    async with RawServer(answer) as server:
        transport = make(server.url)
        await transport.get("/v1/y")
        await asyncio.sleep(FRESH / 2)
        await transport.post("/v1/x", b"{}")
        assert server.connections == 1
        await asyncio.sleep(2 * FRESH)
        await transport.get("/v1/y")
        assert server.connections == 1
        await asyncio.sleep(2 * FRESH)
        await transport.post("/v1/x", b"{}")
        assert server.connections == 2
        await transport.aclose()


async def test_old_connections_are_closed_one_by_one(no_leaks: object) -> None:
    """A POST closes the idle ones that it meets, and is answered on a new one; what was closed is not remembered."""
    async with RawServer(answer) as server:
        transport = make(server.url)
        await asyncio.gather(*(transport.get("/v1/y") for _ in range(5)))
        await asyncio.sleep(1)
        await transport.post("/v1/x", b"{}")
        assert server.connections == 6
        assert transport._own is not None
        assert isinstance(transport._own.connector, FreshConnector)
        assert [len(idle) for idle in transport._own.connector._conns.values()] == [1]
        await transport.aclose()


@pytest.mark.parametrize("callers", [False, True], ids=["our session", "the caller's"])
@pytest.mark.parametrize("before", [0, 1, 2])
async def test_a_blocked_loop_knows_what_was_closed_meanwhile(no_leaks: object, callers: bool, before: int) -> None:
    """After a loop was blocked for longer than the server's patience, the first POST is answered."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    with ThreadServer() as server:
        http = aiohttp.ClientSession() if callers else None
        transport = make(server.url, http)
        await asyncio.gather(*(transport.get("/v1/y") for _ in range(3)))
        for _ in range(10):
            await transport.post("/v1/x", b"{}")
            await turns(before)
            server.close_idle()  # while nothing else runs here
            loop.jump(1)
        posts = server.posts
        assert await post(transport) == "answered"
        assert server.posts == posts + 1
        await transport.aclose()
        if http is not None:
            await http.close()


async def test_closed_within_a_moment(no_leaks: object) -> None:
    """Where a server closes a connection right after its answer, and the loop is blocked, nothing is in doubt."""
    told = Counter[str]()
    with ThreadServer() as server:
        transport = make(server.url)
        for number in range(60):
            told[await post(transport)] += 1
            await turns(number % 3)
            server.close_idle()
        await transport.aclose()
        assert told["answered"] == server.posts
    assert set(told) <= {"answered", FailureKind.NOT_SENT.name}
