"""What was learned of how long effects take is kept from run to run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from finevoice_async.cli.memory import Memory
from finevoice_async.core.polling.schedule import make_schedule

GENERATE = ("generate", "rain", "--duration", "1", "--overwrite", "-o", "x.wav")


def kept(state_folder: Path) -> Path:
    """Return the one file that is kept."""
    (path,) = (path for path in state_folder.rglob("*") if path.is_file())
    return path


def test_each_run_begins_with_what_the_ones_before_learned(commands: Any, state_folder: Path) -> None:
    """The schedule that a run begins with has seen the ends of all runs before, and expects effects to take as long."""
    memory = Memory(commands.emulator.url, emulator=False)
    assert make_schedule(memory.polling()).estimate(0.0) is None
    for number in range(1, 11):
        assert commands(*GENERATE).exit_code == 0
        schedule = make_schedule(memory.polling())
        assert schedule.state()["ends"] == number
    estimate = schedule.estimate(0.0, 1.0)
    assert estimate is not None
    assert estimate.median == pytest.approx(4.0, abs=1.0), "as the emulator's take; the guess is 7 s"
    assert kept(state_folder).stat().st_mode & 0o077 == 0


def test_each_service_has_its_own(state_folder: Path) -> None:
    """What one service taught is not taken for another; the ports of emulators do not matter."""
    for number, url in enumerate(["https://a.example", "https://b.example", "http://127.0.0.1:1"]):
        Memory(url, emulator=False).keep({"of": number})
    Memory("http://127.0.0.1:2", emulator=False).keep({"of": 3})
    Memory(None, emulator=True).keep({"of": 4})
    found = [json.loads(path.read_text())["of"] for path in state_folder.rglob("*.json")]
    assert sorted(found) == [0, 1, 4]


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"7",
        b'"x"',
        b"{}",
        b'{"version": 99}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"version": ' + b"9" * 5000 + b"}",
        b'{"version": NaN}',
    ],
)
def test_a_damaged_file_is_passed_by(commands: Any, state_folder: Path, damaged: bytes) -> None:
    """Whatever stands in the file, the effect is made; a word says that it is ignored, and it is written anew."""
    assert commands(*GENERATE).exit_code == 0
    path = kept(state_folder)
    good = json.loads(path.read_text())
    path.write_bytes(damaged)
    result = commands(*GENERATE, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["path"] == "x.wav"
    assert "is ignored" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert json.loads(path.read_text()).keys() == good.keys()
    assert "ignored" not in commands(*GENERATE).stderr


def test_every_value_of_it_may_be_damaged(commands: Any, state_folder: Path) -> None:
    """A file of the right shape with a wrong value in any place never harms a run."""
    assert commands(*GENERATE).exit_code == 0
    path = kept(state_folder)
    good = json.loads(path.read_text())
    for name in good:
        values: list[Any] = [None, -1, "x", [], {}, [None], 1e308]
        for value in values:
            path.write_text(json.dumps(good | {name: value}))
            assert commands(*GENERATE).exit_code == 0


def test_a_folder_that_cannot_be_made(commands: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a place to keep it, nothing is kept and nothing said."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    result = commands(*GENERATE)
    assert result.exit_code == 0
    assert "ignored" not in result.stderr or "file" in result.stderr


def test_a_write_that_fails_leaves_the_old_one(state_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is replaced whole or not at all, and no other file is left beside it."""
    memory = Memory(None, emulator=True)
    memory.keep({"of": 1})

    def fail(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "replace", fail)
    memory.keep({"of": 2})
    assert json.loads(kept(state_folder).read_text()) == {"of": 1}
