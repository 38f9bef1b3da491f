"""Sessions with a raw server, and the checks that every fault must pass."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import pytest

from finevoice_async import FineVoiceSession, Polling, Retry, Timeouts

KEY = "key-that-nobody-may-see"


@pytest.fixture
def key() -> str:
    """The key that nobody may see."""
    return KEY


@pytest.fixture
def visit(no_leaks: object, caplog: pytest.LogCaptureFixture) -> Callable[..., FineVoiceSession]:
    """Make a session with a server, patient for short times only."""
    caplog.set_level("DEBUG")

    def make(url: str, **options: Any) -> FineVoiceSession:
        defaults: dict[str, Any] = {
            "polling": Polling.fixed(2.0, grace=10),
            "timeouts": Timeouts(read=5, connect=5, task=120, close=3),
            "retry": Retry(),
        }
        return FineVoiceSession(KEY, base_url=url, **(defaults | options))

    return make


@pytest.fixture
def unseen(caplog: pytest.LogCaptureFixture) -> Callable[..., None]:
    """Check that the key is in no repr, log line, message or traceback."""

    def check(*things: object) -> None:
        seen = [caplog.text]
        for thing in things:
            seen.append(repr(thing))
            if isinstance(thing, BaseException):
                seen += traceback.TracebackException.from_exception(thing, capture_locals=False).format()
                error: BaseException | None = thing
                while error is not None:
                    seen += [str(error), repr(vars(error))]
                    error = error.__cause__ or error.__context__
        assert KEY not in "".join(seen)

    return check
