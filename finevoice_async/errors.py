"""Everything this library raises.

::

    FineVoiceError
    ├── InvalidRequestError (ValueError)      the request breaks a rule; nothing was sent
    ├── ConfigurationError                    a key, an address, an option or a use that cannot work; nothing was sent
    ├── SubmitNotSentError                    the service was never reached; certainly not paid for
    ├── SubmitUnknownError                    may have been accepted and paid for; never sent again by itself
    ├── BudgetExceededError                   the session's budget of submissions is spent; nothing was sent
    ├── AuthenticationError                   401, 403: the key is refused
    ├── InsufficientCreditsError              402
    ├── RequestRejectedError                  400, 404, 413, 422: the service refuses this request
    ├── QueueFullError                        too many effects wait for a slot already; nothing was sent
    ├── RateLimitError                        429, after all patience
    ├── TaskFailedError                       the service says that the task failed
    ├── TaskTimeoutError (TimeoutError)       not ended in time; the wait can go on with ``session.attach(task_id)``
    ├── TaskNotFoundError                     the service does not know the task id
    ├── PollError                             the task's state could not be learned; the task may still run
    ├── DownloadError                         the result exists but could not be fetched or stored
    ├── JournalError                          the journal could not be opened, read or written
    ├── ManifestError                         a batch's manifest, its lock or its folder has faults; nothing was sent
    └── SessionClosedError                    the session was closed meanwhile
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

if TYPE_CHECKING:
    from finevoice_async.core.requests import SfxRequest

MAX_BODY = 64 * 1024
"""Bytes of a reply that an error keeps, at most."""

_IN_DOUBT = (
    "It is not certain whether this sound was ordered and paid for; please have that checked before you ask for it "
    "once more."
)


class FineVoiceError(Exception):
    """The root of every error of this library.

    Attributes:
        message: What happened, what was kept, and what to do next: for the operator.
        user_message: The same in one sentence for the person who asked for the sound.
        task_id: The id of the task concerned, once known: with it nothing that was paid for is lost.
        key: The caller's own name for the effect, if it has one.
        request: The request concerned.
        status: The HTTP status of the service's reply.
        code: The service's own error code.
        body: The reply's text, at most 64 KiB of it.
        request_id: The service's name for the call, which its support may ask for.
        retry_after: Seconds that the service asks to wait.
        paid: Whether the effect is paid for; None if nobody knows.
    """

    _paid_without_id: ClassVar[bool | None] = None
    _paid_with_id: ClassVar[bool | None] = True
    _unpaid: ClassVar[str] = "Something went wrong inside the program, and your sound was not made."  # what users hear
    _paid: ClassVar[str] = "Your sound was ordered, but something went wrong inside the program."
    _taken_back: str = ""  # what users hear of an effect that its caller has taken back
    _doubtful: ClassVar[str] = _IN_DOUBT

    def __init__(
        self,
        message: str,
        *,
        task_id: str | None = None,
        key: str | None = None,
        request: SfxRequest | None = None,
        status: int | None = None,
        code: str | None = None,
        body: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message: str = message
        self.task_id = task_id
        self.key = key
        self.request = request
        self.status = status
        self.code = code
        self.body: str | None = None if body is None else body[:MAX_BODY]
        self.request_id = request_id
        self.retry_after = retry_after
        self.paid: bool | None = self._paid_without_id if task_id is None else self._paid_with_id

    @property
    def user_message(self) -> str:
        """What to say to the person who asked: one sentence, without ids and names of classes."""
        if self.paid is None:
            return self._doubtful
        return self._paid if self.paid else self._taken_back or self._unpaid

    def take_back(self) -> None:
        """Note that the effect was taken back before it was sent: that is what the person who asked is told."""
        self._taken_back = "The order was taken back before it was sent, so nothing was ordered."

    def add_words(self, words: str) -> None:
        """Append a sentence to the message."""
        self.message = f"{self.message} {words}"
        self.args = (self.message,)

    def __copy__(self) -> FineVoiceError:
        """Return a copy with every attribute and the cause: each waiter raises one of its own."""
        twin = _rebuild(type(self), self.message, self.__dict__)
        twin.__cause__ = self.__cause__
        return twin

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with every attribute."""
        return (_rebuild, (type(self), self.message, self.__dict__))


def _rebuild(cls: type[FineVoiceError], message: str, state: dict[str, Any]) -> FineVoiceError:
    error = cls(message)
    error.__dict__.update(state)
    if "__notes__" in state:
        error.__notes__ = list(state["__notes__"])  # else a note on the copy would be one on the original
    return error


class InvalidRequestError(FineVoiceError, ValueError):
    """A request, or a task id, breaks a rule. Nothing was sent."""

    _paid_without_id = _paid_with_id = False
    _unpaid = "That sound cannot be asked for like this, so nothing was ordered."


