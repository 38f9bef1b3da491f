"""Journals of earlier versions: what becomes of every row, and that an interrupted migration leaves the old file."""

from __future__ import annotations

import asyncio
import logging
import shutil
import signal
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from journals import (
    DONE,
    FAILED,
    LOST,
    QUEUED,
    RAIN,
    REFUSED,
    SAVED,
    SENDING,
    SUBMITTED,
    UNKNOWN,
    opened,
    sql,
)

from finevoice_async.core.ledger import GIVEN_UP, PERHAPS_PAID, EffectState
from finevoice_async.core.requests import SfxRequest
from finevoice_async.errors import JournalError

pytestmark = pytest.mark.real_time  # there is nothing to wait for but the disk

SAMPLES = Path(__file__).parent.parent / "samples"
LONG_AGO = datetime.min.replace(tzinfo=UTC)


async def filled(path: Path) -> None:
    """Leave a journal with a row behind, or one more."""
    journal = await opened(path)
    await journal.begin(RAIN, key="one more", state=SENDING)
    await journal.aclose()


@pytest.fixture
def v1(path: Path) -> Path:
    """A copy of a journal that version 1 of the schema made."""
    return Path(shutil.copyfile(SAMPLES / "journal_v1.db", path))


@pytest.fixture(params=[1, 2, 3])
def old(path: Path, request: pytest.FixtureRequest) -> Path:
    """A copy of a journal that an earlier version of the schema made."""
    return Path(shutil.copyfile(SAMPLES / f"journal_v{request.param}.db", path))


# Version 1


FIRST = SfxRequest("Rain on a tin roof", negative_prompt="music, voices", duration=5)
CLIP = SfxRequest(source_url="https://example.org/clip.mp4?sig=1", source_type="video", duration=2.5, use_async=False)
LOST_ANSWER = "No answer came back: the connection broke. The request may have been accepted and paid for."
STOPPED = "The program stopped before the answer to its submission came"
NO_SOURCE = "Task p1-failed failed: The service answered 404: its source is gone (code 500)."
NOT_FOUND = "The service answered 404: task not found."
# What became of each row: key, state, task id, earlier ids, error.
MIGRATED: dict[int, tuple[str | None, EffectState, str | None, str, str | None]] = {
    1: ("scene 1, door", QUEUED, None, "", None),
    2: (None, QUEUED, None, "", None),
    3: (None, UNKNOWN, None, "", STOPPED),
    4: ("scene 2, rain", UNKNOWN, None, "", LOST_ANSWER),
    5: ("scene 3, wind", SUBMITTED, "p1-submitted", "", None),
    6: (None, DONE, "p1-done", "", None),
    7: (None, DONE, None, "", None),
    8: ("scene 4, thunder", SAVED, "p1-saved", "", None),
    9: ("scene 5, bird", REFUSED, None, "", "cancelled before it was sent"),
    10: ("scene 6, bell", REFUSED, None, "", "The service answered 404: no such path."),
    11: ("scene 7, dog", FAILED, "p1-failed", "", NO_SOURCE),
    12: ("scene 8, cat", LOST, "p1-lost", "", NOT_FOUND),
    13: ("scene 9, sea", QUEUED, None, "p1-first\n", "Task p1-first failed: overloaded."),
    14: ("scene 10, fire", UNKNOWN, None, "p1-one\np1-two\n", "Task p1-two failed: overloaded."),
}


async def test_version_1_is_migrated(v1: Path, no_leaks: object, caplog: pytest.LogCaptureFixture) -> None:
    """Every row of an old journal is found in its new state, with all that was known; and so it stays."""
    stamps = {row[0]: row[1:] for row in sql(v1, "SELECT id, created_at, updated_at FROM effects")}
    with caplog.at_level(logging.INFO, "finevoice_async"):
        journal = await opened(v1)
    assert "effects.db was brought from schema 1 to 4" in caplog.text
    rows = await journal.rows()
    assert await journal.load("polling") == '{"a": 1}'
    await journal.aclose()
    aside = dict(sql(v1, "SELECT id, past_task_ids FROM effects"))
    assert {row.id: (row.key, row.state, row.task_id, aside[row.id], row.error) for row in rows} == MIGRATED
    for row in rows:
        assert row.request == (CLIP if row.id in (2, 5, 7) else FIRST)
        assert [row.created_at, row.updated_at] == [datetime.fromisoformat(stamp) for stamp in stamps[row.id]]
        assert row.submitted_at == (row.updated_at if row.state is SUBMITTED else None)
        links = ("https://cdn.example/a.mp3?sig=1", "https://cdn.example/b.mp3") if row.state in (DONE, SAVED) else ()
        assert row.urls == (links[:1] if row.id == 7 else links)
        assert (row.path, row.sha256) == (("/srv/effects/thunder ä.mp3", "ab" * 32) if row.id == 8 else (None, None))
    journal = await opened(v1)
    assert await journal.rows() == rows
    await journal.aclose()


