"""The bodies of replies: what came is never lost, and no reply is read without end."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import aiohttp
import pytest
from aiohttp.base_protocol import BaseProtocol
from raw_server import Peer, RawServer, Request, Script

from finevoice_async.adapters.aiohttp_transport import MAX_ACCEPTED, MAX_REPLY, AiohttpTransport, _read
from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.config import Timeouts
from finevoice_async.core.failures import Failure, FailureKind
from finevoice_async.core.wire import Reply, find_task_id
from finevoice_async.engine.expiry import Deadlines

LIMIT = 40.0
HEAD = b"HTTP/1.1 200 OK\r\n"
SIZED = HEAD + b"Content-Length: 90\r\n\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
PART = b'{"taskId": "p1-a", "url": "https://cd'
CHUNK = b"25\r\n" + PART + b"\r\n"


@asynccontextmanager
async def served(script: Script) -> AsyncIterator[tuple[AiohttpTransport, RawServer]]:
    """A transport, whose calls have 40 s each, to a server with this script."""
    deadlines = Deadlines(LIMIT, LoopClock())
    async with RawServer(script) as server:
        transport = AiohttpTransport(server.url, "secret-key-123", Timeouts(), deadline=deadlines)
        try:
            yield transport, server
        finally:
            await transport.aclose()
            deadlines.close()


async def call(script: Script, method: str = "POST") -> Reply:
    """Call once, and return the reply."""
    async with served(script) as (transport, _):
        return await (transport.post("/v1/x", b"{}") if method == "POST" else transport.get("/v1/x"))


def answers(status: int, body: bytes, **headers: str) -> Script:
    """Make a script of one ordinary answer."""

    async def script(request: Request, peer: Peer) -> None:
        peer.answer(status, body, **headers)

    return script


End = Callable[[Peer], Awaitable[None]]


async def close(peer: Peer) -> None:
    """End the connection."""
    await peer.close()


async def reset(peer: Peer) -> None:
    """Reset the connection, after what was sent has arrived: a reset overtakes it."""
    await peer.writer.drain()
    await asyncio.sleep(0.1)
    await peer.reset()


async def hang(peer: Peer) -> None:
    """Send nothing more."""
    await peer.hang()


BREAKS: dict[str, tuple[bytes, bytes, End]] = {
    "shorter than its length": (SIZED, PART, close),
    "reset": (SIZED, PART, reset),
    "hangs": (SIZED, PART, hang),
    "no last chunk": (CHUNKED, CHUNK, close),
    "a chunk cut": (CHUNKED, b"99\r\n" + PART, close),
    "hangs in chunks": (CHUNKED, CHUNK, hang),
    "a bad chunk": (CHUNKED, CHUNK + b"no size\r\n", hang),
}
CASES = [(name, wait) for name in BREAKS for wait in (0, 1) if (name, wait) != ("a bad chunk", 0)]


@pytest.mark.parametrize(("name", "wait"), CASES)
async def test_an_answer_that_breaks_off_keeps_what_came(no_leaks: object, name: str, wait: float) -> None:
    """Once there are headers, a broken body is a reply that is not whole, with every byte that came before."""
    head, body, end = BREAKS[name]

    async def script(request: Request, peer: Peer) -> None:
        if wait:
            peer.send(head)
            await asyncio.sleep(wait)
            peer.send(body)
        else:
            peer.send(head + body)
        await end(peer)

    async with served(script) as (transport, _):
        for reply in (await transport.post("/v1/x", b"{}"), await transport.get("/v1/x")):
            assert (reply.status, reply.body, reply.whole) == (200, PART, False)
            assert find_task_id(reply.body) == "p1-a"


@pytest.mark.parametrize("answer", [b"", HEAD, HEAD + b"Content-Length: 5\r\n"])
@pytest.mark.parametrize("end", [close, hang])
async def test_without_headers_nothing_came(no_leaks: object, answer: bytes, end: End) -> None:
    """Where the connection closes or the time is up before the headers are whole, the reply is lost."""

    async def script(request: Request, peer: Peer) -> None:
        peer.send(answer)
        await end(peer)

    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(Failure) as caught:
        await call(script)
    assert caught.value.kind is FailureKind.LOST
    assert caught.value.__context__ is None
    assert loop.time() - began == pytest.approx(LIMIT if end is hang else 0, abs=0.1)


async def test_a_bad_chunk_in_one_piece_with_the_headers(no_leaks: object) -> None:
    """That reply is lost: aiohttp throws away what its parser had read before it failed."""
    head, body, end = BREAKS["a bad chunk"]

    async def script(request: Request, peer: Peer) -> None:
        peer.send(head + body)
        await end(peer)

    with pytest.raises(Failure) as caught:
        await call(script)
    assert caught.value.kind is FailureKind.LOST


async def test_what_came_before_a_slow_hook_of_the_callers_is_kept(no_leaks: object) -> None:
    """If the body has broken off before anybody looks at it, aiohttp's error does not hide what came."""

    async def script(request: Request, peer: Peer) -> None:
        peer.send(SIZED + PART)
        await peer.close()

    async def dawdle(*_: object) -> None:
        await asyncio.sleep(1)

    tracing = aiohttp.TraceConfig()
    tracing.on_request_end.append(dawdle)
    async with RawServer(script) as server, aiohttp.ClientSession(trace_configs=[tracing]) as http:
        transport = AiohttpTransport(server.url, "secret-key-123", Timeouts(), http, deadline=nullcontext())
        reply = await transport.post("/v1/x", b"{}")
        assert (reply.status, reply.body, reply.whole) == (200, PART, False)


