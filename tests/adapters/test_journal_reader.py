"""Reading a journal whose owner writes to it: a consistent moment, nothing locked, nothing changed."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from journals import RAIN, WAYS, opened, row_in, sql

from finevoice_async.adapters import journal_reader, journal_schema
from finevoice_async.adapters.journal_reader import read_journal
from finevoice_async.adapters.sqlite_journal import SqliteJournal
from finevoice_async.core.ledger import EffectState
from finevoice_async.errors import JournalError

pytestmark = pytest.mark.real_time  # there is nothing to wait for but the disk

V1 = Path(__file__).parent.parent / "samples" / "journal_v1.db"


def everything(folder: Path) -> dict[str, bytes]:
    """Return all files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


async def test_what_was_committed_is_read(path: Path, journal: SqliteJournal) -> None:
    """Rows that are in the write-ahead log only are read, by state, key and page; the files stay as they are."""
    ids = [await row_in(journal, state, key=state.value) for state in WAYS]
    before = everything(path.parent)
    with read_journal(path) as reader:
        assert [row.id for row in reader.rows()] == ids
        assert [row.state for row in reader.rows(EffectState.SAVED, EffectState.QUEUED)] == [
            EffectState.QUEUED,
            EffectState.SAVED,
        ]
        assert [row.id for row in reader.rows(after=3, limit=2)] == [4, 5]
        found = reader.row(key="sending")
        assert found is not None
        assert found.state is EffectState.SENDING  # not brought up to date, as an owner would
        assert reader.row(key="none") is None
        assert reader.past_task_ids(ids) == {}
    assert everything(path.parent) == before


async def test_a_closed_journal(path: Path) -> None:
    """A journal that nobody has open is read, too, also from a folder that may not be written."""
    journal = await opened(path)
    await row_in(journal, EffectState.SAVED)
    await journal.aclose()
    before = everything(path.parent)
    path.parent.chmod(0o500)
    try:
        with read_journal(path) as reader:
            assert len(reader.rows()) == 1
    finally:
        path.parent.chmod(0o700)
    assert everything(path.parent) == before


async def test_through_a_link(path: Path, journal: SqliteJournal) -> None:
    """The log lies beside the real file, where a link leads to it."""
    await row_in(journal, EffectState.SAVED)
    link = path.parent / "link.db"
    link.symlink_to(path)
    with read_journal(link) as reader:
        assert len(reader.rows()) == 1


WRITER = """
import asyncio, sys
from pathlib import Path
from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.adapters.sqlite_journal import SqliteJournal
from finevoice_async.core.ledger import EffectState
from finevoice_async.core.requests import SfxRequest
async def write():
    journal = SqliteJournal(sys.argv[1], LoopClock())
    await journal.open()
    print("open", flush=True)
    request = SfxRequest("x" * 3000)
    while not Path(sys.argv[1] + ".stop").exists():
        await asyncio.gather(*[journal.begin(request, key=None, state=EffectState.QUEUED) for _ in range(50)])
    await journal.aclose()
asyncio.run(write())
"""


def test_while_it_is_written_fast(path: Path) -> None:
    """While another process writes so fast that its log begins anew, each copy is sound and has whole commits only."""
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "open\n"
    seen: list[int] = []
    refused = 0
    beginnings: set[bytes] = set()
    try:
        while len(beginnings) < 2:
            beginnings.add(journal_reader._moment(path)[0])  # type: ignore[arg-type]  # the log's head
            try:
                with read_journal(path) as reader:
                    assert reader._db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
                    count, last = reader._db.execute("SELECT count(*), max(id) FROM effects").fetchone()
            except JournalError as error:
                assert "faster than it can be read" in str(error)  # noqa: PT017 - the other outcome is as good
                refused += 1
                continue
            assert count == (last or 0)
            assert count % 50 == 0
            seen.append(count)
    finally:
        Path(f"{path}.stop").touch()
        writer.communicate(timeout=60)
    assert seen == sorted(seen)
    assert len(seen) > refused


