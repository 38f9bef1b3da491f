"""What became of a batch, sound by sound and as a whole."""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Sized
from datetime import UTC, datetime
from pathlib import Path

import attrs

from finevoice_async.batch.checks import AudioCheck
from finevoice_async.batch.lock import LockRecord, TakeId, update_lock
from finevoice_async.batch.plan import PlanEntry, PlanState
from finevoice_async.core.requests import SfxRequest
from finevoice_async.errors import (
    AuthenticationError,
    DownloadError,
    FineVoiceError,
    InsufficientCreditsError,
    JournalError,
)
from finevoice_async.reprs import with_safe_repr

DONE, NOT_DONE, REFUSED, UNKNOWN_CODE, NOT_SAVED, JOURNAL_FAILED = 0, 4, 3, 5, 6, 7
"""Exit codes, as all commands have them."""


class ResultKind(enum.Enum):
    """What became of a sound."""

    SAVED = "saved"  # by this run
    EXISTING = "existing"  # it was there already, or what is in its place was kept
    CHANGED = "changed"  # its request changed; it was not paid for, since nobody said so
    FAILED = "failed"  # it was not made, or made and not saved
    UNKNOWN = "perhaps paid"  # only a person can settle it
    INVALID = "invalid"  # refused for what it asks for; not paid
    NOT_BEGUN = "not begun"  # the run stopped before; nothing was sent


@with_safe_repr
@attrs.frozen(kw_only=True)
class BatchResult:
    """What became of one sound.

    Attributes:
        kind: That.
        key: The row's.
        take: Which take of it.
        request: What was asked for.
        task_id: The service's id, once known.
        path: Its file.
        record: What the lock says of it.
        check: What its file was found to be, if this run saved it.
        error: Why it is not there.
        note: What a person should know.
        line: Where its row stands in the manifest.
    """

    kind: ResultKind
    key: str
    take: int
    request: SfxRequest | None = None
    task_id: str | None = None
    path: Path | None = None
    record: LockRecord | None = None
    check: AudioCheck | None = None
    error: FineVoiceError | None = None
    note: str | None = None
    line: int | None = None

    @classmethod
    def of(cls, entry: PlanEntry, kind: ResultKind, **more: object) -> BatchResult:
        """Return what became of an entry of the plan."""
        known: dict[str, object] = {
            "task_id": entry.task_id,
            "record": entry.record,
            "note": entry.note,
            "line": None if entry.row is None else entry.row.line,
        }
        return cls(kind=kind, key=entry.key, take=entry.take, request=entry.request, **{**known, **more})  # type: ignore[arg-type]  # the fields of this very class


@with_safe_repr
@attrs.frozen(kw_only=True)
class BatchUpdate:
    """News of a batch.

    Attributes:
        result: What became of a sound; None where one was only submitted.
        key: Its key.
        take: Which take of it.
        task_id: The service's id, once known.
        made: Sounds that this run has saved.
        failed: Those that came to nothing.
        unknown: Those that are perhaps paid for.
        left: Those that this run still has to do.
        paid: Submissions that were accepted.
    """

    result: BatchResult | None
    key: str
    take: int
    task_id: str | None
    made: int
    failed: int
    unknown: int
    left: int
    paid: int


OnUpdate = Callable[[BatchUpdate], object]

_AS_THEY_ARE: dict[PlanState, ResultKind] = {
    PlanState.DONE: ResultKind.EXISTING,
    PlanState.EDITED: ResultKind.EXISTING,
    PlanState.CHANGED: ResultKind.CHANGED,
    PlanState.UNKNOWN: ResultKind.UNKNOWN,
    PlanState.FAILED: ResultKind.FAILED,
}


def as_it_is(entry: PlanEntry, out: Path) -> BatchResult | None:
    """Return what becomes of an entry that a run leaves alone; None if that is nothing to tell of."""
    kind = _AS_THEY_ARE.get(entry.state)
    if kind is None:
        return None
    return BatchResult.of(entry, kind, path=None if entry.file is None else out / entry.file)


def _shown(values: Sized) -> str:
    return f"<{len(values)}>"


