"""A key is bound to its request as long as anything may come of it, and no longer."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from ledger.helpers import (
    DONE,
    FAILED,
    LOST,
    QUEUED,
    REFUSED,
    SAVED,
    SUBMITTED,
    UNKNOWN,
    Connect,
    Left,
    all_of,
    leave,
    prompts,
    the_row,
)

from finevoice_async import EffectState, FineVoiceError, InvalidRequestError, Retry, SfxItem
from finevoice_async.core.brake import KEY_PAUSE
from finevoice_async.emulator import Emulator


@pytest.mark.parametrize("again", ["now", "later"])
@pytest.mark.parametrize("fault", [400, 401, 402, 403, 404, 413, 422, 429])
async def test_a_refused_key_takes_another_request(
    connect: Connect, path: Path, emulator: Emulator, fault: int, again: str
) -> None:
    """After a refusal the key is free, now and in a later session: for the same request, and for a mended one."""
    session = connect(journal=path, retry=Retry(attempts=1))
    for prompt in ("rian", "rian", "rainn"):
        emulator.inject("submit.refuse", value=fault)
        with pytest.raises(FineVoiceError):
            await session.generate(prompt, key="k")
        await asyncio.sleep(KEY_PAUSE)  # after a 401
    if again == "later":
        await session.aclose()
        session = connect(journal=path)
    effect = await session.generate("rain", key="k", duration=3)
    assert (await session.generate("rain", key="k", duration=3)).task_id == effect.task_id
    with pytest.raises(InvalidRequestError, match="another request"):
        await session.generate("rian", key="k")
    await session.aclose()
    row = await the_row(path)
    assert (row.state, row.request.prompt, row.request.duration) == (DONE, "rain", 3)
    assert row.error is None
    assert prompts(emulator) == ["rain"]


@pytest.mark.parametrize("how", ["unreachable", "cancelled", "closed", "discarded"])
async def test_what_was_never_sent_frees_its_key(connect: Connect, path: Path, emulator: Emulator, how: str) -> None:
    """A key whose effect was not sent, for whatever reason, is free for another request."""
    if how == "discarded":
        await leave(path, Left(QUEUED, "rian", key="k"))
    session = connect(journal=path, max_concurrency=1, retry=Retry(attempts=1))
    if how == "discarded":
        (row,) = await all_of(session.rows())
        await session.discard(row)
    elif how == "unreachable":
        await emulator.aclose()
        with pytest.raises(FineVoiceError):
            await session.generate("rian", key="k")
        await emulator.start()
    else:
        await session.submit("something else")
        waiting = asyncio.create_task(session.submit("rian", key="k"))
        await asyncio.sleep(0.1)
        if how == "cancelled":
            waiting.cancel()
        else:
            await session.aclose()
            session = connect(journal=path)
        await asyncio.gather(waiting, return_exceptions=True)
    assert (await session.generate("rain", key="k")).task_id
    await session.aclose()
    assert "rian" not in prompts(emulator)
    assert "rain" in prompts(emulator)


@pytest.mark.parametrize("retry_failed", [False, True])
@pytest.mark.parametrize("state", [QUEUED, SUBMITTED, DONE, SAVED, UNKNOWN, LOST])
async def test_a_key_that_is_bound(
    connect: Connect, path: Path, emulator: Emulator, state: EffectState, retry_failed: bool
) -> None:
    """A key whose effect waits, runs, is made or may be paid for refuses another request, and is left as it was."""
    await leave(path, Left(state, "rain", key="k"))
    async with connect(journal=path) as session:
        with pytest.raises(InvalidRequestError, match="another request"):
            await session.submit("wind", key="k", retry_failed=retry_failed)
        wanted: list[SfxItem] = [{"prompt": "wind", "key": "k"}]
        (outcome,) = await all_of(session.generate_many(wanted, retry_failed=retry_failed))
        assert isinstance(outcome.error, InvalidRequestError)
    row = await the_row(path)
    assert (row.state, row.request.prompt) == (state, "rain")
    assert not emulator.ledger.posts


async def test_a_failed_key_and_another_request(connect: Connect, path: Path, emulator: Emulator) -> None:
    """A key whose effect failed refuses another request, unless the caller pays for another try."""
    await leave(path, Left(FAILED, "rain", key="k"))
    async with connect(journal=path) as session:
        with pytest.raises(FineVoiceError):
            await session.submit("wind", key="k")
        assert not emulator.ledger.posts
        assert (await session.generate("wind", key="k", retry_failed=True)).task_id
    row = await the_row(path)
    assert (row.state, row.request.prompt) == (DONE, "wind")


async def test_a_key_that_is_being_sent(connect: Connect, path: Path, emulator: Emulator) -> None:
    """Another request under a key whose POST is under way is refused, and the POST goes on."""
    emulator.inject("submit.slow")
    async with connect(journal=path) as session:
        first = asyncio.create_task(session.submit("rain", key="k"))
        await asyncio.sleep(1)
        with pytest.raises(InvalidRequestError, match="another request"):
            await session.submit("wind", key="k")
        assert (await first).id in emulator.ledger.accepted
    assert prompts(emulator) == ["rain"]


async def test_a_refused_row_is_not_recovered(connect: Connect, path: Path, emulator: Emulator) -> None:
    """recover() sends nothing that was refused."""
    await leave(path, Left(REFUSED, "rain", key="k"), Left(FAILED, "wind"))
    async with connect(journal=path) as session:
        assert not await all_of(session.recover())
    assert not emulator.ledger.posts
