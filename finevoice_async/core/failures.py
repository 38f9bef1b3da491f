"""What went wrong with one call, in words that hold no secret."""

from __future__ import annotations

import enum


class FailureKind(enum.Enum):
    """How a call can go wrong."""

    NOT_SENT = "not sent"  # DNS, refused, connect timeout, TLS handshake: the connection itself failed
    CERTIFICATE = "certificate"  # the server is not who it says; nothing was sent
    LOST = "lost"  # the connection or the reply was lost once anything may have been written
    UNREADABLE = "unreadable"  # 2xx, but not what it should be
    REDIRECT = "redirect"  # 3xx
    INVALID = "invalid"  # 400, 413, 422 and other 4xx; a link that must not be followed
    FORBIDDEN = "forbidden"  # 401, 403
    CREDITS = "credits"  # 402
    MISSING = "missing"  # 404, 410
    CONFLICT = "conflict"  # 408, 409: the gateway lost its patience, or holds a twin
    RATE = "rate"  # 429
    SERVER = "server"  # 5xx: a gateway may have passed the call on


class Failure(Exception):  # noqa: N818 - as often a value as an exception: the poller is handed it
    """One call that failed: raised by what speaks to the network, handed on as a value, and never shown as it is.

    Attributes:
        kind: How it went wrong.
        what: The same in words, without a full stop.
        status: The HTTP status, if there was a reply.
        code: The service's own error code.
        body: The reply's text.
        retry_after: Seconds that the service asks to wait.
        task_id: An id that came with a reply which could not be read whole.
    """

    def __init__(
        self,
        kind: FailureKind,
        what: str,
        *,
        status: int | None = None,
        code: str | None = None,
        body: str | None = None,
        retry_after: float | None = None,
        task_id: str | None = None,
    ) -> None:
        super().__init__(what)
        self.kind = kind
        self.what = what
        self.status = status
        self.code = code
        self.body = body
        self.retry_after = retry_after
        self.task_id = task_id
