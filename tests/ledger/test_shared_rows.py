"""One row, several who want it: recover(), callers with its key, callers of their own beside it."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ledger.helpers import (
    DONE,
    QUEUED,
    REFUSED,
    SUBMITTED,
    UNKNOWN,
    Connect,
    Left,
    SlowReads,
    about,
    all_of,
    leave,
    prompts,
    rows,
    the_row,
    turns,
)

from finevoice_async import FineVoiceError, FineVoiceSession, InvalidRequestError, SfxTask
from finevoice_async.emulator import Constant, Emulator


async def occupied(session: FineVoiceSession) -> SfxTask:
    """Take the session's slot for a while."""
    return await session.submit("something else")


async def taken_up(session: FineVoiceSession) -> None:
    """Wait, turn by turn, until something is being submitted."""
    while not session.stats.submitting and not session.stats.waiting:  # noqa: ASYNC110 - turn by turn
        await asyncio.sleep(0)


@pytest.mark.parametrize("seconds", [0.0, 0.001, 1.0, 3.0, 7.0])
@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("first", ["recover", "caller"])
async def test_a_timeout_beside_recover(
    connect: Connect, path: Path, emulator: Emulator, first: str, slow: bool, seconds: float
) -> None:
    """A caller of a row that recover() submits runs out of time: it is made once, and found by its key."""
    emulator.service_time = Constant(8)
    await leave(path, Left(QUEUED, "door", key="k"))
    if slow:
        emulator.inject("submit.slow")

    async def call() -> None:
        async with asyncio.timeout(seconds):
            await session.generate("door", key="k")

    async with connect(journal=path, max_concurrency=1) as session:
        if first == "recover":
            recovering = asyncio.create_task(all_of(session.recover()))
            await taken_up(session)
            calling = asyncio.create_task(call())
        else:
            calling = asyncio.create_task(call())
            await asyncio.sleep(0)
            recovering = asyncio.create_task(all_of(session.recover()))
        with pytest.raises(TimeoutError):
            await calling
        outcomes = await recovering
        effect = await session.generate("door", key="k")
        assert [outcome.task_id for outcome in outcomes if outcome.effect] in ([effect.task_id], [])
        assert first == "caller" or len(outcomes) == 1
    assert list(emulator.ledger.accepted) == [effect.task_id]
    row = await the_row(path)
    assert (row.state, row.task_id) == (DONE, effect.task_id)


