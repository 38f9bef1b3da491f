"""A user's program that is right: mypy and basedpyright find nothing, and know the type of all that it gets.

It is checked, never run; see `test_typed`.
"""

from __future__ import annotations

import asyncio
import csv
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Unpack, assert_type, cast

from finevoice_async import (
    Budget,
    Downloads,
    EffectState,
    Estimate,
    FineVoiceError,
    FineVoiceSession,
    JournalRow,
    Outcome,
    Polling,
    Retry,
    SfxDict,
    SfxFields,
    SfxItem,
    SfxRequest,
    SfxTask,
    SoundEffect,
    SourceType,
    Stats,
    TaskStatus,
    TaskUpdate,
    Timeouts,
)
from finevoice_async.emulator import Constant, Emulator, Fault, FaultName, LogNormal, Probabilities, as_fault_name
from finevoice_async.testing import EmulatedService, make_service


async def one(session: FineVoiceSession, row: dict[str, Any], name: str | None) -> None:
    """One effect, in each form of a call."""
    assert_type(await session.enqueue("rain"), SfxTask)
    assert_type(await session.submit("rain", duration=3, key=name, owner="user 7", retry_failed=True), SfxTask)
    assert_type(await session.generate("rain", negative_prompt="music", use_async=False), SoundEffect)
    assert_type(await session.generate(request="rain", duration=None), SoundEffect)
    assert_type(await session.generate(prompt="rain", duration=2.5, key="k"), SoundEffect)
    assert_type(await session.generate(source_url="https://a.b/c.png", source_type="image"), SoundEffect)
    assert_type(await session.generate("a dog", source_url="https://a.b/c.mp4", source_type="video"), SoundEffect)
    assert_type(await session.submit(SfxRequest("rain", duration=3), key="k"), SfxTask)
    assert_type(await session.submit(SfxRequest("rain"), duration=3), SfxTask)
    assert_type(await session.submit({"prompt": "rain", "duration": 3}, owner=name), SfxTask)
    assert_type(await session.enqueue(**row), SfxTask)
    assert_type(await session.enqueue("rain", **row), SfxTask)
    assert_type(await session.enqueue(SfxRequest(**row)), SfxTask)


async def wrapped(session: FineVoiceSession, prompt: str, **fields: Unpack[SfxFields]) -> SoundEffect:
    """A function of the user's that hands the fields on."""
    whole: SfxDict = {"prompt": prompt, **fields}
    await session.enqueue(whole)
    return await session.generate(prompt, **fields)


async def wrap(session: FineVoiceSession, source: SourceType) -> None:
    """And how it is called."""
    assert_type(await wrapped(session, "rain", duration=3, source_url="https://a.b/c", source_type=source), SoundEffect)


async def task(session: FineVoiceSession, handle: SfxTask) -> None:
    """What a handle has."""
    assert_type(handle.key, str | None)
    assert_type(handle.id, str | None)
    assert_type(handle.request, SfxRequest | None)
    assert_type(handle.status, TaskStatus)
    assert_type(handle.position, int | None)
    assert_type(handle.submitted_at, datetime | None)
    assert_type(handle.done(), bool)
    assert_type(handle.estimate(), Estimate | None)
    assert_type(await handle.withdraw(), bool)
    assert_type(await handle, SoundEffect)
    assert_type(await handle.wait(timeout=3), SoundEffect)
    assert_type(await handle.wait(None), SoundEffect)
    assert_type(await asyncio.wait_for(handle, 3), SoundEffect)
    first, second = await asyncio.gather(handle, handle)
    assert_type((first, second), tuple[SoundEffect, SoundEffect])
    async with aclosing(handle.updates()) as updates:
        async for update in updates:
            assert_type(update, TaskUpdate)
    if handle.status is TaskStatus.FAILED or handle.status == TaskStatus.UNKNOWN:
        assert_type(session.tasks, tuple[SfxTask, ...])


async def effect(sound: SoundEffect) -> None:
    """What an effect has."""
    assert_type(sound.task_id, str | None)
    assert_type(sound.key, str | None)
    assert_type(sound.url, str)
    assert_type(sound.urls, tuple[str, ...])
    assert_type(sound.request, SfxRequest | None)
    assert_type(sound.media_type, str | None)
    assert_type(sound.suffix, str)
    assert_type(sound.note, str | None)
    assert_type(await sound.read(), bytes)
    assert_type(await sound.save("rain"), Path)
    assert_type(await sound.save(Path("effects"), overwrite=True), Path)
    await sound.acknowledge()
    async with aclosing(sound.stream()) as pieces:
        async for piece in pieces:
            assert_type(piece, bytes)


def place(request: SfxRequest, key: str | None) -> Path:
    """Where an effect goes."""
    return Path("effects", key or request.prompt or "nameless")


async def prompts() -> AsyncIterator[str | SfxItem]:
    """Requests that come one by one."""
    yield "rain"
    yield {"prompt": "wind", "key": "scene 3, wind", "file": Path("scene3/wind")}


def of_a_table(path: Path) -> Iterator[SfxItem]:
    """Requests of a table: its cells are text, so each row is spelled out."""
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield {"prompt": row["prompt"], "duration": float(row["seconds"]), "key": row["id"], "file": row["file"]}


