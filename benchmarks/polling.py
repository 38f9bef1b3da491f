"""How well the learned schedule polls, on a virtual clock.

    python benchmarks/polling.py                   the tables, as Markdown
    python benchmarks/polling.py --check           and exit with 1 when a required figure is missed
    python benchmarks/polling.py --quick           a few seconds, with some slack for the smaller samples
    python benchmarks/polling.py --mutant          with a schedule that takes the moment of notice for the end
    python benchmarks/polling.py --picture FILE    draw polls against lag (needs the `bench` extra)

Times are drawn from seeds, so that every run prints the same. The optimum of each law is computed here, by dynamic
programming with the law known: no schedule that does not see the future can be better.
"""

from __future__ import annotations

import argparse
import heapq
import importlib
import math
import random
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Protocol

import attrs

from finevoice_async.config import Polling
from finevoice_async.core.polling.schedule import LearnedSchedule, Schedule, jittered, make_schedule, moved
from finevoice_async.engine.answers import TICK

COST = 0.4
"""Seconds of lag that one poll is worth: the default of `Polling`."""

DEADLINE = 600.0
"""When a task is given up, in seconds."""

WARM = 300
"""Tasks of a run that are left out of its steady state."""

DURATIONS = (2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 30.0)


# Laws: how long tasks take


@attrs.frozen
class Law:
    """A distribution of times.

    Attributes:
        name: As in the tables.
        draw: Draws a time.
        survival: The share of tasks that take longer.
        limit: The required cost over optimum.
    """

    name: str
    draw: Callable[[random.Random], float]
    survival: Callable[[float], float]
    limit: float = math.inf

    def sample(self, count: int, seed: int) -> list[float]:
        """Draw times."""
        rng = random.Random(seed)
        return [self.draw(rng) for _ in range(count)]


def lognormal(median: float, sigma: float, limit: float = math.inf) -> Law:
    """Give the law whose log is normal."""

    def survival(time: float) -> float:
        return 1.0 if time <= 0 else 0.5 * math.erfc(math.log(time / median) / (sigma * math.sqrt(2)))

    return Law(
        f"LN({median:g}, {sigma:g})".replace("0.", "."),
        lambda rng: median * math.exp(rng.gauss(0, sigma)),
        survival,
        limit,
    )


def mixture(name: str, share: float, rare: Law, usual: Law, limit: float) -> Law:
    """Give the law that is `rare` for a share of the tasks."""
    return Law(
        name,
        lambda rng: (rare if rng.random() < share else usual).draw(rng),
        lambda time: share * rare.survival(time) + (1 - share) * usual.survival(time),
        limit,
    )


TYPICAL = lognormal(8, 0.35, 1.04)
SLOW = lognormal(24, 0.35)
SCALE = 8 / math.gamma(4 / 3)
NEVER = Law("never", lambda _: math.inf, lambda _: 1.0)
BIMODAL = mixture("bimodal .5 / 12", 0.3, lognormal(0.5, 0.2), lognormal(12, 0.25), 1.18)
LOST = mixture("0.5 % lost", 0.005, NEVER, TYPICAL, 1.08)
LONG = lognormal(60, 0.35, 1.07)
LAWS = [
    TYPICAL,
    lognormal(8, 0.8, 1.04),
    Law("exponential 8", lambda rng: rng.expovariate(1 / 8), lambda time: math.exp(-time / 8), 1.04),
    Law("Weibull 3, 8", lambda rng: rng.weibullvariate(SCALE, 3), lambda time: math.exp(-((time / SCALE) ** 3)), 1.04),
    BIMODAL,
    LONG,
    mixture("1 % x20", 0.01, lognormal(160, 0.35), TYPICAL, 1.06),
    LOST,
]


# Policies: when to poll