@pytest.mark.parametrize("times", [1, 4, 5])
async def test_a_log_that_begins_anew_meanwhile(path: Path, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """If the log is merged and begun anew between the two copies, they do not fit together, and are taken again."""
    journal = await opened(path)
    await row_in(journal, EffectState.SAVED, key="0")
    await journal.aclose()
    owner = sqlite3.connect(path, isolation_level=None)
    owner.execute("PRAGMA locking_mode = EXCLUSIVE")
    real, turns = journal_schema.copy_file, 0

    def copy_while_it_changes(source: Path, target: Path) -> None:
        nonlocal turns
        real(source, target)
        turns += 1
        if turns <= times:
            for _ in range(2):
                owner.execute(f"UPDATE effects SET key = '{turns}', error = '{'x' * 9000}'")
                owner.execute("PRAGMA wal_checkpoint(RESTART)")
            owner.execute("UPDATE effects SET sha256 = 'y'")

    monkeypatch.setattr(journal_schema, "copy_file", copy_while_it_changes)
    try:
        if times == journal_reader._ATTEMPTS:
            with pytest.raises(JournalError, match="Try again"), read_journal(path):
                pass
            return
        with read_journal(path) as reader:
            (row,) = reader.rows()
        assert (row.key, row.sha256, turns) == (str(times), "y", times + 1)
    finally:
        owner.close()


async def test_a_crashed_owner(path: Path) -> None:
    """What a killed owner left, with its log, is read; the log is not merged and not removed."""
    journal = await opened(path)
    await row_in(journal, EffectState.SENDING)
    left = path.parent / "left"
    left.mkdir()
    for file in path.parent.glob("*.db*"):
        shutil.copy(file, left)
    await journal.aclose()
    before = everything(left)
    assert "effects.db-wal" in before
    with read_journal(left / "effects.db") as reader:
        assert [row.state for row in reader.rows()] == [EffectState.SENDING]
    assert everything(left) == before


def _newer(path: Path) -> None:
    asyncio.run(_made(path))
    sql(path, f"PRAGMA user_version = {journal_schema.VERSION + 1}")


def _older(path: Path) -> None:
    shutil.copyfile(V1, path)


def _foreign(path: Path) -> None:
    sql(path, "CREATE TABLE theirs (x)")


def _text(path: Path) -> None:
    path.write_text("no database at all, but long enough to be looked at " * 20)


def _empty(path: Path) -> None:
    path.touch()


def _folder(path: Path) -> None:
    path.mkdir()


def _cut(path: Path) -> None:
    asyncio.run(_made(path))
    with path.open("r+b") as file:
        file.truncate(100)


def _broken(path: Path) -> None:
    asyncio.run(_made(path))
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))


async def _made(path: Path) -> None:
    await (await opened(path)).aclose()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_newer, "newer"),
        (_older, "older"),
        (_foreign, "no journal"),
        (_text, "no SQLite file"),
        (_empty, "no journal"),
        (_folder, "There is no journal"),
        (_cut, "journal"),
        (_broken, "damaged"),
        (lambda path: None, "There is no journal"),
    ],
)
def test_what_cannot_be_read_is_told(path: Path, make: Any, words: str) -> None:
    """Anything else than a journal of this version is a clear word, and stays as it is."""
    make(path)
    before = everything(path.parent) if path.is_file() else {}
    with pytest.raises(JournalError, match=words), read_journal(path):
        pass
    assert not path.is_file() or everything(path.parent) == before


@pytest.mark.parametrize("leave", [BrokenPipeError, sqlite3.OperationalError, KeyError])
async def test_errors_of_the_reader_are_its_own(path: Path, leave: type[Exception]) -> None:
    """What goes wrong in the hands of whoever reads is not taken for a fault of the journal."""
    await _made(path)
    with pytest.raises(leave), read_journal(path):
        raise leave


async def test_the_owner_keeps_its_lock(path: Path, journal: SqliteJournal) -> None:
    """Read many times in the owner's own process, the file is still locked for other processes, until it is closed."""
    for _ in range(3):
        with read_journal(path):
            pass
    look = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('SELECT * FROM effects')"
    other = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", look, str(path)], capture_output=True, text=True
    )
    assert "locked" in other.stderr
    await journal.aclose()
    assert journal_schema._owned == {}
    assert sql(path, "SELECT count(*) FROM effects") == [(0,)]


async def test_a_refused_second_owner_does_not_matter(path: Path, journal: SqliteJournal) -> None:
    """A second owner that was refused leaves the first one's descriptors alone."""
    with pytest.raises(JournalError, match="in use"):
        await opened(path)
    with read_journal(path):
        pass
    look = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('SELECT * FROM effects')"
    other = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", look, str(path)], capture_output=True, text=True
    )
    assert "locked" in other.stderr


# Pruning, which an owner does


@pytest.mark.parametrize("state", list(WAYS))
async def test_prune_takes_settled_rows_only(journal: SqliteJournal, state: EffectState) -> None:
    """Only what is saved, refused or failed is removed, and only if it was written last before the time given."""
    row_id = await row_in(journal, state, key="a")
    now = datetime.now(UTC)
    assert await journal.prune(now - timedelta(days=1)) == 0
    settled = state in (EffectState.SAVED, EffectState.REFUSED, EffectState.FAILED)
    assert await journal.prune(now + timedelta(days=1)) == int(settled)
    assert (await journal.row(row_id=row_id) is None) is settled
    begun = await journal.begin(RAIN, key="a", state=EffectState.QUEUED)
    assert begun.is_mine is (settled or state is EffectState.REFUSED)
