"""What a session in a fleet is given, and what it says where that cannot work."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from finevoice_async import ConfigurationError, FineVoiceSession, Fleet
from finevoice_async.adapters.local_slots import LocalSlots
from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.testing import make_service

URL = "postgresql://finevoice:secret@127.0.0.1:1/effects"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fleet": Fleet()}, "fleet needs a journal in PostgreSQL"),
        ({"fleet": Fleet(), "journal": "effects.db"}, "fleet needs a journal in PostgreSQL"),
        ({"fleet": {"beat": 1}, "journal": URL}, "fleet must be a Fleet"),
        ({"slots": LocalSlots(1, LoopClock()), "journal": URL}, "slots cannot be given"),
        ({"max_concurrency": 0, "journal": URL}, "max_concurrency"),
        ({"api_key": " ", "journal": URL}, "API key"),
    ],
)
def test_options_that_cannot_work(options: dict[str, Any], words: str) -> None:
    """Each is refused as the session is made, without the password of the database."""
    with pytest.raises(ConfigurationError, match=words) as caught:
        FineVoiceSession(**{"api_key": "key", **options})
    assert "secret" not in str(caught.value)


async def test_a_fleet_needs_a_database() -> None:
    """What asks about a fleet says how to have one."""
    with make_service() as service:
        async with service.session() as session:
            with pytest.raises(ConfigurationError, match="postgresql://"):
                await session.fleet()


BLOCKED = """
import sys
sys.modules["psycopg"] = None  # as where it is not installed
from finevoice_async import ConfigurationError, FineVoiceSession
FineVoiceSession("key", journal="effects.db")
try:
    FineVoiceSession("key", journal="postgresql://finevoice:secret@127.0.0.1/effects")
except ConfigurationError as error:
    print(error)
"""


def test_without_psycopg() -> None:
    """A session with a file does without; one with a database says what to install."""
    ran = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True, check=True)
    assert "pip install 'finevoice-async[postgres]'" in ran.stdout
    assert "secret" not in ran.stdout


def test_who_has_no_fleet_loads_no_driver() -> None:
    """Psycopg is imported for the URL of a database alone."""
    code = "import sys; from finevoice_async import FineVoiceSession; FineVoiceSession('k', journal='e.db'); "
    ran = subprocess.run(
        [sys.executable, "-c", code + "print('psycopg' in sys.modules)"], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "False"
