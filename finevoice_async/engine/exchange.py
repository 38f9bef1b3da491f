"""One call to the service: what it answers becomes an update, and what goes wrong a `Failure`."""

from __future__ import annotations

from contextlib import AbstractContextManager

import attrs

from finevoice_async.core import retry as policy
from finevoice_async.core.failures import ADVICE as ADVICE  # what submits takes it from here
from finevoice_async.core.failures import Failure, FailureKind, advised
from finevoice_async.core.requests import SUBMIT_PATH, SfxRequest
from finevoice_async.core.tasks import PENDING, PROCESSING, TaskStatus, TaskUpdate, check_task_id, task_path
from finevoice_async.core.wire import (
    Reply,
    UnreadableReplyError,
    as_utf8,
    body_text,
    decode_object,
    decode_refusal,
    decode_update,
    encode_request,
    find_task_id,
    request_id_of,
)
from finevoice_async.errors import MAX_BODY, FineVoiceError, InvalidRequestError
from finevoice_async.ports import Clock, Transport

_MARGIN = 8 * 1024
"""Bytes that are read beyond what is shown, and left out again: the key may be cut at their end. It is shorter."""


def error_of(
    failure: Failure,
    kind: type[FineVoiceError],
    *,
    task_id: str | None = None,
    key: str | None = None,
    request: SfxRequest | None = None,
) -> FineVoiceError:
    """Return the error that the user sees for a failure."""
    return kind(
        advised(failure.what, kind),
        task_id=task_id or failure.task_id,
        key=key,
        request=request,
        status=failure.status,
        code=failure.code,
        body=failure.body,
        request_id=failure.request_id,
        retry_after=failure.retry_after,
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
        try:
            reply = await self._transport.post(SUBMIT_PATH, encode_request(request), deadline=deadline)
        except Failure as failure:
            return _unanswered(failure)
        return self._refusal(reply) or self._read_accepted(reply)

    async def ask(self, task_id: str) -> TaskUpdate | Failure:
        """Ask how a task is doing."""
        try:
            reply = await self._transport.get(task_path(task_id))
        except Failure as failure:
            return _unanswered(failure)
        refusal = self._refusal(reply)
        if refusal is not None:
            return refusal
        if not reply.whole:
            return self._failure(FailureKind.LOST, "The answer broke off, or is far too long", reply)
        try:
            return self._shown(decode_update(reply.body), reply)
        except UnreadableReplyError:
            return self._unreadable(reply)

    def _refusal(self, reply: Reply) -> Failure | None:
        """Return what went wrong; None of a 2xx reply."""
        kind = policy.kind_of(reply.status)
        if kind is None:
            return None
        code, words = decode_refusal(reply.body if len(reply.body) > MAX_BODY else self._without_key(reply.body))
        return self._failure(kind, f"The service answered {reply.status}: {words}", reply, code=code)

    # What is shown of a reply: never the key

    def _failure(
        self, kind: FailureKind, what: str, reply: Reply, *, code: str | None = None, task_id: str | None = None
    ) -> Failure:
        return Failure(
            kind,
            self._conceal(what),
            status=reply.status,
            code=None if code is None else self._conceal(code),
            body=body_text(self._without_key(reply.body)),
            retry_after=policy.retry_after_of(reply.headers, self._clock.utcnow()),
            request_id=self._request_id(reply),
            task_id=task_id,
        )

    def _without_key(self, body: bytes) -> bytes:
        """Return the part of a body that may be shown, without the key in whatever encoding."""
        if len(body) <= MAX_BODY:
            return self._transport.conceal(as_utf8(body))
        return self._transport.conceal(as_utf8(body[: MAX_BODY + _MARGIN]))[:-_MARGIN]

    def _conceal(self, words: str) -> str:
        return self._transport.conceal(words.encode("utf-8", "replace")).decode()

    def _request_id(self, reply: Reply) -> str | None:
        found = request_id_of(reply.headers)
        return None if found is None else self._conceal(found)

    def _shown(self, update: TaskUpdate, reply: Reply) -> TaskUpdate:
        """Return an update whose words hold no key.

        A result stays as it is: its links would lead nowhere else. So does a task that runs: nothing of it is shown.
        """
        if update.urls or update.status is PENDING or update.status is PROCESSING:
            return update
        body = self._without_key(reply.body)
        if body != reply.body:
            try:
                raw = decode_update(body).raw
            except UnreadableReplyError:  # it was cut, or the key was no text
                raw = {}
            update = attrs.evolve(update, raw=raw)
        if update.status.ended:  # without a result
            update = attrs.evolve(
                update,
                code=None if update.code is None else self._conceal(update.code),
                reason=None if update.reason is None else self._conceal(update.reason),
                request_id=self._request_id(reply),
            )
        return update

    def _unreadable(self, reply: Reply, what: str | None = None, *, task_id: str | None = None) -> Failure:
        if what is None:
            what = _problem(self._without_key(reply.body))
        cut = "" if reply.whole else ", and then broke off or was far too long"
        words = f"The service answered {reply.status} with {what}{cut}"
        return self._failure(FailureKind.UNREADABLE, words, reply, task_id=task_id)

    def _read_accepted(self, reply: Reply) -> TaskUpdate | Failure:
        """Read the answer to a submission: a 2xx reply is an acceptance only if an id or a link is in it."""
        try:
            update = self._shown(decode_update(reply.body), reply)
        except UnreadableReplyError:
            task_id = find_task_id(reply.body)  # what was paid for is not lost because the rest of the answer is
            if task_id is None:
                return self._unreadable(reply)
            update = TaskUpdate(status=TaskStatus.UNKNOWN, task_id=task_id)
        if update.task_id is not None:
            try:
                check_task_id(update.task_id)
            except InvalidRequestError as error:
                words = f"an id that cannot be used. {error.message[:-1]}"
                return self._unreadable(reply, words, task_id=error.task_id)
            return update
        if update.status is TaskStatus.FAILED:
            words = update.reason or (f"code {update.code}" if update.code else "the request failed")
            words = f"The service answered {reply.status} with a failure: {words}"
            return self._failure(FailureKind.INVALID, words, reply, code=update.code)
        return update if update.urls else self._unreadable(reply, "neither a task id nor a link")


def _unanswered(failure: Failure) -> Failure:
    reached = failure.kind not in (FailureKind.NOT_SENT, FailureKind.CERTIFICATE)
    words = "No answer came back" if reached else "The service was not reached"
    return Failure(failure.kind, f"{words}: {failure.what}")


def _problem(body: bytes) -> str:
    """Return what is wrong with a body that is no JSON object."""
    try:
        decode_object(body)
    except UnreadableReplyError as error:
        return str(error)
    return "what makes no sense"
