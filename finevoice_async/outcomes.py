"""Many effects at once, drawn lazily and handed over as they end."""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import AsyncIterable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import attrs

from finevoice_async.core.ledger import EffectState, JournalRow, check_key
from finevoice_async.core.requests import RequestLike, SfxRequest, as_request, check_many
from finevoice_async.core.tasks import TaskUpdate
from finevoice_async.effect import Outcome, SaveTo, SoundEffect
from finevoice_async.engine.records import (
    ENDED,
    News,
    Result,
    Submission,
    TaskRecord,
    Watcher,
)
from finevoice_async.engine.rows import closed_error, unknown_error
from finevoice_async.errors import (
    FineVoiceError,
    InvalidRequestError,
    SessionClosedError,
)

if TYPE_CHECKING:  # imported when a session is made, or saves
    from finevoice_async.engine.downloads import Downloader
    from finevoice_async.engine.poller import Poller
    from finevoice_async.engine.submitter import Submitter
    from finevoice_async.saving import Saver

log = logging.getLogger("finevoice_async")

RECOVER_AHEAD: Final = 1000
"""Rows that `recover` picks up beyond what the caller has taken; those that were submitted run anyway."""


class OutcomeStream:
    """One run of `generate_many` or `recover`: a driver task that draws and submits, and outcomes to be taken.

    A task in flight costs no asyncio task: its outcome is put down when the poller tells.
    """

    def __init__(
        self,
        streams: dict[OutcomeStream, None],
        submitter: Submitter,
        poller: Poller,
        downloads: Downloader,
        requests: Iterable[RequestLike] | AsyncIterable[RequestLike | JournalRow],
        *,
        ahead: int,
        ordered: bool = False,
        retry_failed: bool = False,
        save_to: SaveTo | None = None,
        keeps: bool,
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
            save_to: Where to save the effects, before their outcomes are given; None leaves that to the caller.
            keeps: There is a journal, which knows what was not taken.
            timeout: Seconds to wait for each task; None for ever.

        Raises:
            ConfigurationError: `save_to` is neither a folder nor a callable.
            InvalidRequestError: What was given is no iterable, or one request in the place of many.
        """
        check_many(requests)
        self._streams = streams
        self._requests = requests
        self._ahead = ahead
        self._ordered = ordered
        self._retry_failed = retry_failed
        self._timeout = timeout
        self._submitter = submitter
        self._poller = poller
        self._downloads = downloads
        self._saver = None if save_to is None else _make_saver(save_to)
        self._keeps = keeps
        self._seen = submitter.refusals  # what comes later concerns all that is asked for here
        # All mutable state:
        self._drawn = 0
        self._taken = 0
        self._ready: dict[int, Outcome] = {}  # ended, not taken; by index, in the order of their end
        self._pending: dict[int, _Drawn] = {}  # drawn, not ended; by index
        self._driver: asyncio.Task[None] | None = None
        self._source_error: Exception | None = None  # raised by the caller's own iterable
        self._last: Submission | None = None  # drawn last
        self._exhausted = False
        self._stopping = False  # the driver is cancelled by this class
        self.closed = False  # the caller has left
        self._changed = asyncio.Event()  # something for the taker or the driver to look at

    async def __aenter__(self) -> Self:
        if self._saver is not None:
            await self._saver.prepare()
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
                    if self._stopping:  # it went on although it was cancelled, as `wait_for` may on Python 3.11
                        break
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
                if self._submitter.is_full:
                    await self._submitter.until_room()
                submission = self._submitter.submit(
                    request,
                    drawn.key,
                    drawn.hear,
                    owner=drawn.owner,
                    retry_failed=self._retry_failed,
                    seen=self._seen,
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
        drawn.waits_for(self._submitter.submit_row(row, drawn.hear, seen=self._seen))

    def check_file(self, file: object) -> str | None:
        """Return the name that an item gives its file.

        Raises:
            InvalidRequestError: It leads out of the folder, or there is none.
        """
        if file is None:
            return None
        from finevoice_async.saving import check_file

        name = check_file(file)
        if name is not None and (self._saver is None or self._saver.folder is None):
            raise InvalidRequestError("file needs save_to to be a folder. Nothing was sent.")
        return name

    def reserve(self, file: str, index: int, key: str | None) -> None:
        """Keep the name of a file for an item.

        Raises:
            InvalidRequestError: An earlier item has it.
        """
        if self._saver is not None:
            self._saver.reserve(file, index, key)

    # Ends

    def refused(self, drawn: _Drawn, error: FineVoiceError) -> None:
        """A submission came to nothing."""
        self._fail(drawn, error)

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
        effect = SoundEffect.of(record, self._downloads)
        outcome = Outcome(
            index=drawn.index, key=drawn.key, request=record.request, effect=effect, task_id=record.task_id
        )
        if self._saver is None:
            self._put(outcome)
        else:
            self._saver.start(effect, drawn.file, drawn.index, partial(self._saved, outcome, effect))

    def _saved(self, outcome: Outcome, effect: SoundEffect, path: Path | None, error: FineVoiceError | None) -> None:
        self._put(attrs.evolve(outcome, path=path, error=error, note=effect.note))

    def _fail(self, drawn: _Drawn, error: FineVoiceError, task_id: str | None = None) -> None:
        task_id = task_id or error.task_id
        error.request, error.key = error.request or drawn.request, error.key or drawn.key
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
        not_taken = [str(outcome.task_id) for outcome in self._ready.values() if outcome.effect and not outcome.path]
        not_taken += [str(drawn.record.task_id) for drawn in self._pending.values() if drawn.is_made]  # not saved, too
        if not_taken and not self._keeps:
            log.warning("finished effects were not taken; attach(task_id) gets them: %s", ", ".join(not_taken))
        self._pending.clear()
        self._ready.clear()
        if self._saver is not None:
            await self._saver.aclose()
        if self._driver is not None:
            await asyncio.wait([self._driver])


def _make_saver(save_to: SaveTo) -> Saver:
    from finevoice_async.saving import Saver  # with the first that saves: not all programs do

    return Saver(save_to)


@attrs.define(eq=False)
class _Drawn(Watcher):
    """One request that was drawn, from its submission to its outcome. There are as many as tasks in flight."""

    stream: OutcomeStream
    index: int
    record: TaskRecord = attrs.field(init=False)  # once its task is known
    request: SfxRequest | None = None
    key: str | None = None
    owner: str | None = None
    file: str | None = None
    submission: Submission | None = None  # while it has no task

    def read(self, wanted: Any) -> SfxRequest:
        """Return the request that an item asks for; its key is noted first.

        Raises:
            InvalidRequestError: It breaks a rule, or cannot be read at all.
        """
        try:
            if isinstance(wanted, Mapping) and not wanted.keys().isdisjoint(("key", "owner", "file")):
                wanted = dict(wanted)
                self.key = check_key(wanted.pop("key", None))
                self.owner = check_key(wanted.pop("owner", None), "owner")
                self.file = self.stream.check_file(wanted.pop("file", None))
            self.request = as_request(wanted, {})
            if self.file is not None:
                self.stream.reserve(self.file, self.index, self.key)
        except FineVoiceError:
            raise
        except (Exception, asyncio.CancelledError) as error:  # nothing is awaited here: it is the item that raises
            what = type(error).__name__
            raise InvalidRequestError(f"The request cannot be read ({what}). Nothing was sent.") from error
        return self.request

    def waits_for(self, submission: Submission) -> None:
        """Note who brings the task, unless it has."""
        if submission.phase is not ENDED:
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

    @property
    def is_made(self) -> bool:
        """Whether its effect is there: while it has no outcome, it is being saved."""
        return hasattr(self, "record") and isinstance(self.record.end, TaskUpdate)

    def leave(self, submitter: Submitter, poller: Poller) -> None:
        """Wait for nothing more."""
        if self.submission is not None:
            submitter.leave(self.submission, self.hear)
        elif hasattr(self, "record"):  # else it waits for room, and was not submitted
            poller.unwatch(self)


def _bug(cause: BaseException, request: SfxRequest | None) -> FineVoiceError:
    error = FineVoiceError(f"Unexpected error ({type(cause).__name__}); this is a bug of the library.", request=request)
    error.__cause__ = cause
    return error
