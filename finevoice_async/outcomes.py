"""Many effects at once, drawn lazily and handed over as they end."""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final, Self

import attrs

from finevoice_async.core.ledger import EffectState, JournalRow
from finevoice_async.core.requests import SfxRequest, as_request
from finevoice_async.core.text import shorten
from finevoice_async.effect import SoundEffect
from finevoice_async.engine.poller import Poller
from finevoice_async.engine.records import News, Tracked, Waiter
from finevoice_async.engine.submitter import Reservation, Submitter
from finevoice_async.errors import (
    AuthenticationError,
    FineVoiceError,
    InsufficientCreditsError,
    InvalidRequestError,
    SessionClosedError,
)

log = logging.getLogger("finevoice_async")

Wanted = SfxRequest | str | Mapping[str, Any]
"""What `generate_many` takes: a request, a prompt, or a dict of fields (with a `key`, if there is a journal)."""

_FATAL: Final = (AuthenticationError, InsufficientCreditsError)
"""Errors that every further submission would meet as well."""


@attrs.frozen(kw_only=True)
class Outcome:
    """What became of one request of many.

    Attributes:
        index: Its place among the requests, from 0.
        request: The request; None if it was invalid.
        effect: The effect, if all went well.
        error: Why there is none.
        task_id: The service's id, once known.
    """

    index: int
    request: SfxRequest | None = None
    effect: SoundEffect | None = None
    error: FineVoiceError | None = None
    task_id: str | None = None


