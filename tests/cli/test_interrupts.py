"""Ctrl-C and SIGTERM tell the truth: what is paid for, what perhaps, and how to come back."""

from __future__ import annotations

import json
import os
import shlex
import signal
from pathlib import Path
from typing import Any

import pytest
from commands import PATIENCE, Terminal, end, served, start

from finevoice_async.cli import exits

TERMINATED = 143


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let `sys.argv` be what was typed."""

    def type_(*arguments: str) -> tuple[str, ...]:
        monkeypatch.setattr("sys.argv", ["finevoice", *arguments])
        return arguments

    return type_


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, exits.INTERRUPTED), (signal.SIGTERM, TERMINATED)])
def test_what_runs_is_named(commands: Any, typed: Any, number: int, code: int) -> None:
    """While a task runs: its id, and the very command line that fetches it to the same place."""
    arguments = typed("generate", "rain", "-o", "my rain.wav", "--journal", "j.db", "--overwrite")
    result = commands.interrupted(2, *arguments, number=number)
    (task_id,) = commands.emulator.ledger.accepted
    assert result.exit_code == code
    assert result.stdout == ""
    assert f"  {task_id}\n" in result.stderr
    line = result.stderr.splitlines()[-1].strip()
    assert line == f"finevoice fetch {task_id} --overwrite -o 'my rain.wav' --journal j.db"
    assert commands(*shlex.split(line)[1:]).exit_code == 0
    assert Path("my rain.wav").read_bytes().startswith(b"RIFF")
    assert commands.emulator.ledger.posts == 1


def test_as_json(commands: Any, typed: Any) -> None:
    """With --json, one object says the same to a program."""
    result = commands.interrupted(2, *typed("generate", "rain", "-o", "rain.wav", "--json"))
    (task_id,) = commands.emulator.ledger.accepted
    assert json.loads(result.stdout) == {
        "interrupted": True,
        "paid": True,
        "task_ids": [task_id],
        "perhaps_paid": 0,
        "continue": f"finevoice fetch {task_id} --json -o rain.wav",
    }


def test_an_answer_that_is_due_is_waited_for(commands: Any, typed: Any) -> None:
    """While the answer to the submission is due, it is awaited, and its task named."""
    commands.emulator.inject("submit.slow", value=5)
    result = commands.interrupted(2, *typed("generate", "rain", "-o", "rain.wav"))
    (task_id,) = commands.emulator.ledger.accepted
    assert result.exit_code == exits.INTERRUPTED
    assert f"finevoice fetch {task_id}" in result.stderr
    assert "perhaps" not in result.stderr


@pytest.mark.parametrize("journal", [(), ("--journal", "j.db")])
def test_an_answer_that_never_comes(commands: Any, typed: Any, journal: tuple[str, ...]) -> None:
    """A submission without an answer is perhaps paid; a journal has its row, and the account its task."""
    commands.emulator.inject("submit.hang")
    result = commands.interrupted(2, *typed("generate", "rain", "-o", "rain.wav", *journal))
    assert result.exit_code == exits.INTERRUPTED
    assert "not answered: perhaps paid" in result.stderr
    assert "nothing was paid" not in result.stderr
    line = result.stderr.splitlines()[-1].strip()
    if journal:
        assert line == "finevoice journal j.db --state perhaps-paid"
        assert "unknown\tperhaps paid" in commands(*shlex.split(line)[1:]).stdout
    else:
        assert line == "finevoice fetch TASK_ID -o rain.wav"


def test_an_answer_that_never_comes_as_json(commands: Any, typed: Any) -> None:
    """With --json, nobody knows is null."""
    commands.emulator.inject("submit.hang")
    told = json.loads(commands.interrupted(2, *typed("generate", "rain", "--json")).stdout)
    assert (told["paid"], told["perhaps_paid"], told["task_ids"]) == (None, 1, [])


def test_what_was_refused_is_not_paid(commands: Any, typed: Any) -> None:
    """While a refused submission is held to be sent again, nothing was paid; the same command line begins again."""
    commands.emulator.inject("submit.rate_limit", value="60")
    arguments = typed("generate", "rain", "-o", "my rain.wav")
    result = commands.interrupted(2, *arguments)
    assert result.exit_code == exits.INTERRUPTED
    assert "nothing was paid" in result.stderr
    assert result.stderr.splitlines()[-1].strip() == "finevoice generate rain -o 'my rain.wav'"
    assert "is due" not in result.stderr
    assert commands.emulator.ledger.accepted == {}


def test_what_never_got_there_is_not_paid(commands: Any, typed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the service is not reached, nothing was sent and nothing was paid."""
    arguments = typed("generate", "rain", "--base-url", "http://127.0.0.1:1", "--json")
    told = json.loads(commands.interrupted(2, *arguments).stdout)
    assert (told["paid"], told["perhaps_paid"], told["task_ids"]) == (False, 0, [])
    assert told["continue"] == "finevoice generate rain --base-url http://127.0.0.1:1 --json"


