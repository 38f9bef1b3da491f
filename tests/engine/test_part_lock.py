"""Temporary files that one writer has for itself, whatever became of the one before."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from finevoice_async.core.filenames import part_name
from finevoice_async.engine.part_lock import SWEPT, remove, sweep, take_part

NAME = "a.wav"

HOLDER = """
import sys
from pathlib import Path
from finevoice_async.engine.part_lock import take_part
file, path = take_part(Path(sys.argv[1]), "a.wav")
file.write(b"RIFF")
print(path.name, flush=True)
sys.stdin.read()
"""


def left(folder: Path) -> list[str]:
    """List what is in a folder, hidden files too."""
    return sorted(entry.name for entry in folder.iterdir())


def test_two_writers_have_two_files(tmp_path: Path) -> None:
    """Who writes at the same time has another file; who comes later has the first one's, with what is in it."""
    first, path = take_part(tmp_path, NAME)
    second, other = take_part(tmp_path, NAME)
    assert path.name == part_name(NAME)
    assert path != other
    first.write(b"RIFF")
    first.close()
    again, same = take_part(tmp_path, NAME)
    assert same == path
    assert again.read() == b"RIFF"
    for file, where in ((again, path), (second, other)):
        remove(file, where)
    assert left(tmp_path) == []


def test_a_writer_of_another_process(tmp_path: Path) -> None:
    """Another process's file is its own while it lives, and free at once when it is killed."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().decode().strip() == part_name(NAME)
        file, path = take_part(tmp_path, NAME)
        assert path.name == part_name(NAME, 1)
        remove(file, path)
        sweep(tmp_path, NAME)
        assert left(tmp_path) == [part_name(NAME)]
        holder.kill()
    file, path = take_part(tmp_path, NAME)
    assert (path.name, file.read()) == (part_name(NAME), b"RIFF")
    remove(file, path)


def test_swept(tmp_path: Path) -> None:
    """What crashes left is removed, not what is being written, nor what belongs to other files."""
    for turn in range(SWEPT):
        (tmp_path / part_name(NAME, turn)).write_bytes(b"RIFF")
    (tmp_path / part_name("b.wav")).write_bytes(b"RIFF")
    file, path = take_part(tmp_path, NAME)
    sweep(tmp_path, NAME)
    assert left(tmp_path) == sorted([path.name, part_name("b.wav")])
    remove(file, path)
    sweep(tmp_path, NAME)
    assert left(tmp_path) == [part_name("b.wav")]


def test_finished_before_the_lock_was_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that its writer has just renamed or removed is not taken for the temporary one."""
    target = tmp_path / NAME
    real, locked = fcntl.flock, list[int]()

    def late(handle: int, how: int) -> None:
        if not locked:
            (tmp_path / part_name(NAME)).rename(target)
        locked.append(handle)
        real(handle, how)

    (tmp_path / part_name(NAME)).write_bytes(b"whole")
    monkeypatch.setattr(fcntl, "flock", late)
    file, path = take_part(tmp_path, NAME)
    file.write(b"RI")
    assert path.read_bytes() == b"RI"
    assert target.read_bytes() == b"whole"
    remove(file, path)


def test_two_names_of_one_file(tmp_path: Path) -> None:
    """A crash between the final name and the loss of the temporary one costs the final file nothing."""
    target, part = tmp_path / NAME, tmp_path / part_name(NAME)
    target.write_bytes(b"whole")
    os.link(target, part)
    sweep(tmp_path, NAME)
    assert left(tmp_path) == [NAME]
    os.link(target, part)
    file, path = take_part(tmp_path, NAME)
    assert (path, file.read()) == (part, b"")
    file.write(b"RI")
    assert target.read_bytes() == b"whole"
    remove(file, path)


@pytest.mark.parametrize("kind", ["link", "folder", "pipe", "another's"])
def test_what_is_not_ours(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may write to the folder cannot make us write elsewhere: what is there under the name is left alone."""
    victim, trap = tmp_path / "victim", tmp_path / part_name(NAME)
    victim.write_bytes(b"mine")
    match kind:
        case "link":
            trap.symlink_to(victim)
        case "folder":
            trap.mkdir()
        case "pipe":
            os.mkfifo(trap)
        case _:
            trap.write_bytes(b"theirs")
            owner = os.geteuid()
            answers = iter([owner + 1])
            monkeypatch.setattr(os, "geteuid", lambda: next(answers, owner))
    file, path = take_part(tmp_path, NAME)
    assert path.name == part_name(NAME, 1)
    file.write(b"RIFF")
    remove(file, path)
    assert victim.read_bytes() == b"mine"
    assert left(tmp_path) == sorted([trap.name, "victim"])


def test_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are no locks nobody could tell who lives: each writer has a new file."""

    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    parts = [take_part(tmp_path, NAME) for _ in range(3)]
    assert len({path for _, path in parts}) == len(left(tmp_path)) == 3
    (tmp_path / part_name(NAME)).write_bytes(b"somebody's")
    sweep(tmp_path, NAME)
    for file, path in parts:
        remove(file, path)
    assert left(tmp_path) == [part_name(NAME)]


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    """Nothing can be taken there, and there is nothing to sweep."""
    with pytest.raises(FileNotFoundError):
        take_part(tmp_path / "nowhere", NAME)
    sweep(tmp_path / "nowhere", NAME)


def test_no_handle_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong with a file that was opened, it is closed."""
    handles = len(left(Path("/proc/self/fd")))

    def broken(_: int) -> os.stat_result:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", broken)
        with pytest.raises(OSError, match="Input"):
            take_part(tmp_path, NAME)
    assert len(left(Path("/proc/self/fd"))) == handles
