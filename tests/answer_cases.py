"""A task whose answers come when a test says, and what they may be."""

from __future__ import annotations

from typing import Any

from fakes import LINK
from parts import RAIN, Eye, Parts

from finevoice_async.core.failures import Failure, FailureKind
from finevoice_async.core.tasks import TaskStatus, TaskUpdate
from finevoice_async.engine.records import TaskRecord

PENDING = TaskUpdate(status=TaskStatus.PENDING)
RUNS = TaskUpdate(status=TaskStatus.PROCESSING)
DONE = TaskUpdate(status=TaskStatus.COMPLETED, urls=(LINK,))
LINKLESS_ANSWER = TaskUpdate(status=TaskStatus.COMPLETED, raw={"status": 200})
MISSING = Failure(FailureKind.MISSING, "The service answered 404: no such task", status=404)
BUSY = Failure(FailureKind.RATE, "The service answered 429: slowly", status=429)
BROKEN = Failure(FailureKind.SERVER, "The service answered 500: oh", status=500)
MAX_GAP, MIN_GAP, GRACE = 30.0, 0.5, 10.0


class Case:
    """A task with watchers, whose answers come when the test says."""

    def __init__(self, parts: Parts, task_id: str = "t1", **fields: Any) -> None:
        self.parts = parts
        self.record = TaskRecord(task_id, RAIN, 100.0, **fields)
        parts.inflight.add(self.record)
        self.eye, self.curious = Eye(self.record), Eye(self.record, every=True)
        self.record.watchers += [self.eye, self.curious]

    def takes(self, answer: TaskUpdate | Failure, age: float = 1.0) -> float | None:
        """Take in an answer that came at that age, and return the seconds to the next poll."""
        return self.parts.answers.take(self.record, answer, 100 + age - 0.1, 100 + age)

    @property
    def heard(self) -> list[type]:
        """What watchers were told, by class; but for the changes on the way, both were told the same."""
        heard = [type(news) for news in self.eye.seen]
        assert heard == [type(news) for news in self.curious.seen if news not in (RUNS, PENDING)]
        return heard
