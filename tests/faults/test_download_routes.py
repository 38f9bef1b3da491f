"""The way to a result: proxies, certificates, networks that are allowed, https before http."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import socket
import ssl
import traceback
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from certificates import client_side, server_side
from file_server import SOUND
from raw_server import Peer, RawServer, Request

from finevoice_async import DownloadError, Downloads, FineVoiceSession, Polling, Retry, Timeouts

LOOPBACK = ["127.0.0.0/8"]
PASSWORD = "s3cret-of-the-proxy"


class Service:
    """The service and its download host, over TLS, at names that this machine does not know."""

    def __init__(self) -> None:
        self.server = RawServer(self._script, tls=server_side())
        self.link = ""

    async def _script(self, request: Request, peer: Peer) -> None:
        if request.path == "/file.wav":
            assert "authorization" not in request.headers
            peer.answer(200, SOUND)
        else:
            peer.answer(200, json.dumps({"taskId": "t", "status": 200, "url": self.link}).encode())

    @property
    def asked(self) -> int:
        """How often the file was asked for."""
        return sum(request.path == "/file.wav" for request in self.server.requests)


class Resolver(AbstractResolver):
    """Knows one address for all names: the caller's own, for calls to the service."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return it."""
        return [ResolveResult(hostname=host, host="127.0.0.1", port=port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
async def service(no_leaks: object) -> AsyncIterator[Service]:
    """A service."""
    service = Service()
    async with service.server:
        service.link = f"https://127.0.0.1:{service.server.port}/file.wav"
        yield service


async def read(service: Service, downloads: Downloads, **options: Any) -> bytes:
    """Make an effect and read it, in a session that has its own way to the service."""
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=Resolver(), ssl=client_side())) as http,
        FineVoiceSession(
            "key",
            base_url=f"https://apis.test:{service.server.port}",
            http=http,
            downloads=downloads,
            polling=Polling.fixed(2.0),
            retry=Retry(attempts=2),
            timeouts=Timeouts(connect=3, read=5),
            **options,
        ) as session,
    ):
        return await (await session.generate("rain")).read()


# Certificates, and networks


async def test_a_certificate_of_ones_own(service: Service) -> None:
    """What nobody trusts is refused, unless the caller trusts it."""
    with pytest.raises(DownloadError, match="certificate"):
        await read(service, Downloads(allow=LOOPBACK))
    assert service.asked == 0
    assert await read(service, Downloads(allow=LOOPBACK, ssl=client_side())) == SOUND


@pytest.mark.parametrize("allow", [(), ["198.18.0.0/15"], ["127.0.0.2"]])
async def test_networks_that_are_not_allowed(service: Service, allow: Any) -> None:
    """What is neither public nor allowed is not asked."""
    with pytest.raises(DownloadError, match="private"):
        await read(service, Downloads(allow=allow, ssl=client_side()))
    assert service.asked == 0


