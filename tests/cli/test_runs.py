"""What a run of a batch has spent, by its mark and the journal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from journals import DONE, FAILED, LOST, QUEUED, REFUSED, SAVED, SENDING, SUBMITTED, UNKNOWN, opened, row_in

from finevoice_async import Budget
from finevoice_async.cli.runs import RUN_NAME, Purse, RunMark, in_doubt_since, read_rows, spent_since
from finevoice_async.core.ledger import MAY_BE_PAID, EffectState

SPENT = {SENDING, SUBMITTED, DONE, SAVED, UNKNOWN, FAILED, LOST}
HOUR = timedelta(hours=1)


@pytest.mark.parametrize("state", [*EffectState], ids=lambda state: state.value)
async def test_what_a_run_has_spent(tmp_path: Path, state: EffectState) -> None:
    """All that may have been accepted since a run began is spent, known or not; what was before it is not."""
    path = tmp_path / "j.db"
    journal = await opened(path)
    await row_in(journal, state)
    await row_in(journal, state)
    await journal.aclose()
    now = datetime.now(UTC)
    assert spent_since(path, now - HOUR) == (2 if state in SPENT else 0)
    assert in_doubt_since(read_rows(path), now - HOUR) == (2 if state in {SENDING, *MAY_BE_PAID} else 0)
    assert (spent_since(path, now + HOUR), in_doubt_since(read_rows(path), now + HOUR)) == (0, 0)


def test_every_state_is_here() -> None:
    """What is not spent was never sent, or certainly refused."""
    assert set(EffectState) - SPENT == {QUEUED, REFUSED}


def test_without_a_journal_nothing_is_known(tmp_path: Path) -> None:
    """A journal that is not there, or none at all, says nothing."""
    (tmp_path / "rubbish.db").write_bytes(b"rubbish" * 1000)
    for name in ("away.db", "rubbish.db"):
        assert spent_since(tmp_path / name, datetime.now(UTC) - HOUR) == 0


def test_a_run_that_goes_on_began_when_it_first_began(tmp_path: Path) -> None:
    """Each restart finds the moment of the first, until the run comes to its own end."""
    folder = tmp_path / "out"
    assert RunMark(folder).began() is None
    began = RunMark(folder).begin()
    assert datetime.now(UTC) - began < HOUR
    assert RunMark(folder).begin() == RunMark(folder).begin() == RunMark(folder).began() == began
    for _ in range(2):
        RunMark(folder).end()
        assert RunMark(folder).began() is None
    assert RunMark(folder).begin() > began


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{}", b'{"began": 5}', b'{"began": "2026-01-01"}', b"\xff"])
def test_a_mark_that_is_damaged(tmp_path: Path, content: bytes) -> None:
    """It says nothing, and the next run writes its own."""
    (tmp_path / RUN_NAME).write_bytes(content)
    assert RunMark(tmp_path).began() is None
    began = RunMark(tmp_path).begin()
    assert RunMark(tmp_path).began() == began


@pytest.mark.parametrize(
    ("purse", "most", "left"),
    [
        (Purse(), None, None),
        (Purse(price=Decimal("0.1")), None, None),
        (Purse(max_effects=5), 5, Budget(effects=3)),
        (Purse(budget=Decimal("0.79"), price=Decimal("0.1")), 7, Budget(effects=5)),
        (Purse(max_effects=5, budget=Decimal(1), price=Decimal("0.1")), 5, Budget(effects=3)),
        (Purse(max_effects=50, budget=Decimal(1), price=Decimal("0.1")), 10, Budget(effects=8)),
    ],
)
def test_what_is_left_in_a_purse(purse: Purse, most: int | None, left: Budget | None) -> None:
    """The smaller of two bounds holds, and what the run has spent before counts."""
    assert (purse.most, purse.left(2)) == (most, left)
