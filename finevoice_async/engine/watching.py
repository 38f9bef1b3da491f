"""The session's observer, guarded: it is told each step in order, and nothing that it raises reaches anybody.

Without an observer there is no `Watching`, and each step costs a look for one.
"""

from __future__ import annotations

import copy
import inspect
import itertools
import logging
import time
from typing import Any, Final

import attrs

from finevoice_async.core.brake import Cause
from finevoice_async.core.failures import Failure
from finevoice_async.core.tasks import TaskUpdate
from finevoice_async.core.text import shorten
from finevoice_async.engine.records import Result, Submission, TaskRecord
from finevoice_async.errors import ConfigurationError, FineVoiceError, SubmitUnknownError
from finevoice_async.events import (
    About,
    Braked,
    Ended,
    Polled,
    Queued,
    Refused,
    Saved,
    SfxEvent,
    Submitted,
    Throttled,
    Unknown,
    thawed,
)
from finevoice_async.ports import Clock, Observer

log = logging.getLogger("finevoice_async")

MOST_COMPLAINTS: Final = 100
"""Kinds of an observer's faults that are logged."""

_Queued, _Submitted, _Polled, _Ended = thawed(Queued), thawed(Submitted), thawed(Polled), thawed(Ended)
_numbers = itertools.count(1)  # of effects, in all sessions: they may share an observer


def check_observer(observer: object) -> None:
    """Check that an observer can be told.

    Raises:
        ConfigurationError: It has no method `on_event`, or one that would have to be awaited.
    """
    try:
        hear = getattr(observer, "on_event", None)
    except Exception as error:
        raise ConfigurationError(f"The observer's on_event cannot be had: {type(error).__name__}.") from error
    if not callable(hear):
        raise ConfigurationError(f"observer must have a method on_event(event), and {shorten(observer)} has none.")
    if inspect.iscoroutinefunction(hear):
        raise ConfigurationError("The observer's on_event is called in the loop, and must be no coroutine function.")


@attrs.define(eq=False)
class Watched(About):
    """An effect as the session's observer knows it; of one that nobody observes there is none.

    Attributes:
        left_at: When its request left last, in seconds of the monotonic clock.
        task: Its task, until the last word is told.
        over: The last word was told.
    """

    left_at: float = attrs.field(repr=False)
    task: TaskRecord | None = attrs.field(default=None, repr=False)
    over: bool = attrs.field(default=False, repr=False)


