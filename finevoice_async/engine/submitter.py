"""From a request to a task id: a row in the journal, a place in the plan, one POST.

Each POST runs in a task of its own that the session owns, and which owns the place from then on. Whoever waits for it
may be cancelled at any time: the POST goes on, and the task id that it brings is kept.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import attrs

from finevoice_async.core.ledger import EffectState, JournalRow
from finevoice_async.core.requests import SfxRequest
from finevoice_async.core.tasks import TaskStatus, TaskUpdate
from finevoice_async.engine.exchange import ADVICE, Exchange
from finevoice_async.engine.poller import Poller
from finevoice_async.engine.records import Tracked
from finevoice_async.errors import (
    ConfigurationError,
    FineVoiceError,
    InvalidRequestError,
    JournalError,
    SessionClosedError,
    SubmitUnknownError,
)
from finevoice_async.ports import Clock, Journal, Slots

log = logging.getLogger("finevoice_async")

MAX_POSTS = 40
"""Submissions under way at once. With the 16 polls they fit the transport's 64 connections; more would only queue."""


@attrs.define(eq=False)
class Reservation:
    """What one submission holds before its POST: a place, a turn, and perhaps a row."""

    request: SfxRequest
    key: str | None
    row: JournalRow | None = None
    slot: object | None = None
    has_turn: bool = False


