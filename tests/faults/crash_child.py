"""A program that makes effects with a journal, and may kill itself at a commit. Run by test_crash_faults.py.

    crash_child.py URL KEY JOURNAL FOLDER COUNT [STATE WHEN]

It makes COUNT effects with keys, after picking up what the journal holds, and saves each. With STATE and WHEN it dies
by SIGKILL `before` or `after` the first commit of that state.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

from finevoice_async import FineVoiceSession, Polling, SfxItem, SubmitUnknownError
from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.adapters.sqlite_journal import SqliteJournal
from finevoice_async.core.ledger import MOVES, EffectState, Move


class DeadlyJournal(SqliteJournal):
    """Kills the process at one state's commit."""

    def __init__(self, path: str, state: str, when: str) -> None:
        super().__init__(path, LoopClock())
        self._deadly = EffectState(state)
        self._when = when

    def begin(self, request: Any, *, key: str | None, state: EffectState, again: Move = Move.QUEUE) -> Any:
        """Begin a row, or die."""
        if state is self._deadly and self._when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        begun = super().begin(request, key=key, state=state, again=again)
        if state is self._deadly:
            begun.add_done_callback(lambda _: os.kill(os.getpid(), signal.SIGKILL))
        return begun

    def move(self, row_id: int, move: Move, **fields: Any) -> Any:
        """Move a row, or die."""
        state = MOVES[move][1]
        if state is self._deadly and self._when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        moved = super().move(row_id, move, **fields)
        if state is self._deadly:
            moved.add_done_callback(lambda _: os.kill(os.getpid(), signal.SIGKILL))
        return moved


async def main(url: str, key: str, path: str, folder: str, count: int, deadly: list[str]) -> None:
    """Pick up, submit the rest, save all."""
    journal = DeadlyJournal(path, *deadly) if deadly else SqliteJournal(path, LoopClock())
    polling = Polling(min_gap=0.01, max_gap=0.1, budget=1000)
    async with FineVoiceSession(key, base_url=url, journal=journal, max_concurrency=4, polling=polling) as session:
        async for outcome in session.recover():
            if outcome.effect:
                await outcome.effect.save(f"{folder}/", overwrite=True)
        done = {row.key for row in await journal.rows(EffectState.SAVED)}
        wanted: list[SfxItem] = [
            {"prompt": f"sound {i}", "key": str(i), "duration": 0.1} for i in range(count) if str(i) not in done
        ]
        async for outcome in session.generate_many(wanted):
            if outcome.effect:
                await outcome.effect.save(f"{folder}/", overwrite=True)
            else:
                assert isinstance(outcome.error, SubmitUnknownError), outcome.error


if __name__ == "__main__":
    url, key, path, folder, count, *deadly = sys.argv[1:]
    asyncio.run(main(url, key, path, folder, int(count), deadly))
