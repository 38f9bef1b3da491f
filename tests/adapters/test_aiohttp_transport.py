"""The transport alone: what it sends, what it makes of aiohttp's errors."""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import client_exceptions
from aiohttp.client_reqrep import ConnectionKey
from aioresponses import aioresponses
from raw_server import Peer, RawServer, Request, Script
from yarl import URL

from finevoice_async.adapters.aiohttp_fetcher import AiohttpFetcher
from finevoice_async.adapters.aiohttp_transport import MAX_ACCEPTED, MAX_REPLY, AiohttpTransport, translate, words
from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.config import Timeouts
from finevoice_async.core.failures import Failure, FailureKind
from finevoice_async.core.wire import find_task_id
from finevoice_async.engine.expiry import Deadlines
from finevoice_async.errors import ConfigurationError

BASE = "https://service.example"
KEY = "secret-key-123"

_REQUEST: Any = SimpleNamespace(real_url=URL(BASE), headers={"Authorization": f"Bearer {KEY}"})
_PLACE: Any = ConnectionKey("service.example", 443, True, True, None, None, None)
_OS = OSError(111, "Connection refused")

# One instance of every error that aiohttp's client raises; most hold the request's headers.
MADE: dict[str, Exception] = {
    "ClientConnectorError": aiohttp.ClientConnectorError(_PLACE, _OS),
    "ClientConnectorDNSError": aiohttp.ClientConnectorDNSError(_PLACE, _OS),
    "ClientProxyConnectionError": aiohttp.ClientProxyConnectionError(_PLACE, _OS),
    "UnixClientConnectorError": client_exceptions.UnixClientConnectorError("/x", _PLACE, _OS),
    "ClientSSLError": aiohttp.ClientSSLError(_PLACE, _OS),
    "ClientConnectorSSLError": aiohttp.ClientConnectorSSLError(_PLACE, ssl.SSLError(1, "handshake")),
    "ClientConnectorCertificateError": aiohttp.ClientConnectorCertificateError(_PLACE, ssl.CertificateError("x")),
    "ClientResponseError": aiohttp.ClientResponseError(_REQUEST, (), status=400, message=KEY),
    "ContentTypeError": aiohttp.ContentTypeError(_REQUEST, ()),
    "WSServerHandshakeError": aiohttp.WSServerHandshakeError(_REQUEST, ()),
    "ClientHttpProxyError": client_exceptions.ClientHttpProxyError(_REQUEST, ()),
    "TooManyRedirects": aiohttp.TooManyRedirects(_REQUEST, ()),
    "ServerFingerprintMismatch": aiohttp.ServerFingerprintMismatch(b"a", b"b", "h", 1),
    "InvalidURL": aiohttp.InvalidURL(BASE),
    "InvalidUrlClientError": client_exceptions.InvalidUrlClientError(BASE),
    "InvalidUrlRedirectClientError": client_exceptions.InvalidUrlRedirectClientError(BASE),
    "NonHttpUrlClientError": client_exceptions.NonHttpUrlClientError(BASE),
    "NonHttpUrlRedirectClientError": client_exceptions.NonHttpUrlRedirectClientError(BASE),
}
NOT_SENT = {
    "ClientConnectorError",
    "ClientConnectorDNSError",
    "ClientProxyConnectionError",
    "UnixClientConnectorError",
    "ClientSSLError",
    "ClientConnectorSSLError",
    "ConnectionTimeoutError",
}
CERTIFICATE = {"ClientConnectorCertificateError", "ServerFingerprintMismatch"}


def _kinds() -> list[type[Exception]]:
    kinds = [kind for kind in vars(client_exceptions).values() if isinstance(kind, type)]
    return [kind for kind in kinds if issubclass(kind, aiohttp.ClientError) and issubclass(kind, Exception)]


@pytest.mark.parametrize("kind", _kinds(), ids=lambda kind: kind.__name__)
def test_every_client_error_is_mapped(kind: type[Exception]) -> None:
    """Each of aiohttp's client errors becomes a failure of its kind, and none shows the key."""
    error = MADE.get(kind.__name__) or kind("something " + KEY)
    failure = translate(error, sent=False)
    expected = FailureKind.LOST
    if kind.__name__ in NOT_SENT:
        expected = FailureKind.NOT_SENT
    if kind.__name__ in CERTIFICATE:
        expected = FailureKind.CERTIFICATE
    assert failure.kind is expected
    assert KEY not in repr(failure) + failure.what


