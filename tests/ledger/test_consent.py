"""A consent to pay again holds for one try: one that came to nothing leaves the failure, and asks for another."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from ledger.helpers import FAILED, LOST, QUEUED, REFUSED, UNKNOWN, Connect, Left, leave, occupied, prompts, the_row

from finevoice_async import (
    Budget,
    BudgetExceededError,
    FineVoiceError,
    FineVoiceSession,
    InvalidRequestError,
    QueueFullError,
    RequestRejectedError,
    Retry,
    SessionClosedError,
    SubmitUnknownError,
    TaskFailedError,
    TaskNotFoundError,
)
from finevoice_async.emulator import Constant, Emulator


async def _refused(session: FineVoiceSession, emulator: Emulator) -> None:
    emulator.inject("submit.reject")
    with pytest.raises(RequestRejectedError):
        await session.submit("door", key="k", retry_failed=True)


async def _busy(session: FineVoiceSession, emulator: Emulator) -> None:
    emulator.inject("submit.rate_limit")
    with pytest.raises(FineVoiceError, match="429"):
        await session.submit("door", key="k", retry_failed=True)


async def _withdrawn(session: FineVoiceSession, emulator: Emulator) -> None:
    await _occupy(session)
    task = await session.enqueue("door", key="k", retry_failed=True)
    assert await task.withdraw()


async def _cancelled(session: FineVoiceSession, emulator: Emulator) -> None:
    await _occupy(session)
    calling = asyncio.create_task(session.submit("door", key="k", retry_failed=True))
    await asyncio.sleep(0.1)
    calling.cancel()
    await asyncio.wait([calling])
    await asyncio.sleep(0.1)


async def _queue_full(session: FineVoiceSession, emulator: Emulator) -> None:
    await _occupy(session)
    await session.enqueue("in the way")
    with pytest.raises(QueueFullError):
        await session.submit("door", key="k", retry_failed=True)
    await asyncio.sleep(20)


async def _occupy(session: FineVoiceSession) -> None:
    for _ in range(2):
        await occupied(session)


Way = Callable[[FineVoiceSession, Emulator], Awaitable[None]]


@pytest.mark.parametrize("way", [_refused, _busy, _withdrawn, _cancelled, _queue_full])
async def test_a_try_that_comes_to_nothing(
    connect: Connect, emulator: Emulator, kept_in: dict[str, Any], way: Way
) -> None:
    """The key's effect has failed still, and says why; it is paid for again only with a consent of its own."""
    emulator.service_time = Constant(5)
    async with connect(max_concurrency=2, max_queue=1, retry=Retry(attempts=1), **kept_in) as session:
        emulator.inject("task.fail")
        with pytest.raises(TaskFailedError) as first:
            await session.generate("door", key="k")
        await way(session, emulator)
        posts = emulator.ledger.posts
        with pytest.raises(TaskFailedError) as still:
            await session.generate("door", key="k")
        assert still.value.task_id == first.value.task_id
        assert still.value.paid is True
        task = await session.find(key="k")
        assert task is not None
        assert task.task_id == task.id == first.value.task_id
        with pytest.raises(InvalidRequestError, match="another request"):
            await session.generate("window", key="k")
        assert emulator.ledger.posts == posts
        await asyncio.sleep(60)
        assert (await session.generate("door", key="k", retry_failed=True)).task_id != first.value.task_id


async def test_a_retry_of_another_request_is_refused(
    connect: Connect, emulator: Emulator, kept_in: dict[str, Any]
) -> None:
    """The key is the failed request's still, not that of the mended one which was refused."""
    emulator.inject("task.fail")
    async with connect(**kept_in) as session:
        with pytest.raises(TaskFailedError):
            await session.generate("door", key="k")
        emulator.inject("submit.reject")
        with pytest.raises(RequestRejectedError):
            await session.generate("window", key="k", retry_failed=True)
        with pytest.raises(TaskFailedError):
            await session.generate("door", key="k")
        effect = await session.generate("window", key="k", retry_failed=True)
        assert effect.task_id == list(emulator.ledger.accepted)[1]


@pytest.mark.parametrize("how", ["closed", "budget"])
async def test_what_a_session_could_not_send(connect: Connect, emulator: Emulator, path: Path, how: str) -> None:
    """A caller's retry that a closing or a budget stops leaves the failure, also for later sessions."""
    await leave(path, Left(FAILED, "door", key="k"))
    before = await the_row(path)
    budget = Budget(effects=1, per=timedelta(days=1)) if how == "budget" else None
    async with connect(journal=path, max_concurrency=1, budget=budget) as session:
        if how == "budget":
            with pytest.raises(BudgetExceededError):
                await session.generate("door", key="k", retry_failed=True)
        else:
            await occupied(session)
            calling = asyncio.create_task(session.submit("door", key="k", retry_failed=True))
            await asyncio.sleep(0.1)
    if how == "closed":
        with pytest.raises(SessionClosedError):
            await calling
    async with connect(journal=path) as session:
        with pytest.raises(TaskFailedError, match="retry_failed=True") as caught:
            await session.generate("door", key="k")
    assert caught.value.task_id == before.task_id
    assert "door" not in prompts(emulator)


@pytest.mark.parametrize("state", [LOST, UNKNOWN])
@pytest.mark.parametrize("how", ["refused", "cancelled"])
async def test_a_resend_that_comes_to_nothing(
    connect: Connect, emulator: Emulator, path: Path, state: Any, how: str
) -> None:
    """What may be paid for is as it was, with its id and its reason, and whoever wants it needs to settle it."""
    await leave(path, Left(state, "door", key="k"))
    before = await the_row(path)
    async with connect(journal=path, max_concurrency=1) as session:
        if how == "cancelled":
            await occupied(session)
        emulator.inject("submit.reject")
        sending = asyncio.create_task(session.resubmit(before, accept_double_charge=True))
        await asyncio.sleep(0.5)
        sending.cancel()
        await asyncio.wait([sending])
        if not sending.cancelled():
            error = sending.exception()
            assert isinstance(error, FineVoiceError)
            assert error.paid is None
        (row,) = await session.unknown()
        assert (row.state, row.task_id, row.error) == (before.state, before.task_id, before.error)
        with pytest.raises(FineVoiceError) as caught:
            await session.generate("door", key="k", retry_failed=True)
        assert isinstance(caught.value, TaskNotFoundError) is (state is LOST)
        assert caught.value.task_id == before.task_id
    assert "door" not in prompts(emulator)


@pytest.mark.parametrize(
    "left", [Left(QUEUED, "door", key="k"), Left(REFUSED, "door", key="k")], ids=["queued", "refused"]
)
async def test_giving_up_what_was_sent_meanwhile(connect: Connect, path: Path, emulator: Emulator, left: Left) -> None:
    """Who gives up a row that was never sent does not give up what may have been paid for since."""
    await leave(path, left)
    before = await the_row(path)
    async with connect(journal=path) as session:
        emulator.inject("submit.lose_reply")
        with pytest.raises(SubmitUnknownError):
            await session.submit("door", key="k")
        with pytest.raises(InvalidRequestError, match="sent meanwhile") as told:
            await session.discard(before)
        assert told.value.paid is None
        with pytest.raises(SubmitUnknownError):
            await session.submit("door", key="k")
        (row,) = await session.unknown()
        await session.discard(row)
    assert len(emulator.ledger.accepted) == 1
