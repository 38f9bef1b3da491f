"""The journal against a model of it: a list of dicts."""

from __future__ import annotations

import asyncio
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journals import AFRESH, LOST, QUEUED, RAIN, SENDING, SUBMITTED, UNKNOWN, opened, past_task_ids

from finevoice_async.core.ledger import FALLS_BACK, GIVES_BACK, KEEPS, MOVES, OF_TASK, EffectState, Move
from finevoice_async.errors import JournalError
from finevoice_async.ports import TaskIdTakenError

pytestmark = pytest.mark.real_time  # there is nothing to wait for but the disk

KEYS = [None, "a", "b", "c"]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.sampled_from(KEYS), st.sampled_from([QUEUED, SENDING]), st.booleans()),
        st.tuples(st.integers(1, 6), st.sampled_from([None, "t1", "t2", "t3"]), st.sampled_from(Move), st.just(False)),
        st.tuples(st.sampled_from(["wait", "reopen"]), st.none(), st.none(), st.just(False)),
    ),
    max_size=30,
)


class Model:
    """A journal as a list of dicts."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def begin(self, key: str | None, state: EffectState, again: Move) -> tuple[int, bool]:
        """Return the number of the row, and whether it is the caller's."""
        for number, row in enumerate(self.rows, 1):
            if key is not None and row["key"] == key:
                mine = row["state"] in MOVES[again][0]
                if mine:
                    self._keep(row, again)
                    row |= {"state": QUEUED, "past": row["past"] + [row["task_id"]] * bool(row["task_id"])}
                    row["task_id"] = None
                return number, mine
        self.rows.append({"key": key, "state": state, "task_id": None, "past": [], "sent": int(state is SENDING)})
        self.rows[-1]["was"] = None
        return len(self.rows), True

    def move(self, number: int, move: Move, task_id: str | None) -> bool | type[JournalError]:
        """Return whether the move is made, or the error that it meets."""
        starts, end = MOVES[move]
        if number > len(self.rows) or (end is SUBMITTED and not task_id):
            return JournalError
        row = self.rows[number - 1]
        if row["state"] not in starts:
            return False
        if move in OF_TASK and task_id not in (None, row["task_id"]):  # another task's word, of an earlier submission
            return False
        if task_id and any(other["task_id"] == task_id for other in self.rows if other is not row):
            return TaskIdTakenError
        if move in KEEPS:
            self._keep(row, move)
        elif row["was"] and row["state"] in FALLS_BACK.get(move, ()):
            return self._fall_back(row, move)
        row["sent"] += (end is SENDING) - (row["state"] is SENDING and move in GIVES_BACK)
        new = task_id or (None if move in AFRESH else row["task_id"])
        if row["task_id"] not in (None, new):
            row["past"].append(row["task_id"])
        row |= {"state": end, "task_id": new}
        return True

    def _keep(self, row: dict[str, Any], move: Move) -> None:
        row["was"] = (row["state"], row["task_id"]) if row["state"] in KEEPS.get(move, ()) else None

    def _fall_back(self, row: dict[str, Any], move: Move) -> bool:
        """Make a row what it was; its task id may be another's by now."""
        (state, task_id), row["was"] = row["was"], None
        row["sent"] -= row["state"] is SENDING and move in GIVES_BACK
        if task_id and any(other["task_id"] == task_id for other in self.rows):
            state, task_id = UNKNOWN if state is LOST else state, None
        elif task_id:
            assert row["past"].pop() == task_id
        row |= {"state": state, "task_id": task_id}
        return True

    def reopen(self) -> None:
        """Do what opening does."""
        for row in self.rows:
            row["state"] = UNKNOWN if row["state"] is SENDING else row["state"]


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_it_does_as_a_simple_model_does(steps: list[Any]) -> None:
    """Whatever is written, in whatever batches and lives, rows and refusals are as in a list of dicts."""

    async def main(path: Path) -> None:
        model, journal = Model(), await opened(path)
        waiting: list[tuple[asyncio.Future[Any], Any]] = []
        for what, name, how, retry in [*steps, ("reopen", None, None, False)]:
            if what == "reopen":
                await journal.aclose()
                journal = await opened(path)
                model.reopen()
            elif what == "wait":
                await asyncio.sleep(0)
            elif what == "begin":
                again = Move.RETRY if retry else Move.QUEUE
                begun = journal.begin(RAIN, key=name, state=how, again=again)
                waiting.append((begun, model.begin(name, how, again)))
            else:
                waiting.append((journal.move(what, how, task_id=name), model.move(what, how, name)))
        for write, expected in waiting:
            if isinstance(expected, type):
                assert type(write.exception()) is expected
            elif isinstance(expected, tuple):
                assert (write.result().row.id, write.result().is_mine) == expected
            else:
                assert write.result() is expected
        rows = await journal.rows()
        past = [(await past_task_ids(journal, row.id)).split() for row in rows]
        found = [{name: getattr(row, name) for name in ("key", "state", "task_id")} for row in rows]
        sent = await journal.sent_since(datetime.min.replace(tzinfo=UTC))
        assert len(sent) == sum(row.pop("sent") for row in model.rows)
        for row in model.rows:
            del row["was"]
        assert [row | {"past": ids} for row, ids in zip(found, past, strict=True)] == model.rows
        await journal.aclose()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder, "effects.db")))