async def test_a_timeout_while_both_wait_for_a_slot(connect: Connect, path: Path, emulator: Emulator) -> None:
    """Of recover() and a caller who wait for one row's slot the caller goes: recover() gets its effect."""
    await leave(path, Left(QUEUED, "door", key="k"))
    async with connect(journal=path, max_concurrency=1) as session:
        await occupied(session)
        recovering = asyncio.create_task(all_of(session.recover()))
        await asyncio.sleep(0.1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await session.generate("door", key="k")
        (outcome,) = about(await recovering, "door")
        assert outcome.effect is not None
        assert (await session.generate("door", key="k")).task_id == outcome.task_id
    assert prompts(emulator) == ["door", "something else"]


async def test_a_caller_who_goes_drops_nothing_that_was_left(connect: Connect, path: Path, emulator: Emulator) -> None:
    """A caller of a queued row goes while recover() runs beside it: the row is made, or waits for the next one."""
    await leave(path, Left(QUEUED, "door", key="k"))
    async with connect(journal=path, max_concurrency=1) as session:
        await occupied(session)
        calling = asyncio.create_task(session.generate("door", key="k"))
        await asyncio.sleep(0.1)
        recovering = asyncio.create_task(all_of(session.recover()))
        await asyncio.sleep(0.1)
        calling.cancel()
        outcomes = about(await recovering, "door")
    (row,) = [row for row in await rows(path) if row.key == "k"]
    assert row.state is QUEUED or outcomes[0].effect is not None


async def test_recover_is_left_while_a_caller_waits(connect: Connect, path: Path, emulator: Emulator) -> None:
    """Of recover() and a caller who wait for one row's slot recover() is left: the caller gets its effect."""
    await leave(path, Left(QUEUED, "door", key="k"))
    async with connect(journal=path, max_concurrency=1) as session:
        await occupied(session)
        recovering = asyncio.create_task(all_of(session.recover()))
        await asyncio.sleep(0.1)
        calling = asyncio.create_task(session.generate("door", key="k"))
        await asyncio.sleep(0.1)
        recovering.cancel()
        assert (await calling).task_id in emulator.ledger.accepted
    assert prompts(emulator) == ["door", "something else"]


async def test_recover_and_a_caller_share_one_submission(connect: Connect, path: Path, emulator: Emulator) -> None:
    """recover() and keyed callers take the same rows at once: all get the same effects, nobody an error."""
    await leave(path, *[Left(QUEUED, f"door {number}", key=f"k{number}") for number in range(30)])
    async with connect(journal=path, max_concurrency=3) as session:
        calls = [session.submit(f"door {number}", key=f"k{number}") for number in range(30)]
        tasks, outcomes = await asyncio.gather(asyncio.gather(*calls), all_of(session.recover()))
        effects = await asyncio.gather(*tasks)
    made = {effect.task_id for effect in effects}
    assert made == set(emulator.ledger.accepted)
    assert len(made) == 30
    assert {outcome.task_id for outcome in outcomes} <= made
    assert not [outcome.error for outcome in outcomes if outcome.error]
    assert {row.state for row in await rows(path)} == {DONE}


async def test_cancelling_a_caller_does_not_cancel_recover(connect: Connect, path: Path, emulator: Emulator) -> None:
    """A caller joins the row that recover() is submitting and is cancelled at each moment: recover() gets it."""
    for moment in range(12):
        file = path.with_name(f"{moment}.db")
        await leave(file, Left(QUEUED, f"door {moment}", key="k"))
        async with connect(journal=file, max_concurrency=1) as session:
            recovering = asyncio.create_task(all_of(session.recover()))
            await taken_up(session)
            calling = asyncio.create_task(session.submit(f"door {moment}", key="k"))
            await turns(moment)
            calling.cancel()
            (outcome,) = await recovering
            assert outcome.effect is not None
    assert prompts(emulator) == sorted(f"door {moment}" for moment in range(12))


@pytest.mark.parametrize("way", ["cancel", "timeout"])
async def test_callers_of_one_key_come_and_go(connect: Connect, path: Path, emulator: Emulator, way: str) -> None:
    """Of three callers of one key the first two go, while they wait for a slot: the third gets the effect."""
    async with connect(journal=path, max_concurrency=1) as session:
        await occupied(session)

        async def go_early() -> None:
            async with asyncio.timeout(0.5):
                await session.generate("door", key="k")

        calls = [asyncio.create_task(go_early()) for _ in range(2)]
        staying = asyncio.create_task(session.generate("door", key="k"))
        await asyncio.sleep(0.1)
        if way == "cancel":
            for call in calls:
                call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        effect = await staying
    assert effect.task_id in emulator.ledger.accepted
    assert prompts(emulator) == ["door", "something else"]


@pytest.mark.parametrize("moment", range(10))
async def test_the_first_of_two_callers_goes_at_each_moment(
    connect: Connect, path: Path, emulator: Emulator, moment: int
) -> None:
    """Whoever wrote the row is cancelled at each turn of the loop: who shares the key gets the effect."""
    async with connect(journal=path) as session:
        first = asyncio.create_task(session.submit("door", key="k"))
        await asyncio.sleep(0)
        second = asyncio.create_task(session.generate("door", key="k"))
        await turns(moment)
        first.cancel()
        effect = await second
    assert list(emulator.ledger.accepted) == [effect.task_id]
    assert (await the_row(path)).state is DONE


@pytest.mark.parametrize("all_go", [False, True])
async def test_callers_go_while_it_waits_for_another_try(
    connect: Connect, path: Path, emulator: Emulator, all_go: bool
) -> None:
    """Callers of one key go while it waits after a 429: it is sent again as long as one of them stays."""
    async with connect(journal=path) as session:
        emulator.inject("submit.rate_limit", value=10)
        calls = [asyncio.create_task(session.generate("door", key="k")) for _ in range(3)]
        await asyncio.sleep(1)
        for call in calls if all_go else calls[:2]:
            call.cancel()
        await asyncio.wait(calls)
        await asyncio.sleep(60)
        assert calls[2].cancelled() or calls[2].result().task_id in emulator.ledger.accepted
    assert emulator.ledger.posts == (1 if all_go else 2)
    assert (await the_row(path)).state is (REFUSED if all_go else DONE)


async def test_all_callers_of_a_key_go(connect: Connect, path: Path, emulator: Emulator) -> None:
    """All callers of one key are cancelled while they wait for a slot: nothing is sent, now or later."""
    async with connect(journal=path, max_concurrency=1) as session:
        await occupied(session)
        calls = [asyncio.create_task(session.submit("door", key="k")) for _ in range(3)]
        await asyncio.sleep(0.1)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        await asyncio.sleep(60)
    assert [row.state for row in await rows(path) if row.key == "k"] == [REFUSED]
    async with connect(journal=path) as session:
        assert not about(await all_of(session.recover()), "door")
    assert prompts(emulator) == ["something else"]


async def test_submissions_beside_recover(connect: Connect, path: Path, emulator: Emulator) -> None:
    """Callers without keys beside several recover()s hear of no row that somebody else took."""
    emulator.service_time = Constant(0.05)
    await leave(path, *[Left(QUEUED, f"old {number}") for number in range(30)])
    async with connect(journal=path, max_concurrency=3) as session:

        async def recover() -> None:
            for _ in range(20):
                for outcome in await all_of(session.recover()):
                    assert outcome.error is None
                await asyncio.sleep(0.2)

        async def submit(number: int) -> str | None:
            await asyncio.sleep(number % 10)
            return (await session.submit(f"new {number}")).id

        submissions = [submit(number) for number in range(300)]
        ids, *_ = await asyncio.gather(asyncio.gather(*submissions), recover(), recover())
        assert len(set(ids)) == 300
    assert len(emulator.ledger.accepted) == len(set(prompts(emulator))) == 330


async def test_unknown_lists_nothing_under_way(connect: Connect, path: Path, emulator: Emulator) -> None:
    """A row whose POST is under way is not unknown, whoever wished for it."""
    emulator.inject("submit.slow", 3)
    await leave(path, Left(QUEUED, "left"))
    async with connect(journal=path) as session:
        calls: list[Any] = [session.submit("mine"), session.submit("keyed", key="k"), all_of(session.recover())]
        jobs = [asyncio.create_task(call) for call in calls]
        await asyncio.sleep(1)
        assert session.stats.submitting == 3
        assert await session.unknown() == []
        await asyncio.gather(*jobs)


async def test_unknown_lists_nothing_that_is_sent_again(connect: Connect, path: Path, emulator: Emulator) -> None:
    """An unknown row that is being sent again is not listed meanwhile."""
    emulator.inject("submit.lose_reply")
    emulator.inject("submit.slow")
    async with connect(journal=path) as session:
        with pytest.raises(FineVoiceError):
            await session.submit("rain")
        (row,) = await session.unknown()
        again = asyncio.create_task(session.resubmit(row, accept_double_charge=True))
        await asyncio.sleep(1)
        assert await session.unknown() == []
        await again


async def test_recover_gives_each_effect_once(connect: Connect, path: Path, emulator: Emulator) -> None:
    """Rows that end, or are sent, while recover() reads the others are given once."""
    emulator.service_time = Constant(7)
    async with connect() as session:
        ids = [(await session.submit(f"runs {number}")).id for number in range(3)]
    runs = [Left(SUBMITTED, f"runs {number}", task_id=task_id) for number, task_id in enumerate(ids)]
    await leave(path, *runs, *[Left(QUEUED, f"waits {number}") for number in range(3)])
    async with connect(journal=SlowReads(path)) as session:
        outcomes = await all_of(session.recover())
        assert not [outcome.error for outcome in outcomes if outcome.error]
    given = Counter(outcome.task_id for outcome in outcomes)
    assert set(given) == set(emulator.ledger.accepted)
    assert set(given.values()) == {1}
    assert len(given) == 6


async def test_recover_gives_nothing_that_was_settled_since(connect: Connect, path: Path, emulator: Emulator) -> None:
    """Rows that the caller gives up while recover() reads the others are not given."""
    await leave(path, Left(DONE), Left(DONE), Left(UNKNOWN), Left(QUEUED))
    async with connect(journal=SlowReads(path)) as session:
        settled = await all_of(session.rows(UNKNOWN, QUEUED))
        recovering = asyncio.create_task(all_of(session.recover()))
        await asyncio.sleep(4.5)  # it has read the rows' numbers
        await asyncio.gather(*[session.discard(row) for row in settled])
        outcomes = await recovering
        assert len(outcomes) == 2
        assert all(outcome.effect for outcome in outcomes)
    assert not emulator.ledger.posts


async def test_two_recovers_give_each_effect_once(connect: Connect, path: Path, emulator: Emulator) -> None:
    """Two recover()s at once send each row once, and neither gives an effect twice or an error."""
    await leave(path, *[Left(QUEUED, f"door {number}", key=f"k{number}") for number in range(20)])
    async with connect(journal=path, max_concurrency=2) as session:
        for outcomes in await asyncio.gather(all_of(session.recover()), all_of(session.recover())):
            assert not [outcome.error for outcome in outcomes if outcome.error]
            assert set(Counter(outcome.task_id for outcome in outcomes).values()) <= {1}
    assert len(emulator.ledger.accepted) == 20


async def test_a_row_that_was_given_up_is_not_sent(connect: Connect, path: Path, emulator: Emulator) -> None:
    """A row is given up at each moment of a recover(): it is sent, or given up, and never both."""
    given_up = 0
    for moment in range(20):
        file, prompt = path.with_name(f"{moment}.db"), f"door {moment}"
        await leave(file, Left(QUEUED, prompt))
        async with connect(journal=file, max_concurrency=1) as session, asyncio.timeout(600):
            (row,) = await all_of(session.rows())
            recovering = asyncio.create_task(all_of(session.recover()))
            await turns(moment)
            try:
                await session.discard(row)
            except InvalidRequestError:
                (outcome,) = await recovering
                assert outcome.effect is not None
            else:
                given_up += 1
                assert not [outcome.effect for outcome in await recovering if outcome.effect]
                assert prompt not in prompts(emulator)
                assert [row.state for row in await all_of(session.rows())] == [REFUSED]
    assert given_up


async def test_a_key_belongs_to_one_request(connect: Connect, path: Path, emulator: Emulator) -> None:
    """Two callers of one key at once with different requests: the second hears that, and the first is not harmed."""
    async with connect(journal=path) as session:
        first, second = await asyncio.gather(
            session.generate("door", key="k"), session.generate("window", key="k"), return_exceptions=True
        )
        assert isinstance(second, InvalidRequestError)
        assert not isinstance(first, BaseException)
    assert prompts(emulator) == ["door"]
