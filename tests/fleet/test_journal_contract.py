"""What the port of the journal promises, kept alike in a file and in PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
from fleets import Member
from journals import (
    AFRESH,
    DONE,
    LINKS,
    LOST,
    QUEUED,
    RAIN,
    SAVED,
    SENDING,
    SUBMITTED,
    UNKNOWN,
    VIDEO,
    noted_by,
    only,
    row_in,
)

from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.adapters.sqlite_journal import SqliteJournal
from finevoice_async.core.ledger import GIVES_BACK, MOVES, EffectState, Move
from finevoice_async.errors import JournalError
from finevoice_async.ports import Journal, TaskIdTakenError

pytestmark = pytest.mark.real_time  # there is nothing to wait for but disks

FORGOTTEN: dict[str, Any] = {"task_id": None, "urls": (), "path": None, "sha256": None, "error": None}
LONG_AGO = datetime.min.replace(tzinfo=UTC)
ENOUGH = 1000
"""Slots, where a journal gives them: more than these tests need."""


@pytest.fixture(params=["file", "postgres"])
async def journal(tmp_path: Path, no_leaks: object, request: pytest.FixtureRequest) -> AsyncIterator[Journal]:
    """An open journal of each kind."""
    journal: Journal
    if request.param == "file":
        journal = SqliteJournal(tmp_path / "effects.db", LoopClock())
    else:
        journal = Member(request.getfixturevalue("url"), plan=ENOUGH)
    await journal.open()
    yield journal
    await journal.aclose()


async def ready(journal: Journal, row_id: int) -> None:
    """Have a slot for a row that is to be sent again, where slots belong to rows."""
    if isinstance(journal, Member):
        await journal.take(row_id)


@pytest.mark.parametrize("move", Move)
async def test_moves(journal: Journal, move: Move) -> None:
    """A move is made from the states of its table; from any other it gives False and changes nothing."""
    starts, end = MOVES[move]
    for state in EffectState:
        row_id = await row_in(journal, state, key=state.value)
        if move is Move.RESEND:
            await ready(journal, row_id)
        before = await only(journal, row_id)
        fields = {} if move in AFRESH else noted_by(move) | {"urls": LINKS[:1], "path": "/p", "sha256": "cd"}
        assert await journal.move(row_id, move, **fields) is (state in starts)
        after = await only(journal, row_id)
        if state not in starts:
            assert after == before
            continue
        assert (after.id, after.key, after.request, after.state) == (row_id, state.value, RAIN, end)
        assert after.created_at == before.created_at
        assert after.updated_at > before.updated_at
        for name, value in (FORGOTTEN if move in AFRESH else fields).items():
            assert getattr(after, name) == value


async def test_what_is_not_given_stays(journal: Journal) -> None:
    """A move leaves every field that it is not given."""
    row_id = await row_in(journal, SAVED)
    before = await only(journal, row_id)
    assert await journal.move(row_id, Move.SAVE)
    after = await only(journal, row_id)
    assert after == attrs.evolve(before, updated_at=after.updated_at)


async def test_only_one_of_two_moves(journal: Journal) -> None:
    """Of two who saw the same row, even in one commit, the first moves it, and the second hears that it came late."""
    row_id = await row_in(journal, QUEUED)
    told = await asyncio.gather(
        journal.move(row_id, Move.SEND),
        journal.move(row_id, Move.SEND),
        journal.move(row_id, Move.REFUSE, error="withdrawn"),
        journal.move(row_id, Move.DISCARD, error="given up"),
    )
    assert [*told] == [True, False, True, False]
    assert (await only(journal, row_id)).error == "withdrawn"


@pytest.mark.parametrize("move", Move)
async def test_a_row_that_is_not_there(journal: Journal, move: Move) -> None:
    """To move no row is a fault, not a race."""
    with pytest.raises(JournalError, match="there is no such row"):
        await journal.move(7, move, task_id="t")


async def test_submitted_at(journal: Journal) -> None:
    """It is when the service accepted: noted with the id, or with a result that came at once; then it stays."""
    row_id = await row_in(journal, SUBMITTED)
    accepted = await only(journal, row_id)
    assert accepted.submitted_at == accepted.updated_at > accepted.created_at
    await journal.move(row_id, Move.LOSE)
    await journal.move(row_id, Move.FINISH, urls=LINKS)
    assert (await only(journal, row_id)).submitted_at == accepted.submitted_at
    row_id = await row_in(journal, SENDING)
    assert (await only(journal, row_id)).submitted_at is None
    await journal.move(row_id, Move.ANSWER, urls=LINKS)
    finished = await only(journal, row_id)
    assert finished.submitted_at == finished.updated_at
    row_id = await row_in(journal, LOST)
    await ready(journal, row_id)
    await journal.move(row_id, Move.RESEND)
    assert (await only(journal, row_id)).submitted_at is None
    await journal.move(row_id, Move.DOUBT)
    await journal.move(row_id, Move.ADOPT, task_id="mine")
    adopted = await only(journal, row_id)
    assert adopted.submitted_at == adopted.updated_at


@pytest.mark.parametrize("again", [Move.QUEUE, Move.RETRY])
async def test_beginning_again(journal: Journal, again: Move) -> None:
    """A key's row is queued with the new request where the move may start; else it is given as it is."""
    for state in EffectState:
        row_id = await row_in(journal, state, key=state.value)
        before = await only(journal, row_id)
        begun = await journal.begin(VIDEO, key=state.value, state=QUEUED, again=again)
        assert begun.row == await only(journal, row_id)
        assert not begun.elsewhere
        if state not in MOVES[again][0]:
            assert (begun.is_mine, begun.row) == (False, before)
            continue
        assert begun.is_mine
        assert begun.row == attrs.evolve(
            before, state=QUEUED, request=VIDEO, updated_at=begun.row.updated_at, submitted_at=None, **FORGOTTEN
        )
        assert begun.row.updated_at > before.updated_at
    assert len(await journal.rows()) == len(EffectState)