@pytest.mark.parametrize("error", MADE.values(), ids=lambda error: type(error).__name__)
def test_nothing_counts_as_not_sent_once_headers_were(error: Exception) -> None:
    """Once the trace said that headers were written, every failure is a loss."""
    assert translate(error, sent=True).kind is FailureKind.LOST
    assert KEY not in words(error)


def make(url: str = BASE, key: str = KEY, http: aiohttp.ClientSession | None = None) -> AiohttpTransport:
    """Make a transport without a time limit."""
    return AiohttpTransport(url, key, Timeouts(), http, deadline=nullcontext())


@pytest.fixture
async def transport(no_leaks: object, aioresponses_of_today: None) -> AsyncIterator[AiohttpTransport]:
    """A transport whose replies are made up."""
    transport = make(BASE + "/")
    yield transport
    await transport.aclose()
    await transport.aclose()


async def test_post_carries_key_and_body(transport: AiohttpTransport) -> None:
    """A POST goes to the base URL with key and JSON, and gives a plain reply."""
    with aioresponses() as fake:
        fake.post(BASE + "/v1/x", status=201, body=b"{}", headers={"Retry-After": "3"})
        reply = await transport.post("/v1/x", b'{"a":1}')
    assert (reply.status, reply.body, reply.headers["retry-after"]) == (201, b"{}", "3")
    ((call,),) = fake.requests.values()
    assert await call.kwargs["data"].as_bytes() == b'{"a":1}'
    assert call.kwargs["data"].content_type == "application/json"
    assert call.kwargs["allow_redirects"] is False
    assert transport._own is not None
    assert transport._own.headers["Authorization"] == f"Bearer {KEY}"


async def test_encoded_path_stays_as_it_is(transport: AiohttpTransport) -> None:
    """A percent-encoded id is not decoded or joined on its way."""
    with aioresponses() as fake:
        fake.get(URL(BASE + "/v1/task/..%2Fx", encoded=True), body=b"{}")
        assert (await transport.get("/v1/task/..%2Fx")).status == 200


@pytest.mark.parametrize("error", [aiohttp.ServerDisconnectedError(), TimeoutError(), ConnectionResetError()])
async def test_losses_have_no_context(transport: AiohttpTransport, error: Exception) -> None:
    """A failure leaves without aiohttp's own error behind it, which holds the key."""
    with aioresponses() as fake:
        fake.post(BASE + "/v1/x", exception=error)
        with pytest.raises(Failure) as caught:
            await transport.post("/v1/x", b"")
    assert caught.value.kind is FailureKind.LOST
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None


def test_key_is_struck_out_in_every_spelling() -> None:
    """A key is found as it is and as JSON may write it; a very short one is no secret and part of many words."""
    transport = make(key="sk/12345678")
    assert transport.conceal(rb'{"a":"sk/12345678","b":"sk\/12345678"}') == b'{"a":"***","b":"***"}'
    assert make(key="k").conceal(b'{"taskId":"t"}') == b'{"taskId":"t"}'


@pytest.mark.parametrize("url", ["http://\xad", "http://xn--a", "ftp://x"])
def test_an_address_that_cannot_work(url: str) -> None:
    """An address that no host can have is a mistake in the options, as any other that is none."""
    with pytest.raises(ConfigurationError, match="FINEVOICE_BASE_URL"):
        make(url)


async def test_closed_transport_sends_nothing(transport: AiohttpTransport) -> None:
    """After closing, a call fails before anything is sent."""
    await transport.aclose()
    with pytest.raises(Failure) as caught:
        await transport.get("/v1/x")
    assert caught.value.kind is FailureKind.NOT_SENT


async def test_closed_session_of_the_caller(no_leaks: object) -> None:
    """A caller who closed their own HTTP session hears that nothing was sent."""
    http = aiohttp.ClientSession()
    await http.close()
    with pytest.raises(Failure) as caught:
        await make(http=http).post("/v1/x", b"")
    assert caught.value.kind is FailureKind.NOT_SENT


async def test_the_callers_session_stays_open(no_leaks: object) -> None:
    """A session of the caller's is used, with key and without redirects, and never closed."""

    async def script(request: Request, peer: Peer) -> None:
        peer.answer(307, b"{}", Location="/elsewhere")

    async with RawServer(script) as server, aiohttp.ClientSession() as http:
        transport = make(server.url, http=http)
        assert (await transport.post("/v1/x", b"{}")).status == 307
        assert [request.path for request in server.requests] == ["/v1/x"]
        assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
        await transport.aclose()
        assert not http.closed


