"""The fakes keep the promises of the real ones: the journal in memory does as the one in a file."""

from __future__ import annotations

import asyncio
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest
from fake_journal import FakeJournal
from fakes import FakeSlots
from hypothesis import given, settings
from hypothesis import strategies as st

from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.adapters.sqlite_journal import SqliteJournal
from finevoice_async.core.ledger import MOVES, OF_TASK, EffectState, JournalRow, Move
from finevoice_async.core.requests import SfxRequest
from finevoice_async.errors import JournalError
from finevoice_async.ports import Journal

LONG_AGO = datetime.min.replace(tzinfo=UTC)
KEYS, IDS = [None, "a", "b"], [None, "t1", "t2"]
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("begin"),
            st.sampled_from(KEYS),
            st.sampled_from([EffectState.QUEUED, EffectState.SENDING]),
            st.sampled_from([Move.QUEUE, Move.RETRY]),
            st.sampled_from(["rain", "wind"]),
        ),
        st.tuples(
            st.just("move"), st.integers(1, 4), st.sampled_from(Move), st.sampled_from([None, "t1", "t2"]), st.none()
        ),
    ),
    max_size=30,
)


def without_times(row: JournalRow) -> dict[str, Any]:
    """Return all of a row but when it was written; of the submission, whether it was."""
    fields = attrs.asdict(row, recurse=False)
    return fields | {"created_at": None, "updated_at": None, "submitted_at": row.submitted_at is not None}


async def do(journal: Journal, step: tuple[Any, ...]) -> object:
    """Do a step, and return what comes of it."""
    what, first, second, third, fourth = step
    try:
        if what == "begin":
            begun = await journal.begin(SfxRequest(fourth), key=first, state=second, again=third)
            return begun.is_mine, without_times(begun.row)
        fields: dict[str, Any] = {"error": f"by {second.value}"}
        if second in OF_TASK:
            fields["task_id"] = third
        if MOVES[second][1] is EffectState.SUBMITTED:
            fields["task_id"] = third or "t3"
        if second in (Move.ANSWER, Move.FINISH):
            fields["urls"] = ("https://cdn.test/1",)
        if second is Move.SAVE:
            fields |= {"path": "/a", "sha256": "b"}
        return await journal.move(first, second, **fields)
    except JournalError as error:
        return type(error), error.task_id


@settings(max_examples=20, deadline=None)
@given(STEPS)
def test_a_journal_in_memory_does_as_one_in_a_file(steps: list[tuple[Any, ...]]) -> None:
    """Whatever is written, rows, refusals and what is found are the same; also after the next opening."""

    async def main(path: Path) -> None:
        real, fake = SqliteJournal(path, LoopClock()), FakeJournal()
        await real.open()
        await fake.open()
        for step in steps:
            assert await do(fake, step) == await do(real, step), step
            assert len(await fake.sent_since(LONG_AGO)) == len(await real.sent_since(LONG_AGO)), step
        await real.aclose()
        await fake.aclose()
        real = SqliteJournal(path, LoopClock())
        await real.open()
        await fake.open()
        rows = await real.rows()
        assert [without_times(row) for row in await fake.rows()] == [without_times(row) for row in rows]
        assert len(await fake.sent_since(LONG_AGO)) == len(await real.sent_since(LONG_AGO))
        for states in ((), (EffectState.QUEUED,), (EffectState.UNKNOWN, EffectState.DONE)):
            assert await fake.row_ids(*states) == await real.row_ids(*states)
            page = [row.id for row in await real.rows(*states, after=1, limit=2)]
            assert [row.id for row in await fake.rows(*states, after=1, limit=2)] == page
        for row in rows:
            for given_ in ({"row_id": row.id}, {"key": row.key}, {"task_id": row.task_id}):
                if None not in given_.values():
                    found = await fake.row(**given_)
                    assert found is not None
                    assert found.id == row.id
        await real.aclose()
        await fake.aclose()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder, "effects.db")))


async def test_a_journal_that_is_closed() -> None:
    """Before the opening and after the closing every write fails, by its future."""
    journal = FakeJournal()
    for _ in range(2):
        with pytest.raises(JournalError):
            await journal.begin(SfxRequest("rain"), key=None, state=EffectState.QUEUED)
        with pytest.raises(JournalError):
            await journal.load("note")
        await journal.open()
        assert await journal.load("note") is None
        await journal.aclose()


async def test_slots_that_are_given_back_twice_are_noticed() -> None:
    """Each slot is one of its own."""
    slots = FakeSlots(1)
    slot = slots.try_acquire()
    slots.release(slot)
    assert slots.complaints == []
    slots.release(slot)
    assert len(slots.complaints) == 1


async def test_slots_in_order() -> None:
    """Who waits gets the next slot, first come, first served; who is cancelled takes none."""
    slots = FakeSlots(1)
    held = slots.occupy()
    waiting = [asyncio.create_task(slots.acquire()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    slots.release(held)
    waiting[1].cancel()
    await asyncio.sleep(1)
    assert [job.done() for job in waiting] == [True] * 3
    assert slots.out == {waiting[2].result()}
    assert slots.try_acquire() is None