async def test_a_new_row_is_mine(journal: Journal) -> None:
    """A new row is given as it was written; times are in UTC."""
    for key in ("k", None, None):
        for state in (QUEUED, SENDING):
            begun = await journal.begin(VIDEO, key=key and f"{key} {state}", state=state)
            row = begun.row
            assert begun.is_mine
            assert row == await only(journal, row.id)
            assert (row.key is None, row.state, row.request) == (key is None, state, VIDEO)
            assert (row.created_at.utcoffset(), row.created_at) == (timedelta(), row.updated_at)
    assert len(await journal.rows()) == 6


async def test_twins_share_a_row(journal: Journal) -> None:
    """Of two who begin with one key, even in one commit, one has the row; once it is refused, the next one has it."""
    first, second, _, third = await asyncio.gather(
        journal.begin(RAIN, key="k", state=QUEUED),
        journal.begin(VIDEO, key="k", state=SENDING),
        journal.move(1, Move.REFUSE, error="no"),
        journal.begin(VIDEO, key="k", state=QUEUED),
    )
    assert (first.is_mine, second.is_mine, third.is_mine) == (True, False, True)
    assert second.row == first.row
    assert (third.row.id, third.row.state, third.row.request, third.row.error) == (first.row.id, QUEUED, VIDEO, None)
    assert await journal.rows() == [third.row]


async def test_what_a_row_cannot_begin_as(journal: Journal) -> None:
    """A row begins before its submission, and by a wish."""
    for state in EffectState:
        for again in Move:
            if state not in (QUEUED, SENDING) or again not in (Move.QUEUE, Move.RETRY):
                with pytest.raises(JournalError):
                    await journal.begin(RAIN, key="k", state=state, again=again)
    assert await journal.rows() == []


