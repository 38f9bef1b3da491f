"""Where a result goes is looked at before anything is paid for."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path
from typing import Any

import pytest
from commands import end, served, start

from finevoice_async.cli import exits
from finevoice_async.cli.place import Place


def _exists(folder: Path) -> str:
    (folder / "x.wav").write_text("mine")
    return "x.wav"


def _exists_under_a_suffix_to_come(folder: Path) -> str:
    (folder / "x.mp3").write_text("mine")
    return "x"


def _exists_though_it_has_a_dot(folder: Path) -> str:
    (folder / "take 2.5.wav").write_text("mine")
    return "take 2.5"


def _is_under_a_file(folder: Path) -> str:
    (folder / "file").write_text("mine")
    return "file/x.wav"


def _is_deep_under_a_file(folder: Path) -> str:
    (folder / "file").write_text("mine")
    return "file/deep/down/"


def _is_a_pipe(folder: Path) -> str:
    os.mkfifo(folder / "pipe.wav")
    return "pipe.wav"


def _is_a_loop(folder: Path) -> str:
    (folder / "loop").symlink_to("loop")
    return "loop/x.wav"


CASES = [
    (_exists, "--overwrite"),
    (_exists_under_a_suffix_to_come, "x.mp3 exists"),
    (_exists_though_it_has_a_dot, "take 2.5.wav exists"),
    (_is_under_a_file, "is a file"),
    (_is_deep_under_a_file, ""),
    (_is_a_pipe, "-o -"),
    (_is_a_loop, "symbolic links"),
    (lambda folder: "/proc/x.wav", "/proc/x.wav"),
    (lambda folder: "/proc/no/such/x.wav", "/proc"),
    (lambda folder: "/proc/self/", "/proc"),
    (lambda folder: "ä" * 200 + ".wav", "too long"),
    (lambda folder: "", "empty"),
]


@pytest.mark.parametrize(("make", "words"), CASES)
@pytest.mark.parametrize("command", [("generate", "rain"), ("fetch", "p1-1")])
def test_no_place_means_no_call(commands: Any, tmp_path: Path, make: Any, words: str, command: tuple[str, str]) -> None:
    """A place that cannot take the result is an error in one line, and nothing was sent."""
    given = make(tmp_path)
    result = commands(*command, "-o", given)
    assert result.exit_code == exits.WRONG_USE
    assert words in result.stderr
    assert result.stderr.endswith("Nothing was sent.\n" if command[0] == "generate" else "Nothing was fetched.\n")
    assert len(result.stderr.splitlines()) == 1
    assert "overwrite=" not in result.stderr
    told = json.loads(commands(*command, "-o", given, "--json").stdout)
    assert (told["paid"], told["task_id"], told["exit_code"]) == (False, None, exits.WRONG_USE)
    assert commands.emulator.ledger.posts == commands.emulator.ledger.polls == 0
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.read_bytes() != b"mine"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(commands: Any, tmp_path: Path) -> None:
    """A folder that may not be written is found before anything is sent."""
    (tmp_path / "locked").mkdir(mode=0o500)
    result = commands("generate", "rain", "-o", "locked/x.wav")
    assert result.exit_code == exits.WRONG_USE
    assert commands.emulator.ledger.posts == 0


@pytest.mark.parametrize("flag", [(), ("--overwrite",)])
def test_a_device_is_never_replaced(commands: Any, flag: tuple[str, ...]) -> None:
    """A device stays what it is, also with --overwrite."""
    result = commands("generate", "rain", "-o", "/dev/null", *flag)
    assert result.exit_code == exits.WRONG_USE
    assert Path("/dev/null").is_char_device()
    assert commands.emulator.ledger.posts == 0


@pytest.mark.parametrize(("given", "where"), [("a/b/x.wav", "a/b"), ("a/b/", "a/b"), (".", "."), ("a b/ä.wav", "a b")])
def test_folders_are_made(commands: Any, tmp_path: Path, given: str, where: str) -> None:
    """What is missing of the way to the file is made; a folder gets a name made of the prompt."""
    result = commands("generate", "rain", "-o", given, "--duration", "1")
    assert result.exit_code == 0, result.output
    (path,) = (tmp_path / where).glob("*.wav")
    assert result.stdout == f"{Path(given) / path.name if given.endswith(('/', '.')) else given}\n"


def test_overwrite(commands: Any, tmp_path: Path) -> None:
    """With --overwrite a file is replaced."""
    (tmp_path / "x.wav").write_text("mine")
    assert commands("generate", "rain", "-o", "x.wav", "--overwrite").exit_code == 0
    assert (tmp_path / "x.wav").read_bytes().startswith(b"RIFF")


def test_looking_leaves_nothing(commands: Any, tmp_path: Path) -> None:
    """The look at the folder leaves no file in it, whatever comes of the effect."""
    commands.emulator.inject("submit.reject")
    assert commands("generate", "rain", "-o", "sub/x.wav").exit_code == 3
    assert list((tmp_path / "sub").iterdir()) == []


def test_a_name_without_a_suffix_is_free_if_the_one_with_it_is(commands: Any, tmp_path: Path) -> None:
    """A file `x` is not in the way of `-o x`, which becomes x.wav."""
    (tmp_path / "x").write_text("mine")
    result = commands("generate", "rain", "-o", "x", "--duration", "1")
    assert (result.exit_code, result.stdout) == (0, "x.wav\n")
    assert (tmp_path / "x").read_text() == "mine"


def test_a_full_disk_is_found_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where nothing more can be written, nothing is sent."""
    with served() as service:
        monkeypatch.setenv("FINEVOICE_API_KEY", "k")
        monkeypatch.setenv("FINEVOICE_BASE_URL", service.emulator.url)
        process = start(
            "generate",
            "rain",
            "-o",
            "x.wav",
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
        )
        _, told = end(process)
    assert process.returncode == exits.WRONG_USE
    assert told == "finevoice: The result cannot be saved to x.wav: file too large. Nothing was sent.\n"
    assert service.emulator.ledger.posts == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_somebody_else_in_a_shared_folder(
    commands: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder like /tmp a file of another user's cannot be replaced: found before anything is sent."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    (shared / "x.wav").write_text("theirs")
    os.chown(shared / "x.wav", 1, 1)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    result = commands("generate", "rain", "-o", "shared/x.wav", "--overwrite")
    assert result.exit_code == exits.WRONG_USE
    assert "somebody else" in result.stderr
    assert commands.emulator.ledger.posts == 0
    os.chown(shared / "x.wav", 1000, 1000)
    Place("shared/x.wav", overwrite=True).prepare()  # one's own may
