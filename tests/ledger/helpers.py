"""Journals as earlier processes left them, and journals, slots and services that misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import attrs
from raw_server import Peer, Request, Script

from finevoice_async import EffectState, FineVoiceSession, JournalError, JournalRow, Outcome, SfxRequest, SfxTask
from finevoice_async.adapters.local_slots import LocalSlots
from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.adapters.sqlite_journal import SqliteJournal
from finevoice_async.core.ledger import Move
from finevoice_async.emulator import Emulator
from finevoice_async.ports import Begun

T = TypeVar("T")
Connect = Callable[..., FineVoiceSession]
Visit = Callable[..., FineVoiceSession]
Step = EffectState | Move
"""A write of the journal: a row's beginning by its state, a later move by its name."""

QUEUED, SENDING, SUBMITTED, DONE, SAVED, REFUSED, UNKNOWN, FAILED, LOST = EffectState

LINK: Final = "http://127.0.0.1:9/x.wav"
ACCEPTED: Final = b'{"task_id": "t"}'
RUNNING: Final = b'{"status": 202}'
FINISHED: Final = b'{"status": "completed", "url": "%s"}' % LINK.encode()

_WAYS: Final[dict[EffectState, tuple[Move, ...]]] = {
    QUEUED: (),
    REFUSED: (Move.REFUSE,),
    UNKNOWN: (Move.SEND, Move.DOUBT),
    SUBMITTED: (Move.SEND, Move.ACCEPT),
    DONE: (Move.SEND, Move.ACCEPT, Move.FINISH),
    SAVED: (Move.SEND, Move.ACCEPT, Move.FINISH, Move.SAVE),
    FAILED: (Move.SEND, Move.ACCEPT, Move.FAIL),
    LOST: (Move.SEND, Move.ACCEPT, Move.LOSE),
}


@attrs.frozen
class Left:
    """A row to leave behind. Ages are in seconds: since it was written, and since the rest happened to it."""

    state: EffectState
    prompt: str = "rain"
    key: str | None = attrs.field(default=None, kw_only=True)
    task_id: str | None = attrs.field(default=None, kw_only=True)
    created_ago: float = attrs.field(default=0.0, kw_only=True)
    ago: float = attrs.field(default=0.0, kw_only=True)


class PastClock(LoopClock):
    """The loop's clock, but for the date, which may lie in the past."""

    ago = 0.0

    def utcnow(self) -> datetime:
        """Return the date of some seconds ago."""
        return super().utcnow() - timedelta(seconds=self.ago)


async def leave(path: Path, *wanted: Left) -> list[int]:
    """Write rows as an earlier process left them, and return their numbers."""
    clock = PastClock()
    journal = SqliteJournal(path, clock)
    await journal.open()
    try:
        beginnings, moves = [], []
        for left in wanted:
            clock.ago = left.created_ago
            beginnings.append(journal.begin(SfxRequest(left.prompt), key=left.key, state=QUEUED))
        ids = [begun.row.id for begun in await asyncio.gather(*beginnings)]
        for row_id, left in zip(ids, wanted, strict=True):
            clock.ago = left.ago
            moves += [journal.move(row_id, move, **_fields(move, row_id, left)) for move in _WAYS[left.state]]
        assert all(await asyncio.gather(*moves))
        return ids
    finally:
        await journal.aclose()


def _fields(move: Move, row_id: int, left: Left) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if move in (Move.ACCEPT, Move.FINISH, Move.FAIL, Move.LOSE):
        fields["task_id"] = left.task_id or f"task-{row_id}"
    if move is Move.FINISH:
        fields["urls"] = (LINK,)
    elif move is Move.SAVE:
        fields |= {"path": "/somewhere/x.wav", "sha256": "0" * 64}
    return fields


async def rows(path: Path) -> list[JournalRow]:
    """Read a journal that nobody has open."""
    journal = SqliteJournal(path, LoopClock())
    await journal.open()
    try:
        return await journal.rows()
    finally:
        await journal.aclose()


async def the_row(path: Path) -> JournalRow:
    """Read the only row of a journal that nobody has open."""
    (row,) = await rows(path)
    return row


async def all_of(source: AsyncIterator[T]) -> list[T]:
    """Take everything."""
    return [item async for item in source]


def about(outcomes: Sequence[Outcome], prompt: str) -> list[Outcome]:
    """Return the outcomes of a prompt."""
    return [outcome for outcome in outcomes if outcome.request is not None and outcome.request.prompt == prompt]


def prompts(emulator: Emulator) -> list[str]:
    """Return what was paid for, in alphabetical order."""
    return sorted(str(task.request.prompt) for task in emulator.ledger.accepted.values())


async def occupied(session: FineVoiceSession) -> SfxTask:
    """Let a task take the only slot."""
    return await session.submit("something else")


async def turns(count: int) -> None:
    """Let the loop take so many turns."""
    for _ in range(count):
        await asyncio.sleep(0)


