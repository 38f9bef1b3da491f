"""Errors as a readable line and an exit code."""

from __future__ import annotations

import builtins
import re
import sys

from finevoice_async import errors
from finevoice_async.cli.talk import UnwrittenError, plain, without_passwords

OTHER, WRONG_USE, NOT_DONE, UNKNOWN, NOT_SAVED, JOURNAL, FROZEN, INTERRUPTED = 1, 2, 4, 5, 6, 7, 8, 130

EPILOG = "\n".join(
    [
        "\b",  # as it stands, please
        "Exit codes:",
        "  0    done",
        "  1    another failure",
        "  2    wrong use, or no place for the result: nothing was sent",
        "  3    refused by the service: key, credits, request, too many requests",
        "  4    not reached, failed or not done in time; ids are shown",
        "  5    unknown and perhaps paid",
        "  6    made, but not fetched or not saved; the id is shown",
        "  7    the journal failed",
        "  8    frozen, and something would have been paid for",
        "  130  Ctrl-C",
        "  143  SIGTERM",
    ]
)
"""What each help ends with: what the exit codes mean is said here, and nowhere else."""


class OutputError(errors.ConfigurationError):
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
            errors.BudgetExceededError,
        ),
        NOT_DONE,
    ),
    ((errors.SubmitUnknownError,), UNKNOWN),
    ((errors.DownloadError,), NOT_SAVED),
    ((errors.JournalError,), JOURNAL),
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
    ("await it again, or attach(task_id) in another session", "`finevoice fetch` waits on"),
    ("attach(task_id) in another session", "`finevoice fetch`"),
    ("attach(task_id) in a new session", "`finevoice fetch` gets it"),
    ("attach(task_id)", "`finevoice fetch`"),
    ("Lower max_concurrency to what your plan allows, or try later.", "Try later, or with fewer at once."),
)
"""How the command spells what a program of the library would call."""


_UNSENT = re.compile(r"Nothing was sent(?: and nothing paid)?(?=[.;])")
_CLASS = re.compile(r"\b([A-Z]\w+)(: )?")
_KNOWN = {
    "ServerDisconnectedError": "the server closed the connection",
    "TimeoutError": "no answer in time",
    "ConnectionTimeoutError": "no connection in time",
    "ServerTimeoutError": "no answer in time",
    "SocketTimeoutError": "no answer in time",
    "ClientPayloadError": "the reply broke off",
}


def _without_class(match: re.Match[str]) -> str:
    """Return what the name of an error's class says to people; it is left out before the error's own words."""
    name, colon = match.groups()
    kind = getattr(builtins, name, None) or getattr(sys.modules.get("aiohttp"), name, None)
    if not (isinstance(kind, type) and issubclass(kind, BaseException)):
        return match[0]
    if colon and name not in _KNOWN:
        return ""
    return _KNOWN.get(name, re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()) + (colon or "")


def without_classes(text: str) -> str:
    """Return a text in which what aiohttp and Python call their errors is said in words."""
    return _CLASS.sub(_without_class, text)


def exit_code(error: BaseException) -> int:
    """Return the exit code of an error."""
    return next((code for kinds, code in _CODES if isinstance(error, kinds)), OTHER)


def words(error: BaseException, *, idle: str | None = None) -> str:
    """Return an error's words on one line, with options spelled as the command spells them.

    Args:
        error: The error.
        idle: What did not happen, if it is not that something was sent.
    """
    if isinstance(error, OSError):
        what = error.strerror or "the system refused it"
        if isinstance(error, UnwrittenError):
            what = f"standard output cannot be written: {what}"
        return without_passwords(plain(f"{what}." if error.filename is None else f"{error.filename}: {what}."))
    text = without_classes(plain(str(error)) or "it failed without a word")
    for python, typed in _SPELLINGS:
        text = text.replace(python, typed)
    if idle is not None:
        text = _UNSENT.sub(idle, text)
    text = without_passwords(text)
    task_id = getattr(error, "task_id", None)
    return text if task_id is None or task_id in text else f"{text} (task {plain(task_id)})"
