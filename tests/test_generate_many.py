"""generate_many() against the emulator: lazily, in full use of the plan, and one outcome each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from finevoice_async import (
    AuthenticationError,
    FineVoiceSession,
    InsufficientCreditsError,
    InvalidRequestError,
    Polling,
    SessionClosedError,
    SfxRequest,
)
from finevoice_async.adapters.local_slots import LocalSlots
from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.emulator import Emulator, greedy_bound
from finevoice_async.emulator.faults import as_fault_name

Connect = Callable[..., FineVoiceSession]


async def test_two_hundred_effects(emulator: Emulator, connect: Connect) -> None:
    """200 effects at 5 slots: no 429, never more than 5 at once, and the slots are kept full."""
    emulator.plan_limit = 5
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with connect(max_concurrency=5, polling=Polling.fixed(2.5)) as session:
        outcomes = [outcome async for outcome in session.generate_many(f"sound {i}" for i in range(200))]
    makespan = loop.time() - began
    assert sorted(outcome.index for outcome in outcomes) == list(range(200))
    assert not [outcome for outcome in outcomes if outcome.error]
    assert 429 not in emulator.ledger.refused
    assert emulator.ledger.most_running == 5
    times = [task.service_time for task in emulator.ledger.accepted.values()]
    assert makespan <= 1.15 * greedy_bound([time + 2.5 for time in times], 5)


class _Source:
    """An endless source that counts what was drawn."""

    def __init__(self) -> None:
        self.drawn = 0

    def __iter__(self) -> Iterator[str]:
        while True:
            self.drawn += 1
            yield f"sound {self.drawn}"


async def test_generate_many_draws_lazily(connect: Connect, emulator: Emulator) -> None:
    """An endless source is drawn at most twice max_concurrency ahead, and not at all after the loop is left."""
    source, taken = _Source(), 0
    async with connect(max_concurrency=3) as session:
        outcomes = session.generate_many(source)
        async for _ in outcomes:
            taken += 1
            await asyncio.sleep(20)
            assert source.drawn <= taken + 6
            if taken == 4:
                break
        await outcomes.aclose()
        drawn = source.drawn
        await asyncio.sleep(60)
        assert source.drawn == drawn
        assert not session.tasks


async def test_generate_many_takes_anything(session: FineVoiceSession) -> None:
    """Prompts, dicts and requests come from an async iterable; a bad one is one outcome; the order can be kept."""

    async def requests() -> AsyncIterator[Any]:
        yield "rain"
        yield {"prompt": "rain", "duration": 99}
        yield SfxRequest("wind", duration=1)
        yield 17

    outcomes = [outcome async for outcome in session.generate_many(requests(), ordered=True)]
    assert [outcome.index for outcome in outcomes] == [0, 1, 2, 3]
    assert [type(outcome.error) for outcome in outcomes] == [type(None), InvalidRequestError] * 2
    assert outcomes[0].effect is not None
    assert outcomes[0].effect.task_id == outcomes[0].task_id


async def test_callers_own_error_reaches_them(session: FineVoiceSession) -> None:
    """An iterable that raises ends the loop with its error, after the outcomes of what was drawn."""

    def requests() -> Iterator[str]:
        yield "rain"
        raise LookupError("the list is gone")

    outcomes = session.generate_many(requests())
    assert (await anext(outcomes)).effect is not None
    with pytest.raises(LookupError):
        await anext(outcomes)


@pytest.mark.parametrize(
    ("fault", "error"), [("no_credits", InsufficientCreditsError), ("unauthorized", AuthenticationError)]
)
async def test_fatal_error_stops_the_batch(
    session: FineVoiceSession, emulator: Emulator, fault: str, error: type[Exception]
) -> None:
    """After spent credits or a refused key nothing more is sent, running tasks finish, each request has an outcome."""
    requests = [f"sound {i}" for i in range(30)]
    outcomes = []
    async for outcome in session.generate_many(requests):
        outcomes.append(outcome)
        if len(outcomes) == 5:
            emulator.inject(as_fault_name(f"submit.{fault}"), 1)
    assert len(outcomes) == 30
    good = [outcome for outcome in outcomes if outcome.effect]
    bad = [outcome for outcome in outcomes if isinstance(outcome.error, error)]
    assert len(good) + len(bad) == 30
    assert len(good) == len(emulator.ledger.accepted) < 20


@pytest.mark.parametrize("shared", [False, True])
async def test_closing_ends_every_loop(connect: Connect, emulator: Emulator, shared: bool) -> None:
    """A loop over many effects ends when another coroutine closes the session: each drawn request has an outcome."""

    async def slow_source() -> AsyncIterator[str]:
        yield "rain"
        await asyncio.Event().wait()

    async def take(requests: Any) -> list[Any]:
        return [outcome async for outcome in session.generate_many(requests)]

    slots = LocalSlots(2, LoopClock()) if shared else None
    session = connect(max_concurrency=2, slots=slots)
    async with session:
        loops = [asyncio.create_task(take(requests)) for requests in (["rain"] * 9, slow_source())]
        await asyncio.sleep(0.5)
    async with asyncio.timeout(1):
        many, one = await asyncio.gather(*loops)
    assert {type(outcome.error) for outcome in many + one} == {SessionClosedError}
    assert sorted(outcome.index for outcome in many) == list(range(len(many)))
    assert len(one) == 1
    assert slots is None or slots.used == 0


@pytest.mark.parametrize("mistake", ["rain", b"rain", {"prompt": "rain"}, SfxRequest("rain"), 17])
async def test_one_request_in_place_of_many(session: FineVoiceSession, emulator: Emulator, mistake: Any) -> None:
    """A prompt is not taken for its characters, nor fields for their names: it is refused, and nothing is sent."""
    with pytest.raises(InvalidRequestError, match=r"^requests must be many|^requests must be an iterable"):
        [outcome async for outcome in session.generate_many(mistake)]
    assert not emulator.ledger.accepted
    assert not session.stats.submitting + session.stats.waiting