@pytest.mark.parametrize("begun", [False, True], ids=["no headers yet", "within the body"])
async def test_a_callers_session_closed_under_way(no_leaks: object, begun: bool) -> None:
    """Whoever closes their HTTP session while a POST is under way never hears that nothing was sent."""
    http = aiohttp.ClientSession()

    async def script(request: Request, peer: Peer) -> None:
        if begun:
            peer.send(b'HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{"taskId": "p1-a", ')
            await asyncio.sleep(1)
        await http.close()
        await peer.hang()

    async with RawServer(script) as server:
        deadlines = Deadlines(40, LoopClock())
        transport = AiohttpTransport(server.url, KEY, Timeouts(), http, deadline=deadlines)
        if begun:
            reply = await transport.post("/v1/x", b"{}")
            assert (reply.whole, find_task_id(reply.body)) == (False, "p1-a")
        else:
            with pytest.raises(Failure) as caught:
                await transport.post("/v1/x", b"{}")
            assert caught.value.kind is FailureKind.LOST
        deadlines.close()


# What came of an answer is never lost


HEAD = b"HTTP/1.1 200 OK\r\n"
PART = b'{"taskId": "p1-a", "url": "https://cd'
CHUNKS = b"25\r\n" + PART + b"\r\n"


async def _close(peer: Peer) -> None:
    await peer.close()


async def _reset(peer: Peer) -> None:
    await peer.writer.drain()
    await asyncio.sleep(0.1)  # after what was sent: a reset throws away what the kernel has not handed over
    await peer.reset()


async def _hang(peer: Peer) -> None:
    await peer.hang()


BREAKS: dict[str, tuple[bytes, Any]] = {
    "shorter than its length": (HEAD + b"Content-Length: 90\r\n\r\n" + PART, _close),
    "reset": (HEAD + b"Content-Length: 90\r\n\r\n" + PART, _reset),
    "hangs": (HEAD + b"Content-Length: 90\r\n\r\n" + PART, _hang),
    "no last chunk": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS, _close),
    "a bad chunk": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS + b"no size\r\n", _hang),
    "a chunk cut": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"99\r\n" + PART, _close),
    "hangs in chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS, _hang),
}


@pytest.mark.parametrize("wait", [0, 1], ids=["at once", "later"])
@pytest.mark.parametrize("name", BREAKS)
async def test_an_answer_that_breaks_off_keeps_what_came(no_leaks: object, name: str, wait: float) -> None:
    """Once there are headers, a broken body is a reply that is not whole, with every byte that came before."""
    text, end = BREAKS[name]

    async def script(request: Request, peer: Peer) -> None:
        head, blank, body = text.partition(b"\r\n\r\n")
        peer.send(head + blank + body if not wait else head + blank)
        if wait:
            await asyncio.sleep(wait)
            peer.send(body)
        await end(peer)

    async with RawServer(script) as server:
        deadlines = Deadlines(40, LoopClock())
        transport = AiohttpTransport(server.url, KEY, Timeouts(), deadline=deadlines)
        for reply in (await transport.post("/v1/x", b"{}"), await transport.get("/v1/x")):
            assert (reply.status, reply.body, reply.whole) == (200, PART, False)
            assert find_task_id(reply.body) == "p1-a"
        await transport.aclose()
        deadlines.close()


@pytest.mark.parametrize("answer", [b"", HEAD, HEAD + b"Content-Length: 5\r\n"])
@pytest.mark.parametrize("end", [_close, _hang])
async def test_without_headers_nothing_came(no_leaks: object, answer: bytes, end: Any) -> None:
    """Where the connection closes or the time is up before the headers are whole, the reply is lost."""

    async def script(request: Request, peer: Peer) -> None:
        peer.send(answer)
        await end(peer)

    async with RawServer(script) as server:
        deadlines = Deadlines(40, LoopClock())
        transport = AiohttpTransport(server.url, KEY, Timeouts(), deadline=deadlines)
        began = asyncio.get_running_loop().time()
        with pytest.raises(Failure) as caught:
            await transport.post("/v1/x", b"{}")
        assert caught.value.kind is FailureKind.LOST
        assert caught.value.__context__ is None
        assert asyncio.get_running_loop().time() - began == pytest.approx(40 if end is _hang else 0, abs=0.1)
        await transport.aclose()
        deadlines.close()


