"""A trial with `--emulator`, before or after the real thing: neither is taken for the other."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

LOCK = Path("m.jsonl.lock")


@pytest.fixture
def two(commands: Any) -> Any:
    """Commands, and a list of two sounds of a tenth of a second."""
    rows = ({"key": key, "prompt": "Rain", "duration": 0.1} for key in "ab")
    Path("m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return commands


def emulated() -> list[bool]:
    """Return for each sound of the lock whether an emulator made it."""
    return [json.loads(line).get("emulated", False) for line in LOCK.read_text().splitlines()]


def test_before_the_real_thing(two: Any) -> None:
    """The lock says whose sounds these are; another folder, and who has the lock alone, wants real ones."""
    tried = two("batch", "m.jsonl", "--out", "trial", "--emulator")
    assert tried.exit_code == 0
    assert "These are the emulator's, as the lock says" in tried.stderr
    assert emulated() == [True, True]
    assert two("batch", "m.jsonl", "--out", "trial", "--frozen").exit_code == 0
    assert emulated() == [True, True]
    assert two("batch", "m.jsonl", "--out", "real", "--frozen").exit_code == 8
    assert two.emulator.ledger.posts == 0
    made = two("batch", "m.jsonl", "--out", "real")
    assert (made.exit_code, two.emulator.ledger.posts) == (0, 2)
    assert emulated() == [False, False]


def test_after_the_real_thing(two: Any) -> None:
    """A trial in another folder makes its own sounds, and leaves the lock as it is."""
    assert two("batch", "m.jsonl", "--out", "real").exit_code == 0
    made = LOCK.read_text()  # by the same emulator, whose sounds are the same; a real service's are not
    before = re.sub(r'"sha256": "\w+"', f'"sha256": "{"0" * 64}"', made)
    LOCK.write_text(before)
    for words in ("2 saved", "2 there already"):
        tried = two("batch", "m.jsonl", "--out", "trial", "--emulator")
        assert (tried.exit_code, len(list(Path("trial").glob("*.wav")))) == (0, 2)
        assert tried.stderr.startswith(words)
    assert LOCK.read_text() == before
    LOCK.write_text(made)
    assert two("batch", "m.jsonl", "--out", "real", "--frozen").exit_code == 0
    assert two.emulator.ledger.posts == 2


def test_what_failed_elsewhere_is_not_to_be_paid_again(two: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong key is no failure that a second payment mends; one of the service is."""
    monkeypatch.setenv("FINEVOICE_API_KEY", "wrong")
    refused = two("batch", "m.jsonl", "--out", "out")
    assert refused.exit_code == 3
    assert "--retry-failed" not in refused.stderr
    monkeypatch.setenv("FINEVOICE_API_KEY", two.emulator.api_key)
    two.emulator.inject("task.fail")
    assert "paid for again with --retry-failed" in two("batch", "m.jsonl", "--out", "out").stderr


INTERRUPTED = """
import os, signal, sys
from finevoice_async.cli import main

class Hasty:
    def find_spec(self, name, path=None, target=None):
        if name == "finevoice_async.cli.app":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Hasty())
main()
"""


def test_interrupted_as_it_starts() -> None:
    """Ctrl-C while it is still being imported ends it at once: no traceback, and nothing has begun."""
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
