"""The lock: what a manifest has come to, a line a sound, in a file that goes into git beside it.

JSON Lines in the order of keys, always the same bytes for the same sounds, so that `git diff` shows what changed. Two
people's locks are merged line by line: what git could not merge, because both added lines in one place, is read with
git's marks in it, and written without them.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from finevoice_async.batch.checking import Faults
from finevoice_async.batch.templates import is_inside
from finevoice_async.reprs import with_safe_repr

TakeId = tuple[str, int]
"""A key and the number of a take."""


@with_safe_repr
@attrs.frozen(kw_only=True)
class LockRecord:
    """One sound that is there, or was.

    Attributes:
        key: The row's.
        take: Which of its takes, from 1.
        request: The hash of what it was made for.
        task_id: The service's id: with it the sound is fetched again, and not paid for again.
        file: Where it is, below the folder, with slashes.
        sha256: Of the file, in hexadecimal.
        media_type: What kind of audio it is.
        seconds: How long it is.
        silent: It was found to be silent; None if it was not.
        finished_sha256: Of its finished copy, if one was made.
        emulated: An emulator made it: it is no real sound, and its task cannot be asked for; None of a real one.
    """

    key: str
    take: int
    request: str
    task_id: str | None
    file: str
    sha256: str
    media_type: str | None = None
    seconds: float | None = None
    silent: bool | None = None
    finished_sha256: str | None = None
    emulated: bool | None = None

    @property
    def id(self) -> TakeId:
        """What it is called."""
        return self.key, self.take


Records = Mapping[TakeId, LockRecord]

_REQUIRED: Final[dict[str, type]] = {"key": str, "take": int, "request": str, "file": str, "sha256": str}
_LONGEST: Final = 1e6  # seconds; of what says more, nothing is kept
_TEXTS: Final = ("task_id", "media_type", "finished_sha256")
_SELDOM: Final = ("silent", "finished_sha256", "emulated")  # written only where they say something


def format_lock(records: Records) -> bytes:
    """Return the lock's bytes."""
    return b"".join(_format(records[name]) for name in sorted(records))


def _format(record: LockRecord) -> bytes:
    fields = attrs.asdict(record)
    for name in _SELDOM:
        if fields[name] is None:
            del fields[name]
    return json.dumps(fields, ensure_ascii=False).encode() + b"\n"


def parse_lock(lines: Iterable[bytes], faults: Faults) -> dict[TakeId, LockRecord]:
    """Read a lock, also one that git could not merge: then both sides' lines count.

    Args:
        lines: The lines.
        faults: Hears what is no line of a lock.
    """
    found: dict[TakeId, LockRecord] = {}
    in_base = False  # what both sides began with, in git's style diff3: it is in neither of them
    for number, line in enumerate(lines, 1):
        text = line.strip().removeprefix(b"\xef\xbb\xbf")
        if text.startswith((b"<<<<<<<", b"|||||||", b"=======", b">>>>>>>")):
            in_base = text.startswith(b"|||||||")
        elif text and not in_base:
            record = _parse(text)
            if isinstance(record, str):
                faults.add(number, record)
            else:
                found[record.id] = stronger(record, found.get(record.id, record))
    return found


def _parse(text: bytes) -> LockRecord | str:
    """Return the record of a line, or what is wrong with it."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return "this is no line of a lock; take the file from your version control again"
    if not isinstance(data, dict):
        return "a line of a lock must be a JSON object"
    for name, kind in _REQUIRED.items():
        if type(data.get(name)) is not kind:
            return f"a line of a lock needs {name}"
    if data["take"] < 1 or not is_inside(data["file"]):
        return "its file leads out of the folder" if data["take"] >= 1 else "a take has a number from 1 on"
    kept: dict[str, Any] = {name: data[name] for name in _REQUIRED}
    kept |= {name: data[name] for name in _TEXTS if isinstance(data.get(name), str)}
    kept.setdefault("task_id", None)
    seconds, silent = data.get("seconds"), data.get("silent")
    kept["seconds"] = None
    if isinstance(seconds, int | float) and type(seconds) is not bool and 0 <= seconds < _LONGEST:
        kept["seconds"] = float(seconds)
    kept["silent"] = silent if type(silent) is bool else None
    kept["emulated"] = True if data.get("emulated") is True else None
    return LockRecord(**kept)


def stronger(one: LockRecord, other: LockRecord) -> LockRecord:
    """Return which of two records of one take counts, whichever comes first."""
    return max(one, other, key=lambda record: (not record.emulated, record.task_id is not None, _format(record)))


def merge(one: Records, other: Records) -> dict[TakeId, LockRecord]:
    """Return the records of both, row by row."""
    merged = dict(one)
    for name, record in other.items():
        merged[name] = stronger(record, merged.get(name, record))
    return merged


def read_lock(path: Path) -> dict[TakeId, LockRecord]:
    """Read a lock; there need not be one. Blocks.

    Raises:
        ManifestError: It cannot be read.
    """
    faults = Faults(str(path))
    records: dict[TakeId, LockRecord] = {}
    try:
        with path.open("rb") as file:
            records = parse_lock(file, faults)
    except FileNotFoundError:
        pass
    except OSError as error:
        faults.add(None, f"it cannot be read: {error.strerror or type(error).__name__}")
    faults.check()
    return records


def update_lock(path: Path, mine: Records) -> None:
    """Put records into the lock; those of others stay, and real ones never give way to an emulator's.

    Blocks; the file is replaced as a whole, or not at all.

    Raises:
        ManifestError: What is there now cannot be read.
        OSError: It could not be written.
    """
    there = read_lock(path)
    new = format_lock({**there, **{name: each for name, each in mine.items() if _may_replace(each, there.get(name))}})
    try:
        if path.read_bytes() == new:
            return
    except FileNotFoundError:
        if not mine:
            return
    path.parent.mkdir(parents=True, exist_ok=True)
    target = path.resolve()  # a link stays one
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:100]}.", suffix=".part")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(new)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(_mode_of(target))
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _may_replace(record: LockRecord, there: LockRecord | None) -> bool:
    return there is None or bool(there.emulated) or not record.emulated


def _mode_of(path: Path) -> int:
    """Return the permissions of a file, or what a new one has: a temporary one is for its owner alone."""
    try:
        return path.stat().st_mode & 0o777
    except FileNotFoundError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask
