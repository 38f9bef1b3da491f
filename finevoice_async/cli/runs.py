"""What one run of a batch has spent: a run that was cut off and goes on does not get its budget a second time.

A small file in the folder says when the run began. It is removed when the run comes to its own end; what a crash or
Ctrl-C has left tells the next run since when submissions count.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import attrs

from finevoice_async import Budget, EffectState, JournalError, JournalRow
from finevoice_async.adapters.journal_reader import read_journal
from finevoice_async.core.ledger import MAY_BE_PAID

RUN_NAME = ".finevoice.run"
_PAGE = 1000
_IN_DOUBT = (EffectState.SENDING, *MAY_BE_PAID)


class RunMark:
    """When the run began that is not at its end yet."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / RUN_NAME

    def began(self) -> datetime | None:
        """Return when a run began that was cut off, None if there was none."""
        try:
            began = datetime.fromisoformat(json.loads(self._path.read_bytes())["began"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            return None  # damaged: it says nothing
        return began if began.tzinfo is not None else None

    def begin(self) -> datetime:
        """Note that a run begins, unless one goes on, and return when it began."""
        began = self.began()
        if began is None:
            began = datetime.now(UTC)
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(json.dumps({"began": began.isoformat()}) + "\n")
        return began

    def end(self) -> None:
        """Note that it came to its own end."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


def spent_since(journal: Path, moment: datetime) -> int:
    """Return how many submissions since then may have been accepted, by the journal's file. Blocks."""
    with contextlib.suppress(JournalError), read_journal(journal) as reader:  # else there is none, or opening it tells
        return len(reader.sent_since(moment))
    return 0


def in_doubt_since(rows: Iterable[JournalRow], moment: datetime) -> int:
    """Return how many of them nobody knows the task of."""
    return sum(row.state in _IN_DOUBT and row.updated_at >= moment for row in rows)


def read_rows(journal: Path) -> list[JournalRow]:
    """Return all rows of a journal's file; none if there is none. Blocks."""
    found: list[JournalRow] = []
    if journal.is_file():
        with contextlib.suppress(JournalError), read_journal(journal) as reader:  # who opens it says what is wrong
            while page := reader.rows(after=found[-1].id if found else 0, limit=_PAGE):
                found += page
    return found


@attrs.frozen(kw_only=True)
class Purse:
    """What may be paid.

    Attributes:
        max_effects: Submissions at most.
        budget: Money at most.
        price: Of one submission.
    """

    max_effects: int | None = None
    budget: Decimal | None = None
    price: Decimal | None = None

    @property
    def most(self) -> int | None:
        """How many submissions may be made; None: as many as it takes."""
        bounds = [] if self.max_effects is None else [self.max_effects]
        if self.budget is not None and self.price is not None:
            bounds.append(int(self.budget / self.price))
        return min(bounds, default=None)

    def cost(self, submissions: int) -> str | None:
        """Return what so many cost, as text; None if nobody gave a price."""
        return None if self.price is None else f"{self.price * submissions:,f}"

    def left(self, spent: int) -> Budget | None:
        """Return the budget of a session, of which so much is spent; it has at least one left."""
        return None if self.most is None else Budget(effects=self.most - spent)
