"""Errors as one readable line and an exit code.

| code | meaning |
|---|---|
| 0 | done |
| 1 | something failed that has no code of its own |
| 2 | the command line, the key, the address or a request is wrong; nothing was sent |
| 3 | the service refused: key, credits, request, or too many requests |
| 4 | not reached, too many wait, or the task failed or was not done in time; nothing is lost, ids are shown |
| 5 | unknown: the request may have been accepted and paid for |
| 6 | the result could not be fetched or saved |
| 7 | the journal failed |
| 130 | interrupted with Ctrl-C |
"""

from __future__ import annotations

from finevoice_async import errors

INTERRUPTED = 130

_CODES: tuple[tuple[tuple[type[errors.FineVoiceError], ...], int], ...] = (
    ((errors.InvalidRequestError, errors.ConfigurationError), 2),
    (
        (
            errors.AuthenticationError,
            errors.InsufficientCreditsError,
            errors.RequestRejectedError,
            errors.RateLimitError,
        ),
        3,
    ),
    (
        (
            errors.SubmitNotSentError,
            errors.QueueFullError,
            errors.TaskFailedError,
            errors.TaskTimeoutError,
            errors.TaskNotFoundError,
            errors.PollError,
            errors.SessionClosedError,
        ),
        4,
    ),
    ((errors.SubmitUnknownError,), 5),
    ((errors.DownloadError,), 6),
    ((errors.JournalError,), 7),
)


def exit_code(error: Exception) -> int:
    """Return the exit code of an error."""
    return next((code for kinds, code in _CODES if isinstance(error, kinds)), 1)
