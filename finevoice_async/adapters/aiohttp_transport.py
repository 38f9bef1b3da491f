"""HTTP to the service through aiohttp.

One session, no cookies, no redirects, the key only to the base URL's origin. Errors leave here as words: aiohttp's
own hold the request's headers, key included.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable
from contextlib import AbstractContextManager
from pathlib import PurePath
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from multidict import CIMultiDict
from yarl import URL

from finevoice_async.adapters.fresh_connector import FreshConnector, was_connected
from finevoice_async.config import BASE_URL_VARIABLE, Timeouts, check_api_key, check_base_url
from finevoice_async.core.failures import Failure, FailureKind
from finevoice_async.core.secrets import make_concealer
from finevoice_async.core.wire import Reply
from finevoice_async.errors import ConfigurationError
from finevoice_async.ports import UnsentCancelledError
from finevoice_async.reprs import with_safe_repr

MAX_REPLY: Final = 1024 * 1024
"""Bytes that are read of a reply. Real ones have under 2 KB; a proxy's error page may have 100."""

MAX_ACCEPTED: Final = 32 * 1024 * 1024
"""Bytes that are read of the answer to a submission that was accepted, and so paid for. The task id may stand at its
end, and a synchronous answer might carry its audio: 30 s of stereo at 96 kHz and 32 bits, in base64, have 31 MB."""

MAX_SOCKETS: Final = 64
"""Connections to the service at most, whatever is in flight: polls and submissions take turns on them."""

_PIECE: Final = 64 * 1024


def words(error: BaseException) -> str:
    """Describe an error by its kind and its system error, never by its own text, which may hold a header.

    What is neither aiohttp's nor the system's, as of a middleware of the caller's, also by its place.
    """
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "the host name could not be resolved"
    if not isinstance(error, aiohttp.ClientError | OSError) and error.__traceback__ is not None:
        *_, (frame, line) = traceback.walk_tb(error.__traceback__)
        return f"{type(error).__name__} at line {line} of {PurePath(frame.f_code.co_filename).name}"
    cause = getattr(error, "os_error", None) or (error if isinstance(error, OSError) else None)
    reason = cause.strerror if isinstance(cause, OSError) and isinstance(cause.strerror, str) else None
    return f"{type(error).__name__}: {reason}" if reason else type(error).__name__


def translate(error: BaseException, *, sent: bool) -> Failure:
    """Return the failure that an error of aiohttp's, or of the caller's own code below it, stands for.

    `sent`: something of the request may have been written. Else nothing was, whatever the error is.
    """
    if sent:
        return Failure(FailureKind.LOST, words(error))
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ServerFingerprintMismatch):
        return Failure(FailureKind.CERTIFICATE, "the server's certificate is not trusted")
    if isinstance(error, RuntimeError) and str(error) == "Session is closed":
        return Failure(FailureKind.NOT_SENT, "the session is closed")
    return Failure(FailureKind.NOT_SENT, words(error))


def _read_at_once(content: aiohttp.StreamReader) -> bytes | None:
    """Read a small answer, which comes in one piece with its headers; None, and nothing is read, if it is none."""
    small = content.is_eof() and content.exception() is None and content.total_bytes <= MAX_REPLY
    return content.read_nowait() if small else None


async def _read(response: aiohttp.ClientResponse, cap: int, into: bytearray) -> bool:
    """Read a body, decompressed, and tell whether it was whole; not if it has over `cap` bytes.

    Raises:
        Exception: It breaks off. What came until then is in `into`.
    """
    content = response.content
    try:
        async for piece in content.iter_chunked(_PIECE):
            into += piece
            if len(into) > cap:
                break
    except BaseException:
        if content.exception() is not None:
            content.set_exception(None)  # type: ignore[arg-type]  # aiohttp keeps behind it what came before
        into += content.read_nowait()
        raise
    finally:
        whole = len(into) <= cap
        del into[cap:]
    return whole


def _parse(base_url: str) -> URL:
    try:
        return URL(base_url)
    except ValueError as error:
        raise ConfigurationError(
            f"The base URL cannot be used: {error}. It comes from base_url or {BASE_URL_VARIABLE}."
        ) from None


