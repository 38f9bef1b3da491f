"""The folder of a batch: whether files can be made there, how much room there is, and what lies in it already.

Everything here blocks, and runs in a thread.
"""

from __future__ import annotations

import os
import shutil
import unicodedata
from pathlib import Path
from typing import Final

from finevoice_async.batch.templates import stem_of_file
from finevoice_async.core import media
from finevoice_async.core.filenames import suffix_of

BYTES_A_SECOND: Final = 16_000
"""Of audio at least, as MP3 of 128 kbit/s: what does not fit even so cannot fit. WAV has up to twelve times as many."""

USUAL_SECONDS: Final = 5.0
"""Of a sound whose length is left to the service."""


def folded(name: str) -> str:
    """Return a path as file systems compare it that do not tell large letters from small ones."""
    return unicodedata.normalize("NFC", name).casefold()


class Folder:
    """What lies in the output folder, looked at once a folder."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self._seen: dict[str, dict[str, str]] = {}  # by folder: stems as they are compared, and the file of each
        self._checked: dict[str, str | None] = {}

    def holds(self, stem: str) -> str | None:
        """Return the file of audio, or the folder, that lies where a stem's file would go."""
        folder, _, name = stem.rpartition("/")
        if folder not in self._seen:
            self._seen[folder] = self._look(folder)
        return self._seen[folder].get(folded(name))

    def _look(self, folder: str) -> dict[str, str]:
        found: dict[str, str] = {}
        try:
            with os.scandir(self.out / folder) as entries:
                for entry in entries:
                    suffix = suffix_of(entry.name)
                    is_audio = not suffix or media.of_suffix(suffix) is not None or entry.is_dir()
                    if is_audio and not entry.name.startswith("."):
                        name = f"{folder}/{entry.name}" if folder else entry.name
                        found[folded(stem_of_file(entry.name))] = name
        except OSError:
            return {}  # it is not there yet; what else is wrong with it `trouble` says
        return found

    def trouble(self, stem: str) -> str | None:
        """Return why no file can be made at a stem, None if one can."""
        folder = stem.rpartition("/")[0]
        if folder not in self._checked:
            self._checked[folder] = self._check(folder)
        return self._checked[folder]

    def _check(self, folder: str) -> str | None:
        path = self.out / folder
        try:
            there = next(each for each in (path, *path.parents) if os.path.lexists(each))
            if not there.is_dir():
                return f"{there} is a file, not a folder"
            if not os.access(there, os.W_OK | os.X_OK):
                return f"nothing can be written to {there}"
            if folder and self.out.is_dir() and not there.resolve().is_relative_to(self.out.resolve()):
                return f"{there} leads out of the folder"
        except (OSError, ValueError) as error:
            return f"{path}: {error.strerror if isinstance(error, OSError) else error}"
        return None

    def lacks(self, needed: float) -> str | None:
        """Return what to say if there is not enough room for so many bytes."""
        try:
            there = next(each for each in (self.out, *self.out.absolute().parents) if each.exists())
            free = shutil.disk_usage(there).free
        except (OSError, StopIteration):
            return None  # what is wrong with it `trouble` says
        if needed <= free:
            return None
        return f"not enough disk: at least {_megabytes(needed)} are needed, {_megabytes(free)} are free"


def size_of(duration: float | None) -> float:
    """Return about how many bytes a sound will have."""
    return BYTES_A_SECOND * (USUAL_SECONDS if duration is None else duration)


def _megabytes(count: float) -> str:
    return f"{count / 1e6:,.1f} MB"
