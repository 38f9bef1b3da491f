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

import finevoice_async
from finevoice_async.cli import exits

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


def child(url: str, folder: str) -> subprocess.Popen[str]:
    """Start a worker that notices soon."""
    words = [sys.executable, str(CHILD), url, folder]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until(holds: Callable[[], object], within: float = PATIENCE) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


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


async def test_killed_in_the_middle_of_jobs(service: Served, queue_url: str) -> None:
    """After SIGKILL another worker finishes the jobs: what ran is followed, nothing is paid twice, all are saved."""
    keys = [f"k{number}" for number in range(8)]
    await fill(queue_url, *keys)
    first = child(queue_url, "first")
    service.wait_until(lambda emulator: len(emulator.ledger.accepted) == 3)
    end(first, signal.SIGKILL)
    in_hand = [key for key, status, _ in jobs(queue_url) if status == "doing"]
    assert in_hand
    second = child(queue_url, "second")
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


async def test_it_ends_when_told_to(service: Served, queue_url: str) -> None:
    """SIGTERM: what runs is finished and saved, the rest stays in the queue; the next one makes it, with --json."""
    keys = [f"k{number}" for number in range(5)]
    await fill(queue_url, *keys)
    process = start("worker", queue_url, "--concurrency", "3", "--max-concurrency", "2", "--out", "sfx")
    service.wait_until(lambda emulator: emulator.ledger.most_running == 2)
    told, said = end(process, signal.SIGTERM)
    assert process.returncode in (0, TERMINATED)
    saved = told.splitlines()
    assert saved
    assert all(Path(line).is_file() for line in saved)
    assert "Stopping: no more jobs are taken" in said
    assert f"{len(saved)} saved" in said
    left = len(keys) - len(saved)
    assert [status for _, status, _ in jobs(queue_url)] == ["todo"] * left
    process = start("worker", queue_url, "--max-concurrency", "2", "--out", "sfx", "--json")
    wait_until(lambda: made(queue_url) == 5)
    wait_until(lambda: not jobs(queue_url))
    told, said = end(process, signal.SIGINT)
    assert (process.returncode, said) == (0, "")
    *events, last = map(json.loads, told.splitlines())
    assert {event["event"] for event in events} == {"saved"}
    assert {Path(event["path"]).name for event in events} <= {path.name for path in Path("sfx").iterdir()}
    assert (last["event"], last["saved"], last["failed"], last["stopped_by"]) == ("end", left, 0, None)
    check_paid_once(service, keys)


async def test_told_twice(service: Served, queue_url: str) -> None:
    """The second signal ends it at once: its jobs go back, and its tasks run on at the service, paid once."""
    service.do(lambda emulator: setattr(emulator, "service_time", 3600.0))
    await fill(queue_url, "a", "b", "c")
    process = start("worker", queue_url, "--max-concurrency", "2", "--quiet")
    wait_until(lambda: sql(queue_url, "SELECT count(*) FROM finevoice.effects WHERE state = 'submitted'") == [(2,)])
    process.send_signal(signal.SIGTERM)
    wait_until(lambda: sum(status == "todo" for _, status, _ in jobs(queue_url)) == 1)  # the one that waited
    assert process.poll() is None
    began = time.monotonic()
    told, _ = end(process, signal.SIGTERM)
    assert (process.returncode, told) == (TERMINATED, "")
    assert time.monotonic() - began < 10
    assert {status for _, status, _ in jobs(queue_url)} == {"todo"}
    states = sql(queue_url, "SELECT state, place IS NOT NULL FROM finevoice.effects WHERE task_id IS NOT NULL")
    assert states == [("submitted", True)] * 2
    assert len(service.emulator.ledger.accepted) == 2


async def test_a_key_that_is_refused(service: Served, queue_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends by itself with the exit code of a refusal, and the jobs stay."""
    monkeypatch.setenv("FINEVOICE_API_KEY", "wrong")
    await fill(queue_url, "a")
    process = start("worker", queue_url)
    told, said = end(process)
    assert (process.returncode, told) == (3, "")
    assert "No more jobs are taken" in said
    assert [status for _, status, _ in jobs(queue_url)] == ["todo"]


def test_what_cannot_work(service: Served, empty_url: str, tmp_path: Path) -> None:
    """No schema, no server, no database, no place: a line, the exit codes of the others, and never a password."""
    secret = empty_url.replace("finevoice@", "finevoice:hunter2@")
    (tmp_path / "file").touch()
    cases = [
        ((secret,), exits.JOURNAL, "Make it once: finevoice fleet init URL"),
        (("postgresql://x:hunter2@127.0.0.1:1/d",), exits.JOURNAL, "127.0.0.1"),
        (("mysql://x:hunter2@h/d",), exits.WRONG_USE, "postgresql://user@host/database"),
        (("postgresql://x:hunter2@h/d", "postgresql://x:hunter2@h/e"), exits.WRONG_USE, "unexpected extra argument"),
        (("postgresql://x:hunter2@h/d", "--out", "file"), exits.WRONG_USE, "cannot be saved to file"),
        (("postgresql://x:hunter2@h/d", "--concurrency", "0"), exits.WRONG_USE, "concurrency"),
    ]
    for arguments, code, words in cases:
        for more in ((), ("--json",), ("--debug",)):
            process = start("worker", *arguments, *more)
            told, said = end(process)
            assert "hunter2" not in told + said
            if more != ("--debug",):
                assert process.returncode == code, told + said
                assert words in told + said


def test_a_server_that_wants_a_password(service: Served, queue_url: str) -> None:
    """One in the URL is used, and shown nowhere, not by --debug either."""
    secret = queue_url.replace("finevoice@", "finevoice:hunter2@")
    process = start("worker", secret, "--debug")
    wait_until(lambda: sql(queue_url, "SELECT count(*) FROM procrastinate_workers") == [(1,)])
    told, said = end(process, signal.SIGTERM)
    assert process.returncode == 0
    assert "Starting worker" in said
    assert "hunter2" not in told + said
    with psycopg.connect(queue_url) as connection:
        names = connection.execute("SELECT application_name FROM pg_stat_activity").fetchall()
    assert "hunter2" not in str(names)
