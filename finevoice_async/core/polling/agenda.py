"""Who is to be polled now: a heap of due times, and a budget of polls a second.

Decided here, done elsewhere: `Agenda.ripen` and `Agenda.pick` say whom to ask, `next_due` and `PollBudget.ready_at`
say when to look again. While the budget suffices, tasks are asked as they fall due. Beyond it, those are asked whose
accumulated odds of having ended are largest, found among a sample of the overdue: first come, first served would
spend the budget on tasks that are hardly worth a look.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import attrs

SAMPLE = 32
"""How many of the overdue are compared. The best of 32 is among the best 10 % with a chance of 97 %."""


_ROUNDING = 1e-6  # of a poll: else a bucket that lacks a rounding error would be looked at over and over


class Due(Protocol):
    """Anything with a due time. Times are seconds of the session's monotonic clock."""

    due: float
    """When to ask next; infinity while a poll is under way, or when nothing is to be asked any more."""


T = TypeVar("T", bound=Due)


class Agenda(Generic[T]):
    """The due times of any number of items, each in it once.

    An item's own `due` is the truth; a heap entry that disagrees is stale and skipped.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, T]] = []
        self.overdue: deque[T] = deque()  # ripe, not picked; roughly in the order in which they fell due
        self._count = 0  # breaks ties, so that items are never compared

    def add(self, item: T, due: float) -> None:
        """Set an item's due time, whatever it was before."""
        item.due = due
        self._count += 1
        heapq.heappush(self._heap, (due, self._count, item))

    def ripen(self, now: float) -> None:
        """Move what is due by `now` among the overdue."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            due, _, item = heapq.heappop(heap)
            if item.due == due:
                item.due = float("inf")  # so that a second entry with the same time is stale
                self.overdue.append(item)

    def first(self) -> T | None:
        """Take the one that has been due longest, or None: the choice while the budget suffices."""
        return self.overdue.popleft() if self.overdue else None

    def likeliest(self, odds: Callable[[T], float], draw: Callable[[int], int]) -> T | None:
        """Take the likeliest of a sample of the overdue, or None: the choice when the budget is short.

        Args:
            odds: How likely an item has ended, on any scale.
            draw: Returns a random index below its argument.
        """
        ripe = self.overdue
        if not ripe:
            return None
        indexes = range(len(ripe)) if len(ripe) <= SAMPLE else [draw(len(ripe)) for _ in range(SAMPLE)]
        best = max(indexes, key=lambda index: odds(ripe[index]))
        ripe[best], ripe[-1] = ripe[-1], ripe[best]
        return ripe.pop()

    def next_due(self) -> float | None:
        """Return the next due time, or None if there is none."""
        heap = self._heap
        while heap and heap[0][2].due != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None


@attrs.define(eq=False)
class PollBudget:
    """A token bucket of polls, whose rate sinks when the service says 429 and recovers with its answers.

    Attributes:
        rate: Polls a second at most; the bucket holds one second's worth, at least one.
    """

    rate: float
    _tokens: float = attrs.field(init=False)
    _current: float = attrs.field(init=False)  # the rate now
    _filled_at: float = attrs.field(init=False, default=float("-inf"))
    _paused_until: float = attrs.field(init=False, default=float("-inf"))

    def __attrs_post_init__(self) -> None:
        self._tokens = self._size
        self._current = self.rate

    @property
    def _size(self) -> float:
        return max(self.rate, 1.0)

    def available(self, now: float) -> int:
        """Return how many polls may start now."""
        if now < self._paused_until:
            return 0
        if now > self._filled_at:
            if self._filled_at > float("-inf"):
                self._tokens = min(self._size, self._tokens + (now - self._filled_at) * self._current)
            self._filled_at = now
        return int(self._tokens + _ROUNDING)

    def spend(self) -> None:
        """A poll starts."""
        self._tokens -= 1

    def ready_at(self, now: float) -> float:
        """Return when the next poll may start."""
        return max(now, self._paused_until, self._filled_at + max(0.0, 1 - self._tokens) / self._current)

    def slow_down(self, until: float) -> None:
        """The service said 429: no poll before `until`, and half the rate from then on."""
        if until > self._paused_until:
            self._paused_until = until
            self._current = max(self._current / 2, min(self.rate, 0.1))

    def answered(self) -> None:
        """The service answered: the rate recovers by a twentieth."""
        if self._current < self.rate:
            self._current = min(self.rate, self._current * 1.05)
