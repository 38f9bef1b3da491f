"""One caller who waits for a submission to be kept, or for its task, and may leave at any time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from finevoice_async.core.requests import SfxRequest
from finevoice_async.engine.records import Listener, Result, Submission, TaskRecord
from finevoice_async.errors import FineVoiceError

if TYPE_CHECKING:  # the session has it, and imports it when it is made
    from finevoice_async.engine.submitter import Submitter


async def until_known(
    submitter: Submitter,
    take_in: Callable[[Listener], Submission],
    request: SfxRequest | None = None,
    key: str | None = None,
) -> TaskRecord:
    """Take a submission in, and wait for its task. Cancelled, the caller leaves it.

    Args:
        submitter: Whose submission it is.
        take_in: Its `submit` or `submit_row`, given all but the listener.
        request: What is submitted, for the errors.
        key: Its key, for the errors.

    Raises:
        FineVoiceError: There is no task; and what `take_in` raises.
    """
    heard: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

    def hear(result: Result) -> None:
        if not heard.done():
            heard.set_result(result)

    try:
        submission = take_in(hear)
    except FineVoiceError as error:
        error.request, error.key = error.request or request, error.key or key
        raise
    try:
        result = await heard
    except asyncio.CancelledError:
        submitter.leave(submission, hear)
        raise
    if isinstance(result, FineVoiceError):
        raise result
    return result


async def until_kept(submitter: Submitter, take_in: Callable[[Listener], Submission]) -> Submission:
    """Take a submission in, and wait until its row is on disk, if it gets one; from then on it needs no caller.

    Args:
        submitter: Whose submission it is.
        take_in: Its `submit`, given all but the listener.

    Raises:
        FineVoiceError: That came to nothing; and what `take_in` raises.
    """

    def hear(result: Result) -> None:
        """The handle tells what came of it."""

    submission = take_in(hear)
    submission.keepers += 1
    try:
        await submission.until_kept()
        submitter.keep(submission)
    except BaseException:
        submitter.forsake(submission)
        raise
    finally:
        submitter.leave(submission, hear)
    return submission
