"""The journal as its users see it: states, keys, batches, order, closing."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.adapters.sqlite_journal import MAX_BATCH, SqliteJournal
from finevoice_async.core.ledger import TRANSITIONS, EffectState, JournalRow
from finevoice_async.core.requests import SfxRequest
from finevoice_async.errors import JournalError
from finevoice_async.ports import Journal

pytestmark = pytest.mark.real_time  # there is nothing to wait for but the disk

PREPARED, SENDING, SUBMITTED, DONE, FAILED, SAVED = (
    EffectState.PREPARED,
    EffectState.SENDING,
    EffectState.SUBMITTED,
    EffectState.DONE,
    EffectState.FAILED,
    EffectState.SAVED,
)
# How a row gets into each state.
WAYS = {
    PREPARED: [PREPARED],
    SENDING: [SENDING],
    SUBMITTED: [SENDING, SUBMITTED],
    DONE: [SENDING, SUBMITTED, DONE],
    FAILED: [PREPARED, FAILED],
    SAVED: [SENDING, SUBMITTED, DONE, SAVED],
}
RAIN = SfxRequest("Rain", negative_prompt="music", duration=2.5, use_async=False)
VIDEO = SfxRequest(source_url="https://example.org/a.mp4?x=1", source_type="video", duration=5)

_ids = itertools.count()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file."""
    return tmp_path / "effects.db"


@pytest.fixture
async def journal(path: Path, no_leaks: object) -> AsyncIterator[SqliteJournal]:
    """An open journal."""
    journal = await opened(path)
    yield journal
    await journal.aclose()


async def opened(path: Path) -> SqliteJournal:
    """Make a journal and open it."""
    journal = SqliteJournal(path, LoopClock())
    await journal.open()
    return journal


async def row_in(journal: SqliteJournal, state: EffectState, key: str | None = None) -> int:
    """Make a row and bring it into a state."""
    first, *rest = WAYS[state]
    row = await journal.begin(RAIN, key=key, state=first)
    for after in rest:
        await journal.advance(row.id, after, task_id=f"task-{next(_ids)}" if after is SUBMITTED else None)
    return row.id


async def only(journal: SqliteJournal, row_id: int) -> JournalRow:
    """Read one row."""
    (row,) = await journal.rows(after=row_id - 1, limit=1)
    assert row.id == row_id
    return row


def test_it_fulfils_the_protocol() -> None:
    """The type checker compares it with the protocol here, and the constructor touches no file."""
    journal: Journal = SqliteJournal("/no/such/folder/x.db", LoopClock())
    assert repr(journal) == "<SqliteJournal x.db not open, 0 queued, 0 being written>"


@pytest.mark.parametrize("before", EffectState)
async def test_transitions(journal: SqliteJournal, before: EffectState) -> None:
    """Every legal transition is made, and every other one is refused by row, from and to, and changes nothing."""
    for after in EffectState:
        row_id = await row_in(journal, before)
        written = await only(journal, row_id)
        move = journal.advance(row_id, after, task_id=f"{row_id}" if after is SUBMITTED else None, error="new")
        if after in TRANSITIONS[before]:
            await move
            assert (await only(journal, row_id)).state is after
        else:
            with pytest.raises(JournalError, match=rf"Row {row_id} .*{after.value}.*{before.value}"):
                await move
            assert await only(journal, row_id) == written


@pytest.mark.parametrize("state", [SUBMITTED, DONE, FAILED, SAVED])
async def test_a_row_begins_before_its_submission(journal: SqliteJournal, state: EffectState) -> None:
    """A new row in any later state is refused."""
    with pytest.raises(JournalError, match=f"cannot begin as {state.value}"):
        await journal.begin(RAIN, key=None, state=state)
    assert await journal.rows() == []