class ManyEffects:
    """One run of `generate_many`: a driver task that draws and submits, and the outcomes that wait to be taken.

    A task that was submitted costs no asyncio task: its outcome is put down when the poller tells.
    """

    def __init__(
        self,
        requests: Iterable[Wanted] | AsyncIterable[Wanted | JournalRow],
        *,
        ahead: int,
        ordered: bool,
        timeout: float | None,
        submitter: Submitter,
        poller: Poller,
        make_effect: Callable[[Tracked], SoundEffect],
    ) -> None:
        self._requests = requests
        self._ahead = ahead
        self._ordered = ordered
        self._timeout = timeout
        self._submitter = submitter
        self._poller = poller
        self._make_effect = make_effect
        # All mutable state:
        self._drawn = 0
        self._taken = 0
        self._ready: dict[int, Outcome] = {}  # ended, not taken; by index, in the order of their end
        self._waiters: dict[int, Waiter] = {}  # of those that the poller watches, by index
        self._fatal: FineVoiceError | None = None  # why nothing more is sent
        self._driver: asyncio.Task[None] | None = None
        self._source_error: BaseException | None = None  # raised by the caller's own iterable
        self._exhausted = False
        self._closed = False
        self._submitting = False  # the driver holds, or waits for, what a submission needs
        self._changed = asyncio.Event()  # something for the taker or the driver to look at

    def __aiter__(self) -> Self:
        self._driver = asyncio.create_task(self._drive(), name="finevoice-many")
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

    async def _drive(self) -> None:
        try:
            if isinstance(self._requests, AsyncIterable):
                async for wanted in self._requests:
                    await self._submit(wanted)
                    while self._drawn - self._taken >= self._ahead:
                        await self._wait()
            else:
                for wanted in self._requests:
                    await self._submit(wanted)
                    while self._drawn - self._taken >= self._ahead:
                        await self._wait()
        except SessionClosedError:
            log.info("the session closed; no more requests are drawn")
        except Exception as error:  # noqa: BLE001 - the caller's iterable may raise anything; it is raised to them
            self._source_error = error
        finally:
            self._exhausted = True
            self._changed.set()

    async def _submit(self, wanted: Wanted | JournalRow) -> None:
        index = self._drawn
        self._drawn += 1
        request = None
        self._submitting = True
        try:
            if isinstance(wanted, JournalRow):
                request = wanted.request
                reserved = await self._resume(wanted)
            else:
                request, key = _read(wanted)
                self._refuse_after_fatal(request)
                reserved = await self._submitter.reserve(request, key)
            if isinstance(reserved, Tracked):
                self._follow(index, reserved)
                return
            try:
                self._refuse_after_fatal(request)
            except FineVoiceError as error:
                self._submitter.give_back(reserved, None if isinstance(wanted, JournalRow) else error.message)
                raise
        except FineVoiceError as error:
            self._put(Outcome(index=index, request=request, error=error, task_id=error.task_id))
            if isinstance(error, SessionClosedError):
                raise
            return
        finally:
            self._submitting = False
        self._submitter.launch(reserved, partial(self._posted, index, request))

    async def _resume(self, row: JournalRow) -> Reservation | Tracked:
        """Take up a row of the journal: submit it if it was never sent, else follow its task."""
        if row.state is not EffectState.PREPARED:
            return self._submitter.revive(row)
        self._refuse_after_fatal(row.request)
        return await self._submitter.reserve_row(row)

    def _refuse_after_fatal(self, request: SfxRequest) -> None:
        if self._fatal is not None:
            error = copy.copy(self._fatal)
            error.request = request
            raise error

    def _posted(self, index: int, request: SfxRequest, post: asyncio.Task[Tracked]) -> None:
        if self._closed:
            return  # the caller left; the session keeps the task
        error = asyncio.CancelledError() if post.cancelled() else post.exception()
        if error is None:
            self._follow(index, post.result())
            return
        if isinstance(error, _FATAL):
            self._fatal = error
        if not isinstance(error, FineVoiceError):
            cause, error = error, FineVoiceError("Unexpected error; this is a bug of the library.", request=request)
            error.__cause__ = cause
        self._put(Outcome(index=index, request=request, error=error, task_id=error.task_id))

    def _follow(self, index: int, record: Tracked) -> None:
        if record.end is not None:
            self.end(index, record, record.end)
            return
        self._waiters[index] = waiter = _Follower(record, self._timeout, run=self, index=index)
        try:
            self._poller.watch(waiter)
        except FineVoiceError as error:
            self.end(index, record, error)

    def end(self, index: int, record: Tracked, news: News) -> None:
        """Make the outcome of a task that has ended, or of which no more can be learned."""
        waiter = self._waiters.pop(index, None)
        if waiter is not None:
            self._poller.unwatch(waiter)
        error = copy.copy(news) if isinstance(news, FineVoiceError) else None
        effect = None if error is not None else self._make_effect(record)
        self._put(Outcome(index=index, request=record.request, effect=effect, error=error, task_id=record.task_id))

    def _put(self, outcome: Outcome) -> None:
        self._ready[outcome.index] = outcome
        self._changed.set()

    def stop(self) -> None:
        """Draw no more; what was drawn still gets its outcome.

        A submission on its way hears from the submitter that the session is closed.
        """
        if self._driver is not None and not self._submitting:
            self._driver.cancel()

    async def aclose(self) -> None:
        """The caller leaves: draw no more, wait for nothing more. Idempotent."""
        self._closed = True
        if self._driver is not None:
            self._driver.cancel()
        for waiter in self._waiters.values():
            self._poller.unwatch(waiter)
        self._waiters.clear()
        self._ready.clear()
        if self._driver is not None:
            await asyncio.wait([self._driver])


@attrs.define(eq=False)
class _Follower(Waiter):
    """Tells a run of the end of its task. An object with slots, not a closure: there are as many as tasks in flight."""

    run: ManyEffects = attrs.field(kw_only=True)
    index: int = attrs.field(kw_only=True)

    def tell(self, news: News) -> None:
        self.run.end(self.index, self.record, news)


def _read(wanted: Wanted) -> tuple[SfxRequest, str | None]:
    if isinstance(wanted, Mapping) and "key" in wanted:
        fields = dict(wanted)
        key = check_key_name(fields.pop("key"))
        return as_request(fields, {}), key
    return as_request(wanted, {}), None


def check_key_name(key: object) -> str | None:
    """Return a caller's key back if it can name a row.

    Raises:
        InvalidRequestError: It is neither None nor a string that is not blank.
    """
    if key is not None and (not isinstance(key, str) or not key.strip()):
        raise InvalidRequestError(f"key must be a string that is not blank, not {shorten(key)}. Nothing was sent.")
    return key
