"""Doing what a plan says: submit, wait, save, note; and stop when told to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Final

import anyio
import attrs

from finevoice_async.batch.keeping import describe, patiently, save
from finevoice_async.batch.lock_writer import LockWriter
from finevoice_async.batch.plan import PlanEntry, PlanState
from finevoice_async.batch.results import BatchResult, BatchUpdate, OnUpdate, ResultKind
from finevoice_async.core.requests import SfxRequest
from finevoice_async.core.tasks import TaskStatus
from finevoice_async.errors import (
    AuthenticationError,
    BudgetExceededError,
    ConfigurationError,
    DownloadError,
    FineVoiceError,
    InsufficientCreditsError,
    InvalidRequestError,
    JournalError,
    PollError,
    QueueFullError,
    RateLimitError,
    RequestRejectedError,
    SessionClosedError,
    SubmitNotSentError,
    SubmitUnknownError,
    TaskNotFoundError,
)
from finevoice_async.session import FineVoiceSession
from finevoice_async.task import SfxTask

log = logging.getLogger("finevoice_async")

AHEAD: Final = 64
"""Sounds that may wait to be submitted: so many slots that come free at once wait for nobody."""

IN_HAND: Final = 2000
"""Sounds that are being made or saved: where the disk is slower than the service, no more are begun."""

FETCHING: Final = 64
"""Sounds paid for earlier that are asked for at once."""

_WITHDRAWING: Final = 10.0
"""Seconds that the journal is given to note what was taken back: as long as it gives its disk."""

_STOPS: Final = (
    AuthenticationError,
    InsufficientCreditsError,
    BudgetExceededError,
    ConfigurationError,
    JournalError,
    SessionClosedError,
    SubmitNotSentError,  # after all patience: the service is away
    RateLimitError,
    QueueFullError,
)
"""Errors that every further submission would meet as well."""


@attrs.define(kw_only=True)
class Limits:
    """How far a run may go.

    Attributes:
        max_failures: It stops after so many.
        reroll_silent: How many more takes a silent one may lead to.
    """

    max_failures: int | None = None
    reroll_silent: int = 0


class Work:
    """One run's work. It holds an asyncio task for each sound in hand, within one task group."""

    def __init__(
        self,
        session: FineVoiceSession,
        out: Path,
        lock: LockWriter,
        *,
        limits: Limits,
        next_take: Callable[[PlanEntry], PlanEntry],
        on_update: OnUpdate | None,
        shared: bool = False,
    ) -> None:
        """Set it up.

        Args:
            session: Makes the sounds.
            out: The folder.
            lock: Is told of each file.
            limits: How far it may go.
            next_take: Gives a further take of a sound.
            on_update: Hears what becomes of each.
            shared: The journal is a fleet's: others may make the same sounds.
        """
        self._session = session
        self._out = out
        self._lock = lock
        self._limits = limits
        self._next_take = next_take
        self._on_update = on_update
        self._shared = shared
        self._submitted_before = session.stats.submitted
        # All mutable state:
        self.results: dict[tuple[str, int], BatchResult] = {}
        self._paid = 0
        self.perhaps_paid = 0
        self.stopped_by: FineVoiceError | None = None
        self.is_stopped = False
        self._left = 0
        self._counts = dict.fromkeys(ResultKind, 0)
        self._rerolled: dict[str, int] = {}
        self._queued: dict[SfxTask, None] = {}  # kept, not sent yet
        self._submitting: set[asyncio.Task[SfxTask]] = set()  # the same, where others may wait for them, too
        self._withdrawals: set[asyncio.Task[None]] = set()
        self._ahead = asyncio.Semaphore(AHEAD)
        self._room = asyncio.Semaphore(IN_HAND)
        self._fetching = asyncio.Semaphore(FETCHING)
        self._group: asyncio.TaskGroup

    async def run(self, fetch: Iterable[PlanEntry], make: Iterable[PlanEntry], stop: asyncio.Event | None) -> None:
        """Fetch what is paid for and make what is not there, until all is done or `stop` is set."""
        fetch, make = list(fetch), list(make)
        self._left = len(fetch) + len(make)
        watching = None if stop is None else asyncio.create_task(self._watch(stop), name="finevoice-batch-stop")
        try:
            async with asyncio.TaskGroup() as self._group:
                self._group.create_task(self._fetch_all(fetch))
                self._group.create_task(self._make_all(make))
        finally:
            if watching is not None:
                watching.cancel()
            if self._withdrawals:
                with anyio.move_on_after(_WITHDRAWING, shield=True):  # this run may be cancelled
                    await asyncio.wait(self._withdrawals)

    async def _watch(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._stop(None)

    def _stop(self, error: FineVoiceError | None) -> None:
        """Submit nothing more, and take back what was not sent."""
        if self.stopped_by is None:
            self.stopped_by = error
        if self.is_stopped:
            return
        self.is_stopped = True
        for submitting in self._submitting:
            submitting.cancel()
        for task in list(self._queued):
            self._take_back(task)

    def _take_back(self, task: SfxTask) -> None:
        self._withdrawals.add(asyncio.create_task(self._withdraw(task), name="finevoice-batch-withdraw"))

    async def _withdraw(self, task: SfxTask) -> None:
        try:
            await task.withdraw()
        except FineVoiceError as error:
            log.warning("%r could not be taken back; it is not sent by this run: %s", task.key, error)

    @property
    def paid(self) -> int:
        """How many submissions of this run were accepted; in a fleet, what others have sent is theirs."""
        return self._session.stats.submitted - self._submitted_before if self._shared else self._paid

    @property
    def saved(self) -> list[BatchResult]:
        """What was saved so far."""
        return [result for result in self.results.values() if result.kind is ResultKind.SAVED]

    # Coming

    async def _fetch_all(self, entries: list[PlanEntry]) -> None:
        for entry in entries:
            await self._fetching.acquire()
            if self.is_stopped and entry.state is PlanState.MISSING:  # it can wait; what runs is finished
                self._fetching.release()
            else:
                self._group.create_task(self._fetch(entry))

    async def _fetch(self, entry: PlanEntry) -> None:
        try:
            task = await self._find(entry)
            await self._finish(entry, task)
        except FineVoiceError as error:
            self._fail(entry, error)
        finally:
            self._fetching.release()

    async def _find(self, entry: PlanEntry) -> SfxTask:
        """Return the task that a sound was paid for with.

        Raises:
            TaskNotFoundError: Nobody knows it.
        """
        if entry.task_id is not None:
            return await self._session.attach(entry.task_id)
        found = await self._session.find(key=entry.journal_key)
        if found is None:
            raise TaskNotFoundError(
                f"The file {entry.file} is not there, and the lock has no task id that leads to it again.",
                key=entry.key,
                request=entry.request,
            )
        return found

    async def _make_all(self, entries: list[PlanEntry]) -> None:
        for entry in entries:
            await self._room.acquire()
            await self._ahead.acquire()
            if self.is_stopped:
                self._ahead.release()
                self._room.release()
                return
            self._group.create_task(self._make(entry))

    async def _make(self, entry: PlanEntry) -> None:
        """Make a sound; a place of `_ahead` and one of `_room` were taken for it."""
        try:
            try:
                task = await self._submit(entry)
            finally:
                self._ahead.release()
            await self._finish(entry, task)
        except FineVoiceError as error:
            self._fail(entry, error)
        finally:
            self._room.release()

    async def _submit(self, entry: PlanEntry) -> SfxTask:
        """Submit a sound, and return once its task is known.

        Raises:
            FineVoiceError: As for `FineVoiceSession.submit`.
        """
        assert entry.request is not None  # noqa: S101 - the plan pays for rows that ask for something
        owner = None if entry.row is None else entry.row.owner
        if self._shared:
            return await self._submit_among_others(entry, entry.request, owner)
        task = await self._session.enqueue(
            entry.request, key=entry.journal_key, owner=owner, retry_failed=entry.retries
        )
        self._queued[task] = None
        try:
            if self.is_stopped:
                await task.withdraw()
            async with aclosing(task.updates()) as updates:
                async for update in updates:
                    if update.status is not TaskStatus.QUEUED:
                        break
        except asyncio.CancelledError:
            self._take_back(task)  # else the session sends it all the same, if it has not yet
            raise
        finally:
            del self._queued[task]
        self._paid += 1
        self._tell(None, entry, task.id)
        return task

    async def _submit_among_others(self, entry: PlanEntry, request: SfxRequest, owner: str | None) -> SfxTask:
        """Submit a sound that other machines may want, too: to stop takes this run's wish back, and nobody else's.

        Raises:
            FineVoiceError: As for `FineVoiceSession.submit`.
        """
        submit = self._session.submit(request, key=entry.journal_key, owner=owner, retry_failed=entry.retries)
        submitting = asyncio.create_task(submit, name="finevoice-batch-submit")
        self._submitting.add(submitting)
        if self.is_stopped:
            submitting.cancel()
        try:
            await asyncio.wait([submitting])
        finally:
            submitting.cancel()
            self._submitting.discard(submitting)
        if submitting.cancelled():
            raise SubmitNotSentError("The run was stopped before it was sent.", key=entry.key, request=request)
        task = submitting.result()
        self._tell(None, entry, task.id)
        return task

    # Ends

    async def _finish(self, entry: PlanEntry, task: SfxTask) -> None:
        """Wait for a sound, save it, and note it.

        Raises:
            FineVoiceError: It was not made, or not saved.
        """
        effect = await patiently(task.wait, PollError)
        path = await patiently(lambda: save(entry, effect, self._out), DownloadError)
        record, check = await describe(entry, effect, path, self._out)
        self._lock.put(record)
        note = "; ".join([*check.problems, *([effect.note] if effect.note else [])]) or None
        result = BatchResult.of(
            entry, ResultKind.SAVED, task_id=effect.task_id, path=path, record=record, check=check, note=note
        )
        self._put(entry, result)
        if check.silent:
            self._reroll(entry)

    def _reroll(self, entry: PlanEntry) -> None:
        """Make another take in the place of a silent one, if that is allowed and nothing has stopped."""
        done = self._rerolled.get(entry.key, 0)
        if self.is_stopped or done >= self._limits.reroll_silent or entry.row is None:
            return
        self._rerolled[entry.key] = done + 1
        self._left += 1
        self._group.create_task(self._make_another(self._next_take(entry)))

    async def _make_another(self, entry: PlanEntry) -> None:
        await self._room.acquire()
        await self._ahead.acquire()
        await self._make(entry)

    def _fail(self, entry: PlanEntry, error: FineVoiceError) -> None:
        """Note that a sound came to nothing, and stop where the next ones would, too."""
        is_doubtful = isinstance(error, SubmitUnknownError | TaskNotFoundError)
        if is_doubtful and entry.state is not PlanState.MISSING:  # what the lock knows was made
            kind = ResultKind.UNKNOWN
            self.perhaps_paid += isinstance(error, SubmitUnknownError)
        elif isinstance(error, RequestRejectedError | InvalidRequestError):
            kind = ResultKind.INVALID
        elif isinstance(error, _STOPS) and error.paid is not True:
            kind = ResultKind.NOT_BEGUN
        else:
            kind = ResultKind.FAILED
        withdrawn = self.is_stopped and isinstance(error, SubmitNotSentError)
        if isinstance(error, _STOPS) and not withdrawn:
            self._stop(error)
        known = error.task_id or entry.task_id
        self._put(entry, BatchResult.of(entry, kind, task_id=known, error=None if withdrawn else error))
        most = self._limits.max_failures
        if most is not None and self._counts[ResultKind.FAILED] >= most:
            self._stop(None)

    def _put(self, entry: PlanEntry, result: BatchResult) -> None:
        self.results[entry.key, entry.take] = result
        self._counts[result.kind] += 1
        self._left -= 1
        self._tell(result, entry, result.task_id)

    def _tell(self, result: BatchResult | None, entry: PlanEntry, task_id: str | None) -> None:
        if self._on_update is None:
            return
        update = BatchUpdate(
            result=result,
            key=entry.key,
            take=entry.take,
            task_id=task_id,
            made=self._counts[ResultKind.SAVED],
            failed=self._counts[ResultKind.FAILED] + self._counts[ResultKind.INVALID],
            unknown=self._counts[ResultKind.UNKNOWN],
            left=self._left,
            paid=self.paid,
        )
        try:
            self._on_update(update)
        except Exception:
            log.exception("on_update failed; the batch goes on")
