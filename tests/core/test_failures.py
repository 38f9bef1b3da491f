"""A failure is a value that can be raised."""

from __future__ import annotations

import pytest

from finevoice_async.core.failures import Failure, FailureKind


def test_a_failure_keeps_what_is_known() -> None:
    """Its text is its words alone; what came with the reply stands beside them."""
    failure = Failure(FailureKind.RATE, "too many", status=429, code="E", body="{}", retry_after=2.0, task_id="p1-a")
    assert str(failure) == failure.what == "too many"
    assert (failure.kind, failure.status, failure.code) == (FailureKind.RATE, 429, "E")
    assert (failure.body, failure.retry_after, failure.task_id) == ("{}", 2.0, "p1-a")


def test_a_failure_without_a_reply() -> None:
    """Where nothing came back, nothing is made up."""
    with pytest.raises(Failure, match=r"^refused$") as caught:
        raise Failure(FailureKind.NOT_SENT, "refused")
    failure = caught.value
    assert failure.kind is FailureKind.NOT_SENT
    assert {failure.status, failure.code, failure.body, failure.retry_after, failure.task_id} == {None}
