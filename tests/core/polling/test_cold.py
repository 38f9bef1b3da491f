"""Before much is known: the guess, what a wave teaches, and where the due times of the others go."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finevoice_async.config import Polling
from finevoice_async.core.polling.lifetable import (
    AROUND,
    BINS,
    EDGES,
    GUESS,
    NEVER,
    RATIO,
    TYPICAL,
    WIDTHS,
    WITNESSES,
    LifeTable,
    bin_of,
)
from finevoice_async.core.polling.schedule import (
    FIRST,
    JITTER,
    PATIENCE,
    SCOUTS,
    FixedSchedule,
    LearnedSchedule,
    make_schedule,
    moved,
)

TICK = 0.1
TIMES = st.floats(0, 1e4)


def _survival(age: float) -> float:
    return math.exp(-LifeTable(50.0).curve().hazard(age))


def test_the_guess_knows_the_advice() -> None:
    """Few effects end before 2 s, half of them by the typical age, and some never; the hazard rises once and falls."""
    assert _survival(2.0) > 0.85
    assert _survival(TYPICAL) == pytest.approx(0.5, abs=0.03)
    assert _survival(1000.0) == pytest.approx(NEVER, rel=0.2)
    rates = [guess / width for guess, width in zip(GUESS, WIDTHS, strict=True)]
    top = rates.index(max(rates))
    assert 3 < EDGES[top] < 10
    assert rates[1:top] == sorted(rates[1:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_nobody_asks_in_the_first_seconds() -> None:
    """A first effect alone is asked for after some seconds, then about as often as the vendor advises."""
    schedule, age, gaps = LearnedSchedule(Polling()), 0.0, []
    while age < 12:
        gaps.append(schedule.gap(age))
        schedule.running(age, age + gaps[-1])
        age += gaps[-1]
    assert 3 < gaps[0] < 4.5
    assert all(2 < gap < 3.5 for gap in gaps[1:])


@settings(deadline=None, max_examples=40)
@given(st.floats(3.0, 100.0), st.integers(20, 5000))
def test_a_wave_that_runs_does_not_rule_out_its_end(age: float, tasks: int) -> None:
    """However many tasks are found running at an age, the hazard ahead sinks as for a few, and far ahead not at all."""
    wave, few, ahead = LifeTable(1e6), LifeTable(1e6), bin_of(age) + 1
    for table, count, until in ((wave, tasks, age), (few, int(WITNESSES), EDGES[ahead])):
        for _ in range(count):
            table.running(0.0, until)
    fresh, wave_rates, few_rates = (table.curve().rates for table in (LifeTable(1e6), wave, few))
    assert all(many >= 0.88 * one for many, one in zip(wave_rates[ahead:], few_rates[ahead:], strict=True))
    assert wave_rates[ahead + AROUND :] == pytest.approx(fresh[ahead + AROUND :])
    assert wave_rates[ahead - 2] < fresh[ahead - 2] / 3  # the ages behind are another matter


@settings(deadline=None, max_examples=40)
@given(st.floats(1.0, 100.0), st.floats(1.05, 3.0), st.integers(1, 100))
def test_an_end_raises_the_hazard_ahead(age: float, factor: float, tasks: int) -> None:
    """After a first end the ages just past it are likelier to see others than they were, whatever ran until then."""
    before, after = LifeTable(50.0), LifeTable(50.0)
    for table in (before, after):
        for _ in range(tasks):
            table.running(0.0, age)
    after.ended(age, age * factor, before.curve())
    following = bin_of(age * factor) + 1
    assert after.curve().rates[following] > before.curve().rates[following]


def test_an_early_end_may_be_of_any_order_of_magnitude() -> None:
    """Of an end that was found at the first poll, each factor of age gets its share, however short its time."""
    table, fresh = LifeTable(50.0, doubt=0.9), LifeTable(50.0)
    table.ended(0.0, 3.5, fresh.curve())
    early = slice(bin_of(0.25), bin_of(0.5))
    assert sum(table.done[early]) - sum(fresh.done[early]) > table.doubt / 8  # its share of the time is a fourteenth


def test_a_first_end_brings_the_others_forward() -> None:
    """When the first of a wave has ended, those last found running a little earlier are due sooner."""
    schedule = LearnedSchedule(Polling())
    for _ in range(20):
        schedule.running(0.0, 4.0)
        schedule.running(4.0, 5.9)
    before, edition = schedule.gap(5.9), schedule.edition
    schedule.finished(4.0, 6.1)
    assert schedule.edition == edition + 1
    assert schedule.gap(5.9) < before - 0.3


def test_scouts_put_the_others_off() -> None:
    """Those of a wave that were asked and run are a reason to leave the others alone for longer; two are not."""
    schedule = LearnedSchedule(Polling())
    first = schedule.gap(0.0)
    for _ in range(SCOUTS):
        schedule.running(0.0, first)
    assert (schedule.gap(0.0), schedule.edition) == (first, 0)
    schedule.running(0.0, first)
    assert schedule.edition == 1
    assert schedule.gap(0.0) > first + 0.5


def test_editions_end_once_much_is_known() -> None:
    """Each of the first ends is news; after hundreds, only an end that nobody would have thought of."""
    schedule, rng = LearnedSchedule(Polling()), random.Random(1)
    for count in range(1, FIRST + 1):
        edition = schedule.edition
        schedule.finished(6.0, 8.0)
        assert schedule.edition == edition + 1, count
    for _ in range(3 * PATIENCE):
        schedule.running(0.0, 6.0)
        schedule.finished(6.0, 7 + rng.random())
    known = schedule.edition
    for _ in range(2 * PATIENCE):
        schedule.running(0.0, 6.0)
        schedule.finished(6.0, 7 + rng.random())
    assert schedule.edition == known
    for _ in range(5):
        schedule.finished(0.0, 1.0)
    assert schedule.edition > known


def test_a_fixed_schedule_has_no_news() -> None:
    """What is found changes nothing for a fixed interval, so nothing is ever planned anew."""
    schedule = FixedSchedule(2.0)
    schedule.finished(0.0, 1.0)
    assert schedule.edition == 0


@given(TIMES, TIMES, TIMES, st.floats(0.01, 30), st.floats(0, 1))
def test_due_times_move_between_the_plans(now: float, wait: float, since: float, gap: float, u: float) -> None:
    """A moved due time lies between the old one and the new, and is never in the past; small changes move nothing."""
    due, asked = now + wait, now - since
    planned = asked + gap
    to = moved(due, asked, gap, now, u, TICK)
    if to is None:
        assert abs(planned - due) <= 2 * TICK + gap * JITTER / 2 + 1e-6
    else:
        assert abs(planned - due) > 2 * TICK + gap * JITTER / 2 - 1e-6
        assert min(planned, due) - 1e-6 <= to <= max(planned, due) + 1e-6
        assert to >= now


@pytest.mark.parametrize(
    ("due", "gap", "now", "u", "to"),
    [
        (10.0, 6.0, 5.0, 0.5, 6.0),  # forward, to the plan
        (10.0, 6.0, 8.0, 0.5, 8.15),  # which is past: within three ticks
        (8.1, 6.0, 8.0, 0.9, 8.1),  # but never later than it was
        (6.0, 10.0, 5.0, 0.25, 7.0),  # off, to anywhere between the two
        (6.0, 10.0, 5.0, 0.0, 6.0),
        (6.0, 6.0, 5.0, 0.5, None),
        (6.45, 6.0, 5.0, 0.5, None),  # two ticks and the jitter
        (6.55, 6.0, 5.0, 0.5, 6.0),
        (5.55, 6.0, 5.0, 0.5, None),
        (5.45, 6.0, 5.0, 1.0, 6.0),
    ],
)
def test_moves(due: float, gap: float, now: float, u: float, to: float | None) -> None:
    """A due time goes forward at once, and off by a part that is drawn."""
    got = moved(due, 0.0, gap, now, u, TICK)
    assert got == (None if to is None else pytest.approx(to))


def _state_of_before(tasks: int, time: float) -> dict[str, object]:
    """Give a state as it was saved when the guess took no age for typical, after tasks of about one time."""
    guess = LifeTable(50.0, seen=[0.5] * BINS, done=[0.5 * (1 - RATIO**-0.5)] * BINS)
    rng = random.Random(2)
    for _ in range(tasks):
        start = time - 0.5 * rng.random()
        guess.running(0.0, start)
        guess.ended(start, start + 1, guess.curve())
    fit = dict.fromkeys(("weight", "mean_x", "mean_y", "var", "cov", "count", "pivot"), 0.0)
    return {"version": 1, "ends": tasks, "seen": guess.seen, "done": guess.done, "fit": fit}


@pytest.mark.parametrize("time", [3.0, 8.0, 40.0])
def test_a_state_from_before_is_read(time: float) -> None:
    """What was learned under the earlier guess still counts: the next run polls as one that learned it today."""
    then = make_schedule(Polling(state=_state_of_before(60, time)))
    today = LearnedSchedule(Polling())
    rng = random.Random(2)
    for _ in range(60):
        start = time - 0.5 * rng.random()
        today.running(0.0, start)
        today.finished(start, start + 1)
    today = LearnedSchedule(Polling(state=today.state()))
    assert then.gap(0.0) == pytest.approx(today.gap(0.0), rel=0.1)
    assert then.gap(time) == pytest.approx(today.gap(time), rel=0.1)


def test_an_empty_state_from_before_is_no_trap() -> None:
    """A state of before that had learned nothing yet asks no more often than it did then."""
    schedule, age, polls = make_schedule(Polling(state=_state_of_before(0, 8.0))), 0.0, 0
    while age < 8:
        gap = schedule.gap(age)
        schedule.running(age, age + gap)
        age, polls = age + gap, polls + 1
    assert polls <= 5
