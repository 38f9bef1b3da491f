"""The books of a session in a fleet: whose a row is, and what is written of one that this session acts for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from finevoice_async.core.ledger import MAY_BE_PAID, EffectState, JournalRow, Move
from finevoice_async.engine.bookkeeper import Bookkeeper
from finevoice_async.engine.journal_calls import called, journalled, log_fault, nothing_sent
from finevoice_async.engine.records import Submission, TaskRecord
from finevoice_async.engine.rows import about
from finevoice_async.errors import BudgetExceededError, InvalidRequestError, JournalError, TaskTimeoutError
from finevoice_async.ports import Begun
from finevoice_async.shared_ports import FleetStats, SharedJournal

if TYPE_CHECKING:
    from finevoice_async.engine.watching import Watching

T = TypeVar("T")

PATIENCE: Final = 4.0
"""Seconds that somebody who only looks waits for the database, such as a check of a program's health."""

WITHDRAWN = "It was withdrawn."
"""How the error begins of a row that was taken back for everybody who waits for it."""


class SharedBookkeeper(Bookkeeper):
    """The only writer of a shared journal in this session, and its reader."""

    def __init__(self, journal: SharedJournal, watching: Watching | None = None) -> None:
        """Set it up; open it later."""
        super().__init__(journal, watching)
        self._shared = journal
        # All mutable state of its own:
        self._adopted: list[JournalRow] = []  # rows to follow, while nobody hears of them
        self._hear: Callable[[JournalRow], None] = self._adopted.append

    async def open(self) -> None:
        """Join the fleet. After a failure it may be tried again.

        Raises:
            JournalError: It could not be done.
        """
        if not self._opened:
            await journalled(self._shared.open(lambda row: self._hear(row)))
            self._opened = True

    def on_adopted(self, hear: Callable[[JournalRow], None]) -> None:
        """Have somebody told of each row of a session that left or died that is this one's now, the past ones first."""
        self._hear = hear
        adopted, self._adopted = self._adopted, []
        for row in adopted:
            hear(row)

    async def fleet(self) -> FleetStats:
        """Return what all sessions are doing together.

        Raises:
            JournalError: It could not be read; or not soon, as the database is away.
        """
        return await _soon(self._asked(self._shared.fleet()))

    async def row_of(self, *, key: str | None = None, task_id: str | None = None) -> JournalRow | None:
        """Return the row with this key or task id.

        Raises:
            JournalError: It could not be read; or not soon, as the database is away.
        """
        return await _soon(super().row_of(key=key, task_id=task_id))

    async def rows(self, *states: EffectState) -> AsyncIterator[JournalRow]:
        """Yield every row in these states, in the order of their numbers.

        Raises:
            JournalError: It could not be read; or not soon, as the database is away.
        """
        found = aiter(super().rows(*states))
        while (row := await _soon(anext(found, None))) is not None:
            yield row

    # Whose a row is

    async def whose(self, row_id: int) -> Begun | None:
        """Return a row, and whether another living session acts for it; None: it is gone.

        One that runs and that nobody follows is this session's from then on.

        Raises:
            JournalError: It could not be read.
        """
        return await self._asked(self._shared.whose(row_id))

    def watch(self, row_id: int, told: Callable[[], None]) -> Callable[[], None]:
        """Call `told` whenever a row may have changed; return what ends that."""
        return self._shared.watch(row_id, told)

    async def take(self, submission: Submission) -> Begun:
        """Act for a submission's row from now on, if nobody who lives does; it waits for a slot then.

        Raises:
            JournalError: It could not be written.
        """
        row = submission.row
        assert row is not None  # noqa: S101 - its caller has looked
        try:
            if await journalled(self._shared.take(row.id, owner=submission.owner)):
                return Begun(row, is_mine=True)
            found = await journalled(self._shared.whose(row.id))
        except JournalError as error:
            raise nothing_sent(error) from error
        if found is None:
            raise nothing_sent(JournalError(f"Row {row.id} of the journal is gone."))
        return found

    async def withdraw_elsewhere(self, row_id: int) -> bool:
        """Take a row back that another session has queued; False: it was sent already, or is on its way.

        Raises:
            JournalError: It could not be written.
        """
        words = f"{WITHDRAWN} Nothing was sent and nothing paid."
        return await self._asked(journalled(called(self._shared.withdraw, row_id, words)))

    async def left_behind(self) -> AsyncIterator[JournalRow]:
        """Yield each row once that is not settled and that no other living session acts for."""
        async for row in super().left_behind():
            found = await self.whose(row.id)
            if found is not None and not found.elsewhere:
                yield found.row

    async def to_settle(self, row: JournalRow, *more: EffectState) -> JournalRow:
        """Return a row as it is now, if it is the caller's to settle.

        Raises:
            InvalidRequestError: It is settled, or another session is about to send it.
            JournalError: It could not be read.
        """
        current = await super().to_settle(row, *more)
        found = await self.whose(row.id)
        if found is not None and found.elsewhere:
            words = f"Row {row.id} of the journal is being submitted already, by another session."
            error = about(InvalidRequestError(words), found.row)
            error.paid = None  # it may be on its way
            raise error
        return current

    def give_away(self) -> None:
        """Follow this session's tasks no more: another may."""
        called(self._shared.give_away).add_done_callback(partial(log_fault, "that its tasks are anybody's"))

    def ended(self, record: TaskRecord) -> None:
        """Note how a task ended; one that was given up keeps no slot, though its row waits for its end still."""
        super().ended(record)
        if record.row_id is not None and isinstance(record.end, TaskTimeoutError):
            free = called(self._shared.free_slot, record.row_id)
            free.add_done_callback(partial(log_fault, f"that row {record.row_id} takes no slot"))

    # A submission's steps

    def begin(self, submission: Submission, state: EffectState, again: Move = Move.QUEUE) -> None:
        """Write a submission's row, or look up the one that its key has: `submission.begun` is the answer to come.

        Raises:
            JournalError: It could not be called.
        """
        submission.state = EffectState.QUEUED
        try:
            begun = self._shared.begin(
                submission.request, key=submission.key, state=state, again=again, owner=submission.owner
            )
        except Exception as error:
            raise nothing_sent(error) from error
        submission.begun = begun

    async def sending(self, submission: Submission) -> bool:
        """Have it on disk that a POST may leave, and that nobody takes this session for dead. False: it must not.

        Raises:
            BudgetExceededError: The fleet has spent the session's budget.
            JournalError: It could not be written; then nothing may be sent.
        """
        while submission.state is EffectState.SENDING or await self._sending(submission):
            if self._shared.is_sure():
                return True
            await self.held(submission, "its session may count as dead; it is sent once that is known")
            await self._shared.until_sure()
        return False

    async def _sending(self, submission: Submission) -> bool:
        before = submission.state
        try:
            return await super().sending(submission)
        except BudgetExceededError:  # others have spent it
            submission.state = before
            raise

    def withdrawn(self, submission: Submission, why: str, *, doubt: bool) -> asyncio.Future[bool] | None:
        """Note that it will not be sent (any more) by this session; nobody acts then for a row that waits on."""
        note = super().withdrawn(submission, why, doubt=doubt)
        waits = submission.state is EffectState.QUEUED or submission.state in MAY_BE_PAID
        if note is None and submission.row is not None and waits and not doubt:
            return called(self._shared.let_go, submission.row.id)
        return note


async def _soon(look: Awaitable[T]) -> T:
    """Await what only reads, for a while: who looks wants to know that the database is away, and not to wait for it."""
    try:
        async with asyncio.timeout(PATIENCE):
            return await look
    except TimeoutError:
        raise JournalError(f"The fleet's database is away: no answer in {PATIENCE:g} s. Try again later.") from None
