"""The pytest fixtures of `finevoice_async`: the service, emulated, for one test, and a session with it.

pytest loads this module at the start of every run, so it imports nothing more before a fixture is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from finevoice_async import FineVoiceSession
    from finevoice_async.testing import EmulatedService


@pytest.fixture
def finevoice_emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmulatedService]:
    """FineVoice on this machine, in a thread of its own: no key, no cost, and effects that take 50 ms.

    `FineVoiceSession()` finds it by itself; `finevoice_emulator.session()` makes one that is fast.
    """
    from finevoice_async.testing import make_service

    with make_service() as service:
        monkeypatch.setenv("FINEVOICE_BASE_URL", service.url)
        monkeypatch.setenv("FINEVOICE_API_KEY", service.api_key)
        yield service


@pytest.fixture
def finevoice_session(finevoice_emulator: EmulatedService) -> FineVoiceSession:
    """A fast session with the emulated service, not opened yet: `async with finevoice_session:`.

    A session belongs to the event loop that opens it, and has to be closed there. Only the test knows that loop.
    """
    return finevoice_emulator.session()
