"""The session's observer, guarded: it is told each step in order, and nothing that it raises reaches anybody.

Without an observer there is no `Watching`, and each step costs a look for one.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
import itertools
import logging
import time
from typing import Any, Final

from finevoice_async.core.brake import Cause
from finevoice_async.core.failures import Failure
from finevoice_async.core.tasks import TaskUpdate
from finevoice_async.core.text import shorten
from finevoice_async.engine.records import Result, Submission, TaskRecord, Watched
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
)
from finevoice_async.ports import Clock, Observer

log = logging.getLogger("finevoice_async")

_Base = tuple[About, str | None, float, float]
_numbers = itertools.count(1)  # of effects, in all sessions: they may share an observer
_AT: Final = 2  # where the seconds are in it


def check_observer(observer: object) -> None:
    """Check that an observer can be told.

    Raises:
        ConfigurationError: It has no method `on_event`, or one that would have to be awaited.
    """
    hear = getattr(observer, "on_event", None)
    if not callable(hear):
        raise ConfigurationError(f"observer must have a method on_event(event), and {shorten(observer)} has none.")
    if inspect.iscoroutinefunction(hear):
        raise ConfigurationError("The observer's on_event is called in the loop, and must be no coroutine function.")


class Watching:
    """Tells the observer."""

    def __init__(self, observer: Observer, clock: Clock) -> None:
        """Wire it.

        Args:
            observer: Is told. It is the caller's own, and may raise anything.
            clock: The session's clock.
        """
        self._hear = observer.on_event
        self._clock = clock
        # All mutable state:
        self._complained: set[tuple[type[Any], type[BaseException]]] = set()  # faults that were logged

    def _tell(self, event: SfxEvent) -> None:
        try:
            self._hear(event)
        except (Exception, asyncio.CancelledError) as error:
            kind = (type(event), type(error))
            if kind not in self._complained:  # one that fails each time must not fill the disk
                self._complained.add(kind)
                log.exception(
                    "the observer failed at a %s event; more %s of it there are not logged",
                    type(event).__name__,
                    type(error).__name__,
                )

    def _about(self, watched: Watched, task_id: str | None = None) -> _Base:
        """Return what an event about an effect has in any case."""
        return watched.about, task_id, self._clock.monotonic(), time.time()

    def _of_task(self, record: TaskRecord) -> Watched:
        """Return how a task is known to the observer; one that was attached is from now on."""
        if record.watched is None:
            record.watched = Watched(About(next(_numbers), record.key, None, record.request))
        return record.watched

    # A submission's steps

    def queued(self, submission: Submission) -> Watched:
        """Somebody wished for it. Told once, before all else that is told of it."""
        watched = submission.watched
        if watched is None:
            about = About(next(_numbers), submission.key, submission.owner, submission.request)
            watched = submission.watched = Watched(about)
            event = Queued(*self._about(watched))
            watched.queued_at = watched.left_at = event.at
            self._tell(event)
        return watched

    def leaves(self, submission: Submission) -> None:
        """Its request leaves now."""
        self.queued(submission).left_at = self._clock.monotonic()

    def throttled(self, submission: Submission, failure: Failure) -> None:
        """The service said 429 to it."""
        about = self._about(self.queued(submission))
        self._tell(Throttled(*about, polling=False, retry_after=failure.retry_after))

    def accepted(self, submission: Submission, record: TaskRecord) -> None:
        """The service accepted it as this task."""
        watched, before = self.queued(submission), record.watched
        if before is not None and before is not watched:  # it was attached by its id already
            self._end(record, before, None)
        record.watched = watched
        watched.task = record
        about, left_at = self._about(watched, record.task_id), watched.left_at
        self._tell(Submitted(*about, left_at - watched.queued_at, about[_AT] - left_at))

    def doubted(self, submission: Submission, error: FineVoiceError) -> None:
        """Nobody knows whether it was accepted, and it is sent again."""
        self._tell(Unknown(*self._about(self.queued(submission)), error=copy.copy(error), again=True))

    def settled(self, submission: Submission, result: Result) -> None:
        """The submission has ended: what became of it is told, unless its task tells that."""
        watched = self.queued(submission)
        if isinstance(result, TaskRecord):
            self._settled_as(watched, result)
        elif watched.task is not None:
            if not watched.task.followed:  # else its end is to come, whatever else went wrong
                if isinstance(result, SubmitUnknownError):
                    self._unknown(watched, result)
                else:
                    self._end(watched.task, watched, result)
        elif isinstance(result, SubmitUnknownError) or submission.may_be_paid:
            self._unknown(watched, result)
        elif not watched.over:
            watched.over = True
            self._tell(Refused(*self._about(watched), error=copy.copy(result)))

    def _settled_as(self, watched: Watched, record: TaskRecord) -> None:
        """A wish came to a task: one that was submitted for it, or that there was before."""
        if record.watched is None:
            record.watched, watched.task = watched, record
        if record.watched is not watched or record.end is not None:
            self._end(record, watched, record.end, is_news=False)

    def _unknown(self, watched: Watched, error: FineVoiceError) -> None:
        if not watched.over:
            task_id = error.task_id if watched.task is None else watched.task.task_id
            watched.over, watched.task = True, None
            self._tell(Unknown(*self._about(watched, task_id), error=copy.copy(error)))

    # A task's steps

    def polled(self, record: TaskRecord, answer: TaskUpdate | Failure, asked_at: float, now: float) -> None:
        """It was asked for."""
        about = self._about(self._of_task(record), record.task_id)
        if isinstance(answer, Failure):
            self._tell(Polled(*about, None, now - asked_at, answer.what))
        else:
            self._tell(Polled(*about, answer.status, now - asked_at))

    def slowed_down(self, record: TaskRecord, failure: Failure) -> None:
        """The service said 429 to a poll."""
        about = self._about(self._of_task(record), record.task_id)
        self._tell(Throttled(*about, polling=True, retry_after=failure.retry_after))

    def ended(self, record: TaskRecord) -> None:
        """It has ended."""
        self._end(record, self._of_task(record), record.end)

    def left(self, record: TaskRecord, why: FineVoiceError) -> None:
        """It is asked for no more, and runs on."""
        self._end(record, self._of_task(record), why)

    def _end(
        self, record: TaskRecord, watched: Watched, end: TaskUpdate | FineVoiceError | None, *, is_news: bool = True
    ) -> None:
        """Tell the last word on a task, once.

        Args:
            record: The task.
            watched: As what it is known.
            end: How it ended, or why nobody asks any more; None if it goes on under another number.
            is_news: It was noticed now.
        """
        if watched.over:
            return
        watched.over, watched.task = True, None
        about, seconds, lag = self._about(watched, record.task_id), None, None
        if is_news and record.submitted_at is not None:
            seconds = about[_AT] - record.born
        if is_news and record.end is not None and (record.last_age or not record.attached):
            lag = about[_AT] - record.born - record.last_age
        error = copy.copy(end) if isinstance(end, FineVoiceError) else None
        self._tell(Ended(*about, record.status, seconds, lag, error))

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
        about = self._about(watched, task_id)
        seconds = None if path is None else about[_AT] - since
        self._tell(Saved(*about, path, sha256, size, seconds))

    # The session's

    def braked(self, cause: Cause | None, why: str | None) -> None:
        """Submissions wait for the service, or leave freely again."""
        word = None if cause is None else cause.value
        self._tell(Braked(About(), None, self._clock.monotonic(), time.time(), word, why))
