"""Errors as a readable line and an exit code.

| code | meaning |
|---|---|
| 0 | done |
| 1 | something failed that has no code of its own |
| 2 | the command line, the key, the address or a request is wrong; nothing was sent |
| 3 | the service refused: key, credits, request, or too many requests |
| 4 | not reached, too many wait, or the task failed or was not done in time; nothing is lost, ids are shown |
| 5 | unknown: the request may have been accepted and paid for |
| 6 | the result could not be fetched or saved; or there is no place for it, which is found before anything is sent |
| 7 | the journal failed |
| 8 | `--frozen`: something would have been paid for |
| 130 | interrupted with Ctrl-C |
| 143 | terminated (SIGTERM) |
"""

from __future__ import annotations

from finevoice_async import errors
from finevoice_async.cli.talk import plain

OTHER, WRONG_USE, NOT_DONE, UNKNOWN, NOT_SAVED, FROZEN, INTERRUPTED = 1, 2, 4, 5, 6, 8, 130

EPILOG = (
    "Exit codes: 0 done, 1 another failure, 2 wrong use (nothing was sent), 3 refused by the service, 4 not reached, "
    "failed or not done in time, 5 unknown and perhaps paid, 6 not fetched or not saved, 7 the journal failed, "
    "8 frozen and something would be paid for, 130 Ctrl-C, 143 SIGTERM."
)


class OutputError(errors.FineVoiceError):
    """There is no place for the result. Nothing was sent."""


_CODES: tuple[tuple[tuple[type[errors.FineVoiceError], ...], int], ...] = (
    ((errors.InvalidRequestError, errors.ConfigurationError, errors.ManifestError), WRONG_USE),
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
            errors.QueueFullError,
            errors.BudgetExceededError,
        ),
        NOT_DONE,
    ),
    ((errors.SubmitUnknownError,), UNKNOWN),
    ((errors.DownloadError, OutputError), NOT_SAVED),
    ((errors.JournalError,), 7),
)

WAIT_ON = (errors.TaskTimeoutError, errors.PollError, errors.DownloadError, errors.SessionClosedError)
"""After these the task's id still leads to the result."""

GO_ON = "Go on with: "


def command_to_go_on(error: BaseException) -> str | None:
    """Return the command line that an error was given as a note."""
    notes = (note.removeprefix(GO_ON) for note in getattr(error, "__notes__", ()) if note.startswith(GO_ON))
    return next(notes, None)


_SPELLINGS = (
    ("give overwrite=True", "give --overwrite"),
    ("overwrite=True", "--overwrite"),
    ("adopt(row, task_id=...)", "--adopt ROW=TASK"),
    ("resubmit(row, accept_double_charge=True)", "--resend ROW --accept-double-charge"),
    ("discard(row) settles", "--discard ROW of `finevoice journal` settles"),
    ("pass accept_double_charge=True", "give --accept-double-charge"),
    ("pass retry_failed=True", "give --retry-failed"),
    ("recover()", "`finevoice resume`"),
    ("attach(task_id) in another session", "`finevoice fetch`"),
    ("attach(task_id) in a new session", "`finevoice fetch` gets it"),
    ("attach(task_id)", "`finevoice fetch`"),
)
"""How the command spells what a program of the library would call."""


def exit_code(error: BaseException) -> int:
    """Return the exit code of an error."""
    return next((code for kinds, code in _CODES if isinstance(error, kinds)), OTHER)


def words(error: BaseException) -> str:
    """Return an error's words on one line, with options spelled as the command spells them."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return plain(f"{error.filename}: {error.strerror}.")
    text = plain(str(error)) or type(error).__name__
    for python, typed in _SPELLINGS:
        text = text.replace(python, typed)
    task_id = getattr(error, "task_id", None)
    return text if task_id is None or task_id in text else f"{text} (task {plain(task_id)})"
