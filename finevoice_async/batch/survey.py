"""What is there before a batch runs: lock, journal and files, brought together for the plan.

Everything here blocks, and runs in a thread.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from finevoice_async.batch.lock import LockRecord, TakeId, read_lock
from finevoice_async.batch.manifest import Manifest
from finevoice_async.batch.places import Folder
from finevoice_async.batch.plan import JournalTake, Known, Plan, make_plan
from finevoice_async.batch.rows import hash_request, split_key
from finevoice_async.batch.templates import is_inside
from finevoice_async.core import media
from finevoice_async.core.filenames import suffix_of
from finevoice_async.core.ledger import EffectState, JournalRow

JOURNAL_NAME: Final = ".finevoice.db"
"""The journal of a batch, in its folder."""

_UNREADABLE: Final = "unreadable"  # no SHA-256: what cannot be read is not what the lock says


class Hashes:
    """SHA-256 of files, each taken once as long as nobody touches the file."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[int, int, int], str]] = {}

    def of(self, path: Path) -> str | None:
        """Return a file's, None if there is none."""
        try:
            with path.open("rb") as file:
                now = path.stat()
                mark = (now.st_ino, now.st_size, now.st_mtime_ns)
                seen = self._known.get(path)
                if seen is not None and seen[0] == mark:
                    return seen[1]
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:
            return _UNREADABLE
        self._known[path] = mark, digest
        return digest


class Survey:
    """Gathers what is known of a manifest's sounds."""

    def __init__(
        self,
        manifest: Manifest,
        out: Path,
        hashes: Hashes | None = None,
        *,
        shared: bool = False,
        emulated: bool = False,
    ) -> None:
        """Begin.

        Args:
            manifest: The sounds.
            out: The folder.
            hashes: What an earlier look has found.
            shared: The journal is a fleet's: it has rows of others, and what is being sent may be sent elsewhere.
            emulated: An emulator is to make them: it knows nothing of real ones that are elsewhere.
        """
        self._wanted = {row.key for row in manifest} if shared else None
        self._is_trial = emulated
        self.manifest = manifest
        self.out = out
        self._hashes = hashes or Hashes()
        self._absolute = out.absolute()
        self._emulated: dict[TakeId, LockRecord] = {}
        self.known: dict[str, dict[int, Known]] = {}
        self.unlocked: list[LockRecord] = []  # saved by the journal, and not in the lock yet

    def _take(self, key: str, take: int) -> Known:
        return self.known.setdefault(key, {}).setdefault(take, Known())

    def read_lock(self) -> None:
        """Take in the lock.

        Raises:
            ManifestError: It cannot be read.
        """
        for record in read_lock(self.manifest.lock_path(self.out)).values():
            if record.emulated:  # by a trial, perhaps elsewhere: it counts where the folder's journal knows it, too
                self._emulated[record.id] = record
            elif not self._is_trial or self._hashes.of(self.out / record.file) == record.sha256:
                self._take(record.key, record.take).record = record

    def add_rows(self, rows: Iterable[JournalRow]) -> None:
        """Take in rows of the journal. The lock was taken in before."""
        for row in rows:
            if row.key is None:
                continue
            key, take = split_key(row.key)
            if self._wanted is not None and (key not in self._wanted or row.state is EffectState.SENDING):
                continue  # not of this batch; or it is wished for here, too, and followed
            known = self._take(key, take)
            waits = row.state is EffectState.QUEUED
            request = hash_request(row.request)
            known.row = JournalTake(
                state=row.state, request=request, task_id=row.task_id, same=row.request if waits else None
            )
            tried = self._emulated.get((key, take))
            if known.record is None and tried is not None and tried.task_id == row.task_id:
                known.record = tried
            if known.record is None and row.state is EffectState.SAVED:
                known.record = self._record_of(row, key, take, request)
                self.unlocked += [] if known.record is None else [known.record]

    def _record_of(self, row: JournalRow, key: str, take: int, request: str) -> LockRecord | None:
        """Return what the lock would say of a row, if its file is one of the folder's."""
        if row.path is None or row.sha256 is None:
            return None
        path = Path(row.path)
        if not path.is_relative_to(self._absolute):
            return None
        file = path.relative_to(self._absolute).as_posix()
        if not is_inside(file):
            return None
        kind = media.of_suffix(suffix_of(path.name))
        return LockRecord(
            key=key,
            take=take,
            request=request,
            task_id=row.task_id,
            file=file,
            sha256=row.sha256,
            media_type=None if kind is None else kind.media_type,
        )

    def plan(self, *, want_silent: int = 0) -> Plan:
        """Look at the files, and plan."""
        for takes in self.known.values():
            for known in takes.values():
                if known.record is not None:
                    known.sha256 = self._hashes.of(self.out / known.record.file)
        return make_plan(self.manifest, self.known, Folder(self.out).holds, want_silent=want_silent)

    def is_free(self, stem: str) -> bool:
        """Tell whether nothing lies where a stem's file would go."""
        return Folder(self.out).holds(stem) is None
