"""The decision table cell by cell, the waits, the budget."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finevoice_async.config import Retry
from finevoice_async.core.retry import (
    TABLE,
    Call,
    RetryBudget,
    Symptom,
    Verdict,
    backoff,
    decide,
    parse_retry_after,
    symptom_of,
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

AGAIN, STOP, SLOW, GRACE, REFRESH, FOLLOW = (
    Verdict.AGAIN,
    Verdict.STOP,
    Verdict.SLOW_DOWN,
    Verdict.GRACE,
    Verdict.REFRESH,
    Verdict.FOLLOW,
)
Cell = tuple[Verdict, type[FineVoiceError]]

# The design's table, written a second time by hand: symptom -> submit, poll, download.
CELLS: dict[Symptom, tuple[Cell, Cell, Cell]] = {
    Symptom.NOT_SENT: ((AGAIN, SubmitNotSentError), (AGAIN, PollError), (AGAIN, DownloadError)),
    Symptom.CERTIFICATE: ((STOP, SubmitNotSentError), (STOP, PollError), (STOP, DownloadError)),
    Symptom.LOST: ((STOP, SubmitUnknownError), (AGAIN, PollError), (AGAIN, DownloadError)),
    Symptom.UNREADABLE: ((STOP, SubmitUnknownError), (AGAIN, PollError), (AGAIN, DownloadError)),
    Symptom.REDIRECT: ((STOP, SubmitUnknownError), (STOP, PollError), (FOLLOW, DownloadError)),
    Symptom.INVALID: ((STOP, RequestRejectedError), (STOP, PollError), (STOP, DownloadError)),
    Symptom.FORBIDDEN: ((STOP, AuthenticationError), (STOP, AuthenticationError), (REFRESH, DownloadError)),
    Symptom.CREDITS: ((STOP, InsufficientCreditsError), (STOP, PollError), (STOP, DownloadError)),
    Symptom.MISSING: ((STOP, RequestRejectedError), (GRACE, TaskNotFoundError), (REFRESH, DownloadError)),
    Symptom.CONFLICT: ((STOP, SubmitUnknownError), (AGAIN, PollError), (AGAIN, DownloadError)),
    Symptom.RATE: ((SLOW, RateLimitError), (SLOW, PollError), (AGAIN, DownloadError)),
    Symptom.SERVER: ((STOP, SubmitUnknownError), (AGAIN, PollError), (AGAIN, DownloadError)),
}
ALL = [(symptom, call, cell) for symptom, row in CELLS.items() for call, cell in zip(Call, row, strict=True)]


@pytest.mark.parametrize(("symptom", "call", "cell"), ALL)
def test_cell(symptom: Symptom, call: Call, cell: Cell) -> None:
    """Each cell is as the design says."""
    decision = decide(call, symptom, Retry())
    assert (decision.verdict, decision.error) == cell


def test_table_is_complete() -> None:
    """No symptom and no call is without a cell."""
    assert set(TABLE) == set(Symptom) == set(CELLS)
    assert all(set(row) == set(Call) for row in TABLE.values())


def test_only_what_was_not_sent_or_refused_is_submitted_again() -> None:
    """Of all submissions, only those certainly not accepted are ever sent again."""
    again = {symptom for symptom in Symptom if decide(Call.SUBMIT, symptom, Retry()).verdict is not STOP}
    assert again == {Symptom.NOT_SENT, Symptom.RATE}


def test_who_accepts_the_risk_may_resend() -> None:
    """With resend_unknown an unknown submission is sent again, but no redirect is followed."""
    risky = Retry(resend_unknown=True)
    assert decide(Call.SUBMIT, Symptom.SERVER, risky).verdict is AGAIN
    assert decide(Call.SUBMIT, Symptom.REDIRECT, risky).verdict is STOP


@pytest.mark.parametrize(
    ("statuses", "symptom"),
    [
        ((200, 201, 204, 299), None),
        ((300, 301, 302, 307, 308), Symptom.REDIRECT),
        ((400, 405, 413, 422, 451), Symptom.INVALID),
        ((401, 403), Symptom.FORBIDDEN),
        ((402,), Symptom.CREDITS),
        ((404, 410), Symptom.MISSING),
        ((408, 409), Symptom.CONFLICT),
        ((429,), Symptom.RATE),
        ((500, 501, 502, 503, 504, 520, 599), Symptom.SERVER),
        ((0, 100, 199, 600, 999), Symptom.UNREADABLE),
    ],
)
def test_statuses(statuses: tuple[int, ...], symptom: Symptom | None) -> None:
    """Each HTTP status has its row."""
    assert {symptom_of(status) for status in statuses} == {symptom}


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
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    """Seconds and dates are read; what makes no sense counts as absent."""
    assert parse_retry_after(value, NOW) == seconds


@given(st.text())
def test_retry_after_never_fails(value: str) -> None:
    """No header value raises or gives a negative wait."""
    assert (parse_retry_after(value, NOW) or 0.0) >= 0


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
