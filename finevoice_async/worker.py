"""What takes jobs from a fleet's queue: each is made by a session, and saved. `finevoice worker` runs one.

The queue only delivers, and may do so twice: when a worker was killed, was cut off for a while, or could not say that
it was done. What keeps an effect from being paid for twice is its key, in the journal. So any worker may be killed at
any time; a job of one that is silent for a whole lease goes to another.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import anyio
import attrs
from procrastinate import RetryDecision
from procrastinate import jobs as procrastinate_jobs
from procrastinate.retry import BaseRetryStrategy
from procrastinate.worker import Worker as QueueWorker

from finevoice_async.adapters.job_queue import QUEUE, QUEUE_ERRORS, TASK, Job, check, describe, make_app, unpaid
from finevoice_async.config import Fleet
from finevoice_async.core.ledger import EffectState
from finevoice_async.errors import (
    AuthenticationError,
    ConfigurationError,
    DownloadError,
    FineVoiceError,
    InsufficientCreditsError,
    InvalidRequestError,
    PollError,
    RequestRejectedError,
    SessionClosedError,
    TaskTimeoutError,
)
from finevoice_async.session import FineVoiceSession

log = logging.getLogger("finevoice_async")

LOOK: Final = 2.0
"""Seconds between two looks for jobs that nobody announces: those to be tried again, and those of the dead."""

FIRST_DELAY, LONGEST_DELAY = 5.0, 300.0
"""Seconds before a job is tried again: twice as long each time. The session itself has been patient before."""

FETCHES: Final = 10
"""How often a job is delivered at most whose effect is made and cannot be had: that takes half an hour."""

_STOPS: Final = (AuthenticationError, InsufficientCreditsError, ConfigurationError)
"""Errors that every further job would meet as well: somebody has to do something first."""

_LASTING: Final = (InvalidRequestError, RequestRejectedError)
"""Errors that no further try changes."""

_FOLLOWING: Final = (PollError, TaskTimeoutError, SessionClosedError)
"""Errors after which the task's id, in the journal, still leads to the result: to go on costs nothing."""

_LOWEST: Final = (
    "SELECT min(id) AS id FROM procrastinate_workers "
    "WHERE last_heartbeat >= now() - make_interval(secs => %(lease)s::float)"
)


_NEVER: Final = 1e6  # seconds


@attrs.frozen(kw_only=True)
class JobUpdate:
    """What became of a job.

    Attributes:
        key: Its key.
        path: Where its effect is saved.
        task_id: The service's id.
        error: Why it is not saved.
        again_in: Seconds after which the queue delivers it again; None: never by itself.
    """

    key: str
    path: Path | None = None
    task_id: str | None = None
    error: BaseException | None = None
    again_in: float | None = None


def again_in(error: BaseException, attempts: int) -> float | None:
    """Return after how many seconds a job that failed is delivered again, None for never.

    Never, unless it is certain that nothing was paid for and that may change, or that to go on costs nothing.

    Args:
        error: What it failed with.
        attempts: How often it was delivered before.
    """
    if isinstance(error, asyncio.CancelledError):
        return 0.0  # its worker ends
    if not isinstance(error, FineVoiceError) or isinstance(error, _LASTING):
        return None
    if isinstance(error, DownloadError) or (isinstance(error, _FOLLOWING) and error.task_id is not None):
        if attempts + 1 >= FETCHES:
            return None
    elif error.paid is not False:
        return None
    if isinstance(error, SessionClosedError):
        return 0.0
    delay = min(FIRST_DELAY * 2.0 ** min(attempts, 10), LONGEST_DELAY)
    return max(delay, min(error.retry_after or 0.0, LONGEST_DELAY))


class _AgainIn(BaseRetryStrategy):
    """Tells procrastinate the same."""

    def get_retry_decision(self, *, exception: BaseException, job: procrastinate_jobs.Job) -> RetryDecision | None:
        seconds = again_in(exception, job.attempts)
        return None if seconds is None else RetryDecision(retry_in={"milliseconds": int(1000 * seconds)})


