"""`finevoice worker` as a program: killed, stopped, stopped at once; what it says, and to whom."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import psycopg
import pytest
from commands import PATIENCE, Served, end, served, start
from fleets import sql
from queues import fill, jobs
from typer.testing import CliRunner

import finevoice_async
from finevoice_async.cli import exits
from finevoice_async.cli.app import app
from finevoice_async.emulator.ledger import Ledger

pytestmark = pytest.mark.real_time

CHILD = Path(__file__).with_name("worker_child.py")
TERMINATED = 143


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A service of two slots that programs find by the environment."""
    with served(service_time=0.5, plan_limit=2, quick_sounds=True) as service:
        monkeypatch.setenv("FINEVOICE_API_KEY", "k")
        monkeypatch.setenv("FINEVOICE_BASE_URL", service.emulator.url)
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        monkeypatch.setenv("PYTHONPATH", str(Path(finevoice_async.__file__).parents[1]))  # programs run this package
        monkeypatch.chdir(tmp_path)
        yield service


class Programs:
    """Starts programs, and lets none of them outlive the test."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[str]] = []

    def child(self, url: str, folder: str) -> subprocess.Popen[str]:
        """Start a worker that notices soon."""
        words = [sys.executable, str(CHILD), url, folder]
        return self._note(subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))

    def worker(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the command."""
        return self._note(start("worker", *arguments))

    def _note(self, process: subprocess.Popen[str]) -> subprocess.Popen[str]:
        self._started.append(process)
        return process

    def close(self) -> None:
        """Kill what still runs."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.communicate()


@pytest.fixture
def programs() -> Iterator[Programs]:
    """Programs of a test."""
    programs = Programs()
    yield programs
    programs.close()


def wait_until(holds: Callable[[], object], within: float = 3 * PATIENCE) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ledger_of(service: Served) -> Ledger:
    """Return what the service has seen."""
    return service.emulator.ledger


def made(url: str) -> int:
    """Return how many effects are saved."""
    return int(sql(url, "SELECT count(*) FROM finevoice.effects WHERE state = 'saved'")[0][0])


def check_paid_once(service: Served, keys: list[str], unknown: Collection[str] = ()) -> None:
    """Each effect was accepted once, but for those that nobody knows of perhaps not; and the plan was kept."""
    ledger = service.emulator.ledger
    accepted = Counter(str(task.request.prompt) for task in ledger.accepted.values())
    assert set(accepted.values()) == {1}
    assert {f"Sound {key}" for key in keys if key not in unknown} <= set(accepted)
    assert (ledger.most_running, ledger.rate_limited) == (2, 0)


async def test_killed_in_the_middle_of_jobs(service: Served, queue_url: str, programs: Programs) -> None:
    """After SIGKILL another worker finishes the jobs: what ran is followed, nothing is paid twice, all are saved."""
    keys = [f"k{number}" for number in range(8)]
    await fill(queue_url, *keys)
    first = programs.child(queue_url, "first")
    wait_until(lambda: len(ledger_of(service).accepted) >= 3)
    end(first, signal.SIGKILL)
    in_hand = [key for key, status, _ in jobs(queue_url) if status == "doing"]
    assert in_hand
    second = programs.child(queue_url, "second")
    wait_until(lambda: {status for _, status, _ in jobs(queue_url)} <= {"failed"})
    end(second, signal.SIGTERM)
    assert second.returncode == 0
    unknown = {key for (key,) in sql(queue_url, "SELECT key FROM finevoice.effects WHERE state = 'unknown'")}
    assert unknown == {key for key, _, _ in jobs(queue_url)}
    assert unknown <= set(in_hand)
    assert made(queue_url) + len(unknown) == 8
    check_paid_once(service, keys, unknown)
    files = {path.name for folder in ("first", "second") for path in Path(folder).iterdir()}
    assert len([name for name in files if name.endswith(".wav")]) == 8 - len(unknown)


async def test_it_ends_when_told_to(service: Served, queue_url: str, programs: Programs) -> None:
    """SIGTERM: what runs is finished and saved, the rest stays in the queue; the next one makes it, with --json."""
    keys = [f"k{number}" for number in range(5)]
    await fill(queue_url, *keys)
    process = programs.worker(queue_url, "--concurrency", "3", "--max-concurrency", "2", "--out", "sfx")
    wait_until(lambda: ledger_of(service).most_running == 2)
    told, said = end(process, signal.SIGTERM)
    assert process.returncode in (0, TERMINATED)
    saved = told.splitlines()
    assert saved
    assert all(Path(line).is_file() for line in saved)
    assert "Stopping: no more jobs are taken" in said
    assert f"{len(saved)} saved" in said
    left = len(keys) - len(saved)
    assert [status for _, status, _ in jobs(queue_url)] == ["todo"] * left
    process = programs.worker(queue_url, "--max-concurrency", "2", "--out", "sfx", "--json")
    wait_until(lambda: made(queue_url) == 5)
    wait_until(lambda: not jobs(queue_url))
    told, said = end(process, signal.SIGINT)
    assert (process.returncode, said) == (0, "")
    *events, stopping, last = map(json.loads, told.splitlines())
    assert {event["event"] for event in events} == {"saved"}
    assert stopping == {"event": "stopping"}
    assert {Path(event["path"]).name for event in events} <= {path.name for path in Path("sfx").iterdir()}
    assert (last["event"], last["saved"], last["failed"], last["stopped_by"]) == ("end", left, 0, None)
    check_paid_once(service, keys)


async def test_told_twice(service: Served, queue_url: str, programs: Programs) -> None:
    """The second signal ends it at once: its jobs go back, and its tasks run on at the service, paid once."""
    service.do(lambda emulator: setattr(emulator, "service_time", 3600.0))
    await fill(queue_url, "a", "b", "c")
    process = programs.worker(queue_url, "--max-concurrency", "2", "--quiet")
    wait_until(lambda: sql(queue_url, "SELECT count(*) FROM finevoice.effects WHERE state = 'submitted'") == [(2,)])
    process.send_signal(signal.SIGTERM)
    wait_until(lambda: sum(status == "todo" for _, status, _ in jobs(queue_url)) == 1)  # the one that waited
    assert process.poll() is None
    began = time.monotonic()
    told, said = end(process, signal.SIGTERM)
    assert (process.returncode, told) == (TERMINATED, "")
    assert "2 tasks are paid for and run on" in said
    assert time.monotonic() - began < 10
    assert {status for _, status, _ in jobs(queue_url)} == {"todo"}
    states = sql(queue_url, "SELECT state, place IS NOT NULL FROM finevoice.effects WHERE task_id IS NOT NULL")
    assert states == [("submitted", True)] * 2
    assert len(service.emulator.ledger.accepted) == 2


async def test_a_key_that_is_refused(
    service: Served, queue_url: str, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends by itself with the exit code of a refusal, and the jobs stay."""
    monkeypatch.setenv("FINEVOICE_API_KEY", "wrong")
    await fill(queue_url, "a")
    process = programs.worker(queue_url)
    told, said = end(process)
    assert (process.returncode, told) == (3, "")
    assert "No more jobs are taken" in said
    assert [status for _, status, _ in jobs(queue_url)] == ["todo"]