class Submitter:
    """Owns the submissions under way."""

    def __init__(
        self,
        exchange: Exchange,
        poller: Poller,
        *,
        slots: Slots,
        owns_slots: bool,
        clock: Clock,
        journal: Journal | None,
        revive: Callable[[JournalRow], Tracked],
    ) -> None:
        """Wire it.

        Args:
            exchange: Sends the POST.
            poller: Gets the task.
            slots: The places.
            owns_slots: Whether the places are closed with the session.
            clock: The session's clock.
            journal: Where rows are written before the POST; None keeps none.
            revive: Makes a tracked task of a row that is known already.
        """
        self._exchange = exchange
        self._poller = poller
        self._slots = slots
        self._owns_slots = owns_slots
        self._clock = clock
        self._journal = journal
        self.revive = revive
        # All mutable state:
        self.accepted = 0  # submissions that the service accepted
        self.posts: set[asyncio.Task[Tracked]] = set()  # under way; each leaves when it is done
        self._turns = asyncio.Semaphore(MAX_POSTS)
        self._by_key: dict[str, asyncio.Future[None]] = {}  # submissions under way with a caller's key
        self._rows: set[int] = set()  # rows of the journal that are being submitted
        self._withdrawing: set[asyncio.Future[JournalRow]] = set()  # rows being written for cancelled callers
        self._waiting: set[asyncio.Future[object]] = set()  # waits for a place
        self._closed = False

    def is_under_way(self, row_id: int) -> bool:
        """Tell whether this session is submitting a row right now."""
        return row_id in self._rows

    async def submit(self, request: SfxRequest, key: str | None) -> Tracked:
        """Submit, and give the task once its id is known. See `FineVoiceSession.submit` for the errors."""
        reserved = await self.reserve(request, key)
        if isinstance(reserved, Tracked):
            return reserved
        return await self._finish(reserved)

    async def _finish(self, reserved: Reservation) -> Tracked:
        posted: asyncio.Future[None] = asyncio.get_running_loop().create_future()  # half the cost of `asyncio.wait`

        def tell(_: asyncio.Task[Tracked]) -> None:
            if not posted.done():
                posted.set_result(None)

        post = self.launch(reserved, tell)
        try:
            await posted
        except asyncio.CancelledError:
            post.add_done_callback(_log_orphan)
            raise
        return post.result()

    async def submit_row(self, row: JournalRow) -> Tracked:
        """Submit a row of the journal, whatever state it is in: the caller knows."""
        return await self._finish(await self.reserve_row(row))

    async def reserve(self, request: SfxRequest, key: str | None) -> Reservation | Tracked:
        """Wait for a place and a turn; a key that is known already gives its task instead.

        Cancelled, it gives everything back, and the row says so. The row is written here only if there is something
        to wait for or to look up: `launch` writes it otherwise.
        """
        self._check_open()
        if key is not None:
            await self._take_key(key)
        reservation = Reservation(request, key)
        try:
            if key is None:
                reservation.slot = self._slots.try_acquire()
            if self._journal is not None and reservation.slot is None:
                known = self._known(await self._begin(self._journal, reservation), reservation)
                if known is not None:
                    self._free_key(key)
                    return known
            await self._reserve_place(reservation)
        except asyncio.CancelledError:
            self.give_back(reservation, "cancelled before it was sent")
            raise
        except BaseException:
            self.give_back(reservation, None)  # closed: the row stays PREPARED, for a later session to submit
            raise
        return reservation

    async def reserve_row(self, row: JournalRow) -> Reservation:
        """Wait for a place and a turn for a row that exists. Cancelled, the row stays as it is.

        Raises:
            InvalidRequestError: The row is being submitted already.
        """
        self._check_open()
        if self.is_under_way(row.id):
            raise InvalidRequestError(f"Row {row.id} of the journal is being submitted already.", request=row.request)
        reservation = Reservation(row.request, row.key, row)
        self._rows.add(row.id)
        try:
            await self._reserve_place(reservation)
        except BaseException:
            self.give_back(reservation, None)
            raise
        return reservation

    async def _reserve_place(self, reservation: Reservation) -> None:
        """Wait for what a POST needs. What it got before it failed is in the reservation."""
        if reservation.slot is None:
            reservation.slot = await self._acquire()
        await self._turns.acquire()
        reservation.has_turn = True
        self._check_open()

    async def _acquire(self) -> object:
        """Wait for a place, or until the session closes: shared places know nothing of that, so the wait is cancelled.

        A wait for places of the session's own ends when they are closed, without a task of its own.
        """
        if self._owns_slots:
            return await self._slots.acquire()
        slot = self._slots.try_acquire()
        if slot is not None:
            return slot
        waiting = asyncio.ensure_future(self._slots.acquire())
        self._waiting.add(waiting)
        try:
            return await waiting
        except asyncio.CancelledError:
            if waiting.done() and not waiting.cancelled() and waiting.exception() is None:
                self._slots.release(waiting.result())  # it came in the same step
            self._check_open()  # cancelled by `refuse`, not by the caller
            raise
        finally:
            self._waiting.discard(waiting)

    async def _begin(self, journal: Journal, reservation: Reservation) -> JournalRow:
        begun = journal.begin(reservation.request, key=reservation.key, state=EffectState.PREPARED)
        try:
            return await asyncio.shield(begun)
        except asyncio.CancelledError:
            late = Reservation(reservation.request, reservation.key)
            reservation.key = None  # it stays taken until the row is withdrawn
            self._withdrawing.add(begun)
            begun.add_done_callback(lambda row: self._withdraw(row, late))
            raise

    def _withdraw(self, begun: asyncio.Future[JournalRow], reservation: Reservation) -> None:
        """The caller was cancelled while the row was being written: it must not be submitted after a restart."""
        self._withdrawing.discard(begun)
        if not begun.cancelled() and begun.exception() is None:
            reservation.row = begun.result()
        self.give_back(reservation, "cancelled before it was sent")

    def _known(self, row: JournalRow, reservation: Reservation) -> Tracked | None:
        """Return the task of a row that was there before; None if it is new, or failed and may be tried again."""
        if row.request != reservation.request:
            raise InvalidRequestError(
                f"The key {row.key!r} belongs to another request in the journal. Nothing was sent.", task_id=row.task_id
            )
        if row.state in (EffectState.PREPARED, EffectState.FAILED):
            reservation.row = row
            self._rows.add(row.id)
            return None
        return self.revive(row)

    async def _take_key(self, key: str) -> None:
        """Wait until no other submission with this key is under way: the second finds the first one's row."""
        if self._journal is None:
            raise ConfigurationError("A key needs a journal: FineVoiceSession(journal=...). Nothing was sent.")
        while (pending := self._by_key.get(key)) is not None:
            await asyncio.wait([pending])
        self._by_key[key] = asyncio.get_running_loop().create_future()

    def _free_key(self, key: str | None) -> None:
        if key is not None and (pending := self._by_key.pop(key, None)) is not None:
            pending.set_result(None)

    def give_back(self, reservation: Reservation, why: str | None) -> None:
        """Undo a reservation; `why` ends its row, too."""
        self._free_key(reservation.key)
        if reservation.slot is not None:
            self._slots.release(reservation.slot)
            reservation.slot = None
        if reservation.has_turn:
            self._turns.release()
            reservation.has_turn = False
        if reservation.row is not None:
            self._rows.discard(reservation.row.id)
        row = reservation.row
        if why is not None and row is not None and row.state is EffectState.PREPARED and self._journal is not None:
            self._journal.advance(row.id, EffectState.FAILED, error=why)

    def _check_open(self) -> None:
        if self._closed:
            raise SessionClosedError("The session is closed. Nothing was sent.")
        self._poller.check()

    def launch(
        self, reservation: Reservation, on_posted: Callable[[asyncio.Task[Tracked]], None] | None = None
    ) -> asyncio.Task[Tracked]:
        """Start the POST of a reservation, which takes over all that the reservation holds."""
        post = asyncio.create_task(self._post(reservation))
        self.posts.add(post)
        post.add_done_callback(partial(self._posted, on_posted))
        return post

    def _posted(self, on_posted: Callable[[asyncio.Task[Tracked]], None] | None, post: asyncio.Task[Tracked]) -> None:
        self.posts.discard(post)
        self._turns.release()
        if not post.cancelled():
            post.exception()  # retrieved: whoever waits raises it, and a cancelled waiter has had it logged
        if on_posted is not None:
            on_posted(post)

    async def _post(self, reservation: Reservation) -> Tracked:
        request = reservation.request
        try:
            await self._note_sending(reservation)
            update = await self._exchange.submit(request)
        except SubmitUnknownError as error:
            self._slots.release(reservation.slot)
            log.warning("submission unknown: %s", error)
            await self._note(reservation, EffectState.SENDING, error.message)
            raise
        except FineVoiceError as error:
            self._slots.release(reservation.slot)
            log.info("submission failed: %s", error)
            if not isinstance(error, JournalError):
                await self._note(reservation, EffectState.FAILED, error.message)
            raise
        except Exception:
            self._slots.release(reservation.slot)  # a bug; what became of the request is not known
            log.exception("submission unknown: an unexpected error")
            raise
        except asyncio.CancelledError:
            self._slots.release(reservation.slot)
            log.warning("submission unknown: the session closed before its answer came")
            raise SubmitUnknownError(
                f"The session closed before the answer came. {ADVICE[SubmitUnknownError]}", request=request
            ) from None
        else:
            return await self._accepted(reservation, update)
        finally:
            self._free_key(reservation.key)
            if reservation.row is not None:
                self._rows.discard(reservation.row.id)

    async def _note_sending(self, reservation: Reservation) -> None:
        """Have it on disk that a POST may leave, before it does."""
        if self._journal is None:
            return
        if reservation.row is None:
            reservation.row = await self._journal.begin(
                reservation.request, key=reservation.key, state=EffectState.SENDING
            )
            self._rows.add(reservation.row.id)
        else:
            # Only from the state in which the row was read: somebody else may have sent it meanwhile.
            await self._journal.advance(reservation.row.id, EffectState.SENDING, seen=reservation.row.state)

    async def _note(self, reservation: Reservation, state: EffectState, error: str) -> None:
        """Note a failure; a journal that fails too must not hide it."""
        if self._journal is not None and reservation.row is not None:
            try:
                await self._journal.advance(reservation.row.id, state, error=error)
            except JournalError:
                log.exception("the journal could not note a failed submission")

    async def _accepted(self, reservation: Reservation, update: TaskUpdate) -> Tracked:
        self.accepted += 1
        record = Tracked(
            update.task_id,
            reservation.request,
            self._clock.monotonic(),
            submitted_at=self._clock.utcnow(),
            slot=reservation.slot,
            row_id=None if reservation.row is None else reservation.row.id,
            status=TaskStatus.PENDING if update.status is TaskStatus.UNKNOWN else update.status,
        )
        log.info("task %s submitted", record.task_id)
        if record.row_id is not None and self._journal is not None and record.task_id is not None:
            noted = self._journal.advance(record.row_id, EffectState.SUBMITTED, task_id=record.task_id)
            self._follow(record, update)
            await _kept(noted, record)
        else:
            self._follow(record, update)
        return record

    def _follow(self, record: Tracked, update: TaskUpdate) -> None:
        if update.status is TaskStatus.FAILED or update.urls:
            self._poller.end(record, record.ended_by(update))
        else:
            self._poller.track(record)

    def refuse(self) -> None:
        """Take no more submissions; whoever waits for a place hears that the session is closed."""
        self._closed = True
        for waiting in list(self._waiting):
            waiting.cancel()

    async def settle(self, timeout: float) -> None:
        """Return the POSTs under way `timeout` seconds, then cut them off."""
        under_way: list[asyncio.Future[Any]] = [*self.posts, *self._withdrawing]
        if under_way:
            await asyncio.wait(under_way, timeout=timeout)
        left = list(self.posts)
        for post in left:
            post.cancel()
        await asyncio.gather(*left, return_exceptions=True)


async def _kept(noted: Awaitable[None], record: Tracked) -> None:
    try:
        await noted
    except JournalError as error:
        log.critical("task %s was submitted, but the journal failed: %s", record.task_id, error)
        raise JournalError(
            f"Task {record.task_id} was submitted and runs, but the journal could not keep its id: {error.message} "
            "Note the id; attach(task_id) waits for it.",
            task_id=record.task_id,
            request=record.request,
        ) from error


def _log_orphan(post: asyncio.Task[Tracked]) -> None:
    """Say what became of a submission that nobody waits for any more."""
    if post.cancelled() or post.exception() is not None:
        return  # logged where it failed
    log.warning("task %s was submitted although its caller was cancelled; it runs on", post.result().task_id)
