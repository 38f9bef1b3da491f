"""`finevoice fetch`: a task of another run or day."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finevoice_async import FineVoiceSession
from finevoice_async.cli import exits


def submitted(commands: Any, **options: Any) -> str:
    """Leave a task behind, as a program that stopped, and return its id."""

    async def submit() -> str:
        async with FineVoiceSession("k", base_url=commands.emulator.url, **options) as session:
            return str((await session.submit("rain", duration=1)).id)

    return str(commands.do(submit()))


def test_a_task_that_runs_is_waited_for(commands: Any, tmp_path: Path) -> None:
    """A task of another process is awaited and saved; nothing is paid."""
    task_id = submitted(commands)
    result = commands("fetch", task_id, "-o", "new/rain.wav")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "new/rain.wav\n", "")
    assert (tmp_path / "new" / "rain.wav").read_bytes().startswith(b"RIFF")
    assert commands.emulator.ledger.posts == 1


def test_as_json_and_as_audio(commands: Any) -> None:
    """`--json` is one object; `-o -` the audio."""
    task_id = submitted(commands)
    told = json.loads(commands("fetch", task_id, "--json").stdout)
    assert told["task_id"] == task_id
    assert Path(told["path"]).read_bytes() == commands("fetch", task_id, "-o", "-").stdout_bytes


def test_with_its_journal(commands: Any) -> None:
    """With the journal that has its row, the row says where it was saved."""
    task_id = submitted(commands, journal="j.db")
    assert commands("fetch", task_id, "-o", "rain.wav", "--journal", "j.db").exit_code == 0
    row = json.loads(commands("journal", "j.db", "--json").stdout)
    assert (row["state"], row["task_id"]) == ("saved", task_id)
    assert row["path"].endswith("rain.wav")


def test_a_task_that_nobody_knows(commands: Any) -> None:
    """An id that the service does not know ends with 4 after the grace period."""
    result = commands("fetch", "p1-not-there", "-o", "rain.wav")
    assert result.exit_code == exits.NOT_DONE
    assert "p1-not-there" in result.stderr


def test_a_task_that_failed(commands: Any) -> None:
    """A failed task is told with the service's reason."""
    commands.emulator.inject("task.fail")
    result = commands("fetch", submitted(commands), "--json")
    assert result.exit_code == exits.NOT_DONE
    assert "could not make this sound" in json.loads(result.stdout)["message"]


@pytest.mark.parametrize("given", [(), ("--json",)])
def test_a_wait_that_ends_can_go_on(commands: Any, given: tuple[str, ...]) -> None:
    """After 15 minutes the wait ends, and the words say how to wait on."""
    commands.emulator.inject("task.never_ends")
    task_id = submitted(commands)
    result = commands("fetch", task_id, "-o", "rain.wav", *given)
    assert result.exit_code == exits.NOT_DONE
    line = json.loads(result.stdout)["continue"] if given else result.stderr.splitlines()[-1]
    assert f"finevoice fetch {task_id} " in line
