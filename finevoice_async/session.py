"""The face of the library: one session wires the parts, opens and closes them in order, and hands out the results."""

from __future__ import annotations

import json
import logging
import os
import random
import warnings
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from functools import partial
from types import TracebackType
from typing import Any, Self

import aiohttp

from finevoice_async.adapters.aiohttp_fetcher import AiohttpFetcher
from finevoice_async.adapters.aiohttp_transport import AiohttpTransport
from finevoice_async.adapters.journals import make_journal
from finevoice_async.adapters.local_slots import LocalSlots
from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.config import API_KEY_VARIABLE, BASE_URL, BASE_URL_VARIABLE, Budget, Polling, Retry, Timeouts
from finevoice_async.core.addresses import is_local
from finevoice_async.core.ledger import MAY_BE_PAID, EffectState, JournalRow, check_key
from finevoice_async.core.requests import as_request
from finevoice_async.core.tasks import check_task_id
from finevoice_async.effect import SoundEffect
from finevoice_async.engine.answers import Answers
from finevoice_async.engine.bookkeeper import Bookkeeper
from finevoice_async.engine.caller import until_known
from finevoice_async.engine.downloads import Downloads
from finevoice_async.engine.exchange import Exchange
from finevoice_async.engine.expiry import Deadlines
from finevoice_async.engine.gate import Gate
from finevoice_async.engine.inflight import InFlight
from finevoice_async.engine.life import Life, SessionState
from finevoice_async.engine.poller import Poller
from finevoice_async.engine.records import Stats, TaskRecord
from finevoice_async.engine.registry import Registry
from finevoice_async.engine.sender import Sender
from finevoice_async.engine.slots import GuardedSlots
from finevoice_async.engine.submitter import Submitter
from finevoice_async.errors import ConfigurationError, InvalidRequestError
from finevoice_async.outcomes import Outcome, OutcomeStream, RequestLike
from finevoice_async.ports import Journal, Slots
from finevoice_async.task import SfxTask

log = logging.getLogger("finevoice_async")

_LEARNED = "polling"  # the name under which the journal keeps what the schedule has learned

SHORTEST_EFFECT = 5.0
"""Seconds: with more slots than this many seconds' worth of polls, polls may be what holds the session back."""

RECOVER_AHEAD = 1000
"""Rows that `recover` picks up beyond what the caller has taken; those that were submitted run anyway."""


