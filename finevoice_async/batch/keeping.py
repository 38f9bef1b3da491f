"""From a finished effect to a file of the folder, and to what the lock says of it."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Final, TypeVar

import anyio

from finevoice_async.batch.checks import AudioCheck, check_file
from finevoice_async.batch.lock import LockRecord
from finevoice_async.batch.plan import PlanEntry
from finevoice_async.core import media
from finevoice_async.core.filenames import suffix_of
from finevoice_async.effect import SoundEffect
from finevoice_async.errors import DownloadError, FineVoiceError

T = TypeVar("T")

_TRIES: Final = 3  # of a wait or a save whose failure costs nothing; each tries several times itself


async def patiently(do: Callable[[], Awaitable[T]], kind: type[FineVoiceError]) -> T:
    """Do what costs nothing once more if it fails in a way that passes.

    Raises:
        FineVoiceError: It fails in another way, or again and again.
    """
    for _ in range(_TRIES - 1):
        try:
            return await do()
        except kind as error:
            if isinstance(error.__cause__, OSError):  # a disk does not get better by waiting
                raise
    return await do()


async def save(entry: PlanEntry, effect: SoundEffect, out: Path) -> Path:
    """Save a sound where it belongs. What lies there already is never replaced.

    Raises:
        DownloadError: It could not be fetched or stored, or something else is in its place.
        JournalError: The journal could not note it.
    """
    target = out / entry.stem
    try:
        await anyio.to_thread.run_sync(_make_folder, target.parent)
    except OSError as error:
        raise _storage_error(entry, effect, error) from error
    try:
        return await effect.save(target, overwrite=False)
    except DownloadError as error:
        there = target.with_name(f"{target.name}{effect.suffix}")
        if not isinstance(error.__cause__, FileExistsError) or not await _is_it(effect, there):
            raise
    await effect.acknowledge()
    return there


async def _is_it(effect: SoundEffect, path: Path) -> bool:
    """Tell whether a file is this very sound: a crash came between its saving and the note of it."""
    digest = hashlib.sha256()
    async with aclosing(effect.stream()) as pieces:
        async for piece in pieces:
            digest.update(piece)
    try:
        return await anyio.to_thread.run_sync(_hash, path) == digest.hexdigest()
    except OSError:
        return False


async def describe(entry: PlanEntry, effect: SoundEffect, path: Path, out: Path) -> tuple[LockRecord, AudioCheck]:
    """Return what the lock says of a sound that was saved, and what its file was found to be.

    Raises:
        DownloadError: The file cannot be read.
    """
    asked = None if entry.request is None else entry.request.duration
    try:
        digest = await anyio.to_thread.run_sync(_hash, path)
    except OSError as error:
        raise _storage_error(entry, effect, error) from error
    check = await anyio.to_thread.run_sync(check_file, path, asked)
    kind = media.of_suffix(suffix_of(path.name))
    record = LockRecord(
        key=entry.key,
        take=entry.take,
        request=entry.request_hash,
        task_id=effect.task_id,
        file=path.relative_to(out).as_posix(),
        sha256=digest,
        media_type=effect.media_type or (None if kind is None else kind.media_type),
        seconds=None if check.seconds is None else round(check.seconds, 3),
        silent=True if check.silent else None,
    )
    return record, check


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _make_folder(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)


def _storage_error(entry: PlanEntry, effect: SoundEffect, error: OSError) -> DownloadError:
    return DownloadError(
        f"The result of task {effect.task_id} could not be kept as {entry.stem}: "
        f"{error.strerror or type(error).__name__}. It is kept at the service; run the batch again.",
        task_id=effect.task_id,
        key=entry.key,
        request=entry.request,
    )
