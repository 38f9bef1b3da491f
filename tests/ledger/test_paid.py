"""What errors and reasons say of rows: whether they were paid for, never that they were not where nobody knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
    the_row,
)

from finevoice_async import (
    EffectState,
    FineVoiceError,
    FineVoiceSession,
    InvalidRequestError,
    JournalRow,
    SessionClosedError,
    SubmitUnknownError,
    TaskStatus,
)
from finevoice_async.core.ledger import paid_for
from finevoice_async.emulator import Emulator

PAID = {
    QUEUED: False,
    REFUSED: False,
    UNKNOWN: None,
    LOST: None,
    SUBMITTED: True,
    DONE: True,
    SAVED: True,
    FAILED: True,
}


async def _resubmit(session: FineVoiceSession, row: JournalRow) -> None:
    await session.resubmit(row, accept_double_charge=True)


async def _carelessly(session: FineVoiceSession, row: JournalRow) -> None:
    await session.resubmit(row)


async def _adopt(session: FineVoiceSession, row: JournalRow) -> None:
    await session.adopt(row, task_id="t")


async def _adopt_nonsense(session: FineVoiceSession, row: JournalRow) -> None:
    await session.adopt(row, task_id="..")


async def _discard(session: FineVoiceSession, row: JournalRow) -> None:
    await session.discard(row)


async def _told(session: FineVoiceSession, call: Any, row: JournalRow) -> FineVoiceError:
    with pytest.raises(FineVoiceError) as caught:
        await call(session, row)
    return caught.value


@pytest.mark.parametrize("state", [DONE, SAVED, FAILED, REFUSED])
@pytest.mark.parametrize("call", [_resubmit, _carelessly, _adopt, _adopt_nonsense, _discard])
async def test_what_is_settled(connect: Connect, emulator: Emulator, path: Path, call: Any, state: EffectState) -> None:
    """The error says whether the row was paid for, and which it is."""
    await leave(path, Left(state, "door", key="k"))
    async with connect(journal=path) as session:
        (row,) = await all_of(session.rows())
        error = await _told(session, call, row)
        assert isinstance(error, InvalidRequestError)
        assert error.paid is PAID[state]
        assert (error.key, error.request) == ("k", row.request)
        assert error.task_id == (".." if call is _adopt_nonsense else row.task_id)


@pytest.mark.parametrize("call", [_resubmit, _carelessly, _adopt, _discard])
@pytest.mark.parametrize("state", [UNKNOWN, LOST])
async def test_what_is_in_doubt(
    connect: Connect, emulator: Emulator, path: Path, call: Any, state: EffectState
) -> None:
    """Nobody knows, whatever the error is: a closed session, another's id, a consent that is missing."""
    await leave(path, Left(state, "door", key="k"), Left(SUBMITTED, "other", task_id="t"))
    session = connect(journal=path)
    (row,) = await session.unknown()
    if call in (_carelessly, _adopt):
        assert (await _told(session, call, row)).paid is None
    await session.aclose()
    error = await _told(session, call, row)
    assert (error.paid, error.key, error.task_id) == (None, "k", row.task_id)
    if call is not _carelessly:
        assert isinstance(error, SessionClosedError)


async def test_settled_by_another_meanwhile(connect: Connect, emulator: Emulator, path: Path) -> None:
    """What was read is out of date: the error tells of the row as it is."""
    await leave(path, Left(UNKNOWN, "door", key="k"))
    async with connect(journal=path) as session:
        (row,) = await session.unknown()
        await session.adopt(row, task_id="t")
        error = await _told(session, _discard, row)
        assert (error.paid, error.task_id) == (True, "t")


@pytest.mark.parametrize("state", [UNKNOWN, LOST, QUEUED])
async def test_given_up(connect: Connect, emulator: Emulator, path: Path, state: EffectState) -> None:
    """The row says later that it may have been paid for, and why; and so does who finds it."""
    await leave(path, Left(state, "door", key="k"))
    async with connect(journal=path) as session:
        (row,) = await all_of(session.rows())
        await session.discard(row)
        (given_up,) = await all_of(session.rows(REFUSED))
        reason = str(given_up.error)
        assert reason.startswith("given up by the caller")
        assert ("may have been paid for" in reason) is (state is not QUEUED)
        assert (row.error or "") in reason
        assert paid_for(given_up) is PAID[state]
        task = await session.find(key="k")
        assert task is not None
        if state is UNKNOWN:
            assert task.status is TaskStatus.UNKNOWN
            with pytest.raises(SubmitUnknownError, match="may have been paid for") as caught:
                await task
            assert caught.value.paid is None
        assert (await session.generate("window", key="k")).task_id  # its key is free
    assert (await the_row(path)).request.prompt == "window"


@pytest.mark.parametrize("states", [("saved",), (EffectState.SAVED, "saved"), (None,), ([EffectState.SAVED],)])
async def test_states_that_are_none(connect: Connect, path: Path, states: Any) -> None:
    """rows() takes members of EffectState, and says so before it opens anything."""
    session = connect(journal=path)
    with pytest.raises(InvalidRequestError, match=r"states such as EffectState\.SAVED, not"):
        await all_of(session.rows(*states))
    assert not path.exists()


@pytest.mark.parametrize("row", [7, "7", None, {"id": 7}])
@pytest.mark.parametrize("call", [_resubmit, _carelessly, _adopt, _discard])
async def test_rows_that_are_none(connect: Connect, path: Path, call: Any, row: Any) -> None:
    """So do the calls that settle a row."""
    session = connect(journal=path)
    with pytest.raises(InvalidRequestError, match="must be a JournalRow"):
        await call(session, row)
    assert not path.exists()
