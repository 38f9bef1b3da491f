"""The handle on one effect: queued, at the service, or ended."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, Generator
from datetime import datetime
from typing import TYPE_CHECKING, Final

import attrs

from finevoice_async.core.ledger import JournalRow
from finevoice_async.core.polling.schedule import Estimate
from finevoice_async.core.requests import SfxRequest
from finevoice_async.core.tasks import TaskStatus, TaskUpdate
from finevoice_async.effect import SoundEffect
from finevoice_async.engine.records import News, Phase, Result, Submission, TaskRecord, Watcher
from finevoice_async.engine.registry import FoundRow
from finevoice_async.errors import FineVoiceError, SubmitUnknownError, TaskTimeoutError
from finevoice_async.reprs import with_safe_repr

if TYPE_CHECKING:  # the session has them, and imports them when it is made
    from finevoice_async.engine.bookkeeper import Bookkeeper
    from finevoice_async.engine.downloads import Downloader
    from finevoice_async.engine.inflight import InFlight
    from finevoice_async.engine.poller import Poller
    from finevoice_async.engine.submitter import Submitter


class _SessionDefault:
    def __repr__(self) -> str:
        return "Timeouts.task"


SESSION_DEFAULT: Final = _SessionDefault()


@attrs.frozen(eq=False)
class TaskContext:
    """What handles need of their session."""

    submitter: Submitter
    poller: Poller
    inflight: InFlight
    downloads: Downloader
    bookkeeper: Bookkeeper
    timeout: float | None
    slots: int


@with_safe_repr
class SfxTask:
    """An effect on its way: awaitable any number of times, from any number of coroutines.

    Cancelling an await stops that await only. Once submitted, the task goes on, keeps its slot until it ends, and its
    id stays valid.
    """

    __slots__ = ("_context", "_source")

    def __init__(self, source: TaskRecord | Submission | FoundRow, context: TaskContext) -> None:
        """Make the handle.

        Args:
            source: The task; or the submission that will bring it; or a row that waits in the journal.
            context: The session's parts.
        """
        self._source = source
        self._context = context

    def __repr__(self) -> str:
        return f"<SfxTask {self.id or repr(self.key)} {self.status.value}>"

    @property
    def _now(self) -> TaskRecord | Submission | JournalRow:
        """What there is of it by now: a row may be submitted meanwhile, and a submission come to its task.

        Not before its listeners have heard: until its id is on disk, another task may prove to have it.
        """
        source: TaskRecord | Submission | FoundRow | JournalRow = self._source
        if isinstance(source, Submission) and source.stays_queued and source.row is not None:
            source = self._source = self._context.submitter.found(source.row)  # it waits on in the journal
        if isinstance(source, FoundRow):
            taken_up = source.submission
            source = source.row if taken_up is None or taken_up.stays_queued else taken_up
        if isinstance(source, Submission) and source.phase is Phase.ENDED and isinstance(source.result, TaskRecord):
            source = self._source = source.result
        return source

    @property
    def id(self) -> str | None:
        """The service's id; None before it was submitted, and if the answer to that carried the result and no id."""
        now = self._now
        if isinstance(now, Submission):
            return None if now.phase is not Phase.ENDED or now.result is None else now.result.task_id
        return now.task_id

    @property
    def task_id(self) -> str | None:
        """The same as `id`, by the name that effects, outcomes and errors have for it."""
        return self.id

    @property
    def key(self) -> str | None:
        """The caller's own name for the effect, if it has one."""
        return self._now.key

    @property
    def request(self) -> SfxRequest | None:
        """What was asked for, if this session knows it."""
        return self._now.request

    @property
    def status(self) -> TaskStatus:
        """The state by the last answer; QUEUED until it was submitted, and FAILED if it was not accepted.

        What this session could not send, and a later one may, is QUEUED still: its row waits in the journal. UNKNOWN
        also if it may have been accepted, and nobody follows it here.
        """
        now = self._now
        if isinstance(now, TaskRecord):
            return now.status
        if isinstance(now, JournalRow) or now.phase is not Phase.ENDED or now.result is None:
            return TaskStatus.QUEUED
        is_open = isinstance(now.result, SubmitUnknownError) or now.result.task_id is not None
        return TaskStatus.UNKNOWN if is_open else TaskStatus.FAILED

    @property
    def position(self) -> int | None:
        """Its place in line, 1 for who is next; None if it does not wait for a slot."""
        now = self._now
        return self._context.submitter.position(now) if isinstance(now, Submission) else None

    @property
    def submitted_at(self) -> datetime | None:
        """When it was submitted, in UTC, if this session knows it."""
        now = self._now
        return None if isinstance(now, Submission) else now.submitted_at

    def done(self) -> bool:
        """Tell whether the end is known, good or bad."""
        now = self._now
        if isinstance(now, TaskRecord):
            return now.end is not None
        return isinstance(now, Submission) and now.phase is Phase.ENDED

    def estimate(self) -> Estimate | None:
        """Return how many more seconds it will take, by what this session has learned: the median and the 90 % point.

        The wait for a slot is part of it. None before anything was learned, after the end, for an attached task,
        whose age is not known, and for what an earlier process queued and nobody has taken up.
        """
        now = self._now
        if isinstance(now, TaskRecord):
            return self._context.poller.estimate(now)
        if isinstance(now, JournalRow) or now.result is not None:
            return None
        submitter = self._context.submitter
        place = 0 if now.slot is not None else submitter.position(now) or submitter.waiting + 1
        return self._context.poller.estimate_queued(place, now.request.duration, self._context.slots, submitter.ahead)

    async def withdraw(self) -> bool:
        """Take it back before it is sent: nothing is sent and nothing paid, for everybody who waits for it.

        Returns:
            True if that was possible; False if it was sent already or is on its way, or has ended.

        Raises:
            SessionClosedError: The session was closed; it stays queued in the journal.
            FineVoiceError: It is not sent by this session, but the journal could not note it.
        """
        now = self._now
        if isinstance(now, Submission):
            return await self._context.submitter.withdraw(now)
        return isinstance(now, JournalRow) and await self._context.submitter.withdraw_row(now)

    def __await__(self) -> Generator[object, None, SoundEffect]:
        return self.wait().__await__()

    async def wait(self, timeout: float | _SessionDefault | None = SESSION_DEFAULT) -> SoundEffect:
        """Wait for the effect.

        Args:
            timeout: Seconds, the wait for a slot included; None waits for ever; left out, `Timeouts.task` of the
                session from the submission on.

        Raises:
            TaskFailedError: The service says that it failed.
            TaskTimeoutError: It did not end in time. It goes on; wait again.
            TaskNotFoundError: The service does not know it.
            PollError: Its state could not be learned. It may still run; wait again.
            AuthenticationError: The key is refused.
            SessionClosedError: The session was closed.
            FineVoiceError: It was not submitted: as for `FineVoiceSession.submit`.
        """
        if isinstance(timeout, _SessionDefault):
            record, seconds = await self._submitted(None), self._context.timeout
        else:
            loop = asyncio.get_running_loop()
            began = loop.time()
            record = await self._submitted(timeout)
            seconds = None if timeout is None else max(timeout - (loop.time() - began), 0.0)
        end = record.end
        if end is None:
            end = await self._hear(_Listener(record, timeout=seconds))
        if isinstance(end, FineVoiceError):
            raise copy.copy(end)
        return SoundEffect.of(record, self._context.downloads)

    async def _submitted(self, timeout: float | None) -> TaskRecord:
        """Return the task, once it was submitted."""
        now, submitter = self._now, self._context.submitter
        if isinstance(now, TaskRecord):
            return now
        heard: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

        def hear(result: Result) -> None:
            if not heard.done():
                heard.set_result(result)

        if isinstance(now, JournalRow):
            now = await submitter.take_up(now, hear)
        else:
            submitter.join(now, hear)
        try:
            await asyncio.wait([heard], timeout=timeout)
        finally:
            submitter.leave(now, hear)
        if not heard.done():
            raise TaskTimeoutError(
                "It still waits to be submitted. Nothing was sent yet; await it again, or withdraw it.",
                request=now.request,
            )
        result = heard.result()
        if isinstance(result, FineVoiceError):
            raise copy.copy(result)
        self._source = result
        return result

    async def updates(self) -> AsyncGenerator[TaskUpdate, None]:
        """Yield the state now, then each change of it, the end included; of an ended task the last state.

        Raises:
            FineVoiceError: The state can be learned no more; as for `wait`, but without a timeout, and a failed task
                is an update.
        """
        if not isinstance(self._now, TaskRecord) and not self.done():
            yield TaskUpdate(status=TaskStatus.QUEUED)
        record = await self._submitted(None)
        while True:
            status = record.status
            if record.end is not None:
                yield _last_update(record)
                return
            yield TaskUpdate(status=status, task_id=record.task_id)
            news = await self._change(record, status)
            if isinstance(news, FineVoiceError) and record.end is None:
                raise news

    async def _change(self, record: TaskRecord, status: TaskStatus) -> News | None:
        """Wait until the state is another than `status`; None if it changed while the caller was busy."""
        if record.end is not None or record.status is not status:
            return None
        return await self._hear(_Listener(record, every=True))

    async def _hear(self, listener: _Listener) -> News:
        self._context.poller.watch(listener)
        try:
            return await listener.heard
        finally:
            self._context.poller.unwatch(listener)


@attrs.define(eq=False)
class _Listener(Watcher):
    """Waits for the first news."""

    heard: asyncio.Future[News] = attrs.field(factory=lambda: asyncio.get_running_loop().create_future(), init=False)

    def tell(self, news: News) -> None:
        if not self.heard.done():
            self.heard.set_result(news)


def _last_update(record: TaskRecord) -> TaskUpdate:
    """Return the end as an update.

    Raises:
        FineVoiceError: It ended without one: the service does not know it, or gave no link.
    """
    end = record.end
    if isinstance(end, TaskUpdate):
        return end
    if record.status is TaskStatus.FAILED and isinstance(end, FineVoiceError):
        return TaskUpdate(status=TaskStatus.FAILED, task_id=record.task_id, code=end.code, reason=end.message)
    assert end is not None  # noqa: S101 - only ended tasks come here
    raise copy.copy(end)
