"""Faults to order: what the emulated service does wrong, by name.

| name | what happens |
|---|---|
| `submit.lose_reply` | accepted, then the connection closes without an answer |
| `submit.error_500` | accepted, answered 500 |
| `submit.bad_gateway` | accepted, answered 502 with an HTML page |
| `submit.garbage` | accepted, answered with something that is not JSON |
| `submit.no_task_id` | accepted, answered with an empty object |
| `submit.hang` | accepted, never answered |
| `submit.unavailable` | not accepted, answered 503 |
| `submit.rate_limit` | not accepted, answered 429 with `Retry-After: 1` |
| `submit.reject` | not accepted, answered 422 |
| `submit.unauthorized` | not accepted, answered 401 |
| `submit.forbidden` | not accepted, answered 403 |
| `submit.no_credits` | not accepted, answered 402 |
| `submit.redirect` | not accepted, answered 307 to another path |
| `poll.not_found` | answered 404 |
| `poll.error_500` | answered 500 |
| `poll.hang` | never answered |
| `poll.close` | the connection closes without an answer |
| `poll.garbage` | answered with something that is not JSON |
| `poll.rate_limit` | answered 429 with `Retry-After: 1` |
| `poll.unauthorized` | answered 401 |
| `poll.no_link` | an end is told without a link |
| `task.fail` | the task ends as a failure |
| `task.never_ends` | the task runs for ever |
| `download.cut` | half of the body, then the connection closes |
| `download.expire` | answered 403, as an expired link is |
| `download.error_500` | answered 500 |
| `download.hang` | never answered |
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping

NAMES = tuple(line.split("`")[1] for line in __doc__.splitlines() if line.startswith("| `"))


class Faults:
    """Decides which fault meets which request: ordered ones first, then by seeded chance."""

    def __init__(self, probabilities: Mapping[str, float], rng: random.Random) -> None:
        for name, probability in probabilities.items():
            check_name(name)
            if not 0 <= probability <= 1:
                raise ValueError(f"the probability of {name} must be from 0 to 1, not {probability!r}")
        self._probabilities = dict(probabilities)
        self._rng = rng
        self._ordered: Counter[str] = Counter()

    def order(self, name: str, times: int) -> None:
        """Let the next `times` requests of the fault's kind meet it."""
        check_name(name)
        self._ordered[name] += times

    def cancel(self) -> None:
        """Order and chance no more faults."""
        self._ordered.clear()
        self._probabilities.clear()

    def next(self, kind: str) -> str | None:
        """Give the fault that the next request of a kind (`submit`, `poll`, `task`, `download`) meets, if any."""
        for name in self._ordered:
            if self._ordered[name] > 0 and name.startswith(kind + "."):
                self._ordered[name] -= 1
                return name.partition(".")[2]
        for name, probability in self._probabilities.items():
            if name.startswith(kind + ".") and self._rng.random() < probability:
                return name.partition(".")[2]
        return None


def check_name(name: str) -> None:
    """Refuse a fault that does not exist.

    Raises:
        ValueError: It does not; the message lists those that do.
    """
    if name not in NAMES:
        raise ValueError(f"no fault is called {name!r}; there are {', '.join(NAMES)}")
