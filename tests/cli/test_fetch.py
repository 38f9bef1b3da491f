"""`finevoice fetch`: a task of another run or day."""

from __future__ import annotations

import asyncio
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
    waiting = f"Waiting for the end of task {task_id}\n"
    assert (result.exit_code, result.stdout, result.stderr) == (0, "new/rain.wav\n", waiting)
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


@pytest.mark.parametrize("journal", [(), ("--journal", "j.db")])
def test_a_task_that_nobody_knows(commands: Any, journal: tuple[str, ...]) -> None:
    """An id that the service never knew ends with 4 after some seconds; whether it was paid for is not claimed."""
    clock = commands.do(_clock())
    began = clock()
    result = commands("fetch", "p1-not-there", "-o", "rain.wav", *journal)
    assert clock() - began < 7
    assert result.exit_code == exits.NOT_DONE
    waiting, told = result.stderr.splitlines()
    assert waiting.startswith("Waiting for 127.0.0.1")
    assert "p1-not-there" in told
    data = json.loads(commands("fetch", "p1-not-there", "-o", "rain.wav", *journal, "--json").stdout)
    assert (data["paid"], data["task_id"]) == (None, "p1-not-there")


def test_a_task_that_shows_late(commands: Any) -> None:
    """An id that the service first does not know, as after a 404 of a gateway, is asked for again."""
    task_id = submitted(commands)
    commands.emulator.inject("poll.not_found", times=2)
    assert commands("fetch", task_id, "-o", "rain.wav").exit_code == 0


@pytest.mark.parametrize("fault", ["poll.error_500", "poll.rate_limit", "poll.garbage", "poll.close"])
def test_a_service_in_trouble_is_asked_again(commands: Any, fault: str) -> None:
    """A service that does not say is asked again, and that is no word about the task."""
    task_id = submitted(commands)
    commands.emulator.inject(fault, times=3)
    assert commands("fetch", task_id, "-o", "rain.wav").exit_code == 0


def test_a_service_that_is_not_reached(commands: Any) -> None:
    """After some 10 s that is told, with the command that tries again; nothing is claimed about the task."""
    clock = commands.do(_clock())
    began = clock()
    result = commands("fetch", "p1-1", "-o", "rain.wav", "--base-url", "http://127.0.0.1:1")
    assert 10 <= clock() - began <= 12
    assert result.exit_code == exits.NOT_DONE
    assert result.stderr.splitlines()[-1].startswith("Go on with: finevoice fetch p1-1 -o rain.wav")
    data = json.loads(commands("fetch", "p1-1", "--base-url", "http://127.0.0.1:1", "--json").stdout)
    assert data["paid"] is None


def test_a_refused_key_says_nothing_of_the_task(commands: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a task is paid for that another's key asks for, nobody knows."""
    monkeypatch.setenv("FINEVOICE_API_KEY", "wrong")
    result = commands("fetch", "p1-1", "--json")
    assert (result.exit_code, json.loads(result.stdout)["paid"]) == (3, None)


def test_a_task_of_a_journal_has_its_usual_grace(commands: Any) -> None:
    """A task that a journal knows as submitted is not given up after some seconds of 404s."""
    task_id = submitted(commands, journal="j.db")
    commands.emulator.inject("poll.not_found", times=8)
    assert commands("fetch", task_id, "-o", "rain.wav", "--journal", "j.db").exit_code == 0


def test_a_service_that_refuses_is_not_asked_again(commands: Any) -> None:
    """An answer that asking again does not change ends it at once."""
    task_id = submitted(commands)
    polls = commands.emulator.ledger.polls
    commands.emulator.inject("poll.refuse")
    assert commands("fetch", task_id, "-o", "rain.wav").exit_code == exits.NOT_DONE
    assert commands.emulator.ledger.polls == polls + 1


async def _clock() -> Any:
    return asyncio.get_running_loop().time


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
