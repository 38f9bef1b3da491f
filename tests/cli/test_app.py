"""The command line itself: help, version, wrong use, exit codes."""

from __future__ import annotations

import json
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import typer
from commands import start

from finevoice_async import errors
from finevoice_async.cli import exits
from finevoice_async.cli.spans import parse_span

COMMANDS = ("generate", "fetch", "demo", "emulator", "journal", "resume", "plan", "batch", "report")


def test_help_is_for_newcomers(run: Any) -> None:
    """The help lists the commands, says how to begin without a key and with one, and explains the exit codes."""
    told = run("--help").output
    for word in (*COMMANDS, "finevoice demo", "FINEVOICE_API_KEY", "Exit codes"):
        assert word in told


def test_no_command_is_a_wish_for_help(run: Any) -> None:
    """Alone, the command shows its help."""
    result = run()
    assert result.exit_code == 0
    assert result.output == run("--help").output


@pytest.mark.parametrize("name", COMMANDS)
def test_each_help_tells_the_exit_codes(run: Any, name: str) -> None:
    """Each command's help explains the exit codes, too."""
    told = " ".join(run(name, "--help").output.split())
    for code in ("0 done", "2 wrong use", "5 unknown and perhaps paid", "130 Ctrl-C", "143 SIGTERM"):
        assert code in told


def test_version(run: Any) -> None:
    """`--version` is one line."""
    result = run("--version")
    assert (result.exit_code, result.output) == (0, f"finevoice-async {metadata.version('finevoice-async')}\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["generat"], "generat"),
        (["generate", "x", "--nope"], "--nope"),
        (["generate", "x", "--duration", "long"], "--duration"),
        (["fetch"], "TASK_ID"),
        (["journal", "j.db", "--prune", "30"], "30d"),
        (["journal", "j.db", "--prune", "-30d"], "30d"),
        (["journal", "j.db", "--prune", "9999999w"], "hundred years"),
        (["journal", "j.db", "--state", "wet"], "perhaps-paid"),
        (["journal", "j.db", "--adopt", "3"], "ROW=TASK"),
        (["journal", "j.db", "--adopt", "x=p1"], "ROW=TASK"),
        (["journal", "j.db", "--adopt", "3="], "task id"),
        (["journal", "j.db", "--adopt", "3=.."], "another path"),
        (["journal", "j.db", "--discard", "0"], "--discard"),
        (["journal", "j.db", "--discard", "1", "--state", "saved"], "two runs"),
        (["journal", "j.db", "--adopt", "3=p1\n2"], "control characters"),
        (["--nope"], "--nope"),
    ],
)
def test_wrong_use_is_two_lines(run: Any, arguments: list[str], words: str) -> None:
    """A command line that makes no sense: what is wrong, and where to read on; as JSON where that was asked for."""
    result = run(*arguments)
    assert result.exit_code == exits.WRONG_USE
    assert result.stdout == ""
    first, second = result.stderr.splitlines()
    assert first.startswith("finevoice: ")
    assert words in first
    assert second.startswith("See: finevoice ")
    if arguments[0] != "--nope":
        data = json.loads(run(*arguments, "--json").stdout)
        assert (data["exit_code"], data["paid"]) == (exits.WRONG_USE, False)


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["generate", "x"], 2, "FINEVOICE_API_KEY"),
        (["generate", ""], 2, "prompt"),
        (["generate", "x", "--duration", "31", "--emulator"], 2, "duration"),
        (["generate", "x", "--base-url", "nonsense"], 2, "base_url"),
        (["generate", "x", "--base-url", "http://[::1"], 2, "base_url"),
        (["fetch", "p1", "--base-url", "http://["], 2, "base_url"),
        (["fetch", ".."], 2, "another path"),
        (["fetch", "p1", "-o", "file/x.wav"], 2, "file"),
        (["journal", "none.db"], 2, "none.db"),
        (["journal", "."], 2, "no journal"),
        (["resume", "none.db"], 2, "none.db"),
        (["journal", "none.db", "--accept-double-charge"], 2, "--resend"),
        (["generate", "x", "--emulator", "--base-url", "http://127.0.0.1:1"], 2, "two services"),
        (["generate", "x", "--emulator", "--retry-failed"], 2, "--key"),
        (["generate", "x", "--emulator", "--journal", "j.db", "--retry-failed"], 2, "--key"),
        (["demo", "--out", "file/effects"], 2, "file"),
    ],
)
def test_errors_are_one_line_and_a_code(
    run: Any, arguments: list[str], code: int, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each kind of failure has its exit code and is told in a line; with --json, in an object on standard output."""
    if "--base-url" in arguments:
        monkeypatch.setenv("FINEVOICE_API_KEY", "k")
    Path("file").write_text("")
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("finevoice: ")
    assert len(result.stderr.splitlines()) == 1
    assert word in result.stderr
    told = run(*arguments, "--json")
    data = json.loads(told.stdout)
    assert (data["exit_code"], data["paid"]) == (told.exit_code, False) == (code, False)
    assert told.stderr == ""
    if arguments[0] == "fetch":
        assert "sent" not in result.stderr


def test_debug_shows_the_traceback(run: Any) -> None:
    """With --debug it is shown besides, and line and exit code stay what they are."""
    plain, debugged = run("generate", ""), run("generate", "", "--debug")
    assert debugged.exit_code == plain.exit_code == exits.WRONG_USE
    assert debugged.stderr.endswith(plain.stderr)
    assert "Traceback" in debugged.stderr
    assert "Traceback" not in plain.stderr


def test_every_error_has_a_code() -> None:
    """Each public error has an exit code of its own kind."""
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.FineVoiceError)
    ]
    assert {kind.__name__ for kind in kinds if exits.exit_code(kind("x")) == 1} == {"FineVoiceError"}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30d", 30 * 86400), ("12h", 43200), ("90m", 5400), ("1.5h", 5400), ("10s", 10), ("2W", 1209600)],
)
def test_spans(text: str, seconds: float) -> None:
    """A number and a unit is a span of time."""
    assert parse_span(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "d", "30", "30 years", "1e3d", "-1d", "٣d", "30dd", "1d2h", "nand", "infd"])
def test_no_spans(text: str) -> None:
    """Anything else is refused with an example of what to write."""
    with pytest.raises(typer.BadParameter, match="such as 30d"):
        parse_span(text)


def test_words_that_a_terminal_cannot_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal that knows few letters, a name with others is told all the same."""
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    process = start("generate", "rain", "--emulator", "--duration", "1", "-o", "дождь.wav")
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert stdout == "\\u0434\\u043e\\u0436\\u0434\\u044c.wav\n"