@pytest.mark.parametrize("answer", ["127.0.0.1", "::ffff:127.0.0.1"])
async def test_a_resolver_of_ones_own(service: Service, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    """A name that leads into an allowed network is asked, and into another not."""
    real = socket.getaddrinfo

    def resolve(host: Any, port: Any, *more: Any, **options: Any) -> Any:
        if host != "files.test":
            return real(host, port, *more, **options)
        family = socket.AF_INET6 if ":" in answer else socket.AF_INET
        return [(family, socket.SOCK_STREAM, 6, "", (answer, port, 0, 0) if ":" in answer else (answer, port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    service.link = f"https://files.test:{service.server.port}/file.wav"
    with pytest.raises(DownloadError, match="private"):
        await read(service, Downloads(ssl=client_side()))
    assert await read(service, Downloads(allow=LOOPBACK, ssl=client_side())) == SOUND


# Plain http


async def test_plain_links_are_asked_over_https(service: Service) -> None:
    """A plain http link of an https service is asked over https, also behind a redirect."""
    service.link = f"http://127.0.0.1:{service.server.port}/file.wav"
    assert await read(service, Downloads(allow=LOOPBACK, ssl=client_side())) == SOUND


async def test_plain_links_are_asked_over_nothing_else(service: Service) -> None:
    """Where there is no https, nothing is asked over http instead."""

    async def script(request: Request, peer: Peer) -> None:
        raise AssertionError("somebody came")

    async with RawServer(script) as plain:
        service.link = f"http://127.0.0.1:{plain.port}/file.wav"
        with pytest.raises(DownloadError):
            await read(service, Downloads(allow=LOOPBACK, ssl=client_side()))
        assert plain.requests == []


# Proxies


class Proxy:
    """A proxy that knows one server, whatever name is asked for."""

    def __init__(self, service: Service, answer: int | None = 200) -> None:
        self.service = service
        self.answer = answer  # None: it is silent
        self.server = RawServer(self._script)

    async def _script(self, request: Request, peer: Peer) -> None:
        assert request.method == "CONNECT"
        if self.answer is None:
            await peer.hang()
        if self.answer != 200:
            peer.answer(self.answer or 0, b"no")
            return
        peer.send(b"HTTP/1.1 200 Connected\r\n\r\n")
        reader, writer = await asyncio.open_connection("127.0.0.1", self.service.server.port)
        try:
            await asyncio.wait(
                [
                    asyncio.create_task(pump(peer.reader, writer)),
                    asyncio.create_task(pump(reader, peer.writer)),
                ]
            )
        finally:
            writer.close()
        peer.finished = True

    @property
    def names(self) -> list[str]:
        """What it was asked to connect to."""
        return [request.path.partition(":")[0] for request in self.server.requests]


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what comes, until it ends."""
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    writer.close()


def check_no_secret(caplog: pytest.LogCaptureFixture, *things: object) -> None:
    """Check that the proxy's password is in no repr, log line, message or traceback."""
    seen = [caplog.text, *map(repr, things)]
    for thing in things:
        if isinstance(thing, BaseException):
            seen += traceback.TracebackException.from_exception(thing, capture_locals=False).format()
            seen.append(repr((thing.__cause__, thing.__context__)))
    assert PASSWORD not in "".join(seen)
    assert base64.b64encode(f"user:{PASSWORD}".encode()).decode() not in "".join(seen)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.MonkeyPatch:
    """An environment without proxies."""
    caplog.set_level(logging.DEBUG)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return monkeypatch


async def test_through_a_proxy(
    service: Service, environment: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The proxy looks the name up, and gets its password; the file's server gets none."""
    service.link = "https://files.test/file.wav"
    proxy = Proxy(service)
    async with proxy.server:
        options = Downloads(proxy=f"http://user:{PASSWORD}@127.0.0.1:{proxy.server.port}", ssl=client_side())
        assert await read(service, options) == SOUND
        assert proxy.names == ["files.test"]
        sent = proxy.server.requests[0].headers["proxy-authorization"].removeprefix("Basic ")
        assert base64.b64decode(sent).decode() == f"user:{PASSWORD}"
    check_no_secret(caplog, options)


@pytest.mark.parametrize(
    "link",
    [
        "https://10.0.0.1/a",
        "https://[::1]/a",
        "https://127.1/a",
        "http://localhost/a",
        "https://\uff11\uff12\uff17.0.0.1/a",
    ],
)
async def test_a_proxy_is_not_asked_for_private_addresses(service: Service, link: str) -> None:
    """An address in a link is checked before a proxy is asked, in any spelling."""
    service.link = link
    proxy = Proxy(service)
    async with proxy.server:
        with pytest.raises(DownloadError, match="private"):
            await read(service, Downloads(proxy=proxy.server.url, ssl=client_side()))
        assert proxy.server.connections == 0


@pytest.mark.parametrize(("answer", "times"), [(407, 1), (403, 1), (502, 2), (None, 2)])
async def test_a_proxy_that_refuses(
    service: Service, caplog: pytest.LogCaptureFixture, environment: pytest.MonkeyPatch, answer: int | None, times: int
) -> None:
    """It is an error that says so, tried again where that may help; a silent proxy is not waited for without end."""
    service.link = "https://files.test/file.wav"
    proxy = Proxy(service, answer)
    loop = asyncio.get_running_loop()
    async with proxy.server:
        began = loop.time()
        options = Downloads(proxy=f"http://user:{PASSWORD}@127.0.0.1:{proxy.server.port}", ssl=client_side())
        with pytest.raises(DownloadError, match=f"proxy answered {answer}" if answer else "imeout") as caught:
            await read(service, options)
        assert len(proxy.names) == times
        assert loop.time() - began < 10
    check_no_secret(caplog, caught.value)


async def test_the_environments_proxy(
    service: Service, environment: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With `trust_env` the environment's proxy is used, unless NO_PROXY says otherwise; `.netrc` never."""
    secrets = tmp_path / "netrc"
    secrets.write_text(f"default login user password {PASSWORD}")
    secrets.chmod(0o600)
    environment.setenv("NETRC", str(secrets))
    service.link = "https://files.test/file.wav"
    proxy = Proxy(service)
    async with proxy.server:
        environment.setenv("HTTPS_PROXY", f"127.0.0.1:{proxy.server.port}")
        assert await read(service, Downloads(trust_env=True, ssl=client_side())) == SOUND
        assert proxy.names == ["files.test"]
        assert "proxy-authorization" not in proxy.server.requests[0].headers
        service.link = f"https://127.0.0.1:{service.server.port}/file.wav"
        environment.setenv("NO_PROXY", "127.0.0.1")
        assert await read(service, Downloads(trust_env=True, allow=LOOPBACK, ssl=client_side())) == SOUND
        assert await read(service, Downloads(allow=LOOPBACK, ssl=client_side())) == SOUND
        assert proxy.names == ["files.test"]
        environment.delenv("NO_PROXY")
        environment.setenv("HTTPS_PROXY", f"socks5://user:{PASSWORD}@127.0.0.1:{proxy.server.port}")
        with pytest.raises(DownloadError, match="proxy is no http") as caught:
            await read(service, Downloads(trust_env=True, allow=LOOPBACK, ssl=client_side()))
    check_no_secret(caplog, caught.value)


async def test_a_plain_link_through_a_proxy(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    """A local service's plain links go through the proxy as they are, with its password for the proxy alone."""

    async def script(request: Request, peer: Peer) -> None:
        if request.path == "http://files.test/file.wav":
            assert base64.b64encode(f"user:{PASSWORD}".encode()).decode() in request.headers["proxy-authorization"]
            peer.answer(200, SOUND)
        else:
            link = "http://files.test/file.wav"
            peer.answer(200, json.dumps({"taskId": "t", "status": 200, "url": link}).encode())

    caplog.set_level(logging.DEBUG)
    async with RawServer(script) as server:
        options = Downloads(proxy=f"http://user:{PASSWORD}@127.0.0.1:{server.port}")
        async with FineVoiceSession("key", base_url=server.url, downloads=options) as session:
            assert await (await session.generate("rain")).read() == SOUND
    check_no_secret(caplog)


async def test_a_proxys_name_that_cannot_be_sent(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    """A user with a colon in its name cannot be told to a proxy; the error does not tell the password either."""
    service.link = "https://files.test/file.wav"
    with pytest.raises(DownloadError, match="proxy") as caught:
        await read(service, Downloads(proxy=f"http://us%3Aer:{PASSWORD}@127.0.0.1:1"))
    check_no_secret(caplog, caught.value)


def test_a_context_is_shown_nowhere() -> None:
    """Options show neither certificates nor passwords."""
    options = Downloads(ssl=ssl.create_default_context(), proxy=f"http://user:{PASSWORD}@proxy.test:3128/x?y")
    assert repr(options) == (
        "Downloads(concurrency=8, attempts=None, trust_env=False, proxy='http://proxy.test:3128', allow=())"
    )