SECRET = "postgresql://x:hunter2@127.0.0.1:1/d"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((SECRET,), exits.JOURNAL, "127.0.0.1"),
        (("mysql://x:hunter2@h/d",), exits.WRONG_USE, "postgresql://user@host/database"),
        ((SECRET, SECRET), exits.WRONG_USE, "unexpected extra argument"),
        ((SECRET, "--out", "file"), exits.WRONG_USE, "cannot be saved to file"),
        ((SECRET, "--concurrency", "0"), exits.WRONG_USE, "concurrency"),
        (("--max", SECRET), exits.WRONG_USE, "--max"),
    ],
)
def test_what_cannot_work(service: Served, arguments: tuple[str, ...], code: int, words: str) -> None:
    """No server, no database, no place: a line, the exit codes of the other commands, and never a password."""
    Path("file").touch()
    for more in ((), ("--json",)):
        result = CliRunner().invoke(app, ["worker", *arguments, *more])
        assert result.exit_code == code
        assert words in result.output
        assert "hunter2" not in result.output
    assert ledger_of(service).posts == 0


def test_the_schema_is_missing(service: Served, empty_url: str) -> None:
    """A database that nobody has prepared: what to do, in a line, before anything else is tried."""
    result = CliRunner().invoke(app, ["worker", empty_url.replace("finevoice@", "finevoice:hunter2@")])
    assert (result.exit_code, result.stdout) == (exits.JOURNAL, "")
    assert "Make it once: finevoice fleet init URL" in result.stderr
    assert result.stderr.count("\n") == 1
    assert "hunter2" not in result.stderr


def test_a_password_that_is_used(service: Served, queue_url: str, programs: Programs) -> None:
    """One in the URL is used, and shown nowhere, not by --debug either."""
    secret = queue_url.replace("finevoice@", "finevoice:hunter2@")
    process = programs.worker(secret, "--debug")
    wait_until(lambda: sql(queue_url, "SELECT count(*) FROM procrastinate_workers") == [(1,)])
    told, said = end(process, signal.SIGTERM)
    assert process.returncode == 0
    assert "Starting worker" in said
    assert "hunter2" not in told + said
    with psycopg.connect(queue_url) as connection:
        names = connection.execute("SELECT application_name FROM pg_stat_activity").fetchall()
    assert "hunter2" not in str(names)