class ConfigurationError(FineVoiceError):
    """A key, an address, an option or a way of use that cannot work. Nothing was sent."""

    _paid_without_id = False
    _unpaid = "The program is not set up correctly, so your sound was not ordered."
    _paid = "Your sound was ordered, but the program is not set up to deliver it."


class SubmitNotSentError(FineVoiceError):
    """The service was not reached, so the request was certainly not paid for. It is safe to submit it again."""

    _paid_without_id = _paid_with_id = False
    _unpaid = "The sound service cannot be reached right now, so nothing was ordered; please try again a little later."


class SubmitUnknownError(FineVoiceError):
    """The request may have been accepted and paid for, and its task id is not known.

    The library never sends such a request again by itself. Look at your account before you do.
    """

    _paid_with_id = None


class BudgetExceededError(FineVoiceError):
    """As many submissions as the session's `Budget` allows have been made. Nothing was sent."""

    _paid_without_id = _paid_with_id = False
    _unpaid = "As many sounds were ordered as this program may order for now, so yours was not."


class AuthenticationError(FineVoiceError):
    """The service refuses the key (401, 403)."""

    _paid_without_id = False
    _unpaid = "The sound service does not let this program in, so nothing was ordered."
    _paid = "Your sound was ordered, but the sound service does not let this program in any more."


class InsufficientCreditsError(FineVoiceError):
    """The account has no credits left (402)."""

    _paid_without_id = _paid_with_id = False
    _unpaid = "The credits for making sounds are used up, so your sound was not ordered."


class RequestRejectedError(FineVoiceError):
    """The service refuses this request (400, 404, 413, 422, or a failure without a task id). Nothing was paid."""

    _paid_without_id = _paid_with_id = False
    _unpaid = "The sound service does not accept this description, so nothing was ordered; please change it."


class RateLimitError(FineVoiceError):
    """The service still answers 429 after all attempts. Nothing was paid."""

    _paid_without_id = _paid_with_id = False
    _unpaid = "The sound service is too busy right now, so nothing was ordered; please try again a little later."


class QueueFullError(FineVoiceError):
    """As many effects wait for a slot as `max_queue` allows. Nothing was sent; ask again when some were submitted."""

    _paid_without_id = _paid_with_id = False
    _unpaid = "So many sounds are waiting already that yours was not ordered; please try again a little later."


class TaskFailedError(FineVoiceError):
    """The service says that the task failed.

    What it accepted it bills; whether it gives back what a failed task cost is not documented.
    """

    _paid_without_id = True
    _paid = "The sound service could not make this sound."


class TaskTimeoutError(FineVoiceError, TimeoutError):
    """The task did not end in time. It may still run: ``session.attach(error.task_id)`` waits on."""

    _paid_without_id = True
    _paid = "Your sound takes longer than expected; it is still being made."


class TaskNotFoundError(FineVoiceError):
    """The service does not know the task id, also after the grace period. Whether it was paid for, nobody knows."""

    _paid_with_id = None
    _doubtful = "The sound service does not know this sound, so it is not certain whether it was made and paid for."


class PollError(FineVoiceError):
    """The state of the task could not be learned. It may still run: ``session.attach(error.task_id)`` asks on."""

    _paid_without_id = False
    _unpaid = "The program cannot follow new sounds right now, so nothing was ordered."
    _paid = "Your sound was ordered, but at the moment nobody can see how far it is."


class DownloadError(FineVoiceError):
    """The result could not be fetched or stored. The task is paid for, and its id still leads to it."""

    _paid_without_id = True
    _paid = "Your sound is ready, but it could not be delivered just now."


class JournalError(FineVoiceError):
    """The journal could not be opened, read or written."""

    _unpaid = "The program cannot keep its notes right now, so nothing was ordered."
    _paid = "Your sound was ordered, but the program could not keep a note of it."


@attrs.frozen
class ManifestFault:
    """One thing that is wrong with a batch.

    Attributes:
        file: The manifest, its lock, or the folder.
        line: The line in it, from 1; None if it is about the whole file.
        what: What is wrong.
    """

    file: str
    line: int | None
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}" if self.line is None else f"{self.file}:{self.line}: {self.what}"


class ManifestError(FineVoiceError):
    """A batch's manifest, its lock or its folder has faults. Nothing was sent.

    Attributes:
        faults: All of them, in the order of the file; of very many the first.
        left_out: How many more there are.
    """

    _paid_without_id = _paid_with_id = False
    _unpaid = "The list of sounds has mistakes in it, so nothing was ordered."

    def __init__(self, message: str, faults: Sequence[ManifestFault] = (), left_out: int = 0, **known: Any) -> None:
        super().__init__(message, **known)
        self.faults = tuple(faults)
        self.left_out = left_out


class SessionClosedError(FineVoiceError):
    """The session was closed. A task that was submitted runs on at the service; its id is on the error."""

    _paid_without_id = False
    _unpaid = "The program was stopped before your sound was ordered."
    _paid = "The program was stopped while your sound was being made; the sound is not lost."
