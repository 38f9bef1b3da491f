"""The decision table cell by cell, the waits, the budget."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finevoice_async.config import Retry
from finevoice_async.core.failures import FailureKind
from finevoice_async.core.retry import (
    TABLE,
    Action,
    Call,
    RetryBudget,
    backoff,
    decide,
    kind_of,
    parse_retry_after,
    retry_after_of,
    wait_before_retry,
)
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

AGAIN, HOLD, STOP, SLOW, GRACE, REFRESH, FOLLOW = (
    Action.AGAIN,
    Action.HOLD,
    Action.STOP,
    Action.SLOW_DOWN,
    Action.GRACE,
    Action.REFRESH,
    Action.FOLLOW,
)
Cell = tuple[Action, type[FineVoiceError]]

# The design's table, written a second time by hand: kind -> submit, poll, download.
CELLS: dict[FailureKind, tuple[Cell, Cell, Cell]] = {
    FailureKind.NOT_SENT: ((HOLD, SubmitNotSentError), (AGAIN, PollError), (AGAIN, DownloadError)),
    FailureKind.CERTIFICATE: ((STOP, SubmitNotSentError), (STOP, PollError), (STOP, DownloadError)),
    FailureKind.LOST: ((STOP, SubmitUnknownError), (AGAIN, PollError), (AGAIN, DownloadError)),
    FailureKind.UNREADABLE: ((STOP, SubmitUnknownError), (AGAIN, PollError), (AGAIN, DownloadError)),
    FailureKind.REDIRECT: ((STOP, SubmitUnknownError), (STOP, PollError), (FOLLOW, DownloadError)),
    FailureKind.INVALID: ((STOP, RequestRejectedError), (STOP, PollError), (STOP, DownloadError)),
    FailureKind.FORBIDDEN: ((STOP, AuthenticationError), (STOP, AuthenticationError), (REFRESH, DownloadError)),
    FailureKind.CREDITS: ((STOP, InsufficientCreditsError), (STOP, PollError), (STOP, DownloadError)),
    FailureKind.MISSING: ((STOP, RequestRejectedError), (GRACE, TaskNotFoundError), (REFRESH, DownloadError)),
    FailureKind.CONFLICT: ((STOP, SubmitUnknownError), (AGAIN, PollError), (AGAIN, DownloadError)),
    FailureKind.RATE: ((HOLD, RateLimitError), (SLOW, PollError), (AGAIN, DownloadError)),
    FailureKind.SERVER: ((STOP, SubmitUnknownError), (AGAIN, PollError), (AGAIN, DownloadError)),
}
ALL = [(kind, call, cell) for kind, row in CELLS.items() for call, cell in zip(Call, row, strict=True)]


@pytest.mark.parametrize(("kind", "call", "cell"), ALL)
def test_cell(kind: FailureKind, call: Call, cell: Cell) -> None:
    """Each cell is as the design says."""
    decision = decide(call, kind, Retry())
    assert (decision.action, decision.error) == cell


def test_table_is_complete() -> None:
    """No kind and no call is without a cell."""
    assert set(TABLE) == set(FailureKind) == set(CELLS)
    assert all(set(row) == set(Call) for row in TABLE.values())


def test_only_what_was_not_sent_or_refused_is_submitted_again() -> None:
    """Of all submissions, only those certainly not accepted are ever sent again."""
    again = {kind for kind in FailureKind if decide(Call.SUBMIT, kind, Retry()).action is not STOP}
    assert again == {FailureKind.NOT_SENT, FailureKind.RATE}


def test_who_accepts_the_risk_may_resend() -> None:
    """With resend_unknown an unknown submission is sent again, but no redirect is followed."""
    risky = Retry(resend_unknown=True)
    assert decide(Call.SUBMIT, FailureKind.SERVER, risky).action is AGAIN
    assert decide(Call.SUBMIT, FailureKind.REDIRECT, risky).action is STOP


@pytest.mark.parametrize(
    ("statuses", "kind"),
    [
        ((200, 201, 204, 299), None),
        ((300, 301, 302, 307, 308), FailureKind.REDIRECT),
        ((400, 405, 413, 422, 451), FailureKind.INVALID),
        ((401, 403), FailureKind.FORBIDDEN),
        ((402,), FailureKind.CREDITS),
        ((404, 410), FailureKind.MISSING),
        ((408, 409), FailureKind.CONFLICT),
        ((429,), FailureKind.RATE),
        ((500, 501, 502, 503, 504, 520, 599), FailureKind.SERVER),
        ((0, 100, 199, 600, 999), FailureKind.UNREADABLE),
    ],
)
def test_statuses(statuses: tuple[int, ...], kind: FailureKind | None) -> None:
    """Each HTTP status has its row."""
    assert {kind_of(status) for status in statuses} == {kind}


NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("2", 2.0),
        (" 0 ", 0.0),
        ("1.5", 1.5),
        ("-1", None),
        ("nan", None),
        ("inf", None),
        ("1e9", 1e9),
        ("soon", None),
        ("", None),
        ("Thu, 01 Jan 2026 12:00:30 GMT", 30.0),
        ("Thu, 01 Jan 2026 12:00:30", 30.0),
        ("Thu, 01 Jan 2026 11:00:00 GMT", 0.0),
        ("Thu, 99 Jan 2026 11:00:00 GMT", None),
        ("Thu, 01 Jan 99999999999999999999 11:00:00 GMT", None),
        ("Thu, 01 Jan 2026 11:00:00 +99999999999999", None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    """Seconds and dates are read; what makes no sense counts as absent."""
    assert parse_retry_after(value, NOW) == seconds


DATES = st.from_regex(r"\A(Mon, )?\d{1,22} Jan \d{1,22} \d{1,3}:\d{1,3}:\d{1,22}( [+-]?\d{1,22}| GMT)?\Z")


@given(st.text() | DATES)
def test_retry_after_never_fails(value: str) -> None:
    """No header value raises or gives a negative wait."""
    assert (parse_retry_after(value, NOW) or 0.0) >= 0


THEIRS = "Thu, 01 Jan 2026 08:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"date": THEIRS}, None),
        ({"retry-after": "7", "date": THEIRS}, 7),
        ({"retry-after": "Thu, 01 Jan 2026 08:00:30 GMT", "date": THEIRS}, 30),
        ({"retry-after": "Thu, 01 Jan 2026 07:00:00 GMT", "date": THEIRS}, 0),
        ({"retry-after": "Thu, 01 Jan 2026 12:00:30 +0400", "date": THEIRS}, 30),
        ({"retry-after": "Thu, 01 Jan 2026 11:00:30 GMT"}, 30),
        ({"retry-after": "Thu, 01 Jan 2026 11:00:30 GMT", "date": "yesterday"}, 30),
        ({"retry-after": "Thu, 01 Jan 2026 11:00:30 GMT", "date": "Thu, 01 Jan 2026 08:00:00 +999999999999"}, 30),
        ({"retry-after": "soon", "date": THEIRS}, None),
    ],
)
def test_dates_are_read_by_the_servers_clock(headers: dict[str, str], seconds: float | None) -> None:
    """A date to wait for is read against the reply's own; without one that makes sense, against our clock."""
    assert retry_after_of(headers, datetime(2026, 1, 1, 11, tzinfo=UTC)) == seconds


