"""When to ask the service how a task is doing: an inspection policy on what was learned of the tasks' ends.

Every poll costs a request; every second between a task's end and its notice (the *lag*) costs a second of a paid
slot. `Polling.poll_cost`, c, is how many seconds of lag one poll is worth. When to inspect a system that fails at a
random time is an old question (Barlow, Hunter & Proschan 1963, "Optimum checking procedures"): for a task known to be
running at age x, the next poll should come at the age y that makes least

    ``c + (lag of an end between x and y) + S(y)/S(x) * V(y)``

with S the survival and V(y) the cost of what is still to come for a task found running at y. The exact V needs dynamic
programming. Keller (1974, "Optimum checking schedules for systems subject to random failure") gives it for small c:
with a poll every ``sqrt(2c/hazard)`` seconds, each second costs ``sqrt(2c * hazard)``. With the next term of the series
that a constant hazard gives, ``2c/3`` for the last poll, the minimum is where

    ``S(x)/S(y) - 1 = sqrt(2c * h(y)) + (2/3) c * h(y)``,  h(y) the hazard per second at y,

that is: poll when the odds that the task has ended reach a threshold that follows the hazard. Where the hazard falls, a
wave of ends is over and it asks at once; where it rises, it is worth waiting a little longer. With the law known, this
costs 0 to 2 % more than the optimum (`benchmarks/polling.py`); waiting until the accumulated odds are worth a poll, the
simpler rule, up to 9 %. The accumulated odds still tell which of many overdue tasks to ask first.

What polls find is news to the tasks that wait, most of all to those that began together (a *wave*): the first that are
asked are its scouts. `Schedule.edition` tells that due times may be others now, and `moved` where each of them goes.

If an effect takes longer the longer it is, one table serves all: its ages are in units of ``(duration/typical)^slope``,
the slope from a running fit of log time on log duration.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from itertools import accumulate
from operator import sub, truediv
from typing import Any, Protocol

import attrs

from finevoice_async.config import Polling
from finevoice_async.core.polling.durationfit import DurationFit
from finevoice_async.core.polling.lifetable import BINS, EDGES, END, Curve, LifeTable, spans
from finevoice_async.core.text import shorten
from finevoice_async.errors import ConfigurationError
from finevoice_async.reprs import with_safe_repr

VERSION = 1
"""Of the saved state."""

JITTER = 0.1
"""Gaps vary by so much, so that a burst of tasks is not asked for in step."""

PATIENCE = 60
"""Polls after which what was learned takes effect: fifteen tasks or so. A curve costs as much time as fifty gaps."""

SCOUTS = 4
"""At first it takes more polls than so many: two of a wave that run are no reason yet to leave the others alone."""

FIRST = 10
"""So many first ends take effect at once, each of them."""

NEWS = 2.0
"""What counts as more polls than this is news to the tasks in flight, however much is known."""

SURPRISE = 50.0
"""How many polls an end counts as that the table thought impossible, so that a changed service is followed at once."""

PER_STEP = 2
"""Costs are rounded to so many steps per factor of e, which bounds the number of plans; the optimum is flat."""

MOST_STEPS = 40
"""Costs beyond ``exp(10)`` times the usual are taken for that."""

_QUANTILES = (math.log(2), math.log(10))
_SPANS = list(spans(EDGES, 2))


@with_safe_repr
@attrs.frozen
class Estimate:
    """How long a task will still take, in seconds.

    Attributes:
        median: Half of such tasks end within it.
        p90: Nine in ten do.
    """

    median: float
    p90: float


class Schedule(Protocol):
    """When to poll. Ages are seconds since submission; `last` is the age at the poll before, 0 if there was none."""

    @property
    def edition(self) -> int:
        """It grows whenever so much was learned that the tasks in flight are better planned anew."""
        ...

    def gap(self, age: float, duration: float | None = None, *, busy: bool = False) -> float:
        """Return the seconds until the next poll of a task known to be running.

        Args:
            age: The task's age at its last poll.
            duration: The effect's length in seconds, if known.
            busy: Requests wait for a slot, so that notice is worth more.
        """
        ...

    def running(self, last: float, age: float, duration: float | None = None) -> None:
        """Learn that a task was found running."""
        ...

    def finished(self, last: float, age: float, duration: float | None = None) -> None:
        """Learn that a task was found ended, at some moment since the poll before."""
        ...

    def odds(self, last: float, age: float, duration: float | None = None) -> float:
        """Return what the wait since the last poll has cost: of many overdue tasks, the largest is asked first."""
        ...

    def estimate(self, age: float, duration: float | None = None) -> Estimate | None:
        """Return how long a running task will still take, None before anything is known."""
        ...

    def state(self) -> dict[str, Any]:
        """Return what was learned as plain data."""
        ...


@attrs.frozen
class FixedSchedule:
    """Polls at a fixed interval, and learns nothing.

    Attributes:
        interval: The interval, in seconds.
        kept: What an earlier session had learned, so that it is not lost.
    """

    interval: float
    kept: Mapping[str, Any] = attrs.field(factory=lambda: {"version": VERSION}, repr=False)

    @property
    def edition(self) -> int:
        """Stays the same."""
        return 0

    def gap(self, age: float, duration: float | None = None, *, busy: bool = False) -> float:  # noqa: ARG002
        """Return the interval."""
        return self.interval

    def running(self, last: float, age: float, duration: float | None = None) -> None:
        """Learn nothing."""

    def finished(self, last: float, age: float, duration: float | None = None) -> None:
        """Learn nothing."""

    def odds(self, last: float, age: float, duration: float | None = None) -> float:  # noqa: ARG002
        """Return the time since the last poll."""
        return age - last

    def estimate(self, age: float, duration: float | None = None) -> Estimate | None:  # noqa: ARG002
        """Know nothing."""
        return None

    def state(self) -> dict[str, Any]:
        """Return what it was given."""
        return dict(self.kept)


@attrs.define(eq=False, repr=False)
class _Plan:
    """The rule at the head of this module, worked out for one curve and one cost: a poll is two bisections.

    Attributes:
        levels: Per bin, by how much the cumulative hazard must grow for a poll in it.
        reachable: The highest cumulative hazard, of a task at its last poll, whose next poll is due by the bin's end.
        first: The gap of a task just submitted: every task asks for it.
    """

    curve: Curve
    levels: list[float]
    reachable: list[float]
    first: float = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.first = self.gap(0.0)

    @classmethod
    def make(cls, curve: Curve, cost: float) -> _Plan:
        log1p, sqrt = math.log1p, math.sqrt
        # The threshold follows a smoothed hazard: a chance dip would else look like the end of a wave.
        trend = map(truediv, spans(curve.reached, 2), _SPANS)
        double, part = 2 * cost, cost / 1.5
        levels = [log1p(sqrt(double * hazard) + part * hazard) for hazard in trend]
        # The first bin that is due is wanted. A running maximum makes the bins sorted for bisection, and hides
        # nothing: a bin before the task's own never reaches the task's hazard.
        return cls(curve, levels, list(accumulate(map(sub, curve.reached[1:], levels), max)))

    def gap(self, age: float) -> float:
        hazard = self.curve.hazard(age)
        index = bisect_left(self.reachable, hazard)
        if index == BINS:
            return math.inf
        beyond = hazard + self.levels[index] - self.curve.reached[index]
        return max(EDGES[index] + beyond / self.curve.rates[index], EDGES[index]) - age


@with_safe_repr
class LearnedSchedule:
    """Polls when an end is likely, by what it has learned.

    Args:
        polling: The options; a `state` in it is where it starts from.

    Raises:
        ConfigurationError: The state is damaged, or of another version.
    """

    def __init__(self, polling: Polling) -> None:
        self._polling = polling
        # All mutable state:
        self._table = LifeTable(max(polling.memory, 1.0))  # in units of the fit
        self._fit = DurationFit(2 * max(polling.memory, 1.0))  # a slope needs more tasks than a hazard
        self._ends = 0  # how many tasks were found ended
        self._news = 0.0  # polls learned from since the curve was made
        self._plans: dict[float, _Plan] = {}  # by cost, of this curve; a cache
        self.edition = 0  # see `Schedule`
        if polling.state is not None:
            self._load(polling.state)
        self._curve = self._table.curve()

    def __repr__(self) -> str:
        return f"<LearnedSchedule of {self._ends} ends>"

    def gap(self, age: float, duration: float | None = None, *, busy: bool = False) -> float:
        """Return the seconds until the next poll of a task known to be running; see `Schedule`."""
        polling = self._polling
        unit = self._fit.unit(duration)
        cost = polling.busy_poll_cost if busy else polling.poll_cost
        if unit != 1.0:  # shorter units make polls dearer
            steps = round(-PER_STEP * math.log(unit))
            cost *= math.exp(min(max(steps, -MOST_STEPS), MOST_STEPS) / PER_STEP)
        plan = self._plans.get(cost)
        if plan is None:
            plan = self._plans[cost] = _Plan.make(self._curve, cost)
        wait = (plan.first if age <= 0 else plan.gap(age / unit)) * unit
        return min(max(wait, polling.min_gap), polling.max_gap)

    def running(self, last: float, age: float, duration: float | None = None) -> None:
        """Learn that a task was found running."""
        unit = self._fit.unit(duration)
        self._table.running(max(last, 0.0) / unit, age / unit)
        self._learned(1.0)

    def finished(self, last: float, age: float, duration: float | None = None) -> None:
        """Learn that a task was found ended, at some moment since the poll before."""
        last, age = max(last, 0.0), max(age, 0.0)
        unit = self._fit.unit(duration)
        self._table.ended(last / unit, age / unit, self._curve)
        if duration is not None:
            self._fit.learn(duration, (last + age) / 2)
        self._ends += 1
        self._learned(math.inf if self._ends <= FIRST else 1.0 + SURPRISE * self._table.doubt**2)

    def odds(self, last: float, age: float, duration: float | None = None) -> float:
        """Return what the wait since the last poll has cost: of many overdue tasks, the largest is asked first."""
        unit = self._fit.unit(duration)
        return self._curve.odds(max(last, 0.0) / unit, age / unit) * unit

    def estimate(self, age: float, duration: float | None = None) -> Estimate | None:
        """Return how long a running task will still take, None before anything is known."""
        if not self._ends:
            return None
        unit = self._fit.unit(duration)
        born = max(age, 0.0) / unit
        hazard = self._curve.hazard(born)
        median, p90 = (min(self._curve.age(hazard + more) - born, END) * unit for more in _QUANTILES)
        return Estimate(median, p90)

    def state(self) -> dict[str, Any]:
        """Return what was learned as plain data for `Polling(state=...)`."""
        return {
            "version": VERSION,
            "ends": self._ends,
            "seen": list(self._table.seen),
            "done": list(self._table.done),
            "fit": self._fit.moments(),
        }

    def _load(self, state: Mapping[str, Any]) -> None:
        _require(state)
        if "ends" in state:
            self._ends = state["ends"]
            self._table.seen = [float(count) for count in state["seen"]]
            self._table.done = [float(count) for count in state["done"]]
            self._fit.load(state["fit"])

    def _learned(self, news: float) -> None:
        """Make a new curve when enough was learned: at first after each end, later more rarely."""
        self._news += news
        enough = min(PATIENCE, SCOUTS + self._ends // 3)
        if self._news > enough:
            self._news = 0.0
            self._curve = self._table.curve()
            self._plans.clear()
            if enough < PATIENCE or news > NEWS:  # else it differs little from the one before
                self.edition += 1


def make_schedule(polling: Polling) -> Schedule:
    """Return the schedule that the options ask for.

    Raises:
        ConfigurationError: The saved state is damaged, or of another version.
    """
    if polling.interval is None:
        return LearnedSchedule(polling)
    if polling.state is None:
        return FixedSchedule(polling.interval)
    _require(polling.state)
    return FixedSchedule(polling.interval, polling.state)


def jittered(gap: float, u: float) -> float:
    """Return a gap anywhere within 5 % of this one, for a `u` drawn evenly from 0 to 1."""
    return gap * (1 + JITTER * (u - 0.5))


def moved(due: float, asked: float, gap: float, now: float, u: float, tick: float) -> float | None:
    """Return where the due time of a waiting task goes when it is planned anew, None if it stays.

    It is brought forward to the new plan, or to some moment of the next few ticks if that has passed. It is put off to
    any moment between the two: so some of a wave keep nearly to the old plan, find its first end early if it comes
    early after all, and bring the others forward.

    Args:
        due: When it was to be polled, not before `now`.
        asked: When it was polled last, or submitted.
        gap: How long after that it would be polled by what is known now, without jitter.
        now: The time. All are seconds of one clock.
        u: Drawn evenly from 0 to 1.
        tick: The poller's tick. Two of them are not worth the move, and jitter is no new plan.
    """
    planned, slack = asked + gap, 2 * tick + gap * JITTER / 2
    if planned < due - slack:
        return min(max(planned, now + 3 * tick * u), due)
    if planned > due + slack:
        return due + (planned - due) * u
    return None


def check_state(state: object) -> None:
    """Refuse a saved state that is damaged, or not ours.

    Raises:
        ValueError: With what is wrong, to follow the name of the state in a sentence.
    """
    if not isinstance(state, Mapping):
        raise ValueError("is not a mapping")  # noqa: TRY004 - one kind of error, whatever is wrong
    version = state.get("version")
    if version != VERSION or isinstance(version, bool):
        raise ValueError(f"has version {shorten(version)}, and this library reads {VERSION}")
    if set(state) == {"version"}:
        return  # of a fixed schedule, which learned nothing
    if set(state) != {"version", "ends", "seen", "done", "fit"}:
        raise ValueError("does not have the keys of version 1")
    ends = state["ends"]
    if not isinstance(ends, int) or isinstance(ends, bool) or ends < 0:
        raise ValueError("has no count of ends")
    LifeTable.check(state["seen"], state["done"])
    DurationFit.check(state["fit"])


def _require(state: object) -> None:
    try:
        check_state(state)
    except ValueError as error:
        raise ConfigurationError(f"Polling.state {error}. Leave it out, or give one that was saved.") from error
    except Exception as error:  # a mapping or a number of the caller's own may raise anything
        raise ConfigurationError("Polling.state cannot be read. Leave it out, or give one that was saved.") from error
