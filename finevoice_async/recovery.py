"""What a session offers of its journal: what was wished for and what an earlier process left, and how to settle it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial

from finevoice_async.core.ledger import MAY_BE_PAID, EffectState, JournalRow, check_key, paid_for
from finevoice_async.core.tasks import check_task_id
from finevoice_async.core.text import shorten
from finevoice_async.effect import Outcome, SaveTo
from finevoice_async.engine.caller import until_known
from finevoice_async.engine.life import Life
from finevoice_async.engine.rows import about
from finevoice_async.errors import FineVoiceError, InvalidRequestError
from finevoice_async.outcomes import RECOVER_AHEAD, OutcomeStream
from finevoice_async.task import SfxTask
from finevoice_async.wishes import Wishes

_GOES_ON = (EffectState.QUEUED, EffectState.SENDING, EffectState.SUBMITTED)


class Recovery(Wishes):
    """The calls that are about a journal. A session opens the parts and makes the handles."""

    _life: Life
    _stream: Callable[..., OutcomeStream]

    async def find(self, *, key: str | None = None, task_id: str | None = None) -> SfxTask | None:
        """Return the handle on an effect by its key or its task id; None if neither session nor journal knows it.

        The service is not asked, and nothing is submitted. What an earlier process wished for and never sent is
        `QUEUED`; it is submitted when it is awaited, or by `recover`.

        Args:
            key: Your own name for the effect, or the one that `enqueue` made.
            task_id: The service's id; one of the two is given.

        Raises:
            InvalidRequestError: It cannot be a key or a task id, or not just one of them was given.
            PollError: The poller died, so that nobody would see the task end.
            JournalError: The journal could not be read.
            SessionClosedError: The session is closed.
            ConfigurationError: The session belongs to another loop or process.
        """
        if (key is None) == (task_id is None):
            raise InvalidRequestError("find takes a key or a task_id, one of them.")
        name = check_key(key)
        if task_id is not None:
            check_task_id(task_id)
        await self._open()
        inflight = self._parts.inflight
        for _ in range(3):  # a row may have gone on when it comes: it was queued, then it ran, then it has ended
            live = inflight.tasks.get(task_id or "") or await self._parts.submitter.find(key=name, task_id=task_id)
            row = None if live is not None else await self._parts.bookkeeper.row_of(key=name, task_id=task_id)
            self._life.bind()  # it may have been closed meanwhile
            if row is not None:
                live = inflight.of_row(row.id)
            if live is not None:
                return self._task_of(live)
            if row is None or row.state not in _GOES_ON:
                break
        if row is None:
            return None
        return self._task_of(await self._parts.pick_up(row))

    async def rows(self, *states: EffectState) -> AsyncGenerator[JournalRow, None]:
        """Yield the journal's rows in these states (none named: in any), oldest first.

        Raises:
            InvalidRequestError: Something is no `EffectState`.
            ConfigurationError: The session has no journal, or belongs to another loop or process.
            JournalError: The journal could not be read.
            SessionClosedError: The session is closed.
        """
        for state in states:
            if not isinstance(state, EffectState):
                raise InvalidRequestError(f"rows takes states such as EffectState.SAVED, not {shorten(state)}.")
        await self._open()
        async for row in self._parts.bookkeeper.rows(*states):
            yield row

    async def recover(self, *, save_to: SaveTo | None = None) -> AsyncGenerator[Outcome, None]:
        """Pick up what an earlier process left in the journal; each outcome comes as it ends.

        What was submitted is polled on, what was never sent is submitted, what is done can be saved. What may have
        been paid for is an outcome with a `SubmitUnknownError`, or, if the service does not know its task any more, a
        `TaskNotFoundError`: it is never sent again by itself, see `resubmit`, `adopt` and `discard`. Effects that
        were saved, refused or failed are not given; in a fleet, nor are those that another living session acts for.

        Args:
            save_to: As for `generate_many`.

        Raises:
            ConfigurationError: The session has no journal, `save_to` cannot be used, or the session belongs to another
                loop or process.
            JournalError: The journal could not be read.
            SessionClosedError: The session is closed.
        """
        await self._open()
        async with self._stream(self._left_behind(), ahead=RECOVER_AHEAD, save_to=save_to) as stream:
            async for outcome in stream:
                yield outcome

    async def _left_behind(self) -> AsyncIterator[JournalRow]:
        async for row in self._parts.bookkeeper.left_behind():
            if not self._parts.submitter.is_under_way(row):
                yield row

    async def unknown(self) -> list[JournalRow]:
        """Return the rows that may have been paid for, and that only you can settle.

        Their task ids are not known (UNKNOWN), or the service does not know them any more (LOST).

        Raises:
            ConfigurationError: The session has no journal, or belongs to another loop or process.
            JournalError: The journal could not be read.
            SessionClosedError: The session is closed.
        """
        return [row async for row in self.rows(*MAY_BE_PAID)]

    async def resubmit(self, row: JournalRow, *, accept_double_charge: bool = False) -> SfxTask:
        """Send a row again that may have been paid for, which may be paid for a second time.

        Refused, it stays what it was: the error says so.

        Raises:
            InvalidRequestError: The row is settled or being submitted, or the risk was not accepted.
            FineVoiceError: As for `submit`.
        """
        _check_row(row)
        if accept_double_charge is not True:
            words = f"Row {row.id} may be paid for; to send it again pass accept_double_charge=True."
            raise about(InvalidRequestError(words), row)
        current = await self._open_row(row)
        take_in = partial(self._parts.submitter.submit_row, current, resend=True)
        with _told_of(current):
            return self._task_of(await until_known(self._parts.submitter, take_in))

    async def adopt(self, row: JournalRow, *, task_id: str) -> SfxTask:
        """Settle a row that may have been paid for by naming its task, which you have found in your account.

        Raises:
            InvalidRequestError: The row is settled or being submitted, or the id cannot be its task's.
            PollError: The poller died, so that nobody would see the task end.
            ConfigurationError: The session has no journal, or belongs to another loop or process.
            JournalError: It could not be written.
            SessionClosedError: The session is closed.
        """
        _check_row(row)
        with _told_of(row):
            check_task_id(task_id)
        current = await self._open_row(row)
        return self._task_of(self._parts.poller.pick_up(await self._parts.bookkeeper.adopt(current, task_id)))

    async def discard(self, row: JournalRow) -> None:
        """Give up a row that may have been paid for, or that was never sent: its key is free again.

        That it may have been paid for stays in the row's `error`. What was never sent, but failed before, is FAILED
        again.

        Raises:
            InvalidRequestError: The row is settled or being submitted, or may have been paid for since you got it.
            ConfigurationError: The session has no journal, or belongs to another loop or process.
            JournalError: It could not be written.
            SessionClosedError: The session is closed.
        """
        current = await self._open_row(row, EffectState.QUEUED)
        if paid_for(row) is False and paid_for(current) is None:
            words = f"Row {row.id} was sent meanwhile, and may have been paid for. unknown() gives it as it is now."
            raise about(InvalidRequestError(words), current)
        await self._parts.bookkeeper.discard(current)

    async def _open_row(self, row: JournalRow, *more: EffectState) -> JournalRow:
        """Return a row as it is now, if it is the caller's to settle."""
        _check_row(row)
        with _told_of(row):
            await self._open()
        current = await self._parts.bookkeeper.to_settle(row, *more)
        self._parts.submitter.check_not_under_way(current)
        return current


def _check_row(row: object) -> None:
    if not isinstance(row, JournalRow):
        raise InvalidRequestError(f"row must be a JournalRow, as rows() and unknown() give, not {shorten(row)}.")


@contextmanager
def _told_of(row: JournalRow) -> Iterator[None]:
    """Have errors say which row they are about, and never that it is unpaid where nobody knows."""
    try:
        yield
    except FineVoiceError as error:
        paid = error.paid
        about(error, row)
        error.paid = error.paid if paid is False else paid
        raise