class Policy(Protocol):
    """Says when to poll, and is told what polls found."""

    def gap(self, age: float, polls: int, duration: float | None, *, busy: bool) -> float:
        """Give the seconds until the next poll of a task that was polled so often."""
        ...

    def running(self, last: float, age: float, duration: float | None) -> None:
        """Hear that a task was found running."""
        ...

    def finished(self, last: float, age: float, duration: float | None) -> None:
        """Hear that a task was found ended."""
        ...


class Deaf:
    """Learns nothing."""

    def running(self, last: float, age: float, duration: float | None) -> None:
        """Learn nothing."""

    def finished(self, last: float, age: float, duration: float | None) -> None:
        """Learn nothing."""


@attrs.frozen
class Backoff(Deaf):
    """Waits grow by a factor up to a most; by 1, they are fixed."""

    first: float
    factor: float = 1.0
    most: float = math.inf

    def gap(self, age: float, polls: int, duration: float | None, *, busy: bool) -> float:  # noqa: ARG002
        """Give the seconds until the next poll."""
        return min(self.most, self.first * self.factor ** min(polls, 50))


@attrs.frozen
class Listed(Deaf):
    """Polls at listed ages: what the optimum for a known law comes to."""

    ages: Sequence[float]

    def gap(self, age: float, polls: int, duration: float | None, *, busy: bool) -> float:  # noqa: ARG002
        """Give the seconds until the next poll."""
        return self.ages[min(polls, len(self.ages) - 1)] - age


@attrs.frozen
class Learned:
    """The library's schedule."""

    schedule: Schedule = attrs.field(factory=lambda: LearnedSchedule(Polling(poll_cost=COST)))

    def gap(self, age: float, polls: int, duration: float | None, *, busy: bool) -> float:  # noqa: ARG002
        """Give the seconds until the next poll."""
        return self.schedule.gap(age, duration, busy=busy)

    def running(self, last: float, age: float, duration: float | None) -> None:
        """Learn that a task was found running."""
        self.schedule.running(last, age, duration)

    def finished(self, last: float, age: float, duration: float | None) -> None:
        """Learn that a task was found ended."""
        self.schedule.finished(last, age, duration)


class Mutant(Learned):
    """The mistake that the schedule must not make: it takes the moment of notice for the moment of the end."""

    def finished(self, last: float, age: float, duration: float | None) -> None:
        """Learn something wrong."""
        self.schedule.running(last, age, duration)
        self.schedule.finished(age, age, duration)


RIVALS: dict[str, Callable[[], Policy]] = {
    "fixed 2 s": lambda: Backoff(2.0),
    "fixed 2.5 s": lambda: Backoff(2.5),
    "backoff 0.5 s x1.5 to 10 s": lambda: Backoff(0.5, 1.5, 10.0),
    "backoff 1 s x2 to 30 s": lambda: Backoff(1.0, 2.0, 30.0),
}


# The virtual clock


@attrs.define
class Run:
    """What happened to some tasks. A task that was given up has no lag."""

    polls: list[int] = attrs.field(factory=list)
    lags: list[float] = attrs.field(factory=list)
    makespan: float = 0.0

    def part(self, start: int, stop: int | None = None) -> Run:
        """Give the run of some of the tasks."""
        return Run(self.polls[start:stop], self.lags[start:stop], self.makespan)

    def __add__(self, other: Run) -> Run:
        return Run(self.polls + other.polls, self.lags + other.lags, self.makespan + other.makespan)

    @property
    def mean_polls(self) -> float:
        """Polls per task."""
        return mean(self.polls)

    @property
    def mean_lag(self) -> float:
        """Of the tasks whose end was noticed."""
        return mean(lag for lag in self.lags if not math.isnan(lag))

    @property
    def p95_lag(self) -> float:
        """The lag that one task in twenty exceeds."""
        noticed = sorted(lag for lag in self.lags if not math.isnan(lag))
        return noticed[int(0.95 * len(noticed))]

    @property
    def cost(self) -> float:
        """Seconds per task, with polls at their price."""
        return COST * self.mean_polls + self.mean_lag


