"""The face of the library: one session wires the parts, hands out tasks and effects, and closes in order."""

from __future__ import annotations

import asyncio
import enum
import json
import logging
import os
import random
import warnings
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import attrs

from finevoice_async.adapters.aiohttp_fetcher import AiohttpFetcher
from finevoice_async.adapters.aiohttp_transport import AiohttpTransport
from finevoice_async.adapters.local_slots import LocalSlots
from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.config import API_KEY_VARIABLE, BASE_URL, BASE_URL_VARIABLE, Polling, Retry, Timeouts
from finevoice_async.core.addresses import is_local
from finevoice_async.core.ledger import EffectState, JournalRow
from finevoice_async.core.polling.schedule import make_schedule
from finevoice_async.core.requests import as_request
from finevoice_async.core.tasks import TaskUpdate, check_task_id
from finevoice_async.effect import SoundEffect
from finevoice_async.engine.exchange import Exchange
from finevoice_async.engine.poller import Poller
from finevoice_async.engine.records import Tracked
from finevoice_async.engine.submitter import Submitter
from finevoice_async.errors import (
    ConfigurationError,
    JournalError,
    SessionClosedError,
    TaskFailedError,
    TaskNotFoundError,
)
from finevoice_async.outcomes import ManyEffects, Outcome, Wanted, check_key_name
from finevoice_async.ports import Clock, Journal, Slots
from finevoice_async.recovery import check_resubmit, left_behind, revive, unknown_rows
from finevoice_async.task import SfxTask

if TYPE_CHECKING:
    from finevoice_async.engine.downloads import Downloads

log = logging.getLogger("finevoice_async")

_LEARNED = "polling"  # the name under which the journal keeps what the schedule has learned

SHORTEST_EFFECT = 5.0
"""Seconds: with more places than this many seconds' worth of polls, polls may be what holds the session back."""

RECOVER_AHEAD = 1000
"""Rows that `recover` picks up beyond what the caller has taken; those that were submitted run anyway."""


class SessionState(enum.Enum):
    """The life of a session; each state is entered once."""

    NEW = "new"  # made, not used: nothing is open
    OPEN = "open"  # in use
    CLOSING = "closing"  # takes nothing more; what runs is settled
    CLOSED = "closed"  # everything is given back


@attrs.frozen(kw_only=True)
class Stats:
    """What a session is doing now, and has done.

    Attributes:
        submitting: POSTs under way.
        waiting: Requests that wait for a place.
        running: Tasks not known to have ended.
        submitted: Submissions that the service accepted.
        completed: Tasks that ended with a result.
        failed: Tasks that ended without one.
        polls: Times that the service was asked for a state.
    """

    submitting: int
    waiting: int
    running: int
    submitted: int
    completed: int
    failed: int
    polls: int


