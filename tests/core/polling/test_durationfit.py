"""The fit of time on duration finds a slope, and believes nothing without evidence."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finevoice_async.core.polling.durationfit import STEEPEST, DurationFit


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_slope_is_found(power: float) -> None:
    """The fit finds by which power of its duration an effect's time grows."""
    rng, fit = random.Random(2), DurationFit(200.0)
    for _ in range(400):
        duration = rng.choice((2.0, 5.0, 10.0, 30.0))
        fit.learn(duration, 3 * duration**power * math.exp(rng.gauss(0, 0.2)))
    assert fit.slope() == pytest.approx(power, abs=0.06)
    assert fit.unit(20.0) / fit.unit(5.0) == pytest.approx(4**power, rel=0.1)


def test_slope_needs_evidence() -> None:
    """Two tasks are not enough to believe in a slope, and a falling time is not believed at all."""
    fit = DurationFit(50.0)
    fit.learn(5.0, 5.0)
    assert fit.unit(30.0) == 1
    fit.learn(6.0, 10.0)
    assert fit.slope() < 0.3
    for _ in range(20):
        fit.learn(2.0, 30.0)
        fit.learn(30.0, 2.0)
    assert fit.slope() == 0


@pytest.mark.parametrize("duration", [None, 0.0, -1.0, math.inf, math.nan])
def test_unknown_durations_change_nothing(duration: float | None) -> None:
    """A duration that is missing or makes no sense counts as typical, and is not learned from."""
    fit = DurationFit(50.0, weight=10.0, var=1.0, cov=1.0)
    assert fit.slope() > 0.9
    assert fit.unit(duration) == 1
    if duration is not None:
        fit.learn(duration, 5.0)
        fit.learn(5.0, duration)
    assert fit == DurationFit(50.0, weight=10.0, var=1.0, cov=1.0)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(1e-300, 1e300), st.floats(1e-300, 1e300)), max_size=30), st.floats(1e-300, 1e300))
def test_any_fit_gives_a_sound_unit(history: list[tuple[float, float]], duration: float) -> None:
    """Whatever is fed to it, the slope stays within its bounds, the unit finite, and the moments can be saved."""
    fit = DurationFit(50.0)
    for known, time in history:
        fit.learn(known, time)
    assert 0 <= fit.slope() <= STEEPEST
    assert 0.04 < fit.unit(duration) < 21
    DurationFit.check(fit.moments())
    copy = DurationFit(50.0)
    copy.load(fit.moments())
    assert copy == fit
