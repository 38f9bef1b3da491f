"""HTTP to wherever the results lie: without key and cookies, to allowed addresses only.

The address is checked as the socket is made, so a name that resolves to a private address, a literal in any spelling
and a redirect all meet the same check.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aiohttp
from aiohappyeyeballs import AddrInfoType
from aiohttp.client_reqrep import ClientResponse
from yarl import URL

from finevoice_async.adapters.aiohttp_transport import translate
from finevoice_async.config import Timeouts
from finevoice_async.core.addresses import is_public
from finevoice_async.core.failures import Failure, FailureKind

MAX_SOCKETS = 32
"""Downloads that can be under way at once; more wait for their turn."""

_PIECE = 64 * 1024
_HEADERS = {"Accept": "audio/*, */*;q=0.5", "Accept-Encoding": "identity"}


def _public_socket(info: AddrInfoType) -> socket.socket:
    family, kind, protocol, _, address = info
    if not is_public(str(address[0])):
        raise PermissionError(errno.EPERM, "not a public address")
    return socket.socket(family=family, type=kind, proto=protocol)


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
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                failure = translate(error, sent=True)
            if failure is not None:
                raise failure from None
            if piece is None:
                return
            yield piece


class AiohttpFetcher:
    """Gets what links lead to."""

    def __init__(self, timeouts: Timeouts, *, local: bool) -> None:
        """Set it up; connect later.

        Args:
            timeouts: `connect` and `read` are used.
            local: Allow private addresses too: the service itself is an emulator or a test.
        """
        self._timeout = aiohttp.ClientTimeout(
            total=None, connect=None, sock_connect=timeouts.connect, sock_read=timeouts.read
        )
        self._local = local
        # All mutable state:
        self._session: aiohttp.ClientSession | None = None  # made at the first use
        self._closed = False

    @asynccontextmanager
    async def get(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[Body]:
        """Ask for a link; no redirect is followed.

        Raises:
            Failure: The address is none, or not public (INVALID); the server was not reached (NOT_SENT,
                CERTIFICATE), or gave no readable reply (LOST).
        """
        if self._closed:
            raise Failure(FailureKind.NOT_SENT, "the session is closed")
        if self._session is None:
            factory = None if self._local else _public_socket
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=MAX_SOCKETS, socket_factory=factory),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                timeout=self._timeout,
            )
        response = await self._request(self._session, url, headers)
        try:
            yield Body(response)
        finally:
            response.close()  # a body that was not read to its end cannot be kept for reuse

    async def _request(self, session: aiohttp.ClientSession, url: str, headers: Mapping[str, str]) -> ClientResponse:
        try:
            target = URL(url, encoded=url.isascii() and " " not in url)  # a signed link must not be re-quoted
            return await session.get(target, headers={**_HEADERS, **headers}, allow_redirects=False)
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
        """Close the connections. Idempotent."""
        self._closed = True
        if self._session is not None:
            await self._session.close()
