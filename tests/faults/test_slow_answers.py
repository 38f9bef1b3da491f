"""Submissions that are answered once their effect is made: their limit is that of the effect, not of a call."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from raw_server import Peer, RawServer, Request, Script

from finevoice_async import FineVoiceSession, SubmitUnknownError, Timeouts

Visit = Callable[..., FineVoiceSession]
DONE = json.dumps({"status": "completed", "url": "http://127.0.0.1:9/x.wav"}).encode()


def after(seconds: float) -> Script:
    """Answer with a result, so much later."""

    async def script(request: Request, peer: Peer) -> None:
        await asyncio.sleep(seconds)
        peer.answer(200, DONE)

    return script


async def hang(request: Request, peer: Peer) -> None:
    """Never answer."""
    await peer.hang()


@pytest.mark.parametrize(
    ("task", "seconds"),
    [(900, 45), (900, 890), (None, 100_000), (1, 39)],
    ids=["past a call's time", "within the effect's", "no limit", "never less than a call's time"],
)
async def test_a_synchronous_answer_has_the_time_of_an_effect(visit: Visit, task: float | None, seconds: float) -> None:
    """The service may hold the answer for as long as an effect may take; None is without end."""
    timeouts = Timeouts(connect=10, read=30, task=task)
    async with RawServer(after(seconds)) as server, visit(server.url, timeouts=timeouts) as session:
        assert (await session.generate("rain", use_async=False)).url
        assert server.count("POST") == 1


@pytest.mark.parametrize(
    ("task", "use_async", "ends"), [(60, False, 60), (60, True, 40), (5, False, 40), (None, True, 40)]
)
async def test_each_submission_ends_at_its_own_time(
    visit: Visit, task: float | None, use_async: bool, ends: float
) -> None:
    """An answer that never comes is unknown once the time of its kind is up."""
    timeouts = Timeouts(connect=10, read=30, task=task)
    async with RawServer(hang) as server, visit(server.url, timeouts=timeouts) as session:
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(SubmitUnknownError):
            await session.submit("rain", use_async=use_async)
        assert loop.time() - began == pytest.approx(ends, abs=0.1)


async def test_slow_and_ordinary_submissions_side_by_side(visit: Visit) -> None:
    """A slow one takes nothing from the limit of the others, nor they from its."""

    async def script(request: Request, peer: Peer) -> None:
        if json.loads(request.body)["useAsync"]:
            await peer.hang()
        await asyncio.sleep(45)
        peer.answer(200, DONE)

    timeouts = Timeouts(connect=10, read=30, task=900)
    async with RawServer(script) as server, visit(server.url, timeouts=timeouts) as session:
        slow = [asyncio.ensure_future(session.generate("slow", use_async=False)) for _ in range(2)]
        with pytest.raises(SubmitUnknownError):
            await session.submit("ordinary")
        assert [(await each).url for each in slow]


@pytest.mark.parametrize("task", [900, None])
async def test_closing_waits_for_no_slow_answer(visit: Visit, task: Any) -> None:
    """Closing takes its own time at most, also where the answer has much more or no limit; the row is in doubt."""
    timeouts = Timeouts(task=task, close=3)
    loop = asyncio.get_running_loop()
    async with RawServer(hang) as server:
        session = visit(server.url, timeouts=timeouts)
        effect = asyncio.ensure_future(session.generate("rain", use_async=False))
        await asyncio.sleep(60)
        began = loop.time()
        await session.aclose()
        assert loop.time() - began == pytest.approx(3, abs=0.1)
        with pytest.raises(SubmitUnknownError):
            await effect
