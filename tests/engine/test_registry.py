"""Which effects are being submitted, by key and by row."""

from __future__ import annotations

import gc

import pytest
from fake_journal import FakeJournal
from parts import RAIN, WIND

from finevoice_async.core.ledger import EffectState
from finevoice_async.core.tasks import TaskStatus, TaskUpdate
from finevoice_async.engine.records import Phase, Result, Submission, TaskRecord
from finevoice_async.engine.registry import MADE_KEYS, Registry
from finevoice_async.errors import (
    InvalidRequestError,
    RequestRejectedError,
    SubmitUnknownError,
    TaskFailedError,
    TaskNotFoundError,
)


def make(key: str | None = None, *, with_row: bool = True) -> Submission:
    """Return a submission, whose row is the first."""
    row = FakeJournal().leave(EffectState.QUEUED, key=key) if with_row else None
    return Submission(RAIN, key, row)


@pytest.fixture
def registry() -> Registry:
    """Return an empty one."""
    return Registry(remembers=False)


async def test_a_key_finds_its_submission(registry: Registry) -> None:
    """A key is known as soon as the submission is, before its row is."""
    submission = make("k", with_row=False)
    registry.add(submission)
    assert registry.find("k") is submission
    assert registry.find("other") is None


async def test_a_row_is_held_by_its_number_or_its_key(registry: Registry) -> None:
    """A row is under way if its submission is, or if its key is being looked up."""
    by_number, by_key = make(), make("k", with_row=False)
    assert by_number.row is not None
    assert not registry.holds(by_number.row)
    registry.add(by_number)
    assert registry.holds(by_number.row)
    keyed = make("k").row
    assert keyed is not None
    registry.discard(by_number)
    assert not registry.holds(keyed)
    registry.add(by_key)
    assert registry.holds(keyed)


async def test_a_row_that_comes_later_is_held_too(registry: Registry) -> None:
    """A submission is added again once its row is known, and then found by both."""
    submission = make("k", with_row=False)
    registry.add(submission)
    submission.row = make("k").row
    registry.add(submission)
    unkeyed = make().row
    assert unkeyed is not None
    assert registry.holds(unkeyed)  # it has the same number
    registry.discard(submission)
    assert not registry.holds(unkeyed)
    assert registry.find("k") is None


async def test_a_key_is_free_before_its_row(registry: Registry) -> None:
    """The key's next caller may come while the row's last write is under way; the row is held until that is done."""
    submission = make("k")
    registry.add(submission)
    registry.free_key(submission)
    unkeyed = make().row
    assert unkeyed is not None
    assert registry.find("k") is None
    assert registry.holds(unkeyed)
    other = make("k", with_row=False)
    registry.add(other)
    registry.free_key(submission)
    assert registry.find("k") is other
    registry.discard(submission)
    assert not registry.holds(unkeyed)


async def test_only_the_own_entry_is_discarded(registry: Registry) -> None:
    """Whoever comes late does not discard the one who has come since; and nobody discards what is not there."""
    late, now = make("k"), make("k")
    registry.add(late)
    registry.add(now)
    registry.discard(late)
    assert registry.find("k") is now
    unkeyed = make().row
    assert unkeyed is not None
    assert registry.holds(unkeyed)
    registry.discard(now)
    registry.discard(now)
    assert registry.find("k") is None
    assert not registry.holds(unkeyed)


# What became of keys, without a journal


def settled(registry: Registry, key: str, result: Result, *, made_key: bool = False) -> Submission:
    """Return a submission that has come to a result."""
    submission = Submission(RAIN, key, made_key=made_key)
    registry.add(submission)
    submission.phase, submission.result = Phase.ENDED, result
    registry.settle(submission)
    return submission


def record(end: TaskUpdate | TaskFailedError | TaskNotFoundError | None = None) -> TaskRecord:
    """Return a task, which may have ended."""
    return TaskRecord("t1", RAIN, 0.0, key="k", end=end)


async def test_a_key_is_remembered_by_its_result() -> None:
    """Under way it is found as such, settled it is remembered, also by its task."""
    registry = Registry(remembers=True)
    submission = settled(registry, "k", record())
    assert registry.find("k") is None
    assert registry.settled("k") is submission
    assert registry.settled_task("t1") is submission
    assert registry.settled_task("t2") is None
    assert registry.settled("other") is None


async def test_with_a_journal_nothing_is_remembered(registry: Registry) -> None:
    """The journal's row says what became of a key."""
    settled(registry, "k", record())
    assert registry.settled("k") is None
    assert registry.settled_task("t1") is None


@pytest.mark.parametrize(
    "end",
    [None, TaskUpdate(status=TaskStatus.COMPLETED, urls=("x",)), TaskFailedError("no"), TaskNotFoundError("no")],
)
@pytest.mark.parametrize("retry_failed", [False, True])
async def test_whoever_comes_later(
    end: TaskUpdate | TaskFailedError | TaskNotFoundError | None, retry_failed: bool
) -> None:
    """A key's task is given again, whatever became of it; only after a failure another is begun, if that is asked."""
    registry = Registry(remembers=True)
    task = record(end)
    settled(registry, "k", task)
    again = registry.remembered("k", RAIN, retry_failed=retry_failed)
    assert again is (None if retry_failed and isinstance(end, TaskFailedError) else task)
    assert registry.remembered("other", RAIN, retry_failed=retry_failed) is None
    if again is not None:
        with pytest.raises(InvalidRequestError):
            registry.remembered("k", WIND, retry_failed=retry_failed)


async def test_after_an_error() -> None:
    """What certainly was not accepted is begun anew, also for another request; what is unknown never."""
    registry = Registry(remembers=True)
    settled(registry, "refused", RequestRejectedError("no"))
    assert registry.remembered("refused", WIND, retry_failed=False) is None
    known = settled(registry, "unknown", SubmitUnknownError("who knows"))
    for retry_failed in (False, True):
        with pytest.raises(SubmitUnknownError) as caught:
            registry.remembered("unknown", RAIN, retry_failed=retry_failed)
        assert caught.value is not known.result


async def test_made_keys_are_not_kept_for_ever() -> None:
    """Of the keys that the library made the oldest leave; the callers' own stay."""
    registry = Registry(remembers=True)
    settled(registry, "mine", record())
    for number in range(MADE_KEYS + 1):
        settled(registry, f"made {number}", record(), made_key=True)
    assert registry.settled("made 0") is None
    assert registry.settled("made 1") is not None
    assert registry.settled("mine") is not None


# Rows that handles are on


async def test_a_found_row_is_shared_and_followed(registry: Registry) -> None:
    """All handles on a row share what is known of it, and hear of who takes it up; without handles nothing is kept."""
    submission, row = make(), make().row
    assert row is not None
    found = registry.found(row)
    assert registry.found(row) is found
    before = found.submission
    registry.add(submission)
    assert (before, found.submission) == (None, submission)
    registry.discard(submission)
    assert registry.found(row).submission is submission
    del found
    gc.collect()
    assert registry.found(row).submission is None
    registry.add(submission)
    other = Registry(remembers=False)
    other.add(submission)
    assert other.found(row).submission is submission
