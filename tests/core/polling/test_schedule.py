"""When to poll: the rule, what it learns, what it gives to people and to the next run."""

from __future__ import annotations

import importlib.util
import json
import math
import random
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strange import BrokenInt, BrokenMapping, Liar

from finevoice_async.config import Polling
from finevoice_async.core.polling.lifetable import BINS, RATIO
from finevoice_async.core.polling.schedule import (
    FixedSchedule,
    LearnedSchedule,
    Schedule,
    check_state,
    jittered,
    make_schedule,
)
from finevoice_async.errors import ConfigurationError

AGES = st.floats(-1, 1e5)
DURATIONS = st.none() | st.floats(0.1, 1000) | st.sampled_from([0.0, -1.0, math.inf, math.nan])
HISTORIES = st.lists(st.tuples(st.booleans(), AGES, AGES, DURATIONS), max_size=40)


def _feed(schedule: Schedule, history: list[tuple[bool, float, float, float | None]]) -> None:
    for is_end, last, age, duration in history:
        (schedule.finished if is_end else schedule.running)(last, age, duration)


def _live(schedule: Schedule, times: list[float], durations: list[float] | None = None) -> None:
    """Poll tasks that take these times, one after the other, as the schedule says."""
    for index, time in enumerate(times):
        duration = durations[index] if durations else None
        last, age = 0.0, schedule.gap(0.0, duration)
        while age < time:
            schedule.running(last, age, duration)
            last, age = age, age + schedule.gap(age, duration)
        schedule.finished(last, age, duration)


def _lognormal(median: float, count: int = 200, sigma: float = 0.35) -> list[float]:
    rng = random.Random(1)
    return [median * math.exp(rng.gauss(0, sigma)) for _ in range(count)]


@settings(deadline=None, max_examples=80)
@given(
    HISTORIES,
    AGES,
    DURATIONS,
    st.booleans(),
    st.builds(
        Polling,
        poll_cost=st.floats(1e-3, 1e3),
        min_gap=st.floats(0.01, 5),
        max_gap=st.floats(5, 100),
        memory=st.floats(0.1, 1e4),
    ),
)
def test_any_history_gives_sound_answers(
    history: list[tuple[bool, float, float, float | None]],
    age: float,
    duration: float | None,
    busy: bool,
    polling: Polling,
) -> None:
    """Whatever was learned, gaps are within the clamps, and odds and estimates are finite and in order."""
    schedule = LearnedSchedule(polling)
    _feed(schedule, history)
    assert polling.min_gap <= schedule.gap(age, duration, busy=busy) <= polling.max_gap
    odds = schedule.odds(age, age + 10, duration)
    assert 0 <= odds < math.inf
    estimate = schedule.estimate(age, duration)
    assert (estimate is None) == (not any(is_end for is_end, *_ in history))
    if estimate is not None:
        assert 0 <= estimate.median <= estimate.p90 < math.inf
    check_state(schedule.state())


@settings(deadline=None, max_examples=60)
@given(HISTORIES, st.lists(st.tuples(AGES, DURATIONS, st.booleans()), min_size=1, max_size=20))
def test_asking_changes_nothing(
    history: list[tuple[bool, float, float, float | None]], asked: list[tuple[float, float | None, bool]]
) -> None:
    """A schedule that was asked between all that it learned answers like one that was not."""
    curious, quiet = LearnedSchedule(Polling()), LearnedSchedule(Polling())
    for step, news in enumerate(history):
        age, duration, busy = asked[step % len(asked)]
        curious.gap(age, duration, busy=busy)
        curious.odds(age, age + 1, duration)
        curious.estimate(age, duration)
        curious.state()["seen"].clear()
        _feed(curious, [news])
        _feed(quiet, [news])
    assert curious.state() == quiet.state()
    for age, duration, busy in asked:
        assert curious.gap(age, duration, busy=busy) == quiet.gap(age, duration, busy=busy)
        assert curious.estimate(age, duration) == quiet.estimate(age, duration)
        assert curious.odds(age, age + 5, duration) == quiet.odds(age, age + 5, duration)


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 16), st.integers(0, 1000))
def test_scaled_ages_give_scaled_gaps(steps: int, seed: int) -> None:
    """If all times are so many times longer, and polls so many times dearer, gaps are that much longer.

    Once that was learned: the guess that it starts from is of seconds, and a trace of it stays.
    """
    scale, rng = RATIO**steps, random.Random(seed)
    histories = []
    for unit in (1.0, scale):
        rng.seed(seed)
        schedule = LearnedSchedule(Polling(poll_cost=0.4 * unit, min_gap=1e-6, max_gap=1e6))
        for _ in range(400):
            last = rng.uniform(0, 12)
            age = last + rng.uniform(0.1, 3)
            schedule.running(3.0 * unit, (3 + last) * unit)
            schedule.finished((3 + last) * unit, (3 + age) * unit)
        histories.append(Polling(poll_cost=0.4 * unit, min_gap=1e-6, max_gap=1e6, state=schedule.state()))
    plain, scaled = map(LearnedSchedule, histories)
    for age in (4.0, 7.0, 12.0):
        assert scaled.gap(age * scale) == pytest.approx(plain.gap(age) * scale, rel=0.15)


