"""The journal's rows: every move, keys, task ids, looking up, and how they are spelled."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest
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
    on_thread,
    only,
    opened,
    past_task_ids,
    row_in,
    sql,
)

from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.adapters.sqlite_journal import SqliteJournal
from finevoice_async.core.ledger import MOVES, EffectState, Move
from finevoice_async.errors import JournalError
from finevoice_async.ports import TaskIdTakenError

pytestmark = pytest.mark.real_time  # there is nothing to wait for but the disk

FORGOTTEN: dict[str, Any] = {"task_id": None, "urls": (), "path": None, "sha256": None, "error": None}


# Moves


@pytest.mark.parametrize("move", Move)
async def test_moves(journal: SqliteJournal, move: Move) -> None:
    """A move is made from the states of its table; from any other it gives False and changes nothing."""
    starts, end = MOVES[move]
    for state in EffectState:
        row_id = await row_in(journal, state, key=state.value)
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


async def test_what_is_not_given_stays(journal: SqliteJournal) -> None:
    """A move leaves every field that it is not given, but for one that begins afresh."""
    row_id = await row_in(journal, SAVED)
    before = await only(journal, row_id)
    assert await journal.move(row_id, Move.SAVE)
    after = await only(journal, row_id)
    assert after == attrs.evolve(before, updated_at=after.updated_at)


async def test_only_one_of_two_moves(journal: SqliteJournal) -> None:
    """Of two who saw the same row, even in one batch, the first moves it, and the second hears that it came late."""
    row_id = await row_in(journal, QUEUED)
    told = await asyncio.gather(
        journal.move(row_id, Move.SEND),
        journal.move(row_id, Move.SEND),
        journal.move(row_id, Move.REFUSE, error="withdrawn"),
        journal.move(row_id, Move.DISCARD, error="given up"),
    )
    assert [*told] == [True, False, True, False]
    assert (await only(journal, row_id)).error == "withdrawn"


async def test_a_row_that_is_not_there(journal: SqliteJournal) -> None:
    """To move no row is a fault, not a race."""
    with pytest.raises(JournalError, match="Row 7 of the journal cannot become sending: there is no such row"):
        await journal.move(7, Move.SEND)


async def test_submitted_at(journal: SqliteJournal) -> None:
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
    await journal.move(row_id, Move.RESEND)
    assert (await only(journal, row_id)).submitted_at is None
    await journal.move(row_id, Move.DOUBT)
    await journal.move(row_id, Move.ADOPT, task_id="mine")
    adopted = await only(journal, row_id)
    assert adopted.submitted_at == adopted.updated_at


# Beginning


@pytest.mark.parametrize("again", [Move.QUEUE, Move.RETRY])
async def test_beginning_again(journal: SqliteJournal, again: Move) -> None:
    """A key's row is queued with the new request where the move may start; else it is given as it is."""
    for state in EffectState:
        row_id = await row_in(journal, state, key=state.value)
        before = await only(journal, row_id)
        begun = await journal.begin(VIDEO, key=state.value, state=SENDING, again=again)
        assert begun.row == await only(journal, row_id)
        if state not in MOVES[again][0]:
            assert (begun.is_mine, begun.row) == (False, before)
            continue
        assert begun.is_mine
        assert begun.row == attrs.evolve(
            before, state=QUEUED, request=VIDEO, updated_at=begun.row.updated_at, submitted_at=None, **FORGOTTEN
        )
        assert begun.row.updated_at > before.updated_at
        assert await past_task_ids(journal, row_id) == (f"{before.task_id}\n" if before.task_id else "")
    assert len(await journal.rows()) == len(EffectState)


async def test_a_new_row_is_mine(journal: SqliteJournal) -> None:
    """A new row is given as it was written; times are in UTC."""
    for key in ("k", None, None):
        for state in (QUEUED, SENDING):
            begun = await journal.begin(VIDEO, key=key and f"{key} {state}", state=state)
            row = begun.row
            assert begun.is_mine
            assert row == await only(journal, row.id)
            assert (row.key is None, row.state, row.request) == (key is None, state, VIDEO)
            assert (row.created_at.utcoffset(), row.created_at) == (LoopClock().utcnow().utcoffset(), row.updated_at)
    assert len(await journal.rows()) == 6


async def test_twins_share_a_row(journal: SqliteJournal) -> None:
    """Of two who begin with one key, even in one batch, one has the row; once it is refused, the next one has it."""
    first, second, _, third = await asyncio.gather(
        journal.begin(RAIN, key="k", state=QUEUED),
        journal.begin(VIDEO, key="k", state=SENDING),
        journal.move(1, Move.REFUSE, error="no"),
        journal.begin(VIDEO, key="k", state=SENDING),
    )
    assert (first.is_mine, second.is_mine, third.is_mine) == (True, False, True)
    assert second.row == first.row
    assert (third.row.id, third.row.state, third.row.request, third.row.error) == (first.row.id, QUEUED, VIDEO, None)
    assert await journal.rows() == [third.row]