async def test_a_task_id_belongs_to_one_row(journal: Journal) -> None:
    """A task id that another row has is refused, and both rows stay as they were; its own row may note it again."""
    one, other = await row_in(journal, SENDING), await row_in(journal, SENDING)
    await journal.move(one, Move.ACCEPT, task_id="t")
    before = await only(journal, other)
    with pytest.raises(TaskIdTakenError) as caught:
        await journal.move(other, Move.ACCEPT, task_id="t", error="x")
    assert caught.value.task_id == "t"
    assert await only(journal, other) == before
    await journal.move(one, Move.FINISH, task_id="t")
    assert (await only(journal, one)).state is DONE


async def test_a_task_moves_only_its_own_row(journal: Journal) -> None:
    """What an earlier task of a row tells of itself, after the row was sent again, moves it no more."""
    for move in (Move.FINISH, Move.FAIL, Move.LOSE):
        row_id = await row_in(journal, SENDING)
        await journal.move(row_id, Move.ACCEPT, task_id=f"new {move}")
        assert not await journal.move(row_id, move, task_id=f"old {move}", error="late")
        assert (await only(journal, row_id)).state is SUBMITTED
        assert await journal.move(row_id, move, task_id=f"new {move}")
        assert (await only(journal, row_id)).task_id == f"new {move}"


async def test_a_submitted_row_has_a_task_id(journal: Journal) -> None:
    """Without an id there is nothing to ask for."""
    for state, move in ((SENDING, Move.ACCEPT), (UNKNOWN, Move.ADOPT)):
        row_id = await row_in(journal, state)
        for task_id in (None, ""):
            with pytest.raises(JournalError):
                await journal.move(row_id, move, task_id=task_id)


async def test_an_earlier_task_id_is_put_aside(journal: Journal) -> None:
    """A row that is made afresh, or gets another id, gives the earlier ids free: another row may have them."""
    row_id = await row_in(journal, SENDING, key="k")
    await journal.move(row_id, Move.ACCEPT, task_id="a")
    await journal.move(row_id, Move.LOSE)
    await ready(journal, row_id)
    await journal.move(row_id, Move.RESEND)
    assert await journal.row(task_id="a") is None
    await journal.move(row_id, Move.ACCEPT, task_id="b")
    await journal.move(row_id, Move.FAIL)
    await journal.begin(RAIN, key="k", state=QUEUED, again=Move.RETRY)
    await journal.move(row_id, Move.SEND)
    await journal.move(row_id, Move.ACCEPT, task_id="c")
    await journal.move(row_id, Move.LOSE)
    await journal.move(row_id, Move.ADOPT, task_id="d")
    assert (await only(journal, row_id)).task_id == "d"
    assert await journal.move(await row_in(journal, UNKNOWN), Move.ADOPT, task_id="a")


async def test_one_row(journal: Journal) -> None:
    """A row is found by its number, its key or its task id."""
    row_id = await row_in(journal, SUBMITTED, key="k")
    row = await only(journal, row_id)
    assert await journal.row(key="k") == await journal.row(task_id=row.task_id) == row
    assert [await journal.row(row_id=99), await journal.row(key="K"), await journal.row(task_id="k")] == [None] * 3


async def test_rows_by_state(journal: Journal) -> None:
    """Rows and their numbers are found by state, in the order of their numbers, page by page."""
    ids = {state: [await row_in(journal, state)] for state in EffectState}
    for state in reversed(EffectState):
        ids[state].append(await row_in(journal, state))
    everything = sorted(row_id for of_state in ids.values() for row_id in of_state)
    for states in ([SENDING, DONE], [SAVED], [SAVED, LOST], [UNKNOWN, UNKNOWN], list(EffectState)):
        expected = sorted({row_id for state in states for row_id in ids[state]})
        assert await journal.row_ids(*states) == [row.id for row in await journal.rows(*states)] == expected
        assert [row.id for row in await journal.rows(*states, after=expected[0], limit=1)] == expected[1:2]
    assert [row.id for row in await journal.rows()] == everything
    assert [row.id for row in await journal.rows(after=everything[2], limit=3)] == everything[3:6]