def mean(values: Iterable[float]) -> float:
    """Give the mean."""
    numbers = list(values)
    return sum(numbers) / len(numbers)


def total(runs: Iterable[Run]) -> Run:
    """Give all runs as one."""
    whole = Run()
    for run in runs:
        whole += run
    return whole


def play(
    times: Sequence[float],
    policy: Policy,
    *,
    places: int = 5,
    durations: Sequence[float] | None = None,
    hurried: bool = False,
) -> Run:
    """Run tasks that take these times, as many at once as there are places; the end of one lets in the next.

    Args:
        times: How long each task takes.
        policy: When to poll.
        places: How many run at once.
        durations: The lengths of the effects, if the policy may know them.
        hurried: Polls are cheaper while tasks wait for a place.
    """
    run, started = Run([0] * len(times), [math.nan] * len(times)), 0
    due: list[tuple[float, int, float, float]] = []  # when, which, since when, age at the last poll

    def gap(task: int, age: float) -> float:
        busy = hurried and started < len(times)
        return policy.gap(age, run.polls[task], durations[task] if durations else None, busy=busy)

    def start(now: float) -> None:
        nonlocal started
        if started < len(times):
            task, started = started, started + 1
            heapq.heappush(due, (now + gap(task, 0.0), task, now, 0.0))

    for _ in range(places):
        start(0.0)
    while due:
        now, task, since, last = heapq.heappop(due)
        age, duration = now - since, durations[task] if durations else None
        run.polls[task] += 1
        run.makespan = max(run.makespan, now)
        if age >= times[task]:
            run.lags[task] = age - times[task]
            policy.finished(last, age, duration)
            start(now)
            continue
        policy.running(last, age, duration)
        if age >= DEADLINE:
            start(now)
        else:
            wait = min(gap(task, age), DEADLINE - age)
            heapq.heappush(due, (now + max(wait, 1e-3), task, since, age))
    return run


def ideal(times: Sequence[float], places: int) -> float:
    """Give the makespan without any lag: the list schedule."""
    free = [0.0] * places
    for time in times:
        heapq.heapreplace(free, free[0] + time)
    return max(free)


# The first effects of a session


@attrs.frozen
class Start:
    """So many effects that a new session is given at once.

    Attributes:
        effects: How many.
        places: How many run at once; the others wait for a place.
        seeds: How often it is played.
    """

    effects: int
    places: int
    seeds: int

    def __str__(self) -> str:
        return f"{self.effects} at once" if self.effects == self.places else f"{self.effects} at {self.places} places"


ALONE = Start(1, 1, 400)
TEN = Start(10, 10, 30)
HUNDRED = Start(100, 100, 4)
QUEUED = Start(300, 5, 4)

COLD_LAWS = [
    Law("constant 6", lambda _: 6.0, lambda time: float(time < 6)),
    lognormal(6, 0.2),
    lognormal(8, 0.35),
    lognormal(20, 0.35),
    lognormal(60, 0.35),
    Law("exponential 8", lambda rng: rng.expovariate(1 / 8), lambda time: math.exp(-time / 8)),
]
"""From the shortest to the longest that a service like this is likely to have, one without any spread and one all."""

COLD_LIMITS = {
    ALONE: (1.0, 1.0, 1.02, 1.08, 0.9, 1.1),
    TEN: (0.6, 0.95, 1.0, 1.02, 0.75, 1.06),
    HUNDRED: (0.6, 0.95, 1.0, 1.02, 0.75, 1.06),
    QUEUED: (0.4, 0.7, 0.85, 0.8, 0.6, 1.1),
}
"""The required cost over that of the vendor's fixed 2.5 s, by law."""


