"""Calls of a journal, which may be the caller's own, and raise anything: what comes out is a `JournalError`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from finevoice_async.errors import FineVoiceError, JournalError

log = logging.getLogger("finevoice_async")

T = TypeVar("T")


def fault_of(error: BaseException) -> JournalError:
    """Return what is told of a journal that raised something else."""
    return JournalError(f"The journal failed ({type(error).__name__}).")


def nothing_sent(error: BaseException) -> JournalError:
    """Return the error of a row that could not be written before its POST."""
    fault = error if isinstance(error, JournalError) else fault_of(error)
    told = JournalError(f"{fault.message} Nothing was sent.")
    told.paid = False
    return told


async def journalled(job: Awaitable[T]) -> T:
    """Await something of the journal's: it may be the caller's own, and raise anything."""
    try:
        return await job
    except FineVoiceError:
        raise
    except Exception as error:
        raise fault_of(error) from error


def called(write: Callable[..., asyncio.Future[T]], *args: Any, **fields: Any) -> asyncio.Future[T]:
    """Call a write; a fault of the call itself comes by the future, too."""
    try:
        return write(*args, **fields)
    except Exception as error:  # noqa: BLE001 - the caller's own journal may raise anything; it is passed on
        failed: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        failed.set_exception(error)
        return failed


def log_fault(what: str, note: asyncio.Future[Any]) -> None:
    """Say so where a write failed that nobody waits for."""
    if not note.cancelled() and note.exception() is not None:
        log.error("the journal could not note %s: %s", what, note.exception())
