"""Standard output that is closed, full or in another code than UTF-8: the effect is safe, and the words are plain."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import COMMAND, PATIENCE, Served, served

from finevoice_async.cli import exits


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A service that the environment names."""
    with served(service_time=0.01) as service:
        monkeypatch.setenv("FINEVOICE_API_KEY", "k")
        monkeypatch.setenv("FINEVOICE_BASE_URL", service.emulator.url)
        yield service


def in_a_shell(redirection: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command with its streams as a shell leaves them."""
    words = ["sh", "-c", f'exec "$@" {redirection}', "sh", *COMMAND, *arguments]
    return subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE)


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams(service: Served, tmp_path: Path, closed: str) -> None:
    """Whoever wants to hear nothing gets the file all the same."""
    done = in_a_shell(closed, "generate", "rain", "-o", "rain.wav", "--duration", "1")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "rain.wav").read_bytes().startswith(b"RIFF")


@pytest.mark.parametrize("arguments", [("--version",), ("--help",), ("journal", "--help"), ("demo", "--help")])
@pytest.mark.parametrize(("way", "code"), [(">&-", 0), (">/dev/full", 1)])
def test_words_that_nobody_gets(way: str, code: int, arguments: tuple[str, ...]) -> None:
    """Without a standard output there is no traceback either; a full one is told in a line."""
    done = in_a_shell(way, *arguments)
    assert done.returncode == code
    assert done.stderr == ("finevoice: standard output cannot be written: No space left on device.\n" if code else "")


def test_audio_into_a_closed_stream(service: Served) -> None:
    """Audio for a standard output that is closed is found before anything is sent."""
    done = in_a_shell(">&-", "generate", "rain", "-o", "-")
    assert done.returncode == exits.WRONG_USE
    assert done.stderr == "finevoice: The result cannot be saved to standard output: it is closed. Nothing was sent.\n"
    assert service.emulator.ledger.posts == 0


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_full_disk_takes_no_words(service: Served, tmp_path: Path, options: tuple[str, ...]) -> None:
    """A result whose name cannot be written is saved, told on the other way, and the exit code says so."""
    done = in_a_shell(">/dev/full", "generate", "rain", "-o", "rain.wav", "--duration", "1", *options)
    assert done.returncode == exits.OTHER
    *told, last = done.stderr.splitlines()
    assert "rain.wav" in told[-1]
    assert last == "finevoice: standard output cannot be written: No space left on device."
    assert (tmp_path / "rain.wav").read_bytes().startswith(b"RIFF")


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_journal_to_a_full_disk(service: Served, options: tuple[str, ...]) -> None:
    """A list that cannot be written is a line and a code."""
    in_a_shell("", "generate", "rain", "-o", "rain.wav", "--duration", "1", "--journal", "j.db")
    done = in_a_shell(">/dev/full", "journal", "j.db", *options)
    assert done.returncode == exits.OTHER
    assert "standard output cannot be written: No space left on device." in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def ascii_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose locale knows ASCII only, and a Python that believes it."""
    for name, value in {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}.items():
        monkeypatch.setenv(name, value)


def test_letters_that_the_locale_does_not_know(service: Served, ascii_only: None, tmp_path: Path) -> None:
    """A prompt and a key in UTF-8 are sent and kept as they were typed, whatever the locale says."""
    arguments = ("generate", "дождь", "-o", "rain.wav", "--duration", "1", "--key", "ключ", "--journal", "j.db")
    done = in_a_shell("", *arguments)
    assert done.returncode == 0, done.stderr
    row: Any = json.loads(in_a_shell("", "journal", "j.db", "--json").stdout)
    assert (row["prompt"], row["key"]) == ("дождь", "ключ")


def test_a_file_with_such_letters(service: Served, ascii_only: None, tmp_path: Path) -> None:
    """It gets the name that was typed; where a journal would have to note it, that is found before anything is sent."""
    arguments = ("generate", "rain", "-o", "дождь.wav", "--duration", "1")
    done = in_a_shell("", *arguments, "--journal", "j.db")
    assert (done.returncode, service.emulator.ledger.posts) == (exits.WRONG_USE, 0), done.stderr
    assert in_a_shell("", *arguments).returncode == 0
    assert (tmp_path / "дождь.wav").exists()


def test_a_name_that_the_locale_cannot_spell(service: Served, ascii_only: None) -> None:
    """A name that would be made of such a prompt cannot be written: found before anything is sent."""
    done = in_a_shell("", "generate", "дождь", "-o", "out/")
    assert done.returncode == exits.WRONG_USE
    assert "locale" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert service.emulator.ledger.posts == 0


@pytest.mark.parametrize("change", [{"HOME": "/nonexistent", "XDG_STATE_HOME": ""}, {"XDG_STATE_HOME": "/proc/no"}])
def test_no_home(service: Served, monkeypatch: pytest.MonkeyPatch, change: dict[str, str]) -> None:
    """Without a place for what was learned there is no word of it."""
    for name, value in change.items():
        monkeypatch.setenv(name, value)
    done = in_a_shell("", "generate", "rain", "-o", "rain.wav", "--duration", "1")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (0, "rain.wav\n", 1)
