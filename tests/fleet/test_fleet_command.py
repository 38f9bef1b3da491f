"""`finevoice fleet`: the database is made, printed and looked at; what is wrong with it is told in a line."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from commands import COLUMNS, Terminal, end, start
from fleets import KEY, Join, sql
from typer.testing import CliRunner, Result

import finevoice_async
from finevoice_async import Fleet
from finevoice_async.adapters.postgres import schema
from finevoice_async.adapters.postgres.journal import account_of
from finevoice_async.cli import exits
from finevoice_async.cli.app import app
from finevoice_async.core.ledger import EffectState, Move

pytestmark = pytest.mark.real_time


SLOW = Fleet(lease=120)
"""The tests wait for programs, and nobody beats meanwhile."""


@pytest.fixture(autouse=True)
def _a_person_at_a_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("PYTHONPATH", str(Path(finevoice_async.__file__).parents[1]))  # programs run this very package
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> Result:
    """Run the command as if it were typed."""
    return CliRunner().invoke(app, ["fleet", *arguments])


def test_init_twice(empty_url: str) -> None:
    """It makes journal and queue; again it keeps what is there, and says the same; with --json to a program."""
    for _ in range(2):
        result = run("init", empty_url)
        assert (result.exit_code, result.stdout) == (0, "")
        assert "ready for a fleet and its queue" in result.stderr
        sql(empty_url, "INSERT INTO finevoice.accounts (account) VALUES ('kept') ON CONFLICT DO NOTHING")
        sql(empty_url, "INSERT INTO procrastinate_jobs (queue_name, task_name) VALUES ('finevoice', 'x')")
    told = json.loads(run("init", empty_url, "--json").stdout)
    assert told == {"event": "made", "version": schema.VERSION, "queue": True}
    assert sql(empty_url, "SELECT count(*) FROM finevoice.accounts") == [(1,)]
    assert sql(empty_url, "SELECT count(*) FROM procrastinate_jobs") == [(2,)]


def test_what_it_prints_does_the_same(empty_url: str) -> None:
    """With --sql it prints what psql takes, any number of times, and does nothing itself, also without a database."""
    printed = run("init", "--sql").stdout
    assert run("init", empty_url, "--sql").stdout == printed
    assert run(empty_url).exit_code == exits.JOURNAL
    with psycopg.connect(empty_url, autocommit=True) as connection:
        for _ in range(2):
            connection.execute(printed.encode())
    assert run(empty_url).exit_code == 0
    assert sql(empty_url, "SELECT to_regclass('public.procrastinate_jobs') IS NOT NULL") == [(True,)]


def test_without_procrastinate(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fleet without a queue is made, and what a queue would take is said."""
    monkeypatch.setattr("finevoice_async.adapters.job_queue", None)
    monkeypatch.setitem(__import__("sys").modules, "finevoice_async.adapters.job_queue", None)
    monkeypatch.delattr("finevoice_async.adapters.job_queue")
    result = run("init", empty_url)
    assert result.exit_code == 0
    assert "pip install 'finevoice-async[queue]'" in result.stderr
    assert "procrastinate" not in run("init", "--sql").stdout
    assert json.loads(run(empty_url, "--json").stdout) == {"queue": None}


@pytest.fixture
async def busy(join: Join, queue_url: str) -> str:
    """A fleet that has something of everything."""
    member = await join(plan=3, options=SLOW)
    await join(plan=3, options=SLOW)
    for number in range(2):
        await member.submitted(f"runs {number}")
    await member.wish("sends")
    for number in range(3):
        await member.wish(f"waits {number}", state=EffectState.QUEUED)
    sql(queue_url, "UPDATE finevoice.effects SET updated_at = now() - interval '3 min' WHERE key = 'waits 0'")
    other = await join(key="another", plan=10, options=SLOW)
    row = await other.submitted()
    await other.move(row.id, Move.FINISH, task_id=row.task_id, urls=("https://a.example/1",))
    lost = await other.wish("lost")
    await other.move(lost.id, Move.DOUBT)
    sql(queue_url, "INSERT INTO procrastinate_jobs (queue_name, task_name) VALUES ('finevoice', 'x'), ('other', 'x')")
    return queue_url


async def test_a_pipe_gets_fields(busy: str) -> None:
    """In a pipe each key is a line of eleven fields between tabs; no key of the service's is needed to look."""
    told, said = end(start("fleet", busy))
    lines = {line.split("\t")[0]: line.split("\t")[1:] for line in told.splitlines()}
    assert said == ""
    assert {len(fields) for fields in lines.values()} == {10}
    *counts, wait, taken, plan = lines[account_of(KEY)]
    assert counts == ["2", "2", "3", "1", "0", "0", "0"]
    assert 179 < float(wait) < 240
    assert (taken, plan) == ("3", "3")
    assert lines[account_of("another")][:7] == ["1", "0", "0", "0", "1", "1", "0"]