async def test_what_a_row_cannot_begin_as(journal: SqliteJournal) -> None:
    """A row begins before its submission, and by a wish."""
    for state in EffectState:
        for again in Move:
            if state not in (QUEUED, SENDING) or again not in (Move.QUEUE, Move.RETRY):
                with pytest.raises(JournalError, match=f"cannot begin as {state.value} by {again.value}"):
                    await journal.begin(RAIN, key="k", state=state, again=again)
    assert await journal.rows() == []


# Task ids


async def test_a_task_id_belongs_to_one_row(journal: SqliteJournal) -> None:
    """A task id that another row has is refused, and both rows stay as they were; its own row may note it again."""
    one, other = await row_in(journal, SENDING), await row_in(journal, SENDING)
    await journal.move(one, Move.ACCEPT, task_id="t")
    before = await only(journal, other)
    with pytest.raises(TaskIdTakenError, match=f"Row {other} .*task t: it belongs to row {one}") as caught:
        await journal.move(other, Move.ACCEPT, task_id="t", error="x")
    assert caught.value.task_id == "t"
    assert await only(journal, other) == before
    await journal.move(one, Move.FINISH, task_id="t")
    assert await past_task_ids(journal, one) == ""


async def test_a_task_moves_only_its_own_row(journal: SqliteJournal) -> None:
    """What an earlier task of a row tells of itself, after the row was sent again, moves it no more."""
    for move in (Move.FINISH, Move.FAIL, Move.LOSE):
        row_id = await row_in(journal, SENDING)
        await journal.move(row_id, Move.ACCEPT, task_id=f"new {move}")
        assert not await journal.move(row_id, move, task_id=f"old {move}", error="late")
        assert (await only(journal, row_id)).state is SUBMITTED
        assert await journal.move(row_id, move, task_id=f"new {move}")
        assert (await only(journal, row_id)).task_id == f"new {move}"


async def test_a_submitted_row_has_a_task_id(journal: SqliteJournal) -> None:
    """Without an id there is nothing to ask for."""
    for state, move in ((SENDING, Move.ACCEPT), (UNKNOWN, Move.ADOPT)):
        row_id = await row_in(journal, state)
        for task_id in (None, ""):
            with pytest.raises(JournalError, match=f"Row {row_id} .* without a task id"):
                await journal.move(row_id, move, task_id=task_id)


async def test_an_earlier_task_id_is_put_aside(journal: SqliteJournal) -> None:
    """A row that is made afresh, or gets another id, keeps the earlier ids aside; another row may have them."""
    row_id = await row_in(journal, SENDING, key="k")
    await journal.move(row_id, Move.ACCEPT, task_id="a")
    await journal.move(row_id, Move.LOSE)
    await journal.move(row_id, Move.RESEND)
    assert await journal.row(task_id="a") is None
    await journal.move(row_id, Move.ACCEPT, task_id="b")
    await journal.move(row_id, Move.FAIL)
    await journal.begin(RAIN, key="k", state=SENDING, again=Move.RETRY)
    await journal.move(row_id, Move.SEND)
    await journal.move(row_id, Move.ACCEPT, task_id="c")
    await journal.move(row_id, Move.LOSE)
    await journal.move(row_id, Move.ADOPT, task_id="d")
    assert await past_task_ids(journal, row_id) == "a\nb\nc\n"
    assert (await only(journal, row_id)).task_id == "d"
    assert await journal.move(await row_in(journal, UNKNOWN), Move.ADOPT, task_id="a")


# Looking up


async def test_one_row(journal: SqliteJournal) -> None:
    """A row is found by its number, its key or its task id, and by one of them."""
    row_id = await row_in(journal, SUBMITTED, key="k")
    row = await only(journal, row_id)
    assert await journal.row(key="k") == await journal.row(task_id=row.task_id) == row
    assert [await journal.row(row_id=99), await journal.row(key="K"), await journal.row(task_id="k")] == [None] * 3
    with pytest.raises(JournalError, match="by one of its number, its key and its task id"):
        await journal.row()
    with pytest.raises(JournalError, match="by one of its number, its key and its task id"):
        await journal.row(row_id=row_id, key="k")


async def test_rows_by_state(journal: SqliteJournal) -> None:
    """Rows and their numbers are found by state, in the order of their numbers, page by page."""
    ids = {state: [await row_in(journal, state)] for state in EffectState}
    for state in reversed(EffectState):
        ids[state].append(await row_in(journal, state))
    everything = list(range(1, 2 * len(EffectState) + 1))
    for states in ([SENDING, DONE], [SAVED], [SAVED, LOST], [UNKNOWN, UNKNOWN], list(EffectState)):
        expected = sorted({row_id for state in states for row_id in ids[state]})
        assert await journal.row_ids(*states) == [row.id for row in await journal.rows(*states)] == expected
        assert [row.id for row in await journal.rows(*states, after=expected[0], limit=1)] == expected[1:2]
    assert await journal.row_ids() == [row.id for row in await journal.rows()] == everything
    assert [row.id for row in await journal.rows(after=3, limit=3)] == everything[3:6]


