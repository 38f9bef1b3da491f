"""What has been spent of a session's budget of submissions.

A submission is spent before its POST leaves, in the same step that finds that the budget allows it, and given back once
it is certain that it was not accepted. Whatever else becomes of it, it stays spent. The journal keeps the same count
for later sessions (see `Journal.sent_since`): there it is spent before the POST and given back after its answer, so
that a crash in between can only make later sessions send less.
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from datetime import UTC, datetime, timedelta
from typing import Final

from finevoice_async.config import Budget
from finevoice_async.core.requests import SfxRequest
from finevoice_async.engine.bookkeeper import Bookkeeper
from finevoice_async.errors import BudgetExceededError, ConfigurationError
from finevoice_async.ports import Clock

_BEGINNING: Final = datetime.min.replace(tzinfo=UTC)
_MOST_SECONDS: Final = timedelta.max // timedelta(seconds=1)

Spent = object
"""One submission that is spent."""


class Spending:
    """Owns the count. Without a budget it counts nothing."""

    def __init__(self, budget: Budget | None, bookkeeper: Bookkeeper, clock: Clock) -> None:
        """Begin with nothing spent.

        Raises:
            ConfigurationError: The budget is of a sliding time, which only a journal can keep.
        """
        if budget is not None and budget.per is not None and not bookkeeper.has_journal:
            raise ConfigurationError(
                "A Budget with `per` counts what earlier sessions sent, too, and needs a journal: "
                "FineVoiceSession(journal='effects.db')."
            )
        self._budget = budget
        self._bookkeeper = bookkeeper
        self._clock = clock
        # All mutable state:
        self._count = 0  # spent in this session; with `per`, in the time that counts
        self._left_at: OrderedDict[Spent, float] = (
            OrderedDict()
        )  # with `per`: when, by the monotonic clock; inf: not yet

    async def open(self) -> None:
        """Learn from the journal what was spent before. After a failure it may be tried again.

        Raises:
            JournalError: It could not be read.
        """
        if self._budget is None or self._budget.per is None:
            return
        today = self._clock.utcnow()
        sent = await self._bookkeeper.sent_since(today - min(self._budget.per, today - _BEGINNING))
        now, today = self._clock.monotonic(), self._clock.utcnow()
        # One from the future, by a clock that was set back since, has just left.
        self._left_at = OrderedDict((object(), now - max((today - at).total_seconds(), 0.0)) for at in sent)
        self._count = len(self._left_at)

    def spend(self, request: SfxRequest) -> Spent:
        """Spend one submission.

        Raises:
            BudgetExceededError: There is none left.
        """
        spent = object()
        if self._budget is None:
            return spent
        now = self._clock.monotonic()
        self._forget(now)
        if self._count >= self._budget.effects:
            words = self._words(self._budget, now)
            raise BudgetExceededError(
                f"{words} Nothing was sent and nothing paid.",
                request=request,
                retry_after=self._free_in(self._budget, now),
            )
        self._count += 1
        if self._budget.per is not None:
            self._left_at[spent] = math.inf
        return spent

    def leaves(self, spent: Spent) -> None:
        """Its POST leaves now: the time for which it counts begins here, and not before the disk was written."""
        if spent in self._left_at:
            self._left_at[spent] = self._clock.monotonic()
            self._left_at.move_to_end(spent)

    def give_back(self, spent: Spent) -> None:
        """It certainly was not accepted. Once for each."""
        if self._budget is None:
            return
        if self._budget.per is None or self._left_at.pop(spent, None) is not None:  # else it counts no more anyhow
            self._count -= 1

    def _forget(self, now: float) -> None:
        """Forget what left so long ago that it counts no more."""
        if self._budget is None or self._budget.per is None:
            return
        seconds = self._budget.per.total_seconds()
        while self._left_at and now - next(iter(self._left_at.values())) >= seconds:
            self._left_at.popitem(last=False)
            self._count -= 1

    def _words(self, budget: Budget, now: float) -> str:
        if budget.per is None:
            return (
                f"The budget is spent: {self._count} submissions of {budget.effects} in this session. More need a new "
                "session."
            )
        left = timedelta(seconds=self._free_in(budget, now) or 0)
        return (
            f"The budget is spent: {self._count} submissions of {budget.effects} in {budget.per}. The next is free in "
            f"{left}, at the latest."
        )

    def _free_in(self, budget: Budget, now: float) -> float | None:
        """Return the seconds until a submission is free again, at the latest; None: not in this session."""
        if budget.per is None:
            return None
        # So many must go: a session before may have had a larger budget.
        last = min(next(itertools.islice(self._left_at.values(), self._count - budget.effects, None)), now)
        return min(math.ceil(last + budget.per.total_seconds() - now), _MOST_SECONDS)
