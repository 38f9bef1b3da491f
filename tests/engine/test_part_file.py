"""Files that appear whole or not at all."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from finevoice_async.engine import part_file
from finevoice_async.engine.part_file import PartFile

WHOLE = b"0123456789"
DIGEST = hashlib.sha256(WHOLE).hexdigest()


def left(folder: Path) -> list[str]:
    """List what is in a folder, hidden files too."""
    return sorted(entry.name for entry in folder.iterdir())


def opened(target: Path) -> PartFile:
    """Make a temporary file."""
    part = PartFile(target)
    part.open()
    return part


# On its way


def test_whole(tmp_path: Path) -> None:
    """Until it is finished there is a hidden file beside; then there is the file, with its hash."""
    handles = len(left(Path("/proc/self/fd")))
    part = opened(tmp_path / "a.wav")
    (name,) = left(tmp_path)
    assert name.startswith(".a.wav.")
    assert name.endswith(".part")
    assert not part.add(0, WHOLE[:4])
    part.flush()
    assert (tmp_path / name).read_bytes() == WHOLE[:4]
    assert not part.add(4, WHOLE[4:])
    assert part.finish(overwrite=False) == DIGEST
    part.discard()
    assert left(tmp_path) == ["a.wav"]
    assert (tmp_path / "a.wav").read_bytes() == WHOLE
    assert len(left(Path("/proc/self/fd"))) == handles


def test_a_long_name_has_room(tmp_path: Path) -> None:
    """The temporary name is short enough for a file system, whatever the final one is."""
    part = opened(tmp_path / ("x" * 251 + ".wav"))
    assert len(left(tmp_path)[0]) < 140
    part.finish(overwrite=False)
    part.discard()
    assert left(tmp_path) == ["x" * 251 + ".wav"]


def test_begun_anew(tmp_path: Path) -> None:
    """Bytes at the beginning void all that came before: what was gathered, what was written, and its hash."""
    part = opened(tmp_path / "a.wav")
    part.add(0, b"something much longer than the rest")
    part.flush()
    part.add(35, b"gathered")
    part.add(0, WHOLE[:3])
    part.flush()
    part.add(3, WHOLE[3:])
    assert part.finish(overwrite=False) == DIGEST
    part.discard()
    assert (tmp_path / "a.wav").read_bytes() == WHOLE


def test_gathered_before_it_is_written(tmp_path: Path) -> None:
    """Small pieces are gathered, and a megabyte of them asks to be written."""
    part = opened(tmp_path / "a.wav")
    piece = bytes(256 * 1024)
    assert [part.add(len(piece) * number, piece) for number in range(4)] == [False, False, False, True]
    (name,) = left(tmp_path)
    assert (tmp_path / name).stat().st_size == 0
    part.flush()
    assert (tmp_path / name).stat().st_size == 1024 * 1024
    assert not part.add(4 * len(piece), b"x")
    part.discard()
    assert left(tmp_path) == []


def test_somebody_makes_the_file_meanwhile(tmp_path: Path) -> None:
    """Somebody else's file stays, and no other is left; with `overwrite` it is replaced."""
    target = tmp_path / "a.wav"
    for overwrite in (False, True):
        part = opened(target)
        part.add(0, WHOLE)
        target.write_bytes(b"mine")
        if overwrite:
            part.finish(overwrite=True)
        else:
            with pytest.raises(FileExistsError):
                part.finish(overwrite=False)
        part.discard()
        assert target.read_bytes() == (WHOLE if overwrite else b"mine")
        assert left(tmp_path) == ["a.wav"]


def test_discarded(tmp_path: Path) -> None:
    """Given up, nothing is left; what a thread that was left behind still does, makes nothing."""
    part = opened(tmp_path / "a.wav")
    part.add(0, WHOLE)
    part.discard()
    part.discard()
    part.flush()
    part.finish(overwrite=True)
    assert left(tmp_path) == []


