"""Where a result goes is looked at before anything is paid for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from finevoice_async.cli import exits


def _exists(folder: Path) -> str:
    (folder / "x.wav").write_text("mine")
    return "x.wav"


def _exists_under_a_suffix_to_come(folder: Path) -> str:
    (folder / "x.mp3").write_text("mine")
    return "x"


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
    result = commands(*command, "-o", make(tmp_path))
    assert result.exit_code == exits.NOT_SAVED
    assert words in result.stderr
    assert result.stderr.endswith("Nothing was sent.\n")
    assert len(result.stderr.splitlines()) == 1
    assert "overwrite=" not in result.stderr
    assert commands.emulator.ledger.posts == commands.emulator.ledger.polls == 0
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.read_bytes() != b"mine"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(commands: Any, tmp_path: Path) -> None:
    """A folder that may not be written is found before anything is sent."""
    (tmp_path / "locked").mkdir(mode=0o500)
    result = commands("generate", "rain", "-o", "locked/x.wav")
    assert result.exit_code == exits.NOT_SAVED
    assert commands.emulator.ledger.posts == 0


@pytest.mark.parametrize("flag", [(), ("--overwrite",)])
def test_a_device_is_never_replaced(commands: Any, flag: tuple[str, ...]) -> None:
    """A device stays what it is, also with --overwrite."""
    result = commands("generate", "rain", "-o", "/dev/null", *flag)
    assert result.exit_code == exits.NOT_SAVED
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
