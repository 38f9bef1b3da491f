"""When to ask for a task next. Pure: ages and luck are arguments."""

from __future__ import annotations

from typing import Any, Protocol

import attrs

from finevoice_async.config import Polling

JITTER = 0.1
"""Share of a gap that is drawn by chance, so that a burst of tasks is not polled in step."""


@attrs.frozen(kw_only=True)
class Estimate:
    """How much longer a task will take, in seconds.

    Attributes:
        median: It ends before this with even odds.
        p90: It ends before this nine times in ten.
    """

    median: float
    p90: float


class Schedule(Protocol):
    """Says when to ask, and learns from the answers. Ages are seconds since submission."""

    def gap(self, age: float, duration: float | None = None, *, busy: bool = False) -> float:
        """Give the seconds until the next poll of a task that is known to run at `age`.

        Args:
            age: The task's age.
            duration: Seconds of sound that were asked for, if known.
            busy: Requests wait for a place, so a late notice costs more.
        """
        ...

    def running(self, last: float, age: float, duration: float | None = None) -> None:
        """A poll at `age` found the task running; the one before was at `last`."""
        ...

    def finished(self, last: float, age: float, duration: float | None = None) -> None:
        """A poll at `age` found the task ended; at `last` it was running."""
        ...

    def odds(self, last: float, age: float, duration: float | None = None) -> float:
        """Give the accumulated odds that a task has ended since its poll at `last`: to choose among the overdue."""
        ...

    def estimate(self, age: float, duration: float | None = None) -> Estimate | None:
        """Give how much longer a task of this age will take; None before anything is known."""
        ...

    def state(self) -> dict[str, Any]:
        """Give what was learned, as plain data."""
        ...


@attrs.frozen
class FixedSchedule:
    """Asks at a fixed interval, as the vendor advises. Learns nothing.

    Attributes:
        interval: Seconds between two polls of a task.
    """

    interval: float

    def gap(self, age: float, duration: float | None = None, *, busy: bool = False) -> float:  # noqa: ARG002 - fixed
        """Give the interval."""
        return self.interval

    def running(self, last: float, age: float, duration: float | None = None) -> None:
        """Learn nothing."""

    def finished(self, last: float, age: float, duration: float | None = None) -> None:
        """Learn nothing."""

    def odds(self, last: float, age: float, duration: float | None = None) -> float:  # noqa: ARG002 - not learned
        """Give the seconds since the last poll."""
        return age - last

    def estimate(self, age: float, duration: float | None = None) -> Estimate | None:  # noqa: ARG002 - not learned
        """Give None: nothing is known."""
        return None

    def state(self) -> dict[str, Any]:
        """Give no data: nothing was learned."""
        return {}


def make_schedule(polling: Polling) -> Schedule:
    """Make the schedule that the options ask for."""
    return FixedSchedule(polling.interval)


def jittered(gap: float, luck: float) -> float:
    """Shift a gap by up to half of `JITTER` to either side; `luck` is drawn evenly from [0, 1)."""
    return gap * (1 + JITTER * (luck - 0.5))
