"""The emulated service without HTTP: who may submit, what runs, when it ends, where its result lies.

Nothing happens here as time passes: a task has ended once the time that is given is past its end.
"""

from __future__ import annotations

import math
import random
import uuid
from typing import Any

import attrs

from finevoice_async.core.dialects import Answer
from finevoice_async.core.requests import SfxRequest
from finevoice_async.core.tasks import TaskStatus
from finevoice_async.emulator.faults import FaultPlan
from finevoice_async.emulator.laws import ServiceLaw, greedy_bound
from finevoice_async.emulator.ledger import Accepted, Ledger
from finevoice_async.emulator.spelling import Dialect, Speller

FILES_PATH = "/files/"

_QUEUED = 0.2  # share of a task's time in which it says that it is pending


@attrs.define
class _Link:
    version: int = 0
    expired: bool = False  # until the next poll, which gives a fresh one
    status: int = 403  # what the expired ones are answered


def _checked_count(name: str, count: int | None) -> int | None:
    if count is not None and (type(count) is not int or count < 0):
        raise ValueError(f"{name} must be a whole number, 0 or above, not {count!r}")
    return count


class Service:
    """The state of the emulated service. Times are arguments, and never go back."""

    def __init__(
        self, *, plan_limit: int | None, law: ServiceLaw, seed: int, dialect: Dialect, credits: int | None, speed: float
    ) -> None:
        if not 0 < speed < math.inf:
            raise ValueError(f"speed must be finite and above 0, not {speed!r}")
        self.plan_limit = _checked_count("plan_limit", plan_limit)
        self.credits = _checked_count("credits", credits)
        self.law = law
        self._speed = speed
        # Streams of their own: what is drawn depends on the order of acceptance, not on who polls when.
        self._times = random.Random(f"{seed} times")  # noqa: S311 - repeatable on purpose
        self._ids = random.Random(f"{seed} ids")  # noqa: S311 - repeatable on purpose
        self._speller = Speller(dialect, random.Random(f"{seed} words"))  # noqa: S311 - repeatable on purpose
        self._id_speller = Speller(dialect, self._ids)
        # All mutable state, beside the streams, the limits above, and the law:
        self.ledger = Ledger()
        self._links: dict[str, _Link] = {}  # by task id, where a link has ever expired

    def is_full(self, now: float) -> bool:
        """Tell whether the plan lets no more task run."""
        return self.plan_limit is not None and self.ledger.running(now) >= self.plan_limit

    def has_credit(self) -> bool:
        """Tell whether another submission can be paid."""
        return self.credits is None or self.credits > 0

    def accept(self, request: SfxRequest, now: float, faults: FaultPlan) -> Accepted:
        """Take a request on, for one credit."""
        drawn = self.law(request, self._times) / self._speed
        if not drawn >= 0:
            raise ValueError(f"the law of service times gave {drawn!r} seconds")
        if self.credits is not None:
            self.credits -= 1
        task = Accepted(self._make_id(), request, now, drawn, drawn)
        fault = faults.next("task")
        if fault is not None:
            self.ledger.meet(fault.name)
            if fault.name == "task.fail":
                task.fails, task.reason = True, fault.text
            elif fault.name == "task.never_ends":
                task.service_time = math.inf
            else:
                task.linkless = fault.number
        self.ledger.accept(task)
        return task

    def _make_id(self) -> str:
        plain = str(uuid.UUID(int=self._ids.getrandbits(128), version=4))
        return f"p1-{plain}" if self._id_speller.speaks_quickstart() else plain

    def tells_link(self, task: Accepted, now: float) -> bool:
        """Tell whether the next answer has a link to hide."""
        return now >= task.ends_at and not task.fails and not task.linkless

    def answer(
        self, task: Accepted, now: float, base_url: str, *, with_link: bool = True, to_submission: bool = False
    ) -> dict[str, Any]:
        """Say how a task is doing."""
        if now < task.ends_at:
            queued = now - task.at < _QUEUED * min(task.service_time, task.drawn)
            status = TaskStatus.PENDING if queued else TaskStatus.PROCESSING
            said = Answer(task_id=task.task_id, status=status, urls=(self._link(task, base_url),))
            return self._speller.spell(said, now, to_submission=to_submission)
        if task.noticed_at is None:
            task.noticed_at = now
        if task.fails:
            said = Answer(task_id=task.task_id, status=TaskStatus.FAILED, code="GENERATION_FAILED", reason=task.reason)
        elif with_link and not task.linkless:
            said = Answer(task_id=task.task_id, status=TaskStatus.COMPLETED, urls=(self._fresh_link(task, base_url),))
        else:
            task.linkless = max(0, task.linkless - 1)
            said = Answer(task_id=task.task_id, status=TaskStatus.COMPLETED)
        return self._speller.spell(said, now, to_submission=to_submission)

    def _link(self, task: Accepted, base_url: str) -> str:
        version = self._links[task.task_id].version if task.task_id in self._links else 0
        return f"{base_url}{FILES_PATH}{task.task_id}.{version}.wav"

    def _fresh_link(self, task: Accepted, base_url: str) -> str:
        link = self._links.get(task.task_id)
        if link is not None and link.expired:
            link.version += 1
            link.expired = False
        return self._link(task, base_url)

    def expire(self, task: Accepted, status: int) -> None:
        """End the link of a task; the next poll gives a fresh one."""
        link = self._links.setdefault(task.task_id, _Link())
        link.expired, link.status = True, status

    def find(self, name: str, now: float) -> Accepted | int:
        """Return the task whose result has this file name, or the HTTP status of the refusal."""
        task_id, _, version = name.removesuffix(".wav").rpartition(".")
        task = self.ledger.find(task_id)
        if task is None or task.fails or now < task.ends_at:
            return 404
        link = self._links.get(task_id)
        current = str(0 if link is None else link.version)
        if link is not None and (link.expired or version != current):
            return link.status
        return task if version == current else 404

    def bound(self, slots: int) -> float:
        """Return the least makespan of what was accepted: each task as soon as one of the slots is free."""
        return greedy_bound(self.ledger.service_times, slots)
