"""Checks of a manifest as a whole: no key and no file twice, and a place for every file."""

from __future__ import annotations

from typing import Final

from finevoice_async.batch.places import Folder, folded, size_of
from finevoice_async.batch.rows import ManifestRow
from finevoice_async.core.text import shorten
from finevoice_async.errors import ManifestError, ManifestFault

MAX_FAULTS: Final = 1000
"""Faults that are kept; a wrong file may have one in each of 100,000 lines. More are counted."""


class Faults:
    """What is wrong, in the order in which it was found."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._found: list[ManifestFault] = []
        self._left_out = 0

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, line: int | None, what: str, file: str | None = None) -> None:
        """Note a fault."""
        if len(self._found) < MAX_FAULTS:
            self._found.append(ManifestFault(file or self.file, line, what))
        else:
            self._left_out += 1

    def check(self) -> None:
        """Go on only if there are none.

        Raises:
            ManifestError: There are some.
        """
        if not self._found:
            return
        found = sorted(self._found, key=lambda fault: (fault.file != self.file, fault.line or 0))
        number = len(found) + self._left_out
        lines = [f"  {fault}" for fault in found]
        if self._left_out:
            lines.append(f"  and {self._left_out} more")
        head = f"{self.file} has {number} fault{'' if number == 1 else 's'}. Nothing was sent."
        raise ManifestError("\n".join([head, *lines]), found, self._left_out)


class Checker:
    """Looks at one row after another, and remembers numbers of them, not the rows."""

    def __init__(self, faults: Faults, folder: Folder | None) -> None:
        """Begin.

        Args:
            faults: Hears what is wrong.
            folder: Where the files go, if that is known.
        """
        self._faults = faults
        self._folder = folder
        # All mutable state; what is compared is kept as its hash, since there may be 100,000.
        self._keys: dict[int, int | None] = {}  # the line of each
        self.stems: dict[int, int | None] = {}
        self._folders: dict[int, int | None] = {}
        self._needed = 0.0

    def take(self, row: ManifestRow) -> None:
        """Check a row against those before it."""
        if not self._once(self._keys, row.key, row, "key", row.key):
            return
        for take in range(1, row.takes + 1):
            self._take_stem(row.stem(take), row)

    def _take_stem(self, stem: str, row: ManifestRow) -> None:
        plain = folded(stem)
        if not self._once(self.stems, plain, row, "file", stem):
            return
        above = plain.rpartition("/")[0]
        while above:
            self._folders.setdefault(hash(above), row.line)
            if hash(above) in self.stems:
                self._faults.add(row.line, f"{shorten(above)} is a file of {_where(self.stems[hash(above)])}")
            above = above.rpartition("/")[0]
        if hash(plain) in self._folders:
            self._faults.add(row.line, f"{shorten(stem)} is a folder of {_where(self._folders[hash(plain)])}")
        if self._folder is None:
            return
        trouble = self._folder.trouble(stem)
        if trouble is not None:
            self._faults.add(row.line, f"no file can be made for {shorten(stem)}: {trouble}")
            return
        held = self._folder.holds(stem)
        if held is None:
            self._needed += size_of(row.request.duration)
        elif (self._folder.out / held).is_dir() and "." not in held.rpartition("/")[2]:
            self._faults.add(row.line, f"{shorten(held)} is a folder already, so no file can be called so")

    def _once(self, seen: dict[int, int | None], text: str, row: ManifestRow, what: str, name: str) -> bool:
        mark = hash(text)
        if mark not in seen:
            seen[mark] = row.line
            return True
        self._faults.add(
            row.line,
            f"the {what} {shorten(name)} is that of {_where(seen[mark])}, too; for more of one sound there is takes",
        )
        return False

    def end(self) -> None:
        """Check what all rows together need."""
        lack = None if self._folder is None else self._folder.lacks(self._needed)
        if lack is not None and self._folder is not None:
            self._faults.add(None, lack, str(self._folder.out))


def _where(line: int | None) -> str:
    return "another sound" if line is None else f"line {line}"
