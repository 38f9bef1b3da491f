"""200 clients of the aiohttp example at once, half of whom leave at a random moment."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from programs import load

from finevoice_async import EffectState, FineVoiceSession, SfxTask, SoundEffect
from finevoice_async.engine.records import Submission, TaskRecord
from finevoice_async.testing import EmulatedService

WAVES = (200, 60, 60)  # clients at once; the first fills caches
FEW = 20  # objects of effects, or tasks, that are left of a wave
MOST_GROWTH = 64 * 1024
"""Bytes that may be left of a wave, which handles 3 MB of sound: caches of links and the like, up to their bounds."""


async def client(http: aiohttp.ClientSession, number: int, keys: list[str], heard: list[int]) -> None:
    """Order a sound, watch it, listen to it."""
    async with http.post("/sounds", json={"prompt": f"sound {number}", "duration": 1}) as answer:
        assert answer.status == 202, await answer.text()
        key = (await answer.json())["key"]
    keys.append(key)
    async with http.get(f"/sounds/{key}/events") as answer:
        events = [json.loads(line[6:]) async for line in answer.content if line.startswith(b"data: ")]
    assert events[-1]["status"] == "completed"
    async with http.get(f"/sounds/{key}/audio") as answer:
        assert answer.status == 200, await answer.text()
        assert (await answer.read())[:4] == b"RIFF"
    heard.append(number)


async def wave(http: aiohttp.ClientSession, count: int, rng: random.Random) -> tuple[list[str], list[int]]:
    """Let all come at once; half leave. Return the keys that were given, and who heard the sound."""
    keys: list[str] = []
    heard: list[int] = []
    calls = [asyncio.create_task(client(http, number, keys, heard)) for number in range(count)]
    leaving = rng.sample(range(count), count // 2)

    async def leave(number: int) -> None:
        await asyncio.sleep(rng.uniform(0, 1.5))
        calls[number].cancel()

    await asyncio.gather(*map(leave, leaving))
    results = await asyncio.gather(*calls, return_exceptions=True)
    for number, result in enumerate(results):
        assert result is None or (number in leaving and isinstance(result, asyncio.CancelledError)), result
    assert set(heard) >= set(range(count)) - set(leaving)
    return keys, heard


def living() -> tuple[Counter[type[Any]], int]:
    """Count what there is of each kind that an effect is made of, and this loop's tasks."""
    wanted = (SfxTask, SoundEffect, Submission, TaskRecord)
    gc.collect()
    return Counter(type(each) for each in gc.get_objects() if type(each) in wanted), len(asyncio.all_tasks())


def held() -> int:
    """Return the bytes that were asked for by the library and by the program; the emulator keeps all it has made."""
    ours = [tracemalloc.Filter(True, pattern) for pattern in ("*/finevoice_async/*", "*/aiohttp_app.py")]
    theirs = tracemalloc.Filter(False, "*/finevoice_async/emulator/*")
    kept = tracemalloc.take_snapshot().filter_traces([*ours, theirs])
    return sum(each.size for each in kept.statistics("filename"))


@pytest.mark.real_time
async def test_many_clients(
    finevoice_emulator: EmulatedService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_leaks: object
) -> None:
    """The plan is never overdrawn, nothing that was promised or paid for is lost, and the memory comes back."""
    finevoice_emulator.plan_limit = 5
    finevoice_emulator.service_time = 0.02
    program = load("aiohttp_app.py")
    monkeypatch.setenv("SOUNDS_JOURNAL", str(tmp_path / "sounds.db"))
    monkeypatch.setattr(program, "FineVoiceSession", finevoice_emulator.session)  # one that polls every 10 ms
    app: web.Application = program.make_app()
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    session: FineVoiceSession = app[program.SESSION]
    rng, sizes, left = random.Random(1), [], []
    keys: list[str] = []
    before, _ = living()  # what earlier tests of this process still hold
    try:
        for number, count in enumerate(WAVES):
            if number == 1:
                tracemalloc.start()
            url = "http://{}:{}".format(*runner.addresses[0][:2])
            async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0)) as http:
                given, _ = await wave(http, count, rng)
                keys += given
                while any((session.stats.waiting, session.stats.running, session.stats.submitting)):  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.01)
            for _ in range(30):  # connections and their tasks end; a busy machine takes longer for that
                await asyncio.sleep(0.1)
                objects, tasks = living()
                objects -= before
                if objects.total() < FEW and tasks < FEW:
                    break
            left.append((objects, tasks))
            if number:
                sizes.append(held())
        rows = {row.key: row async for row in session.rows()}
    finally:
        tracemalloc.stop()
        await runner.cleanup()
    ledger = finevoice_emulator.ledger
    assert ledger.most_running <= 5
    assert ledger.rate_limited == 0
    assert set(keys) <= rows.keys(), "whoever got a key has a row"
    ended = (EffectState.DONE, EffectState.SAVED)
    for key, row in rows.items():
        given_up = row.state is EffectState.REFUSED and key not in keys  # left before the answer: nothing was sent
        assert row.state in ended or given_up, row
    paid = [row.task_id for row in rows.values() if row.state in ended]
    assert sorted(map(str, paid)) == sorted(ledger.accepted), "each is paid for once, and none is lost"
    for objects, tasks in left:  # of the last few, not of a wave
        assert objects.total() < FEW, objects
        assert tasks < FEW
    assert sizes[1] - sizes[0] < MOST_GROWTH, sizes