class _JsonBody(aiohttp.BytesPayload):
    """A body that knows whether anything of its request may have been written.

    aiohttp keeps the headers back until it asks the body for its bytes, and writes both at once. A trace of the
    session would tell the same for about 8 % of a request's cost, and nothing in a session of the caller's.
    """

    def __init__(self, value: bytes) -> None:
        super().__init__(value, content_type="application/json")
        self.may_be_sent = False
        self._called_off = False

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """Write it, and say so first."""
        transport = writer.transport
        if self._called_off or transport is None or transport.is_closing():
            raise aiohttp.ClientConnectionResetError("nothing was written")
        before, known = writer.output_size, self.may_be_sent
        self.may_be_sent = True
        try:
            await super().write_with_length(writer, content_length)
        except BaseException:
            if writer.output_size == before:  # a hook of the caller's raised, which aiohttp calls first
                self.may_be_sent = known
            raise

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write it."""
        await self.write_with_length(writer, None)

    def call_off(self) -> bool:
        """Give no bytes from now on, whoever goes on with the call, and tell whether any may have left."""
        self._called_off = True
        return self.may_be_sent


def _was_written(tracker: aiohttp.UploadTracker) -> bool:
    """Tell whether a call that has failed was written, or is being so still."""
    outcome = tracker.upload_complete
    return outcome.exception() is None if outcome.done() else tracker.attempts > 0


def _may_be_sent(error: BaseException, payload: _JsonBody | None, tracker: aiohttp.UploadTracker | None) -> bool:
    """Tell whether anything of a call that has failed may have been written; its body will not be from now on."""
    given = payload is not None and payload.call_off()
    if tracker is not None:  # the caller's session, where another body may be in place
        return given or _was_written(tracker)
    return given if payload is not None else was_connected(error)


def _must_leave(error: BaseException) -> bool:
    """Tell whether an error is the loop's or the process's: not a `CancelledError` that nobody asked for."""
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is None or task.cancelling() > 0
    return isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit)


@with_safe_repr
class AiohttpTransport:
    """Posts and gets with one key at one origin."""

    def __init__(
        self,
        base_url: str,
        api_key: str | None,
        timeouts: Timeouts,
        http: aiohttp.ClientSession | None = None,
        *,
        deadline: AbstractContextManager[None],
    ) -> None:
        """Check the address and the key; connect later.

        Args:
            base_url: The service's address.
            api_key: The key, sent as a bearer token.
            timeouts: `connect` is used.
            http: A session of the caller's, used and never closed.
            deadline: Entered for each call without one of its own, by many at once; `TimeoutError` leaves it when
                the call's time is up.

        Raises:
            ConfigurationError: The address or the key cannot work.
        """
        self._base_url = check_base_url(base_url)
        key = check_api_key(api_key)
        self._conceal = make_concealer(key)
        self._headers = CIMultiDict({"Authorization": f"Bearer {key}", "Accept": "application/json"})
        self._root = _parse(self._base_url)
        self._prefix = self._root.raw_path.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=timeouts.connect, sock_read=None)
        # A session of our own has these already, which is cheaper: it has one origin.
        callers = {"headers": self._headers, "timeout": self._timeout}
        always = {"allow_redirects": False, "raise_for_status": False}
        self._options: dict[str, Any] = always | ({} if http is None else callers)
        # All mutable state:
        self._callers = http
        self._own: aiohttp.ClientSession | None = None
        self._connector: FreshConnector | None = None  # of our own session
        self._deadline = deadline
        self._urls: dict[str, URL] = {}  # what is posted to: there is one
        self._closed = False

    def __repr__(self) -> str:
        return f"<AiohttpTransport to {self._base_url}>"

    @property
    def base_url(self) -> str:
        """The service's address, without a slash at its end."""
        return self._base_url

    def _open(self) -> aiohttp.ClientSession:
        self._connector = FreshConnector(limit=MAX_SOCKETS)
        self._own = aiohttp.ClientSession(
            connector=self._connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._headers,
            timeout=self._timeout,
        )
        return self._own

    def post(self, path: str, body: bytes, *, deadline: AbstractContextManager[None] | None = None) -> Awaitable[Reply]:
        """Send a JSON body."""
        url = self._urls.get(path)
        if url is None:
            url = self._urls[path] = self._url(path)
        return self._call("POST", url, body, self._deadline if deadline is None else deadline)

    def get(self, path: str) -> Awaitable[Reply]:
        """Ask for a path, which is percent-encoded already."""
        return self._call("GET", self._url(path), None, self._deadline)

    def _url(self, path: str) -> URL:
        return self._root.with_path(self._prefix + path, encoded=True)

    async def _call(self, method: str, url: URL, body: bytes | None, deadline: AbstractContextManager[None]) -> Reply:
        if self._closed:
            raise Failure(FailureKind.NOT_SENT, "the session is closed")
        session = self._callers or self._own or self._open()
        payload = None if body is None else _JsonBody(body)
        tracker = None if self._callers is None else aiohttp.UploadTracker()
        response: aiohttp.ClientResponse | None = None
        small: bytes | None = None
        content, whole = bytearray(), False  # where it is not small
        try:
            with deadline:
                if payload is not None and self._connector is not None:
                    self._connector.close_old()
                elif payload is not None:  # the caller's connections may be old
                    await asyncio.sleep(0)  # the loop hears what was closed meanwhile, also if it was blocked
                    await asyncio.sleep(0)  # now it has done what it heard just before
                response = await session.request(method, url, data=payload, upload_tracker=tracker, **self._options)
                try:
                    small = _read_at_once(response.content)
                    whole = small is not None
                    if not whole:
                        accepted = payload is not None and 200 <= response.status < 300
                        whole = await _read(response, MAX_ACCEPTED if accepted else MAX_REPLY, content)
                finally:
                    if not response.closed:
                        response.release()
        except BaseException as error:
            sent = _may_be_sent(error, payload, tracker)
            if _must_leave(error):
                if isinstance(error, asyncio.CancelledError) and payload is not None and not sent:
                    raise UnsentCancelledError(*error.args) from None
                raise
            failure = translate(error, sent=sent)
        if response is not None:  # of a reply that broke off, what came is worth more than the reason
            return Reply(response.status, response.headers, bytes(content) if small is None else small, whole)
        raise failure from None  # outside the handler, so that not even __context__ holds aiohttp's error

    def conceal(self, body: bytes) -> bytes:
        """Strike the key out of a body, where a server repeats it."""
        return self._conceal(body)

    async def aclose(self) -> None:
        """Close the connections that this transport opened. Idempotent."""
        self._closed = True
        if self._own is not None:
            await self._own.close()