async def many(session: FineVoiceSession, text: str, row: dict[str, Any]) -> None:
    """Many effects, from whatever they come."""
    outcomes = session.generate_many(["rain", SfxRequest("wind"), {"prompt": "bell", "duration": 3}], save_to="effects")
    assert_type(outcomes, AsyncGenerator[Outcome, None])
    async with aclosing(outcomes):
        async for outcome in outcomes:
            assert_type(outcome.index, int)
            assert_type(outcome.key, str | None)
            assert_type(outcome.request, SfxRequest | None)
            assert_type(outcome.effect, SoundEffect | None)
            assert_type(outcome.path, Path | None)
            assert_type(outcome.error, FineVoiceError | None)
            assert_type(outcome.task_id, str | None)
            assert_type(outcome.note, str | None)
            assert_type(outcome.unwrap(), SoundEffect)
    async with aclosing(session.generate_many(prompts(), ordered=True, save_to=Path("effects"))) as stream:
        assert_type(await anext(stream), Outcome)
    async for _ in session.generate_many({"prompt": f"sound {i}", "duration": i} for i in range(1, 30)):
        pass
    async for _ in session.generate_many((f"sound {i}" for i in range(9)), save_to=place, retry_failed=True):
        pass
    async for _ in session.generate_many(
        of_a_table(Path("table.csv")), save_to=lambda request, _: f"{request.prompt}.wav"
    ):
        pass
    items: list[SfxItem] = json.loads(text)  # what comes as Any needs its name only
    assert_type([outcome async for outcome in session.generate_many(items)], list[Outcome])
    assert_type([outcome async for outcome in session.generate_many(json.loads(text))], list[Outcome])
    rows = [row]
    assert_type(session.generate_many(SfxRequest(**each) for each in rows), AsyncGenerator[Outcome, None])
    assert_type(session.generate_many(cast("list[SfxItem]", rows)), AsyncGenerator[Outcome, None])
    for requests in (items, prompts()):
        assert_type(session.generate_many(requests), AsyncGenerator[Outcome, None])


async def look_up(session: FineVoiceSession, row: JournalRow) -> None:
    """What a session knows."""
    found = await session.find(key="scene 3, door")
    assert_type(found, SfxTask | None)
    assert_type(await session.find(task_id="t"), SfxTask | None)
    assert_type(await session.attach("t"), SfxTask)
    update = await session.status("t")
    assert_type(update, TaskUpdate)
    assert_type(update.status, TaskStatus)
    assert_type(session.rows(EffectState.DONE, EffectState.SAVED), AsyncGenerator[JournalRow, None])
    assert_type([each.task_id async for each in session.rows()], list[str | None])
    assert_type(session.stats, Stats)
    assert_type(await session.unknown(), list[JournalRow])
    assert_type(session.recover(save_to="effects"), AsyncGenerator[Outcome, None])
    async with aclosing(session.recover()) as outcomes:
        assert_type([outcome.key async for outcome in outcomes], list[str | None])
    assert_type(await session.resubmit(row, accept_double_charge=True), SfxTask)
    assert_type(await session.adopt(row, task_id="t"), SfxTask)
    await session.discard(row)
    assert_type(row.state, EffectState)


async def options(session: FineVoiceSession) -> None:
    """Each option by its name."""
    state = session.polling_state()
    everything = FineVoiceSession(
        "key",
        base_url="http://127.0.0.1:1",
        max_concurrency=10,
        max_queue=5,
        journal=Path("effects.db"),
        timeouts=Timeouts(read=3, task=None),
        polling=Polling.fixed(3, min_gap=1, grace=0, state=state),
        retry=Retry(patience=10, resend_unknown=False),
        downloads=Downloads(concurrency=2, allow=["198.18.0.0/15"], proxy="http://proxy:3128", trust_env=True),
        budget=Budget(effects=100, per=timedelta(days=1)),
    )
    async with everything as opened:
        assert_type(opened, FineVoiceSession)
    await everything.aclose(timeout=3)
    assert_type(Polling.fixed(), Polling)


def test_with_fixtures(
    finevoice_emulator: EmulatedService, finevoice_session: FineVoiceSession, faults: Probabilities, text: str
) -> None:
    """The emulator and its faults."""
    finevoice_emulator.inject("submit.lose_reply", 2)
    finevoice_emulator.inject(as_fault_name(text), value=3)
    finevoice_emulator.plan_limit = 3
    finevoice_emulator.service_time = LogNormal(median=2)
    names: tuple[FaultName, ...] = ("poll.hang", "poll.slow")
    for name in names:
        finevoice_emulator.inject(name)
    assert_type(finevoice_emulator.session(polling=Polling.fixed(0.01), journal="effects.db"), FineVoiceSession)
    with make_service(plan_limit=2, faults={"submit.hang": 0.1}, dialect="quickstart") as service:
        assert_type(service, EmulatedService)
    Emulator(faults={"submit.hang": 0.1, Fault("poll.slow", 3): 0.5}, service_time=Constant(2))
    Emulator(faults=faults, service_time=0.1, seed=1, credits=None)