def test_constant_hazard_gives_the_optimum_of_1963() -> None:
    """Tasks that end at random are polled about as often as Barlow, Hunter & Proschan found best."""
    rng, rate = random.Random(3), 1 / 8
    schedule = LearnedSchedule(Polling(memory=1000))
    _live(schedule, [rng.expovariate(rate) for _ in range(3000)])
    low, high = 0.0, 60.0  # exp(hz) - 1 - hz = c h, by bisection
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (low, middle) if math.expm1(rate * middle) - rate * middle > 0.4 * rate else (middle, high)
    gaps = [schedule.gap(float(age)) for age in range(20)]
    assert sum(gaps) / len(gaps) == pytest.approx(low, rel=0.1)


def test_known_waves_are_awaited() -> None:
    """Once most tasks have been seen to end around 8 s, nobody asks at 1 s, and after 8 s it asks often."""
    schedule = LearnedSchedule(Polling())
    _live(schedule, _lognormal(8))
    assert schedule.gap(0.0) > 4
    assert schedule.gap(8.0) < 2
    assert schedule.gap(100.0) > 3 * schedule.gap(8.0)


def test_dearer_polls_are_rarer() -> None:
    """Gaps grow with the cost of a poll, and shrink while requests wait for a slot."""
    schedule = LearnedSchedule(Polling())
    _live(schedule, _lognormal(8))
    dear, dearest = (LearnedSchedule(Polling(poll_cost=cost, state=schedule.state())) for cost in (1.6, 1e30))
    assert schedule.gap(7.0, busy=True) < schedule.gap(7.0) < dear.gap(7.0)
    assert dearest.gap(7.0) == Polling().max_gap


def test_change_of_pace_is_seen() -> None:
    """After a service got three times faster, it takes some fifty tasks to poll accordingly."""
    schedule = LearnedSchedule(Polling())
    _live(schedule, _lognormal(24))
    slow = schedule.gap(0.0)
    _live(schedule, _lognormal(8, 60))
    assert schedule.gap(0.0) < slow / 2


def test_durations_set_the_pace() -> None:
    """When time grows with duration, a long effect is left alone for longer than a short one."""
    schedule = LearnedSchedule(Polling())
    durations = [2.0, 8.0, 30.0] * 100
    times = [time * duration for time, duration in zip(_lognormal(1, 300), durations, strict=True)]
    _live(schedule, times, durations)
    assert schedule.gap(0.0, 30.0) > 4 * schedule.gap(0.0, 2.0)
    short, long = schedule.estimate(0.0, 2.0), schedule.estimate(0.0, 30.0)
    assert short is not None
    assert long is not None
    assert short.median == pytest.approx(2, rel=0.25)
    assert long.median == pytest.approx(30, rel=0.25)


def test_lost_task_is_asked_ever_more_rarely() -> None:
    """A task that never ends costs few polls, and the last gaps are the longest."""
    schedule = LearnedSchedule(Polling())
    _live(schedule, _lognormal(8))
    age, gaps = 0.0, []
    while age < 600:
        gaps.append(schedule.gap(age))
        schedule.running(age, age + gaps[-1])
        age += gaps[-1]
    assert len(gaps) < 60
    assert gaps[-1] == Polling().max_gap


