"""What is told of an effect or its row in the journal: what became of it, and whether it was paid for."""

from __future__ import annotations

from typing import TypeVar

from finevoice_async.core.failures import without_advice
from finevoice_async.core.ledger import EffectState, JournalRow, paid_for
from finevoice_async.core.tasks import TaskStatus, TaskUpdate
from finevoice_async.core.text import sentence
from finevoice_async.errors import (
    FineVoiceError,
    RequestRejectedError,
    SessionClosedError,
    SubmitUnknownError,
    TaskFailedError,
    TaskNotFoundError,
)

E = TypeVar("E", bound=FineVoiceError)

_SETTLE = "adopt(row, task_id=...), resubmit(row, accept_double_charge=True) or discard(row) settles it."


def closed_error() -> SessionClosedError:
    """Return what is told where a session closed before a submission was sent."""
    return SessionClosedError("The session was closed. Nothing was sent.")


def about(error: E, row: JournalRow | None) -> E:
    """Return the error, which says now which row it is about, and whether that was paid for; None: it is gone."""
    if row is not None:
        error.key, error.request = error.key or row.key, error.request or row.request
        error.task_id = error.task_id or row.task_id
    error.paid = paid_for(row)
    return error


def unknown_error(row: JournalRow) -> SubmitUnknownError:
    """Return the error that tells that nobody knows what became of a row's submission."""
    why = f" ({without_advice(row.error).rstrip('.')})" if row.error else ""
    return about(
        SubmitUnknownError(
            f"Row {row.id} of the journal may have been accepted and paid for{why}. It is not sent again by itself. "
            f"Look at your account; then {_SETTLE}",
        ),
        row,
    )


def end_of(row: JournalRow) -> tuple[TaskStatus, TaskUpdate | FineVoiceError | None]:
    """Return how a row's task ended, and its state; None if it is to be asked for."""
    if row.state in (EffectState.DONE, EffectState.SAVED):
        return TaskStatus.COMPLETED, TaskUpdate(status=TaskStatus.COMPLETED, task_id=row.task_id, urls=row.urls)
    why = row.error or "nobody noted why"
    if row.state is EffectState.FAILED:
        words = f"{sentence(f'It failed earlier: {why}')} To pay for another try, pass retry_failed=True."
        return TaskStatus.FAILED, about(TaskFailedError(words), row)
    if row.state is EffectState.REFUSED and row.task_id is None:  # else the service may know more: it is asked
        if paid_for(row) is None:
            return TaskStatus.UNKNOWN, about(SubmitUnknownError(sentence(f"It was {why}")), row)
        words = f"{sentence(f'It was not accepted: {why}')} Nothing was paid for it."
        return TaskStatus.FAILED, about(RequestRejectedError(words), row)
    if row.state in (EffectState.SENDING, EffectState.UNKNOWN):
        return TaskStatus.UNKNOWN, unknown_error(row)
    if row.state is EffectState.LOST:
        words = (
            f"The service did not know task {row.task_id} any more, which may have been paid for. Look at your "
            f"account; {_SETTLE}"
        )
        return TaskStatus.UNKNOWN, about(TaskNotFoundError(words), row)
    return TaskStatus.UNKNOWN, None