# Version 2


async def test_version_2_is_migrated(path: Path, no_leaks: object, caplog: pytest.LogCaptureFixture) -> None:
    """Every row is as it was, but for one that was being sent."""
    shutil.copyfile(SAMPLES / "journal_v2.db", path)
    query = "SELECT id, key, state, request, task_id, past_task_ids, urls, path, sha256, created_at, updated_at, "
    query += "submitted_at FROM effects"
    before = {row[0]: list(row) for row in sql(path, query)}
    with caplog.at_level(logging.INFO, "finevoice_async"):
        journal = await opened(path)
    assert "effects.db was brought from schema 2 to 4" in caplog.text
    assert len(await journal.rows()) == 16
    assert await journal.load("polling") == '{"a": 1}'
    await journal.aclose()
    for number in (3, 16):
        assert before[number][2] == "sending"
        before[number][2] = "unknown"
    assert {row[0]: list(row) for row in sql(path, query)} == before


# When the submissions of each row left, in minutes: at the latest, where version 2 did not say.
SENT = {
    1: [],  # never sent
    2: [5],  # failed, and queued again
    3: [6],  # was being sent
    4: [9],  # unknown
    5: [12],
    6: [14],
    7: [18],  # a result at once
    8: [20],
    9: [],  # refused
    10: [28],  # unknown, and given up
    11: [30],  # failed
    12: [33],  # lost
    13: [43, 43, 43],  # lost, sent again, failed, sent again
    14: [46],  # unknown; its task was named
    15: [],  # held
    16: [52, 52],  # lost, and being sent again
}


async def test_a_budget_counts_what_version_2_sent(path: Path, no_leaks: object) -> None:
    """What may have been accepted has left at the latest time that there is for it, so that it counts for too long."""
    shutil.copyfile(SAMPLES / "journal_v2.db", path)
    journal = await opened(path)
    sent = await journal.sent_since(LONG_AGO)
    minutes = sorted(minute for row in SENT.values() for minute in row)
    assert [at - datetime(2026, 3, 1, tzinfo=UTC) for at in sent] == [timedelta(minutes=minute) for minute in minutes]
    assert len(await journal.sent_since(datetime(2026, 3, 1, 0, 43, tzinfo=UTC))) == 6
    await journal.aclose()
    found = sql(path, "SELECT id, sent_at, past_sent_at FROM effects")
    assert {number: len(past.split()) + (last is not None) for number, last, past in found} == {
        number: len(row) for number, row in SENT.items()
    }


async def test_a_budget_counts_what_version_1_sent(v1: Path, no_leaks: object) -> None:
    """The same for every row that may have been accepted, and every task before it."""
    journal = await opened(v1)
    assert len(await journal.sent_since(LONG_AGO)) == 12
    await journal.aclose()
    found = sql(v1, "SELECT id, sent_at, past_sent_at FROM effects")
    counts = {number: len(past.split()) + (last is not None) for number, last, past in found}
    never_sent = {1: 0, 2: 0, 9: 0, 10: 0}
    assert counts == dict.fromkeys(range(1, 15), 1) | never_sent | {14: 3}


# Version 3


