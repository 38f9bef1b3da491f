"""Whether the database is there, as far as a session's connections know: each change is said once."""

from __future__ import annotations

import logging
from typing import Final

from finevoice_async.adapters.postgres.connection import explain

LOGGER: Final = "finevoice_async.database"
"""A logger of its own, so that a program can tell its user just this."""

AWAY: Final = "the fleet's database is away; nothing is sent until it is back (%s)"
BACK: Final = "the fleet's database is back"

log = logging.getLogger(LOGGER)


class Contact:
    """What a session's two connections share.

    That which listens hears at once that it is cut off, and is made again by itself. That which speaks learns it of the
    other, or from a call that fails.
    """

    def __init__(self) -> None:
        # All mutable state:
        self.losses = 0  # of the connection that listens
        self._lost: set[str] = set()  # connections that are to be made again

    def stopped_listening(self, error: Exception) -> None:
        """Note that the connection that listens is lost, or was not made."""
        self.losses += 1
        self._note("listens", error)

    def listens(self) -> None:
        """Note that the connection that listens is made: then the other can be, too."""
        self._note_found(*self._lost)

    def stopped_speaking(self, error: Exception) -> None:
        """Note that a call failed."""
        self._note("speaks", error)

    def speaks(self) -> None:
        """Note that a call was answered."""
        self._note_found("speaks")

    def _note(self, connection: str, error: Exception) -> None:
        if not self._lost:
            log.warning(AWAY, explain(error))
        self._lost.add(connection)

    def _note_found(self, *connections: str) -> None:
        if not self._lost:
            return
        self._lost.difference_update(connections)
        if not self._lost:
            log.warning(BACK)  # as loud as the other: who hears one is to hear both
