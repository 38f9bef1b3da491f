"""A list of sounds in a file, read and checked as a whole before anything is sent."""

from __future__ import annotations

import os
import pickle
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from finevoice_async.batch.checking import Checker, Faults
from finevoice_async.batch.places import Folder, folded
from finevoice_async.batch.rows import ManifestRow, make_row
from finevoice_async.batch.sources import Format, Source

STDIN: Final = "-"
_PACK: Final = 200  # rows that are packed together: some milliseconds, in which no other thread runs


class PackedRows:
    """Rows in little room, some hundreds to a pack: 100,000 of them take some megabytes."""

    def __init__(self) -> None:
        # All mutable state:
        self._packs: list[bytes] = []
        self._open: list[ManifestRow] = []
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[ManifestRow]:
        for pack in self._packs:
            yield from pickle.loads(zlib.decompress(pack))  # noqa: S301 - packed by this very object
        yield from self._open

    def add(self, row: ManifestRow) -> None:
        """Add one at the end."""
        self._length += 1
        self._open.append(row)
        if len(self._open) == _PACK:
            self._packs.append(zlib.compress(pickle.dumps(self._open), 1))
            self._open = []


class Manifest:
    """Sounds that are wanted, all of them checked. Iterate over it as often as you like."""

    def __init__(self, name: str, path: Path | None, rows: PackedRows, stems: frozenset[int]) -> None:
        """Hold what `read_manifest` has read.

        Args:
            name: What it is called in messages.
            path: Its file; None for standard input.
            rows: The sounds.
            stems: The hashes of their files' names.
        """
        self.name = name
        self.path = path
        self._rows = rows
        self._stems = stems

    def __repr__(self) -> str:
        return f"<Manifest {self.name}: {len(self)} sounds>"

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[ManifestRow]:
        return iter(self._rows)

    def lock_path(self, out: Path) -> Path:
        """Return where its lock is: beside it; for standard input, in the folder."""
        return out / "manifest.lock" if self.path is None else self.path.with_name(f"{self.path.name}.lock")

    def names(self, stem: str) -> bool:
        """Tell whether one of its sounds has this file."""
        return hash(folded(stem)) in self._stems

    def check_place(self, out: str | os.PathLike[str]) -> None:
        """Check that every file can be made below a folder. Blocks.

        Raises:
            ManifestError: One cannot.
        """
        faults = Faults(self.name)
        checker = Checker(faults, Folder(Path(out)))
        for row in self:
            checker.take(row)
        checker.end()
        faults.check()


def read_manifest(
    path: str | os.PathLike[str], *, out: str | os.PathLike[str] | None = None, form: Format | None = None
) -> Manifest:
    """Read a list of sounds: CSV, JSON Lines, TOML, or a prompt a line. Blocks; nothing is sent.

    All rows are checked, by themselves and against each other.

    Args:
        path: The file; `-` for standard input.
        out: The folder where the files will go: check also that they can be made there, and that there is room.
        form: The format, where neither the file's suffix nor its first line tells it.

    Raises:
        ManifestError: There are faults: each of them, with file and line.
    """
    folder = None if out is None else Folder(Path(out))
    if os.fspath(path) == STDIN:
        return _read(sys.stdin.buffer, "standard input", None, form, folder)
    try:
        with Path(path).open("rb") as file:
            return _read(file, os.fspath(path), Path(path), form, folder)
    except OSError as error:
        faults = Faults(os.fspath(path))
        faults.add(None, f"it cannot be read: {error.strerror or type(error).__name__}")
        faults.check()
        raise  # never: there is a fault


def _read(file: BinaryIO, name: str, path: Path | None, form: Format | None, folder: Folder | None) -> Manifest:
    faults = Faults(name)
    checker = Checker(faults, folder)
    source = Source(file, name, faults.add, form)
    rows = PackedRows()
    number = 0
    for number, cells in enumerate(source.rows(), 1):
        row, wrong = make_row(cells.cells, source.defaults, number=number, line=cells.line)
        for words in dict.fromkeys([*cells.wrong, *wrong]):
            faults.add(cells.line, words)
        if row is not None:
            checker.take(row)
            if not faults:
                rows.add(row)
    if not number and not faults:
        faults.add(None, "there are no sounds in it")
    checker.end()
    faults.check()
    return Manifest(name, path, rows, frozenset(checker.stems))