class Worker:
    """Takes jobs, at most so many at once, until it is told to stop."""

    def __init__(
        self,
        url: str,
        session: FineVoiceSession,
        folder: Path,
        *,
        concurrency: int,
        told: Callable[[JobUpdate], None],
        fleet: Fleet = Fleet(),  # noqa: B008 - frozen
    ) -> None:
        """Set it up.

        Args:
            url: The database, which is the session's journal, too.
            session: Makes the effects.
            folder: Where they are saved.
            concurrency: How many jobs are in hand at once.
            told: Hears what becomes of each.
            fleet: How often it says that it lives, and after what silence the others take it for dead.
        """
        self._url = url
        self._session = session
        self._folder = folder
        self._concurrency = concurrency
        self._told = told
        self._fleet = fleet
        self._app = make_app(url)
        self._app.task(name=TASK, queue=QUEUE, retry=_AgainIn(), pass_context=True)(self._do)
        # All mutable state:
        self.stopped_by: FineVoiceError | None = None  # an error that every job would meet
        self._ended = asyncio.Event()  # take no more
        self._in_hand: dict[asyncio.Task[Any], str] = {}  # jobs, and their keys

    @property
    def in_hand(self) -> int:
        """How many jobs it has."""
        return len(self._in_hand)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set and what runs is done, or until an error that every job would meet.

        Told to stop it takes no more, and gives back what waits for a slot. Cancelled it gives back all.

        Raises:
            JournalError: The queue cannot be opened.
        """
        await check(self._url)
        watching = asyncio.create_task(self._watch(stop), name="finevoice-worker-stop", context=contextvars.Context())
        serving = asyncio.create_task(self._serve(), name="finevoice-worker", context=contextvars.Context())
        try:
            await asyncio.wait([serving])
            serving.result()
        finally:
            watching.cancel()
            self._ended.set()
            for job in self._in_hand:
                job.cancel()
            await asyncio.wait([watching, serving])

    async def _watch(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._ended.set()

    async def _serve(self) -> None:
        try:
            await self._app.open_async()
        except QUEUE_ERRORS as error:
            raise unpaid(f"The queue cannot be opened: {describe(error)}.") from error
        try:
            while not self._ended.is_set():
                try:
                    await self._serve_while_it_goes()
                except QUEUE_ERRORS as error:  # the database is away, or the others took this worker for dead
                    log.warning("the queue is away (%s); no jobs are taken until it is back", describe(error))
                    await _comes(self._ended, LOOK)
        finally:
            with contextlib.suppress(*QUEUE_ERRORS):  # the server drops what cannot be closed
                await self._app.close_async()

    async def _serve_while_it_goes(self) -> None:
        worker = QueueWorker(
            self._app,
            queues=[QUEUE],
            concurrency=self._concurrency,
            fetch_job_polling_interval=LOOK,
            delete_jobs="successful",
            install_signal_handlers=False,
            update_heartbeat_interval=_NEVER,  # `_keep` does it, also while the last jobs are finished
            abort_job_polling_interval=_NEVER,  # nobody aborts jobs here
            stalled_worker_timeout=self._fleet.lease,
        )
        done = asyncio.Event()
        keeping = asyncio.create_task(self._keep(worker, done), name="finevoice-worker-beat")
        ending = asyncio.create_task(self._end(worker), name="finevoice-worker-end")
        try:
            await worker.run()  # type: ignore[no-untyped-call]  # it says nothing of its result
        finally:
            done.set()  # not cancelled: before Python 3.12 a task that waits for the pool may lose its cancellation
            ending.cancel()
            await asyncio.wait([keeping, ending])

    async def _end(self, worker: QueueWorker) -> None:
        """Once it ends: take no more, and give back what waits for a slot; nothing of that was sent."""
        await self._ended.wait()
        worker.stop()  # type: ignore[no-untyped-call]  # the same
        while True:
            waiting = await self._waiting()
            for job, key in list(self._in_hand.items()):
                if key in waiting:
                    job.cancel()
            await asyncio.sleep(self._fleet.beat)  # what is held for a service that is full waits again

    async def _waiting(self) -> set[str | None]:
        """Return the keys of all that is certainly not sent yet."""
        try:
            return {row.key async for row in self._session.rows(EffectState.QUEUED)}
        except FineVoiceError as error:  # its jobs hear of it, too
            log.warning("what waits cannot be given back: %s", error)
            return set()

    async def _keep(self, worker: QueueWorker, done: asyncio.Event) -> None:
        """Say that this worker lives, also while it only finishes what runs, and look after the jobs of the dead."""
        while not await _comes(done, self._fleet.beat):
            if worker.worker_id is None:
                continue
            try:
                await self._app.job_manager.update_heartbeat(worker.worker_id)
                await self._rescue(worker.worker_id)
            except QUEUE_ERRORS as error:
                log.warning("the queue is away (%s)", describe(error))

    async def _rescue(self, me: int) -> None:
        """If this is the lowest living worker, put the jobs of the dead back into the queue."""
        lease = self._fleet.lease
        lowest = await self._app.connector.execute_query_one_async(_LOWEST, lease=lease)
        if lowest["id"] != me:
            return
        manager = self._app.job_manager
        for job in await manager.get_stalled_jobs(queue=QUEUE, seconds_since_heartbeat=lease):
            log.info("job %s of a worker that is gone goes to another", job.id)
            await manager.retry_job(job)

    async def _do(self, context: Any, /, **spelled: Any) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a job is one
        key = str(spelled.get("key"))
        try:
            job = Job.read(**spelled)
            self._in_hand[task], key = job.key, job.key
            self._told(await self._make(job))
        except BaseException as error:
            if isinstance(error, _STOPS) and self.stopped_by is None:
                self.stopped_by = error
                self._ended.set()
            self._tell(key, error, context.job.attempts)
            raise
        finally:
            self._in_hand.pop(task, None)

    async def _make(self, job: Job) -> JobUpdate:
        effect = await self._session.generate(job.request, key=job.key, owner=job.owner)
        earlier = None if effect.saved_as is None else Path(effect.saved_as)
        if earlier is not None and await anyio.to_thread.run_sync(earlier.is_file):
            return JobUpdate(key=job.key, path=earlier, task_id=effect.task_id)  # it was delivered before
        path = await effect.save(f"{self._folder}/", overwrite=True)
        return JobUpdate(key=job.key, path=path, task_id=effect.task_id)

    def _tell(self, key: str, error: BaseException, attempts: int) -> None:
        again = again_in(error, attempts)
        task_id = getattr(error, "task_id", None)
        self._told(JobUpdate(key=key, task_id=task_id, error=error, again_in=again))


async def _comes(event: asyncio.Event, within: float) -> bool:
    """Wait for an event, for so many seconds at most, and tell whether it has come."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), within)
    return event.is_set()
