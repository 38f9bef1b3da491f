"""Where a journal lies, one that is open, and how its file fails."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from journals import Faulty, opened, use

from finevoice_async.adapters.sqlite_journal import SqliteJournal


@pytest.fixture
async def journal(path: Path, no_leaks: object) -> AsyncIterator[SqliteJournal]:
    """An open journal."""
    journal = await opened(path)
    yield journal
    await journal.aclose()


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, int]]:
    """Faults to order."""
    use(monkeypatch, Faulty)
    monkeypatch.setattr(Faulty, "faults", {})
    return Faulty.faults
