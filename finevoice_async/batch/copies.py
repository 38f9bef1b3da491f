"""Finished copies of a batch's sounds, as `finish` makes them: beside the originals, which stay as they came."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import anyio
import attrs

from finevoice_async.batch.finish import FORMATS, FinishError, finish
from finevoice_async.batch.lock import LockRecord
from finevoice_async.batch.lock_writer import LockWriter
from finevoice_async.batch.loudness import NEEDS_EXTRA, load_soundfile
from finevoice_async.errors import ConfigurationError


@attrs.frozen(kw_only=True)
class Finish:
    """How copies are finished.

    Attributes:
        format: `wav`, `flac` or `ogg`; None for that of the original.
        trim: Take away the silence at both ends.
        peak_db: How loud the loudest sample shall be, in dBFS.
    """

    format: str | None = None
    trim: bool = False
    peak_db: float | None = None

    def check(self) -> None:
        """Check it, before anything is paid for.

        Raises:
            ConfigurationError: A setting makes no sense, or what makes copies is not installed.
        """
        if self.format is not None and self.format not in FORMATS:
            raise ConfigurationError(f"The format must be one of {', '.join(FORMATS)}. Nothing was sent.")
        if self.peak_db is not None and not -120 <= self.peak_db <= 0:
            raise ConfigurationError("The peak must be from -120 to 0 dB. Nothing was sent.")
        if load_soundfile() is None:
            raise ConfigurationError(f"Finished copies cannot be made: {NEEDS_EXTRA}. Nothing was sent.")


async def make_copies(
    records: Iterable[LockRecord], out: Path, settings: Finish, lock: LockWriter
) -> list[tuple[LockRecord, FinishError]]:
    """Make the copies that are not there, and return those that could not be made, with the reason."""
    failed: list[tuple[LockRecord, FinishError]] = []
    for record in records:
        try:
            digest = await anyio.to_thread.run_sync(_make_copy, out / record.file, settings, record.finished_sha256)
        except FinishError as error:
            error.key = record.key
            failed.append((record, error))
        else:
            if digest != record.finished_sha256:
                lock.put(attrs.evolve(record, finished_sha256=digest))
    return failed


def _make_copy(path: Path, settings: Finish, earlier: str | None) -> str:
    """Make a copy, and return its SHA-256."""
    replaces = () if earlier is None else (earlier,)
    made = finish(path, format=settings.format, trim=settings.trim, peak_db=settings.peak_db, replaces=replaces)
    try:
        with made.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FinishError(f"The finished copy {made} cannot be read: {error.strerror or error}.") from error
