"""A try that came to nothing leaves a row as it was, alike in a file and in PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from fleets import Member, until
from journals import FAILED, LOST, QUEUED, RAIN, REFUSED, SENDING, UNKNOWN, noted_by

from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.adapters.sqlite_journal import SqliteJournal
from finevoice_async.core.ledger import EffectState, JournalRow, Move
from finevoice_async.core.requests import SfxRequest
from finevoice_async.ports import Journal, TaskIdTakenError

pytestmark = pytest.mark.real_time  # there is nothing to wait for but disks

SNOW = SfxRequest("Snow")
WAYS = {
    FAILED: (Move.ACCEPT, Move.FAIL),
    LOST: (Move.ACCEPT, Move.LOSE),
    UNKNOWN: (Move.DOUBT,),
}


@pytest.fixture(params=["file", "postgres"])
async def journal(tmp_path: Path, no_leaks: object, request: pytest.FixtureRequest) -> AsyncIterator[Journal]:
    """An open journal of each kind."""
    journal: Journal
    if request.param == "file":
        journal = SqliteJournal(tmp_path / "effects.db", LoopClock())
    else:
        journal = Member(request.getfixturevalue("url"), plan=1000)
    await journal.open()
    yield journal
    await journal.aclose()


async def get(journal: Journal, row_id: int = 1) -> JournalRow:
    """Return a row that is there."""
    row = await journal.row(row_id=row_id)
    assert row is not None
    return row


async def do(journal: Journal, *moves: Move, row_id: int = 1) -> JournalRow:
    """Move a row, and return it."""
    for move in moves:
        if move is Move.RESEND and isinstance(journal, Member):
            assert await journal.take(row_id)
        assert await journal.move(row_id, move, **_fields(move, row_id))
    return await get(journal, row_id)


def _fields(move: Move, row_id: int) -> dict[str, Any]:
    ids = {"task_id": f"of row {row_id}"} if move is Move.ACCEPT else {}
    return {"error": noted_by(move)["error"]} | ids


async def begun(journal: Journal, state: EffectState) -> JournalRow:
    """Return a row that came to something."""
    await journal.begin(RAIN, key="k", state=SENDING)
    return await do(journal, *WAYS[state])


async def again(journal: Journal, state: EffectState) -> None:
    """Begin it anew, with the caller's consent."""
    if state is FAILED:
        assert (await journal.begin(SNOW, key="k", state=QUEUED, again=Move.RETRY)).is_mine
    else:
        await do(journal, Move.RESEND)


def same(row: JournalRow, before: JournalRow) -> bool:
    """Tell whether a row is as it was, but for when it was written."""
    return attrs.evolve(row, updated_at=before.updated_at, urls=before.urls) == before


@pytest.mark.parametrize(
    ("state", "moves"),
    [
        (FAILED, (Move.REFUSE,)),
        (FAILED, (Move.DISCARD,)),
        (FAILED, (Move.SEND, Move.REFUSE)),
        (FAILED, (Move.SEND, Move.HOLD, Move.SEND, Move.REFUSE)),
        (LOST, (Move.REVERT, Move.RESEND, Move.REVERT)),
        (UNKNOWN, (Move.REVERT, Move.RESEND, Move.REVERT)),
    ],
)
async def test_it_is_as_it_was(journal: Journal, state: EffectState, moves: tuple[Move, ...]) -> None:
    """However a new try comes to nothing: its state, request, id, reason and times are the earlier ones."""
    before = await begun(journal, state)
    await again(journal, state)
    assert same(await do(journal, *moves), before)
    if state is not UNKNOWN:
        assert (await journal.row(task_id="of row 1")) is not None


async def test_what_came_of_the_new_try_counts(journal: Journal) -> None:
    """A try that is unknown is what the row says from then on, and what it falls back to."""
    await begun(journal, FAILED)
    await again(journal, FAILED)
    row = await do(journal, Move.SEND, Move.DOUBT)
    assert (row.state, row.task_id, row.error) == (UNKNOWN, None, "by doubt")
    assert same(await do(journal, Move.RESEND, Move.REVERT), row)


@pytest.mark.parametrize("state", [FAILED, LOST])
async def test_another_row_has_its_task_by_now(journal: Journal, state: EffectState) -> None:
    """It falls back without its task id, and is never lost without an id."""
    await begun(journal, state)
    await again(journal, state)
    other = (await journal.begin(RAIN, key=None, state=SENDING)).row.id
    await do(journal, Move.DOUBT, row_id=other)
    assert await journal.move(other, Move.ADOPT, task_id="of row 1")
    row = await do(journal, *((Move.REFUSE,) if state is FAILED else (Move.REVERT,)))
    assert (row.state, row.task_id) == (FAILED if state is FAILED else UNKNOWN, None)
    third = (await journal.begin(RAIN, key=None, state=SENDING)).row.id
    with pytest.raises(TaskIdTakenError):
        await journal.move(third, Move.ACCEPT, task_id="of row 1")


async def test_what_was_only_refused_has_nothing_to_fall_back_to(journal: Journal) -> None:
    """A refused row that is wanted again and refused again says why it was refused last."""
    await journal.begin(RAIN, key="k", state=QUEUED)
    await do(journal, Move.REFUSE)
    await journal.begin(SNOW, key="k", state=QUEUED, again=Move.RETRY)
    assert await journal.move(1, Move.REFUSE, error="the second time")
    row = await get(journal)
    assert (row.state, row.error, row.request) == (REFUSED, "the second time", SNOW)


async def test_what_others_called_unknown_falls_back_once_its_answer_comes(url: str, no_leaks: object) -> None:
    """A session was taken for dead with a second try under way; the answer says that it was refused."""
    paused, other = Member(url), Member(url)
    await paused.open()
    await other.open()
    before = await begun(paused, FAILED)
    await again(paused, FAILED)
    await do(paused, Move.SEND)
    await paused.go_silent()

    async def is_unknown() -> bool:
        return (await other.state(1)) is UNKNOWN

    await until(is_unknown)
    assert same(await do(paused, Move.REFUSE), before)
    await paused.aclose()
    await other.aclose()