def test_on_the_embedded_emulator(commands: Any, typed: Any) -> None:
    """An embedded emulator costs nothing and is gone: no ids, and the same command line again."""
    result = commands.interrupted(0.3, *typed("generate", "rain", "--emulator", "--duration", "1"))
    assert result.exit_code == exits.INTERRUPTED
    assert "nothing was paid" in result.stderr
    assert "fetch" not in result.stderr
    assert result.stderr.splitlines()[-1].strip() == "finevoice generate rain --emulator --duration 1"


def test_a_download_on_its_way(commands: Any, typed: Any, tmp_path: Path) -> None:
    """While the result is fetched, the task's id leads to it again, and no part of it is left under its name."""
    commands.emulator.inject("download.slow", value=60)
    result = commands.interrupted(20, *typed("generate", "rain", "-o", "rain.wav"))
    (task_id,) = commands.emulator.ledger.accepted
    assert result.exit_code == exits.INTERRUPTED
    assert f"finevoice fetch {task_id} -o rain.wav" in result.stderr
    assert not (tmp_path / "rain.wav").exists()


def test_a_result_without_a_task(commands: Any, typed: Any) -> None:
    """A result that came at once, without a task, is paid for, too: its link leads to it."""
    link = "http://127.0.0.1:1/away.wav"  # nobody answers there, so that it is tried again
    commands.emulator.inject("submit.garbage", value=json.dumps({"status": "completed", "url": link}))
    result = commands.interrupted(0.05, *typed("generate", "rain", "--sync", "-o", "rain.wav"))
    assert commands.emulator.ledger.posts == 1
    assert result.exit_code == exits.INTERRUPTED
    assert "Paid for" in result.stderr
    assert "nothing was paid" not in result.stderr
    assert "None" not in result.stderr
    assert result.stderr.splitlines()[-1].strip() == f"curl --location --remote-name {link}"


def test_while_fetching(commands: Any, typed: Any) -> None:
    """`fetch` names the task and itself."""
    task_id = commands.interrupted(2, *typed("generate", "rain", "--json")).stdout
    task_id = json.loads(task_id)["task_ids"][0]
    result = commands.interrupted(0.2, *typed("fetch", task_id, "-o", "rain.wav", "--journal", "j.db"))
    assert result.exit_code == exits.INTERRUPTED
    assert result.stderr.splitlines()[-1].strip() == f"finevoice fetch {task_id} -o rain.wav --journal j.db"


def test_while_fetching_what_the_service_has(commands: Any, typed: Any) -> None:
    """Once the service has answered for a task, it is known to be paid for."""
    told = json.loads(commands.interrupted(2, *typed("generate", "rain", "--json")).stdout)
    again = json.loads(commands.interrupted(0.2, *typed("fetch", told["task_ids"][0], "--json")).stdout)
    assert (again["paid"], again["task_ids"], again["perhaps_paid"]) == (True, told["task_ids"], 0)


@pytest.mark.parametrize("address", [(), ("--base-url", "http://127.0.0.1:1")])
def test_while_fetching_what_nobody_knows(commands: Any, typed: Any, address: tuple[str, ...]) -> None:
    """An id of which the service has said nothing is not claimed to be paid for, nor the contrary."""
    result = commands.interrupted(2, *typed("fetch", "p1-typo", "-o", "rain.wav", *address))
    assert result.exit_code == exits.INTERRUPTED
    assert "Paid for" not in result.stderr
    assert "nothing was fetched" in result.stderr
    assert "  p1-typo\n" in result.stderr
    assert result.stderr.splitlines()[-1].strip().startswith("finevoice fetch p1-typo -o rain.wav")
    told = json.loads(commands.interrupted(2, *typed("fetch", "p1-typo", "--json", *address)).stdout)
    assert (told["paid"], told["task_ids"], told["perhaps_paid"]) == (None, ["p1-typo"], 0)


