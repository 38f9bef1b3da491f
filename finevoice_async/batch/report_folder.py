"""What a folder holds of a batch, brought together for its report: lock, journal, manifest and the files themselves.

Each of them may be missing or damaged: what the others know is shown, and a note says what is not. Everything here
blocks, and belongs in a thread.
"""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Final

import attrs

from finevoice_async.adapters.journal_reader import JournalReader, read_journal
from finevoice_async.batch.checks import AudioCheck, check_file
from finevoice_async.batch.finish import FORMATS, finished_path
from finevoice_async.batch.lock import LockRecord, TakeId, read_lock
from finevoice_async.batch.manifest import read_manifest
from finevoice_async.batch.report_data import IN_DOUBT, EffectReport, ReportData, TakeReport
from finevoice_async.batch.rows import hash_request, split_key
from finevoice_async.batch.survey import JOURNAL_NAME
from finevoice_async.core.ledger import EffectState, JournalRow
from finevoice_async.core.requests import SfxRequest
from finevoice_async.core.text import one_line
from finevoice_async.errors import JournalError, ManifestError

LOCK_SUFFIX: Final = ".lock"

_PAGE: Final = 500  # rows of the journal that are read together
_THREADS: Final = 4  # that measure files: decoding leaves the interpreter free
_ENDED: Final = (EffectState.DONE, EffectState.SAVED, EffectState.FAILED, EffectState.LOST)

OnCounted = Callable[[int], object]


@attrs.define
class _Known:
    """What is known of a take."""

    record: LockRecord | None = None
    row: JournalRow | None = None


@attrs.define
class _Gathered:
    """What is known of a batch."""

    takes: dict[str, dict[int, _Known]] = attrs.field(factory=dict)  # by key and number
    requests: dict[str, SfxRequest] = attrs.field(factory=dict)  # by key: the manifest's, in its order
    paid: int = 0
    perhaps_paid: int = 0
    manifest: Path | None = None
    journal: Path | str | None = None
    notes: list[str] = attrs.field(factory=list)

    def take(self, key: str, number: int) -> _Known:
        """Return what is known of a take, so that more can be noted."""
        return self.takes.setdefault(key, {}).setdefault(number, _Known())

    @property
    def keys(self) -> list[str]:
        """All keys: those of the manifest in its order, then the others."""
        return [*self.requests, *sorted(self.takes.keys() - self.requests.keys())]


@attrs.frozen
class SharedRows:
    """What a database holds of all that its fleet makes; a report takes from it what is the folder's.

    Attributes:
        name: What it is called in commands.
        rows: Its rows.
        past_task_ids: The ids of earlier submissions, by row.
    """

    name: str
    rows: list[JournalRow]
    past_task_ids: dict[int, list[str]]


@attrs.frozen
class _Looked:
    """What a look at a file found."""

    check: AudioCheck
    sha256: str | None
    finished: Path | None


def read_folder(
    out: str | os.PathLike[str],
    *,
    now: datetime,
    page: str | os.PathLike[str] | None = None,
    manifest: str | os.PathLike[str] | None = None,
    lock: str | os.PathLike[str] | None = None,
    journal: str | os.PathLike[str] | SharedRows | None = None,
    on_counted: OnCounted | None = None,
) -> ReportData:
    """Return what a report of a folder shows.

    Args:
        out: The folder of the files.
        now: The moment that the report is of.
        page: Where the page will be: links are relative to it. By default it is in the folder.
        manifest: The list of sounds, whose lock is beside it.
        lock: The lock, whose manifest is beside it. By default, and without a manifest, whichever lock in the folder,
            or beside it, names files of the folder.
        journal: The journal; by default that in the folder. Of a fleet's, the rows whose keys the lock or the manifest
            names.
        on_counted: Is told how many files are about to be measured, which takes a while.

    Raises:
        ManifestError: Nothing of a batch is known of the folder.
    """
    folder = Path(out)
    known = _Gathered()
    if manifest is not None:
        lock = f"{os.fspath(manifest)}{LOCK_SUFFIX}"
    _take_in_lock(known, folder, None if lock is None else Path(lock))
    if isinstance(journal, SharedRows):
        ours = set(known.keys)
        rows = [row for row in journal.rows if row.key is not None and split_key(row.key)[0] in ours]
        _take_in_rows(known, journal.name, rows, journal.past_task_ids)
    else:
        file = folder / JOURNAL_NAME if journal is None else Path(journal)
        _take_in_journal(known, file, must_exist=journal is not None)
    if not known.takes and not known.requests:
        words = " ".join([f"Nothing of a batch is known of {folder}.", *known.notes])
        raise ManifestError(f"{words} A report shows what a lock or a journal tells of a folder.")
    files = {
        (key, number): path
        for key, takes in known.takes.items()
        for number, take in takes.items()
        if (path := _path_of(take, folder)) is not None
    }
    if on_counted is not None:
        on_counted(len(files))
    looked = _look_at_all(files, known)
    place = folder if page is None else Path(page).parent
    effects = [_effect(key, known, files, looked, place) for key in known.keys]
    return ReportData(
        title=_title(known, folder),
        made_at=now,
        effects=effects,
        paid=known.paid,
        perhaps_paid=known.perhaps_paid,
        command=_command(known, folder),
        settle_command=None
        if known.journal is None
        else shlex.join(["finevoice", "journal", str(known.journal), "--state", "perhaps-paid"]),
        notes=tuple(known.notes),
    )


