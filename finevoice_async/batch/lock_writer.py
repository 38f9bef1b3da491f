"""Writing the lock while a batch runs: seldom enough to cost little, since the journal has the truth in between."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Final

import anyio
import attrs

from finevoice_async.batch.lock import LockRecord, TakeId, update_lock
from finevoice_async.errors import ManifestError

log = logging.getLogger("finevoice_async")

_PAUSE: Final = 1.0  # seconds between two writes at least: what a crash leaves out of the lock the journal tells
_SHARE: Final = 20  # and so many times as long as the last one took: 5 % of a run, however long the lock is


class LockWriter:
    """Owns what a run adds to a lock, and the task that writes it."""

    def __init__(self, path: Path, *, emulated: bool = False) -> None:
        """Set it up.

        Args:
            path: The lock.
            emulated: An emulator makes the sounds, which the lock has to say.
        """
        self.path = path
        self._emulated = emulated
        # All mutable state:
        self.mine: dict[TakeId, LockRecord] = {}
        self._is_stale = False
        self._pause = _PAUSE
        self._task: asyncio.Task[None] | None = None

    def keep(self, record: LockRecord) -> None:
        """Have a record written at the end."""
        self.mine[record.id] = attrs.evolve(record, emulated=True) if self._emulated else record

    def put(self, record: LockRecord) -> None:
        """Have a record written soon."""
        self.keep(record)
        self._is_stale = True
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write_soon(), name="finevoice-lock")

    async def _write_soon(self) -> None:
        loop = asyncio.get_running_loop()
        while self._is_stale:
            await asyncio.sleep(self._pause)
            self._is_stale, began = False, loop.time()
            try:
                await anyio.to_thread.run_sync(update_lock, self.path, dict(self.mine))
            except (OSError, ManifestError) as error:
                log.warning("the lock %s could not be written, which is tried again: %s", self.path, error)
            self._pause = max(_PAUSE, _SHARE * (loop.time() - began))

    async def aclose(self) -> ManifestError | None:
        """Write what is left, and return why that failed, if it did."""
        with anyio.CancelScope(shield=True):  # bounded: a file is written
            if self._task is not None:
                self._task.cancel()
                await asyncio.wait([self._task])
            try:
                await anyio.to_thread.run_sync(update_lock, self.path, dict(self.mine))
            except ManifestError as error:
                return error
            except OSError as error:
                why = error.strerror or type(error).__name__
                return ManifestError(
                    f"The lock {self.path} could not be written: {why}. The sounds are saved, and in the journal; run "
                    "the batch again."
                )
        return None
