"""After a crash: what an earlier process left in the journal, picked up."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from finevoice_async.core.ledger import EffectState, JournalRow
from finevoice_async.core.tasks import TaskStatus, TaskUpdate
from finevoice_async.engine.records import Tracked
from finevoice_async.errors import InvalidRequestError, SubmitUnknownError, TaskFailedError
from finevoice_async.ports import Clock, Journal

PAGE = 500
"""Rows read at once: a journal may hold any number."""


def unknown_error(row: JournalRow) -> SubmitUnknownError:
    """Tell that nobody knows what became of a row's submission."""
    return SubmitUnknownError(
        f"Row {row.id} of the journal may have been accepted and paid for{f' ({row.error})' if row.error else ''}. It "
        "is not sent again by itself. Look at your account; resubmit(row, accept_double_charge=True) sends it again.",
        request=row.request,
        task_id=row.task_id,
    )


def revive(row: JournalRow, clock: Clock) -> Tracked:
    """Make the record of a row whose task id or result is known.

    Raises:
        SubmitUnknownError: The row's outcome is unknown.
    """
    if row.state is EffectState.SENDING:
        raise unknown_error(row)
    age = max((clock.utcnow() - row.created_at).total_seconds(), 0.0)
    record = Tracked(
        row.task_id,
        row.request,
        clock.monotonic() - age,
        submitted_at=row.created_at,
        attached=True,
        row_id=row.id,
    )
    if row.state in (EffectState.DONE, EffectState.SAVED):
        record.status = TaskStatus.COMPLETED
        record.end = TaskUpdate(status=TaskStatus.COMPLETED, task_id=row.task_id, urls=row.urls)
    elif row.state is EffectState.FAILED:
        record.status = TaskStatus.FAILED
        record.end = record.error(TaskFailedError, f"It failed earlier: {row.error}")
    return record


async def pages(journal: Journal, *states: EffectState) -> AsyncIterator[JournalRow]:
    """Return every row in these states, a page at a time."""
    after = 0
    while rows := await journal.rows(*states, after=after, limit=PAGE):
        for row in rows:
            yield row
        after = rows[-1].id


async def unknown_rows(journal: Journal, is_under_way: Callable[[int], bool]) -> AsyncIterator[JournalRow]:
    """Return the rows that may have been paid for: in SENDING, and not because of this very session."""
    async for row in pages(journal, EffectState.SENDING):
        if not is_under_way(row.id):
            yield row


async def left_behind(journal: Journal, is_under_way: Callable[[int], bool]) -> AsyncIterator[JournalRow]:
    """Return the rows to pick up: what is unknown, then what runs and holds places, and last what is to be sent."""
    async for row in unknown_rows(journal, is_under_way):
        yield row
    for state in (EffectState.SUBMITTED, EffectState.DONE, EffectState.PREPARED):
        async for row in pages(journal, state):
            if not is_under_way(row.id):
                yield row


def check_resubmit(row: JournalRow, *, accept_double_charge: bool) -> None:
    """Let only an unknown row be sent again, and only by somebody who says what it may cost.

    Raises:
        InvalidRequestError: The row is not unknown, or the risk is not accepted.
    """
    if row.state is not EffectState.SENDING:
        raise InvalidRequestError(f"Row {row.id} is {row.state.value}, not unknown: there is nothing to send again.")
    if accept_double_charge is not True:
        raise InvalidRequestError(
            f"Row {row.id} may have been paid for. To send it again, pass accept_double_charge=True."
        )
