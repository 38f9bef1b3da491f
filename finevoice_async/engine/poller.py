"""The one poller: it asks how tasks are doing, and tells who watches them.

One coroutine decides who is asked when (`core.polling`); a few workers do the asking, so that one
slow answer delays nobody else. A task in flight costs a record, a heap entry and its watchers, no asyncio task.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import random
from collections import deque
from collections.abc import Awaitable, Callable

from finevoice_async.config import Polling
from finevoice_async.core.failures import Failure
from finevoice_async.core.ledger import EffectState, JournalRow
from finevoice_async.core.polling.agenda import Agenda
from finevoice_async.core.polling.schedule import Estimate
from finevoice_async.core.tasks import TaskUpdate
from finevoice_async.engine.answers import Answers
from finevoice_async.engine.exchange import Exchange
from finevoice_async.engine.expiry import Expiry
from finevoice_async.engine.inflight import InFlight
from finevoice_async.engine.records import TaskRecord, Watcher
from finevoice_async.ports import Clock, Timer

log = logging.getLogger("finevoice_async")

LAST_ANSWER = 5.0
"""Seconds that a deadline waits for the answer of one last poll: a task found ended beats the timeout."""

FRESH = 0.5
"""Seconds for which an answer counts as the last word at a deadline, so that short waits do not add polls."""

ABANDON_AFTER = 3600.0
"""Seconds after submission when a task that nobody waits for counts as lost, and its slot as free. The service makes
at most 30 s of audio, in minutes; a slot held for ever would stop the session."""


SHORTEST_EFFECT = 5.0
"""Seconds: with more slots than this many seconds' worth of polls, polls may be what holds the session back."""


def warn_of_budget(polling: Polling, max_concurrency: int) -> None:
    """Say so if there are too few polls for so many slots."""
    if polling.budget * SHORTEST_EFFECT < max_concurrency:
        log.warning("max_concurrency=%d may be held back by Polling.budget=%g", max_concurrency, polling.budget)


REPLANNED = 250
"""How many tasks are planned anew in one round, when there is news: 1 ms, and 10,000 tasks within four seconds."""