def test_discarded_before_it_was_opened(tmp_path: Path) -> None:
    """A thread that comes late makes no file."""
    part = PartFile(tmp_path / "a.wav")
    part.discard()
    part.open()
    assert left(tmp_path) == []


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    """Nothing can be made there, and to give up is fine."""
    part = PartFile(tmp_path / "nowhere" / "a.wav")
    with pytest.raises(FileNotFoundError):
        part.open()
    part.discard()


# After a crash

NOTE = {"link": "x", "etag": '"v1"', "total": 10}


def crash(part: PartFile) -> None:
    """Leave a temporary file as the end of its process does."""
    assert part._file is not None
    part._file.close()


def test_gone_on_with(tmp_path: Path) -> None:
    """What came before a crash is there for the next writer, with its note, once and again; the whole has its hash."""
    part = PartFile(tmp_path / "a.wav")
    assert part.open() is None
    for offset, piece in ((0, WHOLE[:3]), (3, WHOLE[3:7])):
        part.add(offset, piece)
        part.flush(NOTE)
    crash(part)
    again = PartFile(tmp_path / "a.wav")
    kept = again.open()
    assert kept is not None
    assert (kept.size, kept.head, kept.note) == (7, WHOLE[:7], NOTE)
    again.add(7, WHOLE[7:9])
    again.flush(NOTE)
    crash(again)
    last = PartFile(tmp_path / "a.wav")
    assert (last.open() or kept).size == 9
    last.add(9, WHOLE[9:])
    assert last.finish(overwrite=False) == DIGEST
    last.discard()
    assert (tmp_path / "a.wav").read_bytes() == WHOLE
    assert left(tmp_path) == ["a.wav"]


def test_what_was_kept_is_of_no_use(tmp_path: Path) -> None:
    """A writer who begins anew leaves nothing of what was kept in the file or its hash."""
    part = opened(tmp_path / "a.wav")
    part.add(0, b"something much longer than the rest")
    part.flush(NOTE)
    crash(part)
    again = PartFile(tmp_path / "a.wav")
    assert again.open() is not None
    again.add(0, WHOLE)
    assert again.finish(overwrite=False) == DIGEST
    assert (tmp_path / "a.wav").read_bytes() == WHOLE


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file[:-1],
        lambda file: file[3:],
        lambda file: b"X" + file[1:],
        lambda file: bytes(7) + file[7:],
        lambda file: file[:7] + b"more" + file[7:],
        lambda file: file[:-20] + bytes(4) + file[-16:],
        lambda file: file[:-20] + b"\xff" * 4 + file[-16:],
        lambda file: file.replace(b'"size": 7', b'"size": 6'),
        lambda file: file.replace(b'"size": 7', b'"size": -'),
        lambda file: file.replace(b'"note"', b'"nope"'),
        lambda file: file[-16:],
        lambda file: file[:7],
        lambda file: b"",
        lambda file: file + bytes(5000),
    ],
    ids=range(14),
)
def test_damaged(tmp_path: Path, damage: Any) -> None:
    """If one byte of what was kept is not what was written, none of it is used."""
    part = opened(tmp_path / "a.wav")
    part.add(0, WHOLE[:7])
    part.flush(NOTE)
    crash(part)
    (name,) = left(tmp_path)
    content = (tmp_path / name).read_bytes()
    damaged = damage(content)
    assert damaged != content
    (tmp_path / name).write_bytes(damaged)
    again = PartFile(tmp_path / "a.wav")
    assert again.open() is None
    assert (tmp_path / name).read_bytes() == b""
    again.add(0, WHOLE)
    assert again.finish(overwrite=False) == DIGEST


