"""A journal is of one service: what an emulator has made is not taken for the real service's, nor the other way."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_journal import FakeJournal
from ledger.helpers import SUBMITTED, Connect, Left, leave, the_row

from finevoice_async import FineVoiceSession, JournalError
from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.adapters.sqlite_journal import SqliteJournal
from finevoice_async.emulator import Emulator

REAL = "https://apis.finevoice.ai"


def real(path: Path, base_url: str = REAL) -> FineVoiceSession:
    """Return a session with the real service, which asks for nothing by itself."""
    return FineVoiceSession("a-secret-key", base_url=base_url, journal=path)


async def test_an_emulators_journal_is_not_the_real_services(connect: Connect, emulator: Emulator, path: Path) -> None:
    """It is refused before anything is sent, by an error that says what to do; the file stays as it is."""
    async with connect(journal=path) as session:
        await session.submit("rain")
    before = await the_row(path)
    with pytest.raises(JournalError, match="effects of this machine, but the session is with https://apis") as caught:
        async with real(path):
            pass
    assert "a journal of its own" in caught.value.message
    assert "'origin'" in caught.value.message
    assert (caught.value.paid, "secret" in caught.value.message) == (False, False)
    assert await the_row(path) == before
    async with connect(journal=path) as session:
        assert len(session.tasks) == 1


async def test_the_real_services_journal_is_not_an_emulators(connect: Connect, emulator: Emulator, path: Path) -> None:
    """No task of the real service is asked for at an emulator, and then lost."""
    async with real(path):
        pass
    await leave(path, Left(SUBMITTED, "rain", task_id="p1-real"))
    session = connect(journal=path)
    for _ in range(2):  # also by whoever tries again
        with pytest.raises(JournalError, match="Give each a journal of its own"):
            await session.submit("rain")
    await session.aclose()
    assert (await the_row(path)).state is SUBMITTED
    assert not emulator.ledger.posts


async def test_emulators_share_a_journal(connect: Connect, path: Path, no_leaks: object) -> None:
    """An emulator listens on another port each time; its journal is the next one's."""
    for _ in range(2):
        async with (
            Emulator() as emulator,
            FineVoiceSession(emulator.api_key, base_url=emulator.url, journal=path) as session,
        ):
            await session.generate("rain", key="k")
    assert not emulator.ledger.posts


async def test_the_same_service_spelled_otherwise(path: Path, no_leaks: object) -> None:
    """A path, a port that is the scheme's own, and capitals make no other service; another port does."""
    for url in (REAL, f"{REAL}:443/v1/", "https://APIS.FineVoice.ai"):
        async with real(path, url):
            pass
    for url in ("https://apis.finevoice.ai:444", "http://apis.finevoice.ai", "https://finevoice.ai"):
        with pytest.raises(JournalError, match="another does not know"):
            async with real(path, url):
                pass


async def test_a_service_that_has_moved(path: Path, no_leaks: object) -> None:
    """Without its note, as the error says, a journal is of whoever opens it next."""
    async with real(path):
        pass
    journal = SqliteJournal(path, LoopClock())
    await journal.open()
    assert await journal.load("origin") == "https://apis.finevoice.ai:443"
    await journal.aclose()
    import sqlite3

    with sqlite3.connect(path) as db:
        db.execute("DELETE FROM notes WHERE name = 'origin'")
    db.close()
    async with real(path, "https://api.finevoice.ai"):
        pass
    with pytest.raises(JournalError):
        async with real(path):
            pass


async def test_a_journal_of_the_callers_own(no_leaks: object) -> None:
    """It keeps the origin as another note, and is closed by an opening that fails."""
    journal = FakeJournal()
    journal.notes["origin"] = "https://elsewhere.example:443"
    session = FineVoiceSession("a-key", base_url=REAL, journal=journal)
    with pytest.raises(JournalError, match="elsewhere"):
        async with session:
            pass
    assert not journal.is_open