@given(st.text() | DATES, st.text() | DATES)
def test_no_headers_fail(value: str, date: str) -> None:
    """No pair of header values raises or gives a negative wait."""
    assert (retry_after_of({"retry-after": value, "date": date}, NOW) or 0.0) >= 0


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_backoff_is_bounded(attempt: int, luck: float) -> None:
    """Full jitter stays between nothing and the longest wait."""
    retry = Retry()
    assert 0 <= backoff(attempt, retry, luck) <= min(retry.max_delay, retry.first_delay * 2.0 ** min(attempt - 1, 60))


@given(st.floats(0, 1e12), st.floats(0, 1, exclude_max=True))
def test_retry_after_is_obeyed_within_bounds(after: float, luck: float) -> None:
    """What the service asks is a lower bound, up to max_retry_after."""
    retry = Retry()
    wait = wait_before_retry(1, retry, luck, after)
    assert min(after, retry.max_retry_after) <= wait <= retry.max_retry_after * 1.1


def test_without_a_word_of_the_service_the_backoff_counts() -> None:
    """Where the service asks for no time, the wait is the backoff of that attempt."""
    retry = Retry()
    assert [wait_before_retry(attempt, retry, 0.5, None) for attempt in (1, 2, 3, 99)] == [0.25, 0.5, 1.0, 15.0]
    assert wait_before_retry(3, retry, 0.5, 0.0) == 0.0


def test_budget_runs_out_and_recovers() -> None:
    """A storm of failures spends the budget; successes earn it back, up to its size."""
    budget = RetryBudget()
    assert sum(budget.spend() for _ in range(200)) == 100
    assert not budget.spend()
    for _ in range(5):
        budget.earn()
    assert budget.spend()
    for _ in range(10_000):
        budget.earn()
    assert budget.tokens == budget.capacity
