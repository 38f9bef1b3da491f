"""`finevoice generate`: one effect, paid for once, where it is wanted."""

from __future__ import annotations

import asyncio
import json
import re
import wave
from pathlib import Path
from typing import Any

import pytest
from commands import PATIENCE, Terminal, end, served, start

from finevoice_async import FineVoiceSession
from finevoice_async.cli import exits
from finevoice_async.emulator import Emulator


def test_on_the_embedded_emulator(run: Any, tmp_path: Path, quick_emulator: None) -> None:
    """`--emulator` makes a WAV file of the asked length, and --json tells where, and nothing else."""
    target = tmp_path / "rain.wav"
    result = run("generate", "rain", "-o", str(target), "--duration", "1", "--emulator", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["path"] == str(target)
    assert result.stderr == ""
    with wave.open(str(target)) as file:
        assert file.getnframes() == file.getframerate()


def test_says_the_id_and_the_file(commands: Any, tmp_path: Path) -> None:
    """The task's id comes on standard error as soon as it is known, the file's name on standard output."""
    result = commands("generate", "rain", "-o", "rain.wav", "--duration", "1")
    (task_id,) = commands.emulator.ledger.accepted
    assert (result.exit_code, result.stdout, result.stderr) == (0, "rain.wav\n", f"Submitted: {task_id}\n")


def test_a_key_is_paid_for_once(commands: Any, tmp_path: Path) -> None:
    """The same key again finds the effect, gives the file that is there, and pays nothing; elsewhere it fetches it."""
    arguments = ("generate", "rain", "--key", "a", "--journal", "j.db", "--duration", "1", "--json", "-o")
    first, again, elsewhere = (commands(*arguments, name) for name in ("rain.wav", "rain.wav", "other.wav"))
    assert [result.exit_code for result in (first, again, elsewhere)] == [0, 0, 0], again.output
    assert json.loads(again.stdout) == json.loads(first.stdout)
    assert "is there already" in again.stderr
    assert (tmp_path / "other.wav").read_bytes() == (tmp_path / "rain.wav").read_bytes()
    assert commands.emulator.ledger.posts == 1
    assert commands.emulator.ledger.fetches == 2


def test_a_file_that_was_changed_is_not_the_effect(commands: Any, tmp_path: Path) -> None:
    """What somebody wrote over the file is not taken for the effect, nor replaced unasked."""
    arguments = ("generate", "rain", "--key", "a", "--journal", "j.db", "--duration", "1", "-o", "rain.wav")
    assert commands(*arguments).exit_code == 0
    (tmp_path / "rain.wav").write_text("mine")
    refused = commands(*arguments)
    assert refused.exit_code == exits.WRONG_USE
    assert (tmp_path / "rain.wav").read_text() == "mine"
    assert commands(*arguments, "--overwrite").exit_code == 0
    assert (tmp_path / "rain.wav").read_bytes().startswith(b"RIFF")
    assert commands.emulator.ledger.posts == 1


@pytest.mark.parametrize("key", ["a", "scene 3, door", "ключ"])
def test_a_key_needs_a_journal(commands: Any, key: str) -> None:
    """A key without a journal would hold for one run only: said before anything is sent."""
    result = commands("generate", "rain", "--key", key)
    assert result.exit_code == exits.WRONG_USE
    assert "--journal" in result.stderr
    assert commands.emulator.ledger.posts == 0


def test_another_request_under_the_key(commands: Any) -> None:
    """A key stands for one request: another is refused, not taken for it."""
    arguments = ("--key", "a", "--journal", "j.db", "-o", "rain.wav")
    assert commands("generate", "rain", *arguments).exit_code == 0
    result = commands("generate", "snow", *arguments, "--overwrite")
    assert result.exit_code == exits.WRONG_USE
    assert commands.emulator.ledger.posts == 1


def test_standard_output_is_the_audio(commands: Any, tmp_path: Path) -> None:
    """`-o -` writes the audio, whole, and every word goes to standard error."""
    result = commands("generate", "rain", "-o", "-", "--duration", "1")
    assert result.exit_code == 0
    assert result.stdout_bytes.startswith(b"RIFF")
    assert int.from_bytes(result.stdout_bytes[4:8], "little") + 8 == len(result.stdout_bytes)
    assert "Submitted" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_json_and_audio_want_the_same_way(commands: Any) -> None:
    """`--json -o -` is refused before anything is sent."""
    result = commands("generate", "rain", "-o", "-", "--json")
    assert result.exit_code == exits.WRONG_USE
    assert json.loads(result.stdout)["error"] == "ConfigurationError"
    assert commands.emulator.ledger.posts == 0


def test_a_reader_that_goes_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If whoever was to play the audio is gone, the command says so, and how to fetch it; it is paid for."""
    with served(service_time=0.01) as service:
        monkeypatch.setenv("FINEVOICE_API_KEY", "k")
        monkeypatch.setenv("FINEVOICE_BASE_URL", service.emulator.url)
        process = start("generate", "rain", "-o", "-")
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        told = process.stderr.read()
        process.stderr.close()
        assert process.wait(PATIENCE) == exits.NOT_SAVED
    (task_id,) = service.emulator.ledger.accepted
    assert f"finevoice fetch {task_id} -o -" in told
    assert "Traceback" not in told
    assert "BrokenPipe" not in told


def test_a_failed_download_says_how_to_fetch_it(commands: Any) -> None:
    """After a download that failed for good, the second line is the command that tries again."""
    commands.emulator.inject("download.error_500", times=4)
    result = commands("generate", "rain", "-o", "rain.wav", "--journal", "the journal.db")
    (task_id,) = commands.emulator.ledger.accepted
    assert result.exit_code == exits.NOT_SAVED
    lines = result.stderr.splitlines()
    assert lines[-1] == f"Go on with: finevoice fetch {task_id} -o rain.wav --journal 'the journal.db'"
    assert commands("fetch", task_id, "-o", "rain.wav", "--journal", "the journal.db").exit_code == 0


def test_a_typed_address_is_typed_again(commands: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command to go on with names the address if it was typed, and not if the environment has it."""
    monkeypatch.delenv("FINEVOICE_BASE_URL")
    commands.emulator.inject("download.error_500", times=4)
    url = commands.emulator.url
    result = commands("generate", "rain", "-o", "rain.wav", "--base-url", url, "--json")
    assert f" --base-url {url}" in json.loads(result.stdout)["continue"]


def test_a_terminal_shows_how_long_it_takes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On a terminal a line says what is waited for; once something was learned, for how much longer."""
    with served(service_time=0.05) as service:
        monkeypatch.setenv("FINEVOICE_API_KEY", "k")
        monkeypatch.setenv("FINEVOICE_BASE_URL", service.emulator.url)
        code, cold = Terminal("generate", "rain", "-o", "1.wav").end()
        assert code == 0, cold
        _, warm = Terminal("generate", "rain", "-o", "2.wav").end()
    assert "s so far" in cold
    assert re.search(r"about \d s more", warm)
    assert max(len(line.split("\r")[-1]) for line in warm.splitlines()) <= 80


def test_no_spinner_in_a_pipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Away from a terminal nothing moves: two lines in all."""
    with served(service_time=0.01) as service:
        monkeypatch.setenv("FINEVOICE_API_KEY", "k")
        monkeypatch.setenv("FINEVOICE_BASE_URL", service.emulator.url)
        process = start("generate", "rain", "-o", "1.wav")
        stdout, stderr = end(process)
    assert (process.returncode, stdout) == (0, "1.wav\n")
    assert len(stderr.splitlines()) == 1


def test_audio_is_not_for_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """`-o -` on a terminal is refused before anything is paid for."""
    monkeypatch.setenv("FINEVOICE_API_KEY", "k")
    monkeypatch.setenv("FINEVOICE_BASE_URL", "http://127.0.0.1:1")
    code, told = Terminal("generate", "rain", "-o", "-").end()
    assert code == exits.WRONG_USE
    assert "> FILE" in " ".join(told.split())
    assert max(map(len, told.splitlines())) <= 80


def test_an_effect_saved_by_a_program(commands: Any, tmp_path: Path) -> None:
    """What a program of the library saved under a key is found by the command."""

    async def save(emulator: Emulator) -> None:
        async with FineVoiceSession("k", base_url=emulator.url, journal="j.db") as session:
            await (await session.generate("rain", key="a")).save(tmp_path / "rain.wav")

    commands.do(save(commands.emulator))
    result = commands("generate", "rain", "--key", "a", "--journal", "j.db", "-o", "rain.wav")
    assert (result.exit_code, result.stdout) == (0, "rain.wav\n")
    assert commands.emulator.ledger.posts == 1


@pytest.mark.parametrize("journal", [(), ("--journal", "j.db")])
def test_a_result_without_a_task(commands: Any, journal: tuple[str, ...]) -> None:
    """A result that came at once, without a task, and could not be fetched: its link, or its journal, leads to it."""
    link = f"{commands.emulator.url}/files/away.wav"
    commands.emulator.inject("submit.garbage", value=json.dumps({"status": "completed", "url": link}))
    result = commands("generate", "rain", "--sync", "-o", "rain.wav", *journal, "--json")
    assert result.exit_code == exits.NOT_SAVED
    again = json.loads(result.stdout)["continue"]
    assert again == ("finevoice resume j.db" if journal else f"curl --location --remote-name {link}")
    assert commands.emulator.ledger.posts == 1


def test_perhaps_paid_is_settled_by_the_journal(commands: Any) -> None:
    """A lost answer is told once, with the command that shows what settles it; the key is refused until then."""
    commands.emulator.inject("submit.lose_reply")
    arguments = ("generate", "rain", "--key", "a", "--journal", "j.db", "-o", "rain.wav")
    for _ in range(2):
        result = commands(*arguments)
        assert result.exit_code == exits.UNKNOWN
        assert result.stderr.splitlines()[-1] == "Go on with: finevoice journal j.db --state perhaps-paid"
    assert "(row" not in result.stderr
    assert "--adopt ROW=TASK" in result.stderr
    assert commands.emulator.ledger.posts == 1


def test_a_failed_key_is_paid_for_on_request(commands: Any) -> None:
    """A key whose effect failed gives that error; --retry-failed pays for another try."""
    commands.emulator.inject("task.fail")
    arguments = ("generate", "rain", "--key", "a", "--journal", "j.db", "-o", "rain.wav")
    assert [commands(*arguments).exit_code for _ in range(2)] == [exits.NOT_DONE] * 2
    assert "--retry-failed" in commands(*arguments).stderr
    assert commands.emulator.ledger.posts == 1
    assert commands(*arguments, "--retry-failed").exit_code == 0
    assert commands.emulator.ledger.posts == 2


def test_without_a_network(commands: Any) -> None:
    """Whoever sits at a terminal hears within about 10 s that the service is not reached; nothing was paid."""
    clock = commands.do(_clock())
    began = clock()
    result = commands("generate", "rain", "-o", "rain.wav", "--base-url", "http://127.0.0.1:1")
    assert result.exit_code == exits.NOT_DONE, result.output
    assert "safe to submit" in result.stderr
    assert 10 <= clock() - began <= 11


async def _clock() -> Any:
    return asyncio.get_running_loop().time