async def test_every_field_comes_back(journal: SqliteJournal, path: Path) -> None:
    """A row holds all that was noted, also after the file was closed and opened; times are in UTC."""
    row = await journal.begin(VIDEO, key="clip 1", state=SENDING)
    assert row == await only(journal, row.id)
    assert (row.created_at.utcoffset(), row.created_at) == (LoopClock().utcnow().utcoffset(), row.updated_at)
    links = ("https://cdn.example/1.mp3?sig=a", "https://cdn.example/\ud800")
    await journal.advance(row.id, SUBMITTED, task_id="p1-ä")
    await journal.advance(row.id, DONE, urls=links)
    await journal.advance(row.id, SAVED, path="/tmp/ä.mp3", sha256="ab" * 32, error="odd \ud800 text")
    await journal.begin(RAIN, key=None, state=PREPARED)
    rows = await journal.rows()
    await journal.aclose()
    again = await opened(path)
    assert await again.rows() == rows
    await again.aclose()
    saved, rain = rows
    assert (saved.key, saved.state, saved.request, saved.task_id) == ("clip 1", SAVED, VIDEO, "p1-ä")
    assert (saved.urls, saved.path, saved.sha256) == (links, "/tmp/ä.mp3", "ab" * 32)
    assert saved.error == "odd ? text"
    assert saved.updated_at > saved.created_at == row.created_at
    assert (rain.key, rain.request, rain.urls) == (None, RAIN, ())


async def test_a_key_gives_the_row_that_has_it(journal: SqliteJournal) -> None:
    """A second begin with a key, even in the same batch, gives the first one's row as it is and writes nothing."""
    first, twin = await asyncio.gather(
        journal.begin(RAIN, key="k", state=PREPARED), journal.begin(VIDEO, key="k", state=SENDING)
    )
    assert first == twin
    await journal.advance(first.id, FAILED, error="no")
    later = await journal.begin(RAIN, key="k", state=SENDING)
    assert (later.id, later.state, later.error) == (first.id, FAILED, "no")
    assert len(await journal.rows()) == 1


async def test_a_task_id_belongs_to_one_row(journal: SqliteJournal) -> None:
    """A task id that another row has is refused, and both rows stay as they were; its own row may note it again."""
    one, other = await row_in(journal, SENDING), await row_in(journal, SENDING)
    await journal.advance(one, SUBMITTED, task_id="t")
    with pytest.raises(JournalError, match=f"Row {other} .*task t: it belongs to row {one}") as caught:
        await journal.advance(other, SUBMITTED, task_id="t", error="x")
    assert caught.value.task_id == "t"
    assert (await only(journal, other)).state is SENDING
    await journal.advance(one, DONE, task_id="t")
    with pytest.raises(JournalError, match="without a task id"):
        await journal.advance(other, SUBMITTED)


async def test_an_earlier_task_id_is_not_lost(journal: SqliteJournal, path: Path) -> None:
    """A row that is submitted again keeps the ids of its earlier submissions."""
    row_id = await row_in(journal, SENDING)
    for task_id in ("a", "b", "c"):
        await journal.advance(row_id, SUBMITTED, task_id=task_id)
        await journal.advance(row_id, FAILED, task_id=task_id)
        await journal.advance(row_id, SENDING)
    await journal.aclose()
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT task_id, past_task_ids FROM effects").fetchone() == ("c", "a\nb\n")
    db.close()


async def test_one_bad_write_harms_no_neighbour(journal: SqliteJournal) -> None:
    """Of a batch, what is illegal, unknown or not storable fails alone."""
    good = await row_in(journal, SENDING)
    writes: list[asyncio.Future[Any]] = [
        journal.begin(RAIN, key="first", state=PREPARED),
        journal.advance(good, SAVED),
        journal.advance(999, SENDING),
        journal.advance(2**70, SENDING),
        journal.advance(good, SENDING, path="lone \ud800"),
        journal.begin(RAIN, key="lone \ud800", state=PREPARED),
        journal.begin(None, key=None, state=PREPARED),  # type: ignore[arg-type]
        journal.store("n", object()),  # type: ignore[arg-type]
        journal.advance(good, SUBMITTED, task_id="t"),
        journal.begin(RAIN, key="last", state=PREPARED),
    ]
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert [isinstance(result, JournalError) for result in results] == [False] + [True] * 7 + [False] * 2
    assert [row.key for row in await journal.rows()] == [None, "first", "last"]
    assert (await only(journal, good)).task_id == "t"


