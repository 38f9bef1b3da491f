"""What runs when a journal is opened holds its slots before anything new is submitted, and is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from ledger.helpers import (
    DONE,
    RUNNING,
    SUBMITTED,
    UNKNOWN,
    Connect,
    Left,
    Visit,
    all_of,
    in_turn,
    leave,
    rows,
)
from raw_server import RawServer

from finevoice_async import FineVoiceSession, JournalError, JournalRow, SubmitUnknownError
from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.adapters.sqlite_journal import SqliteJournal
from finevoice_async.core.ledger import EffectState
from finevoice_async.emulator import Constant, Emulator


async def left_running(connect: Connect, path: Path, emulator: Emulator, count: int = 2) -> list[str]:
    """Leave so many tasks running for a minute, and an unknown row; return the ids."""
    emulator.service_time = Constant(60)
    async with connect(journal=path, max_concurrency=count + 1) as session:
        tasks = [await session.submit(f"old {number}") for number in range(count)]
    await leave(path, Left(UNKNOWN, "unknown"))
    return [str(task.id) for task in tasks]


async def _submit(session: FineVoiceSession) -> None:
    await session.submit("new")


async def _submit_with_key(session: FineVoiceSession) -> None:
    await session.submit("new", key="k")


async def _generate_many(session: FineVoiceSession) -> None:
    await all_of(session.generate_many(["new", "newer"]))


async def _attach_first(session: FineVoiceSession) -> None:
    await session.attach("garbage")
    await session.submit("new")


async def _unknown_first(session: FineVoiceSession) -> None:
    await session.unknown()
    await session.submit("new")


async def _resubmit(session: FineVoiceSession) -> None:
    (row,) = await session.unknown()
    await session.resubmit(row, accept_double_charge=True)


async def _recover_beside(session: FineVoiceSession) -> None:
    await asyncio.gather(session.submit("new"), all_of(session.recover()))


async def _at_once(session: FineVoiceSession) -> None:
    await asyncio.gather(*[session.submit(f"new {number}") for number in range(3)])


@pytest.mark.parametrize(
    "first",
    [
        _submit,
        _submit_with_key,
        _generate_many,
        _attach_first,
        _unknown_first,
        _resubmit,
        _recover_beside,
        _at_once,
    ],
)
@pytest.mark.parametrize("entered", [True, False])
async def test_old_tasks_hold_their_slots(
    connect: Connect,
    path: Path,
    emulator: Emulator,
    first: Callable[[FineVoiceSession], Awaitable[None]],
    entered: bool,
) -> None:
    """Whatever a session does first, it starts nothing while the journal's own tasks fill the plan."""
    await left_running(connect, path, emulator)
    session = connect(journal=path, max_concurrency=2)
    if entered:
        await session.__aenter__()
    await first(session)
    await session.aclose()
    assert emulator.ledger.most_running == 2
    assert len(emulator.ledger.accepted) > 2


async def test_old_tasks_beyond_the_plan(connect: Connect, path: Path, emulator: Emulator) -> None:
    """An earlier process had a larger plan: nothing new starts until fewer run than this one may."""
    await left_running(connect, path, emulator, 4)
    async with connect(journal=path, max_concurrency=2) as session:
        submission = asyncio.create_task(session.submit("new"))
        await asyncio.sleep(30)
        assert not submission.done()
        await submission
        assert emulator.running <= 2


async def test_old_tasks_are_asked_for_by_themselves(connect: Connect, path: Path, emulator: Emulator) -> None:
    """A session that is only opened finds the ends of the journal's tasks."""
    ids = await left_running(connect, path, emulator)
    async with connect(journal=path) as session:
        assert sorted(str(task.id) for task in session.tasks) == sorted(ids)
        assert session.stats.running == 2
        await asyncio.sleep(120)
        assert session.stats.running == 0
    assert [row.state for row in await rows(path) if row.task_id] == [DONE, DONE]


async def test_recover_gives_what_ended_since_the_opening(connect: Connect, path: Path, emulator: Emulator) -> None:
    """Tasks that end between the opening and a late recover() are given all the same, once."""
    ids = await left_running(connect, path, emulator)
    async with connect(journal=path) as session:
        await asyncio.sleep(120)
        outcomes = await all_of(session.recover())
        assert sorted(str(outcome.task_id) for outcome in outcomes if outcome.effect) == sorted(ids)
        assert [type(outcome.error) for outcome in outcomes if outcome.error] == [SubmitUnknownError]


async def test_more_old_tasks_than_a_page(visit: Visit, path: Path) -> None:
    """Hundreds of old tasks, more than are read at once, all hold slots."""
    await leave(path, *[Left(SUBMITTED, task_id=f"t{number}") for number in range(510)])
    async with (
        RawServer(in_turn(posts=[(500, b"")], polls=[(200, RUNNING)])) as server,
        visit(server.url, journal=path, max_concurrency=508) as session,
    ):
        submission = asyncio.create_task(session.submit("new"))
        await asyncio.sleep(20)
        assert server.count("POST") == 0
        assert session.stats.running == 510
        submission.cancel()


class _BadReads(SqliteJournal):
    """Its reads fail while it is told so."""

    fails = True

    async def rows(self, *states: EffectState, after: int = 0, limit: int = 1000) -> list[JournalRow]:
        """Read rows, or fail."""
        self._check()
        return await super().rows(*states, after=after, limit=limit)

    async def row_ids(self, *states: EffectState) -> list[int]:
        """Read numbers, or fail."""
        self._check()
        return await super().row_ids(*states)

    def _check(self) -> None:
        if self.fails:
            raise JournalError("The disk does not answer.")


async def test_an_opening_that_fails_is_tried_again(connect: Connect, path: Path, emulator: Emulator) -> None:
    """A journal that cannot be read at the opening means no submission; later the old tasks hold their slots."""
    await left_running(connect, path, emulator)
    journal = _BadReads(path, LoopClock())
    session = connect(journal=journal, max_concurrency=2)
    with pytest.raises(JournalError):
        await session.submit("too early")
    journal.fails = False
    await session.submit("new")
    await session.aclose()
    assert emulator.ledger.most_running == 2
    assert len(emulator.ledger.accepted) == 3