def test_overdue_tasks_compare_by_their_odds() -> None:
    """A task that is likely to have ended comes before one that has waited longer but is surely running."""
    schedule = LearnedSchedule(Polling())
    _live(schedule, _lognormal(8))
    assert schedule.odds(7.0, 10.0) > schedule.odds(0.0, 4.0)


def test_estimate_is_calibrated() -> None:
    """Nine tasks in ten end before the 90 % point, and half before the median."""
    schedule, early, half = LearnedSchedule(Polling()), 0, 0
    times = _lognormal(8, 1000)
    assert schedule.estimate(0.0) is None
    for time in times:
        estimate = schedule.estimate(0.0)
        if estimate is not None:
            half += time <= estimate.median
            early += time <= estimate.p90
        _live(schedule, [time])
    assert early / len(times) == pytest.approx(0.9, abs=0.03)
    assert half / len(times) == pytest.approx(0.5, abs=0.04)


def test_state_survives_json() -> None:
    """What was learned comes back from JSON, and goes on from there."""
    schedule = LearnedSchedule(Polling())
    _live(schedule, _lognormal(8), [5.0] * 200)
    state = json.loads(json.dumps(schedule.state()))
    copy = make_schedule(Polling(state=state))
    assert copy.state() == schedule.state()
    assert repr(copy) == "<LearnedSchedule of 200 ends>"
    assert copy.gap(0.0) == pytest.approx(schedule.gap(0.0), rel=0.1)
    assert copy.estimate(0.0) is not None


def test_state_of_a_fixed_schedule_knows_nothing() -> None:
    """The state of a schedule that never learned is as good as none, for either schedule."""
    state = FixedSchedule(2.0).state()
    check_state(state)
    assert LearnedSchedule(Polling(state=state)).state() == LearnedSchedule(Polling()).state()
    assert make_schedule(Polling.fixed(2.0, state=state)).state() == state


def _broken(**changes: Any) -> dict[str, Any]:
    return {**LearnedSchedule(Polling()).state(), **changes}


def _moments(**changes: Any) -> dict[str, Any]:
    return _broken(fit={**_broken()["fit"], **changes})


ONES = [1.0] * BINS


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ([], "is not a mapping"),
        ({}, "has version None"),
        (_broken(version=2), "has version 2"),
        (_broken(version=True), "has version True"),
        (_broken(version=10**5000), "has version a value that cannot be shown"),
        (_broken(extra=1), "keys"),
        ({"version": 1, "ends": 3}, "keys"),
        (_broken(ends=-1), "count of ends"),
        (_broken(ends=True), "count of ends"),
        (_broken(ends=1.5), "count of ends"),
        (_broken(seen="many"), "bins"),
        (_broken(done=None), "bins"),
        (_broken(seen=[1.0]), "bins"),
        (_broken(seen=[*ONES[1:], math.nan]), "not a finite number"),
        (_broken(seen=[*ONES[1:], 10**400]), "not a finite number"),
        (_broken(seen=[*ONES[1:], True]), "not a finite number"),
        (_broken(seen=[*ONES[1:], "1"]), "not a finite number"),
        (_broken(seen=[*ONES[1:], 0.0], done=[0.0] * BINS), "out of its range"),
        (_broken(seen=ONES, done=[2.0] * BINS), "out of its range"),
        (_broken(seen=ONES, done=[-0.1] * BINS), "out of its range"),
        (_broken(seen=[1e12] * BINS), "out of its range"),
        (_broken(fit=None), "moments"),
        (_broken(fit={"slope": 1.0}), "moments"),
        (_moments(var=math.inf), "not a finite number"),
        (_moments(cov=-(10**400)), "not a finite number"),
        (_moments(weight=-1.0), "below 0"),
        (_moments(pivot=1e9), "out of its range"),
    ],
)
def test_damaged_state_is_refused(state: Any, reason: str) -> None:
    """A damaged, foreign or newer state is refused with the reason, by the check and by the schedules."""
    with pytest.raises(ValueError, match=reason):
        check_state(state)
    with pytest.raises(ConfigurationError, match=reason):
        LearnedSchedule(Polling(state=state))
    with pytest.raises(ConfigurationError, match=reason):
        make_schedule(Polling.fixed(2.0, state=state))


