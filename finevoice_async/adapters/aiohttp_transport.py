"""HTTP to the service through aiohttp.

One session, no cookies, no redirects, the key only to the base URL's origin. Errors leave here as words: aiohttp's
own hold the request's headers, key included.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from finevoice_async.config import API_KEY_VARIABLE, BASE_URL_VARIABLE, Timeouts
from finevoice_async.core.models import shorten
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
    """Give the key back if a header can carry it.

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
    """Give the address back without a slash at its end.

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
    """Give this library's error for one of aiohttp's.

    `sent`: aiohttp's trace said that the request's headers were written. A connector error comes before that by its
    nature; both must agree before a call counts as not sent.
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
    length = response.content_length
    if length is not None and length <= cap and "Content-Encoding" not in response.headers:
        return await response.read()  # one await for the usual small answer; the parser holds it to its length
    pieces = bytearray()
    async for piece in response.content.iter_chunked(_PIECE):
        pieces += piece
        if len(pieces) > cap:
            raise LostError(f"the reply is longer than {cap} bytes")
    return bytes(pieces)


async def _note_sent(
    _: aiohttp.ClientSession, context: SimpleNamespace, __: aiohttp.TraceRequestHeadersSentParams
) -> None:
    context.trace_request_ctx.sent = True


class _Sent:
    """Whether a request's headers were written."""

    __slots__ = ("sent",)

    def __init__(self) -> None:
        self.sent = False


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
        spellings = {key.encode(), key.replace("/", "\\/").encode()}  # JSON may write the slash as \\/
        self._spellings = spellings if len(key) >= SHORTEST_KEY else set()
        headers = {"Authorization": f"Bearer {key}", "Accept": "application/json"}
        self._get_headers = headers
        self._post_headers = headers | {"Content-Type": "application/json"}
        # No limit on the whole call: `sock_read` guards each wait, MAX_REPLY the size.
        self._timeout = aiohttp.ClientTimeout(
            total=None, connect=None, sock_connect=timeouts.connect, sock_read=timeouts.read
        )
        # All mutable state:
        self._callers = http
        self._posts: aiohttp.ClientSession | None = None  # its own: with the trace of sent headers
        self._gets: aiohttp.ClientSession | None = None  # the same connections without the trace's cost
        self._closed = False

    def __repr__(self) -> str:
        return f"<AiohttpTransport to {self._base_url}>"

    @property
    def base_url(self) -> str:
        """The service's address, without a slash at its end."""
        return self._base_url

    def _open(self) -> None:
        trace = aiohttp.TraceConfig()
        trace.on_request_headers_sent.append(_note_sent)
        connector = aiohttp.TCPConnector(limit=MAX_SOCKETS)
        jar = aiohttp.DummyCookieJar()
        self._posts = aiohttp.ClientSession(connector=connector, cookie_jar=jar, trace_configs=[trace])
        self._gets = aiohttp.ClientSession(connector=connector, connector_owner=False, cookie_jar=jar)

    async def post(self, path: str, body: bytes) -> Reply:
        """Send a JSON body."""
        return await self._call("POST", path, body)

    async def get(self, path: str) -> Reply:
        """Ask for a path, which is percent-encoded already."""
        return await self._call("GET", path, None)

    async def _call(self, method: str, path: str, body: bytes | None) -> Reply:
        if self._closed:
            raise NotSentError("the session is closed")
        if self._callers is None and self._posts is None:
            self._open()
        session = self._callers or (self._gets if body is None else self._posts)
        assert session is not None  # noqa: S101 - opened two lines above
        note = _Sent()
        failure: TransportError
        try:
            async with session.request(
                method,
                URL(self._base_url + path, encoded=True),
                data=body,
                headers=self._get_headers if body is None else self._post_headers,
                allow_redirects=False,
                timeout=self._timeout,
                trace_request_ctx=note,
            ) as response:
                return Reply(response.status, response.headers, await read_capped(response, MAX_REPLY))
        except TransportError as error:
            failure = error
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            failure = translate(error, sent=note.sent)
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
        for session in (self._gets, self._posts):
            if session is not None:
                await session.close()
