"""The emulated service without HTTP: who may submit, what runs, when it ends, in which dialect it is told."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from typing import Any

import attrs

from finevoice_async.core.dialects import Answer, make_quickstart_converter, make_reference_converter
from finevoice_async.core.models import SfxRequest, TaskStatus
from finevoice_async.emulator.faults import Faults
from finevoice_async.emulator.ledger import Accepted, Ledger

DIALECTS = ("reference", "quickstart", "mixed")
DEFAULT_DURATION = 5.0
"""Seconds of an effect that asked for no length; the vendor's example has 5."""

_QUEUED = 0.2  # share of a task's time in which it says that it is pending

ServiceLaw = Callable[[SfxRequest, random.Random], float]
"""Draws how long a request takes, in seconds."""


@attrs.frozen(kw_only=True)
class LogNormal:
    """The default law of service times: lognormal, and longer for longer effects.

    Attributes:
        median: Seconds that an effect of 5 seconds takes in the middle.
        sigma: The spread: the logarithm's standard deviation.
        scaled: Whether the median grows in proportion to the asked duration.
    """

    median: float = 4.0
    sigma: float = 0.35
    scaled: bool = True

    def __call__(self, request: SfxRequest, rng: random.Random) -> float:
        """Draw a time."""
        scale = (request.duration or DEFAULT_DURATION) / DEFAULT_DURATION if self.scaled else 1.0
        return self.median * scale * rng.lognormvariate(0.0, self.sigma)


@attrs.frozen
class Constant:
    """Every effect takes as long.

    Attributes:
        seconds: How long.
    """

    seconds: float = 1.0

    def __call__(self, request: SfxRequest, rng: random.Random) -> float:  # noqa: ARG002 - the signature of a law
        """Give the time."""
        return self.seconds


class Service:
    """The state of the emulated service. Times are arguments."""

    def __init__(
        self,
        *,
        plan_limit: int | None,
        law: ServiceLaw,
        seed: int,
        dialect: str,
        credits: int | None,
        faults: Faults,
    ) -> None:
        if dialect not in DIALECTS:
            raise ValueError(f"dialect must be one of {', '.join(DIALECTS)}, not {dialect!r}")
        self.ledger = Ledger()
        self.plan_limit = plan_limit
        self.credits = credits
        self.faults = faults
        self.law = law
        self._dialect = dialect
        self._times = random.Random(f"{seed} times")  # noqa: S311 - repeatable on purpose
        self._rng = random.Random(f"{seed} rest")  # noqa: S311 - repeatable on purpose
        self._reference = make_reference_converter()
        self._quickstart = make_quickstart_converter()

    def is_full(self, now: float) -> bool:
        """Tell whether the plan lets no more task run."""
        return self.plan_limit is not None and self.ledger.running(now) >= self.plan_limit

    def accept(self, request: SfxRequest, now: float) -> Accepted:
        """Take a request on, for one credit."""
        if self.credits is not None:
            self.credits -= 1
        service_time = self.law(request, self._times)
        fault = self.faults.next("task")
        task = Accepted(
            self._make_id(),
            request,
            now,
            float("inf") if fault == "never_ends" else service_time,
            fails=fault == "fail",
        )
        self.ledger.accept(task)
        return task

    def _make_id(self) -> str:
        plain = str(uuid.UUID(int=self._rng.getrandbits(128), version=4))
        quickstart = self._dialect == "quickstart" or (self._dialect == "mixed" and self._rng.random() < 0.5)
        return f"p1-{plain}" if quickstart else plain

    def answer(self, task: Accepted, now: float, *urls: str) -> dict[str, Any]:
        """Say how a task is doing; `urls` are its links, once it has ended."""
        if now < task.ends_at:
            queued = now - task.at < _QUEUED * task.service_time
            return self._spell(
                Answer(task_id=task.task_id, status=TaskStatus.PENDING if queued else TaskStatus.PROCESSING)
            )
        if task.noticed_at is None:
            task.noticed_at = now
        if task.fails:
            reason = "The model could not make this sound."
            return self._spell(
                Answer(task_id=task.task_id, status=TaskStatus.FAILED, code="GENERATION_FAILED", reason=reason)
            )
        return self._spell(Answer(task_id=task.task_id, status=TaskStatus.COMPLETED, urls=urls))

    def _spell(self, answer: Answer) -> dict[str, Any]:
        reference: dict[str, Any] = self._reference.unstructure(answer)
        quickstart: dict[str, Any] = self._quickstart.unstructure(answer)
        if self._dialect == "reference":
            return reference
        if self._dialect == "quickstart":
            return quickstart
        return self._mix(answer, self._rng.choice((reference, quickstart)))

    def _mix(self, answer: Answer, body: dict[str, Any]) -> dict[str, Any]:
        """Spell an answer in one of the mixtures that programs in the field have met."""
        tricks = [self._plain, self._number_as_text, self._other_case, self._link_elsewhere, self._one_level_down]
        if answer.status is TaskStatus.COMPLETED:
            tricks += [self._other_word, self._empty_error]
        return self._rng.choice(tricks)(dict(body))

    def _plain(self, body: dict[str, Any]) -> dict[str, Any]:
        return body

    def _number_as_text(self, body: dict[str, Any]) -> dict[str, Any]:
        return body | {"status": str(body["status"])}

    def _other_case(self, body: dict[str, Any]) -> dict[str, Any]:
        return body | {"status": body["status"].upper()} if isinstance(body["status"], str) else body

    def _link_elsewhere(self, body: dict[str, Any]) -> dict[str, Any]:
        url = body.pop("url", None)
        name = self._rng.choice(("audio_url", "fileUrl", "download_url"))
        return body | {name: url} if url else body

    def _one_level_down(self, body: dict[str, Any]) -> dict[str, Any]:
        return {self._rng.choice(("result", "data")): body}

    def _other_word(self, body: dict[str, Any]) -> dict[str, Any]:
        return body | {"status": self._rng.choice(("success", "succeeded", "done", "Finished"))}

    def _empty_error(self, body: dict[str, Any]) -> dict[str, Any]:
        return body | {"error": {"code": "0001", "message": None}}

    def bound(self, places: int) -> float:
        """Give the least makespan of what was accepted: each task as soon as one of the places is free."""
        return greedy_bound([task.service_time for task in self.ledger.accepted.values()], places)


def greedy_bound(times: list[float], places: int) -> float:
    """Give the makespan of these service times, in their order, each begun as soon as a place is free."""
    free = [0.0] * places
    for time in times:
        first = min(range(places), key=free.__getitem__)
        free[first] += time
    return max(free)