async def test_what_comes_in_the_step_of_a_timeout_is_kept(no_leaks: object) -> None:
    """A piece that arrives in the very step in which the call's time is up is read, too."""
    loop = asyncio.get_running_loop()
    stream = aiohttp.StreamReader(BaseProtocol(loop), 2**16, loop=loop)
    stream._protocol.transport = asyncio.Transport()
    response: Any = SimpleNamespace(content=stream)
    came = bytearray()
    reading = asyncio.ensure_future(_read(response, 100, came))
    await asyncio.sleep(0)
    stream.feed_data(PART)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert came == PART


async def test_a_connection_that_somebody_else_closed(no_leaks: object) -> None:
    """The complaint about that, which is no client error of aiohttp's, costs nothing of what came either."""
    stream = aiohttp.StreamReader(BaseProtocol(asyncio.get_running_loop()), 2**16)
    stream.feed_data(PART)
    response = SimpleNamespace(status=200, headers={}, content=stream, closed=True)
    http: Any = SimpleNamespace(closed=False, request=AsyncMock(return_value=response))
    transport = AiohttpTransport("http://x", "secret-key-123", Timeouts(), http, deadline=nullcontext())
    assert await transport.post("/v1/x", b"{}") == (200, {}, PART, False)


async def test_a_whole_answer_that_somebody_else_closed(no_leaks: object) -> None:
    """A small answer that came whole, and that the caller's own code has closed since, keeps every byte."""

    async def closing(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        response = await handler(request)
        response.close()
        assert response.content.is_eof()
        assert response.content.exception() is not None
        return response

    async with RawServer(answers(200, PART)) as server, aiohttp.ClientSession(middlewares=[closing]) as http:
        transport = AiohttpTransport(server.url, "secret-key-123", Timeouts(), http, deadline=nullcontext())
        for reply in (await transport.post("/v1/x", b"{}"), await transport.get("/v1/x")):
            assert (reply.status, reply.body) == (200, PART)


async def test_a_trickle_is_ended_by_the_calls_time(no_leaks: object) -> None:
    """A body of which a byte comes now and then ends with the call's time, and the next call has its own."""

    async def script(request: Request, peer: Peer) -> None:
        peer.send(HEAD + b"Content-Length: 900\r\n\r\n")
        for _ in range(900):
            peer.send(b"x")
            await asyncio.sleep(1)

    async with served(script) as (transport, _):
        for _ in range(2):
            reply = await transport.get("/v1/x")
            assert (set(reply.body), reply.whole) == ({ord("x")}, False)
            assert LIMIT <= len(reply.body) <= LIMIT + 1


@pytest.mark.parametrize(
    ("method", "status", "cap"),
    [
        ("POST", 200, MAX_ACCEPTED),
        ("POST", 202, MAX_ACCEPTED),
        ("POST", 422, MAX_REPLY),
        ("POST", 500, MAX_REPLY),
        ("POST", 307, MAX_REPLY),
        ("GET", 200, MAX_REPLY),
        ("GET", 404, MAX_REPLY),
    ],
)
async def test_a_long_reply_is_cut(no_leaks: object, method: str, status: int, cap: int) -> None:
    """What was paid for is read much further than anything else; a longer reply is cut, and its status counts."""
    for more in (0, 1, 100_000):
        reply = await call(answers(status, b"x" * (cap + more)), method)
        assert (reply.status, len(reply.body), reply.whole) == (status, cap, more == 0)


async def test_an_id_after_megabytes_is_read(no_leaks: object) -> None:
    """A synchronous answer may carry its audio before its id."""
    answer = json.dumps({"audio": "A" * 20_000_000, "taskId": "p1-a"}).encode()
    reply = await call(answers(200, answer))
    assert reply.whole
    assert reply.body == answer


async def test_an_endless_reply_is_cut(no_leaks: object) -> None:
    """A reply without a length that does not end is given up at the cap, and its connection is not used again."""

    async def script(request: Request, peer: Peer) -> None:
        peer.send(HEAD + b"\r\n")
        while not peer.writer.is_closing():
            peer.send(b"x" * 65536)
            await peer.writer.drain()

    async with served(script) as (transport, server):
        for _ in range(2):
            reply = await transport.get("/v1/x")
            assert (len(reply.body), reply.whole) == (MAX_REPLY, False)
        assert server.connections == 2


async def test_compressed_replies(no_leaks: object) -> None:
    """The cap counts what a body unpacks to; one that cannot be unpacked is a reply with a status all the same."""
    bomb = gzip.compress(b"x" * (50 * MAX_REPLY))
    reply = await call(answers(200, bomb, Content_Encoding="gzip"), "GET")
    assert (len(reply.body), reply.whole) == (MAX_REPLY, False)
    small = gzip.compress(b'{"taskId": "p1-a"}')
    reply = await call(answers(200, small, Content_Encoding="gzip"))
    assert (reply.body, reply.whole) == (b'{"taskId": "p1-a"}', True)
    for damaged in (small[:10] + b"\xff" * 90, b"rubbish" * 90):
        reply = await call(answers(200, damaged, Content_Encoding="gzip"))
        assert (reply.status, reply.whole) == (200, False)


async def test_a_session_that_unpacks_much_at_once(no_leaks: object) -> None:
    """The cap holds, too, where the caller's session has read all by the time of the headers."""
    bomb = gzip.compress(b"x" * (2 * MAX_REPLY))
    script = answers(200, bomb, Content_Encoding="gzip")
    async with RawServer(script) as server, aiohttp.ClientSession(read_bufsize=8 * MAX_REPLY) as http:
        transport = AiohttpTransport(server.url, "secret-key-123", Timeouts(), http, deadline=nullcontext())
        reply = await transport.get("/v1/x")
        assert (len(reply.body), reply.whole) == (MAX_REPLY, False)


async def test_a_cancelled_call_stays_cancelled(no_leaks: object) -> None:
    """Whoever cancels a call in the middle of a body hears of the cancellation."""

    async def script(request: Request, peer: Peer) -> None:
        peer.send(SIZED + PART)
        await peer.hang()

    async with served(script) as (transport, _):
        call = asyncio.ensure_future(transport.post("/v1/x", b"{}"))
        await asyncio.sleep(1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_connections_are_kept(no_leaks: object) -> None:
    """One connection serves calls that come one after another."""
    async with served(answers(200, b"{}")) as (transport, server):
        for _ in range(5):
            assert (await transport.post("/v1/x", b"{}")).whole
        assert server.connections == 1
