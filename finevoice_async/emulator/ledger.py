"""What the emulated service has seen: the truth that a client is measured against."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import attrs

from finevoice_async.core.models import SfxRequest


@attrs.define(eq=False)
class Accepted:
    """One accepted, and so paid, submission. Times are seconds of the event loop's clock.

    Attributes:
        task_id: The id it was given.
        request: What was asked for.
        at: When it was accepted.
        service_time: How long it takes, as drawn; infinite if it never ends.
        fails: It ends as a failure.
        polls: How often it was asked for.
        noticed_at: When its end was told first.
        fetched: How often its result was downloaded to the end.
    """

    task_id: str
    request: SfxRequest
    at: float
    service_time: float
    fails: bool = False
    polls: int = 0
    noticed_at: float | None = None
    fetched: int = 0

    @property
    def ends_at(self) -> float:
        """When it ends."""
        return self.at + self.service_time


@attrs.define
class Ledger:
    """Everything that happened, counted.

    Attributes:
        accepted: Accepted submissions by task id, in order.
        posts: Submissions that arrived, refused ones included.
        polls: Polls that arrived, unknown ids included.
        fetches: Downloads that were begun.
        refused: How many requests were answered with each error status.
        wrong_keys: Requests with a missing or wrong key.
        leaked_keys: Downloads that came with an Authorization header, which they must never.
        most_running: The most tasks that ran at once.
    """

    accepted: dict[str, Accepted] = attrs.field(factory=dict)
    posts: int = 0
    polls: int = 0
    fetches: int = 0
    refused: dict[int, int] = attrs.field(factory=dict)
    wrong_keys: int = 0
    leaked_keys: int = 0
    most_running: int = 0
    _ends: list[float] = attrs.field(factory=list)  # heap of the ends of running tasks

    def running(self, now: float) -> int:
        """Give how many tasks run at a time that is not before any asked for earlier."""
        while self._ends and self._ends[0] <= now:
            heapq.heappop(self._ends)
        return len(self._ends)

    def accept(self, task: Accepted) -> None:
        """Note a paid submission."""
        self.accepted[task.task_id] = task
        running = self.running(task.at) + 1
        heapq.heappush(self._ends, task.ends_at)
        self.most_running = max(self.most_running, running)

    def refuse(self, status: int) -> None:
        """Note a refusal."""
        self.refused[status] = self.refused.get(status, 0) + 1

    def lags(self) -> Iterator[float]:
        """Give, for each task whose end was told, how long that took, in seconds."""
        for task in self.accepted.values():
            if task.noticed_at is not None:
                yield task.noticed_at - task.ends_at
