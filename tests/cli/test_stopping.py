"""A batch that is asked to stop: once, twice, and by somebody who has waited long enough."""

from __future__ import annotations

import asyncio
import signal

import pytest

from finevoice_async.cli.stopping import Stopping


async def test_each_signal_does_more() -> None:
    """The first one asks, and is told once; the second cancels; the third drops everything."""
    told: list[str] = []
    stopping = Stopping(lambda: told.append("stopping"))
    cancelled, ended = asyncio.Event(), asyncio.Event()

    async def job() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            await ended.wait()  # as a submission that is under way
            raise

    running = asyncio.create_task(stopping.run(job()))
    await asyncio.sleep(1)
    stopping.on(signal.SIGTERM)
    await asyncio.sleep(1)
    assert (stopping.asked.is_set(), stopping.at_once, told) == (True, False, ["stopping"])
    assert not cancelled.is_set()
    stopping.on(signal.SIGINT)
    await asyncio.sleep(1)
    assert (stopping.at_once, told, running.done()) == (True, ["stopping"], False)
    assert cancelled.is_set()
    with pytest.raises(KeyboardInterrupt):
        stopping.on(signal.SIGINT)
    ended.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert stopping.code == 128 + signal.SIGTERM  # the first one is why it ended


async def test_a_job_that_was_asked_to_stop_has_its_result() -> None:
    """Asked once, a job ends in its own time, and what it returns is what is returned."""
    stopping = Stopping(lambda: None)

    async def job() -> str:
        await stopping.asked.wait()
        await asyncio.sleep(60)
        return "all that ran"

    running = asyncio.create_task(stopping.run(job()))
    await asyncio.sleep(1)
    stopping.on(signal.SIGINT)
    assert await running == "all that ran"
    assert (stopping.at_once, stopping.code) == (False, 130)
