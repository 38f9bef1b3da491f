"""One task in flight: the record that the poller, the handle and the session share."""

from __future__ import annotations

import copy
import json
from abc import ABC, abstractmethod
from datetime import datetime

import attrs

from finevoice_async.core.requests import SfxRequest
from finevoice_async.core.tasks import TaskStatus, TaskUpdate
from finevoice_async.errors import FineVoiceError, PollError, SessionClosedError, TaskFailedError, TaskTimeoutError

News = TaskUpdate | FineVoiceError
"""What a waiter hears: a state of the task, or why it hears no more."""


@attrs.define(eq=False)
class Waiter(ABC):
    """Somebody who wants to hear of a task. Each has one of their own: cancelling it touches nobody else's.

    Attributes:
        record: The task.
        timeout: How long to wait, in seconds; None for ever.
        every: Hear of changes on the way.
        expired: The time is up; the next answer is the last word.
    """

    record: Tracked
    timeout: float | None = None
    every: bool = False
    expired: bool = False

    @abstractmethod
    def tell(self, news: News) -> None:
        """Hear the end, or an error, once; with every change of state, too, if `every`."""


@attrs.define(eq=False)
class Tracked:
    """A task that was submitted or attached.

    Attributes:
        task_id: The service's id; None only for a result that came without one, which is not polled.
        request: What was asked for, if this session knows it.
        born: When it was submitted (or attached), in seconds of the monotonic clock.
        submitted_at: When it was submitted, in UTC, if this session knows it.
        attached: True if another session submitted it; how long it took teaches nothing.
        slot: Its place in the plan, until it has ended.
        row_id: Its row in the journal, if there is one.
        status: Its state by the last answer.
        end: How it ended, once it has: an update, or the error that every waiter gets a copy of.
        due: When to ask next, in seconds of the monotonic clock (see `core.agenda`).
        asked_at: Its age at the last poll that found it running, in seconds.
        failures: Polls that failed in a row.
        linkless: Answers that said done but gave no link.
        waiters: Who wants to hear of it.
    """

    task_id: str | None
    request: SfxRequest | None
    born: float
    submitted_at: datetime | None = None
    attached: bool = False
    slot: object | None = None
    row_id: int | None = None
    status: TaskStatus = TaskStatus.UNKNOWN
    end: News | None = None
    due: float = float("inf")
    asked_at: float = 0.0
    failures: int = 0
    linkless: int = 0
    waiters: list[Waiter] = attrs.field(factory=list)

    @property
    def duration(self) -> float | None:
        """The length that was asked for: effects that last longer may take longer to make."""
        return None if self.request is None else self.request.duration

    def tell(self, news: News) -> None:
        """Tell every waiter the end, or why it hears no more; each gets a copy of an error."""
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            waiter.tell(copy.copy(news) if isinstance(news, FineVoiceError) else news)

    def error(self, kind: type[FineVoiceError], message: str, update: TaskUpdate | None = None) -> FineVoiceError:
        """Make an error about this task; an update's code and body go with it."""
        return kind(
            message,
            task_id=self.task_id,
            request=self.request,
            code=None if update is None else update.code,
            body=None if update is None else json.dumps(update.raw, ensure_ascii=False),
        )

    def ended_by(self, update: TaskUpdate) -> News:
        """Return what waiters hear of an ended task: the update, or an error if there is no result in it."""
        if update.status is TaskStatus.FAILED:
            words = update.reason or "the service gave no reason"
            code = f" (code {update.code})" if update.code else ""
            return self.error(TaskFailedError, f"Task {self.task_id} failed: {words}{code}.", update)
        if not update.urls:
            what = f"The service says that task {self.task_id} is done, but gives no link. attach(task_id) asks again."
            return self.error(PollError, what, update)
        return update

    def timeout_error(self) -> FineVoiceError:
        """Tell that the task did not end in time."""
        return self.error(
            TaskTimeoutError,
            f"Task {self.task_id} did not end in time; its state was {self.status.value!r}. It runs on and keeps its "
            "place; await it again, or attach(task_id) in another session.",
        )

    def closed_error(self) -> FineVoiceError:
        """Tell that the session was closed while the task was in flight."""
        return self.error(
            SessionClosedError,
            f"The session was closed. Task {self.task_id} runs on at the service; attach(task_id) waits on.",
        )