@attrs.define
class Wave:
    """The first effects of a session, polled as `engine.poller` does, by a service that answers at once."""

    times: Sequence[float]
    places: int
    schedule: Schedule
    rng: random.Random
    replans: bool = True  # else due times stay where they were first planned
    run: Run = attrs.field(init=False)
    _last: list[float] = attrs.field(init=False)  # ages at the last poll
    _born: dict[int, float] = attrs.field(factory=dict)  # of those that run
    _due: dict[int, float] = attrs.field(factory=dict)
    _heap: list[tuple[float, int]] = attrs.field(factory=list)  # entries that disagree with `_due` are stale
    _started: int = 0
    _luck: random.Random = attrs.field(factory=lambda: random.Random(1))  # of its own, so that jitter stays the same

    def __attrs_post_init__(self) -> None:
        self.run = Run([0] * len(self.times), [math.nan] * len(self.times))
        self._last = [0.0] * len(self.times)

    def _gap(self, task: int) -> float:
        return self.schedule.gap(self._last[task], None, busy=self._started < len(self.times))

    def _put(self, task: int, due: float) -> None:
        self._due[task] = due
        heapq.heappush(self._heap, (due, task))

    def _plan(self, task: int) -> None:
        gap = max(jittered(self._gap(task), self.rng.random()), Polling().min_gap)
        self._put(task, self._born[task] + self._last[task] + gap)

    def _start(self, now: float) -> None:
        if self._started < len(self.times):
            task, self._started = self._started, self._started + 1
            self._born[task] = now
            self._plan(task)

    def _replan(self, now: float) -> None:
        for task, born in self._born.items():
            due = moved(self._due[task], born + self._last[task], self._gap(task), now, self._luck.random(), TICK)
            if due is not None:
                self._put(task, due)

    def play(self) -> Run:
        """Poll until all have ended."""
        for _ in range(self.places):
            self._start(0.0)
        edition = self.schedule.edition
        while self._born:
            now, task = heapq.heappop(self._heap)
            if self._due.get(task) != now:
                continue
            self.run.polls[task] += 1
            age, last = now - self._born[task], self._last[task]
            if age < self.times[task]:
                self.schedule.running(last, age)
                self._last[task] = age
                self._plan(task)
            else:
                self.schedule.finished(last, age)
                self.run.lags[task] = age - self.times[task]
                del self._born[task], self._due[task]
                self._start(now)
            if self.replans and self.schedule.edition != edition:
                edition = self.schedule.edition
                self._replan(now)
        return self.run


def first_effects(law: Law, start: Start, polling: Polling, first_seed: int = 0, *, replans: bool = True) -> Run:
    """Play the first effects of a session from several seeds; each draws the times, and then the jitter."""
    runs = []
    for seed in range(first_seed, first_seed + start.seeds):
        rng = random.Random(seed)
        times = [law.draw(rng) for _ in range(start.effects)]
        runs.append(Wave(times, start.places, make_schedule(polling), rng, replans).play())
    return total(runs)


# The optimum with the law known


@attrs.frozen
class Optimum:
    """The best that can be done: its expected cost per task, and when it polls."""

    cost: float
    ages: list[float]


@cache
def optimum(law: Law, price: float = COST) -> Optimum:
    """Compute the optimum on a grid of ages, from the deadline backwards.

    The cost of what is to come for a task found running at age x is the least, over the age y of the next poll, of the
    poll's price, the expected lag of an end between x and y, and S(y)/S(x) times the cost of what is to come at y.
    A task that lives to the deadline costs its polls, but no lag.
    """
    ages = [0.0]
    while ages[-1] < DEADLINE:
        ages.append(min(ages[-1] + max(0.02, 0.008 * ages[-1]), DEADLINE))
    alive = [max(law.survival(age), 1e-15) for age in ages]
    lived = [0.0]  # the integral of S, by Simpson's rule
    for index in range(1, len(ages)):
        middle = law.survival((ages[index - 1] + ages[index]) / 2)
        width = ages[index] - ages[index - 1]
        lived.append(lived[-1] + width * (alive[index - 1] + 4 * middle + alive[index]) / 6)
    last = len(ages) - 1
    ahead, best = [0.0] * len(ages), [last] * len(ages)  # ahead: S times the cost of what is to come
    # What depends on y alone, so that the inner loop is short.
    tail = [-time for time in lived]
    for x in range(last - 1, -1, -1):
        share, age = alive[x], ages[x]
        costs = [share * ages[y] + tail[y] for y in range(x + 1, last + 1)]
        least = min(costs)
        best[x] = x + 1 + costs.index(least)
        ahead[x] = share * (price - age) + least + lived[x]
        tail[x] += ahead[x]
    path = [best[0]]
    while path[-1] < last:
        path.append(best[path[-1]])
    return Optimum(ahead[0], [ages[index] for index in path])