def test_without_a_note(tmp_path: Path) -> None:
    """What cannot be proved to be of the same file is not kept; a note that is no longer true goes."""
    part = opened(tmp_path / "a.wav")
    part.add(0, WHOLE)
    part.flush(NOTE)
    part.add(0, WHOLE[:3])
    part.flush()
    (name,) = left(tmp_path)
    assert (tmp_path / name).read_bytes() == WHOLE[:3]
    crash(part)
    again = PartFile(tmp_path / "a.wav")
    assert again.open() is None
    again.discard()


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What somebody cuts off meanwhile is not kept."""
    part = opened(tmp_path / "a.wav")
    part.add(0, WHOLE)
    part.flush(NOTE)
    crash(part)
    real = part_file._read_note

    def cut_off(tail: bytes) -> Any:
        (name,) = left(tmp_path)
        os.truncate(tmp_path / name, 4)
        return real(tail)

    monkeypatch.setattr(part_file, "_read_note", cut_off)
    again = PartFile(tmp_path / "a.wav")
    assert again.open() is None
    again.discard()


# Permissions


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o444, 0o755])
def test_permissions_of_a_file_that_is_replaced(tmp_path: Path, mode: int) -> None:
    """The new file has the old one's permissions."""
    target = tmp_path / "a.wav"
    target.write_bytes(b"old")
    target.chmod(mode)
    part = opened(target)
    part.add(0, WHOLE)
    part.finish(overwrite=True)
    assert stat.S_IMODE(target.stat().st_mode) == mode
    assert target.read_bytes() == WHOLE


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_of_a_new_file(tmp_path: Path, mask: int) -> None:
    """A new file has those of the umask."""
    before = os.umask(mask)
    try:
        part = opened(tmp_path / "a.wav")
        part.add(0, WHOLE)
        part.finish(overwrite=True)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.wav").stat().st_mode) == 0o666 & ~mask


def test_another_final_name(tmp_path: Path) -> None:
    """The suffix may be known only at the end."""
    part = opened(tmp_path / "a")
    part.add(0, WHOLE)
    assert part.finish(tmp_path / "a.wav", overwrite=False) == DIGEST
    part.discard()
    assert left(tmp_path) == ["a.wav"]


# File systems


def _no_links(*_: object) -> None:
    raise PermissionError("this file system has no links")


def test_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a file cannot have two names it is renamed, and what exists still stays."""
    monkeypatch.setattr(os, "link", _no_links)
    target = tmp_path / "a.wav"
    part = opened(target)
    part.add(0, WHOLE)
    part.finish(overwrite=False)
    part.discard()
    assert (target.read_bytes(), left(tmp_path)) == (WHOLE, ["a.wav"])
    part = opened(target)
    part.add(0, b"other")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        part.finish(overwrite=False)
    part.discard()
    assert (target.read_bytes(), left(tmp_path)) == (WHOLE, ["a.wav"])


def test_durable_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes are synced before the file gets its name, and its folder after that."""
    real, synced = os.fsync, list[tuple[str, list[str]]]()

    def fsync(handle: int) -> None:
        kind = "folder" if Path(f"/proc/self/fd/{handle}").readlink() == tmp_path else "file"
        synced.append((kind, [name for name in left(tmp_path) if not name.startswith(".")]))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    part = opened(tmp_path / "a.wav")
    part.add(0, WHOLE)
    part.finish(overwrite=False)
    part.discard()
    assert synced == [("file", []), ("folder", ["a.wav"])]


def test_folders_that_cannot_be_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where folders cannot be synced, the file is finished all the same."""
    real = os.open

    def no_folders(path: Path | str, flags: int, *more: int, **options: int) -> int:
        if Path(path).is_dir():
            raise PermissionError("a folder")
        return real(path, flags, *more, **options)

    monkeypatch.setattr(os, "open", no_folders)
    part = opened(tmp_path / "a.wav")
    part.add(0, WHOLE)
    assert part.finish(overwrite=False) == DIGEST
    part.discard()
    assert left(tmp_path) == ["a.wav"]


class _SlowFile(io.FileIO):
    """Takes three bytes at a time."""

    def write(self, data: Any) -> int:
        """Write some."""
        return super().write(bytes(data)[:3]) or 0


def test_a_disk_that_takes_little_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that takes only a part of the bytes is gone on with."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdopen", lambda handle, mode, **_: _SlowFile(handle, mode))
        part = opened(tmp_path / "a.wav")
    part.add(0, WHOLE)
    assert part.finish(overwrite=False) == DIGEST
    part.discard()
    assert (tmp_path / "a.wav").read_bytes() == WHOLE
