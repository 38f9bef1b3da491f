"""What an answer means for a task: it has ended, or when to ask again; and what it teaches."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Mapping
from typing import Any

import attrs

from finevoice_async.config import Polling, Retry
from finevoice_async.core import retry as policy
from finevoice_async.core.failures import Failure, FailureKind
from finevoice_async.core.polling.agenda import PollBudget
from finevoice_async.core.polling.schedule import Estimate, jittered, make_schedule, moved
from finevoice_async.core.retry import Action, Call
from finevoice_async.core.tasks import COMPLETED, UNKNOWN, TaskUpdate
from finevoice_async.engine.exchange import error_of
from finevoice_async.engine.inflight import InFlight
from finevoice_async.engine.records import TaskRecord
from finevoice_async.errors import AuthenticationError, FineVoiceError, PollError, TaskNotFoundError
from finevoice_async.ports import Clock, Slots

log = logging.getLogger("finevoice_async")

TICK = 0.1
"""Seconds between two rounds: polls that fall due within one go out together, and their answers come together, which
spares the process most of its wakes, and half of its CPU time. Half a tick is taken off each gap, so that ends are
noticed no later on average; the optimum of a gap is flat."""

TICK_SHARE = 0.2
"""A tick is at most this share of the shortest gap: a service that is asked every few milliseconds is a fast one."""

PATIENCE = 120.0
"""Seconds that polls must have failed in a row, beside `Polling.failures` of them, before a wait ends for it: gateways
are away for a minute when something is deployed, and what is waited for is paid."""

PROBE = 5.0
"""Seconds after which somebody is asked at the latest while polls fail, whatever their backoffs are: with the first
answer all the others are asked, too."""

OUTAGE = 3
"""Polls that must have failed in a row, whosever, for the service to have been away: one bad task is no outage."""

LINKLESS = 3
"""Answers that say done without a link before the task is given up: the link may follow the word."""

NINE_IN_TEN = 1.2816
"""Standard deviations above the middle of a normal law within which nine in ten lie."""


class Answers:
    """Takes the answers of polls in, one after another."""

    def __init__(
        self, inflight: InFlight, *, polling: Polling, retry: Retry, clock: Clock, slots: Slots, rng: random.Random
    ) -> None:
        """Wire it.

        Args:
            inflight: The tasks.
            polling: When to ask.
            retry: How patiently to ask again after a failure.
            clock: The session's clock.
            slots: They tell whether requests wait, which makes a late notice dearer.
            rng: Draws jitter.
        """
        self._inflight = inflight
        self._polling = polling
        self._retry = retry
        self._clock = clock
        self._slots = slots
        self._rng = rng
        self._shortest = min(polling.min_gap, polling.interval or math.inf)
        self.tick = min(TICK, TICK_SHARE * self._shortest)
        # All mutable state:
        self.budget = PollBudget(polling.budget)
        self._schedule = make_schedule(polling)
        self._rate_limited = 0  # 429s in a row
        self._unanswered: dict[TaskRecord, None] = {}  # whose last poll failed, but for those told when to come back
        self._probe_at = -math.inf  # when one of them is asked
        self._failed = 0  # polls that failed in a row, whosever
        self._back: list[TaskRecord] = []  # whom to ask at once

    # What was learned

    def learn_from(self, state: Mapping[str, Any]) -> None:
        """Start from what an earlier session has learned, unless the options say how.

        Raises:
            ConfigurationError: The state is damaged, or of another version.
        """
        if self._polling.interval is None and self._polling.state is None:
            self._schedule = make_schedule(attrs.evolve(self._polling, state=state))

    def learned(self) -> dict[str, Any]:
        """Return what the schedule has learned, as plain data."""
        return self._schedule.state()

    @property
    def in_trouble(self) -> bool:
        """Whether polls fail. Then all are asked in turn: who is never answered must not be the likeliest for ever."""
        return self._rate_limited > 0 or self._failed > 0

    def odds(self, record: TaskRecord) -> float:
        """Return what the wait since a task's last poll has cost: of many overdue, the largest is asked first."""
        return self._schedule.odds(record.last_age, self._clock.monotonic() - record.born, record.duration)

    def estimate(self, record: TaskRecord) -> Estimate | None:
        """Return how much longer a task will take; None before anything is known, and for an attached task."""
        if record.attached or record.end is not None:
            return None
        return self._schedule.estimate(self._clock.monotonic() - record.born, record.duration)

    def estimate_queued(self, position: int, duration: float | None, slots: int, submitting: int) -> Estimate | None:
        """Return how long an effect will take that is not submitted yet; None before anything is known.

        As if effects took their mean and were noticed at the usual time, one round of slots after another.
        """
        whole = self._schedule.estimate(0.0, duration)
        if whole is None or position == 0:
            return whole
        running = [self.estimate(record) for record in self._inflight.tasks.values()]
        left = [whole.median / 2 if each is None else each.median for each in running]
        left = sorted([*left, *[whole.median] * submitting])
        left = [0.0] * (slots - len(left)) + left[max(len(left) - slots, 0) :]  # until each slot is free
        rounds, slot = divmod(position - 1, slots)
        lag = self._schedule.gap(whole.median, duration, busy=True) / 2  # until an end is noticed
        wait = left[slot] + lag + rounds * (_mean(whole) + lag)
        return Estimate(wait + whole.median, wait + whole.p90)

    def gap(self, record: TaskRecord, age: float) -> float:
        """Return the seconds until the next poll of a task that was running at an age, in seconds."""
        gap = jittered(self._schedule.gap(age, record.duration, busy=self._slots.waiting > 0), self._rng.random())
        return max(gap - self.tick / 2, self._shortest)

    @property
    def edition(self) -> int:
        """It grows whenever the tasks in flight are better planned anew."""
        return self._schedule.edition

    def replan(self, record: TaskRecord, now: float) -> float | None:
        """Return when to poll a waiting task by what was learned since it was planned; None if at the same time."""
        if record.trouble is not None or record.missing_since is not None or record.linkless:
            return None  # it was not the schedule that set its time
        gap = self._schedule.gap(record.last_age, record.duration, busy=self._slots.waiting > 0)
        gap = max(gap - self.tick / 2, self._shortest)
        return moved(record.due, record.born + record.last_age, gap, now, self._rng.random(), self.tick)

    # Answers

    def take(self, record: TaskRecord, answer: TaskUpdate | Failure, asked_at: float, now: float) -> float | None:
        """Take an answer in, and return the seconds until the next poll, None if the task has ended.

        Args:
            record: The task.
            answer: What the service said, or what went wrong.
            asked_at: When the poll left, in seconds of the monotonic clock.
            now: When the answer came.
        """
        if isinstance(answer, Failure):
            return self._on_failure(record, answer, now)
        self.budget.answered()
        self._rate_limited = 0
        if self._failed or record.trouble is not None:
            self._answered_again(record)
        record.seen, record.missing_since = True, None
        if not answer.urls and answer.status is COMPLETED:
            record.linkless += 1
            if record.linkless < LINKLESS:
                return self._polling.min_gap
        if answer.status.ended:
            if not record.attached:
                self._schedule.finished(record.last_age, now - record.born, record.duration)
            record.status = answer.status
            self._inflight.end(record, record.ended_by(answer))
            return None
        if answer.status is UNKNOWN and record.status is not UNKNOWN:
            log.warning("task %s is in a state that nobody documented; taken as running", record.task_id)
        self._inflight.hold_slot(record)
        age = asked_at - record.born
        if not record.attached:
            self._schedule.running(record.last_age, age, record.duration)
        record.last_age = age
        self._change(record, answer)
        return self.gap(record, age)

    def _answered_again(self, record: TaskRecord) -> None:
        """The service answers after failures, of this task's polls or of others'."""
        record.failures, record.unanswered, record.trouble = 0, 0, None
        self._unanswered.pop(record, None)
        if self._failed >= OUTAGE:
            self._back, self._unanswered = list(self._unanswered), {}
        self._failed = 0

    def back(self) -> list[TaskRecord]:
        """Return, once, whom to ask at once because the service has come back: those whose last poll failed."""
        back, self._back = self._back, []
        return back

    def _change(self, record: TaskRecord, update: TaskUpdate) -> None:
        if record.status is update.status:
            return
        record.status = update.status
        for watcher in [watcher for watcher in record.watchers if watcher.every]:
            watcher.tell(update)

    def _on_failure(self, record: TaskRecord, failure: Failure, now: float) -> float | None:
        record.trouble = failure
        self._unanswered.pop(record, None)
        decision = policy.decide(Call.POLL, failure.kind, self._retry)
        if decision.action is Action.SLOW_DOWN:
            return self._slow_down(record, failure, now)
        if decision.action is Action.GRACE:
            return self._on_missing(record, failure, now)
        record.missing_since = None
        if decision.action is Action.STOP:
            concerned = [record]
            if decision.error is AuthenticationError:
                concerned = list(self._inflight.tasks.values())  # the key is everybody's
            for each in concerned:
                each.tell(_error(each, failure, decision.error))
            return self._polling.max_gap
        record.unanswered += 1
        if failure.kind is not FailureKind.NOT_SENT:  # else the service was not asked, so it says nothing of the task
            record.failures += 1
            if record.failures == 1:
                record.failing_since = now
        log.info("poll of task %s failed (%s), %d in a row", record.task_id, failure.what, record.unanswered)
        self._failed += 1
        if failure.retry_after is None:
            self._unanswered[record] = None
        if record.failures >= self._polling.failures and now - record.failing_since >= PATIENCE:
            record.failures = 0
            record.tell(_error(record, failure, PollError))
            return self._polling.max_gap
        pause = policy.wait_before_retry(record.unanswered, self._retry, self._rng.random(), failure.retry_after)
        if failure.retry_after is None and self._probe_at <= now:
            pause = min(pause, PROBE)
            self._probe_at = now + pause
        return max(self._polling.min_gap, pause)

    def _on_missing(self, record: TaskRecord, failure: Failure, now: float) -> float | None:
        """Bear a 404 for a while: the task may not be visible everywhere yet, or a gateway may have lost its way.

        A task that the service has never shown has its grace from its submission on; one that it has, from the first
        of the 404s that come in a row.
        """
        grace, first = self._polling.grace, record.missing_since is None
        if record.missing_since is None:
            record.missing_since = now
        since = record.missing_since if record.seen else record.born
        if now - since >= grace and not (record.seen and first):
            self._inflight.end(record, _error(record, failure, TaskNotFoundError))
            return None
        log.info("task %s is not known to the service, %.1f s of at most %.1f s", record.task_id, now - since, grace)
        return min(self.gap(record, now - record.born), max(grace - (now - since), 0.0) + self._polling.min_gap)

    def error_of(self, failure: Failure, task_id: str) -> FineVoiceError:
        """Return what a failed poll means to who asked just once."""
        return error_of(failure, policy.decide(Call.POLL, failure.kind, self._retry).error, task_id=task_id)

    def _slow_down(self, record: TaskRecord, failure: Failure, now: float) -> float:
        """The service says 429: the whole poller waits."""
        if self._inflight.watching is not None:
            self._inflight.watching.slowed_down(record, failure)
        self._rate_limited += 1
        pause = policy.wait_before_retry(self._rate_limited, self._retry, self._rng.random(), failure.retry_after)
        log.info("polls are rate limited; none for %.2f s", pause)
        self.budget.slow_down(now + pause)
        return max(self._polling.min_gap, pause)


def _error(record: TaskRecord, failure: Failure, kind: type[FineVoiceError]) -> FineVoiceError:
    return error_of(failure, kind, task_id=record.task_id, key=record.key, request=record.request)


def _mean(times: Estimate) -> float:
    """Return the mean of the log-normal law with these quantiles: what many in a row take together goes by it."""
    sigma = math.log(max(times.p90, times.median) / times.median) / NINE_IN_TEN if times.median > 0 else 0.0
    return times.median * math.exp(sigma**2 / 2)