async def test_json_has_every_number(busy: str) -> None:
    """With --json each key is an object with all that `session.fleet()` tells, and the queue is one more."""
    told, _ = end(start("fleet", busy, "--json"))
    *fleets, queue = map(json.loads, told.splitlines())
    found = next(fleet for fleet in fleets if fleet["key_hash"] == account_of(KEY))
    assert found.pop("longest_wait") > 179
    assert found == {
        "key_hash": account_of(KEY),
        "sessions": 2,
        "plan": 3,
        "taken": 3,
        "running": 2,
        "waiting": 3,
        "sending": 1,
        "unknown": 0,
        "done": 0,
        "failed": 0,
    }
    assert queue == {"queue": {"waiting": 1, "in_hand": 0, "failed": 0}}


async def test_a_terminal_gets_a_table(busy: str) -> None:
    """On 80 columns every line fits; what is perhaps paid is said in words."""
    code, told = Terminal("fleet", busy).end()
    assert code == 0
    assert max(map(len, told.splitlines())) <= COLUMNS
    lines = [" ".join(line.split()) for line in told.splitlines()]
    assert "sessions  running waiting sending unknown     done  failed longest wait" in told
    assert f"{account_of(KEY)[:8]} 2 2 of 3 3 1 0 0 0 3 min" in lines
    assert "Queue: 1 job waiting, 0 with a worker." in told
    assert "1 effect perhaps paid" in told


async def test_watching(busy: str) -> None:
    """With --watch it looks again and again until Ctrl-C; what has changed is seen."""
    process = start("fleet", busy, "--watch", "--json")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["key_hash"]
    sql(busy, "DELETE FROM finevoice.accounts WHERE account = %s", account_of("another"))
    sql(busy, "DELETE FROM procrastinate_jobs")
    while json.loads(process.stdout.readline()).get("queue") != {"waiting": 0, "in_hand": 0, "failed": 0}:
        pass
    end(process, signal.SIGINT)
    assert process.returncode == exits.INTERRUPTED
    screen = Terminal("fleet", busy, "--watch")
    screen.read_until("Queue: 0 jobs waiting")
    screen.press_ctrl_c()
    assert screen.end()[0] == exits.INTERRUPTED


def test_nobody_has_joined(url: str) -> None:
    """An empty database is no error."""
    assert (run(url).exit_code, run(url).stdout) == (0, "")
    assert "No session has joined yet." in Terminal("fleet", url).end()[1]


@pytest.mark.parametrize(("version", "words"), [(schema.VERSION + 1, "newer"), (0, "earlier version")])
def test_another_version(url: str, version: int, words: str) -> None:
    """A newer schema is for a newer program, an older one is to be brought up to date: a line, and exit code 7."""
    sql(url, "UPDATE finevoice.meta SET version = %s", version)
    try:
        result = run(url)
        assert (result.exit_code, result.stdout) == (exits.JOURNAL, "")
        assert words in result.stderr
        assert result.stderr.count("\n") == 1
        if version > schema.VERSION:
            assert run("init", url).exit_code == exits.JOURNAL
    finally:
        sql(url, "UPDATE finevoice.meta SET version = %s", schema.VERSION)


SECRET = "postgresql://x:hunter2@127.0.0.1:1/d"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((SECRET,), exits.JOURNAL),
        (("init", SECRET), exits.JOURNAL),
        (("inti", SECRET), exits.WRONG_USE),
        ((SECRET, "init"), exits.WRONG_USE),
        (("postgresql://x:hunter2@[bad/y",), exits.WRONG_USE),
        (("postgresql://x:hunt er2@127.0.0.1:1/d?password=hunter2",), exits.WRONG_USE),
        (("mysql://x:hunter2@h/d",), exits.WRONG_USE),
        (("init", "host=h password=hunter2"), exits.WRONG_USE),
        ((SECRET, "--sql"), exits.WRONG_USE),
        (("init", SECRET, "--watch"), exits.WRONG_USE),
        (("init",), exits.WRONG_USE),
        ((), exits.WRONG_USE),
    ],
)
def test_what_cannot_work(arguments: tuple[str, ...], code: int) -> None:
    """Wrong use and databases that are not there: one error, a code, and a password nowhere."""
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    told = json.loads(run(*arguments, "--json").stdout)
    assert (told["exit_code"], told["paid"]) == (code, False)
    assert "hunter2" not in result.stderr + str(told)
    assert "hunt er2" not in result.stderr + str(told)


@pytest.mark.parametrize("name", ["journal", "resume", "fetch", "generate"])
def test_other_commands_keep_the_password_too(name: str) -> None:
    """Whoever gives the URL where a file is wanted hears of it without the password."""
    arguments: list[Any] = [name, SECRET] if name in ("journal", "resume") else [name, "x", "--journal", SECRET]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code not in (0, 1)
    assert "hunter2" not in result.output
