"""One call to the service, with its retries: what goes wrong becomes a value, then a decision, then an error."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable

import attrs

from finevoice_async.config import Retry
from finevoice_async.core import retry as policy
from finevoice_async.core.requests import SUBMIT_PATH, SfxRequest
from finevoice_async.core.retry import Call, Decision, RetryBudget, Symptom, Verdict
from finevoice_async.core.tasks import TaskStatus, TaskUpdate, check_task_id, task_path
from finevoice_async.core.wire import (
    Reply,
    UnreadableReplyError,
    body_text,
    decode_refusal,
    decode_update,
    encode_request,
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
from finevoice_async.ports import CertificateError, Clock, NotSentError, Slots, Transport, TransportError

log = logging.getLogger("finevoice_async")

REDUCED_FOR = 30.0
"""Seconds that a 429 keeps the session's concurrency lower: a few effects' time."""

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


@attrs.frozen(kw_only=True, eq=False)
class Trouble:
    """What went wrong with one call, in words that hold no secret."""

    symptom: Symptom
    what: str
    status: int | None = None
    code: str | None = None
    body: str | None = None
    retry_after: float | None = None

    def error(
        self, kind: type[FineVoiceError], *, task_id: str | None = None, request: SfxRequest | None = None
    ) -> FineVoiceError:
        """Make the error that the user sees."""
        return kind(
            f"{self.what}. {ADVICE[kind]}" if kind in ADVICE else f"{self.what}.",
            task_id=task_id,
            request=request,
            status=self.status,
            code=self.code,
            body=self.body,
        )


class Exchange:
    """Submits and asks, by the rules of `core.retry`."""

    def __init__(self, transport: Transport, *, retry: Retry, clock: Clock, slots: Slots, rng: random.Random) -> None:
        self.retry = retry
        self._transport = transport
        self._clock = clock
        self._slots = slots
        self._rng = rng
        self._budget = RetryBudget()  # the only mutable state: one allowance for the whole session

    async def submit(self, request: SfxRequest) -> TaskUpdate:
        """Submit a request, once, or again where that is certainly safe.

        Returns:
            What the service said: with a task id, or with the result, or both.

        Raises:
            SubmitNotSentError: The service could not be reached.
            SubmitUnknownError: The request may have been accepted.
            AuthenticationError: The key was refused.
            InsufficientCreditsError: There are no credits.
            RequestRejectedError: The service refused the request.
            RateLimitError: The service still says 429 after all attempts.
        """
        body = encode_request(request)
        attempt = 1
        while True:
            reply = await self._call(self._transport.post(SUBMIT_PATH, body))
            outcome = reply if isinstance(reply, Trouble) else _read_accepted(reply, request)
            if isinstance(outcome, TaskUpdate):
                self._budget.earn()
                return outcome
            decision = policy.decide(Call.SUBMIT, outcome.symptom, self.retry)
            await self._wait_or_raise(attempt, outcome, decision, request)
            attempt += 1

    async def _wait_or_raise(self, attempt: int, trouble: Trouble, decision: Decision, request: SfxRequest) -> None:
        if decision.verdict is Verdict.STOP:
            raise trouble.error(decision.error, request=request)
        wait = policy.wait_before_retry(attempt, self.retry, self._rng.random(), trouble.retry_after)
        if decision.verdict is Verdict.SLOW_DOWN:
            self._slots.slow_down(max(REDUCED_FOR, wait))
        if attempt >= self.retry.attempts or not self._budget.spend():
            raise trouble.error(decision.error, request=request)
        log.info("submission not accepted (%s); attempt %d in %.2f s", trouble.what, attempt + 1, wait)
        await self._clock.sleep(wait)

    async def ask(self, task_id: str) -> TaskUpdate | Trouble:
        """Ask once how a task is doing. What goes wrong is a value: the poller decides."""
        answer = await self._call(self._transport.get(task_path(task_id)))
        if isinstance(answer, Trouble):
            return answer
        try:
            return decode_update(answer.body)
        except UnreadableReplyError as error:
            return _unreadable(answer, str(error))

    async def _call(self, reply: Awaitable[Reply]) -> Reply | Trouble:
        """Return a 2xx reply, or what went wrong."""
        try:
            answer = await reply
        except CertificateError as error:
            return Trouble(symptom=Symptom.CERTIFICATE, what=f"The service was not reached: {error}")
        except NotSentError as error:
            return Trouble(symptom=Symptom.NOT_SENT, what=f"The service was not reached: {error}")
        except TransportError as error:
            return Trouble(symptom=Symptom.LOST, what=f"No answer came back: {error}")
        shown = self._transport.conceal(answer.body)
        if shown != answer.body and not _has_links(answer.body):
            answer = answer._replace(body=shown)  # errors keep bodies; a result stays as it is, for its links
        symptom = policy.symptom_of(answer.status)
        if symptom is None:
            return answer
        code, words = decode_refusal(answer.body)
        return Trouble(
            symptom=symptom,
            what=f"The service answered {answer.status}: {words}",
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


def _unreadable(reply: Reply, what: str) -> Trouble:
    return Trouble(
        symptom=Symptom.UNREADABLE,
        what=f"The service answered {reply.status} with {what}",
        status=reply.status,
        body=body_text(reply.body),
    )


def _read_accepted(reply: Reply, request: SfxRequest) -> TaskUpdate | Trouble:
    """Read the answer to a submission: a 2xx reply is an acceptance only if an id or a link is in it.

    Raises:
        RequestRejectedError: It is a refusal in the clothes of a success.
        SubmitUnknownError: It was accepted under an id that cannot be asked for; the error keeps the id.
    """
    try:
        update = decode_update(reply.body)
    except UnreadableReplyError as error:
        return _unreadable(reply, str(error))
    if update.task_id is not None:
        try:
            check_task_id(update.task_id)
        except InvalidRequestError as error:
            trouble = _unreadable(reply, f"an id that cannot be used. {error.message[:-1]}")
            raise trouble.error(SubmitUnknownError, task_id=error.task_id, request=request) from None
    elif update.status is TaskStatus.FAILED:
        words = update.reason or (f"code {update.code}" if update.code else "the request failed")
        trouble = attrs.evolve(_unreadable(reply, f"a failure: {words}"), code=update.code)
        raise trouble.error(RequestRejectedError, request=request)
    elif not update.urls:
        return _unreadable(reply, "neither a task id nor a link")
    return update
