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
    ├── RateLimitError                        429, after all patience
    ├── TaskFailedError                       the service says that the task failed
    ├── TaskTimeoutError (TimeoutError)       not ended in time; the wait can go on with ``session.attach(task_id)``
    ├── TaskNotFoundError                     the service does not know the task id
    ├── PollError                             the task's state could not be learned; the task may still run
    ├── DownloadError                         the result exists but could not be fetched or stored
    ├── JournalError                          the journal could not be opened, read or written
    └── SessionClosedError                    the session was closed meanwhile
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finevoice_async.core.requests import SfxRequest

MAX_BODY = 64 * 1024
"""Bytes of a reply that an error keeps, at most."""


class FineVoiceError(Exception):
    """The root of every error of this library.

    Attributes:
        message: What happened, what was kept, and what to do next.
        task_id: The id of the task concerned, once known: with it nothing that was paid for is lost.
        request: The request concerned.
        status: The HTTP status of the service's reply.
        code: The service's own error code.
        body: The reply's text, at most 64 KiB of it.
    """

    def __init__(
        self,
        message: str,
        *,
        task_id: str | None = None,
        request: SfxRequest | None = None,
        status: int | None = None,
        code: str | None = None,
        body: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.task_id = task_id
        self.request = request
        self.status = status
        self.code = code
        self.body = None if body is None else body[:MAX_BODY]

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
    return error


class InvalidRequestError(FineVoiceError, ValueError):
    """A request, or a task id, breaks a rule. Nothing was sent."""


class ConfigurationError(FineVoiceError):
    """A key, an address, an option or a way of use that cannot work. Nothing was sent."""


class SubmitNotSentError(FineVoiceError):
    """The service was not reached, so the request was certainly not paid for. It is safe to submit it again."""


class SubmitUnknownError(FineVoiceError):
    """The request may have been accepted and paid for, and its task id is not known.

    The library never sends such a request again by itself. Look at your account before you do.
    """


class BudgetExceededError(FineVoiceError):
    """As many submissions as the session's `Budget` allows have been made. Nothing was sent."""


class AuthenticationError(FineVoiceError):
    """The service refuses the key (401, 403)."""


class InsufficientCreditsError(FineVoiceError):
    """The account has no credits left (402)."""


class RequestRejectedError(FineVoiceError):
    """The service refuses this request (400, 404, 413, 422, or a failure without a task id). Nothing was paid."""


class RateLimitError(FineVoiceError):
    """The service still answers 429 after all attempts. Nothing was paid."""


class TaskFailedError(FineVoiceError):
    """The service says that the task failed."""


class TaskTimeoutError(FineVoiceError, TimeoutError):
    """The task did not end in time. It may still run: ``session.attach(error.task_id)`` waits on."""


class TaskNotFoundError(FineVoiceError):
    """The service does not know the task id, also after the grace period."""


class PollError(FineVoiceError):
    """The state of the task could not be learned. It may still run: ``session.attach(error.task_id)`` asks on."""


class DownloadError(FineVoiceError):
    """The result could not be fetched or stored. The task is paid for, and its id still leads to it."""


class JournalError(FineVoiceError):
    """The journal could not be opened, read or written."""


class SessionClosedError(FineVoiceError):
    """The session was closed. A task that was submitted runs on at the service; its id is on the error."""