def test_a_state_that_cannot_be_read_is_refused() -> None:
    """A mapping or a number that fails as it is looked at is a mistake in the options like any other."""
    states: list[Any] = [BrokenMapping(), _broken(version=Liar()), _broken(seen=[BrokenInt(1)] * BINS)]
    for polling in [Polling(state=state) for state in states] + [Polling.fixed(2.0, state=states[0])]:
        with pytest.raises(ConfigurationError, match=r"Polling\.state cannot be read") as caught:
            make_schedule(polling)
        assert isinstance(caught.value.__cause__, RuntimeError)


def test_fixed_schedule_is_fixed() -> None:
    """The vendor's rule asks every so often, learns nothing and promises nothing."""
    schedule = make_schedule(Polling.fixed(2.5))
    schedule.running(0.0, 2.5)
    schedule.finished(2.5, 5.0)
    assert schedule == FixedSchedule(2.5)
    assert schedule.gap(100.0, busy=True) == 2.5
    assert schedule.odds(2.0, 5.0) == 3.0
    assert schedule.estimate(0.0) is None
    assert isinstance(make_schedule(Polling()), LearnedSchedule)


@given(st.floats(0, 1e6), st.floats(0, 1, exclude_max=True))
def test_jitter_is_small(gap: float, u: float) -> None:
    """Jitter keeps a gap within 5 %, and its middle where it was."""
    assert 0.949 * gap <= jittered(gap, u) <= 1.051 * gap
    assert jittered(gap, 0.5) == gap


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    """The benchmark's module; it is a script, not part of a package."""
    path = Path(__file__).parents[3] / "benchmarks" / "polling.py"
    spec = importlib.util.spec_from_file_location("polling_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_benchmark_knows_the_optimum(benchmark: ModuleType) -> None:
    """For a constant hazard the benchmark's dynamic programming finds the gap and the cost known in closed form."""
    best = benchmark.optimum(benchmark.LAWS[2])
    gap = best.ages[0]
    assert math.expm1(gap / 8) - gap / 8 == pytest.approx(0.4 / 8, rel=0.03)
    assert best.cost == pytest.approx(gap + 0.4, rel=0.01)


def test_benchmark_passes_the_schedule_and_fails_the_mutant(benchmark: ModuleType) -> None:
    """The schedule reaches the required figures; one that takes the moment of notice for the end misses many."""
    size = benchmark.Size(cold_seeds=12, step_seeds=2)
    missed = {}
    for policy in (benchmark.Learned, benchmark.Mutant):
        report = benchmark.Report(slack=1.05, out=lambda _: None)
        for section in (benchmark.cold_start, benchmark.steps, benchmark.lost):
            section(report, policy, size)
        missed[policy] = report.missed
    assert missed[benchmark.Learned] == []
    assert any(line.startswith("step LN(24, .35)") for line in missed[benchmark.Mutant])
    assert len(missed[benchmark.Mutant]) >= 3


def test_benchmark_holds_the_first_effects(benchmark: ModuleType) -> None:
    """The first effects reach their figures; due times that are never moved cost a wave far more."""
    report = benchmark.Report(slack=1.05, out=lambda _: None)
    benchmark.waves(report, benchmark.Learned, benchmark.QUICK)
    assert report.missed == []
    start, law = benchmark.HUNDRED, benchmark.COLD_LAWS[3]
    moving, still = (benchmark.first_effects(law, start, Polling(), 50, replans=replans) for replans in (True, False))
    assert moving.cost < 0.9 * still.cost


def test_benchmark_exits_by_its_check(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command fails exactly if a figure was missed and it was told to check."""
    lines: list[str] = []
    monkeypatch.setattr(benchmark, "measure", lambda report, make, _: report.most("polls", 2.0, 1.0))
    assert benchmark.main(["--quick"], lines.append) == 0
    assert benchmark.main(["--quick", "--check"], lines.append) == 1
    assert lines[-1] == "\nMissed: polls: 2.000, required <= 1"
    monkeypatch.setattr(benchmark, "measure", lambda report, make, _: report.least("polls", 2.0, 1.0))
    assert benchmark.main(["--check"], lines.append) == 0
