"""What a refusal, a 429 or a changed file must not do to what comes after it."""

from __future__ import annotations

import asyncio
import io
import json
import wave
from pathlib import Path
from typing import Any

import pytest
from ledger.helpers import QUEUED, REFUSED, Connect, Left, Visit, all_of, leave, prompts, rows, turns
from raw_server import Peer, RawServer, Request

from finevoice_async import (
    AuthenticationError,
    FineVoiceError,
    InsufficientCreditsError,
    RequestRejectedError,
    Retry,
)
from finevoice_async.core.brake import KEY_PAUSE
from finevoice_async.emulator import Constant, Emulator
from finevoice_async.emulator.faults import as_fault_name


def sound(filling: int) -> bytes:
    """Return a WAV file of one sample value."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(8000)
        file.writeframes(bytes([filling]) * 100_000)
    return buffer.getvalue()


@pytest.mark.parametrize("way", ["read", "save"])
async def test_a_file_that_changes_on_the_way(visit: Visit, tmp_path: Path, way: str) -> None:
    """A download is cut, and the rest comes of another file of the same length: it begins anew, and is never mixed."""
    old, new = sound(1), sound(2)
    asked: list[Request] = []

    async def script(request: Request, peer: Peer) -> None:
        if request.path != "/file.wav":
            link = f"{server.url}/file.wav"
            peer.answer(200, json.dumps({"taskId": "t", "status": 200, "url": link}).encode())
            return
        asked.append(request)
        if len(asked) == 1:
            peer.send(b'HTTP/1.1 200 OK\r\nETag: "old"\r\nContent-Length: %d\r\n\r\n' % len(old) + old[:50_000])
            await peer.close()
        elif "range" in request.headers:
            span = f"bytes 50000-{len(new) - 1}/{len(new)}"
            peer.answer(206, new[50_000:], ETag='"new"', Content_Range=span)
        else:
            peer.answer(200, new, ETag='"new"')

    async with RawServer(script) as server, visit(server.url) as session:
        effect = await session.generate("rain")
        content = await effect.read() if way == "read" else (await effect.save(tmp_path / "x.wav")).read_bytes()
    assert content == new
    assert [request.headers.get("if-range") for request in asked] == [None, '"old"', None]


async def test_retry_after_lowers_the_slots_as_long(connect: Connect, emulator: Emulator) -> None:
    """After a 429 with Retry-After: 60 fewer tasks run at once for 60 s, not for half of it."""
    emulator.service_time = Constant(35)
    async with connect(max_concurrency=3) as session:
        for number in range(2):
            await session.submit(f"runs {number}")
        emulator.inject("submit.rate_limit", value=60)
        jobs = [asyncio.create_task(session.submit(f"waits {number}")) for number in range(4)]
        await asyncio.sleep(33)
        assert emulator.ledger.posts == 3  # the last of them was refused, and waits with its slot
        await asyncio.sleep(
            22
        )  # both that ran have ended, and one slot more may be used; nothing leaves before its time
        assert emulator.ledger.posts == 3
        assert session.stats.submitting == 2
        await asyncio.gather(*jobs)
        assert len(emulator.ledger.accepted) == 6


@pytest.mark.parametrize("fault", ["unauthorized", "no_credits"])
@pytest.mark.parametrize("journalled", [False, True])
async def test_a_second_look_once_the_slot_came(
    connect: Connect, path: Path, emulator: Emulator, fault: str, journalled: bool
) -> None:
    """A request of generate_many waits for its slot while another is refused for good: it is not sent."""
    emulator.service_time = Constant(10)
    async with connect(journal=path if journalled else None, max_concurrency=1) as session:
        await session.submit("runs")
        emulator.inject(as_fault_name(f"submit.{fault}"))
        wanted = [f"many {number}" for number in range(6)]
        outcomes = await all_of(session.generate_many(wanted))
        kind = AuthenticationError if fault == "unauthorized" else InsufficientCreditsError
        assert [type(outcome.error) for outcome in outcomes] == [kind] * 6
        assert [outcome.error.request for outcome in outcomes if outcome.error] == [one.request for one in outcomes]
    assert emulator.ledger.posts == 2
    if journalled:
        assert {row.state for row in await rows(path) if row.task_id is None} == {REFUSED}
        async with connect(journal=path) as session:
            await all_of(session.recover())
        assert emulator.ledger.posts == 2


@pytest.mark.parametrize("fault", ["unauthorized", "no_credits"])
async def test_a_second_look_at_recovered_rows(connect: Connect, path: Path, emulator: Emulator, fault: str) -> None:
    """Rows of recover() that wait for a slot while another is refused for good are not sent, and stay queued."""
    emulator.service_time = Constant(10)
    await leave(path, *[Left(QUEUED, f"left {number}") for number in range(5)])
    async with connect(journal=path, max_concurrency=1) as session:
        await session.submit("runs")
        emulator.inject(as_fault_name(f"submit.{fault}"))
        await all_of(session.recover())
    assert emulator.ledger.posts == 2
    left = [row.state for row in await rows(path) if row.task_id is None]
    assert (left.count(QUEUED), left.count(REFUSED)) == (4, 1)


MANY = 45  # more than there are POSTs at once


@pytest.mark.parametrize("concurrency", [1, 50])
async def test_many_refusals_block_nobody(connect: Connect, path: Path, emulator: Emulator, concurrency: int) -> None:
    """More submissions are refused than may be sent at once: the next one goes out."""
    emulator.inject("submit.refuse", MANY)
    async with connect(journal=path, max_concurrency=concurrency) as session, asyncio.timeout(600):
        calls = [session.submit(f"rain {number}", key=f"k{number}") for number in range(MANY)]
        told = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(one) for one in told] == [RequestRejectedError] * MANY
        assert (await session.generate("fine")).task_id


async def test_many_cancellations_block_nobody(visit: Visit, path: Path) -> None:
    """More submissions than may be sent at once have slots; those that wait for their turn are cancelled."""
    answer = asyncio.Event()

    async def script(request: Request, peer: Peer) -> None:
        await answer.wait()
        peer.answer(400)

    retry = Retry(attempts=1)
    async with (
        RawServer(script) as server,
        visit(server.url, journal=path, max_concurrency=200, retry=retry) as session,
    ):
        for _ in range(12):
            answer.clear()
            calls: list[asyncio.Task[Any]] = [asyncio.create_task(session.submit("rain")) for _ in range(MANY)]
            await asyncio.sleep(0.5)
            for call in calls:
                call.cancel()
            answer.set()
            await asyncio.wait(calls)
            await asyncio.sleep(0.5)
        async with asyncio.timeout(60):
            with pytest.raises(RequestRejectedError):
                await session.submit("fine")
        await turns(3)
        assert session.stats.waiting == session.stats.submitting == 0


@pytest.mark.parametrize("fault", ["unauthorized", "no_credits"])
async def test_many_fatal_errors_block_nobody(connect: Connect, path: Path, emulator: Emulator, fault: str) -> None:
    """More requests than may be sent at once are held back after a fatal error: the next one goes out, in time."""
    async with connect(journal=path, max_concurrency=50) as session, asyncio.timeout(600):
        for _ in range(3):
            emulator.inject(as_fault_name(f"submit.{fault}"))
            outcomes = await all_of(session.generate_many([f"rain {number}" for number in range(2 * MANY)]))
            assert len(outcomes) == 2 * MANY
            assert any(outcome.error for outcome in outcomes)
            await asyncio.sleep(KEY_PAUSE if fault == "unauthorized" else 0)
        assert (await session.generate("fine")).task_id
        assert session.stats.waiting == session.stats.submitting == 0
    assert "fine" in prompts(emulator)


async def test_many_failures_of_the_session_s_own_block_nobody(
    connect: Connect, path: Path, emulator: Emulator
) -> None:
    """More submissions than may be sent at once end each in its own way: the next one goes out."""
    faults = ["reject", "no_task_id", "lose_reply", "bad_gateway", "garbage", "redirect", "forbidden"]
    async with connect(journal=path, max_concurrency=3) as session, asyncio.timeout(6000):
        for fault in faults:
            emulator.inject(as_fault_name(f"submit.{fault}"), 12)
        for number in range(12 * len(faults)):
            with pytest.raises(FineVoiceError):
                await session.submit(f"rain {number}")
        assert (await session.generate("fine")).task_id
        assert session.stats.running == session.stats.waiting == session.stats.submitting == 0