async def check_books(emulator: Emulator, path: Path) -> None:
    """Whatever was paid for is in the journal by its id, or may be what a row says that is unknown."""
    kept = await rows(path)
    known = {row.task_id for row in kept if row.task_id is not None}
    unknown = [row for row in kept if row.state is UNKNOWN]
    assert len(set(emulator.ledger.accepted) - known) <= len(unknown), kept


# Journals


class FaultyJournal(SqliteJournal):
    """Fails to make some writes: by the future, or at once."""

    def __init__(self, path: Path, *steps: Step, error: Exception | None = None, at_once: bool = False) -> None:
        super().__init__(path, LoopClock())
        self.steps = set(steps)
        self._error = error or JournalError("The disk is full.")
        self._at_once = at_once

    def begin(
        self, request: SfxRequest, *, key: str | None, state: EffectState, again: Move = Move.QUEUE
    ) -> asyncio.Future[Begun]:
        """Begin a row, or fail."""
        return self._failed() if state in self.steps else super().begin(request, key=key, state=state, again=again)

    def move(self, row_id: int, move: Move, **fields: Any) -> asyncio.Future[bool]:
        """Move a row, or fail."""
        return self._failed() if move in self.steps else super().move(row_id, move, **fields)

    def _failed(self) -> asyncio.Future[Any]:
        if self._at_once:
            raise self._error
        failed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        failed.set_exception(self._error)
        failed.exception()  # retrieved
        return failed


class HeldJournal(SqliteJournal):
    """Makes its writes, but tells of some of them only when it is let go."""

    def __init__(self, path: Path, *steps: Step) -> None:
        super().__init__(path, LoopClock())
        self.steps = set(steps)
        self.go = asyncio.Event()

    def begin(
        self, request: SfxRequest, *, key: str | None, state: EffectState, again: Move = Move.QUEUE
    ) -> asyncio.Future[Begun]:
        """Begin a row."""
        return self._told(super().begin(request, key=key, state=state, again=again), state)

    def move(self, row_id: int, move: Move, **fields: Any) -> asyncio.Future[bool]:
        """Move a row."""
        return self._told(super().move(row_id, move, **fields), move)

    def _told(self, written: asyncio.Future[T], step: Step) -> asyncio.Future[T]:
        if step not in self.steps or self.go.is_set():
            return written
        return asyncio.ensure_future(self._wait(written))

    async def _wait(self, written: asyncio.Future[T]) -> T:
        await self.go.wait()
        return await written


class SlowReads(SqliteJournal):
    """Takes two seconds for each read."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, LoopClock())

    async def row(
        self, *, row_id: int | None = None, key: str | None = None, task_id: str | None = None
    ) -> JournalRow | None:
        """Read a row."""
        await asyncio.sleep(2)
        return await super().row(row_id=row_id, key=key, task_id=task_id)

    async def row_ids(self, *states: EffectState) -> list[int]:
        """Read numbers."""
        await asyncio.sleep(2)
        return await super().row_ids(*states)

    async def rows(self, *states: EffectState, after: int = 0, limit: int = 1000) -> list[JournalRow]:
        """Read rows."""
        await asyncio.sleep(2)
        return await super().rows(*states, after=after, limit=limit)


# Slots


class BrokenSlots:
    """Slots of another's, one of whose methods raises."""

    def __init__(self, broken: str, error: BaseException, limit: int = 1) -> None:
        self.slots = LocalSlots(limit, LoopClock())
        self.broken = broken
        self.error = error

    def _use(self, name: str) -> None:
        if name == self.broken:
            raise self.error

    def try_acquire(self) -> object | None:
        """Take a slot if one is free."""
        self._use("try_acquire")
        return None if self.broken == "acquire" else self.slots.try_acquire()

    async def acquire(self) -> object:
        """Wait for a slot."""
        self._use("acquire")
        return await self.slots.acquire()

    def occupy(self) -> object:
        """Take a slot, free or not."""
        self._use("occupy")
        return self.slots.occupy()

    def release(self, slot: object) -> None:
        """Give a slot back."""
        self.slots.release(slot)
        self._use("release")

    def slow_down(self, seconds: float) -> None:
        """Use fewer."""
        self._use("slow_down")
        self.slots.slow_down(seconds)

    @property
    def waiting(self) -> int:
        """How many wait."""
        self._use("waiting")
        return self.slots.waiting

    async def aclose(self) -> None:
        """Nobody but their owner may close them."""
        raise AssertionError("they are another's")


# Services


def in_turn(*, posts: Sequence[tuple[int, bytes]], polls: Sequence[tuple[int, bytes]] = ()) -> Script:
    """Return a raw server's script: answers one after another, the last one for ever."""
    left = {"POST": list(posts), "GET": list(polls)}

    async def script(request: Request, peer: Peer) -> None:
        answers = left[request.method]
        status, body = answers.pop(0) if len(answers) > 1 else answers[0]
        peer.answer(status, body)

    return script
