"""A pytest fixture for programs that use this library: the service, emulated, for one test.

pytest loads this module in every run, so it imports nothing heavy before the fixture is used.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from finevoice_async.emulator import Emulator

try:
    from pytest_asyncio import fixture as async_fixture
except ImportError:  # the anyio plugin runs async fixtures of plain pytest, too
    async_fixture: Callable[..., Any] = pytest.fixture  # type: ignore[no-redef]  # the same in its place


@async_fixture
async def finevoice_emulator(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Emulator]:
    """An emulated service that `FineVoiceSession()` finds by itself; its effects take 50 ms."""
    from finevoice_async.emulator import Emulator, LogNormal

    async with Emulator(service_time=LogNormal(median=0.05, scaled=False)) as emulator:
        monkeypatch.setenv("FINEVOICE_BASE_URL", emulator.url)
        monkeypatch.setenv("FINEVOICE_API_KEY", emulator.api_key)
        yield emulator