class FineVoiceSession:
    """Sound effects from FineVoice, many at once.

    Use it with ``async with``, or close it with `aclose`. It belongs to the loop and the process that use it first.
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
        budget: Budget | None = None,
        http: aiohttp.ClientSession | None = None,
    ) -> None:
        """Set it up; nothing is opened before the first use.

        Args:
            api_key: The key; else the environment's FINEVOICE_API_KEY.
            base_url: The service's address; else the environment's FINEVOICE_BASE_URL, else the real service.
            max_concurrency: How many tasks your plan lets run at once.
            slots: Slots shared with others, instead of `max_concurrency` of the session's own.
            journal: A file in which every effect is kept through crashes, or a journal of your own.
            timeouts: How long to wait.
            polling: When to ask.
            retry: What to try again.
            budget: How much may be submitted; None: whatever is asked for. In a time, it needs a journal.
            http: An aiohttp session of yours for the calls to the service: used, never closed.

        Raises:
            ConfigurationError: The key, the address or an option cannot work.
        """
        key = api_key if api_key is not None else os.environ.get(API_KEY_VARIABLE)
        url = base_url if base_url is not None else os.environ.get(BASE_URL_VARIABLE) or BASE_URL
        clock, rng = LoopClock(), random.Random()  # noqa: S311 - jitter, no secret
        self._deadlines = Deadlines(timeouts.connect + timeouts.read, clock)  # for a whole call
        self._transport = AiohttpTransport(url, key, timeouts, http, deadline=self._deadlines)
        own = LocalSlots(max_concurrency, clock)  # checks the number, too
        self._slots: Slots = own if slots is None else GuardedSlots(slots)
        if polling.budget * SHORTEST_EFFECT < max_concurrency:
            log.warning("max_concurrency=%d may be held back by Polling.budget=%g", max_concurrency, polling.budget)
        self._timeouts, self._max_concurrency = timeouts, max_concurrency
        self._bookkeeper = books = Bookkeeper(make_journal(journal, clock))
        exchange = Exchange(self._transport, clock=clock)
        self._inflight = inflight = InFlight(self._slots, books)
        self._answers = Answers(inflight, polling=polling, retry=retry, clock=clock, slots=self._slots, rng=rng)
        self._poller = poller = Poller(exchange, inflight, self._answers, polling=polling, clock=clock, rng=rng)
        registry, gate = Registry(), Gate(retry=retry, clock=clock, rng=rng)
        slots, parts = self._slots, (poller, inflight, books, registry)
        sender = Sender(exchange, *parts, gate=gate, slots=slots, clock=clock, retry=retry, budget=budget, rng=rng)
        self._spending = sender.spending
        self._submitter = submitter = Submitter(sender, *parts, gate=gate, slots=slots, clock=clock)
        local = is_local(self._transport.base_url)
        self._fetcher = AiohttpFetcher(timeouts, local=local)
        self._downloads = Downloads(self._fetcher, exchange, books, local=local, retry=retry, clock=clock, rng=rng)
        # All mutable state:
        self._life = Life()
        self._streams: dict[OutcomeStream, None] = {}  # loops of generate_many and recover; each leaves when it is left
        self._stream = partial(OutcomeStream, self._streams, submitter, poller, self._downloads, timeout=timeouts.task)

    def __repr__(self) -> str:
        stats = self.stats
        counts = f"{stats.running} running, {stats.waiting} waiting, {stats.completed} completed"
        return f"<FineVoiceSession {self._life.state.value}: {counts}>"

    def __del__(self) -> None:
        life: Life | None = getattr(self, "_life", None)
        if life is not None and life.state is SessionState.OPEN:
            ids = ", ".join(str(task_id) for task_id in self._inflight.tasks) or "none"
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

    async def _open(self) -> None:
        await self._life.open(self._open_journal if self._bookkeeper.has_journal else None)

    async def _open_journal(self) -> None:
        """Open the journal; tasks that it knows to run take their slots before anything new is submitted."""
        await self._bookkeeper.open()
        await self._spending.open()
        learned = await self._bookkeeper.load(_LEARNED)
        if learned is not None:
            try:
                self._answers.learn_from(json.loads(learned))
            except (ValueError, RecursionError, ConfigurationError) as error:
                log.warning("what the journal knows of polling is ignored: %s", error)
        async for row in self._bookkeeper.rows(EffectState.SUBMITTED):
            self._poller.pick_up(row)

    async def aclose(self, *, timeout: float | None = None) -> None:
        """Close: stop submitting, settle the POSTs under way, stop asking, tell the waiters, close journal and HTTP.

        Tasks at the service are not waited for and run on; whoever waits for one gets a `SessionClosedError` with its
        id. Idempotent; a caller that is cancelled leaves the closing to go on by itself.

        Args:
            timeout: Seconds for the POSTs under way; left out, `Timeouts.close`.
        """
        seconds = self._timeouts.close if timeout is None else timeout
        await self._life.close(lambda: self._close(seconds))

    async def _close(self, timeout: float) -> None:
        try:
            for stream in list(self._streams):
                stream.stop()
            self._submitter.refuse()  # whoever waits for a slot goes home
            await self._submitter.settle(timeout)
            await self._poller.aclose()
            self._inflight.close()
            await self._bookkeeper.aclose({_LEARNED: json.dumps(self._answers.learned())})
            self._submitter.give_up()
            await self._slots.aclose()
        finally:
            self._deadlines.close()
            await self._transport.aclose()
            await self._fetcher.aclose()

    # The job

    async def submit(
        self, request: RequestLike | None = None, *, key: str | None = None, retry_failed: bool = False, **fields: Any
    ) -> SfxTask:
        """Take a slot, submit, and return once the task id is known.

        Cancelled before its POST, nothing is sent, unless others wait for the same key. Cancelled while the POST is
        under way, the POST goes on and its id is kept: see `tasks` and the journal.

        Args:
            request: A request or a prompt.
            key: Your own name for the effect, with a journal: another call with it gives the first one's task.
            retry_failed: If the key's effect failed at the service, pay for another try.
            fields: The other fields of `SfxRequest`.

        Raises:
            InvalidRequestError: A field breaks its rule, or the key belongs to another request.
            SubmitNotSentError: The service could not be reached; not paid.
            SubmitUnknownError: It may have been accepted and paid for.
            AuthenticationError: The key is refused.
            InsufficientCreditsError: There are no credits.
            RequestRejectedError: The service refuses this request.
            RateLimitError: The service says 429 after all attempts.
            PollError: The poller died, so that nobody would see the task end.
            JournalError: The journal failed; with a task id, after the submission.
            SessionClosedError: The session is closed.
            ConfigurationError: The session belongs to another loop or process, or a key needs a journal.
        """
        wanted, name = as_request(request, fields), check_key(key)
        await self._open()
        take_in = partial(self._submitter.submit, wanted, name, retry_failed=retry_failed)
        return self._task_of(await until_known(self._submitter, take_in))

    async def generate(
        self, request: RequestLike | None = None, *, key: str | None = None, retry_failed: bool = False, **fields: Any
    ) -> SoundEffect:
        """Submit and wait for the effect.

        Raises:
            FineVoiceError: As for `submit` and `SfxTask.wait`.
        """
        return await (await self.submit(request, key=key, retry_failed=retry_failed, **fields))

    async def generate_many(
        self,
        requests: Iterable[RequestLike] | AsyncIterable[RequestLike],
        *,
        ordered: bool = False,
        retry_failed: bool = False,
    ) -> AsyncIterator[Outcome]:
        """Make many effects; each outcome comes as it ends.

        Requests are drawn lazily, at most twice `max_concurrency` beyond what you have taken, so an endless source
        is fine. A request that fails is an outcome with an `error`. After a refused key or spent credits the rest is
        not sent, and each gets that error. Leave the loop when you like: what was submitted runs on, nothing more is.

        Args:
            requests: Requests, prompts, or dicts of fields; in an iterable or an async iterable.
            ordered: Give outcomes in the order of the requests.
            retry_failed: If a key's effect failed at the service, pay for another try.

        Raises:
            RuntimeError: The iterable was ended by a cancellation that is not yours.
        """
        await self._open()
        ahead = 2 * self._max_concurrency
        async with self._stream(requests, ahead=ahead, ordered=ordered, retry_failed=retry_failed) as stream:
            async for outcome in stream:
                yield outcome

    async def attach(self, task_id: str) -> SfxTask:
        """Return a handle on a task that another session submitted, or this one.

        A journal's row of that task is found: request, key and whether it was saved. A task that is new to this
        session takes a slot of the plan once the service has said that it runs.

        Raises:
            InvalidRequestError: It cannot be a task id.
            JournalError: The journal could not be read.
            SessionClosedError: The session is closed.
        """
        check_task_id(task_id)
        await self._open()
        row = await self._bookkeeper.row_of_task(task_id)
        self._life.bind()  # it may have been closed meanwhile
        return self._task_of(self._poller.attach(task_id) if row is None else self._poller.pick_up(row, ask_again=True))

    @property
    def tasks(self) -> tuple[SfxTask, ...]:
        """Handles on all tasks not known to have ended, in the order of submission."""
        return tuple(self._task_of(record) for record in self._inflight.tasks.values())

    @property
    def stats(self) -> Stats:
        """What the session is doing now, and has done."""
        return Stats(
            submitting=self._submitter.submitting,
            waiting=self._submitter.waiting,
            running=len(self._inflight.tasks),
            submitted=self._bookkeeper.accepted,
            completed=self._bookkeeper.completed,
            failed=self._bookkeeper.failed,
            polls=self._poller.polls,
        )

    def polling_state(self) -> dict[str, Any]:
        """Return what the poll schedule has learned, as plain data for `Polling(state=...)` of a later session."""
        return self._answers.learned()

    def _task_of(self, record: TaskRecord) -> SfxTask:
        return SfxTask(record, self._poller, self._downloads, self._timeouts.task)

    # The journal

    async def rows(self, *states: EffectState) -> AsyncIterator[JournalRow]:
        """Yield the journal's rows in these states (none named: in any), oldest first.

        Raises:
            ConfigurationError: The session has no journal.
            JournalError: The journal could not be read.
        """
        await self._open()
        async for row in self._bookkeeper.rows(*states):
            yield row

    async def recover(self) -> AsyncIterator[Outcome]:
        """Pick up what an earlier process left in the journal; each outcome comes as it ends.

        What was submitted is polled on, what was never sent is submitted, what is done can be saved. What may have
        been paid for is an outcome with a `SubmitUnknownError`, or, if the service does not know its task any more, a
        `TaskNotFoundError`: it is never sent again by itself, see `resubmit`, `adopt` and `discard`. Effects that
        were saved, refused or failed are not given.

        Raises:
            ConfigurationError: The session has no journal.
            JournalError: The journal could not be read.
        """
        await self._open()
        async with self._stream(self._left_behind(), ahead=RECOVER_AHEAD) as stream:
            async for outcome in stream:
                yield outcome

    async def _left_behind(self) -> AsyncIterator[JournalRow]:
        async for row in self._bookkeeper.left_behind():
            if not self._submitter.is_under_way(row):
                yield row

    async def unknown(self) -> list[JournalRow]:
        """Return the rows that may have been paid for, and that only you can settle.

        Their task ids are not known (UNKNOWN), or the service does not know them any more (LOST).

        Raises:
            ConfigurationError: The session has no journal.
            JournalError: The journal could not be read.
        """
        return [row async for row in self.rows(*MAY_BE_PAID)]

    async def resubmit(self, row: JournalRow, *, accept_double_charge: bool = False) -> SfxTask:
        """Send a row again that may have been paid for, which may be paid for a second time.

        Refused, it stays what it was: the error says so.

        Raises:
            InvalidRequestError: The row is settled or being submitted, or the risk was not accepted.
            FineVoiceError: As for `submit`.
        """
        if accept_double_charge is not True:
            raise InvalidRequestError(
                f"Row {row.id} may have been paid for. To send it again, pass accept_double_charge=True."
            )
        current = await self._open_row(row)
        take_in = partial(self._submitter.submit_row, current, resend=True)
        return self._task_of(await until_known(self._submitter, take_in))

    async def adopt(self, row: JournalRow, *, task_id: str) -> SfxTask:
        """Settle a row that may have been paid for by naming its task, which you have found in your account.

        Raises:
            InvalidRequestError: The row is settled or being submitted, or the id cannot be its task's.
            ConfigurationError: The session has no journal.
            JournalError: It could not be written.
            SessionClosedError: The session is closed.
        """
        check_task_id(task_id)
        current = await self._open_row(row)
        return self._task_of(self._poller.pick_up(await self._bookkeeper.adopt(current, task_id)))

    async def discard(self, row: JournalRow) -> None:
        """Give up a row that may have been paid for, or that was never sent: its key is free again.

        Raises:
            InvalidRequestError: The row is settled or being submitted.
            ConfigurationError: The session has no journal.
            JournalError: It could not be written.
            SessionClosedError: The session is closed.
        """
        await self._bookkeeper.discard(await self._open_row(row, EffectState.QUEUED))

    async def _open_row(self, row: JournalRow, *more: EffectState) -> JournalRow:
        """Return a row as it is now, if it is the caller's to settle."""
        await self._open()
        current = await self._bookkeeper.to_settle(row, *more)
        self._submitter.check_not_under_way(current)
        return current
