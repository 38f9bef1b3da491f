"""The life table counts what polls say, forgets, and never rules anything out."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finevoice_async.core.polling.lifetable import (
    BINS,
    EDGES,
    END,
    LEAST,
    MOST,
    WIDTHS,
    Curve,
    LifeTable,
    bin_of,
    spans,
)

AGES = st.floats(0, 2 * END)
HISTORIES = st.lists(st.tuples(st.booleans(), AGES, AGES), max_size=40)


def _fed(history: list[tuple[bool, float, float]], memory: float = 50.0) -> LifeTable:
    table = LifeTable(memory)
    for is_end, start, stop in history:
        if is_end:
            table.ended(start, stop, table.curve())
        else:
            table.running(start, stop)
    return table


def _hazards(curve: Curve) -> list[float]:
    return [1 - math.exp(-rate * width) for rate, width in zip(curve.rates, WIDTHS, strict=True)]


@pytest.mark.parametrize(
    ("age", "index"), [(0.0, 0), (0.2, 0), (0.25, 1), (EDGES[40], 40), (END, BINS - 1), (1e9, BINS - 1)]
)
def test_bin_of_age(age: float, index: int) -> None:
    """A bin holds its first edge and not its last, and the last bin is open."""
    assert bin_of(age) == index


def test_spans_end_with_the_table() -> None:
    """What grows around a bin is cut off at the table's ends."""
    grown = list(spans(EDGES, 2))
    assert len(grown) == BINS
    assert grown[0] == EDGES[3]
    assert grown[10] == EDGES[13] - EDGES[8]
    assert grown[-1] == END - EDGES[-4]


@settings(deadline=None, max_examples=60)
@given(HISTORIES, st.floats(1, 1e6))
def test_any_history_keeps_the_table_sound(history: list[tuple[bool, float, float]], memory: float) -> None:
    """Whatever is fed to it, counts stay within their bounds, and no hazard becomes 0 or 1."""
    table = _fed(history, memory)
    LifeTable.check(table.seen, table.done)
    assert max(table.seen) <= memory + 1e-6
    assert all(LEAST * 0.999 <= hazard <= MOST * 1.001 for hazard in _hazards(table.curve()))
    assert 0 <= table.doubt <= 1


@settings(deadline=None, max_examples=60)
@given(st.floats(0, END * 0.99), st.floats(0, END * 0.99), HISTORIES)
def test_one_end_counts_once(one: float, other: float, history: list[tuple[bool, float, float]]) -> None:
    """However an end is spread, its shares make up one end, all of them within the interval's bins."""
    start, stop = sorted((one, other))
    curve = _fed(history).curve()
    table = LifeTable(1e12)
    table.running(0.0, start)  # as the polls before would have counted
    before = list(table.done)
    table.ended(start, stop, curve)
    given_out = [after - was for after, was in zip(table.done, before, strict=True)]
    assert math.isclose(sum(given_out), 1.0, abs_tol=1e-6) or table.done[bin_of(start)] == table.seen[bin_of(start)]
    assert all(abs(share) < 1e-6 for share in given_out[: bin_of(start)] + given_out[bin_of(stop) + 1 :])


@given(AGES, AGES)
def test_exposure_is_the_time_under_watch(one: float, other: float) -> None:
    """A task found running exposes each bin by the share that it crossed."""
    start, stop = sorted((one, other))
    table = LifeTable(1e12)
    before = list(table.seen)
    table.running(start, stop)
    crossed = sum((now - was) * width for now, was, width in zip(table.seen, before, WIDTHS, strict=True))
    assert math.isclose(crossed, max(min(stop, END) - start, 0.0), rel_tol=1e-4, abs_tol=1e-2)


def test_polls_out_of_order_teach_nothing() -> None:
    """A poll that is not later than the one before, or past the table's end, leaves the table as it was."""
    table, fresh = LifeTable(50.0), LifeTable(50.0)
    table.running(5.0, 5.0)
    table.running(5.0, 4.0)
    table.running(END, END + 1)
    table.ended(END, END + 1, table.curve())
    assert table == fresh


def test_interval_censoring_finds_the_law_between_polls() -> None:
    """Polls every 3 s are enough to find where in between the tasks end."""
    rng = random.Random(1)
    table = LifeTable(200.0)
    for _ in range(2000):
        time, age = 8 * math.exp(rng.gauss(0, 0.35)), rng.uniform(0, 3)
        while age < time:
            table.running(max(age - 3, 0), age)
            age += 3
        table.ended(max(age - 3, 0), age, table.curve())
    curve = table.curve()
    assert curve.age(math.log(2)) == pytest.approx(8, rel=0.1)
    assert curve.age(math.log(10)) == pytest.approx(8 * math.exp(0.35 * 1.2816), rel=0.12)


def test_doubt_grows_with_a_run_of_unlikely_ends() -> None:
    """A run of ends that the table thought unlikely makes it doubt itself, and likely ones restore it."""
    table = LifeTable(50.0)
    for _ in range(100):
        table.running(0.0, 20.0)
        table.ended(20.0, 22.0, table.curve())
    curve = table.curve()
    calm = table.doubt
    doubts = []
    for _ in range(3):
        table.ended(0.0, 8.0, curve)
        doubts.append(table.doubt)
    assert calm < doubts[0] < doubts[1] < doubts[2]
    for _ in range(20):
        table.ended(20.0, 22.0, curve)
    assert table.doubt < doubts[0]


def test_old_counts_fade() -> None:
    """After many tasks that end later, nothing is left of the time when they ended early."""
    table = _fed([(True, 1.0, 1.1)] * 100 + [(False, 0.0, 5.0), (True, 5.0, 5.2)] * 1000)
    assert _hazards(table.curve())[bin_of(1.05)] < 0.01


@settings(deadline=None, max_examples=60)
@given(HISTORIES, st.floats(0, 2 * END))
def test_age_inverts_hazard(history: list[tuple[bool, float, float]], age: float) -> None:
    """The age of a cumulative hazard is the age that it was taken at."""
    curve = _fed(history).curve()
    assert curve.age(curve.hazard(age)) == pytest.approx(age, rel=1e-6, abs=1e-6)


@settings(deadline=None, max_examples=60)
@given(HISTORIES, AGES, AGES, AGES)
def test_odds_grow(history: list[tuple[bool, float, float]], one: float, two: float, three: float) -> None:
    """Accumulated odds are finite, start at 0, and never fall with time."""
    first, second, third = sorted((one, two, three))
    curve = _fed(history).curve()
    assert curve.odds(first, first) == 0
    assert 0 <= curve.odds(first, second) <= curve.odds(first, third) * (1 + 1e-9) + 1e-6
    assert math.isfinite(curve.odds(first, third))


def test_odds_of_a_constant_hazard() -> None:
    """With a constant hazard the odds integrate to ``(exp(hz) - 1)/h - z``."""
    rate = 0.1
    curve = Curve([rate * edge for edge in EDGES], [rate] * BINS)
    assert curve.odds(3.0, 10.0) == pytest.approx(math.expm1(0.7) / rate - 7, rel=1e-9)


def test_state_of_worst_hazards_is_finite() -> None:
    """Even if all bins are as deadly as a bin can be, the odds stay finite."""
    curve = LifeTable(50.0, seen=[50.0] * BINS, done=[50.0] * BINS).curve()
    assert math.isfinite(curve.odds(0.0, END))
    assert math.isfinite(curve.odds(6000.0, END))