async def test_version_3_is_migrated(path: Path, no_leaks: object) -> None:
    """Every row is as it was, but for what was being sent; what was given up in doubt says so; a budget counts all."""
    shutil.copyfile(SAMPLES / "journal_v3.db", path)
    query = "SELECT id, key, state, request, task_id, past_task_ids, urls, path, sha256, error, created_at, "
    query += "updated_at, submitted_at, sent_at, past_sent_at FROM effects"
    before = {row[0]: list(row) for row in sql(path, query)}
    journal = await opened(path)
    assert len(await journal.rows()) == 16
    assert await journal.load("polling") == '{"a": 1}'
    assert len(await journal.sent_since(LONG_AGO)) == 16
    await journal.aclose()
    for number in (3, 14, 16):
        assert before[number][2] == "sending"
        before[number][2], before[number][9] = "unknown", STOPPED
    assert before[10][9] == GIVEN_UP
    before[10][9] = PERHAPS_PAID
    assert {row[0]: list(row) for row in sql(path, query)} == before


# Every version


async def test_a_migrated_file_is_as_a_new_one(old: Path, tmp_path: Path, no_leaks: object) -> None:
    """After the migration nothing tells the file from a new one but its rows."""
    await filled(old)
    await filled(tmp_path / "new.db")
    shapes: list[list[Any]] = [
        [
            sql(file, "PRAGMA user_version"),
            sql(file, "PRAGMA table_info(effects)"),
            sql(file, "PRAGMA table_info(notes)"),
            sql(file, "SELECT name, sql FROM sqlite_master WHERE name NOT IN ('effects', 'notes') ORDER BY name"),
        ]
        for file in (old, tmp_path / "new.db")
    ]
    assert shapes[0] == shapes[1]


def content(path: Path) -> list[list[Any]]:
    """Return all that is in a file."""
    queries = ("PRAGMA user_version", "SELECT * FROM effects", "SELECT * FROM notes", "SELECT sql FROM sqlite_master")
    return [sql(path, query) for query in queries]


FROM_1 = ["ALTER", "UPDATE effects SET past_task_ids", "UPDATE effects SET\n", "CREATE INDEX"]
FROM_2 = [
    "ALTER TABLE effects ADD COLUMN sent_at",
    "ALTER TABLE effects ADD COLUMN past_sent_at",
    "UPDATE effects SET sent_at",
    "UPDATE effects SET past_sent_at",
]
FROM_3 = [
    "ALTER TABLE effects ADD COLUMN earlier",
    "CREATE TABLE pruned",
    "CREATE TRIGGER",
    "UPDATE effects SET error",
    "PRAGMA user_version =",
    "UPDATE effects SET state",
    "COMMIT",
]
MIGRATING = [(1, step) for step in FROM_1 + FROM_2 + FROM_3]
MIGRATING += [*[(2, step) for step in FROM_2 + FROM_3], *[(3, step) for step in FROM_3]]


@pytest.mark.parametrize(("old", "step"), MIGRATING, indirect=["old"])
async def test_a_migration_that_fails(
    old: Path, no_leaks: object, faults: dict[str, tuple[str, int]], step: str
) -> None:
    """A fault at any step leaves the old file as it was; the next try does it all."""
    before = content(old)
    faults[step] = ("disk I/O error", sqlite3.SQLITE_IOERR_FSYNC)
    with pytest.raises(JournalError, match="the disk fails"):
        await opened(old)
    faults.clear()
    assert content(old) == before
    journal = await opened(old)
    assert len(await journal.rows()) == len(before[1])
    await journal.aclose()


KILLED = """
import asyncio, os, signal, sqlite3, sys
from functools import partial
from finevoice_async.adapters.sqlite_journal import SqliteJournal
from finevoice_async.adapters.loop_clock import LoopClock
class Deadly(sqlite3.Connection):
    def execute(self, statement, *parameters):
        if statement == "COMMIT":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().execute(statement, *parameters)
sqlite3.connect = partial(sqlite3.connect, factory=Deadly)
asyncio.run(SqliteJournal(sys.argv[1], LoopClock()).open())
"""


async def test_a_migration_that_is_killed(old: Path, no_leaks: object) -> None:
    """A process that dies before its commit leaves the old version."""
    before = content(old)
    done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", KILLED, str(old)], timeout=30, check=False)
    assert done.returncode == -signal.SIGKILL
    assert content(old) == before
    await (await opened(old)).aclose()
    assert sql(old, "PRAGMA user_version") == [(4,)]
