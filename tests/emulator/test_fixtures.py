"""The pytest fixtures: how fast they are, and what sessions made from them give up."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from finevoice_async import (
    AuthenticationError,
    FineVoiceSession,
    Polling,
    RequestRejectedError,
    SubmitUnknownError,
    TaskFailedError,
    TaskNotFoundError,
)
from finevoice_async.testing import make_service

if TYPE_CHECKING:
    from finevoice_async.testing import EmulatedService


async def _generate(session: FineVoiceSession) -> bytes:
    async with session:
        return await (await session.generate("rain")).read()


def test_an_effect_is_fast(finevoice_emulator: EmulatedService) -> None:
    """An effect of 50 ms, from the opening of its session to the closing, with its audio, takes under 150 ms."""
    took: list[float] = []
    while len(took) < 20 and min(took, default=1) >= 0.15:  # the best counts: the machine has other work
        began = time.perf_counter()
        assert asyncio.run(_generate(finevoice_emulator.session()))[:4] == b"RIFF"
        took.append(time.perf_counter() - began)
    assert min(took) < 0.15
    assert finevoice_emulator.ledger.service_times == [0.05] * len(took)
    assert finevoice_emulator.ledger.fetched == len(took)


def test_a_submission_that_hangs(finevoice_emulator: EmulatedService) -> None:
    """It is told within a second."""
    finevoice_emulator.inject("submit.hang")
    began = time.perf_counter()
    with pytest.raises(SubmitUnknownError):
        asyncio.run(_generate(finevoice_emulator.session()))
    assert time.perf_counter() - began < 1
    assert len(finevoice_emulator.ledger.accepted) == 1


def test_other_faults_end_soon(finevoice_emulator: EmulatedService) -> None:
    """Failures, lost tasks, cut downloads and a slow poll cost no waiting for anybody."""
    began = time.perf_counter()
    finevoice_emulator.inject("poll.hang")
    finevoice_emulator.inject("download.cut", 2)
    asyncio.run(_generate(finevoice_emulator.session()))
    for fault, error in (("task.fail", TaskFailedError), ("submit.reject", RequestRejectedError)):
        finevoice_emulator.inject(fault)  # type: ignore[arg-type]  # mypy takes the name of a tuple as any text
        with pytest.raises(error):
            asyncio.run(_generate(finevoice_emulator.session()))
    finevoice_emulator.inject("poll.not_found", 1000)
    with pytest.raises(TaskNotFoundError):
        asyncio.run(_generate(finevoice_emulator.session()))
    assert time.perf_counter() - began < 3


def test_options_come_first(finevoice_emulator: EmulatedService, tmp_path: Path) -> None:
    """What is given to `session` holds, also in place of the key and the limits."""
    with pytest.raises(AuthenticationError):
        asyncio.run(_generate(finevoice_emulator.session(api_key="wrong")))
    slow = finevoice_emulator.session(polling=Polling.fixed(0.2), journal=tmp_path / "effects.db")
    asyncio.run(_generate(slow))
    (task,) = finevoice_emulator.ledger.accepted.values()
    assert task.polls == 1
    assert (tmp_path / "effects.db").exists()


def test_two_runs_share_a_journal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A journal of an earlier run stays as it is: the ids of the next run are others."""
    for key in ("first", "second"):
        with make_service() as service:
            session = service.session(journal=tmp_path / "effects.db")

            async def job(session: FineVoiceSession = session, key: str = key) -> list[str | None]:
                async with session:
                    await session.generate("rain", key=key)
                    return [row.task_id async for row in session.rows()]

            ids = asyncio.run(job())
    assert len(set(ids)) == 2
    assert not caplog.records


def test_the_environment_leads_to_it(finevoice_emulator: EmulatedService) -> None:
    """A session without arguments finds the emulated service."""

    async def job() -> None:
        async with FineVoiceSession(polling=Polling.fixed(0.05)) as session:
            await session.generate("rain")

    asyncio.run(job())
    assert len(finevoice_emulator.ledger.accepted) == 1


def test_a_session_that_is_not_opened(finevoice_session: FineVoiceSession) -> None:
    """It needs no closing."""
    assert "0 running" in repr(finevoice_session)


@pytest.mark.real_time
async def test_the_session(finevoice_session: FineVoiceSession, finevoice_emulator: EmulatedService) -> None:
    """It is opened and closed by the test, in the test's event loop."""
    assert await _generate(finevoice_session)
    assert finevoice_emulator.ledger.fetched == 1


@pytest.mark.uvloop
async def test_the_session_on_uvloop(finevoice_session: FineVoiceSession, finevoice_emulator: EmulatedService) -> None:
    """The test's event loop may be another than the emulator's."""
    assert await _generate(finevoice_session)
    assert finevoice_emulator.ledger.fetched == 1
