"""Files that appear whole or not at all. Everything here blocks, and runs in a thread.

A temporary file is found again by its name. At its end, behind what has come, it holds a note: of which link it is,
what proves that the rest is of the same file, and the SHA-256 of what has come. So the next writer goes on where a
crash came, or begins anew if anything does not fit.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

import attrs

from finevoice_async.engine.part_lock import remove, sweep, take_part

_WRITE_SIZE = 1024 * 1024  # bytes gathered before they are written
_MAGIC: Final = b"finevoice-part-1"
_LENGTH: Final = 4  # bytes of the note's length, before the magic
_MAX_NOTE: Final = 16 * 1024
_HEAD: Final = 64  # bytes of the beginning that are given back


@attrs.frozen
class Kept:
    """What an earlier writer left.

    Attributes:
        size: How many bytes have come.
        head: The first of them.
        note: What was noted of them.
    """

    size: int
    head: bytes
    note: Mapping[str, Any]


class PartFile:
    """A file on its way: a hidden temporary one in the folder of the final one.

    A cancelled caller leaves its thread behind, still at work, and goes on to `discard`: hence the lock.
    """

    def __init__(self, target: Path) -> None:
        """Set it up.

        Args:
            target: The final file; its suffix may be still to come, see `finish`.
        """
        self._target = target
        self._lock = threading.Lock()  # held by whichever method is at work in a thread
        # All mutable state:
        self._path: Path | None = None  # once it is open
        self._file: BinaryIO | None = None
        self._gathered = bytearray()  # taken, not written yet
        self._size = 0  # bytes taken
        self._written = 0  # bytes written
        self._end = 0  # of the file, the note included
        self._hash = hashlib.sha256()  # of the bytes written
        self._begin_anew = False  # what was written is void
        self._discarded = False

    def open(self) -> Kept | None:
        """Take the temporary file; return what is in it from before a crash, if that is of use.

        Raises:
            OSError: It could not be made.
        """
        with self._lock:
            if self._discarded:
                return None
            self._file, self._path = take_part(self._target.parent, self._target.name)
            kept = self._read(self._file)
            if kept is None:
                self._hash = hashlib.sha256()
                self._file.truncate(0)
                self._file.seek(0)
            return kept

    def _read(self, file: BinaryIO) -> Kept | None:
        """Read what was kept, and check it."""
        self._end = file.seek(0, os.SEEK_END)
        tail = min(self._end, _MAX_NOTE)
        file.seek(self._end - tail)
        noted = _read_note(_read_all(file, tail))
        if noted is None or self._end - noted.length != noted.size:
            return None
        file.seek(0)
        left, head = noted.size, b""
        while left:
            piece = file.read(min(left, _WRITE_SIZE))
            if not piece:
                return None
            head = head or piece[:_HEAD]
            self._hash.update(piece)
            left -= len(piece)
        if self._hash.hexdigest() != noted.sha256:
            return None
        self._size = self._written = noted.size
        return Kept(noted.size, head, noted.note)

    def add(self, offset: int, piece: bytes) -> bool:
        """Take bytes at `offset`, the end so far, or 0 to begin anew. Does not block; True asks for a `flush`."""
        if offset != self._size:
            self._gathered.clear()
            self._begin_anew = True
        self._gathered += piece
        self._size = offset + len(piece)
        return len(self._gathered) >= _WRITE_SIZE

    def flush(self, note: Mapping[str, Any] | None = None) -> None:
        """Write what was gathered.

        Args:
            note: What the next writer must know to go on after a crash; None if it cannot.
        """
        with self._lock:
            if self._file is not None:
                self._write(self._file, note)

    def _write(self, file: BinaryIO, note: Mapping[str, Any] | None) -> None:
        if self._begin_anew:
            self._begin_anew = False
            self._written = 0
            self._hash = hashlib.sha256()
        content = bytes(self._gathered)
        self._gathered.clear()
        self._hash.update(content)
        self._written += len(content)
        tail = b"" if note is None else _note(self._written, self._hash.hexdigest(), note)
        file.seek(self._written - len(content))
        view = memoryview(content + tail)
        while view:
            view = view[file.write(view) :]
        end = self._written + len(tail)
        if end < self._end:
            file.truncate(end)
        self._end = end

    def finish(self, target: Path | None = None, *, overwrite: bool) -> str:
        """Put the file under its final name, durably; give its SHA-256. One that it replaces keeps its mode.

        Args:
            target: The final file, if it is not the one that was told first.
            overwrite: Replace a file that exists.

        Raises:
            FileExistsError: Somebody made the file meanwhile, and `overwrite` is False.
            OSError: It could not be written; the final name is untouched.
        """
        target = target or self._target
        with self._lock:
            if self._file is not None and self._path is not None:
                self._write(self._file, None)
                _keep_mode(self._file, self._path, target)
                os.fsync(self._file.fileno())
                if sys.platform == "win32":  # where what is open keeps its name
                    self._file.close()
                if overwrite or not _link(self._path, target):
                    self._path.replace(target)
                self._file.close()  # and so its lock, once the name is gone
                self._file = None
                _sync_folder(target.parent)
            return self._hash.hexdigest()

    def discard(self) -> None:
        """Remove the temporary file, if it is still there, and what crashes have left of others. Idempotent."""
        with self._lock:
            if self._file is not None and self._path is not None:
                remove(self._file, self._path)
                self._file = None
            if not self._discarded and self._path is not None:
                sweep(self._target.parent, self._target.name)
            self._discarded = True


# What stands behind the content


@attrs.frozen
class _Noted:
    size: int  # of the content
    sha256: str  # of the content
    note: Mapping[str, Any]
    length: int  # of all that stands behind the content


def _note(size: int, sha256: str, note: Mapping[str, Any]) -> bytes:
    text = json.dumps({"size": size, "sha256": sha256, "note": note}).encode()
    return text + len(text).to_bytes(_LENGTH, "big") + _MAGIC


def _read_note(tail: bytes) -> _Noted | None:
    """Read the note at a file's end; None if there is none that makes sense."""
    if not tail.endswith(_MAGIC):
        return None
    text = tail[: -_LENGTH - len(_MAGIC)]
    length = int.from_bytes(tail[len(text) : len(text) + _LENGTH], "big")
    try:
        match json.loads(text[-length:] if length else b""):
            case {"size": int(size), "sha256": str(sha256), "note": {} as note} if size > 0:
                return _Noted(size, sha256, note, length + _LENGTH + len(_MAGIC))
    except (ValueError, RecursionError):
        pass
    return None


def _read_all(file: BinaryIO, size: int) -> bytes:
    content = bytearray()
    while len(content) < size and (piece := file.read(size - len(content))):
        content += piece
    return bytes(content)


# The final name


def _keep_mode(file: BinaryIO, path: Path, target: Path) -> None:
    """Give the file the permissions of the one that it replaces; a new one has those of the umask."""
    with contextlib.suppress(FileNotFoundError):
        mode = stat.S_IMODE(target.stat().st_mode) & 0o777
        if mode != stat.S_IMODE(os.fstat(file.fileno()).st_mode):
            path.chmod(mode) if sys.platform == "win32" else os.fchmod(file.fileno(), mode)


def _link(source: Path, target: Path) -> bool:
    """Make the file's second name unless that exists; False where the file system has no links."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        if target.exists():
            raise FileExistsError(f"{target} exists; give overwrite=True to replace it") from None
        return False
    source.unlink()
    return True


def _sync_folder(folder: Path) -> None:
    """Make the new name durable, where folders can be synced."""
    with contextlib.suppress(OSError):  # Windows cannot; the file itself is synced already
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