class Poller:
    """Asks for the tasks in flight."""

    def __init__(
        self,
        exchange: Exchange,
        inflight: InFlight,
        answers: Answers,
        *,
        polling: Polling,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        """Wire it; it starts with the first task.

        Args:
            exchange: Asks the service.
            inflight: The tasks.
            answers: Takes the answers in, and says when to ask again.
            polling: When to ask.
            clock: The session's clock.
            rng: Draws samples.
        """
        self._exchange = exchange
        self._inflight = inflight
        self._watch = inflight.watching
        self._answers = answers
        self._polling = polling
        self._clock = clock
        self._rng = rng
        self._tick = answers.tick
        self._budget = answers.budget
        # All mutable state:
        self.polls = 0  # how many were made
        self._agenda: Agenda[TaskRecord] = Agenda()
        self._edition = 0  # of the schedule, by which all tasks in flight were last planned
        self._to_replan: deque[TaskRecord] = deque()  # those that are not yet planned anew by it
        self._handed_out: deque[TaskRecord] = deque()  # for workers that are about to start
        self._idle: list[asyncio.Future[TaskRecord]] = []  # what workers without work wait on
        self._under_way = 0  # polls handed to the workers and not answered
        self._wake: asyncio.Future[None] | None = None  # what the coroutine sleeps on
        self._wakes_at = math.inf  # when the timer will wake it
        self._timer: Timer | None = None
        self._coroutine: asyncio.Task[None] | None = None
        self._limits: dict[float, Expiry[Watcher]] = {}  # watchers with a timeout, by its seconds
        self._last_answers = Expiry(LAST_ANSWER, clock, self._give_up)  # watchers whose time is up
        self._workers: list[asyncio.Task[None]] = []
        self._closed = False

    def __repr__(self) -> str:
        return f"<Poller of {len(self._inflight.tasks)} tasks, {self._under_way} polls under way, {self.polls} made>"

    # Tasks and watchers

    def track(self, record: TaskRecord) -> None:
        """Begin to ask for a task, which is not in flight yet.

        Raises:
            PollError: The poller is broken.
            SessionClosedError: The session is closed.
        """
        self._inflight.add(record)
        if record.attached:
            self._ask_now(record)
        else:
            self._plan(record, record.born + self._answers.gap(record, 0.0))

    def attach(self, task_id: str) -> TaskRecord:
        """Return the task with this id, asked for from now on. It takes a slot once the service says that it runs."""
        record = self._inflight.tasks.get(task_id)
        if record is None:
            record = TaskRecord(task_id, None, self._clock.monotonic(), attached=True)
            self.track(record)
        return record

    def pick_up(self, row: JournalRow, *, ask_again: bool = False) -> TaskRecord:
        """Return the task of a row whose task id or result is known, asked for again if its end is not known.

        Args:
            row: The row.
            ask_again: Also ask for one that the service did not know any more.
        """
        record = self._inflight.tasks.get(row.task_id) if row.task_id is not None else None
        running = row.state in (EffectState.SUBMITTED, EffectState.LOST)
        if record is not None and running and record.row_id in (None, row.id):  # else the service gave the id twice
            record.row_id, record.request, record.key = row.id, row.request, row.key
            return record
        record = TaskRecord.of_row(row, now=self._clock.monotonic(), utcnow=self._clock.utcnow())
        if row.state is EffectState.LOST and ask_again:
            record.end, record.born = None, self._clock.monotonic()
        if record.end is None:
            if row.state is EffectState.SUBMITTED:
                self._inflight.hold_slot(record)
            self.track(record)
        return record

    def watch(self, watcher: Watcher) -> None:
        """Let a watcher hear of its task, until its time is up or `unwatch`.

        Raises:
            PollError: The poller is broken.
        """
        self._inflight.check(watcher.record)
        watcher.record.watchers.append(watcher)
        if watcher.timeout is not None:
            limit = self._limits.get(watcher.timeout)
            if limit is None:
                limit = self._limits[watcher.timeout] = Expiry(watcher.timeout, self._clock, self._expire)
            limit.add(watcher)

    def unwatch(self, watcher: Watcher) -> None:
        """Tell a watcher nothing more."""
        if watcher in watcher.record.watchers:
            watcher.record.watchers.remove(watcher)
        if watcher.expired:
            self._last_answers.discard(watcher)
        elif watcher.timeout is not None and (limit := self._limits.get(watcher.timeout)) is not None:
            limit.discard(watcher)
            if not limit:
                self._forget(watcher.timeout)

    def _forget(self, seconds: float) -> None:
        """Keep no limit that nobody has: callers may compute theirs, each another."""
        self._limits.pop(seconds).close()

    def _expire(self, watcher: Watcher) -> None:
        """The watcher's time is up: one last poll, unless the last answer is fresh."""
        record = watcher.record
        if watcher.timeout is not None and (limit := self._limits.get(watcher.timeout)) is not None and not limit:
            self._forget(watcher.timeout)
        if watcher not in record.watchers:
            return  # it was told in the same step
        now = self._clock.monotonic()
        if not record.followed or (record.last_age > 0 and now - (record.born + record.last_age) < FRESH):
            self._give_up(watcher)
            return
        watcher.expired = True
        self._last_answers.add(watcher)
        if record.due < float("inf"):
            self._ask_now(record)

    def _give_up(self, watcher: Watcher) -> None:
        record = watcher.record
        if watcher in record.watchers:
            record.watchers.remove(watcher)
            watcher.tell(record.timeout_error())

    # Deciding

    def _plan(self, record: TaskRecord, due: float) -> None:
        self._agenda.add(record, due)
        if self._coroutine is None:
            self._coroutine = asyncio.create_task(
                self._guard(self._run), name="finevoice-poller", context=contextvars.Context()
            )
        else:
            self._wake_at(due)

    def _ask_now(self, record: TaskRecord) -> None:
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
                self._replan(now)
                await self._sleep(now)
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def _replan(self, now: float) -> None:
        """Plan some tasks anew if there is news. With polls overdue the likeliest are asked by what is known anyway."""
        if not self._has_news():
            return
        if not self._to_replan:
            self._edition = self._answers.edition
            self._to_replan.extend(self._inflight.tasks.values())
        for _ in range(min(REPLANNED, len(self._to_replan))):
            record = self._to_replan.popleft()
            if record.followed and now < record.due < math.inf:
                due = self._answers.replan(record, now)
                if due is not None:
                    self._agenda.add(record, due)

    def _has_news(self) -> bool:
        return not self._agenda.overdue and (len(self._to_replan) > 0 or self._edition != self._answers.edition)

    def _next(self, now: float) -> TaskRecord | None:
        """Return whom to ask now, if anybody: the first in turn; with a short budget the likeliest to have ended."""
        agenda = self._agenda
        while agenda.overdue and (allowed := self._budget.available(now)):
            short = len(agenda.overdue) > allowed and not self._answers.in_trouble
            record = agenda.likeliest(self._answers.odds, self._rng.randrange) if short else agenda.first()
            if record is not None and record.followed:
                self._budget.spend()
                self._under_way += 1
                return record
        return None

    def _hand_out(self, record: TaskRecord) -> None:
        if self._under_way > len(self._workers):
            worker = asyncio.create_task(
                self._guard(self._work), name=f"finevoice-poll-{len(self._workers)}", context=contextvars.Context()
            )
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
        if self._has_news():
            self._wake_at(now)
        if self._agenda.overdue and self._under_way < self._polling.concurrency:  # else the next free worker goes on
            self._wake_at(self._budget.ready_at(now))
        await self._wake

    def estimate(self, record: TaskRecord) -> Estimate | None:
        """Return how much longer a task will take; None before anything is known, and for an attached task."""
        return self._answers.estimate(record)

    def estimate_queued(self, position: int, duration: float | None, slots: int, submitting: int) -> Estimate | None:
        """Return how long an effect will take that is not submitted yet; None before anything is known.

        Args:
            position: Its place in line, 1 for who is next, 0 for who has a slot.
            duration: Its length in seconds, if that was asked for.
            slots: How many tasks may run at once.
            submitting: How many have a slot, and are no tasks yet.
        """
        return self._answers.estimate_queued(position, duration, slots, submitting)

    # Asking

    async def _work(self) -> None:
        record = await self._work_to_come()
        while True:
            asked_at = self._clock.monotonic()
            answer = await self._exchange.ask(str(record.task_id))
            now = self._clock.monotonic()
            self._under_way -= 1
            self.polls += 1
            if record.followed:
                self._on_answer(record, answer, asked_at, now)
            following = self._next(now)
            if following is None and self._agenda.overdue:
                self._wake_up()  # a worker is free again, and the budget is not
            record = following or await self._work_to_come()

    async def ask_once(self, task_id: str) -> TaskUpdate:
        """Ask how a task is doing, beside all that is planned.

        Raises:
            FineVoiceError: Its state could not be learned.
        """
        answer = await self._exchange.ask(task_id)
        if isinstance(answer, Failure):
            raise self._answers.error_of(answer, task_id)
        return answer

    async def _work_to_come(self) -> TaskRecord:
        if self._handed_out:
            return self._handed_out.popleft()
        work: asyncio.Future[TaskRecord] = asyncio.get_running_loop().create_future()
        self._idle.append(work)
        return await work

    def _on_answer(self, record: TaskRecord, answer: TaskUpdate | Failure, asked_at: float, now: float) -> None:
        """Take an answer in: the task has ended, or is to be asked for again."""
        if self._watch is not None:
            self._watch.polled(record, answer, asked_at, now)
        gap = self._answers.take(record, answer, asked_at, now)
        if self._edition != self._answers.edition:
            self._wake_at(now)
        for other in self._answers.back():
            if other.followed and other.due < math.inf:  # else it is being asked, or about to be
                self._plan(other, now)
        if gap is None or not record.followed:
            return
        for watcher in [watcher for watcher in record.watchers if watcher.expired]:
            self._give_up(watcher)
        if not record.watchers and now - record.born > ABANDON_AFTER:
            log.warning("task %s is given up after %.0f s; its slot counts as free", record.task_id, ABANDON_AFTER)
            self._inflight.end(record, record.timeout_error())
            return
        self._plan(record, now + gap)

    # Breaking and closing

    async def _guard(self, part: Callable[[], Awaitable[None]]) -> None:
        """Run a part of the poller; if it dies, every watcher hears, loudly."""
        try:
            await part()
        except asyncio.CancelledError:
            if not self._closed:
                self._inflight.break_down("it was cancelled from outside")
            raise
        except Exception as error:
            log.critical("an unexpected error in the poller", exc_info=True)
            self._inflight.break_down(type(error).__name__)

    async def aclose(self) -> None:
        """Stop asking. Idempotent."""
        self._closed = True
        parts = [part for part in (self._coroutine, *self._workers) if part is not None]
        for part in parts:
            part.cancel()
        await asyncio.gather(*parts, return_exceptions=True)
        for limit in (*self._limits.values(), self._last_answers):
            limit.close()
