"""What errors carry: attributes, whether it was paid, and words for the person who asked."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable
from typing import Any

import pytest

from finevoice_async import (
    AuthenticationError,
    BudgetExceededError,
    ConfigurationError,
    DownloadError,
    FineVoiceError,
    InsufficientCreditsError,
    InvalidRequestError,
    JournalError,
    ManifestError,
    PollError,
    QueueFullError,
    RateLimitError,
    RequestRejectedError,
    SessionClosedError,
    SfxRequest,
    SubmitNotSentError,
    SubmitUnknownError,
    TaskFailedError,
    TaskNotFoundError,
    TaskTimeoutError,
)
from finevoice_async.core.failures import ADVICE, advised, without_advice

PAID: dict[type[FineVoiceError], tuple[bool | None, bool | None]] = {
    FineVoiceError: (None, True),
    InvalidRequestError: (False, False),
    ConfigurationError: (False, True),
    SubmitNotSentError: (False, False),
    SubmitUnknownError: (None, None),
    AuthenticationError: (False, True),
    InsufficientCreditsError: (False, False),
    RequestRejectedError: (False, False),
    RateLimitError: (False, False),
    TaskFailedError: (True, True),
    TaskTimeoutError: (True, True),
    TaskNotFoundError: (None, None),
    PollError: (False, True),
    DownloadError: (True, True),
    JournalError: (None, True),
    SessionClosedError: (False, True),
    QueueFullError: (False, False),
    BudgetExceededError: (False, False),
    ManifestError: (False, False),
}
"""Whether an effect is paid for, by the error's class, without and with a task id."""

FIELDS: dict[str, Any] = {
    "task_id": "t",
    "key": "scene 3",
    "request": SfxRequest("x"),
    "status": 503,
    "code": "0007",
    "body": "{}",
    "request_id": "r-1",
    "retry_after": 2.5,
}

DEVELOPERS_WORDS = re.compile(
    r"\b(tasks?|ids?|sessions?|polls?|journal|http|api|keys?|timeout|exception|error|attach|submit\w*|request\w*|row|null"
    r"|None|server|client|network|connection|socket|status|\d+)\b",
    re.IGNORECASE,
)


@pytest.mark.parametrize("kind", PAID)
def test_whether_it_is_paid(kind: type[FineVoiceError]) -> None:
    """Each class says what is known, also by whether there is a task id."""
    assert (kind("x").paid, kind("x", task_id="t").paid) == PAID[kind]


def test_every_class_says_whether_it_is_paid() -> None:
    """No class was forgotten."""

    def below(kind: type[FineVoiceError]) -> set[type[FineVoiceError]]:
        return {kind}.union(*map(below, kind.__subclasses__()))

    assert {kind for kind in below(FineVoiceError) if kind.__module__ == "finevoice_async.errors"} == set(PAID)


@pytest.mark.parametrize("paid", [True, False, None])
@pytest.mark.parametrize("kind", PAID)
def test_words_for_the_person_who_asked(kind: type[FineVoiceError], paid: bool | None) -> None:
    """One sentence, without what only a developer knows; nobody is asked to pay again."""
    error = kind("Task p1-x: HTTP 500.", **FIELDS)
    error.paid = paid
    words = error.user_message
    assert re.fullmatch(r"[A-Z][^.!?]+[.]", words)
    assert not DEVELOPERS_WORDS.search(words)
    assert kind.__name__ not in words
    if paid is not False:
        assert "again" not in words


@pytest.mark.parametrize("kind", PAID)
@pytest.mark.parametrize(
    "twin_of",
    [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))],
    ids=["copy", "deep", "pickle"],
)
def test_twins(kind: type[FineVoiceError], twin_of: Callable[[FineVoiceError], FineVoiceError]) -> None:
    """Copies and pickles keep every attribute, what was set later and notes, too; a note on one is on one."""
    error = kind("late", **FIELDS)
    error.paid = None
    error.add_words("Look.")
    error.add_note("noted")
    twin = twin_of(error)
    assert vars(twin) == vars(error)
    assert type(twin) is kind
    assert str(twin) == str(error) == error.message == "late Look."
    twin.add_note("on the twin")
    assert error.__notes__ == ["noted"]


def test_a_copy_keeps_the_cause() -> None:
    """Each waiter raises a copy of its own, which still says why."""
    error = PollError("x")
    error.__cause__ = ValueError("y")
    assert copy.copy(error).__cause__ is error.__cause__


@pytest.mark.parametrize("kind", ADVICE)
@pytest.mark.parametrize("words", ["It went wrong", "It went wrong.", "Went it wrong?", "It went wrong. "])
def test_advice_follows_a_sentence(kind: type[FineVoiceError], words: str) -> None:
    """Whether the service ended its words or not, a sentence ends once; and the advice can be taken off again."""
    message = advised(words, kind)
    assert message.endswith(ADVICE[kind])
    assert ".." not in message
    assert "?." not in message
    assert without_advice(message) == (words.rstrip() if words.rstrip()[-1] in ".?" else f"{words}.")
