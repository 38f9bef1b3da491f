"""The fetcher alone: where it goes, and what it makes of aiohttp's errors. Whole downloads are tested elsewhere."""

from __future__ import annotations

import asyncio

import pytest
from raw_server import Peer, RawServer, Request

from finevoice_async.adapters.aiohttp_fetcher import AiohttpFetcher
from finevoice_async.config import Timeouts
from finevoice_async.core.failures import Failure, FailureKind


@pytest.mark.parametrize(
    ("url", "local", "kind"),
    [
        ("http://127.0.0.1:1/a.mp3", False, FailureKind.INVALID),
        ("http://localhost:1/a.mp3", False, FailureKind.INVALID),
        ("http://127.0.0.1:1/a.mp3", True, FailureKind.NOT_SENT),
        ("file:///etc/passwd", True, FailureKind.INVALID),
        ("nonsense", True, FailureKind.INVALID),
    ],
)
async def test_links_that_lead_nowhere(no_leaks: object, url: str, local: bool, kind: FailureKind) -> None:
    """A private address and what is no address are refused; elsewhere it is the connection that fails."""
    fetcher = AiohttpFetcher(Timeouts(), local=local)
    with pytest.raises(Failure) as caught:
        async with fetcher.get(url, {}):
            pass
    assert caught.value.kind is kind
    assert caught.value.__context__ is None
    await fetcher.aclose()
    with pytest.raises(Failure) as caught:
        async with fetcher.get(url, {}):
            pass
    assert caught.value.kind is FailureKind.NOT_SENT


async def test_a_download_that_breaks_off(no_leaks: object) -> None:
    """What came is given before the failure, which has nothing of aiohttp's behind it; no key was sent."""

    async def script(request: Request, peer: Peer) -> None:
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\nRIFF")
        await asyncio.sleep(1)
        await peer.close()

    async with RawServer(script) as server:
        fetcher = AiohttpFetcher(Timeouts(), local=True)
        async with fetcher.get(server.url + "/a.mp3", {"Range": "bytes=0-"}) as body:
            assert (body.status, body.headers["content-length"]) == (200, "90")
            pieces = body.pieces()
            assert await anext(pieces) == b"RIFF"
            with pytest.raises(Failure) as caught:
                await anext(pieces)
        assert caught.value.kind is FailureKind.LOST
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
        [request] = server.requests
        assert request.headers["range"] == "bytes=0-"
        assert {"authorization", "cookie"}.isdisjoint(request.headers)
        await fetcher.aclose()
        await fetcher.aclose()