class FineVoiceSession:
    """Sound effects from FineVoice, many at once: submits, polls and downloads.

    Use it with ``async with``, or close it with `aclose`. It belongs to the event loop and the process that use it
    first; another coroutine of that loop may close it.
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        max_concurrency: int = 5,  # the plan of the price page's first column; the larger ones allow 10
        slots: Slots | None = None,
        journal: str | os.PathLike[str] | Journal | None = None,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 - frozen
        polling: Polling = Polling(),  # noqa: B008 - frozen
        retry: Retry = Retry(),  # noqa: B008 - frozen
        http: aiohttp.ClientSession | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Set it up; nothing is opened before the first use.

        Args:
            api_key: The key; else the environment's FINEVOICE_API_KEY.
            base_url: The service's address; else the environment's FINEVOICE_BASE_URL, else the real service.
            max_concurrency: How many tasks your plan lets run at once.
            slots: Places shared with others, instead of `max_concurrency` of the session's own.
            journal: A file in which every effect is kept through crashes, or a journal of your own.
            timeouts: How long to wait.
            polling: When to ask.
            retry: What to try again.
            http: An aiohttp session of yours for the calls to the service: used, never closed.
            clock: Another clock than the event loop's, for tests.

        Raises:
            ConfigurationError: The key, the address or an option cannot work.
        """
        key = api_key if api_key is not None else os.environ.get(API_KEY_VARIABLE)
        url = base_url if base_url is not None else os.environ.get(BASE_URL_VARIABLE) or BASE_URL
        self._clock = LoopClock() if clock is None else clock
        self._transport = AiohttpTransport(url, key, timeouts, http)
        self._max_concurrency = max_concurrency
        self._own_slots = LocalSlots(max_concurrency, self._clock)  # checks the number, too
        self._slots: Slots = self._own_slots if slots is None else slots
        if polling.budget * SHORTEST_EFFECT < max_concurrency:
            log.warning(
                "max_concurrency=%d may be held back by Polling.budget=%g: every effect takes at least one poll",
                max_concurrency,
                polling.budget,
            )
        self._timeouts = timeouts
        self._journal = _make_journal(journal, self._clock)
        rng = random.Random()  # noqa: S311 - jitter, no secret
        self._polling = polling
        exchange = Exchange(self._transport, retry=retry, clock=self._clock, slots=self._slots, rng=rng)
        self._exchange = exchange
        self._poller = Poller(
            exchange,
            make_schedule(polling),
            polling=polling,
            clock=self._clock,
            rng=rng,
            is_busy=lambda: self._slots.waiting > 0,
            on_end=self._ended,
        )
        self._submitter = Submitter(
            exchange,
            self._poller,
            slots=self._slots,
            owns_slots=slots is None,
            clock=self._clock,
            journal=self._journal,
            revive=self._revive,
        )
        self._local = is_local(self._transport.base_url)
        self._fetcher = AiohttpFetcher(timeouts, local=self._local)
        self._retry = retry
        self._rng = rng
        # All other mutable state:
        self._state = SessionState.NEW
        self._loop: asyncio.AbstractEventLoop | None = None  # the one it belongs to, from the first use on
        self._pid = os.getpid()
        self._opening: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._fetching: Downloads | None = None  # made when the first result is fetched
        self._runs: set[ManyEffects] = set()  # loops of generate_many
        self._completed = 0
        self._failed = 0

    def __repr__(self) -> str:
        stats = self.stats
        return (
            f"<FineVoiceSession {self._state.value}: {stats.running} running, {stats.waiting} waiting, "
            f"{stats.completed} completed>"
        )

    def __del__(self) -> None:
        if getattr(self, "_state", None) is SessionState.OPEN:
            ids = ", ".join(str(task_id) for task_id in self._poller.tracked) or "none"
            warnings.warn(
                f"A FineVoiceSession was dropped without aclose(). Tasks still running: {ids}",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    # Life

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _bind(self) -> None:
        """Check that the session is used where it belongs; it belongs where it is used first.

        Raises:
            ConfigurationError: It belongs to another event loop or process.
            SessionClosedError: It is closed.
        """
        loop = asyncio.get_running_loop()
        if self._pid != os.getpid():
            raise ConfigurationError("This session belongs to another process; make one after the fork.")
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise ConfigurationError("This session belongs to another event loop; make one for each.")
        if self._state in (SessionState.CLOSING, SessionState.CLOSED):
            raise SessionClosedError("The session is closed. Nothing was sent.")

    async def _open(self) -> None:
        self._bind()
        if self._state is SessionState.OPEN:
            return
        if self._journal is not None:
            if self._opening is None:
                self._opening = asyncio.create_task(self._open_journal(self._journal), name="finevoice-open")
            try:
                await asyncio.shield(self._opening)
            except JournalError:
                self._opening = None  # it can be tried again
                raise
        if self._state is SessionState.NEW:
            self._state = SessionState.OPEN

    async def _open_journal(self, journal: Journal) -> None:
        await journal.open()
        learned = await journal.load(_LEARNED)
        if learned is None or self._polling.interval is not None or self._polling.state is not None:
            return
        try:
            self._poller.schedule = make_schedule(attrs.evolve(self._polling, state=json.loads(learned)))
        except (ValueError, ConfigurationError) as error:
            log.warning("what the journal knows of polling is ignored: %s", error)

    async def aclose(self, *, timeout: float | None = None) -> None:
        """Close: stop submitting, settle the POSTs under way, stop asking, tell the waiters, close journal and HTTP.

        Tasks at the service are not waited for and run on; whoever waits for one gets a `SessionClosedError` with its
        id. Idempotent; a caller that is cancelled leaves the closing to go on by itself.

        Args:
            timeout: Seconds for the POSTs under way; left out, `Timeouts.close`.
        """
        if self._state is SessionState.CLOSED:
            return
        if self._pid != os.getpid() or self._loop not in (None, asyncio.get_running_loop()):
            raise ConfigurationError("This session belongs to another process or event loop; close it there.")
        if self._closing is None:
            self._state = SessionState.CLOSING
            seconds = self._timeouts.close if timeout is None else timeout
            self._closing = asyncio.create_task(self._close(seconds), name="finevoice-close")
        await asyncio.shield(self._closing)

    async def _close(self, timeout: float) -> None:
        try:
            for run in list(self._runs):
                run.stop()
            self._submitter.refuse()  # whoever waits for a place goes home
            await self._own_slots.aclose()
            await self._submitter.settle(timeout)
            await self._poller.aclose()
            self._give_places_back()
            await self._close_journal()
        finally:
            self._state = SessionState.CLOSED
            await self._transport.aclose()
            await self._fetcher.aclose()

    def _give_places_back(self) -> None:
        """Return places to whoever shares them; their tasks run on, but nobody here will see them end."""
        for record in self._poller.tracked.values():
            if record.slot is not None:
                self._slots.release(record.slot)
                record.slot = None

    async def _close_journal(self) -> None:
        if self._journal is None or self._loop is None:
            return
        try:
            self._journal.store(_LEARNED, json.dumps(self._poller.schedule.state()))
            await self._journal.aclose()
        except JournalError:
            log.exception("the journal could not be closed")

    # The job

    async def submit(self, request: Wanted | None = None, *, key: str | None = None, **fields: Any) -> SfxTask:
        """Take a place, submit, and return once the task id is known.

        Cancelled while the POST is under way, the POST goes on and its id is kept: see `tasks` and the journal.

        Args:
            request: A request or a prompt.
            key: Your own name for the effect, with a journal: a second call with it gives the first one's task.
            fields: The other fields of `SfxRequest`.

        Raises:
            InvalidRequestError: A field breaks its rule.
            SubmitNotSentError: The service could not be reached; not paid.
            SubmitUnknownError: It may have been accepted and paid for.
            AuthenticationError: The key is refused.
            InsufficientCreditsError: There are no credits.
            RequestRejectedError: The service refuses this request.
            RateLimitError: The service says 429 after all attempts.
            JournalError: The journal failed; with a task id, after the submission.
            SessionClosedError: The session is closed.
            ConfigurationError: The session belongs to another loop or process.
        """
        wanted = as_request(request, fields)
        await self._open()
        return self._handle(await self._submitter.submit(wanted, check_key_name(key)))

    async def generate(self, request: Wanted | None = None, *, key: str | None = None, **fields: Any) -> SoundEffect:
        """Submit and wait for the effect.

        Raises:
            FineVoiceError: As for `submit` and `SfxTask.wait`.
        """
        return await (await self.submit(request, key=key, **fields))

    async def generate_many(
        self, requests: Iterable[Wanted] | AsyncIterable[Wanted], *, ordered: bool = False
    ) -> AsyncIterator[Outcome]:
        """Make many effects; each outcome comes as it ends.

        Requests are drawn lazily, at most twice `max_concurrency` beyond what you have taken, so an endless source
        is fine. A request that fails is an outcome with an `error`. After a refused key or spent credits the rest is
        not sent, and each gets that error. Leave the loop when you like: what was submitted runs on, nothing more is.

        Args:
            requests: Requests, prompts, or dicts of fields; in an iterable or an async iterable.
            ordered: Give outcomes in the order of the requests.
        """
        await self._open()
        async with self._many(requests, ahead=2 * self._max_concurrency, ordered=ordered) as run:
            async for outcome in run:
                yield outcome

    @asynccontextmanager
    async def _many(
        self, wanted: Iterable[Wanted] | AsyncIterable[Wanted | JournalRow], *, ahead: int, ordered: bool
    ) -> AsyncIterator[ManyEffects]:
        run = ManyEffects(
            wanted,
            ahead=ahead,
            ordered=ordered,
            timeout=self._timeouts.task,
            submitter=self._submitter,
            poller=self._poller,
            make_effect=self._effect,
        )
        self._runs.add(run)
        try:
            yield run
        finally:
            self._runs.discard(run)
            await run.aclose()

    def attach(self, task_id: str) -> SfxTask:
        """Return a handle on a task that another session submitted, or this one.

        The task takes a place of the plan until it is known to have ended.

        Raises:
            InvalidRequestError: It cannot be a task id.
            SessionClosedError: The session is closed.
        """
        self._bind()
        known = self._poller.tracked.get(check_task_id(task_id))
        if self._journal is None:
            self._state = SessionState.OPEN
        if known is None:
            known = Tracked(task_id, None, self._clock.monotonic(), attached=True)
            self._pick_up(known)
        return self._handle(known)

    @property
    def tasks(self) -> tuple[SfxTask, ...]:
        """Handles on all tasks not known to have ended, in the order of submission."""
        return tuple(self._handle(record) for record in self._poller.tracked.values())

    @property
    def stats(self) -> Stats:
        """What the session is doing now, and has done."""
        return Stats(
            submitting=len(self._submitter.posts),
            waiting=self._slots.waiting,
            running=len(self._poller.tracked),
            submitted=self._submitter.accepted,
            completed=self._completed,
            failed=self._failed,
            polls=self._poller.polls,
        )

    def polling_state(self) -> dict[str, Any]:
        """Return what the poll schedule has learned, as plain data for `Polling(state=...)` of a later session."""
        return self._poller.schedule.state()

    # The journal

    async def recover(self) -> AsyncIterator[Outcome]:
        """Pick up what an earlier process left in the journal; each outcome comes as it ends.

        What was submitted is polled on, what was never sent is submitted, what is done can be saved. What may have
        been sent and is unknown is an outcome with a `SubmitUnknownError`: it is never sent again by itself, see
        `resubmit`. Effects that were saved, or failed, are not given.

        Raises:
            ConfigurationError: The session has no journal.
            JournalError: The journal could not be read.
        """
        await self._open()
        rows = left_behind(self._required_journal(), self._submitter.is_under_way)
        async with self._many(rows, ahead=RECOVER_AHEAD, ordered=False) as run:
            async for outcome in run:
                yield outcome

    async def unknown(self) -> list[JournalRow]:
        """Return the journal's rows that may have been accepted and paid for, and whose task ids are not known.

        Raises:
            ConfigurationError: The session has no journal.
            JournalError: The journal could not be read.
        """
        await self._open()
        return [row async for row in unknown_rows(self._required_journal(), self._submitter.is_under_way)]

    async def resubmit(self, row: JournalRow, *, accept_double_charge: bool = False) -> SfxTask:
        """Send an unknown row again, which may be paid for a second time.

        Raises:
            InvalidRequestError: The row is not unknown, or the risk was not accepted.
            FineVoiceError: As for `submit`.
        """
        check_resubmit(row, accept_double_charge=accept_double_charge)
        await self._open()
        self._required_journal()
        return self._handle(await self._submitter.submit_row(row))

    def _required_journal(self) -> Journal:
        if self._journal is None:
            raise ConfigurationError("This needs a journal: FineVoiceSession(journal='effects.db').")
        return self._journal

    def _revive(self, row: JournalRow) -> Tracked:
        """Return the task of a row, asked for again if its end is not known."""
        known = self._poller.tracked.get(row.task_id or "")
        if known is None:
            known = revive(row, self._clock)
            if known.end is None:
                self._pick_up(known)
        return known

    # What the parts call back

    def _handle(self, record: Tracked) -> SfxTask:
        return SfxTask(record, self._poller, self._effect, self._timeouts.task)

    def _effect(self, record: Tracked) -> SoundEffect:
        assert isinstance(record.end, TaskUpdate)  # noqa: S101 - called only for tasks that ended with a result
        return SoundEffect(
            task_id=record.task_id,
            urls=record.end.urls,
            request=record.request,
            raw=record.end.raw,
            row_id=record.row_id,
            downloads=self._downloads,
        )

    def _downloads(self) -> Downloads:
        if self._fetching is None:
            from finevoice_async.engine.downloads import (
                Downloads,  # with files and threads, a fifth of the import's time
            )

            self._fetching = Downloads(
                self._fetcher,
                local=self._local,
                retry=self._retry,
                clock=self._clock,
                rng=self._rng,
                refresh=self._fresh_urls,
                on_saved=self._saved,
            )
        return self._fetching

    def _pick_up(self, record: Tracked) -> None:
        """Ask for a task that runs at the service already, in a place of the plan."""
        self._poller.check(record)
        record.slot = self._slots.occupy()
        self._poller.track(record)

    def _ended(self, record: Tracked) -> None:
        """A task is known to have ended: its place is free, and the journal is told, behind."""
        if record.slot is not None:
            self._slots.release(record.slot)
            record.slot = None
        done = isinstance(record.end, TaskUpdate)
        self._completed += done
        self._failed += not done
        log.info("task %s ended: %s", record.task_id, record.status.value)
        if self._journal is None or record.row_id is None:
            return
        if isinstance(record.end, TaskUpdate):
            self._journal.advance(record.row_id, EffectState.DONE, urls=record.end.urls)
        elif isinstance(record.end, TaskFailedError | TaskNotFoundError):
            self._journal.advance(record.row_id, EffectState.FAILED, error=record.end.message)

    async def _saved(self, effect: SoundEffect, path: Path, sha256: str) -> None:
        if self._journal is not None and effect.row_id is not None:
            await self._journal.advance(effect.row_id, EffectState.SAVED, path=str(path.absolute()), sha256=sha256)

    async def _fresh_urls(self, task_id: str) -> tuple[str, ...]:
        """Ask a task once for fresh links; none if it has none to give."""
        answer = await self._exchange.ask(task_id)
        return answer.urls if isinstance(answer, TaskUpdate) else ()


def _make_journal(journal: str | os.PathLike[str] | Journal | None, clock: Clock) -> Journal | None:
    if not isinstance(journal, str | os.PathLike):
        return journal
    from finevoice_async.adapters.sqlite_journal import SqliteJournal

    return SqliteJournal(journal, clock)
