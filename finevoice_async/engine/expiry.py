"""A time limit for each of many waits, with one timer for all that have the same limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from finevoice_async.ports import Clock, Timer

T = TypeVar("T")


class Expiry(Generic[T]):
    """Calls back with each item that has stayed for `seconds`, and forgets it.

    All stay equally long, so that the oldest is the next to go. A timer for each would be five more objects an item.
    """

    def __init__(self, seconds: float, clock: Clock, on_expired: Callable[[T], None]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._on_expired = on_expired
        # All mutable state:
        self._ends: dict[T, float] = {}  # oldest first
        self._timer: Timer | None = None  # there is one while there are items

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, item: T) -> None:
        """Start an item's time."""
        self._ends[item] = end = self._clock.monotonic() + self._seconds
        if self._timer is None:
            self._timer = self._clock.call_at(end, self._look)

    def discard(self, item: T) -> None:
        """Forget an item, if it is there."""
        self._ends.pop(item, None)
        if not self._ends and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        now = self._clock.monotonic()
        expired = []
        for item, end in self._ends.items():
            if end > now:
                self._timer = self._clock.call_at(end, self._look)
                break
            expired.append(item)
        for item in expired:
            self._ends.pop(item, None)
        for item in expired:
            self._on_expired(item)
