"""The transport alone: what it sends, what it makes of aiohttp's errors."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import aiohttp
import attrs
import pytest
from aiohttp import client_exceptions
from aiohttp.client_reqrep import ConnectionKey
from aioresponses import aioresponses
from raw_server import Peer, RawServer, Request
from yarl import URL

from finevoice_async.adapters.aiohttp_transport import AiohttpTransport, translate, words
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
_LOST = FailureKind.LOST

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
    "RuntimeError": RuntimeError("Session is closed"),
    "InvalidURL": aiohttp.InvalidURL(BASE),
    "InvalidUrlClientError": client_exceptions.InvalidUrlClientError(BASE),
    "InvalidUrlRedirectClientError": client_exceptions.InvalidUrlRedirectClientError(BASE),
    "NonHttpUrlClientError": client_exceptions.NonHttpUrlClientError(BASE),
    "NonHttpUrlRedirectClientError": client_exceptions.NonHttpUrlRedirectClientError(BASE),
}
CERTIFICATE = {"ClientConnectorCertificateError", "ServerFingerprintMismatch"}


def _kinds() -> list[type[Exception]]:
    kinds = [kind for kind in vars(client_exceptions).values() if isinstance(kind, type)]
    return [kind for kind in kinds if issubclass(kind, aiohttp.ClientError) and issubclass(kind, Exception)]


@pytest.mark.parametrize("kind", _kinds(), ids=lambda kind: kind.__name__)
def test_every_client_error_is_mapped(kind: type[Exception]) -> None:
    """Each of aiohttp's client errors becomes a failure of its kind, and none shows the key."""
    error = MADE.get(kind.__name__) or kind("something " + KEY)
    certificate = kind.__name__ in CERTIFICATE
    for sent, expected in ((False, FailureKind.CERTIFICATE if certificate else FailureKind.NOT_SENT), (True, _LOST)):
        failure = translate(error, sent=sent)
        assert failure.kind is expected
        assert KEY not in repr(failure) + failure.what


@pytest.mark.parametrize("error", MADE.values(), ids=lambda error: type(error).__name__)
def test_nothing_counts_as_not_sent_once_headers_were(error: Exception) -> None:
    """Once something may have been written, every failure is a loss."""
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
        fake.get(BASE + "/v1/x", exception=error)
        with pytest.raises(Failure) as caught:
            await transport.get("/v1/x")
    assert caught.value.kind is FailureKind.LOST
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None


def test_key_is_struck_out_in_every_spelling() -> None:
    """A key is found as it is and as JSON may write it; a very short one is no secret and part of many words."""
    transport = make(key="sk/12345678")
    assert transport.conceal(rb'{"a":"sk/12345678","b":"sk\/12345678"}') == b'{"a":"***","b":"***"}'
    assert make(key="k").conceal(b'{"taskId":"t"}') == b'{"taskId":"t"}'


@pytest.mark.parametrize("url", ["http://a\u05beb", "http://a\\b/y", "ftp://x"])
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


@attrs.define
class BrokenSession:
    """A session of a caller's that fails by itself, before or after it has asked the body for its bytes."""

    error: Exception
    writes: bool
    closed: bool = False

    async def request(self, method: str, url: URL, *, data: Any, **options: Any) -> Any:
        """Fail."""
        if self.writes and data is not None:
            await data.write_with_length(Writer(), None)
        raise self.error


class Writer:
    """What aiohttp gives a body to write to, on a connection that is open."""

    output_size = 0
    transport = SimpleNamespace(is_closing=lambda: False)

    async def write(self, chunk: bytes) -> None:
        """Write."""
        self.output_size += len(chunk)


@pytest.mark.parametrize(
    ("error", "closed"), [(aiohttp.ClientConnectorError(_PLACE, _OS), False), (RuntimeError("Session is closed"), True)]
)
async def test_what_the_body_was_asked_for_counts_as_sent(error: Exception, closed: bool) -> None:
    """An error that comes before writing by its nature is believed only if the body was not asked for its bytes."""
    for writes, kind in ((False, FailureKind.NOT_SENT), (True, FailureKind.LOST)):
        http: Any = BrokenSession(error, writes, closed)
        with pytest.raises(Failure) as caught:
            await make(http=http).post("/v1/x", b"{}")
        assert caught.value.kind is kind
        assert caught.value.__context__ is None


async def test_an_error_of_a_session_that_is_open(no_leaks: object) -> None:
    """What is no word for a closed session is not told as one."""
    for writes, kind in ((False, FailureKind.NOT_SENT), (True, FailureKind.LOST)):
        http: Any = BrokenSession(RuntimeError("something else"), writes)
        with pytest.raises(Failure, match="RuntimeError at line") as caught:
            await make(http=http).post("/v1/x", b"{}")
        assert caught.value.kind is kind


async def test_closed_transport_leaves_the_callers_session_alone(no_leaks: object) -> None:
    """After closing, nothing is sent over a session of the caller's that is open still."""
    async with RawServer(_never) as server, aiohttp.ClientSession() as http:
        transport = make(server.url, http=http)
        await transport.aclose()
        with pytest.raises(Failure) as caught:
            await transport.post("/v1/x", b"{}")
        assert caught.value.kind is FailureKind.NOT_SENT
        assert server.connections == 0


async def _never(request: Request, peer: Peer) -> None:
    await peer.hang()


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
