"""One call to the service: what it answers becomes an update, and what goes wrong a `Failure`."""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import AbstractContextManager

from finevoice_async.core import retry as policy
from finevoice_async.core.failures import Failure, FailureKind
from finevoice_async.core.requests import SUBMIT_PATH, SfxRequest
from finevoice_async.core.tasks import TaskStatus, TaskUpdate, check_task_id, task_path
from finevoice_async.core.wire import (
    Reply,
    UnreadableReplyError,
    body_text,
    decode_refusal,
    decode_update,
    encode_request,
    find_task_id,
)
from finevoice_async.errors import (
    AuthenticationError,
    FineVoiceError,
    InsufficientCreditsError,
    InvalidRequestError,
    PollError,
    RateLimitError,
    RequestRejectedError,
    SubmitNotSentError,
    SubmitUnknownError,
    TaskNotFoundError,
)
from finevoice_async.ports import Clock, Transport

ADVICE: dict[type[FineVoiceError], str] = {
    SubmitNotSentError: "Nothing was sent and nothing paid; it is safe to submit it again.",
    SubmitUnknownError: "The request may have been accepted and paid for, so it was not sent again. Look at your "
    "account before you do.",
    AuthenticationError: "Check the API key. Tasks that were submitted keep their ids and run on.",
    InsufficientCreditsError: "Nothing was paid for this request. Tasks that were submitted run on.",
    RequestRejectedError: "Nothing was paid for it; change the request before you submit it again.",
    RateLimitError: "Nothing was paid for this request. Lower max_concurrency to what your plan allows, or try later.",
    PollError: "The task may still run; attach(task_id) asks on.",
    TaskNotFoundError: "Check the id, and that the key is of the account that submitted it.",
}


def error_of(
    failure: Failure, kind: type[FineVoiceError], *, task_id: str | None = None, request: SfxRequest | None = None
) -> FineVoiceError:
    """Return the error that the user sees for a failure."""
    return kind(
        f"{failure.what}. {ADVICE[kind]}" if kind in ADVICE else f"{failure.what}.",
        task_id=task_id or failure.task_id,
        request=request,
        status=failure.status,
        code=failure.code,
        body=failure.body,
    )


class Exchange:
    """Submits and asks, once each. What is tried again is decided elsewhere."""

    def __init__(
        self, transport: Transport, *, clock: Clock, synchronous: AbstractContextManager[None] | None = None
    ) -> None:
        """Wire it.

        Args:
            transport: Makes the calls.
            clock: The session's clock.
            synchronous: The limit of a submission that is answered with its effect; left out, that of any call.
        """
        self._transport = transport
        self._clock = clock
        self._synchronous = synchronous

    async def submit(self, request: SfxRequest) -> TaskUpdate | Failure:
        """Submit a request, and return what the service said: an update with a task id, a result, or both."""
        deadline = None if request.use_async else self._synchronous
        answer = await self._call(self._transport.post(SUBMIT_PATH, encode_request(request), deadline=deadline))
        return answer if isinstance(answer, Failure) else _read_accepted(answer)

    async def ask(self, task_id: str) -> TaskUpdate | Failure:
        """Ask how a task is doing."""
        answer = await self._call(self._transport.get(task_path(task_id)))
        if isinstance(answer, Failure):
            return answer
        if not answer.whole:
            return Failure(FailureKind.LOST, "The answer broke off, or is far too long", status=answer.status)
        try:
            return decode_update(answer.body)
        except UnreadableReplyError as error:
            return _unreadable(answer, str(error))

    async def _call(self, reply: Awaitable[Reply]) -> Reply | Failure:
        """Return a 2xx reply, or what went wrong."""
        try:
            answer = await reply
        except Failure as failure:
            reached = failure.kind not in (FailureKind.NOT_SENT, FailureKind.CERTIFICATE)
            words = "No answer came back" if reached else "The service was not reached"
            return Failure(failure.kind, f"{words}: {failure.what}")
        shown = self._transport.conceal(answer.body)
        if shown != answer.body and not _has_links(answer.body):
            answer = answer._replace(body=shown)  # errors keep bodies; a result stays as it is, for its links
        kind = policy.kind_of(answer.status)
        if kind is None:
            return answer
        code, words = decode_refusal(answer.body)
        return Failure(
            kind,
            f"The service answered {answer.status}: {words}",
            status=answer.status,
            code=code,
            body=body_text(answer.body),
            retry_after=policy.parse_retry_after(answer.headers.get("retry-after"), self._clock.utcnow()),
        )


def _has_links(body: bytes) -> bool:
    try:
        return bool(decode_update(body).urls)
    except UnreadableReplyError:
        return False


def _unreadable(reply: Reply, what: str, *, task_id: str | None = None) -> Failure:
    cut = "" if reply.whole else ", and then broke off or was far too long"
    return Failure(
        FailureKind.UNREADABLE,
        f"The service answered {reply.status} with {what}{cut}",
        status=reply.status,
        body=body_text(reply.body),
        task_id=task_id,
    )


def _read_accepted(reply: Reply) -> TaskUpdate | Failure:
    """Read the answer to a submission: a 2xx reply is an acceptance only if an id or a link is in it."""
    try:
        update = decode_update(reply.body)
    except UnreadableReplyError as error:
        task_id = find_task_id(reply.body)  # what was paid for is not lost because the rest of the answer is
        if task_id is None:
            return _unreadable(reply, str(error))
        update = TaskUpdate(status=TaskStatus.UNKNOWN, task_id=task_id)
    if update.task_id is not None:
        try:
            check_task_id(update.task_id)
        except InvalidRequestError as error:
            return _unreadable(reply, f"an id that cannot be used. {error.message[:-1]}", task_id=error.task_id)
        return update
    if update.status is TaskStatus.FAILED:
        words = update.reason or (f"code {update.code}" if update.code else "the request failed")
        return Failure(
            FailureKind.INVALID,
            f"The service answered {reply.status} with a failure: {words}",
            status=reply.status,
            code=update.code,
            body=body_text(reply.body),
        )
    return update if update.urls else _unreadable(reply, "neither a task id nor a link")
