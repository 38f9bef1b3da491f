"""Many effects at once, drawn lazily and handed over as they end."""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping
from contextlib import aclosing
from functools import partial
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import attrs

from finevoice_async.core.ledger import EffectState, JournalRow, check_key
from finevoice_async.core.requests import SfxRequest, as_request
from finevoice_async.effect import SoundEffect
from finevoice_async.engine.bookkeeper import unknown_error
from finevoice_async.engine.downloads import Downloads
from finevoice_async.engine.poller import Poller
from finevoice_async.engine.records import Listener, News, Phase, Result, Submission, TaskRecord, Watcher
from finevoice_async.engine.submitter import Submitter
from finevoice_async.errors import (
    AuthenticationError,
    FineVoiceError,
    InsufficientCreditsError,
    InvalidRequestError,
    SessionClosedError,
)

log = logging.getLogger("finevoice_async")

RequestLike = SfxRequest | str | Mapping[str, Any]
"""What `generate_many` takes: a request, a prompt, or a dict of fields (with a `key`, if there is a journal)."""

T = TypeVar("T")

_FATAL: Final = (AuthenticationError, InsufficientCreditsError)
"""Errors that every further submission would meet as well."""


@attrs.frozen(kw_only=True)
class Outcome:
    """What became of one request of many.

    Attributes:
        index: Its place among the requests, from 0.
        key: The caller's own name for the effect, if it has one.
        request: The request; None if it was invalid.
        effect: The effect, if all went well.
        error: Why there is none.
        task_id: The service's id, once known.
    """

    index: int
    key: str | None = None
    request: SfxRequest | None = None
    effect: SoundEffect | None = None
    error: FineVoiceError | None = None
    task_id: str | None = None


@attrs.define(eq=False)
class _Drawn:
    """One request that was drawn: what is known of it, and what is still waited for."""

    index: int
    request: SfxRequest | None = None
    key: str | None = None
    listener: Listener | None = None
    submission: Submission | None = None  # while it has no task
    watcher: Watcher | None = None  # while its task is in flight


