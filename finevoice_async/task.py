"""The handle on one task."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Generator
from datetime import datetime
from typing import Final

import attrs

from finevoice_async.core.polling.schedule import Estimate
from finevoice_async.core.requests import SfxRequest
from finevoice_async.core.tasks import TaskStatus, TaskUpdate
from finevoice_async.effect import SoundEffect
from finevoice_async.engine.downloads import Downloader
from finevoice_async.engine.poller import Poller
from finevoice_async.engine.records import News, TaskRecord, Watcher
from finevoice_async.errors import FineVoiceError
from finevoice_async.reprs import with_safe_repr


class _SessionDefault:
    def __repr__(self) -> str:
        return "Timeouts.task"


SESSION_DEFAULT: Final = _SessionDefault()


@with_safe_repr
class SfxTask:
    """A task at the service: awaitable any number of times, from any number of coroutines.

    Cancelling an await stops that await only. The task goes on, keeps its slot until it ends, and its id stays valid.
    """

    __slots__ = ("_downloads", "_poller", "_record", "_timeout")

    def __init__(self, record: TaskRecord, poller: Poller, downloads: Downloader, timeout: float | None) -> None:
        self._record = record
        self._poller = poller
        self._downloads = downloads
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"<SfxTask {self.id} {self.status.value}>"

    @property
    def id(self) -> str | None:
        """The service's id; None if the answer to the submission carried the result and no id."""
        return self._record.task_id

    @property
    def key(self) -> str | None:
        """The caller's own name for the effect, if it has one."""
        return self._record.key

    @property
    def request(self) -> SfxRequest | None:
        """What was asked for, if this session knows it."""
        return self._record.request

    @property
    def status(self) -> TaskStatus:
        """The state by the last answer."""
        return self._record.status

    @property
    def submitted_at(self) -> datetime | None:
        """When it was submitted, in UTC, if this session knows it."""
        return self._record.submitted_at

    def done(self) -> bool:
        """Tell whether the end is known, good or bad."""
        return self._record.end is not None

    def estimate(self) -> Estimate | None:
        """Return how many more seconds it will take, by what this session has learned: the median and the 90 % point.

        None before anything was learned, after the end, and for an attached task, whose age is not known.
        """
        return self._poller.estimate(self._record)

    def __await__(self) -> Generator[object, None, SoundEffect]:
        return self.wait().__await__()

    async def wait(self, timeout: float | _SessionDefault | None = SESSION_DEFAULT) -> SoundEffect:
        """Wait for the effect.

        Args:
            timeout: Seconds; None waits for ever; left out, `Timeouts.task` of the session.

        Raises:
            TaskFailedError: The service says that it failed.
            TaskTimeoutError: It did not end in time. It runs on; wait again.
            TaskNotFoundError: The service does not know it.
            PollError: Its state could not be learned. It may still run; wait again.
            AuthenticationError: The key is refused.
            SessionClosedError: The session was closed.
        """
        seconds = self._timeout if isinstance(timeout, _SessionDefault) else timeout
        end = self._record.end
        if end is None:
            end = await self._hear(_Listener(self._record, timeout=seconds))
        if isinstance(end, FineVoiceError):
            raise copy.copy(end)
        return SoundEffect.of(self._record, self._downloads)

    async def updates(self) -> AsyncIterator[TaskUpdate]:
        """Yield the state now, then each change of it, the end included; of an ended task the last state.

        Raises:
            FineVoiceError: The state can be learned no more; as for `wait`, but without a timeout, and a failed task
                is an update.
        """
        record = self._record
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
        self._poller.watch(listener)
        try:
            return await listener.heard
        finally:
            self._poller.unwatch(listener)


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
