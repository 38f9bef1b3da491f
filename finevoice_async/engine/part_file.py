"""Files that appear whole or not at all. Everything here blocks, and runs in a thread."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import threading
from pathlib import Path
from typing import BinaryIO

_WRITE_SIZE = 1024 * 1024  # bytes gathered before they are written


def choose_target(path: str, name: str, *, overwrite: bool) -> Path:
    """Return the file to write: `path`, or `name` inside it if it is a folder or ends like one.

    Raises:
        FileExistsError: It exists, and `overwrite` is False.
        OSError: A folder could not be made.
    """
    target = Path(path)
    if path.endswith(("/", os.sep)):
        target.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        target /= name
    if not overwrite and target.exists():
        raise FileExistsError(f"{target} exists; give overwrite=True to replace it")
    return target


class PartFile:
    """A file on its way: a hidden temporary one in the folder of the final one.

    A cancelled caller leaves its thread behind, still at work, and goes on to `discard`: hence the lock.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._path = target.with_name(f".{target.name[:100]}.{secrets.token_hex(6)}.part")
        self._lock = threading.Lock()  # held by whichever method is at work in a thread
        # All mutable state:
        self._file: BinaryIO | None = None
        self._gathered = bytearray()  # taken, not written yet
        self._size = 0  # bytes taken
        self._hash = hashlib.sha256()  # of the bytes written
        self._begin_anew = False  # what was written is void
        self._made = False  # the temporary file exists, or did
        self._discarded = False

    def open(self) -> None:
        """Make the temporary file."""
        with self._lock:
            if not self._discarded:
                self._file = self._path.open("xb", buffering=0)
                self._made = True

    def add(self, offset: int, piece: bytes) -> bool:
        """Take bytes at `offset`, the end so far, or 0 to begin anew. Does not block; True asks for a `flush`."""
        if offset != self._size:
            self._gathered.clear()
            self._begin_anew = True
        self._gathered += piece
        self._size = offset + len(piece)
        return len(self._gathered) >= _WRITE_SIZE

    def flush(self) -> None:
        """Write what was gathered."""
        with self._lock:
            if self._file is not None:
                self._write(self._file)

    def _write(self, file: BinaryIO) -> None:
        if self._begin_anew:
            self._begin_anew = False
            file.seek(0)
            file.truncate()
            self._hash = hashlib.sha256()
        view = memoryview(bytes(self._gathered))
        self._gathered.clear()
        self._hash.update(view)
        while view:
            view = view[file.write(view) :]

    def finish(self, *, overwrite: bool) -> str:
        """Put the file under its final name, durably; give its SHA-256.

        Raises:
            FileExistsError: Somebody made the file meanwhile, and `overwrite` is False.
            OSError: It could not be written; the final name is untouched.
        """
        with self._lock:
            if self._file is not None:
                self._write(self._file)
                os.fsync(self._file.fileno())
                self._file.close()
                self._file = None
                if overwrite or not _link(self._path, self._target):
                    self._path.replace(self._target)
                _sync_folder(self._target.parent)
            return self._hash.hexdigest()

    def discard(self) -> None:
        """Remove the temporary file, if it is still there. Idempotent."""
        with self._lock:
            self._discarded = True
            if self._file is not None:
                self._file.close()
                self._file = None
            if self._made:
                self._path.unlink(missing_ok=True)


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
