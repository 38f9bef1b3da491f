"""`finevoice resume`: what an interrupted run left is picked up and saved."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from commands import PATIENCE, served, start

from finevoice_async import FineVoiceSession, SubmitUnknownError
from finevoice_async.cli import exits


@pytest.fixture
def journal(commands: Any) -> str:
    """A journal with a result that nobody saved, a task that runs, and a submission that is perhaps paid."""

    async def leave() -> None:
        async with FineVoiceSession("k", base_url=commands.emulator.url, journal="j.db") as session:
            await session.generate("done [bold]", key="a", duration=1)
            await session.submit("running", duration=1)
            commands.emulator.inject("submit.lose_reply")
            with pytest.raises(SubmitUnknownError):
                await session.submit("unknown")

    commands.do(leave())
    return "j.db"


def test_resume(commands: Any, journal: str, tmp_path: Path) -> None:
    """What was left is saved; what is perhaps paid is named, and the exit code says so."""
    result = commands("resume", journal, "--out", "out")
    assert result.exit_code == exits.UNKNOWN, result.output
    assert "2 saved, 0 failed, 1 unknown" in result.stderr
    assert {tmp_path / line for line in result.stdout.splitlines()} == set((tmp_path / "out").glob("*.wav"))
    assert len(commands.emulator.ledger.accepted) == 3


def test_as_json(commands: Any, journal: str) -> None:
    """With --json each effect is an object, and so is the sum."""
    *effects, total = map(json.loads, commands("resume", journal, "--out", "out", "--json").stdout.splitlines())
    assert total == {"saved": 2, "failed": 0, "not_saved": 0, "unknown": 1}
    assert sorted(effect["error"] or "" for effect in effects) == ["", "", "SubmitUnknownError"]
    assert all(Path(effect["path"]).exists() for effect in effects if effect["path"])


def test_goes_on_after_a_failed_download(commands: Any, journal: str, tmp_path: Path) -> None:
    """A result that cannot be fetched is told; the other is saved; the next run fetches the first one, too."""
    commands("journal", journal, "--discard", "3")
    commands.emulator.inject("download.error_500", times=4)
    result = commands("resume", journal, "--out", "out")
    assert result.exit_code == exits.NOT_SAVED
    assert "1 saved, 0 failed, 0 unknown, 1 not saved" in result.stderr
    assert len(list((tmp_path / "out").glob("*.wav"))) == 1
    again = commands("resume", journal, "--out", "out")
    assert again.exit_code == 0
    assert len(list((tmp_path / "out").glob("*.wav"))) == 2


def test_without_a_place(commands: Any, journal: str, tmp_path: Path) -> None:
    """A folder that cannot be made is told before anything is sent."""
    (tmp_path / "file").write_text("")
    posts, polls = commands.emulator.ledger.posts, commands.emulator.ledger.polls
    result = commands("resume", journal, "--out", "file/out")
    assert result.exit_code == exits.WRONG_USE
    assert (commands.emulator.ledger.posts, commands.emulator.ledger.polls) == (posts, polls)


def test_a_reader_that_goes_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If nobody reads the names any more, such as after `| head -1`, all that is paid for is saved all the same."""
    with served(service_time=0.01) as service:
        monkeypatch.setenv("FINEVOICE_API_KEY", "k")
        monkeypatch.setenv("FINEVOICE_BASE_URL", service.emulator.url)

        async def leave() -> None:
            async with FineVoiceSession(journal="j.db") as session:
                await asyncio.gather(*[session.generate(f"rain {number}", duration=1) for number in range(3)])

        with asyncio.Runner() as runner:
            runner.run(leave())
        process = start("resume", "j.db", "--out", "out")
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        told = process.stderr.read()
        process.stderr.close()
        assert process.wait(PATIENCE) == 0
    assert told == "3 saved, 0 failed, 0 unknown\n"
    assert len(list((tmp_path / "out").glob("*.wav"))) == 3
