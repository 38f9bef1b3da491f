"""Which effects are being submitted, by key and by row."""

from __future__ import annotations

import pytest
from fake_journal import FakeJournal
from parts import RAIN

from finevoice_async.core.ledger import EffectState
from finevoice_async.engine.records import Submission
from finevoice_async.engine.registry import Registry


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
