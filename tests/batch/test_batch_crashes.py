"""A batch is killed and stopped again and again, by a service that fails: it ends whole, and nothing is paid twice."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from commands import PATIENCE, Served, served

import finevoice_async
from finevoice_async import EffectState
from finevoice_async.adapters.journal_reader import read_journal

COMMAND = Path(__file__).with_name("hasty_command.py")
ROWS, PLAN = 200, 10
BUDGET = 210
FAULTS = {"submit.lose_reply": 0.02, "submit.bad_gateway": 0.02, "download.cut": 0.1, "poll.error_500": 0.02}


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what the command learns out of the home of whoever runs the tests."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("PYTHONPATH", str(Path(finevoice_async.__file__).parents[1]))  # programs run this very package
    monkeypatch.chdir(tmp_path)


def write_manifest(rows: int) -> None:
    """Write a list of so many sounds."""
    lines = [json.dumps({"key": f"s{i:04}", "prompt": f"sound {i}", "duration": 0.1}) for i in range(rows)]
    Path("m.jsonl").write_text("\n".join(lines))


def start(*arguments: str) -> subprocess.Popen[str]:
    """Start the command."""
    words = [sys.executable, str(COMMAND), *arguments]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run_until(service: Served, *arguments: str, more: int, number: int) -> subprocess.Popen[str]:
    """Start the command, and send it a signal once so many more submissions were accepted."""
    before = len(service.emulator.ledger.accepted)
    process = start("batch", "m.jsonl", "--out", "out", *arguments)
    deadline = time.monotonic() + PATIENCE
    while len(service.emulator.ledger.accepted) < before + more and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(number)
    return process


def check(service: Served, rows: int) -> None:
    """Nothing was accepted twice; what is not there is perhaps paid; files, lock and journal agree."""
    accepted = Counter(str(task.request.prompt) for task in service.emulator.ledger.accepted.values())
    assert max(accepted.values()) == 1, "a sound was paid for twice"
    assert sum(accepted.values()) <= BUDGET
    with read_journal(Path("out/.finevoice.db")) as journal:
        kept = journal.rows(limit=10 * rows)
    unknown = {row.key for row in kept if row.state is EffectState.UNKNOWN}
    lock = [json.loads(line) for line in Path("m.jsonl.lock").read_text().splitlines()]
    assert [record["key"] for record in lock] == sorted(record["key"] for record in lock)
    made = {record["key"] for record in lock}
    assert made | unknown == {f"s{i:04}" for i in range(rows)}
    assert not made & unknown
    for record in lock:
        content = Path("out", record["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == record["sha256"]
        assert record["task_id"] in service.emulator.ledger.accepted
    files = {path.name for path in Path("out").iterdir() if not path.name.startswith(".")}
    assert files == {record["file"] for record in lock}
    assert not list(Path("out").glob("*.part"))


@pytest.mark.timeout(300)
def test_killed_and_stopped_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """200 sounds with faults on, three times SIGKILL and two times Ctrl-C: complete but for what is perhaps paid."""
    write_manifest(ROWS)
    rng = random.Random(7)
    options = ("--concurrency", str(PLAN), "--max-effects", str(BUDGET))
    with served(service_time=0.05, plan_limit=PLAN, faults=FAULTS, quick_sounds=True, seed=7) as service:
        monkeypatch.setenv("FINEVOICE_API_KEY", "k")
        monkeypatch.setenv("FINEVOICE_BASE_URL", service.emulator.url)
        for number in (signal.SIGKILL, signal.SIGINT, signal.SIGKILL, signal.SIGINT, signal.SIGKILL):
            process = run_until(service, *options, more=rng.randint(15, 30), number=number)
            _, told = process.communicate(timeout=PATIENCE)
            assert process.returncode == (-number if number == signal.SIGKILL else 130), told
            if number == signal.SIGINT:
                assert "finevoice batch m.jsonl --out out" in told
        last = start("batch", "m.jsonl", "--out", "out", *options)
        _, told = last.communicate(timeout=120)
        assert last.returncode == 5, told
        check(service, ROWS)
        posts = service.emulator.ledger.posts
        again = start("batch", "m.jsonl", "--out", "out", *options, "--frozen")
        _, told = again.communicate(timeout=PATIENCE)
        assert again.returncode == 5, told
        assert service.emulator.ledger.posts == posts
