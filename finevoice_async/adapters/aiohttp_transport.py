"""HTTP to the service through aiohttp.

One session, no cookies, no redirects, the key only to the base URL's origin. Errors leave here as words: aiohttp's
own hold the request's headers, key included.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from multidict import CIMultiDict
from yarl import URL

from finevoice_async.adapters.deadlines import Deadlines
from finevoice_async.config import API_KEY_VARIABLE, BASE_URL_VARIABLE, Timeouts
from finevoice_async.core.text import shorten
from finevoice_async.core.wire import Reply
from finevoice_async.errors import ConfigurationError
from finevoice_async.ports import CertificateError, LostError, NotSentError, TransportError

MAX_REPLY: Final = 1024 * 1024
"""Bytes of one reply. Real ones have under 2 KB; a proxy's error page may have 100."""

MAX_SOCKETS: Final = 64
"""Connections to the service at most, whatever is in flight: polls and submissions take turns on them."""

SHORTEST_KEY: Final = 8
"""Characters of the shortest key that is struck out of what a server repeats: a shorter one guards nothing, and may
be part of any word."""

_PIECE: Final = 64 * 1024


def check_key(key: str | None) -> str:
    """Return the key back if a header can carry it.

    Raises:
        ConfigurationError: It is missing, blank, or not printable ASCII. The message never shows it.
    """
    where = f"Keys come from your FineVoice account; give one as api_key or in {API_KEY_VARIABLE}."
    if not isinstance(key, str) or not key.strip():
        raise ConfigurationError(f"There is no API key. {where} To try without one, run `finevoice demo`.")
    key = key.strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigurationError(f"The API key must be printable ASCII without spaces. {where}")
    return key


def check_base_url(url: str) -> str:
    """Return the address back without a slash at its end.

    Raises:
        ConfigurationError: It is no plain http or https address.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        plain = not (parts.query or parts.fragment or parts.username or parts.password)
    except (ValueError, AttributeError, TypeError):
        usable = plain = False
    if not usable or not plain:
        raise ConfigurationError(
            f"The base URL must be an http or https address without user, query and fragment, not "
            f"{'one with these parts' if usable else shorten(url)}. It comes from base_url or {BASE_URL_VARIABLE}."
        )
    return url.rstrip("/")


def words(error: BaseException) -> str:
    """Describe an error by its kind and its system error, never by its own text, which may hold a header."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "the host name could not be resolved"
    cause = getattr(error, "os_error", None) or (error if isinstance(error, OSError) else None)
    reason = cause.strerror if isinstance(cause, OSError) and isinstance(cause.strerror, str) else None
    return f"{type(error).__name__}: {reason}" if reason else type(error).__name__


def translate(error: Exception, *, sent: bool) -> TransportError:
    """Return this library's error for one of aiohttp's.

    `sent`: something of the request may have been written. A connector error comes before that by its nature; both
    must agree before a call counts as not sent.
    """
    if sent:
        return LostError(words(error))
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ServerFingerprintMismatch):
        return CertificateError("the server's certificate is not trusted")
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return NotSentError(words(error))
    return LostError(words(error))


async def read_capped(response: aiohttp.ClientResponse, cap: int) -> bytes:
    """Read a body of at most `cap` bytes, decompressed.

    Raises:
        LostError: It is longer.
    """
    content = response.content
    if content.is_eof() and content.total_bytes <= cap:
        return content.read_nowait()  # a small answer comes in one piece, with its headers
    pieces = bytearray()
    async for piece in content.iter_chunked(_PIECE):
        pieces += piece
        if len(pieces) > cap:
            raise LostError(f"the reply is longer than {cap} bytes")
    return bytes(pieces)


class _JsonBody(aiohttp.BytesPayload):
    """A body that knows whether anything of its request may have been written.

    aiohttp keeps the headers back until it asks the body for its bytes, and writes both at once. A trace of the
    session would tell the same for about 8 % of a request's cost, and nothing in a session of the caller's.
    """

    def __init__(self, value: bytes) -> None:
        super().__init__(value, content_type="application/json")
        self.may_be_sent = False

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """Write it, and say so first."""
        self.may_be_sent = True
        await super().write_with_length(writer, content_length)


class AiohttpTransport:
    """Posts and gets with one key at one origin."""

    def __init__(
        self, base_url: str, api_key: str | None, timeouts: Timeouts, http: aiohttp.ClientSession | None = None
    ) -> None:
        """Check the address and the key; connect later.

        Args:
            base_url: The service's address.
            api_key: The key, sent as a bearer token.
            timeouts: `connect` and `read` are used.
            http: A session of the caller's, used and never closed.

        Raises:
            ConfigurationError: The address or the key cannot work.
        """
        self._base_url = check_base_url(base_url)
        key = check_key(api_key)
        spellings = {key.encode(), key.replace("/", "\\/").encode()}  # as JSON may write it
        self._spellings = spellings if len(key) >= SHORTEST_KEY else set()
        self._headers = CIMultiDict({"Authorization": f"Bearer {key}", "Accept": "application/json"})
        self._root = URL(self._base_url)
        self._prefix = self._root.raw_path.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=timeouts.connect, sock_read=None)
        # A session of our own has these already, which is cheaper: it has one origin.
        callers = {"headers": self._headers, "timeout": self._timeout}
        self._options: dict[str, Any] = {"allow_redirects": False} | ({} if http is None else callers)
        # All mutable state:
        self._callers = http
        self._own: aiohttp.ClientSession | None = None
        self._deadlines = Deadlines(timeouts.connect + timeouts.read)  # for a whole call
        self._closed = False

    def __repr__(self) -> str:
        return f"<AiohttpTransport to {self._base_url}>"

    @property
    def base_url(self) -> str:
        """The service's address, without a slash at its end."""
        return self._base_url

    def _open(self) -> aiohttp.ClientSession:
        self._own = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=MAX_SOCKETS),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._headers,
            timeout=self._timeout,
        )
        return self._own

    def post(self, path: str, body: bytes) -> Awaitable[Reply]:
        """Send a JSON body."""
        return self._call("POST", path, body)

    def get(self, path: str) -> Awaitable[Reply]:
        """Ask for a path, which is percent-encoded already."""
        return self._call("GET", path, None)

    async def _call(self, method: str, path: str, body: bytes | None) -> Reply:
        if self._closed:
            raise NotSentError("the session is closed")
        session = self._callers or self._own or self._open()
        payload = None if body is None else _JsonBody(body)
        failure: TransportError
        try:
            with self._deadlines:
                url = self._root.with_path(self._prefix + path, encoded=True)
                response = await session.request(method, url, data=payload, **self._options)
                try:
                    content = await read_capped(response, MAX_REPLY)
                finally:
                    if not response.closed:
                        response.release()
                return Reply(response.status, response.headers, content)
        except TransportError as error:
            failure = error
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            failure = translate(error, sent=payload is not None and payload.may_be_sent)
        except RuntimeError as error:
            if not session.closed:
                raise
            failure = NotSentError(words(error))  # the caller closed their session
        raise failure from None  # outside the handler, so that not even __context__ holds aiohttp's error

    def conceal(self, body: bytes) -> bytes:
        """Strike the key out of a body, where a server repeats it."""
        for spelling in self._spellings:
            body = body.replace(spelling, b"***")
        return body

    async def aclose(self) -> None:
        """Close the connections that this transport opened."""
        self._closed = True
        self._deadlines.close()
        if self._own is not None:
            await self._own.close()
