"""What a session is asked for one effect: to keep the wish, to submit it, to make it."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack, overload

from finevoice_async.core.fields import BesideRequest, WithPrompt, WithSource
from finevoice_async.core.ledger import check_key
from finevoice_async.core.requests import OneRequest, as_request
from finevoice_async.effect import SoundEffect
from finevoice_async.engine.caller import until_kept, until_known
from finevoice_async.engine.records import Submission, TaskRecord
from finevoice_async.engine.registry import FoundRow
from finevoice_async.task import SfxTask

if TYPE_CHECKING:  # imported when a session is made
    from finevoice_async.wiring import Wiring


class Wishes(ABC):
    """The calls for one effect. A session opens the parts and makes the handles.

    Each call has three forms, so that a checker knows what has to be given: beside a request or a prompt its other
    fields, the prompt by its name, or a source without a prompt.
    """

    _parts: Wiring

    @abstractmethod
    async def _open(self) -> None:
        """Open the session, if it is not open."""

    @abstractmethod
    def _task_of(self, source: TaskRecord | Submission | FoundRow) -> SfxTask:
        """Return a handle."""

    @overload
    async def enqueue(self, request: OneRequest, **call: Unpack[BesideRequest]) -> SfxTask: ...
    @overload
    async def enqueue(self, **call: Unpack[WithPrompt]) -> SfxTask: ...
    @overload
    async def enqueue(self, **call: Unpack[WithSource]) -> SfxTask: ...
    async def enqueue(
        self,
        request: OneRequest | None = None,
        *,
        key: str | None = None,
        owner: str | None = None,
        retry_failed: bool = False,
        **fields: Any,
    ) -> SfxTask:
        """Keep the wish for an effect, and return at once: with a journal, once it is on disk.

        It is submitted when its turn comes, whether anybody awaits it or not; `find` finds it by its key. What comes
        of the submission is told by the task, whatever it is: a spent budget, too, is no error of this call.

        What this session cannot send stays queued in the journal, unless the service refuses it itself: what waits as
        the session closes, or beyond the budget, or for a service that is away or full for `Retry.patience` seconds,
        or while the key is refused. Whoever awaits it then hears why. Awaited again it is tried again, and `recover`
        of a later session sends it. Without a journal it has failed: nothing was sent.

        Args:
            request: A prompt, a request, or a dict of its fields.
            key: Your own name for the effect; left out, one is made. Another call with it gives the same effect: with
                a journal for ever, without one as long as the session lives.
            owner: On whose behalf: effects that wait for a slot take turns by owner.
            retry_failed: If the key's effect failed at the service, pay for another try: for one, and if that comes
                to nothing, the effect has failed as before.
            fields: The other fields of `SfxRequest`.

        Raises:
            QueueFullError: `max_queue` effects wait already.
            JournalError: The wish could not be kept; nothing was sent.
            SubmitUnknownError: An earlier submission of the key may have been paid for.
            FineVoiceError: The session is closed, the poller died, or the key belongs to another request.
        """
        wanted, name, whose = as_request(request, fields), check_key(key), check_key(owner, "owner")
        await self._open()
        submitter = self._parts.submitter
        take_in = partial(
            submitter.submit,
            wanted,
            name or uuid.uuid4().hex,
            owner=whose,
            retry_failed=retry_failed,
            made_key=name is None,
        )
        return self._task_of(await until_kept(submitter, take_in))

    @overload
    async def submit(self, request: OneRequest, **call: Unpack[BesideRequest]) -> SfxTask: ...
    @overload
    async def submit(self, **call: Unpack[WithPrompt]) -> SfxTask: ...
    @overload
    async def submit(self, **call: Unpack[WithSource]) -> SfxTask: ...
    async def submit(
        self,
        request: OneRequest | None = None,
        *,
        key: str | None = None,
        owner: str | None = None,
        retry_failed: bool = False,
        **fields: Any,
    ) -> SfxTask:
        """Take a slot, submit, and return once the task id is known.

        Cancelled before its POST, nothing is sent, unless others wait for the same key. Cancelled while the POST is
        under way, the POST goes on and its id is kept: see `tasks` and the journal.

        Args:
            request: A prompt, a request, or a dict of its fields.
            key: Your own name for the effect: another call with it gives the first one's task. With a journal it
                holds for ever, without one as long as the session lives.
            owner: On whose behalf: effects that wait for a slot take turns by owner.
            retry_failed: If the key's effect failed at the service, pay for another try.
            fields: The other fields of `SfxRequest`.

        Raises:
            InvalidRequestError: A field breaks its rule, or the key belongs to another request.
            QueueFullError: `max_queue` effects wait already.
            BudgetExceededError: The session's budget is spent; nothing was sent.
            SubmitNotSentError: The service could not be reached, or the effect was withdrawn; not paid.
            SubmitUnknownError: It may have been accepted and paid for.
            AuthenticationError: The key is refused.
            InsufficientCreditsError: There are no credits.
            RequestRejectedError: The service refuses this request.
            RateLimitError: The service says 429 after all patience.
            PollError: The poller died, so that nobody would see the task end.
            JournalError: The journal failed; with a task id, after the submission.
            SessionClosedError: The session is closed.
            ConfigurationError: The session belongs to another loop or process.
        """
        wanted, name, whose = as_request(request, fields), check_key(key), check_key(owner, "owner")
        await self._open()
        submitter = self._parts.submitter
        take_in = partial(submitter.submit, wanted, name, owner=whose, retry_failed=retry_failed)
        return self._task_of(await until_known(submitter, take_in, wanted, name))

    @overload
    async def generate(self, request: OneRequest, **call: Unpack[BesideRequest]) -> SoundEffect: ...
    @overload
    async def generate(self, **call: Unpack[WithPrompt]) -> SoundEffect: ...
    @overload
    async def generate(self, **call: Unpack[WithSource]) -> SoundEffect: ...
    async def generate(
        self,
        request: OneRequest | None = None,
        *,
        key: str | None = None,
        owner: str | None = None,
        retry_failed: bool = False,
        **fields: Any,
    ) -> SoundEffect:
        """Submit and wait for the effect. The arguments are those of `submit`.

        Raises:
            FineVoiceError: As for `submit` and `SfxTask.wait`.
        """
        call: dict[str, Any] = {"request": request, "key": key, "owner": owner, "retry_failed": retry_failed}
        return await (await self.submit(**call, **fields))