@pytest.mark.parametrize("json_", [False, True])
def test_while_resuming(commands: Any, typed: Any, json_: bool) -> None:
    """`resume` names what runs, and itself with its options."""
    commands.interrupted(2, *typed("generate", "rain", "--journal", "j.db"))
    (task_id,) = commands.emulator.ledger.accepted
    options = ("--json",) if json_ else ()
    result = commands.interrupted(0.2, *typed("resume", "j.db", "--out", "my effects", *options))
    assert result.exit_code == exits.INTERRUPTED
    if json_:
        told = json.loads(result.stdout)
        assert (told["task_ids"], told["paid"]) == ([task_id], True)
        assert told["continue"] == "finevoice resume j.db --json --out 'my effects'"
    else:
        assert f"  {task_id}\n" in result.stderr
        assert result.stderr.splitlines()[-1].strip() == "finevoice resume j.db --out 'my effects'"


def test_the_demo_costs_nothing(commands: Any, typed: Any) -> None:
    """The demo says that nothing was paid."""
    result = commands.interrupted(1, *typed("demo", "--out", "my effects"))
    assert result.exit_code == exits.INTERRUPTED
    assert "nothing was paid" in result.stderr
    assert "finevoice demo --out 'my effects'" in result.stderr


def test_a_second_ctrl_c_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever does not want to wait for the answer presses again, and hears that it is perhaps paid."""
    with served() as service:
        monkeypatch.setenv("FINEVOICE_API_KEY", "k")
        monkeypatch.setenv("FINEVOICE_BASE_URL", service.emulator.url)
        service.do(lambda emulator: emulator.inject("submit.hang"))
        terminal = Terminal("generate", "rain", "-o", "rain.wav")
        service.wait_until(lambda emulator: bool(emulator.ledger.posts))
        terminal.press_ctrl_c()
        terminal.read_until("Ctrl-C again")
        terminal.press_ctrl_c()
        code, told = terminal.end()
    assert code == exits.INTERRUPTED
    assert "perhaps paid" in told
    assert "Traceback" not in told
    assert "Exception ignored" not in told


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, exits.INTERRUPTED), (signal.SIGTERM, TERMINATED)])
def test_signals_to_a_program(monkeypatch: pytest.MonkeyPatch, number: int, code: int) -> None:
    """A real process that is sent a real signal names what runs."""
    with served(service_time=60.0) as service:
        monkeypatch.setenv("FINEVOICE_API_KEY", "k")
        monkeypatch.setenv("FINEVOICE_BASE_URL", service.emulator.url)
        process = start("generate", "rain", "-o", "rain.wav")
        assert process.stderr is not None
        task_id = process.stderr.readline().removeprefix("Submitted: ").strip()
        _, told = end(process, number)
    assert process.returncode == code
    assert f"finevoice fetch {task_id} -o rain.wav" in told
    assert "Traceback" not in told


def test_an_emulator_ends_by_ctrl_c() -> None:
    """`emulator` prints the two lines, and Ctrl-C ends it with 130."""
    process = start("emulator")
    assert process.stdout is not None
    lines = [process.stdout.readline(), process.stdout.readline()]
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == exits.INTERRUPTED
    assert lines[0].startswith("export FINEVOICE_BASE_URL=http://127.0.0.1:")
    assert lines[1].startswith("export FINEVOICE_API_KEY=")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_is_ignored_stays_ignored(monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    """A command that was started with a signal ignored, as a shell does in the background, does not hear it."""
    with served(service_time=0.3) as service:
        monkeypatch.setenv("FINEVOICE_API_KEY", "k")
        monkeypatch.setenv("FINEVOICE_BASE_URL", service.emulator.url)
        old = signal.signal(number, signal.SIG_IGN)
        try:
            process = start("generate", "rain", "-o", "rain.wav")
        finally:
            signal.signal(number, old)
        assert process.stderr is not None
        process.stderr.readline()
        end(process, number)
    assert process.returncode == 0
