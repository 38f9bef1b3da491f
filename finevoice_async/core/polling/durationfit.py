"""How much longer a long effect takes than a short one: a slope, learned from tasks whose length was asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping

import attrs

from finevoice_async.core.polling.lifetable import is_number

RIDGE = 0.25
"""The slope of time on duration needs evidence to leave 0: the variance of log times over that of slopes."""

STEEPEST = 1.5
"""The greatest slope; the least is 0."""

MOST_LOG = 1e6
"""Bounds the moments of a saved fit: logs of floats, and their squares."""

_MOMENTS = ("weight", "mean_x", "mean_y", "var", "cov", "count", "pivot")


@attrs.define
class DurationFit:
    """A running fit of log time on log duration: means that forget, and a slope with a ridge.

    Attributes:
        memory: How many tasks it remembers, 1 or above.
        weight: How many it has, up to that.
        mean_x: Of the log durations.
        mean_y: Of the log times.
        var: Of the log durations.
        cov: Of both.
        count: How many tasks the pivot remembers.
        pivot: The log of the typical duration. The table's ages hang on it, so it moves much more slowly.
    """

    memory: float
    weight: float = 0.0
    mean_x: float = 0.0
    mean_y: float = 0.0
    var: float = 0.0
    cov: float = 0.0
    count: float = 0.0
    pivot: float = 0.0

    def learn(self, duration: float, time: float) -> None:
        """Count a task of that duration that took about that time."""
        if not (0 < duration < math.inf and 0 < time < math.inf):
            return
        x, y = math.log(duration), math.log(time)
        self.weight = min(self.weight + 1, self.memory)
        share = 1 / self.weight
        dx, dy = x - self.mean_x, y - self.mean_y
        self.mean_x += share * dx
        self.mean_y += share * dy
        self.var = (1 - share) * (self.var + share * dx * dx)
        self.cov = (1 - share) * (self.cov + share * dx * dy)
        self.count = min(self.count + 1, 10 * self.memory)
        self.pivot += (x - self.pivot) / self.count

    def slope(self) -> float:
        """Return by which power of the duration the time grows."""
        return min(max(self.weight * self.cov / (self.weight * self.var + RIDGE), 0.0), STEEPEST)

    def unit(self, duration: float | None) -> float:
        """Return how many times longer than one of typical duration a task takes; 1 for an unknown duration."""
        if duration is None or not 0 < duration < math.inf:
            return 1.0
        return math.exp(min(max(self.slope() * (math.log(duration) - self.pivot), -3.0), 3.0))

    def moments(self) -> dict[str, float]:
        """Return all but the memory, as plain data."""
        return {name: getattr(self, name) for name in _MOMENTS}

    def load(self, moments: Mapping[str, float]) -> None:
        """Take what `moments` gave."""
        for name in _MOMENTS:
            setattr(self, name, float(moments[name]))

    @staticmethod
    def check(moments: object) -> None:
        """Refuse moments that no fit has.

        Raises:
            ValueError: With what is wrong.
        """
        if not isinstance(moments, Mapping) or set(moments) != set(_MOMENTS):
            raise ValueError("does not have the moments of the fit")
        if not all(map(is_number, moments.values())):
            raise ValueError("has a moment that is not a finite number")
        if any(moments[name] < 0 for name in ("weight", "var", "count")):
            raise ValueError("has a moment below 0")
        if any(abs(moments[name]) > MOST_LOG for name in ("mean_x", "mean_y", "var", "cov", "pivot")):
            raise ValueError("has a moment out of its range")