def _title(known: _Gathered, folder: Path) -> str:
    name = folder.resolve().name or str(folder)
    return name if known.manifest is None else f"{known.manifest.name} in {name}"


def _command(known: _Gathered, folder: Path) -> str | None:
    """Return the command that goes on: with the manifest, or with what the journal has under way."""
    if known.manifest is not None:
        return shlex.join(["finevoice", "batch", str(known.manifest), "--out", str(folder)])
    if known.journal is not None:
        return shlex.join(["finevoice", "resume", str(known.journal), "--out", str(folder)])
    return None


# What is known


def _take_in_lock(known: _Gathered, folder: Path, lock: Path | None) -> None:
    """Take in the lock, and the manifest beside it."""
    found = _find_lock(folder) if lock is None else lock
    if found is None:
        return
    try:
        records = read_lock(found)
    except ManifestError as error:
        records = {}
        known.notes.append(one_line(str(error)))
    for record in records.values():
        known.take(record.key, record.take).record = record
    manifest = found.with_name(found.name.removesuffix(LOCK_SUFFIX))
    if not manifest.is_file():
        return  # it was read from standard input, or is elsewhere
    known.manifest = manifest if lock is not None else _shortest(manifest)
    try:
        known.requests = {row.key: row.request for row in read_manifest(manifest)}
    except ManifestError as error:
        known.notes.append(one_line(str(error)))


def _find_lock(folder: Path) -> Path | None:
    """Return the lock that is of this folder: in it, or beside it with files that lie in it."""
    inside = sorted(folder.glob(f"*{LOCK_SUFFIX}"))
    if inside:
        return inside[0]
    for path in sorted(folder.absolute().parent.glob(f"*{LOCK_SUFFIX}")):
        try:
            records = read_lock(path)
        except ManifestError:
            continue  # other programs have locks, too
        if any((folder / record.file).is_file() for record in records.values()):
            return path
    return None


def _shortest(path: Path) -> Path:
    """Return a path as somebody would type it who is here."""
    here = Path.cwd()
    absolute = path.absolute()
    return absolute.relative_to(here) if absolute.is_relative_to(here) else absolute


def _take_in_journal(known: _Gathered, path: Path, *, must_exist: bool) -> None:
    """Take in the journal; without one, what the lock names counts as paid for once."""
    if not path.is_file() and not must_exist:
        known.paid = sum(len(takes) for takes in known.takes.values())
        known.notes.append("There is no journal here: when things were made, and what failed, nobody knows.")
        return
    try:
        with read_journal(path) as journal:
            rows = list(_rows(journal))
            past = _past(journal, rows)
    except JournalError as error:
        known.paid = sum(len(takes) for takes in known.takes.values())
        known.notes.append(one_line(str(error)))
        return
    _take_in_rows(known, path, rows, past)


def _take_in_rows(known: _Gathered, name: Path | str, rows: list[JournalRow], past: dict[int, list[str]]) -> None:
    known.journal = name
    for row in rows:
        key, number = (f"row {row.id}", 1) if row.key is None else split_key(row.key)
        known.take(key, number).row = row
        known.perhaps_paid += row.state in IN_DOUBT
        known.paid += len(past.get(row.id, ())) + _is_paid(row)
    known.paid += sum(take.row is None for takes in known.takes.values() for take in takes.values())


def _rows(journal: JournalReader) -> Iterable[JournalRow]:
    after = 0
    while rows := journal.rows(after=after, limit=_PAGE):
        yield from rows
        after = rows[-1].id


