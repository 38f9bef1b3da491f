"""The one poller: it asks how tasks are doing, and tells who waits.

One coroutine decides who is asked when (`core.agenda`, `core.schedule`); a few workers do the asking, so that one
slow answer delays nobody else. A task in flight costs a record, a heap entry and its waiters, no asyncio task.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections import deque
from collections.abc import Awaitable, Callable

from finevoice_async.config import Polling
from finevoice_async.core import retry as policy
from finevoice_async.core.polling.agenda import Agenda, PollBudget
from finevoice_async.core.polling.schedule import Estimate, Schedule, jittered
from finevoice_async.core.retry import Call, Verdict
from finevoice_async.core.tasks import TaskStatus, TaskUpdate
from finevoice_async.engine.exchange import Exchange, Trouble
from finevoice_async.engine.expiry import Expiry
from finevoice_async.engine.records import News, Tracked, Waiter
from finevoice_async.errors import (
    AuthenticationError,
    PollError,
    TaskNotFoundError,
)
from finevoice_async.ports import Clock, Timer

log = logging.getLogger("finevoice_async")

LAST_ANSWER = 5.0
"""Seconds that a deadline waits for the answer of one last poll: a task found ended beats the timeout."""

TICK = 0.1
"""Seconds between two rounds: polls that fall due within one go out together, and their answers come together, which
spares the process most of its wakes, and half of its CPU time. Half a tick is taken off each gap, so that notices come
no later on average; the optimum of a gap is flat."""

TICK_SHARE = 0.2
"""A tick is at most this share of the shortest gap: a service that is asked every few milliseconds is a fast one."""

FRESH = 0.5
"""Seconds for which an answer counts as the last word at a deadline, so that short waits do not add polls."""

LINKLESS = 3
"""Answers that say done without a link before the task is given up: the link may follow the word."""

ABANDON_AFTER = 3600.0
"""Seconds after submission when a task that nobody waits for counts as lost, and its place as free. The service makes
at most 30 s of audio, in minutes; a place held for ever would stop the session."""


class Poller:
    """Owns the tasks in flight."""

    def __init__(
        self,
        exchange: Exchange,
        schedule: Schedule,
        *,
        polling: Polling,
        clock: Clock,
        rng: random.Random,
        is_busy: Callable[[], bool],
        on_end: Callable[[Tracked], None],
    ) -> None:
        """Wire it; it starts with the first task.

        Args:
            exchange: Asks the service.
            schedule: Says when.
            polling: The options.
            clock: The session's clock.
            rng: Draws jitter and samples.
            is_busy: Tells whether requests wait for a place, which makes a late notice dearer.
            on_end: Called when a task is known to have ended, before its waiters hear of it.
        """
        self._exchange = exchange
        self.schedule = schedule
        self._polling = polling
        self._clock = clock
        self._rng = rng
        self._is_busy = is_busy
        self._on_end = on_end
        self._shortest = min(polling.min_gap, polling.interval or math.inf)
        self._tick = min(TICK, TICK_SHARE * self._shortest)
        # All mutable state:
        self.tracked: dict[str, Tracked] = {}  # by task id, in the order of submission; ended ones leave
        self.polls = 0  # how many were made
        self._agenda: Agenda[Tracked] = Agenda()
        self._budget = PollBudget(polling.budget)
        self._handed_out: deque[Tracked] = deque()  # for workers that are about to start
        self._idle: list[asyncio.Future[Tracked]] = []  # what workers without work wait on
        self._under_way = 0  # polls handed to the workers and not answered
        self._wake: asyncio.Future[None] | None = None  # what the coroutine sleeps on
        self._wakes_at = math.inf  # when the timer will wake it
        self._timer: Timer | None = None
        self._coroutine: asyncio.Task[None] | None = None
        self._limits: dict[float, Expiry[Waiter]] = {}  # waiters with a timeout, by its seconds
        self._last_answers = Expiry(LAST_ANSWER, clock, self._give_up)  # waiters whose time is up
        self._workers: list[asyncio.Task[None]] = []
        self._rate_limited = 0  # 429s in a row
        self._broken: str | None = None  # what it died of
        self._closed = False

    def __repr__(self) -> str:
        return f"<Poller of {len(self.tracked)} tasks, {self._under_way} polls under way, {self.polls} made>"

    # Tasks and waiters

    def track(self, record: Tracked) -> None:
        """Begin to ask for a task.

        Raises:
            PollError: The poller is broken.
        """
        self.check(record)
        self.tracked[str(record.task_id)] = record
        if record.attached:
            self._ask_now(record)
        else:
            self._plan(record, record.born + self._gap(record, 0.0))

    def watch(self, waiter: Waiter) -> None:
        """Let a waiter hear of its task, until its time is up or `unwatch`.

        Raises:
            PollError: The poller is broken.
        """
        self.check(waiter.record)
        waiter.record.waiters.append(waiter)
        if waiter.timeout is not None:
            limit = self._limits.get(waiter.timeout)
            if limit is None:
                limit = self._limits[waiter.timeout] = Expiry(waiter.timeout, self._clock, self._expire)
            limit.add(waiter)

    def unwatch(self, waiter: Waiter) -> None:
        """Tell a waiter nothing more."""
        if waiter in waiter.record.waiters:
            waiter.record.waiters.remove(waiter)
        if waiter.expired:
            self._last_answers.discard(waiter)
        elif waiter.timeout is not None and (limit := self._limits.get(waiter.timeout)) is not None:
            limit.discard(waiter)
            if not limit:
                del self._limits[waiter.timeout]

    def _expire(self, waiter: Waiter) -> None:
        """The waiter's time is up: one last poll, unless the last answer is fresh."""
        record = waiter.record
        if waiter not in record.waiters:
            return  # it was told in the same step
        now = self._clock.monotonic()
        if record.asked_at > 0 and now - (record.born + record.asked_at) < FRESH:
            self._give_up(waiter)
            return
        waiter.expired = True
        self._last_answers.add(waiter)
        if record.due < float("inf"):
            self._ask_now(record)

    def _give_up(self, waiter: Waiter) -> None:
        record = waiter.record
        if waiter in record.waiters:
            record.waiters.remove(waiter)
            waiter.tell(record.timeout_error())

    # Deciding

    def _plan(self, record: Tracked, due: float) -> None:
        self._agenda.add(record, due)
        if self._coroutine is None:
            self._coroutine = asyncio.create_task(self._guard(self._run), name="finevoice-poller")
        else:
            self._wake_at(due)

    def _ask_now(self, record: Tracked) -> None:
        """Ask without waiting for a tick: somebody waits for just this answer."""
        self._plan(record, self._clock.monotonic())
        self._wake_up()

    def _wake_at(self, when: float) -> None:
        """Have the coroutine wake at the first tick after that, unless it wakes before."""
        when = (math.floor(when / self._tick) + 1) * self._tick
        if when < self._wakes_at:
            self._wakes_at = when
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._clock.call_at(when, self._wake_up)

    def _wake_up(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def _run(self) -> None:
        try:
            while True:
                now = self._clock.monotonic()
                self._agenda.ripen(now)
                while self._under_way < self._polling.concurrency and (record := self._next(now)) is not None:
                    self._hand_out(record)
                await self._sleep(now)
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def _next(self, now: float) -> Tracked | None:
        """Return whom to ask now, if anybody: the first in turn, or, with a short budget, the likeliest to have ended."""
        agenda = self._agenda
        while agenda.overdue and (allowed := self._budget.available(now)):
            short = agenda.overdue > allowed
            record = agenda.likeliest(self._odds, self._rng.randrange) if short else agenda.first()
            if record is not None and record.end is None:
                self._budget.spend()
                self._under_way += 1
                return record
        return None

    def _hand_out(self, record: Tracked) -> None:
        if self._under_way > len(self._workers):
            worker = asyncio.create_task(self._guard(self._work), name=f"finevoice-poll-{len(self._workers)}")
            self._workers.append(worker)
        if self._idle:
            self._idle.pop().set_result(record)
        else:
            self._handed_out.append(record)

    async def _sleep(self, now: float) -> None:
        """Sleep until a poll is due and may start, or something changes."""
        self._wake = asyncio.get_running_loop().create_future()
        self._wakes_at = math.inf
        due = self._agenda.next_due()
        if due is not None:
            self._wake_at(due)
        if self._agenda.overdue and self._under_way < self._polling.concurrency:  # else the next free worker goes on
            self._wake_at(self._budget.ready_at(now))
        await self._wake

    def _odds(self, record: Tracked) -> float:
        return self.schedule.odds(record.asked_at, self._clock.monotonic() - record.born, record.duration)

    def estimate(self, record: Tracked) -> Estimate | None:
        """Return how much longer a task will take; None before anything is known, and for an attached task."""
        if record.attached or record.end is not None:
            return None
        return self.schedule.estimate(self._clock.monotonic() - record.born, record.duration)

    def _gap(self, record: Tracked, age: float) -> float:
        gap = jittered(self.schedule.gap(age, record.duration, busy=self._is_busy()), self._rng.random())
        return max(gap - self._tick / 2, self._shortest)

    # Asking

    async def _work(self) -> None:
        record = await self._work_to_come()
        while True:
            asked_at = self._clock.monotonic()
            answer = await self._exchange.ask(str(record.task_id))
            now = self._clock.monotonic()
            self._under_way -= 1
            self.polls += 1
            if record.end is None:
                self._settle(record, answer, asked_at, now)
            following = self._next(now)
            if following is None and self._agenda.overdue:
                self._wake_up()  # a worker is free again, and the budget is not
            record = following or await self._work_to_come()

    async def _work_to_come(self) -> Tracked:
        if self._handed_out:
            return self._handed_out.popleft()
        work: asyncio.Future[Tracked] = asyncio.get_running_loop().create_future()
        self._idle.append(work)
        return await work

    def _settle(self, record: Tracked, answer: TaskUpdate | Trouble, asked_at: float, now: float) -> None:
        """Take an answer in: end the task, or say when to ask again."""
        if isinstance(answer, Trouble):
            gap = self._bear(record, answer, now)
        else:
            gap = self._believe(record, answer, asked_at, now)
        if gap is None or record.end is not None:
            return
        for waiter in [waiter for waiter in record.waiters if waiter.expired]:
            self._give_up(waiter)
        if not record.waiters and now - record.born > ABANDON_AFTER:
            log.warning("task %s is given up after %.0f s; its place counts as free", record.task_id, ABANDON_AFTER)
            self.end(record, record.timeout_error())
            return
        self._plan(record, now + gap)

    def _believe(self, record: Tracked, update: TaskUpdate, asked_at: float, now: float) -> float | None:
        """Take an update in; gives the gap until the next poll, None if the task has ended."""
        self._budget.answered()
        self._rate_limited = 0
        record.failures = 0
        if update.status is TaskStatus.COMPLETED and not update.urls:
            record.linkless += 1
            if record.linkless < LINKLESS:
                return self._polling.min_gap
        if update.status.ended:
            if not record.attached:
                self.schedule.finished(record.asked_at, now - record.born, record.duration)
            record.status = update.status
            self.end(record, record.ended_by(update))
            return None
        if update.status is TaskStatus.UNKNOWN and record.status is not TaskStatus.UNKNOWN:
            log.warning("task %s is in a state that nobody documented; taken as running", record.task_id)
        age = asked_at - record.born
        if not record.attached:
            self.schedule.running(record.asked_at, age, record.duration)
        record.asked_at = age
        self._change(record, update)
        return self._gap(record, age)

    def _change(self, record: Tracked, update: TaskUpdate) -> None:
        if record.status is update.status:
            return
        record.status = update.status
        for waiter in [waiter for waiter in record.waiters if waiter.every]:
            waiter.tell(update)

    def _bear(self, record: Tracked, trouble: Trouble, now: float) -> float | None:
        """Take a failed poll in; gives the gap until the next, None if the task is given up."""
        decision = policy.decide(Call.POLL, trouble.symptom, self._exchange.retry)
        age = now - record.born
        if decision.verdict is Verdict.SLOW_DOWN:
            return self._slow_down(trouble, now)
        if decision.verdict is Verdict.GRACE:
            if age >= self._polling.grace:
                self.end(record, trouble.error(TaskNotFoundError, task_id=record.task_id, request=record.request))
                return None
            return min(self._gap(record, age), max(self._polling.grace - age, 0.0) + self._polling.min_gap)
        if decision.verdict is Verdict.STOP:
            concerned = [record]
            if decision.error is AuthenticationError:
                concerned = list(self.tracked.values())  # the key is everybody's
            for each in concerned:
                each.tell(trouble.error(decision.error, task_id=each.task_id, request=each.request))
            return self._polling.max_gap
        record.failures += 1
        log.info("poll of task %s failed (%s), %d in a row", record.task_id, trouble.what, record.failures)
        if record.failures >= self._polling.failures:
            record.failures = 0
            record.tell(trouble.error(PollError, task_id=record.task_id, request=record.request))
            return self._polling.max_gap
        pause = policy.wait_before_retry(record.failures, self._exchange.retry, self._rng.random(), trouble.retry_after)
        return max(self._polling.min_gap, pause)

    def _slow_down(self, trouble: Trouble, now: float) -> float:
        """The service says 429: the whole poller waits."""
        self._rate_limited += 1
        pause = policy.wait_before_retry(
            self._rate_limited, self._exchange.retry, self._rng.random(), trouble.retry_after
        )
        log.info("polls are rate limited; none for %.2f s", pause)
        self._budget.slow_down(now + pause)
        return max(self._polling.min_gap, pause)

    def end(self, record: Tracked, end: News) -> None:
        """End a task: the session hears first, so that its place is free, then whoever waits."""
        record.end = end
        record.due = float("inf")
        self.tracked.pop(str(record.task_id), None)
        self._on_end(record)
        record.tell(end)

    # Breaking and closing

    def check(self, record: Tracked | None = None) -> None:
        """Raise if nobody would ask for a task any more.

        Raises:
            PollError: The poller died.
            SessionClosedError: The session was closed.
        """
        if self._closed and record is not None:
            raise record.closed_error()
        if self._broken is not None:
            raise self._broken_error(record)

    def _broken_error(self, record: Tracked | None) -> PollError:
        return PollError(
            f"The poller died ({self._broken}). What was submitted runs on; attach(task_id) in a new session.",
            task_id=None if record is None else record.task_id,
            request=None if record is None else record.request,
        )

    async def _guard(self, part: Callable[[], Awaitable[None]]) -> None:
        """Run a part of the poller; if it dies, every waiter hears, loudly."""
        try:
            await part()
        except Exception as error:
            log.critical("the poller died; %d tasks are not watched any more", len(self.tracked), exc_info=True)
            self._broken = type(error).__name__
            for record in list(self.tracked.values()):
                record.tell(self._broken_error(record))

    async def aclose(self) -> None:
        """Stop asking, then tell every waiter, in the order of submission. Idempotent."""
        self._closed = True
        parts = [part for part in (self._coroutine, *self._workers) if part is not None]
        for part in parts:
            part.cancel()
        await asyncio.gather(*parts, return_exceptions=True)
        for record in list(self.tracked.values()):
            record.tell(record.closed_error())
