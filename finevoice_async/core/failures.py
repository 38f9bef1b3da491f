"""What went wrong with one call, in words that hold no secret, and what to advise whoever reads them."""

from __future__ import annotations

import enum

from finevoice_async.core.text import sentence
from finevoice_async.errors import (
    AuthenticationError,
    FineVoiceError,
    InsufficientCreditsError,
    PollError,
    RateLimitError,
    RequestRejectedError,
    SubmitNotSentError,
    SubmitUnknownError,
    TaskNotFoundError,
)

ADVICE: dict[type[FineVoiceError], str] = {
    SubmitNotSentError: "Nothing was sent and nothing paid; it is safe to submit it again.",
    SubmitUnknownError: "The request may have been accepted and paid for, so it was not sent again. Look at your "
    "account before you do.",
    AuthenticationError: "Check the API key. Tasks that were submitted keep their ids and run on.",
    InsufficientCreditsError: "Nothing was paid for this request. Tasks that were submitted run on.",
    RequestRejectedError: "Nothing was paid for it; change the request before you submit it again.",
    RateLimitError: "Nothing was paid for this request. Lower max_concurrency to what your plan allows, or try later.",
    PollError: "The task may still run; attach(task_id) asks on.",
    TaskNotFoundError: "Check the id, and that the key is of the account that submitted it.",
}


def advised(what: str, kind: type[FineVoiceError]) -> str:
    """Return what went wrong as a sentence, with the advice that such an error has, if any."""
    return f"{sentence(what)} {ADVICE.get(kind, '')}".rstrip()


def without_advice(words: str) -> str:
    """Return a message without the advice at its end, to be told as part of another, whose advice counts."""
    for advice in ADVICE.values():
        words = words.removesuffix(advice).rstrip()
    return words


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
        request_id: The service's name for the call.
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
        request_id: str | None = None,
        task_id: str | None = None,
    ) -> None:
        super().__init__(what)
        self.kind = kind
        self.what = what
        self.status = status
        self.code = code
        self.body = body
        self.retry_after = retry_after
        self.request_id = request_id
        self.task_id = task_id
