"""What is tried again, what never is, and when: the decision table, the waits and the budget.

The table is the whole policy. A call's symptom and its kind give a verdict; nothing else decides. It is strict for
submissions because the service bills what it accepts and has no idempotency key: once a POST may have left, only the
caller can send it again.
"""

from __future__ import annotations

import enum
import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import attrs

from finevoice_async.config import Retry
from finevoice_async.errors import (
    AuthenticationError,
    DownloadError,
    FineVoiceError,
    InsufficientCreditsError,
    PollError,
    RateLimitError,
    RequestRejectedError,
    SubmitNotSentError,
    SubmitUnknownError,
    TaskNotFoundError,
)


class Call(enum.Enum):
    """The three kinds of calls."""

    SUBMIT = "submit"
    POLL = "poll"
    DOWNLOAD = "download"


class Symptom(enum.Enum):
    """How a call can go wrong."""

    NOT_SENT = "not sent"  # DNS, refused, connect timeout, TLS handshake: the connection itself failed
    CERTIFICATE = "certificate"  # the server is not who it says
    LOST = "lost"  # the connection or the reply was lost once anything may have been written
    UNREADABLE = "unreadable"  # 2xx, but not what it should be
    REDIRECT = "redirect"  # 3xx
    INVALID = "invalid"  # 400, 413, 422 and other 4xx
    FORBIDDEN = "forbidden"  # 401, 403
    CREDITS = "credits"  # 402
    MISSING = "missing"  # 404, 410
    CONFLICT = "conflict"  # 408, 409: the gateway lost its patience, or holds a twin
    RATE = "rate"  # 429
    SERVER = "server"  # 5xx: a gateway may have passed the call on


class Verdict(enum.Enum):
    """What to do about it."""

    AGAIN = "again"  # after a backoff
    SLOW_DOWN = "slow down"  # again, after what the service asks, and everything slower
    GRACE = "grace"  # again while the task is young, then the error
    REFRESH = "refresh"  # ask the task once for a fresh link
    FOLLOW = "follow"  # to the next address, which is checked anew, a few times
    STOP = "stop"  # the error, now


@attrs.frozen
class Decision:
    """A cell of the table: what to do, and the error when nothing more is to be done."""

    verdict: Verdict
    error: type[FineVoiceError]


def _row(submit: Decision, poll: Decision, download: Decision) -> dict[Call, Decision]:
    return {Call.SUBMIT: submit, Call.POLL: poll, Call.DOWNLOAD: download}


_UNKNOWN = Decision(Verdict.STOP, SubmitUnknownError)
_POLL_AGAIN = Decision(Verdict.AGAIN, PollError)
_POLL_STOP = Decision(Verdict.STOP, PollError)
_FETCH_AGAIN = Decision(Verdict.AGAIN, DownloadError)
_FETCH_STOP = Decision(Verdict.STOP, DownloadError)
_FETCH_REFRESH = Decision(Verdict.REFRESH, DownloadError)
_REFUSED_KEY = Decision(Verdict.STOP, AuthenticationError)
_REJECTED = Decision(Verdict.STOP, RequestRejectedError)

