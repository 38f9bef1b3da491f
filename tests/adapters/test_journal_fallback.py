"""A try that came to nothing leaves a row as it was: failed, lost or unknown, with its task id and its reason."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from fake_journal import FakeJournal
from journals import FAILED, LOST, QUEUED, RAIN, REFUSED, SENDING, UNKNOWN, noted_by, opened

from finevoice_async.core.ledger import EffectState, JournalRow, Move
from finevoice_async.core.requests import SfxRequest
from finevoice_async.ports import Journal, TaskIdTakenError

pytestmark = pytest.mark.real_time  # there is nothing to wait for but the disk

SNOW = SfxRequest("Snow")
WAYS = {
    FAILED: (Move.ACCEPT, Move.FAIL),
    LOST: (Move.ACCEPT, Move.LOSE),
    UNKNOWN: (Move.DOUBT,),
}


@pytest.fixture(params=["in a file", "in memory"])
async def either(path: Path, no_leaks: object, request: pytest.FixtureRequest) -> AsyncIterator[Journal]:
    """An open journal of each kind."""
    journal: Journal = FakeJournal() if request.param == "in memory" else await opened(path)
    if isinstance(journal, FakeJournal):
        await journal.open()
    yield journal
    await journal.aclose()


async def do(journal: Journal, *moves: Move, row_id: int = 1) -> JournalRow:
    """Move a row, and return it."""
    for move in moves:
        assert await journal.move(row_id, move, **_fields(move, row_id))
    row = await journal.row(row_id=row_id)
    assert row is not None
    return row


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
        (FAILED, (Move.SEND, Move.HOLD, Move.REFUSE)),
        (FAILED, (Move.SEND, Move.HOLD, Move.SEND, Move.REFUSE)),
        (LOST, (Move.REVERT,)),
        (LOST, (Move.REVERT, Move.RESEND, Move.REVERT)),
        (UNKNOWN, (Move.REVERT,)),
        (UNKNOWN, (Move.REVERT, Move.RESEND, Move.REVERT)),
    ],
)
async def test_it_is_as_it_was(either: Journal, state: EffectState, moves: tuple[Move, ...]) -> None:
    """However a new try comes to nothing: its state, request, id, reason and times are the earlier ones."""
    before = await begun(either, state)
    await again(either, state)
    assert same(await do(either, *moves), before)
    if state is not UNKNOWN:
        assert (await either.row(task_id="of row 1")) is not None


async def test_it_lasts_for_one_try(either: Journal) -> None:
    """What falls back may be begun anew once more, with a consent of its own, and falls back again."""
    before = await begun(either, FAILED)
    for _ in range(2):
        assert not (await either.begin(RAIN, key="k", state=QUEUED)).is_mine
        await again(either, FAILED)
        assert same(await do(either, Move.SEND, Move.REFUSE), before)


async def test_what_came_of_the_new_try_counts(either: Journal) -> None:
    """A try that failed, or is unknown, is what the row says from then on, and what it falls back to."""
    await begun(either, FAILED)
    await again(either, FAILED)
    row = await do(either, Move.SEND, Move.DOUBT)
    assert (row.state, row.task_id, row.error) == (UNKNOWN, None, "by doubt")
    assert same(await do(either, Move.RESEND, Move.REVERT), row)
    assert await either.move(1, Move.ADOPT, task_id="adopted")
    failed = await do(either, Move.FAIL)
    await again(either, FAILED)
    assert same(await do(either, Move.REFUSE), failed)


@pytest.mark.parametrize("state", [FAILED, LOST, UNKNOWN])
async def test_given_up_for_good(either: Journal, state: EffectState) -> None:
    """What its caller gives up in doubt is refused, and stays so: nothing of an earlier try comes back."""
    await begun(either, state)
    await again(either, state)
    await do(either, *[Move.SEND] * (state is FAILED), Move.DOUBT, Move.DISCARD)
    assert (await either.begin(SNOW, key="k", state=QUEUED)).is_mine
    row = await do(either, Move.SEND, Move.REFUSE)
    assert (row.state, row.request, row.task_id) == (REFUSED, SNOW, None)


@pytest.mark.parametrize("state", [FAILED, LOST])
async def test_its_task_is_another_rows_by_now(either: Journal, state: EffectState) -> None:
    """The id that it had was given to another row meanwhile: it is without, and never lost without an id."""
    await begun(either, state)
    await again(either, state)
    await either.begin(RAIN, key=None, state=SENDING)
    await do(either, Move.DOUBT, row_id=2)
    assert await either.move(2, Move.ADOPT, task_id="of row 1")
    row = await do(either, *((Move.REFUSE,) if state is FAILED else (Move.REVERT,)))
    assert (row.state, row.task_id) == (FAILED if state is FAILED else UNKNOWN, None)
    await either.begin(RAIN, key=None, state=SENDING)
    with pytest.raises(TaskIdTakenError):
        await either.move(3, Move.ACCEPT, task_id="of row 1")


async def test_what_was_only_refused_has_nothing_to_fall_back_to(either: Journal) -> None:
    """A refused row that is wanted again and refused again says why it was refused last."""
    await either.begin(RAIN, key="k", state=QUEUED)
    await do(either, Move.REFUSE)
    await either.begin(SNOW, key="k", state=QUEUED, again=Move.RETRY)
    assert await either.move(1, Move.REFUSE, error="the second time")
    row = await either.row(row_id=1)
    assert row is not None
    assert (row.state, row.error, row.request) == (REFUSED, "the second time", SNOW)


async def test_it_lasts_through_lives(path: Path, no_leaks: object) -> None:
    """What an earlier session began anew falls back in a later one."""
    journal = await opened(path)
    before = await begun(journal, FAILED)
    await again(journal, FAILED)
    await journal.aclose()
    journal = await opened(path)
    assert same(await do(journal, Move.REFUSE), before)
    await journal.aclose()
