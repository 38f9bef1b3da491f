"""`generate`, `fetch`, `journal` and `resume` with the URL of a fleet's database in the place of a file."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import Served, served
from fleets import Join, Member, sql
from journals import DONE, FAILED, LOST, QUEUED, SAVED, UNKNOWN, row_in
from typer.testing import CliRunner

from finevoice_async import EffectState, Fleet
from finevoice_async.cli import exits
from finevoice_async.cli.app import app
from finevoice_async.cli.kept import settling
from finevoice_async.core.ledger import Move

pytestmark = pytest.mark.real_time

API_KEY = "k"
SECRET = "postgresql://x:hunter2@127.0.0.1:1/d"


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A service that the command finds by the environment."""
    with served(service_time=0.05, quick_sounds=True) as service:
        monkeypatch.setenv("FINEVOICE_API_KEY", API_KEY)
        monkeypatch.setenv("FINEVOICE_BASE_URL", service.emulator.url)
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        monkeypatch.chdir(tmp_path)
        yield service


def run(*arguments: str, code: int = 0) -> Any:
    """Run the command."""
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, result.output
    return result


def with_rows(url: str, *states: EffectState, then: Callable[[Member], Any] | None = None) -> list[int]:
    """Have rows in these states, left by a session that is not there any more; their keys are the states."""

    async def write() -> list[int]:
        member = Member(url, key=API_KEY, plan=1000)
        await member.open()
        try:
            found = [await row_in(member, state, key=state.value) for state in states]
            if then is not None:
                await then(member)
            return found
        finally:
            await member.aclose()

    return asyncio.run(write())


def states(url: str) -> dict[str, str]:
    """Return the states by key."""
    return dict(sql(url, "SELECT key, state FROM finevoice.effects"))


def test_an_effect_by_its_key(service: Served, url: str) -> None:
    """It is paid for once, from whatever folder it is wished for again; its file is made anew where it is not there."""
    run("generate", "Door", "-o", "door.wav", "--journal", url, "--key", "door")
    assert states(url) == {"door": "saved"}
    again = run("generate", "Door", "-o", "door.wav", "--journal", url, "--key", "door")
    assert "door.wav is there already" in again.stderr
    Path("elsewhere").mkdir()
    run("generate", "Door", "-o", "elsewhere/door.wav", "--journal", url, "--key", "door", "--json")
    assert Path("elsewhere/door.wav").read_bytes() == Path("door.wav").read_bytes()
    assert service.emulator.ledger.posts == 1
    ((task_id,),) = sql(url, "SELECT task_id FROM finevoice.effects")
    run("fetch", task_id, "-o", "third.wav", "--journal", url)
    assert Path("third.wav").read_bytes() == Path("door.wav").read_bytes()
    assert sql(url, "SELECT count(*) FROM finevoice.sessions") == [(0,)]  # each has left


def test_what_it_holds(service: Served, url: str) -> None:
    """All its rows, or those in some states; with the ids of earlier tasks; nobody joins for that."""

    async def submit_twice(member: Member) -> None:
        row = await member.row(key="lost")
        assert row is not None
        assert await member.take(row.id)
        await member.slots.acquire()
        assert await member.move(row.id, Move.RESEND)
        assert await member.move(row.id, Move.ACCEPT, task_id="p1-second")

    with_rows(url, SAVED, UNKNOWN, LOST, then=submit_twice)
    rows = {row["key"]: row for row in map(json.loads, run("journal", url, "--json").stdout.splitlines())}
    assert {key: row["state"] for key, row in rows.items()} == {
        "saved": "saved",
        "unknown": "unknown",
        "lost": "submitted",
    }
    assert len(rows["lost"]["past_task_ids"]) == 1
    assert [rows["lost"]["task_id"], rows["saved"]["past_task_ids"]] == ["p1-second", []]
    assert rows["unknown"]["perhaps_paid"] is True
    assert len(run("journal", url, "--state", "perhaps-paid").stdout.splitlines()) == 1
    assert sql(url, "SELECT max(id) FROM finevoice.sessions") == [(None,)]