async def test_every_field_comes_back(journal: Journal) -> None:
    """A row holds all that was noted, also texts that a store may find hard."""
    key = "clip 1 \\0 \\ ä ☂"
    row_id = (await journal.begin(VIDEO, key=key, state=SENDING)).row.id
    links = ("https://cdn.example/1.mp3?sig=a", "https://cdn.example/\ud800")
    await journal.move(row_id, Move.ACCEPT, task_id="p1-ä\\")
    await journal.move(row_id, Move.FINISH, urls=links)
    await journal.move(row_id, Move.SAVE, path="C:\\new\\0.mp3", sha256="ab" * 32, error="odd ä text")
    saved = await only(journal, row_id)
    assert (saved.key, saved.state, saved.request, saved.task_id) == (key, SAVED, VIDEO, "p1-ä\\")
    assert (saved.urls, saved.path, saved.sha256) == (links, "C:\\new\\0.mp3", "ab" * 32)
    assert saved.error == "odd ä text"
    assert saved.submitted_at is not None
    assert saved.updated_at > saved.submitted_at > saved.created_at
    assert await journal.row(key=key) == saved
    assert type(saved.request.duration) is int  # as it goes to the service


async def test_notes(journal: Journal) -> None:
    """A text is kept under its name, and a read sees the writes before it."""
    assert await journal.load("state") is None
    journal.store("state", "1")
    journal.store("state", "2\0ä\\0")
    assert await journal.load("state") == "2\0ä\\0"


async def test_a_cancelled_write_is_made(journal: Journal) -> None:
    """Cancelling a write's future harms neither the write nor its neighbours."""
    row_id = await row_in(journal, SENDING)
    write = journal.move(row_id, Move.ACCEPT, task_id="t")
    after = journal.move(row_id, Move.FINISH)
    write.cancel()
    assert await after
    row = await only(journal, row_id)
    assert (row.state, row.task_id) == (DONE, "t")


@pytest.mark.parametrize("move", [move for move, (starts, _) in MOVES.items() if SENDING in starts])
async def test_what_counts_as_sent(journal: Journal, move: Move) -> None:
    """A submission counts from when it is SENDING; what certainly was not accepted counts no more."""
    row_id = (await journal.begin(RAIN, key=None, state=SENDING)).row.id
    assert len(await journal.sent_since(LONG_AGO)) == 1
    await journal.move(row_id, move, **(noted_by(move) if move is Move.ACCEPT else {}))
    assert len(await journal.sent_since(LONG_AGO)) == (move not in GIVES_BACK)


@pytest.mark.parametrize("last", [Move.REVERT, Move.DOUBT, Move.ACCEPT])
async def test_each_submission_counts_by_itself(journal: Journal, last: Move) -> None:
    """A second submission of a row counts beside the first one, and gives back itself alone."""
    row_id = (await journal.begin(RAIN, key=None, state=SENDING)).row.id
    await journal.move(row_id, Move.DOUBT)
    assert await journal.move(row_id, Move.RESEND)
    assert len(await journal.sent_since(LONG_AGO)) == 2
    assert await journal.move(row_id, last, **(noted_by(last) if last is Move.ACCEPT else {}))
    assert len(await journal.sent_since(LONG_AGO)) == (1 if last in GIVES_BACK else 2)


async def test_since_when(journal: Journal) -> None:
    """The times come in order, with a zone, and from the given moment on."""
    for number in range(3):
        await journal.begin(RAIN, key=f"{number}", state=SENDING)
        await asyncio.sleep(0.002)
    sent = await journal.sent_since(LONG_AGO)
    assert sent == sorted(sent)
    assert len(set(sent)) == 3
    for number, moment in enumerate(sent):
        assert await journal.sent_since(moment) == sent[number:]
        assert await journal.sent_since(moment.astimezone()) == sent[number:]
        assert await journal.sent_since(moment + timedelta.resolution) == sent[number + 1 :]


async def test_closing_writes_what_is_left(journal: Journal) -> None:
    """What was called before it is written, and closing again does nothing."""
    queued = [journal.begin(RAIN, key=None, state=QUEUED) for _ in range(120)]
    await asyncio.gather(journal.aclose(), journal.aclose())
    await journal.aclose()
    assert all(write.done() and write.exception() is None for write in queued)
