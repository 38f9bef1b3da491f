"""What may be paid for stays so, whatever becomes of a later try: only consent sends it again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from ledger.helpers import (
    LOST,
    SENDING,
    UNKNOWN,
    Connect,
    FaultyJournal,
    Left,
    all_of,
    leave,
    the_row,
    turns,
)

from finevoice_async import (
    AuthenticationError,
    FineVoiceSession,
    InsufficientCreditsError,
    InvalidRequestError,
    JournalError,
    JournalRow,
    RateLimitError,
    RequestRejectedError,
    Retry,
    SessionClosedError,
    SfxTask,
    SubmitNotSentError,
    SubmitUnknownError,
    TaskNotFoundError,
)
from finevoice_async.core.ledger import Move
from finevoice_async.emulator import Emulator
from finevoice_async.emulator.faults import as_fault_name

REFUSALS = {
    400: RequestRejectedError,
    401: AuthenticationError,
    402: InsufficientCreditsError,
    403: AuthenticationError,
    404: RequestRejectedError,
    413: RequestRejectedError,
    422: RequestRejectedError,
}


async def in_doubt(session: FineVoiceSession, emulator: Emulator) -> JournalRow:
    """Submit an effect whose answer is lost, and return its row."""
    emulator.inject("submit.lose_reply")
    with pytest.raises(SubmitUnknownError):
        await session.submit("rain", key="k")
    (row,) = await session.unknown()
    return row


async def check_doubt(connect: Connect, path: Path, emulator: Emulator, *, paid: int = 1) -> None:
    """A later session knows the doubt, lists it, and pays nothing for the key."""
    emulator.heal()
    async with connect(journal=path) as session:
        (row,) = await session.unknown()
        assert row.state is UNKNOWN
        for retry_failed in (False, True):
            with pytest.raises(SubmitUnknownError):
                await session.generate("rain", key="k", retry_failed=retry_failed)
        (outcome,) = await all_of(session.generate_many([{"prompt": "rain", "key": "k"}]))
        assert isinstance(outcome.error, SubmitUnknownError)
        (outcome,) = await all_of(session.recover())
        assert isinstance(outcome.error, SubmitUnknownError)
        with pytest.raises(InvalidRequestError, match="accept_double_charge"):
            await session.resubmit(row)
    assert len(emulator.ledger.accepted) == paid


@pytest.mark.parametrize("status", REFUSALS)
async def test_a_resubmission_is_refused(connect: Connect, path: Path, emulator: Emulator, status: int) -> None:
    """Whatever refuses the second try, the first may be paid for: the row stays unknown, and the error says why."""
    async with connect(journal=path) as session:
        row = await in_doubt(session, emulator)
        emulator.inject("submit.refuse", value=status)
        with pytest.raises(SubmitUnknownError) as caught:
            await session.resubmit(row, accept_double_charge=True)
        assert isinstance(caught.value.__cause__, REFUSALS[status])
        assert caught.value.request == row.request
        assert [row.state for row in await session.unknown()] == [UNKNOWN]
    await check_doubt(connect, path, emulator)


async def test_a_resubmission_meets_429_for_ever(connect: Connect, path: Path, emulator: Emulator) -> None:
    """429 after all patience leaves the row unknown."""
    async with connect(journal=path) as session:
        row = await in_doubt(session, emulator)
        emulator.inject("submit.rate_limit", 1000)
        with pytest.raises(SubmitUnknownError) as caught:
            await session.resubmit(row, accept_double_charge=True)
        assert isinstance(caught.value.__cause__, RateLimitError)
    await check_doubt(connect, path, emulator)


async def test_a_resubmission_does_not_reach_the_service(connect: Connect, path: Path, emulator: Emulator) -> None:
    """A service that is away leaves the row unknown."""
    async with connect(journal=path) as session:
        row = await in_doubt(session, emulator)
        await emulator.aclose()
        with pytest.raises(SubmitUnknownError) as caught:
            await session.resubmit(row, accept_double_charge=True)
        assert isinstance(caught.value.__cause__, SubmitNotSentError)
    await emulator.start()
    await check_doubt(connect, path, emulator)


@pytest.mark.parametrize("fault", ["lose_reply", "error_500", "garbage", "unavailable"])
async def test_a_resubmission_is_unknown_too(connect: Connect, path: Path, emulator: Emulator, fault: str) -> None:
    """A second doubt is a doubt."""
    async with connect(journal=path) as session:
        row = await in_doubt(session, emulator)
        emulator.inject(as_fault_name(f"submit.{fault}"))
        with pytest.raises(SubmitUnknownError):
            await session.resubmit(row, accept_double_charge=True)
    await check_doubt(connect, path, emulator, paid=1 if fault == "unavailable" else 2)


@pytest.mark.parametrize("where", ["slot", "429", "answer"])
@pytest.mark.parametrize("how", ["close", "cancel"])
async def test_a_resubmission_is_stopped(
    connect: Connect, path: Path, emulator: Emulator, where: str, how: str
) -> None:
    """Closed or cancelled while it waits for its slot, its next try or its answer, it leaves the row unknown."""
    session = connect(journal=path, max_concurrency=1)
    row = await in_doubt(session, emulator)
    if where == "slot":
        emulator.inject("task.never_ends")
        await session.submit("something else")
    elif where == "429":
        emulator.inject("submit.rate_limit", value=30)
    else:
        emulator.inject("submit.hang")
    again = asyncio.create_task(session.resubmit(row, accept_double_charge=True))
    await asyncio.sleep(1)
    if how == "cancel":
        again.cancel()
        await asyncio.wait([again])
        assert again.cancelled()
    await session.aclose(timeout=0.5)
    if how == "close":
        with pytest.raises((SessionClosedError, SubmitUnknownError)):
            await again
    paid = len(emulator.ledger.accepted)
    emulator.heal()
    async with connect(journal=path) as session:
        assert [row.key for row in await session.unknown()] == ["k"]
        with pytest.raises(SubmitUnknownError):
            await session.generate("rain", key="k")
    assert len(emulator.ledger.accepted) == paid


@pytest.mark.parametrize("step", [Move.RESEND, Move.DOUBT])
async def test_the_journal_fails_during_a_resubmission(
    connect: Connect, path: Path, emulator: Emulator, step: Move
) -> None:
    """A journal that fails before or after the second try leaves the row unknown."""
    journal = FaultyJournal(path)
    async with connect(journal=journal) as session:
        row = await in_doubt(session, emulator)
        journal.steps = {step}
        emulator.inject("submit.refuse")
        with pytest.raises((SubmitUnknownError, JournalError)):
            await session.resubmit(row, accept_double_charge=True)
    await check_doubt(connect, path, emulator)


async def test_a_lost_task_is_sent_again_and_refused(connect: Connect, path: Path, emulator: Emulator) -> None:
    """A row whose task the service lost may be paid for, also after its second try was refused."""
    await leave(path, Left(LOST, key="k"))
    async with connect(journal=path) as session:
        (row,) = await session.unknown()
        assert row.state is LOST
        with pytest.raises(TaskNotFoundError) as lost:
            await session.generate("rain", key="k", retry_failed=True)
        assert lost.value.task_id == row.task_id
        emulator.inject("submit.refuse")
        with pytest.raises(SubmitUnknownError):
            await session.resubmit(row, accept_double_charge=True)
    kept = await the_row(path)
    assert (kept.state, kept.task_id, kept.error) == (LOST, row.task_id, row.error)
    async with connect(journal=path) as session:
        with pytest.raises(TaskNotFoundError) as lost:
            await session.generate("rain", key="k", retry_failed=True)
        assert lost.value.paid is None
    assert not emulator.ledger.accepted


@pytest.mark.parametrize("journalled", [True, False])
@pytest.mark.parametrize("status", [*REFUSALS, 429])
async def test_resend_unknown_then_refused(
    connect: Connect, path: Path, emulator: Emulator, status: int, journalled: bool
) -> None:
    """Within one call the first POST is unknown and the second refused: the call is unknown."""
    journal, key = (path, "k") if journalled else (None, None)
    retry = Retry(resend_unknown=True, attempts=3, first_delay=1)
    async with connect(journal=journal, retry=retry) as session:
        emulator.inject("submit.lose_reply")
        emulator.inject("submit.refuse", 5, value=status)
        with pytest.raises(SubmitUnknownError) as caught:
            await session.submit("rain", key=key)
        assert isinstance(caught.value.__cause__, {**REFUSALS, 429: RateLimitError}[status])
    if journalled:
        await check_doubt(connect, path, emulator)


async def test_resend_unknown_then_unreachable(connect: Connect, path: Path, emulator: Emulator) -> None:
    """Within one call the first POST is unknown and the service away afterwards: the call is unknown."""
    async with connect(journal=path, retry=Retry(resend_unknown=True, first_delay=5)) as session:
        emulator.inject("submit.lose_reply")
        submission = asyncio.create_task(session.submit("rain", key="k"))
        await asyncio.sleep(0.01)
        await emulator.aclose()
        with pytest.raises(SubmitUnknownError):
            await submission
    await emulator.start()
    await check_doubt(connect, path, emulator)


@pytest.mark.parametrize("how", ["close", "cancel"])
async def test_resend_unknown_is_stopped_between_two_tries(
    connect: Connect, path: Path, emulator: Emulator, how: str
) -> None:
    """Stopped while it waits for its second try, a call is unknown, in the journal and to its caller."""
    session = connect(journal=path, retry=Retry(resend_unknown=True, first_delay=1000, max_delay=1000))
    emulator.inject("submit.lose_reply")
    submission = asyncio.create_task(session.submit("rain", key="k"))
    await asyncio.sleep(0.1)
    assert len(emulator.ledger.accepted) == 1
    if how == "cancel":
        submission.cancel()
        await asyncio.sleep(0.1)
    await session.aclose()
    if how == "close":
        with pytest.raises(SubmitUnknownError):
            await submission
    await check_doubt(connect, path, emulator)


async def test_a_crash_between_two_tries(connect: Connect, path: Path, emulator: Emulator) -> None:
    """While a call waits for its second try, its row does not say that nothing was sent."""
    async with connect(journal=path, retry=Retry(resend_unknown=True, first_delay=1000, max_delay=1000)) as session:
        emulator.inject("submit.lose_reply")
        submission = asyncio.create_task(session.submit("rain", key="k"))
        await asyncio.sleep(0.1)
        (row,) = await all_of(session.rows())
        assert row.state in (UNKNOWN, SENDING)
        submission.cancel()


async def test_consent_holds_for_one_try(connect: Connect, path: Path, emulator: Emulator) -> None:
    """A row is read once and sent again twice: the second call finds it settled."""
    async with connect(journal=path) as session:
        row = await in_doubt(session, emulator)
        task = await session.resubmit(row, accept_double_charge=True)
        with pytest.raises(InvalidRequestError):
            await session.resubmit(row, accept_double_charge=True)
        await task
        with pytest.raises(InvalidRequestError):
            await session.resubmit(row, accept_double_charge=True)
        assert (await session.generate("rain", key="k")).task_id == task.id
    assert len(emulator.ledger.accepted) == 2


@pytest.mark.parametrize("moment", range(0, 24, 2))
async def test_a_caller_beside_a_resubmission(connect: Connect, path: Path, emulator: Emulator, moment: int) -> None:
    """A caller of the key comes while its row is sent again: it shares that try, or hears of the doubt."""
    async with connect(journal=path) as session:
        row = await in_doubt(session, emulator)
        again = asyncio.create_task(session.resubmit(row, accept_double_charge=True))
        await turns(moment)
        calling = asyncio.create_task(session.submit("rain", key="k"))
        task, told = await asyncio.gather(again, calling, return_exceptions=True)
        if isinstance(task, SfxTask):
            assert isinstance(told, SubmitUnknownError) or (isinstance(told, SfxTask) and told.id == task.id)
        else:  # the key was being looked up
            assert isinstance(task, InvalidRequestError)
            assert isinstance(told, SubmitUnknownError)
    assert len(emulator.ledger.accepted) == 1 + isinstance(task, SfxTask)


async def test_a_crash_during_a_resubmission(connect: Connect, path: Path, emulator: Emulator) -> None:
    """While the second POST is under way, the row says what a crash would leave: nobody knows."""
    async with connect(journal=path) as session:
        row = await in_doubt(session, emulator)
        emulator.inject("submit.slow")
        again = asyncio.create_task(session.resubmit(row, accept_double_charge=True))
        await asyncio.sleep(1)
        assert [row.state async for row in session.rows()] == [SENDING]
        await again
    assert (await the_row(path)).task_id == list(emulator.ledger.accepted)[1]
