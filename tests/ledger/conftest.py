"""A journal's file, and sessions with raw servers."""

from __future__ import annotations

from typing import Any

import pytest
from ledger.helpers import Visit

from finevoice_async import FineVoiceSession, Polling, Timeouts


@pytest.fixture
def visit(no_leaks: object) -> Visit:
    """Make a session with a server, which asks every 2 s and bears 404s for 10 s."""

    def make(url: str, **options: Any) -> FineVoiceSession:
        defaults: dict[str, Any] = {
            "polling": Polling.fixed(2.0, grace=10),
            "timeouts": Timeouts(read=5, connect=5, task=300, close=3),
        }
        return FineVoiceSession("a-key-for-tests", base_url=url, **(defaults | options))

    return make