class OutcomeStream:
    """One run of `generate_many` or `recover`: a driver task that draws and submits, and outcomes to be taken.

    A task in flight costs no asyncio task: its outcome is put down when the poller tells.
    """

    def __init__(
        self,
        streams: set[OutcomeStream],
        requests: Iterable[RequestLike] | AsyncIterable[RequestLike | JournalRow],
        *,
        ahead: int,
        ordered: bool = False,
        retry_failed: bool = False,
        timeout: float | None,
        submitter: Submitter,
        poller: Poller,
        downloads: Downloads,
    ) -> None:
        """Set it up; ``async with`` starts it.

        Args:
            streams: Those that run; it is among them until it is left.
            requests: What to draw; a row of the journal is taken up where it stands.
            ahead: How many to draw beyond what was taken.
            ordered: Give outcomes in the order of the requests.
            retry_failed: Submit again what failed at the service.
            timeout: Seconds to wait for each task; None for ever.
            submitter: Gets the requests.
            poller: Watches their tasks.
            downloads: Fetches the results, for the effects.
        """
        self._streams = streams
        self._requests = requests
        self._ahead = ahead
        self._ordered = ordered
        self._retry_failed = retry_failed
        self._timeout = timeout
        self._submitter = submitter
        self._poller = poller
        self._downloads = downloads
        # All mutable state:
        self._drawn = 0
        self._taken = 0
        self._ready: dict[int, Outcome] = {}  # ended, not taken; by index, in the order of their end
        self._pending: dict[int, _Drawn] = {}  # drawn, not ended; by index
        self._fatal: FineVoiceError | None = None  # why nothing more is sent
        self._driver: asyncio.Task[None] | None = None
        self._source_error: Exception | None = None  # raised by the caller's own iterable
        self._exhausted = False
        self._stopping = False  # the driver is cancelled by this class
        self._closed = False  # the caller has left
        self._changed = asyncio.Event()  # something for the taker or the driver to look at

    async def __aenter__(self) -> Self:
        self._streams.add(self)
        self._driver = asyncio.create_task(self._drive(), name="finevoice-outcomes")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._streams.discard(self)
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome:
        outcome = await self._next()
        if outcome is not None:
            return outcome
        raise self._source_error or StopAsyncIteration

    async def _next(self) -> Outcome | None:
        while True:
            index = self._taken if self._ordered else next(iter(self._ready), None)
            if index is not None and index in self._ready:
                self._taken += 1
                self._changed.set()
                return self._ready.pop(index)
            if self._exhausted and self._taken == self._drawn:
                return None
            await self._wait()

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    # Drawing

    async def _drive(self) -> None:
        try:
            async with aclosing(_each(self._requests)) as requests:
                async for wanted in requests:
                    await self._take_in(wanted)
                    while self._drawn - self._taken >= self._ahead:
                        await self._wait()
        except SessionClosedError:
            log.info("the session closed; no more requests are drawn")
        except asyncio.CancelledError as error:
            if self._stopping:
                raise
            self._source_error = RuntimeError("The requests, or somebody else, cancelled the loop that draws them.")
            self._source_error.__cause__ = error
        except Exception as error:  # noqa: BLE001 - the caller's iterable may raise anything; it is raised to them
            self._source_error = error
        finally:
            self._exhausted = True
            self._changed.set()

    async def _take_in(self, wanted: RequestLike | JournalRow) -> None:
        """Submit one request, and wait until it has its slot; or follow a row of the journal."""
        drawn = self._pending[self._drawn] = _Drawn(self._drawn)
        self._drawn += 1
        try:
            if isinstance(wanted, JournalRow):
                self._resume(drawn, wanted)
            else:
                drawn.request, drawn.key = _read(wanted)
                self._submit(drawn, drawn.request)
        except FineVoiceError as error:
            self._fail(drawn, error)
            if isinstance(error, SessionClosedError):
                raise
        except Exception as error:
            log.exception("an unexpected error in a request of many")
            self._fail(drawn, _bug(error, drawn.request))
        except BaseException as error:
            self._fail(drawn, _bug(error, drawn.request))
            raise
        if drawn.submission is not None:
            await drawn.submission.until_launched()

    def _submit(self, drawn: _Drawn, request: SfxRequest) -> None:
        self._refuse_after_fatal(request)
        drawn.listener = partial(self._on_result, drawn)
        submission = self._submitter.submit(request, drawn.key, drawn.listener, retry_failed=self._retry_failed)
        if submission.phase is not Phase.ENDED:
            drawn.submission = submission

    def _resume(self, drawn: _Drawn, row: JournalRow) -> None:
        """Take up a row of the journal: submit it if it was never sent, else follow its task."""
        drawn.request, drawn.key = row.request, row.key
        if row.state is EffectState.UNKNOWN:
            raise unknown_error(row)
        if row.state is not EffectState.QUEUED:
            self._follow(drawn, self._poller.pick_up(row))
            return
        self._refuse_after_fatal(row.request)
        drawn.listener = partial(self._on_result, drawn)
        submission = self._submitter.submit_row(row, drawn.listener)
        if submission.phase is not Phase.ENDED:
            drawn.submission = submission

    def _refuse_after_fatal(self, request: SfxRequest) -> None:
        if self._fatal is not None:
            raise _for_request(self._fatal, request)

    # Ends

    def _on_result(self, drawn: _Drawn, result: Result) -> None:
        """A submission came to a task, or to nothing."""
        drawn.submission = drawn.listener = None
        if self._closed:
            return  # the caller left; the session keeps the task
        if isinstance(result, TaskRecord):
            self._follow(drawn, result)
            return
        self._fail(drawn, result)
        if isinstance(result, _FATAL) and self._fatal is None:
            self._fatal = result
            for other in list(self._pending.values()):  # what has no slot yet would meet it, too
                if other.submission is not None and other.submission.is_waiting and other.listener is not None:
                    error = _for_request(result, other.submission.request)
                    self._submitter.leave(other.submission, other.listener, error)

    def _follow(self, drawn: _Drawn, record: TaskRecord) -> None:
        if record.end is not None:
            self.end(drawn, record, record.end)
            return
        drawn.watcher = watcher = _Follower(record, self._timeout, stream=self, drawn=drawn)
        try:
            self._poller.watch(watcher)
        except FineVoiceError as error:
            self.end(drawn, record, error)

    def end(self, drawn: _Drawn, record: TaskRecord, news: News) -> None:
        """Make the outcome of a task that has ended, or of which no more can be learned."""
        if drawn.watcher is not None:
            self._poller.unwatch(drawn.watcher)
        if isinstance(news, FineVoiceError):
            self._fail(drawn, copy.copy(news), record)
            return
        effect = SoundEffect.of(record, self._downloads)
        self._put(
            Outcome(index=drawn.index, key=drawn.key, request=record.request, effect=effect, task_id=record.task_id)
        )

    def _fail(self, drawn: _Drawn, error: FineVoiceError, record: TaskRecord | None = None) -> None:
        request = drawn.request if record is None else record.request
        task_id = error.task_id if record is None else record.task_id
        self._put(Outcome(index=drawn.index, key=drawn.key, request=request, error=error, task_id=task_id))

    def _put(self, outcome: Outcome) -> None:
        if self._pending.pop(outcome.index, None) is not None:
            self._ready[outcome.index] = outcome
            self._changed.set()

    # Leaving

    def stop(self) -> None:
        """Draw no more; what was drawn still gets its outcome, from the submitter or the poller."""
        self._stopping = True
        if self._driver is not None:
            self._driver.cancel()

    async def aclose(self) -> None:
        """The caller leaves: draw no more, send no more, wait for nothing more. Idempotent."""
        self._closed = True
        self.stop()
        for drawn in self._pending.values():
            if drawn.submission is not None and drawn.listener is not None:
                self._submitter.leave(drawn.submission, drawn.listener)
            if drawn.watcher is not None:
                self._poller.unwatch(drawn.watcher)
        self._pending.clear()
        self._ready.clear()
        if self._driver is not None:
            await asyncio.wait([self._driver])