async def test_what_is_not_finished_is_found_by_an_index(journal: SqliteJournal) -> None:
    """Looking for what is left to do does not read the whole journal."""
    asked: list[str] = []
    await on_thread(journal, lambda db: db.set_trace_callback(asked.append))
    await journal.row_ids(QUEUED)
    await journal.rows(UNKNOWN, after=5)
    await journal.row_ids(UNKNOWN, LOST, SUBMITTED, DONE)
    await on_thread(journal, lambda db: db.set_trace_callback(None))
    queries = [f"EXPLAIN QUERY PLAN {query}" for query in asked if query.startswith("SELECT")]
    plans = await on_thread(journal, lambda db: [str(db.execute(query).fetchall()) for query in queries])
    assert len(plans) == 3
    assert all("INDEX unfinished_effects (state=?" in plan for plan in plans)


# Spelling


async def test_every_field_comes_back(journal: SqliteJournal, path: Path) -> None:
    """A row holds all that was noted, also after the file was closed and opened."""
    row_id = (await journal.begin(VIDEO, key="clip 1", state=SENDING)).row.id
    links = ("https://cdn.example/1.mp3?sig=a", "https://cdn.example/\ud800")
    await journal.move(row_id, Move.ACCEPT, task_id="p1-ä")
    await journal.move(row_id, Move.FINISH, urls=links)
    await journal.move(row_id, Move.SAVE, path="/tmp/ä.mp3", sha256="ab" * 32, error="odd \ud800 text")
    await journal.begin(RAIN, key=None, state=QUEUED)
    rows = await journal.rows()
    await journal.aclose()
    again = await opened(path)
    assert await again.rows() == rows
    await again.aclose()
    saved, rain = rows
    assert (saved.key, saved.state, saved.request, saved.task_id) == ("clip 1", SAVED, VIDEO, "p1-ä")
    assert (saved.urls, saved.path, saved.sha256) == (links, "/tmp/ä.mp3", "ab" * 32)
    assert saved.error == "odd ? text"
    assert saved.submitted_at is not None
    assert saved.updated_at > saved.submitted_at > saved.created_at
    assert (rain.key, rain.request, rain.urls) == (None, RAIN, ())
    assert type(saved.request.duration) is int  # as it goes to the service


async def test_a_request_is_spelled_by_its_field_names(journal: SqliteJournal, path: Path) -> None:
    """Every field is in the column; one that a later version left out has its default."""
    await journal.begin(RAIN, key=None, state=QUEUED)
    await journal.aclose()
    ((text,),) = sql(path, "SELECT request FROM effects")
    assert json.loads(text) == attrs.asdict(RAIN)
    sql(path, """UPDATE effects SET request = '{"prompt": "Rain"}'""")
    journal = await opened(path)
    assert (await only(journal, 1)).request == type(RAIN)("Rain")
    await journal.aclose()


DAMAGED = {
    "request = 'x'": r"Expecting value.* @ \$\.request",
    "request = '[]'": r"@ \$\.request",
    """request = '{"prompt": "a", "model": 1, "fps": 2}'""": r"unknown field fps, model @ \$\.request",
    """request = '{"prompt": 7}'""": r"must be str, not int @ \$\.request\.prompt",
    """request = '{"prompt": "a", "use_async": 1}'""": r"must be bool, not int @ \$\.request\.use_async",
    """request = '{"prompt": "a", "duration": "5"}'""": r"must be float, not str @ \$\.request\.duration",
    """request = '{"prompt": "a", "duration": 99}'""": r"duration must be .* seconds, not 99 @ \$\.request\.$",
    "urls = '['": r"Expecting value.* @ \$\.urls",
    "urls = '[\"a\", 1]'": r"must be str, not int @ \$\.urls\[1\]",
    "state = 'vanished'": r"'vanished' is not a valid EffectState @ \$\.state",
    "updated_at = 'today'": r"'today' @ \$\.updated_at",
    "submitted_at = '2026-01-01T00:00:00'": r"must have a time zone @ \$\.submitted_at",
    "created_at = x'00', sha256 = x'00'": r"must be str, not bytes @ \$\.sha256; .* @ \$\.created_at",
    "task_id = x'00'": r"must be str, not bytes @ \$\.task_id",
}


@pytest.mark.parametrize(("damage", "words"), DAMAGED.items())
async def test_a_row_that_cannot_be_read(journal: SqliteJournal, damage: str, words: str) -> None:
    """A row that somebody spoiled by hand is named, with the field, and its task id if that can be read."""
    row_id = await row_in(journal, SUBMITTED)
    task_id = (await only(journal, row_id)).task_id
    await on_thread(journal, lambda db: db.execute(f"UPDATE effects SET {damage}"))
    with pytest.raises(
        JournalError, match=f"Row {row_id} of the journal cannot be read: .*{DAMAGED[damage]}"
    ) as caught:
        await journal.rows()
    assert caught.value.task_id == (None if "task_id" in damage else task_id)


def test_cattrs_waits_for_the_first_row() -> None:
    """Importing the journal does not import cattrs, which takes as long as the rest."""
    code = "import sys, finevoice_async.adapters.sqlite_journal; sys.exit('cattrs' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
