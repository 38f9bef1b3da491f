"""The face of the library: one session wires the parts, opens and closes them in order, and hands out the results."""

from __future__ import annotations

import os
import warnings
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, overload

import aiohttp

from finevoice_async.config import Budget, Downloads, Fleet, Polling, Retry, Timeouts
from finevoice_async.core.requests import RequestLike
from finevoice_async.core.tasks import TaskUpdate, check_task_id
from finevoice_async.effect import Outcome, SaveTo
from finevoice_async.engine.life import Life, SessionState
from finevoice_async.engine.records import Submission, TaskRecord
from finevoice_async.engine.registry import FoundRow
from finevoice_async.engine.stats import Stats
from finevoice_async.errors import PollError
from finevoice_async.outcomes import OutcomeStream
from finevoice_async.ports import Journal, Observer, Slots
from finevoice_async.recovery import Recovery
from finevoice_async.reprs import with_safe_repr
from finevoice_async.task import SfxTask, TaskContext

if TYPE_CHECKING:
    from finevoice_async.shared_ports import FleetStats

MAX_QUEUE = 10_000
"""Effects that may wait for a slot. At 5 slots and 10 s an effect the last one waits five hours and a half."""


@with_safe_repr
class FineVoiceSession(Recovery):
    """Sound effects from FineVoice, many at once.

    Use it with ``async with``, or close it with `aclose`. It belongs to the loop and the process that use it first.
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        max_concurrency: int = 5,  # the plan of the price page's first column; the larger ones allow 10
        max_queue: int = MAX_QUEUE,
        slots: Slots | None = None,
        journal: str | os.PathLike[str] | Journal | None = None,
        fleet: Fleet | None = None,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 - frozen
        polling: Polling = Polling(),  # noqa: B008 - frozen
        retry: Retry = Retry(),  # noqa: B008 - frozen
        downloads: Downloads = Downloads(),  # noqa: B008 - frozen
        budget: Budget | None = None,
        http: aiohttp.ClientSession | None = None,
        observer: Observer | None = None,
    ) -> None:
        """Set it up; nothing is opened before the first use.

        Args:
            api_key: The key; else the environment's FINEVOICE_API_KEY.
            base_url: The service's address; else the environment's FINEVOICE_BASE_URL, else the real service.
            max_concurrency: How many tasks your plan lets run at once.
            max_queue: How many effects may wait for a slot; beyond it `QueueFullError`. `generate_many` waits instead.
            slots: Slots shared with others, instead of `max_concurrency` of the session's own.
            journal: A file in which every effect is kept through crashes, or a journal of your own. It is of one
                service: that of the base URL it is opened with first. All of this machine's, as emulators, are one.
                Or `postgresql://...`: journal and slots for all sessions on any machine that have this key.
            fleet: How the session lives among them; left out, by the defaults.
            timeouts: How long to wait.
            polling: When to ask.
            retry: What to try again.
            downloads: How to fetch results.
            budget: How much may be submitted; None: whatever is asked for. In a time, it needs a journal.
            http: An aiohttp session of yours for the calls to the service: used, never closed.
            observer: Is told each step of each effect (see `events`), as `telemetry.OpenTelemetryObserver` is.

        Raises:
            ConfigurationError: The key, the address or an option cannot work.
        """
        from finevoice_async.wiring import Wiring  # the engine: half of this package, and not all programs make one

        self._parts = parts = Wiring(
            api_key,
            base_url=base_url,
            max_concurrency=max_concurrency,
            max_queue=max_queue,
            slots=slots,
            journal=journal,
            fleet=fleet,
            timeouts=timeouts,
            polling=polling,
            retry=retry,
            downloads=downloads,
            budget=budget,
            http=http,
            observer=observer,
        )
        self._bookkeeper, self._submitter, self._poller = parts.bookkeeper, parts.submitter, parts.poller
        self._context = TaskContext(
            parts.submitter,
            parts.poller,
            parts.inflight,
            parts.downloads,
            parts.bookkeeper,
            timeouts.task,
            max_concurrency,
        )
        # All mutable state:
        self._life = Life()
        self._streams: dict[OutcomeStream, None] = {}  # loops of generate_many and recover; each leaves when it is left
        self._stream = partial(
            OutcomeStream,
            self._streams,
            parts.submitter,
            parts.poller,
            parts.downloads,
            timeout=timeouts.task,
            keeps=parts.bookkeeper.has_journal,
        )

    def __repr__(self) -> str:
        stats = self.stats
        counts = f"{stats.running} running, {stats.waiting} waiting, {stats.completed} completed"
        return f"<FineVoiceSession {self._life.state.value}: {counts}>"

    def __del__(self) -> None:
        life: Life | None = getattr(self, "_life", None)
        if life is not None and life.state is SessionState.OPEN:
            ids = ", ".join(str(task_id) for task_id in self._parts.inflight.tasks) or "none"
            warnings.warn(
                f"A FineVoiceSession was dropped without aclose(). Tasks still running: {ids}",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    # Life

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self.aclose()  # nobody else will: what was opened, such as the journal, is given back
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _open(self) -> None:
        await self._life.open(self._parts.open_journal if self._bookkeeper.has_journal else None)

    async def aclose(self, *, timeout: float | None = None) -> None:
        """Close: stop submitting, settle the POSTs under way, stop asking, tell the waiters, close journal and HTTP.

        Tasks at the service are not waited for and run on; whoever waits for one gets a `SessionClosedError` with its
        id. In a fleet they keep their slots, and another session follows them. Idempotent; a caller that is cancelled
        leaves the closing to go on by itself.

        Args:
            timeout: Seconds for the POSTs under way; left out, `Timeouts.close`.

        Raises:
            ConfigurationError: The session belongs to another loop or process.
        """
        seconds = self._parts.timeouts.close if timeout is None else timeout
        await self._life.close(lambda: self._close(seconds))

    async def _close(self, timeout: float) -> None:
        for stream in list(self._streams):
            stream.stop()
        await self._parts.aclose(timeout)

    def _finish(self) -> bool:
        """Close it for who has no event loop (any more), and tell whether its own is gone: for the fixtures."""
        return self._life.finish(partial(self._close, self._parts.timeouts.close), self._parts.give_back)

    # The job

    @overload  # an iterable and an async one apart: else pyright infers nothing for the dicts of a generator expression
    def generate_many(
        self,
        requests: AsyncIterable[RequestLike],
        *,
        ordered: bool = False,
        save_to: SaveTo | None = None,
        retry_failed: bool = False,
    ) -> AsyncGenerator[Outcome, None]: ...
    @overload
    def generate_many(
        self,
        requests: Iterable[RequestLike],
        *,
        ordered: bool = False,
        save_to: SaveTo | None = None,
        retry_failed: bool = False,
    ) -> AsyncGenerator[Outcome, None]: ...
    async def generate_many(
        self,
        requests: Iterable[RequestLike] | AsyncIterable[RequestLike],
        *,
        ordered: bool = False,
        save_to: SaveTo | None = None,
        retry_failed: bool = False,
    ) -> AsyncGenerator[Outcome, None]:
        """Make many effects; each outcome comes as it ends.

        Requests are drawn lazily, at most twice `max_concurrency` beyond what you have taken, so an endless source
        is fine. A request that fails is an outcome with an `error`. Once the service has refused the key, or credits
        are spent, the rest is not sent, and each gets that error.
        Leave the loop when you like: what was submitted runs on, nothing more is.

        Args:
            requests: Requests, prompts, or dicts of fields (and `key`, `owner`, and with a folder `file`; see
                `SfxItem`), in an iterable or an async iterable.
            ordered: Give outcomes in the order of the requests.
            save_to: A folder, or a callable that gives each effect its path, of the request and the key. Effects are
                saved while others are made, and given once they are; see `Outcome.path`. None is saved over another
                of the same call: a second item with a `file` is refused unsent, a second effect at one path is an
                outcome with a `DownloadError`.
            retry_failed: If a key's effect failed at the service, pay for another try.

        Raises:
            InvalidRequestError: The requests are one request in the place of many, or nothing that can be drawn from.
            ConfigurationError: `save_to` cannot be used; or the session belongs to another loop or process.
            JournalError: The journal could not be opened.
            SessionClosedError: The session is closed.
            RuntimeError: The iterable was ended by a cancellation that is not yours.
            Exception: What the iterable raises, after the outcomes of what was drawn.
        """
        await self._open()
        ahead = 2 * self._parts.max_concurrency
        async with self._stream(
            requests, ahead=ahead, ordered=ordered, save_to=save_to, retry_failed=retry_failed
        ) as stream:
            async for outcome in stream:
                yield outcome

    async def attach(self, task_id: str) -> SfxTask:
        """Return a handle on a task that another session submitted, or this one.

        A journal's row of that task is found: request, key and whether it was saved. A task that is new to this
        session takes a slot of the plan once the service has said that it runs.

        Raises:
            InvalidRequestError: It cannot be a task id.
            PollError: The poller died, so that nobody would see the task end.
            JournalError: The journal could not be read.
            SessionClosedError: The session is closed.
            ConfigurationError: The session belongs to another loop or process.
        """
        check_task_id(task_id)
        await self._open()
        row = await self._bookkeeper.row_of(task_id=task_id)
        self._life.bind()  # it may have been closed meanwhile
        if row is None:
            return self._task_of(self._poller.attach(task_id))
        return self._task_of(await self._parts.pick_up(row, ask_again=True))

    async def status(self, task_id: str) -> TaskUpdate:
        """Ask the service once how a task is doing: nothing is kept, no slot is taken, nothing is tried again.

        Raises:
            InvalidRequestError: It cannot be a task id.
            TaskNotFoundError: The service does not know it.
            PollError: Its state could not be learned.
            AuthenticationError: The key is refused.
            JournalError: The journal could not be opened.
            SessionClosedError: The session is closed.
            ConfigurationError: The session belongs to another loop or process.
        """
        check_task_id(task_id)
        await self._open()
        try:
            return await self._poller.ask_once(task_id)
        except PollError:
            self._life.bind()  # it may have been closed meanwhile
            raise

    @property
    def tasks(self) -> tuple[SfxTask, ...]:
        """Handles on all tasks not known to have ended, in the order of submission."""
        return tuple(self._task_of(record) for record in self._parts.inflight.tasks.values())

    @property
    def stats(self) -> Stats:
        """What the session is doing now, and has done."""
        return Stats(
            submitting=self._submitter.submitting,
            waiting=self._submitter.waiting,
            running=len(self._parts.inflight.tasks),
            submitted=self._bookkeeper.accepted,
            completed=self._bookkeeper.completed,
            failed=self._bookkeeper.failed,
            polls=self._poller.polls,
        )

    async def fleet(self) -> FleetStats:
        """Return what all sessions that share this one's database and key are doing together.

        Raises:
            ConfigurationError: The journal is not in PostgreSQL; or the session belongs to another loop or process.
            JournalError: The journal could not be read.
            SessionClosedError: The session is closed.
        """
        await self._open()
        return await self._parts.fleet()

    def polling_state(self) -> dict[str, Any]:
        """Return what the poll schedule has learned, as plain data for `Polling(state=...)` of a later session."""
        return self._parts.answers.learned()

    def _task_of(self, source: TaskRecord | Submission | FoundRow) -> SfxTask:
        return SfxTask(source, self._context)