@attrs.define(eq=False)
class _Follower(Watcher):
    """Tells a stream of the end of its task. No closure: there are as many as tasks in flight."""

    stream: OutcomeStream = attrs.field(kw_only=True)
    drawn: _Drawn = attrs.field(kw_only=True)

    def tell(self, news: News) -> None:
        self.stream.end(self.drawn, self.record, news)


async def _each(items: Iterable[T] | AsyncIterable[T]) -> AsyncGenerator[T, None]:
    """Yield the items of either kind of iterable. A StopIteration that one raises by mistake becomes a RuntimeError."""
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


def _read(wanted: RequestLike) -> tuple[SfxRequest, str | None]:
    """Return the request and the key that an item asks for.

    Raises:
        InvalidRequestError: It breaks a rule, or cannot be read at all.
    """
    try:
        if isinstance(wanted, Mapping) and "key" in wanted:
            fields = dict(wanted)
            key = check_key(fields.pop("key"))
            return as_request(fields, {}), key
        return as_request(wanted, {}), None
    except FineVoiceError:
        raise
    except Exception as error:
        raise InvalidRequestError(f"The request cannot be read ({type(error).__name__}). Nothing was sent.") from error


def _for_request(error: FineVoiceError, request: SfxRequest) -> FineVoiceError:
    error = copy.copy(error)
    error.request = request
    return error


def _bug(cause: BaseException, request: SfxRequest | None) -> FineVoiceError:
    error = FineVoiceError(f"Unexpected error ({type(cause).__name__}); this is a bug of the library.", request=request)
    error.__cause__ = cause
    return error