async def test_writes_share_commits(journal: SqliteJournal, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written in one turn is one batch; what comes while it is committed is the next; order is kept."""
    batches: list[int] = []
    run = journal._worker.run

    def counted(jobs: Any) -> Any:
        batches.append(len(jobs))
        return run(jobs)

    monkeypatch.setattr(journal._worker, "run", counted)
    many = [journal.begin(RAIN, key=f"a{number}", state=PREPARED) for number in range(MAX_BATCH + 7)]
    await asyncio.sleep(0)
    assert repr(journal) == f"<SqliteJournal effects.db open, 7 queued, {MAX_BATCH} being written>"
    late = journal.begin(RAIN, key="late", state=PREPARED)
    await late
    assert batches == [MAX_BATCH, 8]
    assert [row.id for row in await asyncio.gather(*many, late)] == list(range(1, MAX_BATCH + 9))


async def test_a_cancelled_write_is_made(journal: SqliteJournal) -> None:
    """Cancelling a write's future harms neither the write nor its neighbours."""
    row_id = await row_in(journal, SENDING)
    write = journal.advance(row_id, SUBMITTED, task_id="t")
    after = journal.advance(row_id, DONE)
    write.cancel()
    await after
    row = await only(journal, row_id)
    assert (row.state, row.task_id) == (DONE, "t")


async def test_a_failure_that_nobody_awaits_is_logged(
    path: Path, no_leaks: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    """An unawaited failure leaves a log line with row and task id, no secret, and no other noise."""
    journal = await opened(path)
    link = "https://cdn.example/1?sig=secret"
    journal.advance(77, SUBMITTED, task_id="t-77", urls=(link,), error="secret")
    journal.advance(78, SUBMITTED, task_id="t-78").cancel()
    await journal.aclose()
    journal.advance(79, SUBMITTED, task_id="t-79", urls=(link,))
    gc.collect()
    assert no_leaks == []
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert [
        f"row {number} as submitted (task t-{number})" in line for number, line in zip((77, 78, 79), told, strict=True)
    ]
    assert "secret" not in caplog.text


async def test_rows_and_counts(journal: SqliteJournal) -> None:
    """Rows are found by state, page by page in the order of their ids, and counted."""
    ids = {state: [await row_in(journal, state), await row_in(journal, state)] for state in EffectState}
    assert await journal.counts() == dict.fromkeys(EffectState, 2)
    assert [row.id for row in await journal.rows(SENDING, DONE)] == ids[SENDING] + ids[DONE]
    assert [row.id for row in await journal.rows(SENDING, after=ids[SENDING][0])] == ids[SENDING][1:]
    everything = [row.id for row in await journal.rows()]
    assert everything == sorted(everything)
    assert [row.id for row in await journal.rows(after=everything[2], limit=3)] == everything[3:6]


async def test_notes(journal: SqliteJournal) -> None:
    """A text is kept under its name, and a read sees the writes before it."""
    assert await journal.load("state") is None
    journal.store("state", "1")
    journal.store("state", "2\0ä")
    assert await journal.load("state") == "2\0ä"


async def test_a_row_that_cannot_be_read(journal: SqliteJournal) -> None:
    """A row that somebody spoiled by hand is named."""
    row_id = await row_in(journal, SUBMITTED)
    await asyncio.get_running_loop().run_in_executor(
        journal._executor,
        lambda: journal._worker._db and journal._worker._db.execute("UPDATE effects SET request = 'x'"),
    )
    with pytest.raises(JournalError, match=f"Row {row_id} of the journal cannot be read"):
        await journal.rows()


async def test_closing(path: Path, no_leaks: object) -> None:
    """Closing commits what is queued, leaves one file, can be called again, and then every call raises."""
    journal = await opened(path)
    queued = [journal.begin(RAIN, key=None, state=PREPARED) for _ in range(2 * MAX_BATCH)]
    await asyncio.gather(journal.aclose(), journal.aclose())
    await journal.aclose()
    assert all(write.done() for write in queued)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert "closed, 0 queued, 0 being written" in repr(journal)
    for call in calls(journal):
        with pytest.raises(JournalError, match="it is closed"):
            await call
    with pytest.raises(JournalError, match="it is closed"):
        await journal.open()
    again = await opened(path)
    assert len(await again.rows(limit=9999)) == 2 * MAX_BATCH
    await again.aclose()


def calls(journal: SqliteJournal) -> Iterator[Any]:
    """Every use of an open journal."""
    yield journal.begin(RAIN, key=None, state=PREPARED)
    yield journal.advance(1, FAILED)
    yield journal.store("a", "b")
    yield journal.load("a")
    yield journal.rows()
    yield journal.counts()


async def test_before_it_is_open(path: Path, no_leaks: object) -> None:
    """Every call on a journal that is not open raises; opening it twice does, too; closing it touches no file."""
    journal = SqliteJournal(path, LoopClock())
    for call in calls(journal):
        with pytest.raises(JournalError, match="it is not open"):
            await call
    await journal.aclose()
    assert not path.exists()
    journal = await opened(path)
    with pytest.raises(JournalError, match="it is open"):
        await journal.open()
    await journal.aclose()


async def test_closing_goes_on_when_cancelled(path: Path, no_leaks: object) -> None:
    """A cancelled aclose closes all the same, and a second one waits for it."""
    journal = await opened(path)
    write = journal.begin(RAIN, key=None, state=PREPARED)
    closing = asyncio.ensure_future(journal.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing])
    assert closing.cancelled()
    await journal.aclose()
    assert (await write).id == 1
    await (await opened(path)).aclose()


@pytest.mark.parametrize("how", ["cancelled", "closed", "cancelled and closed"])
async def test_opening_that_is_broken_off(path: Path, no_leaks: object, how: str) -> None:
    """Opening that is cancelled, or overtaken by aclose, or both, leaves nothing open."""
    journal = SqliteJournal(path, LoopClock())
    opening = asyncio.ensure_future(journal.open())
    await asyncio.sleep(0)
    if "cancelled" in how:
        opening.cancel()
    if "closed" in how:
        await journal.aclose()
    with pytest.raises(asyncio.CancelledError if "cancelled" in how else JournalError):
        await opening
    await journal.aclose()
    await asyncio.to_thread(journal._executor.shutdown)  # waits for the thread
    await (await opened(path)).aclose()


async def test_dropped_open(path: Path, no_leaks: object) -> None:
    """A journal dropped open warns; what was queued is written, and the file is free again."""
    journal = await opened(path)
    journal._busy = True  # as if the loop had ended: nothing is sent to the thread any more
    journal.begin(RAIN, key="queued", state=PREPARED)
    with pytest.warns(ResourceWarning, match=r"unclosed <SqliteJournal effects.db open, 1 queued"):
        del journal  # nothing else refers to it
    again = await opened(path)
    assert [row.key for row in await again.rows()] == ["queued"]
    await again.aclose()


def test_on_uvloop(path: Path) -> None:
    """It works on another event loop."""
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        journal = await opened(path)
        row_id = await row_in(journal, SAVED)
        assert (await only(journal, row_id)).state is SAVED
        await journal.aclose()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.sampled_from([None, "a", "b", "c"]), st.sampled_from([PREPARED, SENDING])),
        st.tuples(st.integers(1, 6), st.sampled_from([None, "t1", "t2", "t3"]), st.sampled_from(EffectState)),
        st.just(("wait", None, PREPARED)),
        st.just(("reopen", None, PREPARED)),
    ),
    max_size=30,
)