TABLE: dict[Symptom, dict[Call, Decision]] = {
    Symptom.NOT_SENT: _row(Decision(Verdict.AGAIN, SubmitNotSentError), _POLL_AGAIN, _FETCH_AGAIN),
    Symptom.CERTIFICATE: _row(Decision(Verdict.STOP, SubmitNotSentError), _POLL_STOP, _FETCH_STOP),
    Symptom.LOST: _row(_UNKNOWN, _POLL_AGAIN, _FETCH_AGAIN),
    Symptom.UNREADABLE: _row(_UNKNOWN, _POLL_AGAIN, _FETCH_AGAIN),
    Symptom.REDIRECT: _row(_UNKNOWN, _POLL_STOP, Decision(Verdict.FOLLOW, DownloadError)),
    Symptom.INVALID: _row(_REJECTED, _POLL_STOP, _FETCH_STOP),
    Symptom.FORBIDDEN: _row(_REFUSED_KEY, _REFUSED_KEY, _FETCH_REFRESH),
    Symptom.CREDITS: _row(Decision(Verdict.STOP, InsufficientCreditsError), _POLL_STOP, _FETCH_STOP),
    Symptom.MISSING: _row(_REJECTED, Decision(Verdict.GRACE, TaskNotFoundError), _FETCH_REFRESH),
    Symptom.CONFLICT: _row(_UNKNOWN, _POLL_AGAIN, _FETCH_AGAIN),
    Symptom.RATE: _row(
        Decision(Verdict.SLOW_DOWN, RateLimitError), Decision(Verdict.SLOW_DOWN, PollError), _FETCH_AGAIN
    ),
    Symptom.SERVER: _row(_UNKNOWN, _POLL_AGAIN, _FETCH_AGAIN),
}

_BY_STATUS = {
    401: Symptom.FORBIDDEN,
    402: Symptom.CREDITS,
    403: Symptom.FORBIDDEN,
    404: Symptom.MISSING,
    408: Symptom.CONFLICT,
    409: Symptom.CONFLICT,
    410: Symptom.MISSING,
    429: Symptom.RATE,
}
_BY_CLASS = {3: Symptom.REDIRECT, 4: Symptom.INVALID, 5: Symptom.SERVER}


def symptom_of(status: int) -> Symptom | None:
    """Give what an HTTP status means; None for 2xx. An impossible status is an unreadable reply."""
    if 200 <= status < 300:
        return None
    return _BY_STATUS.get(status) or _BY_CLASS.get(status // 100, Symptom.UNREADABLE)


def decide(call: Call, symptom: Symptom, retry: Retry) -> Decision:
    """Look the cell up. `resend_unknown` is the caller's word that paying twice is fine."""
    decision = TABLE[symptom][call]
    if retry.resend_unknown and decision.error is SubmitUnknownError and symptom is not Symptom.REDIRECT:
        return Decision(Verdict.AGAIN, SubmitUnknownError)
    return decision


def backoff(attempt: int, retry: Retry, luck: float) -> float:
    """Give the wait in seconds after failed attempt number `attempt` (from 1), with full jitter.

    `luck` is drawn evenly from [0, 1). Full jitter spreads a crowd best (AWS Architecture Blog, "Exponential
    Backoff And Jitter", 2015).
    """
    ceiling = min(retry.max_delay, retry.first_delay * 2.0 ** min(attempt - 1, 60))
    return luck * ceiling


def wait_before_retry(attempt: int, retry: Retry, luck: float, retry_after: float | None) -> float:
    """Give the wait in seconds: what the service asked for, else the backoff.

    A tenth of jitter goes on top of the service's number, so that clients told the same do not return together.
    """
    if retry_after is None:
        return backoff(attempt, retry, luck)
    return min(retry_after, retry.max_retry_after) * (1 + 0.1 * luck)


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Read a `Retry-After` header: seconds or an HTTP date (RFC 9110, 10.2.3).

    Gives seconds from `now`, never negative; None if the header is missing or makes no sense.
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
        except ValueError:
            return None
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        return max((date - now).total_seconds(), 0.0)
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


@attrs.define(eq=False)
class RetryBudget:
    """The session's allowance for retries: a storm of failures must not become a storm of retries.

    A bucket of tokens, as in botocore's standard retry mode: a retry takes 5 of 500, a success gives 1 back.
    """

    capacity: float = 500.0
    cost: float = 5.0
    refund: float = 1.0
    tokens: float = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.tokens = self.capacity

    def spend(self) -> bool:
        """Pay for one retry; False if there is nothing left to pay with."""
        if self.tokens < self.cost:
            return False
        self.tokens -= self.cost
        return True

    def earn(self) -> None:
        """A call succeeded."""
        self.tokens = min(self.capacity, self.tokens + self.refund)