# Required figures


@attrs.define
class Report:
    """Prints the tables and gathers the required figures.

    Attributes:
        slack: By how much a smaller sample may miss a figure: 1.05 lets 5 % pass.
        out: Where lines go.
        missed: The figures that were missed.
    """

    slack: float = 1.0
    out: Callable[[str], None] = print
    missed: list[str] = attrs.field(factory=list)
    _figures: list[list[str]] = attrs.field(factory=list)

    def table(self, title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Print a Markdown table."""
        self.out(f"\n### {title}\n")
        for row in (head, ["---"] * len(head), *rows):
            self.out("| " + " | ".join(row) + " |")

    def most(self, name: str, value: float, limit: float) -> None:
        """Require a figure to be at most so much."""
        self._require(name, value, f"<= {limit:g}", met=value <= limit * self.slack)

    def least(self, name: str, value: float, limit: float) -> None:
        """Require a figure to be at least so much."""
        self._require(name, value, f">= {limit:g}", met=value >= limit / self.slack)

    def _require(self, name: str, value: float, rule: str, *, met: bool) -> None:
        self._figures.append([name, f"{value:.3f}", rule, "yes" if met else "**no**"])
        if not met:
            self.missed.append(f"{name}: {value:.3f}, required {rule}")

    def figures(self) -> None:
        """Print the required figures."""
        slack = "" if self.slack == 1 else f", with {self.slack - 1:.0%} of slack"
        self.table(f"Required figures{slack}", ["figure", "measured", "required", "reached"], self._figures)


@attrs.frozen
class Size:
    """How much to simulate."""

    seeds: int = 3
    tasks: int = 3000
    cold_seeds: int = 50
    step_seeds: int = 5
    makespan_seeds: int = 20
    calibrated: int = 2000


FULL = Size()
QUICK = Size(seeds=1, tasks=1500, cold_seeds=20, step_seeds=3, makespan_seeds=6, calibrated=1000)


# The sections


def steady_state(law: Law, make: Callable[[], Policy], size: Size) -> Run:
    """Run a law from each seed, and leave out the tasks while it learns."""
    seeds = range(1, size.seeds + 1)
    return total(play(law.sample(size.tasks, seed), make()).part(WARM) for seed in seeds)


def steady(report: Report, make: Callable[[], Policy], size: Size) -> None:
    """Compare the policies once they know the law."""
    rows = []
    for law in LAWS:
        best = optimum(law)
        policies: dict[str, Callable[[], Policy]] = {**RIVALS, "this schedule": make}
        policies["optimum, law known"] = partial(Listed, best.ages)
        for name, policy in policies.items():
            run = steady_state(law, policy, size)
            cost = run.cost / best.cost
            numbers = [run.mean_polls, run.mean_lag, run.p95_lag]
            rows.append([law.name, name, *(f"{number:.2f}" for number in numbers), f"{cost:.3f}"])
            if policy is make:
                report.most(f"cost over optimum, {law.name}", cost, law.limit)
    head = ["law", "policy", "polls", "mean lag, s", "p95 lag, s", "cost / optimum"]
    report.table(f"Steady state: polls per task and lag, a poll worth {COST} s", head, rows)
    report.out("\nThe optimum is an expected value, which chance lets a sample undercut by up to 1 %.")


def same_lag(report: Report, make: Callable[[], Policy], size: Size) -> None:
    """Compare with the fixed interval that has the same mean lag."""
    rows = []
    for law in LAWS:
        run = steady_state(law, make, size)
        interval = 2 * run.mean_lag
        for _ in range(2):  # the lag is about half the interval; correct it twice
            interval *= run.mean_lag / steady_state(law, partial(Backoff, interval), size).mean_lag
        fixed = steady_state(law, partial(Backoff, interval), size)
        ratio = fixed.mean_polls / run.mean_polls
        polls = [f"{run.mean_polls:.2f}", f"{fixed.mean_polls:.2f}"]
        rows.append([law.name, f"{run.mean_lag:.2f}", f"{interval:.2f}", *polls, f"{ratio:.2f}"])
        if law is TYPICAL:
            report.least(f"polls of a fixed interval with the same lag, {law.name}", ratio, 1.7)
    head = ["law", "mean lag, s", "interval, s", "polls, this schedule", "polls, fixed", "times as many"]
    report.table("The fixed interval with the same lag", head, rows)


def cold_start(report: Report, make: Callable[[], Policy], size: Size) -> None:
    """Show what learning costs."""
    rows = []
    for law in (TYPICAL, LAWS[1], LONG):
        runs = [play(law.sample(100, seed), make()) for seed in range(1, size.cold_seeds + 1)]
        parts = {"1-5": (0, 5, 1.9), "6-20": (5, 20, 1.2), "21-100": (20, 100, 1.08)}
        row = [law.name]
        for name, (start, stop, limit) in parts.items():
            cost = total(run.part(start, stop) for run in runs).cost / optimum(law).cost
            row.append(f"{cost:.3f}")
            if law is TYPICAL:
                report.most(f"cold start, {law.name}, tasks {name}", cost, limit)
        rows.append(row)
    report.table("Cold start: cost over optimum", ["law", *(f"tasks {name}" for name in parts)], rows)


def waves(report: Report, _: Callable[[], Policy], size: Size) -> None:
    """Compare the first effects of a session with the vendor's fixed 2.5 s. Always the library's own schedule."""
    rows = []
    for index, law in enumerate(COLD_LAWS):
        row = [law.name]
        for start, limits in COLD_LIMITS.items():
            if size is not FULL and start is QUEUED:
                continue
            ours, fixed = (first_effects(law, start, polling) for polling in (Polling(), Polling.fixed(2.5)))
            ratio = ours.cost / fixed.cost
            row += [f"{ours.mean_polls:.2f}", f"{ours.mean_lag:.2f}", f"{ratio:.3f}"]
            report.most(f"cold, {start}, {law.name}", ratio, limits[index])
        rows.append(row)
    starts = [start for start in COLD_LIMITS if size is FULL or start is not QUEUED]
    head = ["law", *(words for start in starts for words in (f"{start}: polls", "lag, s", "cost / fixed"))]
    report.table("The first effects of a session: cost over that of fixed 2.5 s", head, rows)


def steps(report: Report, make: Callable[[], Policy], size: Size) -> None:
    """Show how fast a change of pace is learned."""
    rows = []
    for before, after in ((SLOW, TYPICAL), (TYPICAL, SLOW)):
        name = f"{before.name} to {after.name}"
        runs = [
            play(before.sample(1000, seed) + after.sample(400, seed + 100), make())
            for seed in range(1, size.step_seeds + 1)
        ]
        parts = {"1-50": (1000, 1050, 2.0), "51-200": (1050, 1200, 1.2), "201-400": (1200, 1400, 1.08)}
        row = [name]
        for part, (start, stop, limit) in parts.items():
            cost = total(run.part(start, stop) for run in runs).cost / optimum(after).cost
            row.append(f"{cost:.3f}")
            report.most(f"step {name}, tasks {part} after it", cost, limit)
        rows.append(row)
    report.table("A change of pace: cost over optimum", ["step", *(f"tasks {part}" for part in parts)], rows)


def lost(report: Report, make: Callable[[], Policy], _: Size) -> None:
    """Count the polls of tasks that never end. They are few, so the size is always the full one."""
    polls: list[int] = []
    for seed in range(1, FULL.seeds + 1):
        times = LOST.sample(FULL.tasks, seed)
        polls += [count for count, time in zip(play(times, make()).polls, times, strict=True) if time == math.inf]
    report.most(f"polls of a lost task in {DEADLINE:g} s", mean(polls), 36)
    rows = [["this schedule", f"{mean(polls):.1f}"], ["fixed 2 s", f"{DEADLINE / 2:.0f}"]]
    report.table(f"Lost tasks: polls in {DEADLINE:g} s", ["policy", "polls"], rows)


def makespan(report: Report, make: Callable[[], Policy], size: Size) -> None:
    """Show what lag costs in throughput."""
    rows = []
    for law, places in ((TYPICAL, 5), (TYPICAL, 10), (BIMODAL, 5), (BIMODAL, 10)):
        samples = [law.sample(200, seed) for seed in range(1, size.makespan_seeds + 1)]
        most_polls = math.inf
        for name, policy in {**RIVALS, "this schedule": make}.items():
            runs = [play(times, policy(), places=places, hurried=True) for times in samples]
            over = mean(run.makespan / ideal(times, places) for run, times in zip(runs, samples, strict=True))
            polls = total(runs).mean_polls
            rows.append([law.name, str(places), name, f"{over:.3f}", f"{polls:.2f}"])
            most_polls = polls if name == "fixed 2 s" else most_polls
            if policy is make and law is TYPICAL and places == 5:
                report.most("makespan of 200 tasks at 5 places over ideal", over, 1.09)
                report.most("polls per task for it, over those of fixed 2 s", polls / most_polls, 1.0)
    head = ["law", "places", "policy", "makespan / ideal", "polls"]
    report.table("Makespan of 200 tasks, cold start included", head, rows)


def covariate(report: Report, make: Callable[[], Policy], size: Size) -> None:
    """Show what knowing the effects' durations is worth."""
    medians: dict[str, Callable[[float], float]] = {
        "proportional to duration": lambda duration: duration,
        "3 s + duration / 2": lambda duration: 3 + duration / 2,
        "unrelated, 8 s": lambda _: 8.0,
    }
    rows = []
    for name, median in medians.items():
        told, untold, best = [], [], []
        for seed in range(1, size.seeds + 1):
            rng = random.Random(seed)
            durations = [rng.choice(DURATIONS) for _ in range(size.tasks)]
            laws = {duration: lognormal(median(duration), 0.35) for duration in DURATIONS}
            times = [laws[duration].draw(rng) for duration in durations]
            told.append(play(times, make(), durations=durations).part(WARM))
            untold.append(play(times, make()).part(WARM))
            bests = {duration: optimum_of_median(median(duration)).cost for duration in DURATIONS}
            best += [bests[duration] for duration in durations[WARM:]]
        cost = total(told).cost / mean(best)
        report.most(f"cost over optimum, time {name}", cost, 1.08)
        rows.append([name, f"{cost:.3f}", f"{total(untold).cost / mean(best):.3f}"])
    head = ["time", "cost / optimum", "not told the durations"]
    report.table(f"Effects of {DURATIONS[0]:g} to {DURATIONS[-1]:g} s", head, rows)


@cache
def optimum_of_median(median: float) -> Optimum:
    """Give the optimum of a law with this median."""
    return optimum(lognormal(median, 0.35))


def calibration(report: Report, size: Size) -> None:
    """Show whether nine in ten tasks end by the time that the estimate gives."""
    rows = []
    for law in LAWS:
        policy = Learned()
        early, half, asked = 0, 0, 0
        for time in law.sample(size.calibrated, 7):
            estimate = policy.schedule.estimate(0.0)
            play([time], policy, places=1)
            if estimate is not None:
                asked += 1
                half += time <= estimate.median
                early += time <= estimate.p90
        report.least(f"share that ended by the 90 % point, {law.name}", early / asked, 0.87)
        report.most(f"share that ended by the 90 % point, {law.name}", early / asked, 0.93)
        rows.append([law.name, f"{half / asked:.3f}", f"{early / asked:.3f}"])
    report.table("Estimates made at submission", ["law", "ended by the median", "by the 90 % point"], rows)


def mutant(report: Report, size: Size) -> None:
    """Show that this benchmark catches the mistake that matters most."""
    cost = steady_state(TYPICAL, Mutant, size).cost / optimum(TYPICAL).cost
    rows = [[TYPICAL.name, f"{cost:.3f}", f"{TYPICAL.limit:g}"]]
    report.table("A mutant that takes the moment of notice for the end", ["law", "cost / optimum", "required"], rows)
    report.least("cost over optimum of the mutant, which must fail", cost, TYPICAL.limit * 1.1)


def measure(report: Report, make: Callable[[], Policy], size: Size) -> None:
    """Print all sections."""
    for section in (steady, same_lag, cold_start, waves, steps, lost, makespan, covariate):
        section(report, make, size)
    calibration(report, size)
    mutant(report, size)
    report.figures()


# The picture


def fronts(law: Law, size: Size) -> dict[str, list[tuple[float, float]]]:
    """Give for each policy the points (polls, lag) that its settings reach."""

    def points(policies: Iterable[Callable[[], Policy]]) -> list[tuple[float, float]]:
        runs = [steady_state(law, policy, size) for policy in policies]
        return [(run.mean_polls, run.mean_lag) for run in runs]

    prices = [0.05 * 2**step for step in range(7)]
    intervals = [0.75 * 1.4**step for step in range(7)]
    return {
        "fixed interval": points(partial(Backoff, every) for every in intervals),
        "backoff x1.5": points(partial(Backoff, every, 1.5, 20 * every) for every in intervals),
        "this schedule": points(partial(priced, price) for price in prices),
        "optimum, law known": points(partial(Listed, optimum(law, price).ages) for price in prices),
    }


def priced(price: float) -> Learned:
    """Give the library's schedule for another price of a poll."""
    return Learned(LearnedSchedule(Polling(poll_cost=price)))


def draw(file: Path, size: Size) -> None:
    """Draw the fronts of three laws."""
    try:
        importlib.import_module("matplotlib").use("Agg")
    except ImportError:
        sys.exit("The picture needs matplotlib: pip install 'finevoice-async[bench]'.")
    plt = importlib.import_module("matplotlib.pyplot")

    figure, panes = plt.subplots(1, 3, figsize=(15, 5))
    for pane, law in zip(panes, (TYPICAL, BIMODAL, LONG), strict=True):
        for name, points in fronts(law, size).items():
            pane.loglog(*zip(*points, strict=True), marker="o", label=name)
        pane.set(title=law.name, xlabel="polls per task", ylabel="mean lag, s")
        pane.grid(visible=True, which="both", alpha=0.3)
    panes[0].legend()
    figure.tight_layout()
    figure.savefig(file)


def main(arguments: Sequence[str] | None = None, out: Callable[[str], None] = print) -> int:
    """Run from the command line; gives the exit code."""
    parser = argparse.ArgumentParser(description="How well the learned schedule polls, on a virtual clock.")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a required figure is missed")
    parser.add_argument("--quick", action="store_true", help="a few seconds instead of a minute")
    parser.add_argument("--mutant", action="store_true", help="measure a schedule with the classic mistake")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw polls against lag")
    options = parser.parse_args(arguments)
    size = QUICK if options.quick else FULL
    if options.picture:
        draw(options.picture, size)
        return 0
    report = Report(slack=1.05 if options.quick else 1.0, out=out)
    measure(report, Mutant if options.mutant else Learned, size)
    for line in report.missed:
        out(f"\nMissed: {line}")
    return 1 if options.check and report.missed else 0


if __name__ == "__main__":
    sys.exit(main())