def expect(model: list[dict[str, Any]], what: str | int, name: str | None, state: EffectState) -> int | bool:
    """Do a step in the model: the id that begin gives, or whether advance succeeds."""
    if what == "begin":
        for number, row in enumerate(model, 1):
            if name is not None and row["key"] == name:
                return number
        model.append({"key": name, "state": state, "task_id": None})
        return len(model)
    assert isinstance(what, int)
    if what > len(model) or state not in TRANSITIONS[model[what - 1]["state"]] or (state is SUBMITTED and not name):
        return False
    if any(row["task_id"] == name is not None for row in model if row is not model[what - 1]):
        return False
    model[what - 1] |= {"state": state} | ({"task_id": name} if name else {})
    return True


@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_it_does_as_a_simple_model_does(steps: list[tuple[str | int, str | None, EffectState]]) -> None:
    """Whatever is written, in whatever batches and lives, rows and refusals are as in a list of dicts."""

    async def main(path: Path) -> None:
        model: list[dict[str, Any]] = []
        waiting: list[tuple[asyncio.Future[Any], int | bool]] = []
        journal = await opened(path)
        for what, name, state in [*steps, ("reopen", None, PREPARED)]:
            if what == "reopen":
                await journal.aclose()
                journal = await opened(path)
            elif what == "wait":
                await asyncio.sleep(0)
            elif what == "begin":
                waiting.append((journal.begin(RAIN, key=name, state=state), expect(model, what, name, state)))
            else:
                assert isinstance(what, int)
                waiting.append((journal.advance(what, state, task_id=name), expect(model, what, name, state)))
        for write, expected in waiting:
            if isinstance(expected, bool):
                assert (write.exception() is None) is expected
            else:
                assert write.result().id == expected
        rows = await journal.rows()
        assert [{"key": row.key, "state": row.state, "task_id": row.task_id} for row in rows] == model
        await journal.aclose()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder, "effects.db")))