def _past(journal: JournalReader, rows: list[JournalRow]) -> dict[int, list[str]]:
    past: dict[int, list[str]] = {}
    for at in range(0, len(rows), _PAGE):
        past |= journal.past_task_ids([row.id for row in rows[at : at + _PAGE]])
    return past


def _is_paid(row: JournalRow) -> bool:
    """Tell if a row's submission was accepted, and nobody need wonder."""
    if row.state in IN_DOUBT:
        return False
    return row.task_id is not None or row.state in (EffectState.DONE, EffectState.SAVED)


# The files


def _path_of(take: _Known, folder: Path) -> Path | None:
    if take.record is not None:
        return folder / take.record.file
    if take.row is None or take.row.path is None or take.row.state is not EffectState.SAVED:
        return None
    return Path(take.row.path)


def _look_at_all(files: Mapping[TakeId, Path], known: _Gathered) -> dict[TakeId, _Looked]:
    def look(name: TakeId) -> _Looked:
        take = known.takes[name[0]][name[1]]
        request = known.requests.get(name[0]) if take.row is None else take.row.request
        return _look(files[name], None if request is None else request.duration)

    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as threads:
        return dict(zip(files, threads.map(look, files), strict=True))


def _look(path: Path, asked_seconds: float | None) -> _Looked:
    check = check_file(path, asked_seconds)
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        sha256 = None  # what is wrong with it the check says
    copies = (finished_path(path, each) for each in FORMATS)
    return _Looked(check, sha256, next((copy for copy in copies if copy.is_file()), None))


# What is shown


def _effect(
    key: str, known: _Gathered, files: Mapping[TakeId, Path], looked: Mapping[TakeId, _Looked], place: Path
) -> EffectReport:
    takes = known.takes.get(key, {})
    requests = [take.row.request for _, take in sorted(takes.items()) if take.row is not None]
    request = known.requests.get(key) or (requests[-1] if requests else None)
    silent = {number for number in takes if (look := looked.get((key, number))) is not None and look.check.silent}
    heard = [number for number in takes if (key, number) in looked and number not in silent]
    return EffectReport(
        key=key,
        prompt=None if request is None else request.prompt,
        negative_prompt=None if request is None else request.negative_prompt,
        source=None if request is None else request.source_url,
        asked_seconds=None if request is None else request.duration,
        takes=[
            _take(
                number,
                take,
                files.get((key, number)),
                looked.get((key, number)),
                place,
                # Silent, and there is a later one that can be heard: it was made in its place.
                rejected=number in silent and max(heard, default=0) > number,
                wanted=known.requests.get(key),
            )
            for number, take in sorted(takes.items())
        ],
    )


def _take(
    number: int,
    take: _Known,
    path: Path | None,
    look: _Looked | None,
    place: Path,
    *,
    rejected: bool,
    wanted: SfxRequest | None,
) -> TakeReport:
    row, record = take.row, take.record
    made_for = record.request if record is not None else None if row is None else hash_request(row.request)
    state = EffectState.SAVED if row is None else row.state
    is_there = look is not None and look.sha256 is not None
    expected = record.sha256 if record is not None else None if row is None else row.sha256
    notes = [] if look is None or look.check.note is None else [look.check.note]
    if made_for is not None and wanted is not None and made_for != hash_request(wanted):
        notes.append("made for an earlier wording of the request")
    if is_there and look is not None and expected not in (None, look.sha256):
        notes.append("changed since it was saved")
    problems = () if look is None else look.check.problems
    if look is not None and not is_there and path is not None:
        problems = tuple(f"{problem}: {path.name}" for problem in problems)
    return TakeReport(
        number=number,
        state=state,
        rejected=rejected,
        file=_relative(path, place) if is_there and path is not None else None,
        finished=None if look is None or look.finished is None else _relative(look.finished, place),
        seconds=None if look is None else look.check.seconds,
        peak=None if look is None else look.check.peak,
        waveform=() if look is None else look.check.waveform,
        task_id=record.task_id if row is None and record is not None else None if row is None else row.task_id,
        reason=None if row is None or state is EffectState.SAVED else row.error,
        problems=problems,
        note="; ".join(notes) or None,
        queued_at=None if row is None else row.created_at,
        submitted_at=None if row is None else row.submitted_at,
        ended_at=row.updated_at if row is not None and row.submitted_at and state in _ENDED else None,
    )


def _relative(path: Path, place: Path) -> str | None:
    """Return a file's path from the page's folder, with slashes; None where there is no way, as between two drives."""
    try:
        return Path(os.path.relpath(path, place)).as_posix()
    except ValueError:
        return None
