"""Many effects at once, drawn lazily and handed over as they end."""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import AsyncIterable, Iterable, Mapping
from types import TracebackType
from typing import Any, Final, Self

import attrs

from finevoice_async.core.ledger import EffectState, JournalRow, check_key
from finevoice_async.core.requests import SfxRequest, as_request
from finevoice_async.effect import SoundEffect
from finevoice_async.engine.downloads import Downloads
from finevoice_async.engine.endings import closed_error
from finevoice_async.engine.poller import Poller
from finevoice_async.engine.records import (
    STAYS_QUEUED,
    News,
    Phase,
    Result,
    Submission,
    TaskRecord,
    Watcher,
    unknown_error,
)
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
"""What `generate_many` takes: a request, a prompt, or a dict of fields (with `key` and `owner`, if it has them)."""

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


class OutcomeStream:
    """One run of `generate_many` or `recover`: a driver task that draws and submits, and outcomes to be taken.

    A task in flight costs no asyncio task: its outcome is put down when the poller tells.
    """

    def __init__(
        self,
        streams: dict[OutcomeStream, None],
        submitter: Submitter,
        poller: Poller,
        downloads: Downloads,
        requests: Iterable[RequestLike] | AsyncIterable[RequestLike | JournalRow],
        *,
        ahead: int,
        ordered: bool = False,
        retry_failed: bool = False,
        timeout: float | None,
    ) -> None:
        """Set it up; ``async with`` starts it.

        Args:
            streams: Those that run; it is among them until it is left.
            submitter: Gets the requests.
            poller: Watches their tasks.
            downloads: Fetches the results, for the effects.
            requests: What to draw; a row of the journal is taken up where it stands.
            ahead: How many to draw beyond what was taken.
            ordered: Give outcomes in the order of the requests.
            retry_failed: Submit again what failed at the service.
            timeout: Seconds to wait for each task; None for ever.
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
        self._last: Submission | None = None  # drawn last
        self._exhausted = False
        self._stopping = False  # the driver is cancelled by this class
        self.closed = False  # the caller has left
        self._changed = asyncio.Event()  # something for the taker or the driver to look at

    async def __aenter__(self) -> Self:
        self._streams[self] = None
        self._driver = asyncio.create_task(self._drive(), name="finevoice-outcomes")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._streams.pop(self, None)
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
            if isinstance(self._requests, AsyncIterable):
                async for wanted in self._requests:
                    await self._take_in(wanted)
            else:
                for wanted in self._requests:
                    await self._take_in(wanted)
        except SessionClosedError:
            log.info("the session closed; no more requests are drawn")
        except (asyncio.CancelledError, StopAsyncIteration, GeneratorExit) as error:
            if self._stopping:
                raise
            # Neither means what it says: it would look to the caller like a cancellation of theirs, or like the end.
            self._source_error = RuntimeError(f"The requests were ended by a {type(error).__name__} from elsewhere.")
            self._source_error.__cause__ = error
        except Exception as error:  # noqa: BLE001 - the caller's iterable may raise anything; it is raised to them
            self._source_error = error
        finally:
            self._exhausted = True
            self._changed.set()

    async def _take_in(self, wanted: RequestLike | JournalRow) -> None:
        """Submit one request, or follow a row of the journal; then wait until the next may be drawn."""
        drawn = self._pending[self._drawn] = _Drawn(self, self._drawn, timeout=self._timeout)
        self._drawn += 1
        try:
            if type(wanted) is JournalRow:  # asked of nothing else: an item may raise when it is asked what it is
                self._resume(drawn, wanted)
            else:
                request = drawn.read(wanted)
                self._refuse_after_fatal(request)
                if self._submitter.is_full:
                    await self._submitter.until_room()
                    self._refuse_after_fatal(request)
                submission = self._submitter.submit(
                    request, drawn.key, drawn.hear, owner=drawn.owner, retry_failed=self._retry_failed
                )
                drawn.waits_for(submission)
        except FineVoiceError as error:
            self._fail(drawn, error)
            if isinstance(error, SessionClosedError):
                raise
        except Exception as error:
            log.exception("an unexpected error in a request of many")
            self._fail(drawn, _bug(error, drawn.request))
        except BaseException as error:
            self._fail(drawn, closed_error() if self._stopping else _bug(error, drawn.request))
            raise
        before, self._last = self._last, drawn.submission
        if before is not None and before.is_waiting:  # one waits behind it, so that a free slot waits for nobody
            await before.until_launched()
        while self._drawn - self._taken >= self._ahead:
            await self._wait()

    def _resume(self, drawn: _Drawn, row: JournalRow) -> None:
        """Take up a row of the journal: submit it if it was never sent, else follow its task."""
        drawn.request, drawn.key = row.request, row.key
        if row.state is EffectState.UNKNOWN:
            raise unknown_error(row)
        if row.state is not EffectState.QUEUED:
            self.follow(drawn, self._poller.pick_up(row))
            return
        self._refuse_after_fatal(row.request, STAYS_QUEUED)
        drawn.waits_for(self._submitter.submit_row(row, drawn.hear))

    def _refuse_after_fatal(self, request: SfxRequest, more: str = "") -> None:
        if self._fatal is not None:
            raise _for_request(self._fatal, request, more)

    # Ends

    def refused(self, drawn: _Drawn, error: FineVoiceError) -> None:
        """A submission came to nothing."""
        self._fail(drawn, error)
        if isinstance(error, _FATAL) and self._fatal is None:
            self._fatal = error
            for other in list(self._pending.values()):  # what has no slot yet would meet it, too
                if other.submission is not None and other.submission.is_waiting:
                    told = _for_request(error, other.submission.request)
                    self._submitter.leave(other.submission, other.hear, told)

    def follow(self, drawn: _Drawn, record: TaskRecord) -> None:
        """A submission came to a task: wait for its end."""
        drawn.record = record
        if record.end is not None:
            self.end(drawn, record.end)
            return
        try:
            self._poller.watch(drawn)
        except FineVoiceError as error:
            self.end(drawn, error)

    def end(self, drawn: _Drawn, news: News) -> None:
        """Make the outcome of a task that has ended, or of which no more can be learned."""
        record = drawn.record
        self._poller.unwatch(drawn)
        if isinstance(news, FineVoiceError):
            drawn.request = record.request
            self._fail(drawn, copy.copy(news), record.task_id)
            return
        self._put(
            Outcome(
                index=drawn.index,
                key=drawn.key,
                request=record.request,
                effect=SoundEffect.of(record, self._downloads),
                task_id=record.task_id,
            )
        )

    def _fail(self, drawn: _Drawn, error: FineVoiceError, task_id: str | None = None) -> None:
        task_id = task_id or error.task_id
        self._put(Outcome(index=drawn.index, key=drawn.key, request=drawn.request, error=error, task_id=task_id))

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
        self.closed = True
        self.stop()
        for drawn in self._pending.values():
            drawn.leave(self._submitter, self._poller)
        self._pending.clear()
        self._ready.clear()
        if self._driver is not None:
            await asyncio.wait([self._driver])


@attrs.define(eq=False)
class _Drawn(Watcher):
    """One request that was drawn, from its submission to its outcome. There are as many as tasks in flight."""

    stream: OutcomeStream
    index: int
    record: TaskRecord = attrs.field(init=False)  # once its task is known
    request: SfxRequest | None = None
    key: str | None = None
    owner: str | None = None
    submission: Submission | None = None  # while it has no task

    def read(self, wanted: Any) -> SfxRequest:
        """Return the request that an item asks for; its key is noted first.

        Raises:
            InvalidRequestError: It breaks a rule, or cannot be read at all.
        """
        try:
            if isinstance(wanted, Mapping) and not wanted.keys().isdisjoint(("key", "owner")):
                wanted = dict(wanted)
                self.key = check_key(wanted.pop("key", None))
                self.owner = check_key(wanted.pop("owner", None), "owner")
            self.request = as_request(wanted, {})
        except FineVoiceError:
            raise
        except (Exception, asyncio.CancelledError) as error:  # nothing is awaited here: it is the item that raises
            what = type(error).__name__
            raise InvalidRequestError(f"The request cannot be read ({what}). Nothing was sent.") from error
        return self.request

    def waits_for(self, submission: Submission) -> None:
        """Note who brings the task, unless it has."""
        if submission.phase is not Phase.ENDED:
            self.submission = submission

    def hear(self, result: Result) -> None:
        """Hear what its submission came to."""
        self.submission = None
        if self.stream.closed:
            return  # the caller left; the session keeps the task
        if isinstance(result, TaskRecord):
            self.stream.follow(self, result)
        else:
            self.stream.refused(self, result)

    def tell(self, news: News) -> None:
        """Hear of the end of its task."""
        self.stream.end(self, news)

    def leave(self, submitter: Submitter, poller: Poller) -> None:
        """Wait for nothing more."""
        if self.submission is not None:
            submitter.leave(self.submission, self.hear)
        else:
            poller.unwatch(self)


def _for_request(error: FineVoiceError, request: SfxRequest, more: str = "") -> FineVoiceError:
    error = copy.copy(error)
    error.message += more
    error.args = (error.message,)
    error.request = request
    return error


def _bug(cause: BaseException, request: SfxRequest | None) -> FineVoiceError:
    error = FineVoiceError(f"Unexpected error ({type(cause).__name__}); this is a bug of the library.", request=request)
    error.__cause__ = cause
    return error
