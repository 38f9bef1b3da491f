"""What the emulated service has seen: the truth that a client is measured against."""

from __future__ import annotations

import heapq
import math
import threading
from collections.abc import Iterator, Mapping
from types import MappingProxyType

import attrs

from finevoice_async.core.requests import SfxRequest
from finevoice_async.emulator.faults import FaultName
from finevoice_async.reprs import with_safe_repr

MAX_STRAYS = 100
"""Addresses that are kept of requests that went nowhere; more are only counted."""


@with_safe_repr
@attrs.define(eq=False, weakref_slot=False)
class Accepted:
    """One accepted, and so paid, submission. Times are seconds of the event loop's clock.

    Attributes:
        task_id: The id it was given.
        request: What was asked for.
        at: When it was accepted.
        drawn: How long it was to take, as drawn from the law of service times.
        service_time: How long it takes; infinite if it never ends.
        fails: It ends as a failure.
        reason: The words for the failure.
        linkless: How many answers still tell its end without a link.
        polls: How often it was asked for with the right key, whatever the answer was.
        noticed_at: When its end was told first; None before. Set as the answer is made: it may still be lost.
        fetched: How often its result was sent to the end.
    """

    task_id: str
    request: SfxRequest
    at: float
    drawn: float
    service_time: float
    fails: bool = False
    reason: str = ""
    linkless: float = 0
    polls: int = 0
    noticed_at: float | None = None
    fetched: int = 0

    @property
    def ends_at(self) -> float:
        """When it ends: from then on it runs no more."""
        return self.at + self.service_time


@with_safe_repr
@attrs.define
class Ledger:
    """Everything that happened, counted.

    One thread writes it, the emulator's; any may read it at any time. What has several entries is given as a copy.

    Attributes:
        posts: Submissions that arrived, refused ones included.
        polls: Polls that arrived, unknown ids and refused ones included.
        fetches: Requests for results that arrived.
        wrong_keys: Submissions and polls with a missing or wrong key.
        leaked_keys: Requests for results that came with an Authorization header, which they never must.
        strays: Requests to any other address.
        most_running: The most tasks that ran at once.
    """

    posts: int = 0
    polls: int = 0
    fetches: int = 0
    wrong_keys: int = 0
    leaked_keys: int = 0
    strays: int = 0
    most_running: int = 0
    _accepted: dict[str, Accepted] = attrs.field(factory=dict, init=False)
    _refused: dict[int, int] = attrs.field(factory=dict, init=False)
    _faults: dict[FaultName, int] = attrs.field(factory=dict, init=False)
    _stray_paths: list[str] = attrs.field(factory=list, init=False)
    _ends: list[float] = attrs.field(factory=list, init=False)  # heap of the ends of running tasks
    _counting: threading.Lock = attrs.field(factory=threading.Lock, init=False, eq=False)  # held to change the heap

    def __repr__(self) -> str:
        return (
            f"<Ledger: {len(self._accepted)} accepted of {self.posts} posts, {self.polls} polls, "
            f"{self.fetched} fetched, {self.most_running} at once at most>"
        )

    @property
    def accepted(self) -> Mapping[str, Accepted]:
        """Accepted submissions by task id, in order."""
        return MappingProxyType(self._accepted.copy())

    @property
    def refused(self) -> Mapping[int, int]:
        """How many requests were answered with each error status, 3xx included; ordered faults too."""
        return MappingProxyType(self._refused.copy())

    @property
    def faults(self) -> Mapping[FaultName, int]:
        """How many requests and tasks met each fault."""
        return MappingProxyType(self._faults.copy())

    @property
    def stray_paths(self) -> list[str]:
        """Method and path of the first requests to any other address."""
        return self._stray_paths.copy()

    @property
    def rate_limited(self) -> int:
        """How many requests were answered 429."""
        return self._refused.get(429, 0)

    @property
    def fetched(self) -> int:
        """How many results were sent to the end."""
        return sum(task.fetched for task in self.accepted.values())

    @property
    def service_times(self) -> list[float]:
        """How long each accepted task was to take, in order of acceptance, as drawn."""
        return [task.drawn for task in self.accepted.values()]

    def running(self, now: float) -> int:
        """Return how many tasks run: accepted, and their end not reached.

        Args:
            now: The event loop's time; never before a time that was asked for earlier.
        """
        with self._counting:
            return self._let_go(now)

    def _let_go(self, now: float) -> int:
        while self._ends and self._ends[0] <= now:
            heapq.heappop(self._ends)
        return len(self._ends)

    def find(self, task_id: str) -> Accepted | None:
        """Return the accepted submission with this id."""
        return self._accepted.get(task_id)

    def accept(self, task: Accepted) -> None:
        """Note a paid submission."""
        self._accepted[task.task_id] = task
        with self._counting:
            self._let_go(task.at)
            if task.service_time > 0:
                heapq.heappush(self._ends, task.ends_at)
            self.most_running = max(self.most_running, len(self._ends))

    def refuse(self, status: int) -> None:
        """Note a refusal."""
        self._refused[status] = self._refused.get(status, 0) + 1

    def meet(self, fault: FaultName) -> None:
        """Note a fault that met something."""
        self._faults[fault] = self._faults.get(fault, 0) + 1

    def stray(self, address: str) -> None:
        """Note a request that went nowhere."""
        self.strays += 1
        if len(self._stray_paths) < MAX_STRAYS:
            self._stray_paths.append(address)

    def lags(self) -> Iterator[float]:
        """Yield, for each task whose end was told, how long after the end that was, in seconds."""
        for task in self.accepted.values():
            if task.noticed_at is not None and not math.isinf(task.service_time):
                yield task.noticed_at - task.ends_at
