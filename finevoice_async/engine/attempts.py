"""One download over all its attempts: how far it has come, and whether a reply goes on from there."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import attrs

from finevoice_async.core import media
from finevoice_async.core import retry as policy
from finevoice_async.core.audio import EndCheck
from finevoice_async.core.contents import compression_of, length_of, redirected, span_of, validator_of
from finevoice_async.core.failures import Failure, FailureKind
from finevoice_async.core.media import Media, Verdict
from finevoice_async.ports import Body, Clock

_HEAD: Final = 64
"""Bytes of the beginning by which the kind of audio is known."""


@attrs.frozen
class _Whole:
    """What a reply with the whole file says of it."""

    total: int | None = None
    validator: str | None = None  # a strong ETag: the only proof that a continued file is the same file
    content_type: str | None = None


@attrs.define(eq=False)
class Progress:
    """How far one download has come, over all its attempts."""

    url: str = attrs.field(repr=False)  # it may carry a signature
    limit: int  # bytes at most
    received: int = 0  # and given out
    attempt: int = 1
    refreshed: bool = False  # a fresh link was used
    _file: _Whole = _Whole()  # what is being received
    _new: _Whole | None = None  # what the reply under way begins anew with, once its first bytes are found to be audio
    _held: bytearray = attrs.field(factory=bytearray)  # those first bytes
    _head: bytearray = attrs.field(factory=bytearray)  # the first bytes that were given out
    _check: EndCheck = attrs.field(factory=EndCheck)

    def restart(self) -> None:
        """Begin anew: what has come is void."""
        self._begin(_Whole())

    def _begin(self, file: _Whole) -> None:
        self.received = 0
        self._file, self._new = file, None
        self._check = EndCheck()
        self._head.clear()

    def move_to(self, url: str) -> None:
        """Go on at another link; from the beginning, unless only its signature is another."""
        if _mark(url) != _mark(self.url):
            self.restart()
        self.url = url

    @property
    def is_known(self) -> bool:
        """Whether no more bytes are needed to tell what kind of audio it is."""
        return len(self._head) >= _HEAD

    @property
    def content(self) -> Media | None:
        """What has come, by its first bytes."""
        return media.of_content(self._head)

    @property
    def media(self) -> Media | None:
        """What has come, by its first bytes; where they are of no kind that is known, as the server says."""
        return self.content or media.of_type(self._file.content_type)

    @property
    def is_complete(self) -> bool:
        """Whether all has come, as far as its length is known."""
        return 0 < self.received == self._file.total

    # Across a crash

    def note(self) -> dict[str, Any] | None:
        """Return what it takes to go on in another process; None if nothing would prove that it is the same file."""
        file = self._file
        if file.validator is None or file.total is None:
            return None
        return {"link": _mark(self.url), "etag": file.validator, "total": file.total, "type": file.content_type}

    def resume(self, received: int, head: bytes, note: Mapping[str, Any]) -> bool:
        """Go on where another process came to; False if what it left is not of this link."""
        match note:
            case {"link": link, "etag": str(etag), "total": int(total), "type": None | str() as kind}:
                validator = validator_of({"etag": etag})
                if link == _mark(self.url) and validator is not None and 0 < received <= total <= self.limit:
                    self._begin(_Whole(total, validator, kind))
                    self.received = received
                    self._head += head
                    return True
        return False

    # One attempt

    def headers(self) -> dict[str, str]:
        """Return what goes with the next request."""
        self._held.clear()
        self._new = None
        if not self.received:
            return {}
        if self._file.validator is None:
            self.restart()
            return {}
        return {"Range": f"bytes={self.received}-", "If-Range": self._file.validator}

    def start(self, body: Body) -> None:
        """Decide where a body goes on, and how long the whole is.

        Raises:
            Failure: It is not what was asked for.
        """
        headers = body.headers
        compression = compression_of(headers)
        if compression is not None:
            raise Failure(FailureKind.INVALID, f"it is compressed ({compression}), which was not asked for")
        if body.status == 206:
            self._go_on(headers)
            return
        # A 200 is the whole file, also to a request for a range.
        self._new = new = _Whole(length_of(headers), validator_of(headers), headers.get("content-type", "")[:100])
        if new.total is not None and new.total > self.limit:
            raise Failure(FailureKind.INVALID, f"it has {new.total} bytes; at most {self.limit} are fetched")

    def _go_on(self, headers: Mapping[str, str]) -> None:
        span, file = span_of(headers), self._file
        same = "etag" not in headers or validator_of(headers) == file.validator
        if not self.received or span is None or span.first != self.received or not same:
            self.restart()
            raise Failure(FailureKind.UNREADABLE, "the server sent another range than was asked for", status=206)
        if span.total is not None and file.total is not None and span.total != file.total:
            self.restart()
            raise Failure(FailureKind.UNREADABLE, "the file changed on the way", status=206)
        self._file = attrs.evolve(file, total=span.total or file.total)

    def take(self, piece: bytes) -> bytes:
        """Take the next bytes; return those that may be given out.

        Raises:
            Failure: They are no audio, or too many.
        """
        if self._new is not None:
            self._held += piece
            piece = self._judge(self._new, complete=False)
        return self._give(piece)

    def rest(self) -> bytes:
        """Return what is still to be given out at the end of a body.

        Raises:
            Failure: It is no audio, or nothing came.
        """
        if self._new is None:
            return b""
        if not self._held and self._new.total:
            raise Failure(FailureKind.LOST, f"0 of {self._new.total} bytes came")
        return self._give(self._judge(self._new, complete=True))

    def _judge(self, new: _Whole, *, complete: bool) -> bytes:
        """Return the first bytes once they are found to be audio, or something unknown."""
        verdict = media.judge(self._held, complete=complete)
        if verdict is Verdict.MORE:
            return b""
        if verdict is not Verdict.PASSES:
            raise Failure(FailureKind.UNREADABLE, f"the server answered 200, but {verdict.value}", status=200)
        self._begin(new)  # only now: a page that comes in between takes nothing away
        piece = bytes(self._held)
        self._held.clear()
        return piece

    def _give(self, piece: bytes) -> bytes:
        if not self.is_known:
            self._head += piece[: _HEAD - len(self._head)]
        self.received += len(piece)
        if self.received > self.limit:
            raise Failure(FailureKind.INVALID, f"it has more than {self.limit} bytes")
        if self._file.total is None:
            self._check.feed(piece)
        return piece

    def end(self) -> None:
        """Check that a body that ended was the whole.

        Raises:
            Failure: It was not.
        """
        total = self._file.total
        if total is None:
            problem = self._check.problem()
        else:
            problem = None if self.received == total else f"{self.received} of {total} bytes came"
        if problem is not None:
            if total is None or self.received > total:
                self.restart()
            raise Failure(FailureKind.LOST, problem)


def check_status(url: str, body: Body, clock: Clock) -> str | None:
    """Return the address of a redirect, None for a body to read.

    Raises:
        Failure: It is anything else.
    """
    kind = policy.kind_of(body.status)
    if kind is FailureKind.REDIRECT and "location" in body.headers:
        address = redirected(url, body.headers["location"])
        if address is None:
            raise Failure(FailureKind.INVALID, "its link was redirected to what is not a URL", status=body.status)
        return address
    if kind is None and body.status in (200, 206):
        return None
    if body.status == 416:
        kind = FailureKind.UNREADABLE
    after = policy.retry_after_of(body.headers, clock.utcnow())
    raise Failure(
        kind or FailureKind.UNREADABLE, f"the server answered {body.status}", status=body.status, retry_after=after
    )


def _mark(url: str) -> str:
    """Return what tells a link from others: without its query, which holds a signature that is new each time."""
    return hashlib.sha256(url.partition("#")[0].partition("?")[0].encode("utf-8", "replace")).hexdigest()