@with_safe_repr
@attrs.define(kw_only=True)
class BatchReport:
    """What became of a batch.

    Attributes:
        manifest: What the manifest is called.
        out: The folder.
        lock_path: The lock.
        results: What became of each sound, in the order of the manifest; further takes of a run behind.
        orphaned: What the manifest does not name any more. It was left alone.
        paid: Submissions of this run that were accepted.
        perhaps_paid: Those of which nobody knows.
        stopped_by: Why the run stopped before its end, if an error did it.
        is_stopped: It was asked to stop before its end.
        lock_error: Why the lock could not be written.
        records: What the run has put into the lock.
        unfinished: Sounds whose finished copies could not be made, and why.
    """

    manifest: str
    out: Path
    lock_path: Path
    results: list[BatchResult] = attrs.field(factory=list, repr=_shown)
    orphaned: list[PlanEntry] = attrs.field(factory=list, repr=_shown)
    paid: int = 0
    perhaps_paid: int = 0
    stopped_by: FineVoiceError | None = None
    is_stopped: bool = False
    lock_error: FineVoiceError | None = None
    records: dict[TakeId, LockRecord] = attrs.field(factory=dict, repr=_shown)
    unfinished: list[tuple[LockRecord, FineVoiceError]] = attrs.field(factory=list, repr=_shown)

    def of_kind(self, kind: ResultKind) -> list[BatchResult]:
        """Return the sounds that came to this."""
        return [result for result in self.results if result.kind is kind]

    @property
    def saved(self) -> list[BatchResult]:
        """What this run has saved."""
        return self.of_kind(ResultKind.SAVED)

    @property
    def existing(self) -> list[BatchResult]:
        """What was there already; with a note where it is not what the lock says."""
        return self.of_kind(ResultKind.EXISTING)

    @property
    def changed(self) -> list[BatchResult]:
        """What was made for an earlier request and is not paid for again unless somebody says so."""
        return self.of_kind(ResultKind.CHANGED)

    @property
    def failed(self) -> list[BatchResult]:
        """What was not made, or was made and not saved."""
        return self.of_kind(ResultKind.FAILED)

    @property
    def unknown(self) -> list[BatchResult]:
        """What is perhaps paid for, and only a person can settle."""
        return self.of_kind(ResultKind.UNKNOWN)

    @property
    def invalid(self) -> list[BatchResult]:
        """What was refused for what it asks for."""
        return self.of_kind(ResultKind.INVALID)

    @property
    def not_begun(self) -> list[BatchResult]:
        """What was not sent, since the run stopped before."""
        return self.of_kind(ResultKind.NOT_BEGUN)

    @property
    def exit_code(self) -> int:
        """What the command exits with: 0 if all that was to be done is done."""
        if self.unknown:
            return UNKNOWN_CODE
        if isinstance(self.stopped_by, JournalError):
            return JOURNAL_FAILED
        if isinstance(self.stopped_by, AuthenticationError | InsufficientCreditsError):
            return REFUSED
        if (
            self.lock_error is not None
            or self.unfinished
            or any(isinstance(each.error, DownloadError) for each in self.failed)
        ):
            return NOT_SAVED
        if self.failed or self.stopped_by is not None or (self.is_stopped and self.not_begun):
            return NOT_DONE
        return REFUSED if self.invalid else DONE

    def write_lock(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Put what is known into the lock, beside what is there already, and return where it is. Blocks.

        `run_batch` has done so, unless it could not.

        Args:
            path: Another file in place of the lock.

        Raises:
            ManifestError: What is there now cannot be read.
            OSError: It could not be written.
        """
        target = self.lock_path if path is None else Path(path)
        known = {result.record.id: result.record for result in self.results if result.record is not None}
        update_lock(target, {**known, **self.records})
        return target

    def write_html(self, path: str | os.PathLike[str]) -> Path:
        """Write a page on which every sound can be heard, and return where it is. Blocks."""
        from finevoice_async.batch.report import render, write
        from finevoice_async.batch.report_folder import read_folder

        page = Path(path)
        write(render(read_folder(self.out, now=datetime.now(UTC), page=page, lock=self.lock_path)), page)
        return page