class Watching:
    """Tells the observer.

    Four steps are taken by every effect: wished for, accepted, asked for, ended. They are written to cost little.
    """

    def __init__(self, observer: Observer, clock: Clock) -> None:
        """Wire it.

        Args:
            observer: Is told. It is the caller's own, and may raise anything.
            clock: The session's clock.
        """
        self._hear = observer.on_event
        self._clock = clock
        # All mutable state:
        self._complaints: set[tuple[type[Any], type[BaseException]]] = set()  # faults that were logged

    def _tell(self, event: SfxEvent) -> None:
        try:
            self._hear(event)
        except BaseException as error:  # noqa: BLE001 - see `_failed`
            self._failed(type(event), error)

    def _failed(self, event: type[SfxEvent], error: BaseException) -> None:
        """Log what the observer raised, whatever it is: it would stop the engine between two steps of an effect.

        One that fails each time must not fill the disk.
        """
        kind = (event, type(error))
        if kind not in self._complaints and len(self._complaints) < MOST_COMPLAINTS:
            self._complaints.add(kind)
            log.error(
                "the observer failed at a %s event; more %s of it there are not logged",
                event.__name__,
                type(error).__name__,
                exc_info=error,
            )

    def _of_task(self, record: TaskRecord) -> Watched:
        """Return how a task is known to the observer; one that was attached is from now on."""
        if record.watched is None:
            at, number = self._clock.monotonic(), next(_numbers)
            record.watched = Watched(number, record.key, None, record.request, at, time.time(), at)
        return record.watched

    # A submission's steps

    def queued(self, submission: Submission) -> Watched:
        """Somebody wished for it. Told once, before all else that is told of it."""
        watched = submission.watched
        if watched is None:
            at, number = self._clock.monotonic(), next(_numbers)
            watched = Watched(number, submission.key, submission.owner, submission.request, at, time.time(), at)
            submission.watched = watched
            try:
                event = _Queued(watched, None, at)
                event.__class__ = Queued
                self._hear(event)
            except BaseException as error:  # noqa: BLE001 - see `_failed`
                self._failed(Queued, error)
        return watched

    def leaves(self, submission: Submission) -> None:
        """Its request leaves now."""
        (submission.watched or self.queued(submission)).left_at = self._clock.monotonic()

    def throttled(self, submission: Submission, failure: Failure) -> None:
        """The service said 429 to it."""
        about, at = self.queued(submission), self._clock.monotonic()
        self._tell(Throttled(about, None, at, polling=False, retry_after=failure.retry_after))

    def accepted(self, submission: Submission, record: TaskRecord) -> None:
        """The service accepted it as this task."""
        watched, before = submission.watched or self.queued(submission), record.watched
        at = self._clock.monotonic() if record.attached else record.born  # which is now
        if before is not None and before is not watched:  # it was attached by its id already
            self._leave(record, before, None, is_news=record.submitted_at is not None)
        record.watched = watched
        watched.task = record
        left_at = watched.left_at
        try:
            event = _Submitted(watched, record.task_id, at, left_at - watched.at, at - left_at)
            event.__class__ = Submitted
            self._hear(event)
        except BaseException as error:  # noqa: BLE001 - see `_failed`
            self._failed(Submitted, error)

    def doubted(self, submission: Submission, error: FineVoiceError) -> None:
        """Nobody knows whether it was accepted, and it is sent again."""
        about, at = self.queued(submission), self._clock.monotonic()
        self._tell(Unknown(about, None, at, error=copy.copy(error), again=True))

    def settled(self, submission: Submission, result: Result) -> None:
        """The submission has ended: what became of it is told, unless its task tells that."""
        watched = submission.watched or self.queued(submission)
        if isinstance(result, TaskRecord):
            self._settled_as(watched, result)
        elif watched.task is not None:
            if not watched.task.followed:  # else its end is to come, whatever else went wrong
                if isinstance(result, SubmitUnknownError):
                    self._unknown(watched, result)
                else:
                    self._leave(watched.task, watched, result, is_news=True)
        elif result.paid is None or submission.may_be_paid:
            self._unknown(watched, result)
        elif not watched.over:
            watched.over = True
            self._tell(Refused(watched, None, self._clock.monotonic(), error=copy.copy(result)))

    def _settled_as(self, watched: Watched, record: TaskRecord) -> None:
        """A wish came to a task: one that was submitted for it, or that there was before."""
        if record.watched is None:
            record.watched, watched.task = watched, record
        if record.watched is not watched or record.end is not None:
            self._leave(record, watched, record.end)

    def _unknown(self, watched: Watched, error: FineVoiceError) -> None:
        if not watched.over:
            task_id = error.task_id if watched.task is None else watched.task.task_id
            watched.over, watched.task = True, None
            self._tell(Unknown(watched, task_id, self._clock.monotonic(), error=copy.copy(error)))

    # A task's steps

    def polled(self, record: TaskRecord, answer: TaskUpdate | Failure, asked_at: float, now: float) -> None:
        """It was asked for."""
        watched, status, failure = record.watched or self._of_task(record), None, None
        if isinstance(answer, TaskUpdate):
            status = answer.status
        else:
            failure = answer.what
        try:
            event = _Polled(watched, record.task_id, now, status, now - asked_at, failure)
            event.__class__ = Polled
            self._hear(event)
        except BaseException as error:  # noqa: BLE001 - see `_failed`
            self._failed(Polled, error)

    def slowed_down(self, record: TaskRecord, failure: Failure) -> None:
        """The service said 429 to a poll."""
        about, at = self._of_task(record), self._clock.monotonic()
        self._tell(Throttled(about, record.task_id, at, polling=True, retry_after=failure.retry_after))

    def ended(self, record: TaskRecord) -> None:
        """It has ended."""
        watched = record.watched or self._of_task(record)
        if watched.over:
            return
        watched.over, watched.task = True, None
        at, end = self._clock.monotonic(), record.end
        age = at - record.born
        seconds = None if record.submitted_at is None else age
        lag = age - record.last_age if record.last_age or not record.attached else None
        why = copy.copy(end) if isinstance(end, FineVoiceError) else None
        try:
            event = _Ended(watched, record.task_id, at, record.status, seconds, lag, why)
            event.__class__ = Ended
            self._hear(event)
        except BaseException as error:  # noqa: BLE001 - see `_failed`
            self._failed(Ended, error)

    def left(self, record: TaskRecord, why: FineVoiceError) -> None:
        """It is asked for no more, and runs on."""
        self._leave(record, self._of_task(record), why, is_news=record.submitted_at is not None)

    def _leave(
        self, record: TaskRecord, watched: Watched, end: TaskUpdate | FineVoiceError | None, *, is_news: bool = False
    ) -> None:
        """Tell the last word on a task whose end is not noticed now, once.

        Args:
            record: The task.
            watched: As what it is known.
            end: How it ended before, or why nobody asks any more; None if it goes on under another number.
            is_news: It has run until now.
        """
        if watched.over:
            return
        watched.over, watched.task = True, None
        at = self._clock.monotonic()
        seconds = at - record.born if is_news else None
        error = copy.copy(end) if isinstance(end, FineVoiceError) else None
        self._tell(Ended(watched, record.task_id, at, record.status, seconds, None, error))

    def saved(
        self,
        watched: Watched,
        task_id: str | None,
        path: str | None,
        sha256: str | None,
        size: int | None,
        since: float,
    ) -> None:
        """Its result is where its user wants it; `since` is when the download began, if there was one."""
        at = self._clock.monotonic()
        self._tell(Saved(watched, task_id, at, path, sha256, size, None if path is None else at - since))

    # The session's

    def braked(self, cause: Cause | None, why: str | None) -> None:
        """Submissions wait for the service, or leave freely again."""
        at = self._clock.monotonic()
        about = About(0, None, None, None, at, time.time())
        self._tell(Braked(about, None, at, None if cause is None else cause.value, why))
