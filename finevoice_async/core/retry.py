"""What is tried again, what never is, and when: the decision table, the waits and the budget.

The table is the whole policy. A failure's kind and the call's give an action; nothing else decides. It is strict for
submissions because the service bills what it accepts and has no idempotency key: once a POST may have left, only the
caller can send it again.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import attrs

from finevoice_async.config import Retry
from finevoice_async.core.failures import FailureKind
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


class Action(enum.Enum):
    """What to do about it."""

    AGAIN = "again"  # after a backoff
    HOLD = "hold"  # again once the service can take it: see `core.brake`
    SLOW_DOWN = "slow down"  # again, after what the service asks, and everything slower
    GRACE = "grace"  # again while the task is young, then the error
    REFRESH = "refresh"  # ask the task once for a fresh link
    FOLLOW = "follow"  # to the next address, which is checked anew, a few times
    STOP = "stop"  # the error, now


@attrs.frozen(eq=False)
class Decision:
    """A cell of the table: what to do, and the error when nothing more is to be done."""

    action: Action
    error: type[FineVoiceError]


def _row(submit: Decision, poll: Decision, download: Decision) -> dict[Call, Decision]:
    return {Call.SUBMIT: submit, Call.POLL: poll, Call.DOWNLOAD: download}


_UNKNOWN = Decision(Action.STOP, SubmitUnknownError)
_POLL_AGAIN = Decision(Action.AGAIN, PollError)
_POLL_STOP = Decision(Action.STOP, PollError)
_FETCH_AGAIN = Decision(Action.AGAIN, DownloadError)
_FETCH_STOP = Decision(Action.STOP, DownloadError)
_FETCH_REFRESH = Decision(Action.REFRESH, DownloadError)
_REFUSED_KEY = Decision(Action.STOP, AuthenticationError)
_REJECTED = Decision(Action.STOP, RequestRejectedError)

TABLE: dict[FailureKind, dict[Call, Decision]] = {
    FailureKind.NOT_SENT: _row(Decision(Action.HOLD, SubmitNotSentError), _POLL_AGAIN, _FETCH_AGAIN),
    FailureKind.CERTIFICATE: _row(Decision(Action.STOP, SubmitNotSentError), _POLL_STOP, _FETCH_STOP),
    FailureKind.LOST: _row(_UNKNOWN, _POLL_AGAIN, _FETCH_AGAIN),
    FailureKind.UNREADABLE: _row(_UNKNOWN, _POLL_AGAIN, _FETCH_AGAIN),
    FailureKind.REDIRECT: _row(_UNKNOWN, _POLL_STOP, Decision(Action.FOLLOW, DownloadError)),
    FailureKind.INVALID: _row(_REJECTED, _POLL_STOP, _FETCH_STOP),
    FailureKind.FORBIDDEN: _row(_REFUSED_KEY, _REFUSED_KEY, _FETCH_REFRESH),
    FailureKind.CREDITS: _row(Decision(Action.STOP, InsufficientCreditsError), _POLL_STOP, _FETCH_STOP),
    FailureKind.MISSING: _row(_REJECTED, Decision(Action.GRACE, TaskNotFoundError), _FETCH_REFRESH),
    FailureKind.CONFLICT: _row(_UNKNOWN, _POLL_AGAIN, _FETCH_AGAIN),
    FailureKind.RATE: _row(Decision(Action.HOLD, RateLimitError), Decision(Action.SLOW_DOWN, PollError), _FETCH_AGAIN),
    FailureKind.SERVER: _row(_UNKNOWN, _POLL_AGAIN, _FETCH_AGAIN),
}

_BY_STATUS = {
    401: FailureKind.FORBIDDEN,
    402: FailureKind.CREDITS,
    403: FailureKind.FORBIDDEN,
    404: FailureKind.MISSING,
    408: FailureKind.CONFLICT,
    409: FailureKind.CONFLICT,
    410: FailureKind.MISSING,
    429: FailureKind.RATE,
}
_BY_CLASS = {3: FailureKind.REDIRECT, 4: FailureKind.INVALID, 5: FailureKind.SERVER}


def kind_of(status: int) -> FailureKind | None:
    """Return what an HTTP status means; None for 2xx. An impossible status is an unreadable reply."""
    if 200 <= status < 300:
        return None
    return _BY_STATUS.get(status) or _BY_CLASS.get(status // 100, FailureKind.UNREADABLE)


def decide(call: Call, kind: FailureKind, retry: Retry) -> Decision:
    """Look the cell up. `resend_unknown` is the caller's word that paying twice is fine."""
    decision = TABLE[kind][call]
    if retry.resend_unknown and decision.error is SubmitUnknownError and kind is not FailureKind.REDIRECT:
        return Decision(Action.AGAIN, SubmitUnknownError)
    return decision


def backoff(attempt: int, retry: Retry, luck: float) -> float:
    """Return the wait in seconds after failed attempt number `attempt` (from 1), with full jitter.

    `luck` is drawn evenly from [0, 1). Full jitter spreads a crowd best (AWS Architecture Blog, "Exponential
    Backoff And Jitter", 2015).
    """
    ceiling = min(retry.max_delay, retry.first_delay * 2.0 ** min(attempt - 1, 60))
    return luck * ceiling


def wait_before_retry(attempt: int, retry: Retry, luck: float, retry_after: float | None) -> float:
    """Return the wait in seconds: what the service asked for, else the backoff.

    A tenth of jitter goes on top of the service's number, so that clients told the same do not return together.
    """
    if retry_after is None:
        return backoff(attempt, retry, luck)
    return min(retry_after, retry.max_retry_after) * (1 + 0.1 * luck)


def retry_after_of(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the seconds that a reply asks to wait, None if it does not say.

    A date in it is read against the reply's own `Date`: the server's clock wrote both, and ours may be wrong.

    Args:
        headers: The reply's, found by their lower-case names.
        now: Our own date and time, for a reply without one.
    """
    value = headers.get("retry-after")
    return None if value is None else parse_retry_after(value, _parse_date(headers.get("date", "")) or now)


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Return the seconds of a `Retry-After` header: a number, or an HTTP date (RFC 9110, 10.2.3) less `now`.

    Never negative; None if the header is missing or makes no sense.
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        date = _parse_date(value)
        return None if date is None else max((date - now).total_seconds(), 0.0)
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _parse_date(value: str) -> datetime | None:
    """Return an HTTP date; None for anything else."""
    try:
        date = parsedate_to_datetime(value)
    except (ArithmeticError, LookupError, TypeError, ValueError):  # a year or an offset of a dozen digits, and others
        return None
    return date.replace(tzinfo=UTC) if date.tzinfo is None else date


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
