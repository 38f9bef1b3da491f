"""Where a batch keeps what it does: a file in its folder, the database of a fleet, or nowhere."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import anyio
import attrs

from finevoice_async import JournalRow
from finevoice_async.cli.kept import api_key
from finevoice_async.cli.runs import read_rows, spent_since


@attrs.frozen
class BatchJournal:
    """A batch's journal.

    Attributes:
        place: The file, or the URL of a database; None: none is kept.
    """

    place: Path | str | None

    @property
    def file(self) -> Path | None:
        """The file, if it is one."""
        return self.place if isinstance(self.place, Path) else None

    @property
    def is_shared(self) -> bool:
        """Whether other machines use it, too."""
        return isinstance(self.place, str)

    async def rows(self) -> list[JournalRow]:
        """Return what it holds; nothing of a file that is not there, or cannot be read: opening it will tell.

        Raises:
            JournalError: The database cannot be read.
            ConfigurationError: There is no key, which says whose effects are meant.
        """
        if isinstance(self.place, str):
            from finevoice_async.adapters import fleet_view

            return await fleet_view.read_rows(self.place, api_key())
        return [] if self.place is None else await anyio.to_thread.run_sync(read_rows, self.place)

    async def spent_since(self, moment: datetime) -> int:
        """Return how many submissions since then may have been accepted; a fleet's are those of all its sessions.

        Raises:
            JournalError: The database cannot be read.
            ConfigurationError: There is no key, which says whose effects are meant.
        """
        if isinstance(self.place, str):
            from finevoice_async.adapters import fleet_view

            return await fleet_view.spent_since(self.place, api_key(), moment)
        return 0 if self.place is None else await anyio.to_thread.run_sync(spent_since, self.place, moment)
