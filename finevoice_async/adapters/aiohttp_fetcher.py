"""HTTP to wherever the results lie: without key and cookies, to allowed addresses only.

The address is checked as the socket is made, so a name that resolves to a private address, a literal in any spelling
and a redirect all meet the same check. Through a proxy the socket is the proxy's: there the link alone is checked.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohappyeyeballs import AddrInfoType
from aiohttp.client_reqrep import ClientResponse
from yarl import URL

from finevoice_async.adapters.aiohttp_transport import translate
from finevoice_async.config import Downloads, Timeouts
from finevoice_async.core.addresses import host_problem, may_be_asked
from finevoice_async.core.failures import Failure, FailureKind

_PIECE = 64 * 1024
_HEADERS = {"Accept": "audio/*, */*;q=0.5", "Accept-Encoding": "identity"}


class Body:
    """A reply whose body is still to come."""

    def __init__(self, response: ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}

    async def pieces(self) -> AsyncIterator[bytes]:
        """Return the body as it comes.

        Raises:
            Failure: The connection failed on the way (LOST).
        """
        iterator = self._response.content.iter_chunked(_PIECE)
        while True:
            failure: Failure | None = None
            try:
                piece = await anext(iterator, None)
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError, RuntimeError) as error:
                failure = translate(
                    error, sent=True
                )  # a RuntimeError is aiohttp's word for a connection that we closed
            if failure is not None:
                raise failure from None
            if piece is None:
                return
            yield piece


class AiohttpFetcher:
    """Gets what links lead to."""

    def __init__(self, timeouts: Timeouts, *, local: bool, options: Downloads = Downloads()) -> None:  # noqa: B008 - frozen
        """Set it up; connect later.

        Args:
            timeouts: `connect` and `read` are used.
            local: Allow private addresses too: the service itself is an emulator or a test.
            options: Proxies, certificates, and networks that are allowed besides.
        """
        # The time to connect counts names that are looked up and a proxy's answer, too: nothing else bounds these.
        self._timeout = aiohttp.ClientTimeout(
            total=None, connect=timeouts.connect, sock_connect=timeouts.connect, sock_read=timeouts.read
        )
        self._local = local
        self._options = options
        # All mutable state:
        self._sessions: dict[bool, aiohttp.ClientSession] = {}  # by whether it goes through a proxy; at the first use
        self._open: dict[ClientResponse, None] = {}  # replies that are being read
        self._closed = False

    def _make_socket(self, info: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = info
        if not may_be_asked(str(address[0]), self._options.allow):
            raise PermissionError(errno.EPERM, "not a public address")
        return socket.socket(family=family, type=kind, proto=protocol)

    def _session(self, *, proxied: bool) -> aiohttp.ClientSession:
        if proxied not in self._sessions:
            factory = None if self._local or proxied else self._make_socket
            self._sessions[proxied] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0,  # downloads are counted elsewhere
                    socket_factory=factory,
                    ssl=True if self._options.ssl is None else self._options.ssl,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                timeout=self._timeout,
            )
        return self._sessions[proxied]

    @asynccontextmanager
    async def get(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[Body]:
        """Ask for a link; no redirect is followed.

        Raises:
            Failure: The address is none, or not public (INVALID); the server was not reached (NOT_SENT,
                CERTIFICATE), or gave no readable reply (LOST).
        """
        if self._closed:
            raise Failure(FailureKind.NOT_SENT, "the session is closed")
        target = self._parse(url)
        proxy = await self._proxy_for(target)
        if self._closed:
            raise Failure(FailureKind.NOT_SENT, "the session is closed")
        options = proxy | {"headers": {**_HEADERS, **headers, **proxy.get("headers", {})}}
        response = await self._request(self._session(proxied=bool(proxy)), target, options)
        self._open[response] = None
        try:
            yield Body(response)
        finally:
            del self._open[response]
            response.close()  # a body that was not read to its end cannot be kept for reuse

    def _parse(self, url: str) -> URL:
        problem: str | None = "is not a URL"
        try:
            target = URL(url, encoded=url.isascii() and " " not in url)  # a signed link must not be re-quoted
            # As it will be asked: full-width digits, say, are plain ones by now.
            problem = None if self._local else host_problem(target.host or "", self._options.allow)
        except (ValueError, TypeError):
            pass
        if problem is not None:
            raise Failure(FailureKind.INVALID, f"the link {problem}")
        return target

    async def _proxy_for(self, target: URL) -> dict[str, Any]:
        """Return what goes with a request through a proxy, nothing if there is none for it."""
        address = self._options.proxy
        if address is None and self._options.trust_env:
            address = await asyncio.to_thread(_environment_proxy, target.scheme, target.host or "")
        if address is None:
            return {}
        proxy: URL | None = None
        secret: dict[str, str] = {}
        try:
            proxy = URL(address if "://" in address else f"http://{address}")
            if proxy.user is not None:
                secret["Proxy-Authorization"] = aiohttp.encode_basic_auth(proxy.user, proxy.password or "")
        except ValueError:
            proxy = None
        if proxy is None or proxy.scheme not in ("http", "https") or not proxy.host:
            raise Failure(FailureKind.INVALID, "the proxy is no http or https address")
        # Who asks for https asks the proxy for a tunnel first, and tells nobody at its end of the password.
        return {"proxy": proxy.with_user(None), "proxy_headers" if target.scheme == "https" else "headers": secret}

    async def _request(self, session: aiohttp.ClientSession, target: URL, options: Mapping[str, Any]) -> ClientResponse:
        try:
            return await session.get(target, allow_redirects=False, **options)
        except aiohttp.ClientHttpProxyError as error:
            passing = error.status == 429 or error.status >= 500
            kind = FailureKind.NOT_SENT if passing else FailureKind.INVALID
            failure = Failure(kind, f"the proxy answered {error.status}")
        except aiohttp.ClientConnectorError as error:
            failure = translate(error, sent=False)
            if isinstance(error.os_error, PermissionError) and error.os_error.errno == errno.EPERM:
                failure = Failure(FailureKind.INVALID, "the link leads to a private address")
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
            failure = Failure(FailureKind.INVALID, "the link is not a URL")
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            failure = translate(error, sent=True)
        except RuntimeError as error:
            if not session.closed:
                raise
            failure = translate(error, sent=False)
        raise failure from None

    async def aclose(self) -> None:
        """Close the connections; whoever reads from one hears of it. Idempotent."""
        self._closed = True
        for response in self._open:
            response.content.set_exception(
                aiohttp.ClientConnectionError("closed")
            )  # to close a connection tells nobody
        for session in self._sessions.values():
            await session.close()


def _environment_proxy(scheme: str, host: str) -> str | None:
    """Return the proxy that the environment names for a host; on some systems that asks the registry or a service."""
    if urllib.request.proxy_bypass(host):
        return None
    return urllib.request.getproxies().get(scheme)
