"""The command, as a person types it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import wave
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner
from virtual_time import VirtualTimeLoop

from finevoice_async import FineVoiceSession, errors
from finevoice_async.cli import exits
from finevoice_async.cli.app import app
from finevoice_async.emulator import Emulator

run = CliRunner().invoke
COMMAND = [sys.executable, "-c", "from finevoice_async.cli import main; main()"]


def _run_on_virtual_time(job: Coroutine[Any, Any, int]) -> int:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(job)


@pytest.fixture
def quick_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the embedded emulators make effects in no time, and the command run on virtual time."""
    from finevoice_async.emulator import LogNormal

    monkeypatch.setattr(LogNormal, "__call__", lambda self, request, rng: 0.01)
    monkeypatch.setattr(asyncio, "run", _run_on_virtual_time)


def test_help_names_the_commands_and_codes() -> None:
    """The help lists the commands and explains the exit codes."""
    told = run(app, ["--help"]).output
    for word in ("generate", "demo", "emulator", "Exit codes"):
        assert word in told


def test_generate_on_the_emulator(tmp_path: Path, quick_emulator: None) -> None:
    """`generate --emulator` makes a WAV file of the asked length, and --json tells where."""
    target = tmp_path / "rain.wav"
    result = run(app, ["generate", "rain", "-o", str(target), "--duration", "1", "--emulator", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["path"] == str(target)
    with wave.open(str(target)) as file:
        assert file.getnframes() == file.getframerate()


def test_generate_without_a_network(tmp_path: Path, quick_emulator: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sits at a terminal hears within about 10 s that the service is not reached; nothing was paid."""
    monkeypatch.setenv("FINEVOICE_API_KEY", "k")
    ended: list[float] = []
    close = VirtualTimeLoop.close

    def noted(self: VirtualTimeLoop) -> None:
        ended.append(self.time())
        close(self)

    monkeypatch.setattr(VirtualTimeLoop, "close", noted)
    result = run(app, ["generate", "rain", "-o", str(tmp_path / "rain.wav"), "--base-url", "http://127.0.0.1:1"])
    assert result.exit_code == exits.exit_code(errors.SubmitNotSentError("x")), result.output
    assert "safe to submit" in result.output
    assert 10 <= ended[0] - 1000 <= 11


def test_generate_will_not_overwrite(tmp_path: Path, quick_emulator: None) -> None:
    """A file that exists stays as it is; the error is one line."""
    target = tmp_path / "rain.wav"
    target.write_text("mine")
    result = run(app, ["generate", "rain", "-o", str(target), "--duration", "1", "--emulator"])
    assert result.exit_code == 6
    assert target.read_text() == "mine"
    assert "overwrite" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["generate", "x"], 2, "FINEVOICE_API_KEY"),
        (["generate", ""], 2, "prompt"),
        (["generate", "x", "--duration", "31", "--emulator"], 2, "duration"),
        (["generate", "x", "--base-url", "nonsense"], 2, "base_url"),
        (["generate", "x", "-o", "/proc/nowhere/x.wav", "--duration", "1", "--emulator"], 6, "/proc"),
    ],
)
def test_errors_are_one_line(arguments: list[str], code: int, word: str, quick_emulator: None) -> None:
    """A mistake is one readable line and its exit code."""
    result = run(app, arguments)
    assert result.exit_code == code, result.output
    assert word in result.stderr
    assert result.stderr.count("finevoice: ") == 1


def test_errors_as_json(quick_emulator: None) -> None:
    """With --json an error is JSON, too."""
    result = run(app, ["generate", "", "--json"])
    assert json.loads(result.stdout)["error"] == "InvalidRequestError"


def test_debug_shows_the_traceback() -> None:
    """With --debug the error itself comes out."""
    result = run(app, ["generate", "", "--debug"])
    assert isinstance(result.exception, errors.InvalidRequestError)


def test_demo(tmp_path: Path, quick_emulator: None) -> None:
    """The demo makes a dozen different files and says what to type next."""
    result = run(app, ["demo", "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    files = sorted((tmp_path / "out").glob("*.wav"))
    assert len({path.read_bytes() for path in files}) == len(files) == 12
    assert "Next:" in result.output


def test_demo_in_an_impossible_folder(tmp_path: Path) -> None:
    """A folder that cannot be made is one readable line."""
    (tmp_path / "file").write_text("")
    result = run(app, ["demo", "--out", str(tmp_path / "file")])
    assert result.exit_code == 1
    assert result.stderr.startswith("finevoice: ")


@pytest.mark.real_time
def test_emulator_serves_until_ctrl_c() -> None:
    """`emulator` prints the two lines, and Ctrl-C ends it with 130."""
    process = subprocess.Popen([*COMMAND, "emulator"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = [process.stdout.readline(), process.stdout.readline()]
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == exits.INTERRUPTED
    process.stdout.close()
    assert lines[0].startswith("export FINEVOICE_BASE_URL=http://127.0.0.1:")
    assert lines[1].startswith("export FINEVOICE_API_KEY=")


@pytest.mark.real_time
def test_ctrl_c_names_what_runs(tmp_path: Path) -> None:
    """Ctrl-C while an effect is made says which task runs and how to come back to it."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [*COMMAND, "generate", "x", "--emulator", "-o", str(tmp_path / "x.wav")],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stderr is not None
    task_id = process.stderr.readline().removeprefix("Submitted: ").strip()
    process.send_signal(signal.SIGINT)
    told = process.stderr.read()
    process.stderr.close()
    assert process.wait(10) == exits.INTERRUPTED
    assert f"  {task_id}\n" in told
    assert "attach" in told


def test_every_error_has_a_code() -> None:
    """Each public error has an exit code of its own kind."""
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.FineVoiceError)
    ]
    assert {kind.__name__ for kind in kinds if exits.exit_code(kind("x")) == 1} == {"FineVoiceError"}


def test_journal_and_resume(tmp_path: Path, quick_emulator: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """`journal` shows the effects by state; `resume` saves what was left, and says what is unknown."""

    async def leave_something() -> None:
        async with FineVoiceSession("k", base_url=emulator.url, journal=tmp_path / "j.db") as session:
            await session.generate("done [bold]", key="a", duration=1)
            await session.submit("running", duration=1)
            emulator.inject("submit.lose_reply")
            with pytest.raises(errors.SubmitUnknownError):
                await session.submit("unknown")

    emulator = Emulator(api_key="k")
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        monkeypatch.setattr(asyncio, "run", runner.run)
        runner.run(emulator.start())
        runner.run(leave_something())
        shown = run(app, ["journal", str(tmp_path / "j.db")])
        assert shown.exit_code == 0
        assert "may have been paid for" in shown.output
        told = json.loads(run(app, ["journal", str(tmp_path / "j.db"), "--json"]).stdout)
        assert [row["state"] for row in told] == ["submitted", "done", "unknown"]
        monkeypatch.setenv("FINEVOICE_API_KEY", "k")
        arguments = ["resume", str(tmp_path / "j.db"), "--out", str(tmp_path / "out"), "--base-url", emulator.url]
        result = run(app, arguments)
        assert result.exit_code == 5, result.output
        assert "2 saved, 0 failed, 1 unknown" in result.stderr
        runner.run(emulator.aclose())
    assert len(list((tmp_path / "out").glob("*.wav"))) == 2
    assert len(emulator.ledger.accepted) == 3


def test_journal_that_is_not_there(tmp_path: Path) -> None:
    """No journal is made by looking for one."""
    for command in ("journal", "resume"):
        assert run(app, [command, str(tmp_path / "none.db")]).exit_code == 7
    assert list(tmp_path.iterdir()) == []
