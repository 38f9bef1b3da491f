"""Faults to order: what the emulated service does wrong, by name.

A fault meets only a request that would have gone well: a submission that would be accepted, a poll of a known task with
the right key, a download whose link is good. So an order is never used up by a request that is refused anyway.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, cast

import attrs

from finevoice_async.core.requests import SUBMIT_PATH
from finevoice_async.reprs import with_safe_repr

FaultValue = float | str
"""What a fault may be given: a number or a text, as its entry in `FAULTS` says."""


@with_safe_repr
@attrs.frozen
class FaultKind:
    """An entry of the table of faults.

    Attributes:
        effect: What happens.
        value: What the fault's value means, empty if it takes none.
        default: The value if none is given.
    """

    effect: str
    value: str = ""
    default: FaultValue | None = None


FaultName = Literal[
    "submit.lose_reply",
    "submit.reset",
    "submit.hang",
    "submit.slow",
    "submit.error_500",
    "submit.bad_gateway",
    "submit.garbage",
    "submit.no_task_id",
    "submit.unavailable",
    "submit.refuse",
    "submit.rate_limit",
    "submit.reject",
    "submit.unauthorized",
    "submit.forbidden",
    "submit.no_credits",
    "submit.redirect",
    "poll.not_found",
    "poll.error_500",
    "poll.refuse",
    "poll.unauthorized",
    "poll.rate_limit",
    "poll.redirect",
    "poll.garbage",
    "poll.close",
    "poll.reset",
    "poll.hang",
    "poll.slow",
    "poll.no_link",
    "task.fail",
    "task.never_ends",
    "task.done_without_url",
    "download.cut",
    "download.cut_unnoticed",
    "download.expire",
    "download.slow",
    "download.hang",
    "download.error_500",
    "download.redirect",
    "download.whole",
    "download.wrong_range",
]
"""The names in `FAULTS`, so that an editor offers them and a checker knows them."""

FAULTS: Mapping[FaultName, FaultKind] = MappingProxyType(
    {
        # Submissions that are accepted, and so paid, all the same:
        "submit.lose_reply": FaultKind("accepted, then the connection closes without an answer"),
        "submit.reset": FaultKind("accepted, then the connection is reset (RST)"),
        "submit.hang": FaultKind("accepted, never answered"),
        "submit.slow": FaultKind("accepted, answered late", "seconds", 2.0),
        "submit.error_500": FaultKind("accepted, answered 500"),
        "submit.bad_gateway": FaultKind("accepted, answered 502 with an HTML page"),
        "submit.garbage": FaultKind("accepted, answered 200 with another body", "the body", "not { JSON"),
        "submit.no_task_id": FaultKind("accepted, answered with an empty object"),
        # Submissions that are not accepted:
        "submit.unavailable": FaultKind("not accepted, answered 503"),
        "submit.refuse": FaultKind("not accepted, answered with an error", "HTTP status", 400),
        "submit.rate_limit": FaultKind("not accepted, answered 429", "Retry-After, '' for none", "1"),
        "submit.reject": FaultKind("not accepted, answered 422"),
        "submit.unauthorized": FaultKind("not accepted, answered 401"),
        "submit.forbidden": FaultKind("not accepted, answered 403"),
        "submit.no_credits": FaultKind("not accepted, answered 402"),
        "submit.redirect": FaultKind("not accepted, answered 307", "Location", SUBMIT_PATH + "/elsewhere"),
        # Polls:
        "poll.not_found": FaultKind("answered 404"),
        "poll.error_500": FaultKind("answered 500"),
        "poll.refuse": FaultKind("answered with an error", "HTTP status", 400),
        "poll.unauthorized": FaultKind("answered 401"),
        "poll.rate_limit": FaultKind("answered 429", "Retry-After, '' for none", "1"),
        "poll.redirect": FaultKind("answered 302", "Location", "/elsewhere"),
        "poll.garbage": FaultKind("answered 200 with another body", "the body", "<html>busy</html>"),
        "poll.close": FaultKind("the connection closes without an answer"),
        "poll.reset": FaultKind("the connection is reset (RST)"),
        "poll.hang": FaultKind("never answered"),
        "poll.slow": FaultKind("answered late", "seconds", 2.0),
        "poll.no_link": FaultKind("an end is told without a link; meets only polls that tell a good end"),
        # Tasks, decided as they are accepted:
        "task.fail": FaultKind(
            "ends as a failure, told with HTTP 200", "the reason", "The model could not make this sound."
        ),
        "task.never_ends": FaultKind("runs for ever, and keeps its slot"),
        "task.done_without_url": FaultKind("its end is told without a link", "how many times", math.inf),
        # Downloads:
        "download.cut": FaultKind("the connection closes early", "bytes sent before; half by default", -1),
        "download.cut_unnoticed": FaultKind("no Content-Length, and an early end", "bytes sent; half by default", -1),
        "download.expire": FaultKind("the link ends; the next poll gives a fresh one", "HTTP status", 403),
        "download.slow": FaultKind("a pause in the middle", "seconds", 2.0),
        "download.hang": FaultKind("never answered"),
        "download.error_500": FaultKind("answered 500"),
        "download.redirect": FaultKind("answered 302", "Location; '' for the same link", ""),
        "download.whole": FaultKind("answered 200 with all, whatever range was asked for"),
        "download.wrong_range": FaultKind("a range is answered with another Content-Range; meets only ranges"),
    }
)
"""Every fault by name. The part before the dot is the kind of request that meets it."""

KINDS = ("submit", "poll", "task", "download")


def as_fault_name(text: str) -> FaultName:
    """Return a text as the name of a fault, where it was not known beforehand: an option, a part of a list.

    Raises:
        ValueError: No fault is called that.
    """
    if text not in FAULTS:
        raise ValueError(f"no fault is called {text!r}; there are {', '.join(FAULTS)}")
    return cast(FaultName, text)


def _is_known(_: object, __: object, name: str) -> None:
    as_fault_name(name)


@with_safe_repr
@attrs.frozen
class Fault:
    """One fault with its value.

    Attributes:
        name: Its name in `FAULTS`.
        value: What `FAULTS` says for it: seconds, a status, a body...; None takes the default.

    Raises:
        ValueError: There is no such fault, or it takes no value, or one of another type.
    """

    name: FaultName = attrs.field(validator=_is_known)
    value: FaultValue | None = None

    def __attrs_post_init__(self) -> None:
        kind, value = FAULTS[self.name], self.value
        if value is None:
            object.__setattr__(self, "value", kind.default)
            return
        if kind.default is None:
            raise ValueError(f"the fault {self.name} takes no value, not {value!r}")
        if isinstance(kind.default, str):
            object.__setattr__(self, "value", str(value))  # Retry-After may be given as a number
        elif isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
            raise ValueError(f"the value of the fault {self.name} is {kind.value}, 0 or above, not {value!r}")

    @property
    def kind(self) -> str:
        """What meets it: `submit`, `poll`, `task` or `download`."""
        return self.name.partition(".")[0]

    @property
    def number(self) -> float:
        """Its value, of a fault whose value is a number."""
        return self.value if isinstance(self.value, int | float) else 0.0

    @property
    def text(self) -> str:
        """Its value as text."""
        return str(self.value)


Probabilities = Mapping[FaultName | Fault, float]
"""How likely each fault is, by name, or by `Fault` where a value is wanted."""


class FaultPlan:
    """Decides which fault meets what: orders first, in their order, then seeded chance."""

    def __init__(self, probabilities: Probabilities, seed: int) -> None:
        # All mutable state:
        self._orders: dict[str, deque[tuple[Fault, int]]] = {kind: deque() for kind in KINDS}
        self._chances: dict[str, list[tuple[Fault, float, random.Random]]] = {kind: [] for kind in KINDS}
        for key, probability in probabilities.items():
            fault = key if isinstance(key, Fault) else Fault(key)
            if isinstance(probability, bool) or not 0 <= probability <= 1:
                raise ValueError(f"the probability of {fault.name} must be from 0 to 1, not {probability!r}")
            # A stream of its own: another fault more or less changes nothing about this one.
            rng = random.Random(f"{seed} {fault.name} {fault.value}")  # noqa: S311 - repeatable on purpose
            self._chances[fault.kind].append((fault, probability, rng))

    def order(self, fault: Fault, times: int) -> None:
        """Let the next `times` of the fault's kind meet it, after what was ordered before.

        Raises:
            ValueError: `times` is below 1.
        """
        if times < 1:
            raise ValueError(f"times must be 1 or above, not {times}")
        self._orders[fault.kind].append((fault, times))

    def cancel(self) -> None:
        """Order and chance no more faults."""
        for kind in KINDS:
            self._orders[kind].clear()
            self._chances[kind].clear()

    def next(self, kind: str, *, without: tuple[FaultName, ...] = ()) -> Fault | None:
        """Return the fault that the next request of a kind meets, if any.

        Args:
            kind: `submit`, `poll`, `task` or `download`.
            without: Names of faults that cannot meet this request: they keep waiting.
        """
        orders = self._orders[kind]
        for position, (fault, times) in enumerate(orders):
            if fault.name not in without:
                if times > 1:
                    orders[position] = (fault, times - 1)
                else:
                    del orders[position]
                return fault
        # Each draws, whether or not one before it has met the request already: streams stay in step.
        met = [fault for fault, probability, rng in self._chances[kind] if rng.random() < probability]
        return next((fault for fault in met if fault.name not in without), None)
