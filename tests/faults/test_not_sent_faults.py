"""A session whose submissions do not leave: they cost nothing, are tried again, and nobody is asked to settle them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from raw_server import Peer, RawServer, Request

from finevoice_async import (
    AuthenticationError,
    FineVoiceError,
    FineVoiceSession,
    InsufficientCreditsError,
    RateLimitError,
    RequestRejectedError,
    SubmitNotSentError,
)

Visit = Callable[..., FineVoiceSession]
Unseen = Callable[..., None]
DONE = json.dumps({"status": "completed", "url": "http://127.0.0.1:9/x.wav"}).encode()


async def done(request: Request, peer: Peer) -> None:
    """Answer with a result, or say that a task goes on."""
    peer.answer(200, DONE)


class Stumbling:
    """A middleware that fails some times, then lets calls pass."""

    def __init__(self, error: BaseException, times: int) -> None:
        self.error = error
        self.times = times

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Fail, or pass on."""
        self.times -= 1
        if self.times >= 0:
            raise self.error
        return await handler(request)


ERRORS = [
    KeyError("x"),
    asyncio.CancelledError(),
    TimeoutError(),
    aiohttp.ClientError(),
    RuntimeError("Session is closed"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_a_callers_middleware_stumbles(visit: Visit, unseen: Unseen, error: BaseException) -> None:
    """Where the caller's own code fails before anything is sent, the submission is tried again and made once."""
    middleware = Stumbling(error, 2)
    async with (
        RawServer(done) as server,
        aiohttp.ClientSession(middlewares=(middleware,)) as http,
        visit(server.url, http=http) as session,
    ):
        assert (await session.generate("rain")).url
        assert server.count("POST") == 1
        unseen(session)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_a_callers_middleware_always_fails(visit: Visit, unseen: Unseen, error: BaseException) -> None:
    """In the end it is told that nothing was sent, not that nobody knows."""
    middleware = Stumbling(error, 1_000_000)
    async with (
        RawServer(done) as server,
        aiohttp.ClientSession(middlewares=(middleware,)) as http,
        visit(server.url, http=http) as session,
    ):
        with pytest.raises(SubmitNotSentError, match="The service was not reached") as caught:
            await session.submit("rain")
        unseen(caught.value)
        assert server.requests == []


async def test_a_poll_that_is_cancelled_by_itself(visit: Visit) -> None:
    """A `CancelledError` that comes out of the caller's code stops no poller: the task goes on to its end."""
    task = b'{"task_id": "p1-a", "status": "processing"}'
    middleware = Stumbling(asyncio.CancelledError(), 0)

    async def script(request: Request, peer: Peer) -> None:
        if request.method == "POST":
            middleware.times = 3
        peer.answer(200, task if request.method == "POST" else DONE)

    async with (
        RawServer(script) as server,
        aiohttp.ClientSession(middlewares=(middleware,)) as http,
        visit(server.url, http=http) as session,
    ):
        assert (await session.generate("rain")).task_id == "p1-a"


@pytest.mark.parametrize("callers", [False, True], ids=["our session", "the caller's"])
async def test_a_name_server_that_is_silent_for_a_while(
    visit: Visit, monkeypatch: pytest.MonkeyPatch, callers: bool
) -> None:
    """A submission whose time is up before there is an address is made as soon as there is one, once."""
    loop = asyncio.get_running_loop()
    real = loop.getaddrinfo

    async def getaddrinfo(host: str, port: int, **options: Any) -> Any:
        await asyncio.sleep(25)  # more than two calls have
        return await real("127.0.0.1", port, **options)

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr("aiohttp.connector.DefaultResolver", aiohttp.ThreadedResolver)
    options: dict[str, Any] = {"http": aiohttp.ClientSession()} if callers else {}
    async with RawServer(done) as server:
        async with visit(server.url.replace("127.0.0.1", "service.test"), **options) as session:
            assert (await session.generate("rain")).url
            assert server.count("POST") == 1
        if callers:
            await options["http"].close()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, AuthenticationError),
        (402, InsufficientCreditsError),
        (422, RequestRejectedError),
        (429, RateLimitError),
    ],
)
async def test_a_session_that_raises_for_statuses(visit: Visit, status: int, kind: type[FineVoiceError]) -> None:
    """With a session of the caller's that raises by itself, a refusal is what it is for any other."""

    async def script(request: Request, peer: Peer) -> None:
        peer.answer(status, b'{"error": {"code": "7", "message": "no"}}')

    async def refuse(response: aiohttp.ClientResponse) -> None:
        response.raise_for_status()

    for option in (True, refuse):
        async with (
            RawServer(script) as server,
            aiohttp.ClientSession(raise_for_status=option) as http,
            visit(server.url, http=http) as session,
        ):
            with pytest.raises(kind) as caught:
                await session.submit("rain")
            assert (caught.value.status, caught.value.code) == (status, "7")
