"""What is known of how long tasks take: a life table that forgets, and the curve that it gives.

The words are those of survival analysis. The *age* of a task is the time since its submission. The *hazard* of an age
is the chance that a task that has lived so long ends now; its sum over the ages is the *cumulative hazard* H, and
``S = exp(-H)`` is the *survival*: the share of tasks that live longer.

A *life table* counts, for each bin of ages, the tasks that entered it alive and those that ended in it (Cutler &
Ederer 1958, "Maximum utilization of the life table method in analyzing survival"). Their ratio is the bin's hazard.
Tasks in flight, lost tasks and stragglers need no special case: a poll that finds a task running only adds exposure to
the bins since the poll before.

Before anything is known there is a *guess*: times are log-logistic, odds of an end by then ``(age/TYPICAL)^SHAPE``
(Bennett 1983, "Log-logistic regression models for survival data"), but for a few tasks that never end. Its hazard is
small at first, greatest where effects of a service like this end, and falls from then on. Where few tasks have come by,
a bin leans on the guess, times by how much more often than it says the tasks around have ended: *indirect
standardization*, observed over expected ends, with one task more on both sides that ended as expected (Clayton & Kaldor
1987, "Empirical Bayes estimates of age-standardized relative risks"). Tasks that began together are all found running
by the same polls: any number of witnesses of the ages behind them, but only a few of those ahead. So there is a most
that a bin counts for those around it, however many tasks have come by: else a wave that runs on would rule out its end.

A poll that finds a task ended says that it ended *between* two polls (*interval censoring*), not when. One end is
spread over the bins of that interval by the table's own probabilities: one step of Turnbull's self-consistent estimate
(1976, "The empirical distribution function with arbitrarily grouped, censored and truncated data"). To record the
moment of noticing instead would let the table confirm its own schedule: it would never see that the service got faster.
A share of each end is spread evenly, half of it over the time and half over its logarithm, against the table's opinion:
the less likely the table thought an end so early, the larger the share, by Bayes' rule. Part of that doubt is carried
over to the next task, so that a run of unlikely ends, which is what a change of pace looks like, soon outweighs the
table.

Old counts fade with each new task, bin by bin, so that the table follows a service that changes.
"""

from __future__ import annotations

import math
import sys
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate, pairwise
from operator import add, mul, sub, truediv

import attrs

RATIO = 1.1
"""Each bin is so much longer than the one before: resolution in proportion to age."""

YOUNGEST = 0.25
"""Where the first bin ends, in seconds: no poll comes sooner."""

OLDEST = 7200.0
"""The table ends past this age, in seconds: no effect takes hours."""

TYPICAL, SHAPE, NEVER = 7.0, 1.75, 0.025
"""The guess before anything is known: the median in seconds, the power of age by which the odds grow, and the share of
tasks that never end. Found by a search for the least greatest cost of the first effects of a session over that of the
2.5 s which the vendor advises: alone, and 10 and 100 at once, among log-normal times from 6 to 60 s, an exponential law
and a constant (`benchmarks/polling.py`). A shorter median suits short exponential times, a longer one the rest."""

PRIOR = 0.1
"""How many tasks the guess is worth in a bin's own counts."""

DOUBT = 0.02
"""The chance that the table is wrong about a task, when it was right about the one before."""

CARRY = 0.85
"""Of a doubt, how much is held against the next task too: a service that changed stays changed."""

USUAL = 0.6
"""How likely an end at so young an age must be to cast no doubt: that half of all ends come early is no news."""

LEAST_CHANCE = 1e-6
"""An end less likely than this tells nothing by the table's probabilities, only by the doubt."""

AROUND = 5
"""How many bins to each side make up a bin's surroundings: a factor of 1.6 in age."""

WITNESSES = 10.0
"""As how many tasks a bin counts at most for those around it. From 2 on it matters little how many (a first wave of
100: 4 % at most, but for the constant law), so it is a bound against waves of thousands."""

LEAN = 4.0
"""How many tasks the guess, corrected by the surroundings of a bin, is worth against its own counts."""

LEAST = 3e-4
"""The least hazard of a bin: no age is ever ruled out."""

MOST = 0.98
"""The most: all bins at it keep ``exp(H)`` a finite float."""

LEAST_COUNT, MOST_COUNT = PRIOR / 2, 1e9
"""How many tasks a bin of a saved table may have seen. It never falls below `PRIOR`."""


def _edges() -> tuple[float, ...]:
    edges = [0.0, YOUNGEST]
    while edges[-1] < OLDEST:
        edges.append(edges[-1] * RATIO)
    return tuple(edges)


