"""How long the emulated service takes for an effect: seeded laws, and the best makespan for the times drawn."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Iterable

import attrs

from finevoice_async.core.requests import SfxRequest
from finevoice_async.reprs import with_safe_repr

DEFAULT_DURATION = 5.0
"""Seconds of an effect that asked for no length; the vendor's example has 5."""

ServiceLaw = Callable[[SfxRequest, random.Random], float]
"""Draws how many seconds a request takes. Any function will do, as long as it draws from its argument alone."""


@with_safe_repr
@attrs.frozen(kw_only=True)
class LogNormal:
    """The default law of service times: most effects near the median, a few much later.

    Attributes:
        median: Seconds that an effect of 5 seconds takes in the middle.
        sigma: The spread: the standard deviation of the logarithm.
        scaled: Whether the median grows in proportion to the asked duration.
        per_second: Seconds that each asked second of sound adds to the median.

    Raises:
        ValueError: A value is negative or not finite.
    """

    median: float = 4.0  # "takes seconds to minutes", and a demo of a dozen effects stays under a minute
    sigma: float = 0.35  # nine in ten within 1.6 times the median
    scaled: bool = True
    per_second: float = 0.0

    def __attrs_post_init__(self) -> None:
        for name in ("median", "sigma", "per_second"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be finite and 0 or above, not {getattr(self, name)}")

    def __call__(self, request: SfxRequest, rng: random.Random) -> float:
        """Draw a time."""
        asked = request.duration or DEFAULT_DURATION
        middle = self.median * (asked / DEFAULT_DURATION if self.scaled else 1.0) + self.per_second * asked
        return middle * rng.lognormvariate(0.0, self.sigma)


@with_safe_repr
@attrs.frozen
class Constant:
    """Every effect takes as long.

    Attributes:
        seconds: How long; 0 gives results with the submit answer.

    Raises:
        ValueError: The time is negative or no number.
    """

    seconds: float = 1.0

    def __attrs_post_init__(self) -> None:
        if not self.seconds >= 0:
            raise ValueError(f"seconds must be 0 or above, not {self.seconds}")

    def __call__(self, request: SfxRequest, rng: random.Random) -> float:  # noqa: ARG002 - the signature of a law
        """Return the time."""
        return self.seconds


def as_law(service_time: ServiceLaw | float | None) -> ServiceLaw:
    """Return the law that a caller means: none is the default, a number of seconds is constant.

    Raises:
        ValueError: The time is negative or no number.
    """
    if service_time is None:
        return LogNormal()
    if callable(service_time):
        return service_time
    if not service_time >= 0:
        raise ValueError(f"service_time must be 0 seconds or above, not {service_time}")
    return Constant(float(service_time))


def greedy_bound(times: Iterable[float], slots: int) -> float:
    """Return the makespan of these service times, in their order, each begun as soon as a slot is free.

    Raises:
        ValueError: There is no slot.
    """
    if slots < 1:
        raise ValueError(f"slots must be 1 or above, not {slots}")
    ends = [0.0] * slots
    for time in times:
        heapq.heapreplace(ends, ends[0] + time)
    return max(ends)
