"""What goes wrong is told in one plain sentence, in time, with what is paid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from commands import Terminal

from finevoice_async import JournalError, SoundEffect, SubmitNotSentError, SubmitUnknownError, errors
from finevoice_async.adapters.sqlite_journal import SqliteJournal
from finevoice_async.cli import exits

NOBODY = "http://127.0.0.1:1"


@pytest.mark.parametrize("arguments", [("generate", "rain"), ("resume", "j.db"), ("fetch", "p1-1")])
def test_who_waits_is_told_for_what(commands: Any, arguments: tuple[str, ...]) -> None:
    """In a pipe one line says that the service is waited for; with --json nothing but JSON is said."""
    commands("generate", "rain", "-o", "x.wav", "--journal", "j.db")
    if arguments[0] == "resume":
        commands.interrupted(1, "generate", "snow", "-o", "y.wav", "--journal", "j.db")
    told = commands.interrupted(6, *arguments, "--base-url", NOBODY).stderr
    assert told.startswith("Waiting for 127.0.0.1:1"), told
    assert told.count("Waiting for") == 1
    told = commands.interrupted(6, *arguments, "--base-url", NOBODY, "--json")
    assert told.stderr == ""
    assert json.loads(told.stdout)["interrupted"]


def test_on_a_terminal_it_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal the words say since when."""
    monkeypatch.setenv("FINEVOICE_API_KEY", "k")
    terminal = Terminal("generate", "rain", "-o", "x.wav", "--base-url", NOBODY)
    terminal.read_until("127.0.0.1:1 has not accepted it yet, 3 s so far")
    terminal.press_ctrl_c()
    code, told = terminal.end()
    assert code == exits.INTERRUPTED
    assert "nothing was paid" in told


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (SubmitNotSentError("Not reached: ClientConnectorError: Connection refused. Bye."), "Connection refused. Bye."),
        (SubmitUnknownError("No answer came back: ServerDisconnectedError. Bye."), "the server closed the connection"),
        (SubmitUnknownError("No answer came back: ConnectionTimeoutError. Bye."), "no connection in time"),
        (SubmitUnknownError("It failed: ClientConnectionResetError: Cannot write."), "It failed: Cannot write."),
        (SubmitUnknownError("It failed: ZeroDivisionError at line 3 of x.py."), "zero division error at line 3"),
        (errors.TaskFailedError("Service says: NameTooLong: x"), "NameTooLong: x"),
    ],
)
def test_no_names_of_classes(error: errors.FineVoiceError, words: str) -> None:
    """What aiohttp and Python call their errors is no word for people; what the service says stays as it is."""
    import aiohttp

    assert aiohttp.__name__  # it has to be there for its names to be known
    told = exits.words(error)
    assert words in told
    assert "Error" not in told


def test_no_names_of_classes_in_a_list(commands: Any) -> None:
    """Nor does the list of a journal name them."""
    commands.emulator.inject("submit.lose_reply")
    commands("generate", "rain", "-o", "x.wav", "--journal", "j.db")
    code, told = Terminal("journal", "j.db").end()
    assert code == 0
    assert "the server closed the connection" in told
    assert "DisconnectedError" not in told


def test_a_service_that_is_not_reached_is_told_plainly(commands: Any) -> None:
    """The very words of a refused connection, without a class."""
    told = commands("generate", "rain", "-o", "x.wav", "--base-url", NOBODY).stderr.splitlines()[-1]
    assert told.startswith("finevoice: The service was not reached: Connect call failed")
    assert "Error" not in told


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_fault_of_the_program(commands: Any, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]) -> None:
    """An error that nobody foresaw says how to report it, without its own words, and how to get what was paid for."""

    async def fail(*_: object, **__: object) -> Path:
        raise KeyError("sk-secret-key")

    monkeypatch.setattr(SoundEffect, "save", fail)
    result = commands("generate", "rain", "-o", "rain.wav", *options)
    (task_id,) = commands.emulator.ledger.accepted
    assert result.exit_code == exits.OTHER
    for word in ("secret", "KeyError", "Traceback"):
        assert word not in result.output
    told = json.loads(result.stdout)["message"] if options else result.stderr
    for word in ("Please report", "test_trouble.py, line", "finevoice-async", "without your key"):
        assert word in told
    again = json.loads(result.stdout)["continue"] if options else result.stderr.splitlines()[-1]
    assert f"finevoice fetch {task_id}" in again


def test_a_fault_before_a_job_begins(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same while the command line is read."""
    from finevoice_async.cli import app

    monkeypatch.setattr(app, "_typed", lambda url: 1 // 0)
    result = run("fetch", "p1", "--json")
    assert result.exit_code == exits.OTHER
    assert "Please report" in json.loads(result.stdout)["message"]


class TestJournalsThatCannotBeOpened:
    """Whatever a journal refuses at opening: one sentence, its code, nothing sent and nothing paid."""

    @pytest.fixture(params=["no database", "a folder", "its own reason"])
    def journal(self, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
        """A journal that cannot be opened."""
        path = tmp_path / "j.db"
        if request.param == "a folder":
            path.mkdir()
        elif request.param == "no database":
            path.write_text("no database, but long enough to be looked at" * 100)
        else:

            async def refuse(_: object) -> None:
                raise JournalError("The journal j.db was made with another service. Name another file.")

            monkeypatch.setattr(SqliteJournal, "open", refuse)
        return "j.db"

    @pytest.mark.parametrize("arguments", [("generate", "rain"), ("fetch", "p1-1"), ("generate", "rain", "--emulator")])
    def test_it_is_told(self, commands: Any, journal: str, arguments: tuple[str, ...]) -> None:
        """In words, and as JSON."""
        result = commands(*arguments, "-o", "x.wav", "--journal", journal)
        assert result.exit_code == 7
        (line,) = result.stderr.splitlines()
        assert line.startswith("finevoice: The journal ")
        assert "j.db" in line
        told = json.loads(commands(*arguments, "-o", "x.wav", "--journal", journal, "--json").stdout)
        assert (told["paid"], told["exit_code"]) == (False, 7)
        assert commands.emulator.ledger.posts == commands.emulator.ledger.polls == 0


def test_an_emulator_costs_nothing_whatever_fails(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --emulator an error says that nothing was paid."""

    async def fail(*_: object, **__: object) -> Path:
        raise errors.DownloadError("The disk is full.", task_id="p1")

    monkeypatch.setattr(SoundEffect, "save", fail)
    result = run("generate", "rain", "-o", "rain.wav", "--emulator", "--json")
    assert (result.exit_code, json.loads(result.stdout)["paid"]) == (exits.NOT_SAVED, False)


def test_a_port_that_is_taken(commands: Any) -> None:
    """Where something listens already, one sentence says so, and what to do."""
    port = commands.emulator.url.rpartition(":")[2]
    result = commands("emulator", "--port", port)
    assert result.exit_code == exits.WRONG_USE
    assert result.stderr == (
        f"finevoice: The emulator was not started: port {port} is taken. Name another with --port, or none for a free "
        "one.\n"
    )