EDGES = _edges()
"""Where the bins begin and end, in seconds."""

END = EDGES[-1]
BINS = len(EDGES) - 1
WIDTHS = tuple(end - start for start, end in pairwise(EDGES))


def _guess() -> tuple[float, ...]:
    alive = [NEVER + (1 - NEVER) / (1 + (edge / TYPICAL) ** SHAPE) for edge in EDGES]
    return tuple(1 - end / start for start, end in pairwise(alive))


GUESS = _guess()
"""For each bin, the share of the tasks that enter it which is guessed to end in it."""


def spans(at_edges: Sequence[float], reach: int) -> Iterator[float]:
    """Return for each bin by how much a quantity grows from `reach` bins before it to `reach` bins after it.

    Slices and `map`, not a loop: this is done every few polls.

    Args:
        at_edges: The quantity at each edge.
        reach: How many bins to each side.
    """
    padded = [at_edges[0]] * reach + [*at_edges] + [at_edges[-1]] * reach
    return map(sub, padded[2 * reach + 1 :], padded)


def bin_of(age: float) -> int:
    """Return the bin of an age; the last one is open."""
    index = bisect_right(EDGES, age) - 1
    return index if index < BINS else BINS - 1


def is_number(value: object) -> bool:
    """Tell whether it is a finite number, and within the range of floats."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


@attrs.frozen(eq=False, repr=False)
class Curve:
    """A survival curve: constant hazard within each bin.

    Attributes:
        reached: The cumulative hazard at each edge.
        rates: The hazard per second within each bin; past the table the last one goes on.
    """

    reached: list[float]
    rates: list[float]

    def hazard(self, age: float) -> float:
        """Return the cumulative hazard up to an age."""
        index = bin_of(age)
        return self.reached[index] + (age - EDGES[index]) * self.rates[index]

    def age(self, hazard: float) -> float:
        """Return the age by which the cumulative hazard is so much."""
        index = min(bisect_right(self.reached, hazard), BINS) - 1
        return EDGES[index] + (hazard - self.reached[index]) / self.rates[index]

    def odds(self, start: float, stop: float) -> float:
        """Return the integral of ``1/S - 1`` between two ages, for a task that was running at the first.

        It is what the wait since that poll has cost so far: at each moment the odds that the task had already ended.
        Past the table's end nothing is known that could tell two tasks apart, so it stops there.
        """
        stop = min(stop, END)
        if stop <= start:
            return 0.0
        alive = math.exp(-self.hazard(start))
        return max(alive * (self._inverse(stop) - self._inverse(start)) - (stop - start), 0.0)

    def _inverse(self, age: float) -> float:
        """Return the integral of ``1/S`` from birth to an age."""
        index = bin_of(age)
        start, rate = self.reached[index], self.rates[index]
        # Within a bin 1/S grows exponentially; expm1 keeps its digits where the hazard is small.
        return self._inverses[index] + math.expm1((age - EDGES[index]) * rate) * math.exp(start) / rate

    @cached_property
    def _inverses(self) -> list[float]:
        """The integral of ``1/S`` from birth to each edge. Made when first asked for: few sessions ever need it."""
        bins = zip(self.reached, self.rates, WIDTHS, strict=False)
        steps = (math.expm1(width * rate) * math.exp(start) / rate for start, rate, width in bins)
        return list(accumulate(steps, initial=0.0))


@attrs.define(repr=False)
class LifeTable:
    """The counts, per bin of ages.

    Attributes:
        memory: How many tasks a bin remembers, 1 or above.
        seen: Tasks that entered the bin alive.
        done: Of those, how many ended in it; `curve` keeps the hazard within its bounds.
        doubt: The chance that the table was wrong about the last task: near 1 after an end that it thought impossible.
    """

    memory: float
    seen: list[float] = attrs.field(factory=lambda: [PRIOR] * BINS)
    done: list[float] = attrs.field(factory=lambda: [PRIOR * guess for guess in GUESS])
    doubt: float = 0.0

    @staticmethod
    def check(seen: object, done: object) -> None:
        """Refuse counts that no table has.

        Raises:
            ValueError: With what is wrong.
        """
        if not (isinstance(seen, list) and isinstance(done, list) and len(seen) == len(done) == BINS):
            raise ValueError(f"does not have counts for {BINS} bins")
        if not all(map(is_number, seen + done)):
            raise ValueError("has a count that is not a finite number")
        # A hair of rounding is let pass.
        if not all(0 <= d <= s * (1 + 1e-9) and LEAST_COUNT < s < MOST_COUNT for d, s in zip(done, seen, strict=True)):
            raise ValueError("has a count out of its range")

    def curve(self) -> Curve:
        """Return the survival curve of the counts as they stand."""
        witnesses = [WITNESSES if count > WITNESSES else count for count in self.seen]
        ends = map(truediv, map(mul, self.done, witnesses), self.seen)
        observed = spans(list(accumulate(map(add, ends, GUESS), initial=0.0)), AROUND)
        guessed = map(add, map(mul, witnesses, GUESS), GUESS)
        expected = spans(list(accumulate(guessed, initial=0.0)), AROUND)
        leans = map(mul, GUESS, map(truediv, observed, expected))
        shares = [(d + LEAN * lean) / (s + LEAN) for d, s, lean in zip(self.done, self.seen, leans, strict=True)]
        hazards = [-math.log1p(-(LEAST if h < LEAST else MOST if h > MOST else h)) for h in shares]
        return Curve(list(accumulate(hazards, initial=0.0)), list(map(truediv, hazards, WIDTHS)))

    def running(self, start: float, stop: float) -> None:
        """Count a task that was running at both ages."""
        stop = min(stop, END)
        if start >= stop:
            return
        first, last = bin_of(start), bin_of(stop)
        if first == last:
            self._add(first, (stop - start) / WIDTHS[first], 0.0)
            return
        self._add(first, (EDGES[first + 1] - start) / WIDTHS[first], 0.0)
        self._add(last, (stop - EDGES[last]) / WIDTHS[last], 0.0)
        # The bins between are crossed whole. A first wait crosses dozens, hence slices instead of a loop.
        keep = 1 - 1 / self.memory
        within = slice(first + 1, last)
        self.seen[within] = [count * keep + 1.0 for count in self.seen[within]]
        self.done[within] = [count * keep for count in self.done[within]]

    def ended(self, start: float, stop: float, curve: Curve) -> None:
        """Count a task that was running at `start` and had ended at `stop`.

        Args:
            start: The age at which it was last found running.
            stop: The age at which it was found ended.
            curve: What the table thinks of it, which spreads the end over the interval.
        """
        start = min(start, stop)
        if start >= END:
            return
        last = bin_of(stop)
        gone = curve.reached[last] + (stop - EDGES[last]) * curve.rates[last]
        # The chance of an end so soon after submission; within the first bin, no age is sooner than another.
        soonest = gone if last else curve.reached[1]
        early = max(1 - math.exp(-soonest), LEAST_CHANCE)
        before = max(DOUBT, CARRY * self.doubt)
        wrong, right = before * USUAL, (1 - before) * early
        self.doubt = wrong / (wrong + right)
        left, room = 1.0, EDGES[last + 1] - start
        if start < EDGES[last]:
            left, room = self._spread(start, stop, last, gone, curve), WIDTHS[last]
        # What is left ended in the last bin, and would have been exposed to the end of it.
        self._add(last, left * room / WIDTHS[last], left)

    def _spread(self, start: float, stop: float, last: int, gone: float, curve: Curve) -> float:
        """Spread one end over the bins of an interval but the last, and return what is left for that one."""
        reached, seen, done = curve.reached, self.seen, self.done
        first = bin_of(start)
        born = reached[first] + (start - EDGES[first]) * curve.rates[first]
        chance = max(1 - math.exp(born - gone), LEAST_CHANCE)
        trust, half = (1 - self.doubt) / chance, self.doubt / 2
        even, each = half / (stop - start), half / (last + 1 - first)  # its last share outweighs all rounding
        left, alive, age = 1.0, 1.0, start
        for index in range(first, last):
            after, width = math.exp(born - reached[index + 1]), EDGES[index + 1] - age
            here = trust * (alive - after) + even * width + each
            # As in `_add`, whose call would take as long as all the rest: a first wait crosses dozens of bins.
            exposed = left * width / WIDTHS[index]
            keep = 1 - exposed / self.memory
            seen[index] = seen[index] * keep + exposed
            done[index] = done[index] * keep + here
            left, alive, age = left - here, after, EDGES[index + 1]
        done[first] = min(done[first], seen[first])  # the first bin was entered late
        return left

    def _add(self, index: int, seen: float, done: float) -> None:
        keep = 1 - seen / self.memory
        self.seen[index] = seen = self.seen[index] * keep + seen
        self.done[index] = min(self.done[index] * keep + done, seen)