async def test_a_trickle_is_ended_by_the_calls_time(no_leaks: object) -> None:
    """A body of which a byte comes now and then ends with the call's time, and the next call has its own."""

    async def script(request: Request, peer: Peer) -> None:
        peer.send(HEAD + b"Content-Length: 900\r\n\r\n")
        for _ in range(900):
            peer.send(b"x")
            await asyncio.sleep(1)

    async with RawServer(script) as server:
        deadlines = Deadlines(10, LoopClock())
        transport = AiohttpTransport(server.url, KEY, Timeouts(), deadline=deadlines)
        for _ in range(2):
            reply = await transport.get("/v1/x")
            assert (set(reply.body), reply.whole) == ({ord("x")}, False)
            assert 10 <= len(reply.body) <= 11
        await transport.aclose()
        deadlines.close()


def _answers(status: int, body: bytes, **headers: str) -> Script:
    async def script(request: Request, peer: Peer) -> None:
        peer.answer(status, body, **headers)

    return script


async def _exchange(script: Script, method: str = "POST") -> Any:
    async with RawServer(script) as server:
        transport = make(server.url)
        reply = await (transport.post("/v1/x", b"{}") if method == "POST" else transport.get("/v1/x"))
        await transport.aclose()
    return reply


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
        reply = await _exchange(_answers(status, b"x" * (cap + more)), method)
        assert (reply.status, len(reply.body), reply.whole) == (status, cap, more == 0)


async def test_an_id_after_megabytes_is_read(no_leaks: object) -> None:
    """A synchronous answer may carry its audio before its id."""
    answer = json.dumps({"audio": "A" * 20_000_000, "taskId": "p1-a"}).encode()
    reply = await _exchange(_answers(200, answer))
    assert reply.whole
    assert reply.body == answer


async def test_an_endless_reply_is_cut(no_leaks: object) -> None:
    """A reply without a length that does not end is given up at the cap, and the connection is not used again."""

    async def script(request: Request, peer: Peer) -> None:
        peer.send(HEAD + b"\r\n")
        while not peer.writer.is_closing():
            peer.send(b"x" * 65536)
            await peer.writer.drain()

    async with RawServer(script) as server:
        transport = make(server.url)
        for _ in range(2):
            reply = await transport.get("/v1/x")
            assert (len(reply.body), reply.whole) == (MAX_REPLY, False)
        assert server.connections == 2
        await transport.aclose()
    assert KEY not in repr(transport)


async def test_compressed_replies(no_leaks: object) -> None:
    """The cap counts what a body unpacks to; one that cannot be unpacked to its end keeps what came before."""
    bomb = gzip.compress(b"x" * (50 * MAX_REPLY))
    reply = await _exchange(_answers(200, bomb, Content_Encoding="gzip"), "GET")
    assert (len(reply.body), reply.whole) == (MAX_REPLY, False)
    small = gzip.compress(b'{"taskId": "p1-a"}')
    reply = await _exchange(_answers(200, small, Content_Encoding="gzip"))
    assert (reply.body, reply.whole) == (b'{"taskId": "p1-a"}', True)
    damaged = gzip.compress(PART * 10_000)
    reply = await _exchange(_answers(200, damaged[: len(damaged) // 2] + b"rubbish" * 50, Content_Encoding="gzip"))
    assert not reply.whole


async def test_a_cancelled_call_stays_cancelled(no_leaks: object) -> None:
    """Whoever cancels a call in the middle of a body hears of the cancellation."""

    async def script(request: Request, peer: Peer) -> None:
        peer.send(HEAD + b"Content-Length: 90\r\n\r\n" + PART)
        await peer.hang()

    async with RawServer(script) as server:
        transport = make(server.url)
        call = asyncio.ensure_future(transport.post("/v1/x", b"{}"))
        await asyncio.sleep(1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await transport.aclose()


async def test_connections_are_kept(no_leaks: object) -> None:
    """One connection serves calls that come one after another."""
    async with RawServer(_answers(200, b"{}")) as server:
        transport = make(server.url)
        for _ in range(5):
            assert (await transport.post("/v1/x", b"{}")).whole
        assert server.connections == 1
        await transport.aclose()


# Links


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
    """What came is given before the failure, which has nothing of aiohttp's behind it."""
    text, _ = BREAKS["shorter than its length"]

    async def script(request: Request, peer: Peer) -> None:
        peer.send(text)
        await asyncio.sleep(1)
        await peer.close()

    async with RawServer(script) as server:
        fetcher = AiohttpFetcher(Timeouts(), local=True)
        pieces = []
        with pytest.raises(Failure) as caught:
            async with fetcher.get(server.url + "/a.mp3", {}) as body:
                pieces += [piece async for piece in body.pieces()]
        assert caught.value.kind is FailureKind.LOST
        assert caught.value.__cause__ is None
        assert "authorization" not in server.requests[0].headers
        await fetcher.aclose()
