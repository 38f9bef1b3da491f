"""`finevoice batch --journal postgresql://...`: one list on several machines, which here are folders."""

from __future__ import annotations

import json
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from commands import Served, end, served, start
from fleets import KEY, Join, sql
from typer.testing import CliRunner

import finevoice_async
from finevoice_async import EffectState
from finevoice_async.cli import exits
from finevoice_async.cli.app import app
from finevoice_async.cli.batch_journal import BatchJournal
from finevoice_async.core.ledger import Move

pytestmark = pytest.mark.real_time

ROWS = 12


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A service of three slots that programs find by the environment, and the list on each machine."""
    lines = [json.dumps({"key": f"s{i:02}", "prompt": f"sound {i}", "duration": 0.1}) for i in range(ROWS)]
    for machine in "abc":
        (tmp_path / machine).mkdir()
        (tmp_path / machine / "m.jsonl").write_text("\n".join(lines))
    with served(service_time=0.2, plan_limit=3, quick_sounds=True) as service:
        monkeypatch.setenv("FINEVOICE_API_KEY", "k")
        monkeypatch.setenv("FINEVOICE_BASE_URL", service.emulator.url)
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        monkeypatch.setenv("PYTHONPATH", str(Path(finevoice_async.__file__).parents[1]))  # programs run this package
        monkeypatch.chdir(tmp_path)
        yield service


_started: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def _no_program_outlives_its_test() -> Iterator[None]:
    yield
    while _started:
        process = _started.pop()
        if process.poll() is None:
            process.kill()
            process.communicate()


def batch(machine: str, url: str, *options: str) -> subprocess.Popen[str]:
    """Start the command on a machine."""
    words = ("batch", "m.jsonl", "--out", "out", "--journal", url, "--concurrency", "3", "--json", *options)
    _started.append(start(*words, cwd=machine))
    return _started[-1]


def summary(process: subprocess.Popen[str], code: int = 0) -> dict[str, object]:
    """Wait for the end, and return what the command says of it all."""
    told, said = end(process)
    assert process.returncode == code, told + said
    return dict(json.loads(told.splitlines()[-1]))


def lock_of(machine: str) -> list[dict[str, object]]:
    """Return the lock on a machine; each of its files is there."""
    records = [json.loads(line) for line in Path(machine, "m.jsonl.lock").read_text().splitlines()]
    assert all(Path(machine, "out", record["file"]).is_file() for record in records)
    return records


def check_paid_once(service: Served) -> None:
    """Each sound was accepted once, and the plan was kept."""
    ledger = service.emulator.ledger
    accepted = Counter(str(task.request.prompt) for task in ledger.accepted.values())
    assert accepted == {f"sound {i}": 1 for i in range(ROWS)}
    assert (ledger.most_running, ledger.rate_limited) == (3, 0)


def test_three_machines(service: Served, url: str) -> None:
    """At once they pay for each sound once, keep the plan, and end with all files and the same lock; again, no cost."""
    ends = [summary(process) for process in [batch(machine, url) for machine in "abc"]]
    assert [each["saved"] for each in ends] == [ROWS] * 3
    assert sum(int(str(each["paid"])) for each in ends) == ROWS
    check_paid_once(service)
    assert len(lock_of("a")) == ROWS
    assert lock_of("a") == lock_of("b") == lock_of("c")
    sql(url, "INSERT INTO finevoice.accounts (account) VALUES ('of somebody else')")
    again = summary(batch("a", url, "--frozen"))
    assert (again["existing"], again["paid"], again["orphaned"]) == (ROWS, 0, 0)


def test_a_machine_that_comes_later(service: Served, url: str) -> None:
    """What another machine made is fetched, not paid for; of what programs made beside it nothing is said."""
    summary(batch("a", url))
    sql(url, "UPDATE finevoice.effects SET key = 'of a program' WHERE key = (SELECT min(key) FROM finevoice.effects)")
    plan = start("batch", "m.jsonl", "--out", "out", "--journal", url, "--dry-run", "--json", cwd="b")
    told = json.loads(end(plan)[0].splitlines()[-1])
    assert (told["submissions"], told["summary"]["orphaned"], told["summary"]["unsaved"]) == (1, 0, ROWS - 1)
    later = summary(batch("b", url))
    assert (later["saved"], later["paid"], later["orphaned"]) == (ROWS, 1, 0)
    assert len(service.emulator.ledger.accepted) == ROWS + 1


def test_a_machine_that_is_stopped_and_one_that_is_killed(service: Served, url: str) -> None:
    """Ctrl-C takes nothing from the others; after SIGKILL they have all but what was just being sent."""
    a, b, c = (batch(machine, url) for machine in "abc")
    service.wait_until(lambda emulator: len(emulator.ledger.accepted) >= 3)
    a.send_signal(signal.SIGINT)
    service.wait_until(lambda emulator: len(emulator.ledger.accepted) >= 5)
    b.kill()
    end(b)
    stopped, _ = end(a)
    assert a.returncode in (0, exits.INTERRUPTED, -signal.SIGINT), stopped  # the last: it had not come up yet
    told, said = end(c)
    unknown = sql(url, "SELECT key FROM finevoice.effects WHERE state = %s", EffectState.UNKNOWN.value)
    assert c.returncode == (exits.UNKNOWN if unknown else 0), told + said
    assert json.loads(told.splitlines()[-1])["saved"] == ROWS - len(unknown)
    assert len(lock_of("c")) == ROWS - len(unknown)
    check_paid_once(service)
    summary(batch("a", url), exits.UNKNOWN if unknown else 0)
    assert lock_of("a") == lock_of("c")
    check_paid_once(service)


async def test_what_a_run_has_spent(join: Join, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each submission of the key's counts, a second one of the same row, too; others' and those of before do not."""
    monkeypatch.setenv("FINEVOICE_API_KEY", KEY)
    began = datetime.now(UTC) - timedelta(hours=1)
    member, other = await join(), await join(key="another key")
    await other.submitted()
    row = await member.submitted("made")
    sent_twice = await member.wish("sent twice")
    assert await member.move(sent_twice.id, Move.DOUBT)
    assert await member.move(sent_twice.id, Move.RESEND)
    refused = await member.wish("refused")
    assert await member.move(refused.id, Move.REFUSE)
    assert row.state is EffectState.SUBMITTED
    assert await BatchJournal(url).spent_since(began) == 3
    assert await BatchJournal(url).spent_since(datetime.now(UTC) + timedelta(hours=1)) == 0


def test_what_cannot_work(service: Served) -> None:
    """A journal that is no database, is not there or does not go with the rest: a line, and no password."""
    secret = "postgresql://x:hunter2@127.0.0.1:1/d"
    cases = [
        ((secret,), exits.JOURNAL, "127.0.0.1"),
        (("fx.db",), exits.WRONG_USE, "postgresql://user@host/database"),
        ((secret, "--emulator"), exits.WRONG_USE, "--emulator"),
        ((secret, "--no-journal"), exits.WRONG_USE, "--no-journal"),
    ]
    for arguments, code, words in cases:
        result = CliRunner().invoke(app, ["batch", "a/m.jsonl", "--journal", *arguments])
        assert result.exit_code == code, result.output
        assert words in result.stderr
        assert "hunter2" not in result.output
    assert service.emulator.ledger.posts == 0
