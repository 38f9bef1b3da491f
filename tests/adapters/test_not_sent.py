"""What certainly never left costs nothing: a failure before the body was asked for is NOT_SENT, a later one LOST."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from raw_server import Peer, RawServer, Request, Script

from finevoice_async.adapters.aiohttp_transport import AiohttpTransport
from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.config import Timeouts
from finevoice_async.core.failures import Failure, FailureKind
from finevoice_async.engine.expiry import Deadlines
from finevoice_async.ports import UnsentCancelledError

KEY = "secret-key-123"
LIMIT = 40.0


class Odd(BaseException):
    """What no library expects; test runners raise such."""


# What the code of a caller may raise. The messages are theirs, and never shown.
RAISED: list[BaseException] = [
    KeyError(KEY),
    RuntimeError(KEY),
    AssertionError(KEY),
    ConnectionResetError(104, "Connection reset by peer"),
    TimeoutError(),
    aiohttp.ServerDisconnectedError(),
    aiohttp.ClientPayloadError(),
    asyncio.CancelledError(),
    StopAsyncIteration(),
    Odd(KEY),
]


async def answer(request: Request, peer: Peer) -> None:
    """Answer at once."""
    peer.answer(200)


async def reset(request: Request, peer: Peer) -> None:
    """Take the request, and reset."""
    await peer.reset()


async def hang(request: Request, peer: Peer) -> None:
    """Take the request, and never answer."""
    await peer.hang()


@asynccontextmanager
async def served(
    script: Script = answer, *, seconds: float = LIMIT, url: str | None = None, **options: Any
) -> AsyncIterator[tuple[AiohttpTransport, RawServer]]:
    """A transport over a session of the caller's, if there are options of one; else over its own."""
    deadlines = Deadlines(seconds, LoopClock())
    async with RawServer(script) as server:
        http = aiohttp.ClientSession(**options) if options else None
        transport = AiohttpTransport(url or server.url, KEY, Timeouts(), http, deadline=deadlines)
        try:
            yield transport, server
        finally:
            await transport.aclose()
            deadlines.close()
            if http is not None:
                await http.close()


async def failure_of(call: Awaitable[Any]) -> Failure:
    """Return the failure that a call ends with, which shows nobody's words and holds nobody's error."""
    with pytest.raises(Failure) as caught:
        await call
    assert KEY not in repr(caught.value) + caught.value.what
    assert caught.value.__context__ is None
    return caught.value


# The caller's own code


