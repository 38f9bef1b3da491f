"""The transport alone: what it sends, what it makes of aiohttp's errors."""

from __future__ import annotations

import asyncio
import ssl
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import client_exceptions
from aiohttp.client_reqrep import ConnectionKey
from aioresponses import aioresponses
from yarl import URL

from finevoice_async.adapters.aiohttp_transport import MAX_REPLY, AiohttpTransport, translate, words
from finevoice_async.config import Timeouts
from finevoice_async.ports import CertificateError, LostError, NotSentError, TransportError

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
    """Each of aiohttp's client errors becomes one of ours, and none shows the key."""
    error = MADE.get(kind.__name__) or kind("something " + KEY)
    mapped = translate(error, sent=False)
    expected: type[TransportError] = LostError
    if kind.__name__ in NOT_SENT:
        expected = NotSentError
    if kind.__name__ in CERTIFICATE:
        expected = CertificateError
    assert type(mapped) is expected
    assert KEY not in repr(mapped)


@pytest.mark.parametrize("error", MADE.values(), ids=lambda error: type(error).__name__)
def test_nothing_counts_as_not_sent_once_headers_were(error: Exception) -> None:
    """Once the trace said that headers were written, every failure is a loss."""
    assert type(translate(error, sent=True)) is LostError
    assert KEY not in words(error)


@pytest.fixture
async def transport(no_leaks: object, aioresponses_of_today: None) -> Any:
    """A transport whose replies are made up."""
    transport = AiohttpTransport(BASE + "/", KEY, Timeouts())
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
    """An error leaves without aiohttp's own behind it, which holds the key."""
    with aioresponses() as fake:
        fake.post(BASE + "/v1/x", exception=error)
        with pytest.raises(LostError) as caught:
            await transport.post("/v1/x", b"")
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None


def test_key_is_struck_out_in_every_spelling() -> None:
    """A key is found as it is and as JSON may write it; a very short one is no secret and part of many words."""
    transport = AiohttpTransport(BASE, "sk/12345678", Timeouts())
    assert transport.conceal(rb'{"a":"sk/12345678","b":"sk\/12345678"}') == b'{"a":"***","b":"***"}'
    assert AiohttpTransport(BASE, "k", Timeouts()).conceal(b'{"taskId":"t"}') == b'{"taskId":"t"}'


async def test_closed_transport_sends_nothing(transport: AiohttpTransport) -> None:
    """After closing, a call fails before anything is sent."""
    await transport.aclose()
    with pytest.raises(NotSentError):
        await transport.get("/v1/x")


async def test_closed_session_of_the_caller(no_leaks: object) -> None:
    """A caller who closed their own HTTP session hears that nothing was sent."""
    http = aiohttp.ClientSession()
    await http.close()
    transport = AiohttpTransport(BASE, KEY, Timeouts(), http)
    with pytest.raises(NotSentError):
        await transport.post("/v1/x", b"")


async def test_long_reply_is_cut_off(no_leaks: object) -> None:
    """A reply without a length that does not end is given up at the cap."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (MAX_REPLY + 1))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        transport = AiohttpTransport(f"http://127.0.0.1:{port}", KEY, Timeouts())
        with pytest.raises(LostError, match="longer than"):
            await transport.get("/v1/x")
        await transport.aclose()
    assert KEY not in repr(transport)
