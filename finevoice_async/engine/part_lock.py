"""Temporary files that one writer has for itself: a lock that its process's end gives back, whatever ends it.

Everything here blocks, and runs in a thread.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import sys
from pathlib import Path
from typing import BinaryIO, Final

from finevoice_async.core.filenames import part_name

SWEPT: Final = 8
"""How many writers of one file at once leave no trace after a crash."""

_FLAGS: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
_BUSY: Final = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)

if sys.platform == "win32":
    import msvcrt

    _FAR: Final = 1 << 40  # a byte that no part has, for what is locked cannot be read by others

    def _lock(handle: int) -> None:
        os.lseek(handle, _FAR, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        os.lseek(handle, 0, os.SEEK_SET)

else:
    import fcntl

    def _lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


class _BusyError(Exception):
    """Another writer has it, or it is not ours to write."""


class _NoLocksError(Exception):
    """The file system has no locks."""


def take_part(folder: Path, name: str) -> tuple[BinaryIO, Path]:
    """Open the temporary file of a file, for this writer alone; what a crash left of it is still in it.

    Where the file system has no locks nobody could tell whether another writer lives, so it is a new one each time.

    Raises:
        OSError: None could be made.
    """
    turn = 0
    while True:
        path = folder / part_name(name, turn)
        try:
            return _take(path, os.O_CREAT), path
        except _BusyError:
            turn += 1
        except _NoLocksError:
            path = folder / part_name(name, secrets.token_hex(6))
            return path.open("x+b", buffering=0), path


def sweep(folder: Path, name: str) -> None:
    """Remove what crashes have left of a file's temporary files; those that are being written stay."""
    for turn in range(SWEPT):
        path = folder / part_name(name, turn)
        try:
            remove(_take(path, 0), path)
        except (_BusyError, _NoLocksError, OSError):
            continue  # there is none, as a rule


def remove(file: BinaryIO, path: Path) -> None:
    """Close a temporary file that is ours, and remove it."""
    if sys.platform == "win32":  # where what is open keeps its name
        file.close()
    with file:
        path.unlink(missing_ok=True)


def _take(path: Path, create: int) -> BinaryIO:
    """Open a file and lock it.

    Raises:
        _BusyError: Another has it, or it is not ours.
        _NoLocksError: The file system has no locks.
        OSError: It could not be opened, or there is none.
    """
    while True:
        try:
            file = os.fdopen(os.open(path, os.O_RDWR | create | _FLAGS, 0o666), "r+b", buffering=0)
        except OSError as error:
            if os.path.lexists(path):
                raise _BusyError from error  # a link, a folder, a file of another user's
            raise
        try:
            if _is_locked(file, path):
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def _is_locked(file: BinaryIO, path: Path) -> bool:
    """Lock an open file; False if it was finished or given up by another writer before the lock was ours."""
    about = os.fstat(file.fileno())
    if not stat.S_ISREG(about.st_mode) or (hasattr(os, "geteuid") and about.st_uid != os.geteuid()):
        raise _BusyError
    try:
        _lock(file.fileno())
    except OSError as error:
        if error.errno in _BUSY:
            raise _BusyError from error
        if not about.st_size:
            path.unlink(missing_ok=True)  # nobody writes it: without locks each writer has a file of its own
        raise _NoLocksError from error
    try:
        same = os.path.samestat(os.fstat(file.fileno()), path.lstat())
    except FileNotFoundError:
        return False
    if same and os.fstat(file.fileno()).st_nlink != 1:
        path.unlink()  # the crash came between the file's second name and the loss of this one: it is whole, and done
        return False
    return same
