"""The journal as its users see it: batches, order, faults of single writes, notes, closing."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from journals import QUEUED, RAIN, SAVED, SENDING, only, opened, row_in

from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.adapters.sqlite_journal import MAX_BATCH, SqliteJournal
from finevoice_async.core.ledger import EffectState, Move
from finevoice_async.errors import JournalError
from finevoice_async.ports import Journal

pytestmark = pytest.mark.real_time  # there is nothing to wait for but the disk


def test_it_fulfils_the_protocol() -> None:
    """The type checker compares it with the protocol here, and the constructor touches no file."""
    journal: Journal = SqliteJournal("/no/such/folder/x.db", LoopClock())
    assert repr(journal) == "<SqliteJournal x.db not open, 0 queued, 0 being written>"


async def test_one_bad_write_harms_no_neighbour(journal: SqliteJournal) -> None:
    """Of a batch, what is illegal, unknown or not storable fails alone."""
    good = await row_in(journal, SENDING)
    writes: list[asyncio.Future[Any]] = [
        journal.begin(RAIN, key="first", state=QUEUED),
        journal.begin(RAIN, key=None, state=SAVED),
        journal.move(999, Move.SEND),
        journal.move(2**70, Move.SEND),
        journal.move(good, Move.ACCEPT, task_id="lone \ud800"),
        journal.move(good, Move.ACCEPT),
        journal.begin(RAIN, key="lone \ud800", state=QUEUED),
        journal.begin(None, key=None, state=QUEUED),  # type: ignore[arg-type]
        journal.store("n", object()),  # type: ignore[arg-type]
        journal.move(good, Move.ACCEPT, task_id="t"),
        journal.begin(RAIN, key="last", state=QUEUED),
    ]
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert [isinstance(result, JournalError) for result in results] == [False] + [True] * 8 + [False] * 2
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
    many = [journal.begin(RAIN, key=f"a{number}", state=QUEUED) for number in range(MAX_BATCH + 7)]
    await asyncio.sleep(0)
    assert repr(journal) == f"<SqliteJournal effects.db open, 7 queued, {MAX_BATCH} being written>"
    late = journal.begin(RAIN, key="late", state=QUEUED)
    await late
    assert batches == [MAX_BATCH, 8]
    assert [begun.row.id for begun in await asyncio.gather(*many, late)] == list(range(1, MAX_BATCH + 9))


async def test_a_cancelled_write_is_made(journal: SqliteJournal) -> None:
    """Cancelling a write's future harms neither the write nor its neighbours."""
    row_id = await row_in(journal, SENDING)
    write = journal.move(row_id, Move.ACCEPT, task_id="t")
    after = journal.move(row_id, Move.FINISH)
    write.cancel()
    assert await after
    row = await only(journal, row_id)
    assert (row.state, row.task_id) == (EffectState.DONE, "t")


async def test_a_failure_that_nobody_awaits_is_logged(
    path: Path, no_leaks: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    """An unawaited failure leaves a log line with row and task id, no secret, and no other noise."""
    journal = await opened(path)
    link = "https://cdn.example/1?sig=secret"
    journal.move(77, Move.ACCEPT, task_id="t-77", urls=(link,), error="secret")
    journal.move(78, Move.ACCEPT, task_id="t-78").cancel()
    await journal.aclose()
    journal.move(79, Move.ACCEPT, task_id="t-79", urls=(link,))
    gc.collect()
    assert no_leaks == []
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert all(
        f"row {number} as submitted (task t-{number})" in line for number, line in zip((77, 78, 79), told, strict=True)
    )
    assert "secret" not in caplog.text


async def test_notes(journal: SqliteJournal) -> None:
    """A text is kept under its name, and a read sees the writes before it."""
    assert await journal.load("state") is None
    journal.store("state", "1")
    journal.store("state", "2\0ä")
    assert await journal.load("state") == "2\0ä"


async def test_closing(path: Path, no_leaks: object) -> None:
    """Closing commits what is queued, leaves one file, can be called again, and then every call raises."""
    journal = await opened(path)
    queued = [journal.begin(RAIN, key=None, state=QUEUED) for _ in range(2 * MAX_BATCH)]
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
    yield journal.begin(RAIN, key=None, state=QUEUED)
    yield journal.move(1, Move.SEND)
    yield journal.store("a", "b")
    yield journal.load("a")
    yield journal.row(key="k")
    yield journal.row_ids()
    yield journal.rows()


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
    write = journal.begin(RAIN, key=None, state=QUEUED)
    closing = asyncio.ensure_future(journal.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing])
    assert closing.cancelled()
    await journal.aclose()
    assert (await write).row.id == 1
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
    journal.begin(RAIN, key="queued", state=QUEUED)
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