def middleware_before(error: BaseException) -> dict[str, Any]:
    """A middleware that fails first."""

    async def middleware(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        raise error

    return {"middlewares": (middleware,)}


def middleware_that_signs(error: BaseException) -> dict[str, Any]:
    """A middleware that reads the body for a signature, and fails."""

    async def middleware(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        assert not isinstance(request.body, bytes)
        assert await request.body.as_bytes() == b"{}"
        raise error

    return {"middlewares": (middleware,)}


def trace(signal: str) -> Callable[[BaseException], dict[str, Any]]:
    """A trace of which one hook fails."""

    def make(error: BaseException) -> dict[str, Any]:
        async def hook(*_: object) -> None:
            raise error

        config = aiohttp.TraceConfig()
        getattr(config, signal).append(hook)
        return {"trace_configs": [config]}

    return make


def request_class(error: BaseException) -> dict[str, Any]:
    """A class of requests that fails."""

    class Broken(aiohttp.ClientRequest):
        def __init__(self, *_: Any, **__: Any) -> None:
            raise error

    return {"request_class": Broken}


BEFORE: dict[str, Callable[[BaseException], dict[str, Any]]] = {
    "middleware": middleware_before,
    "signature": middleware_that_signs,
    "on_request_start": trace("on_request_start"),
    "on_connection_create_start": trace("on_connection_create_start"),
    "on_connection_create_end": trace("on_connection_create_end"),
    "on_request_headers_sent": trace("on_request_headers_sent"),
    "request_class": request_class,
}


@pytest.mark.parametrize("place", BEFORE)
@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
async def test_the_callers_code_fails_before_the_body(no_leaks: object, place: str, error: BaseException) -> None:
    """Whatever the caller's code raises before the body was asked for: nothing was sent, and nobody was cancelled."""
    async with served(**BEFORE[place](error)) as (transport, server):
        failure = await failure_of(transport.post("/v1/x", b"{}"))
        assert failure.kind is FailureKind.NOT_SENT
        if place != "signature":
            assert (await failure_of(transport.get("/v1/y"))).kind is FailureKind.NOT_SENT
        assert server.requests == []


@pytest.mark.parametrize(
    "error", [KeyError(KEY), ConnectionResetError(), TimeoutError()], ids=lambda error: type(error).__name__
)
async def test_a_hook_fails_as_the_body_is_about_to_leave(no_leaks: object, error: BaseException) -> None:
    """The hook for what is sent runs before it is: nothing was."""
    async with served(**trace("on_request_chunk_sent")(error)) as (transport, server):
        assert (await failure_of(transport.post("/v1/x", b"{}"))).kind is FailureKind.NOT_SENT
        assert server.requests == []


async def test_where_the_callers_code_failed_is_said(no_leaks: object) -> None:
    """An error of a middleware's is told with its place, for its own words may hold anything."""
    async with served(**middleware_before(KeyError(KEY))) as (transport, _):
        failure = await failure_of(transport.post("/v1/x", b"{}"))
    assert failure.what.startswith("KeyError at line ")
    assert failure.what.endswith(" of test_not_sent.py")


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
async def test_the_callers_code_fails_after_the_answer(no_leaks: object, error: BaseException) -> None:
    """What fails once the request is out is a loss, whatever it looks like."""

    async def middleware(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        (await handler(request)).close()
        raise error

    for options in ({"middlewares": (middleware,)}, trace("on_request_end")(error)):
        async with served(**options) as (transport, server):
            assert (await failure_of(transport.post("/v1/x", b"{}"))).kind is FailureKind.LOST
            assert (await failure_of(transport.get("/v1/y"))).kind is FailureKind.LOST
            assert server.count("POST") == 1


@pytest.mark.parametrize("script", [reset, hang], ids=["reset", "hang"])
async def test_another_body_in_place_of_ours(no_leaks: object, script: Script) -> None:
    """A middleware that sends a body of its own instead leaves a loss a loss."""

    async def middleware(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        await request.update_body(b'{"mine": 1}')
        return await handler(request)

    async with served(script, middlewares=(middleware,)) as (transport, server):
        assert (await failure_of(transport.post("/v1/x", b"{}"))).kind is FailureKind.LOST
        assert server.requests[0].body == b'{"mine": 1}'


async def test_nothing_is_sent_after_it_was_told(no_leaks: object) -> None:
    """A middleware that goes on after the call's time was up sends nothing any more."""
    jobs: list[asyncio.Task[aiohttp.ClientResponse]] = []

    async def late(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        await asyncio.sleep(LIMIT)
        return await handler(request)

    async def middleware(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        jobs.append(asyncio.ensure_future(late(request, handler)))
        return await asyncio.shield(jobs[-1])

    async with served(seconds=1, middlewares=(middleware,)) as (transport, server):
        assert (await failure_of(transport.post("/v1/x", b"{}"))).kind is FailureKind.NOT_SENT
        await asyncio.wait(jobs)
        assert isinstance(jobs[0].exception(), aiohttp.ClientError)
        assert server.requests == []


async def test_a_cancelled_call_is_cancelled(no_leaks: object) -> None:
    """Who is cancelled hears just that, before and after the body was sent."""
    for script, pause in ((answer, 0), (hang, 1)):
        async with served(script) as (transport, _):
            call = asyncio.ensure_future(transport.post("/v1/x", b"{}"))
            await asyncio.sleep(pause)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call


# The time is up


class SilentResolver(AbstractResolver):
    """A name server that never answers."""

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
        """Hang."""
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]  # it never comes

    async def close(self) -> None:
        """Nothing is open."""


async def test_a_silent_name_server(no_leaks: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call's time is up while a name is looked up."""

    async def getaddrinfo(*_: object, **__: object) -> Any:
        return await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    monkeypatch.setattr("aiohttp.connector.DefaultResolver", aiohttp.ThreadedResolver)
    sessions: list[dict[str, Any]] = [{}, {"connector": aiohttp.TCPConnector(resolver=SilentResolver())}]
    for options in sessions:
        async with served(url="http://service.test", **options) as (transport, _):
            for call in (transport.post("/v1/x", b"{}"), transport.get("/v1/y")):
                began = asyncio.get_running_loop().time()
                failure = await failure_of(call)
                assert failure.kind is FailureKind.NOT_SENT
                assert asyncio.get_running_loop().time() - began == pytest.approx(LIMIT)


async def test_cancelled_before_anything_was_sent(no_leaks: object) -> None:
    """Who cancels a call learns whether anything of it may have left; a call that asks is just cancelled."""
    connector = aiohttp.TCPConnector(resolver=SilentResolver())
    async with served(url="http://service.test", connector=connector) as (transport, server):
        for call, kind in (
            (transport.post("/v1/x", b"{}"), UnsentCancelledError),
            (transport.get("/v1/y"), asyncio.CancelledError),
        ):
            job = asyncio.ensure_future(call)
            await asyncio.sleep(1)
            job.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await job
            assert job.cancelled()
            assert type(caught.value) is kind
        assert server.requests == []
    async with served(hang) as (transport, server):
        job = asyncio.ensure_future(transport.post("/v1/x", b"{}"))
        await asyncio.sleep(1)
        job.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await job
        assert type(caught.value) is asyncio.CancelledError
        assert server.count("POST") == 1


@pytest.mark.real_time
async def test_a_full_executor(no_leaks: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call's time is up before a thread is free to look a name up."""
    monkeypatch.setattr("aiohttp.connector.DefaultResolver", aiohttp.ThreadedResolver)
    go_on = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        executor.submit(go_on.wait)
        asyncio.get_running_loop().set_default_executor(executor)
        try:
            async with served(url="http://service.test", seconds=0.02) as (transport, _):
                assert (await failure_of(transport.post("/v1/x", b"{}"))).kind is FailureKind.NOT_SENT
                assert (await failure_of(transport.get("/v1/y"))).kind is FailureKind.NOT_SENT
        finally:
            go_on.set()


async def test_an_executor_that_was_shut_down(no_leaks: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread can be had at all."""
    monkeypatch.setattr("aiohttp.connector.DefaultResolver", aiohttp.ThreadedResolver)
    executor = concurrent.futures.ThreadPoolExecutor(1)
    executor.shutdown()
    asyncio.get_running_loop().set_default_executor(executor)
    async with served(url="http://service.test") as (transport, _):
        assert (await failure_of(transport.post("/v1/x", b"{}"))).kind is FailureKind.NOT_SENT
        assert (await failure_of(transport.get("/v1/y"))).kind is FailureKind.NOT_SENT


async def test_no_free_connection(no_leaks: object) -> None:
    """The call's time is up while others have all connections: those are lost, this one was not sent."""
    async with served(hang, connector=aiohttp.TCPConnector(limit=1)) as (transport, server):
        others = [asyncio.ensure_future(failure_of(transport.post("/v1/x", b"{}"))) for _ in range(3)]
        kinds = [(await other).kind for other in others]
        assert sorted(kind.name for kind in kinds) == ["LOST", "NOT_SENT", "NOT_SENT"]
        assert server.count("POST") == 1


async def test_a_handshake_that_hangs(no_leaks: object) -> None:
    """The server takes the connection, and says nothing to TLS: neither limit is a loss."""
    for seconds in (1.0, LIMIT):
        async with served(hang, seconds=seconds) as (_, server):
            deadlines = Deadlines(seconds, LoopClock())
            transport = AiohttpTransport(
                server.url.replace("http", "https"), KEY, Timeouts(connect=5), deadline=deadlines
            )
            assert (await failure_of(transport.post("/v1/x", b"{}"))).kind is FailureKind.NOT_SENT
            assert (await failure_of(transport.get("/v1/y"))).kind is FailureKind.NOT_SENT
            await transport.aclose()
            deadlines.close()


async def test_a_silent_service_is_a_loss(no_leaks: object) -> None:
    """The call's time is up once the request is out."""
    sessions: list[dict[str, Any]] = [{}, {"read_bufsize": 1024}]
    for options in sessions:
        async with served(hang, **options) as (transport, _):
            assert (await failure_of(transport.post("/v1/x", b"{}"))).kind is FailureKind.LOST
            assert (await failure_of(transport.get("/v1/y"))).kind is FailureKind.LOST


# A session of the caller's that raises for statuses


async def refuse(response: aiohttp.ClientResponse) -> None:
    """Raise for any status, as a caller's own function may."""
    raise KeyError(response.status)


@pytest.mark.parametrize("status", [401, 402, 422, 429, 503])
@pytest.mark.parametrize("option", [True, refuse], ids=["True", "a function"])
async def test_a_session_that_raises_for_statuses(no_leaks: object, status: int, option: Any) -> None:
    """Statuses are ours to judge, with the body and headers that come with them."""

    async def script(request: Request, peer: Peer) -> None:
        peer.answer(status, b'{"code": "7"}', Retry_After="3")

    async with served(script, raise_for_status=option) as (transport, _):
        for reply in (await transport.post("/v1/x", b"{}"), await transport.get("/v1/y")):
            assert (reply.status, reply.body) == (status, b'{"code": "7"}')
            assert reply.headers["retry-after"] == "3"
