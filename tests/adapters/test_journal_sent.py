"""What the journal keeps of submissions: when each left that may have been accepted, through lives and crashes."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fake_journal import FakeJournal
from journals import LINKS, QUEUED, RAIN, SENDING, noted_by, opened, row_in, sql

from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.adapters.sqlite_journal import SqliteJournal
from finevoice_async.core.ledger import GIVES_BACK, MOVES, EffectState, Move
from finevoice_async.errors import JournalError
from finevoice_async.ports import Journal

pytestmark = pytest.mark.real_time  # there is nothing to wait for but the disk

LONG_AGO = datetime.min.replace(tzinfo=UTC)


@pytest.fixture(params=["in a file", "in memory"])
async def either(path: Path, no_leaks: object, request: pytest.FixtureRequest) -> AsyncIterator[Journal]:
    """An open journal of each kind."""
    journal: Journal = FakeJournal() if request.param == "in memory" else SqliteJournal(path, LoopClock())
    await journal.open()
    yield journal
    await journal.aclose()


async def count(journal: Journal) -> int:
    """Return how many submissions may have been accepted."""
    return len(await journal.sent_since(LONG_AGO))


async def do(journal: Journal, *moves: Move, row_id: int = 1) -> None:
    """Move a row."""
    for move in moves:
        fields: dict[str, Any] = noted_by(move) if move in (Move.ACCEPT, Move.ADOPT) else {}
        assert await journal.move(row_id, move, **fields)


@pytest.mark.parametrize("state", [QUEUED, SENDING])
async def test_what_is_about_to_leave_counts(either: Journal, state: EffectState) -> None:
    """A row counts from when it is SENDING, whether it began so or not."""
    await either.begin(RAIN, key=None, state=state)
    assert await count(either) == (state is SENDING)
    if state is QUEUED:
        await do(either, Move.SEND)
        assert await count(either) == 1


@pytest.mark.parametrize("move", [move for move, (starts, _) in MOVES.items() if SENDING in starts])
async def test_what_comes_of_it(either: Journal, move: Move) -> None:
    """What certainly was not accepted counts no more; anything else does."""
    await either.begin(RAIN, key=None, state=SENDING)
    await do(either, move)
    assert await count(either) == (move not in GIVES_BACK)


@pytest.mark.parametrize("first", [Move.DOUBT, Move.ACCEPT])
@pytest.mark.parametrize("last", [Move.REVERT, Move.DOUBT, Move.ACCEPT, Move.REFUSE, Move.HOLD])
async def test_each_submission_counts_by_itself(either: Journal, first: Move, last: Move) -> None:
    """A second submission of a row counts beside the first one, and gives back itself alone."""
    await either.begin(RAIN, key=None, state=SENDING)
    await do(either, first, *[Move.LOSE] * (first is Move.ACCEPT), Move.RESEND)
    assert await count(either) == 2
    await do(either, last)
    assert await count(either) == (1 if last in GIVES_BACK else 2)


async def test_a_long_story(either: Journal) -> None:
    """Held, sent, failed, wanted again, sent, in doubt, given up, wanted again, withdrawn, sent: three may be paid."""
    await either.begin(RAIN, key="k", state=QUEUED)
    await do(either, *[Move.SEND, Move.HOLD] * 3)
    assert await count(either) == 0
    await do(either, Move.SEND, Move.ACCEPT, Move.FAIL)
    assert await count(either) == 1
    await either.begin(RAIN, key="k", state=QUEUED, again=Move.RETRY)
    await do(either, Move.SEND, Move.DOUBT, Move.DISCARD)
    assert await count(either) == 2
    await either.begin(RAIN, key="k", state=QUEUED)
    await do(either, Move.REFUSE)  # it was QUEUED: nothing to give back
    assert await count(either) == 2
    await either.begin(RAIN, key="k", state=QUEUED)
    await do(either, Move.SEND, Move.ACCEPT)
    assert await count(either) == 3


@pytest.mark.parametrize("move", [Move.REFUSE, Move.DISCARD])
async def test_what_was_never_sent_gives_nothing_back(either: Journal, move: Move) -> None:
    """Withdrawn from the queue, a row keeps what an earlier submission of it spent."""
    await either.begin(RAIN, key="k", state=SENDING)
    await do(either, Move.ACCEPT, Move.FAIL)
    await either.begin(RAIN, key="k", state=QUEUED, again=Move.RETRY)
    await do(either, move)
    assert await count(either) == 1


async def test_a_move_that_does_not_fit_counts_nothing(either: Journal) -> None:
    """Who comes late neither spends nor gives back."""
    await either.begin(RAIN, key="k", state=SENDING)
    assert not await either.move(1, Move.SEND)
    assert not await either.move(1, Move.RESEND)
    assert await count(either) == 1
    await do(either, Move.ACCEPT)
    for move in GIVES_BACK:
        assert not await either.move(1, move)
    found = await either.begin(RAIN, key="k", state=SENDING)
    assert not found.is_mine
    assert await count(either) == 1


async def test_since_when(either: Journal) -> None:
    """The times come in order, with a zone, and from the given moment on."""
    for number in range(3):
        await either.begin(RAIN, key=f"{number}", state=SENDING)
        await asyncio.sleep(0.002)
    await do(either, Move.DOUBT, Move.RESEND)
    sent = await either.sent_since(LONG_AGO)
    assert sent == sorted(sent)
    assert len(set(sent)) == 4
    assert all(at.utcoffset() == timedelta() for at in sent)
    for number, moment in enumerate(sent):
        assert await either.sent_since(moment) == sent[number:]
        assert await either.sent_since(moment.astimezone()) == sent[number:]
        assert await either.sent_since(moment + timedelta.resolution) == sent[number + 1 :]


async def test_a_crash_counts(path: Path, tmp_path: Path, no_leaks: object) -> None:
    """What was SENDING when the process died counts from when it left, as does all that was committed before."""
    journal = await opened(path)
    for state in EffectState:
        await row_in(journal, state)
    before = await journal.sent_since(LONG_AGO)
    assert len(before) == len(set(EffectState) - {EffectState.QUEUED, EffectState.REFUSED})
    for suffix in ("", "-wal"):
        shutil.copyfile(f"{path}{suffix}", f"{tmp_path}/copy.db{suffix}")
    await journal.aclose()
    journal = await opened(tmp_path / "copy.db")
    assert await journal.sent_since(LONG_AGO) == before
    await journal.aclose()


async def test_a_result_at_once_counts(journal: SqliteJournal) -> None:
    """What came without a task id was accepted all the same."""
    await journal.begin(RAIN, key=None, state=SENDING)
    await journal.move(1, Move.ANSWER, urls=LINKS)
    await journal.move(1, Move.SAVE, path="/p")
    assert await count(journal) == 1


@pytest.mark.parametrize("junk", ["yesterday", "9"])
async def test_a_time_that_cannot_be_read(path: Path, no_leaks: object, junk: str) -> None:
    """A file that somebody has changed is told of; nobody counts what is not there."""
    journal = await opened(path)
    await journal.begin(RAIN, key=None, state=SENDING)
    await journal.aclose()
    sql(path, f"UPDATE effects SET sent_at = '{junk}'")
    journal = await opened(path)
    with pytest.raises(JournalError, match="could not be read"):
        await journal.sent_since(LONG_AGO)
    await journal.aclose()


async def test_pruned_rows_count(path: Path, journal: SqliteJournal) -> None:
    """A row that is removed still says when its submissions left, also to later owners of the file."""
    for state in (EffectState.SAVED, EffectState.FAILED, EffectState.REFUSED, EffectState.SUBMITTED):
        await row_in(journal, state, key=state.value)
    await journal.begin(RAIN, key="failed", state=QUEUED, again=Move.RETRY)
    await do(journal, Move.SEND, Move.ACCEPT, Move.FAIL, row_id=2)
    before = await journal.sent_since(LONG_AGO)
    assert len(before) == 4
    assert await journal.prune(datetime.now(UTC) + timedelta(days=1)) == 3
    assert await journal.sent_since(LONG_AGO) == before
    assert await journal.sent_since(before[-1]) == before[-1:]
    await journal.aclose()
    assert sql(path, "SELECT count(*) FROM pruned") == [(2,)]  # what was never sent leaves nothing
    again = await opened(path)
    assert await again.sent_since(LONG_AGO) == before
    await again.aclose()