def test_settling(service: Served, url: str) -> None:
    """What is perhaps paid gets its task, is given up or sent again; what is old is removed."""
    unknown, lost, queued, *_ = with_rows(url, UNKNOWN, LOST, QUEUED, SAVED, FAILED, DONE)
    told = run("journal", url, "--adopt", f"{unknown}=p1-found", "--discard", str(lost), "--discard", str(queued))
    assert "finevoice resume" in told.stdout
    assert sql(url, "SELECT task_id FROM finevoice.effects WHERE id = %s", unknown) == [("p1-found",)]
    assert states(url) == {
        "unknown": "submitted",
        "lost": "refused",
        "queued": "refused",
        "saved": "saved",
        "failed": "failed",
        "done": "done",
    }
    assert "only what is" in run("journal", url, "--discard", str(unknown), code=exits.WRONG_USE).stderr
    sql(url, "UPDATE finevoice.effects SET updated_at = updated_at - interval '2 days' WHERE state <> 'done'")
    assert json.loads(run("journal", url, "--prune", "1d", "--json").stdout) == {"pruned": 4}
    assert states(url) == {"unknown": "submitted", "done": "done"}
    assert service.emulator.ledger.posts == service.emulator.ledger.polls == 0


def test_sending_again(service: Served, url: str) -> None:
    """It takes what may be paid for twice, and a session that leaves again."""
    (row_id,) = with_rows(url, UNKNOWN)
    run("journal", url, "--resend", str(row_id), code=exits.WRONG_USE)
    run("journal", url, "--resend", str(row_id), "--accept-double-charge")
    assert service.emulator.ledger.posts == 1
    run("resume", url, "--out", "out")
    assert states(url) == {"unknown": "saved"}
    assert len(list(Path("out").iterdir())) == 1


async def test_a_row_of_a_session_that_runs(service: Served, url: str, join: Join) -> None:
    """What a living session is about to send is not settled over its head."""
    member: Member = await join(key=API_KEY, plan=1)
    await member.wish("first")
    waits = await member.wish("second")
    told = await asyncio.to_thread(run, "journal", url, "--discard", str(waits.id), code=exits.WRONG_USE)
    assert "by a session that runs" in told.stderr
    assert await member.state(waits.id) is QUEUED


def test_a_report(service: Served, url: str) -> None:
    """It shows of the database what the folder's list names, and keeps the password to itself."""
    Path("m.jsonl").write_text('{"key": "ours", "prompt": "Rain"}')
    run("batch", "m.jsonl", "--out", "out", "--journal", url, "--yes")
    run("generate", "Door", "-o", "door.wav", "--journal", url, "--key", "another's")
    secret = url.replace("finevoice@", "finevoice:hunter2@")
    told = json.loads(run("report", "out", "--manifest", "m.jsonl", "--journal", secret, "--json").stdout)
    page = Path("out/report.html").read_text()
    assert told["report"] == "out/report.html"
    assert "ours" in page
    assert "another" not in page
    assert "hunter2" not in page


@pytest.mark.parametrize(
    ("place", "code", "words"),
    [
        (SECRET, exits.JOURNAL, "127.0.0.1"),
        ("mysql://x:hunter2@h/d", exits.WRONG_USE, "postgresql://user@host/database"),
    ],
)
@pytest.mark.parametrize(
    "arguments",
    [
        ("generate", "x", "--key", "k", "--journal"),
        ("fetch", "p1-x", "--journal"),
        ("resume",),
        ("journal",),
        ("journal", "--prune", "1d"),
        ("report", ".", "--journal"),
        ("journal", "--resend", "1", "--accept-double-charge"),
    ],
)
def test_what_cannot_work(service: Served, arguments: tuple[str, ...], place: str, code: int, words: str) -> None:
    """A database that is not there, or no database: a line, and no password."""
    result = run(*arguments, place, code=code)
    assert words in result.stderr
    assert "hunter2" not in result.output
    assert service.emulator.ledger.posts == 0


def test_no_key(service: Served, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database holds the effects of many keys: which is meant must be known. An embedded emulator has no fleet."""
    monkeypatch.delenv("FINEVOICE_API_KEY")
    for arguments in (("journal", url), ("journal", url, "--discard", "1"), ("resume", url)):
        assert "FINEVOICE_API_KEY" in run(*arguments, code=exits.WRONG_USE).stderr
    result = run("generate", "x", "--emulator", "--journal", url, code=exits.WRONG_USE)
    assert "--emulator" in result.stderr


async def test_who_settles_takes_no_part(service: Served, url: str, join: Join) -> None:
    """While it does, the plan is that of the sessions which send, and what others left is theirs to follow."""
    member, left = await join(key=API_KEY, plan=3, options=Fleet(adopt=False)), await join(key=API_KEY, plan=3)
    await left.submitted()
    await left.aclose()
    async with settling(url):
        assert (await member.fleet()).plan == 3
        assert sql(url, "SELECT session FROM finevoice.effects") == [(None,)]
