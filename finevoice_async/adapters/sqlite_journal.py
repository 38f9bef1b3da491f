"""The journal in an SQLite file.

The file is touched on one thread, by one connection, which keeps it locked. Writes queue up in the order of the
calls; whatever waits when the thread is free goes into one transaction, so that many effects share one fsync.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import enum
import logging
import os
import sqlite3
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import attrs

from finevoice_async.adapters import journal_rows, journal_schema
from finevoice_async.core.ledger import MOVES, EffectState, JournalRow, Move
from finevoice_async.core.requests import SfxRequest
from finevoice_async.core.text import shorten
from finevoice_async.errors import JournalError
from finevoice_async.ports import Begun, Clock
from finevoice_async.reprs import with_safe_repr

log = logging.getLogger("finevoice_async")
_T = TypeVar("_T")
_Run = Callable[[sqlite3.Connection], _T]

MAX_BATCH = 500
"""Writes in one commit: more would hardly be cheaper, and answering them all at once would hold up the event loop."""

CLOSE_TIMEOUT = 10.0
"""Seconds that `aclose` gives the disk: as `Timeouts.close`."""


class _Stage(enum.Enum):
    NEW = "not open"
    OPENING = "not open yet"  # the thread is at it
    OPEN = "open"
    CLOSED = "closed"  # takes nothing more; what was queued is being committed, or is


@attrs.define(eq=False)
class _Job:
    """Something to do in the file, and who wants to hear of it."""

    future: asyncio.Future[Any]
    run: _Run[Any]
    what: str  # what is written, in words; empty for a read
    task_id: str | None

    def fail(self, error: JournalError) -> JournalError:
        """Log a write that failed: perhaps nobody awaits it, and its task id must be found somewhere."""
        if self.what:
            log.error("journal: writing %s (task %s) failed: %s", self.what, self.task_id, error)
        return error

    def refuse(self, path: Path, reason: str) -> JournalError:
        what = f"could not write {self.what}" if self.what else "could not be read"
        return self.fail(JournalError(f"The journal {path.name} {what}: {reason}.", task_id=self.task_id))

    def settle(self, outcome: object) -> None:
        if self.future.done():
            return  # cancelled; it was written all the same
        if isinstance(outcome, JournalError):
            self.future.set_exception(outcome)
            self.future.exception()  # retrieved: it has been logged
        else:
            self.future.set_result(outcome)


class _Worker:
    """What happens on the journal's thread, and only there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None
        self._broken = ""  # why nothing more can be written

    def open(self) -> None:
        self._db = journal_schema.open_file(self._path)

    def run(self, jobs: Sequence[_Job]) -> list[Any]:
        """Do all in one transaction, and return an outcome for each: its result, or a `JournalError`."""
        assert self._db is not None  # noqa: S101 - the stage says so
        try:
            if self._broken:
                return [job.refuse(self._path, self._broken) for job in jobs]
            self._db.execute("BEGIN IMMEDIATE")
            outcomes = [self._attempt(job, self._db) for job in jobs]
            self._db.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - whatever it was, nobody must wait for ever
            reason = self._roll_back(error, self._db)
            return [job.refuse(self._path, reason) for job in jobs]
        return outcomes

    def _attempt(self, job: _Job, db: sqlite3.Connection) -> Any:
        """Do one job. If it fails by itself, its neighbours go on: each job has one statement that writes."""
        try:
            return job.run(db)
        except JournalError as error:
            return job.fail(error)
        except Exception as error:
            if not journal_schema.spares_others(error):
                raise
            return job.refuse(self._path, str(error))

    def _roll_back(self, error: Exception, db: sqlite3.Connection) -> str:
        reason = journal_schema.explain(error)
        with contextlib.suppress(sqlite3.Error):  # SQLite may have rolled back by itself
            db.execute("ROLLBACK")
        if db.in_transaction or not journal_schema.may_pass(error):
            self._broken = f"it failed before ({reason}) and takes no more. Mend that and open it again"
        return reason

    def close(self) -> JournalError | None:
        db, self._db = self._db, None
        return None if db is None else journal_schema.close_file(db, self._path)


@with_safe_repr
class SqliteJournal:
    """Fulfils `ports.Journal`. One process, one event loop and one instance may have a file open at a time.

    - A write that fails is logged, with its row and task id, and fails its future; a future that nobody awaits makes
      no noise beyond that. A write whose future is cancelled is made all the same.
    - A read sees every write that was called before it.
    - The task id that a row has belongs to it: a second row that claims it is refused, and stays as it was. A row that
      is submitted again keeps its earlier ids in the column `past_task_ids`.
    - After a full disk later writes may succeed. After any other fault the file must be opened anew, because nobody
      knows what a failed fsync has left.
    - In a forked child every call raises `JournalError` at once, and `aclose` does nothing: the parent has the file.
    """

    def __init__(self, path: str | os.PathLike[str], clock: Clock) -> None:
        """Name the file, which `open` makes if need be; its folder must exist."""
        # All mutable state:
        self._stage = _Stage.NEW
        self._path = Path(path)
        self._clock = clock
        self._worker = _Worker(self._path)  # used on the thread
        self._pid = 0  # the opener's
        self._executor: ThreadPoolExecutor  # the thread; `open` makes it
        self._queue: list[_Job] = []  # waiting, in the order of the calls
        self._batch: list[_Job] = []  # on the thread
        self._busy = False  # a batch is on the thread, or will be in this turn of the loop
        self._closing: asyncio.Task[JournalError | None] | None = None
        self._abandoned: Future[JournalError | None] | None = None  # the file, by an opening that was cancelled

    def __repr__(self) -> str:
        waiting = f"{len(self._queue)} queued, {len(self._batch)} being written"
        return f"<SqliteJournal {self._path.name} {self._stage.value}, {waiting}>"

    def __del__(self) -> None:
        if self._stage is _Stage.OPEN and os.getpid() == self._pid:
            words = f"unclosed {self!r}: aclose() it"
            self._write_out()
            warnings.warn(words, ResourceWarning, source=self, stacklevel=2)

    def close_at_once(self) -> None:
        """Write what waits, and close the file, for who has no event loop any more; who waited hears nothing."""
        if self._stage is _Stage.OPEN and os.getpid() == self._pid:
            self._executor.shutdown()  # once what is on the thread is done
            self._write_out()

    def _write_out(self) -> None:
        # Here and now: the thread is idle, or it would hold a reference; and an executor's locks must not be taken in
        # a garbage collection, which may have begun under them.
        self._stage = _Stage.CLOSED
        self._worker.run(self._queue)
        self._worker.close()

    async def open(self) -> None:
        """Open the file and become its only owner. After a failure it may be tried again.

        A file of an earlier version is brought up to date, and what was left as SENDING is UNKNOWN from now on.

        Raises:
            JournalError: It is no journal, is damaged, newer, in use, or cannot be written.
        """
        self._check_process()
        if self._abandoned is not None and self._stage is _Stage.OPENING:  # its caller was cancelled
            await asyncio.wait([asyncio.wrap_future(self._abandoned)])
            if self._stage is _Stage.OPENING:
                self._executor.shutdown(wait=False)
                self._stage, self._abandoned = _Stage.NEW, None
        if self._stage is not _Stage.NEW:
            raise JournalError(f"The journal {self._path.name} cannot be opened: it is {self._stage.value}.")
        self._stage = _Stage.OPENING
        self._pid = os.getpid()
        self._executor = ThreadPoolExecutor(1, "finevoice-journal")
        opening = asyncio.get_running_loop().run_in_executor(self._executor, self._worker.open)
        opening.add_done_callback(lambda done: done.exception())  # retrieved, also if nobody waits any more
        try:
            await asyncio.wait([opening])
        except (asyncio.CancelledError, GeneratorExit):
            if self._closing is None:  # else `aclose` was called meanwhile, and sees to it
                self._abandoned = self._executor.submit(self._worker.close)  # once it has been opened
            raise
        error = opening.exception()
        if self._stage is not _Stage.OPENING:
            raise JournalError(f"The journal {self._path.name} was closed while it was being opened.") from error
        if error is not None:
            self._executor.shutdown(wait=False)
            self._stage = _Stage.NEW
            raise error
        self._stage = _Stage.OPEN

    def begin(
        self, request: SfxRequest, *, key: str | None, state: EffectState, again: Move = Move.QUEUE
    ) -> asyncio.Future[Begun]:
        """Write a new row in `state` (QUEUED or SENDING).

        If a row with this key exists, it is queued again with this request where `again` (QUEUE or RETRY) may start
        from its state; else it is given as it is.
        """
        at = self._clock.utcnow()
        run = partial(journal_rows.begin, request=request, key=key, state=state, again=again, at=at)
        return self._put(run, f"a new row with key {shorten(key)}" if key is not None else "a new row")

    def move(
        self,
        row_id: int,
        move: Move,
        *,
        task_id: str | None = None,
        urls: tuple[str, ...] | None = None,
        path: str | None = None,
        sha256: str | None = None,
        error: str | None = None,
    ) -> asyncio.Future[bool]:
        """Make a move, if the row is in a state that it may start from; None leaves a field as it is.

        ACCEPT and ADOPT need a task id. What begins an effect afresh (QUEUE, RETRY, SEND, RESEND) puts the task id
        aside, and forgets what came of it, but for what `ledger.KEEPS` keeps for `ledger.FALLS_BACK`.

        Raises:
            TaskIdTakenError: The task id belongs to another row.
            JournalError: There is no such row, or it could not be written.
        """
        fields = {"task_id": task_id, "path": path, "sha256": sha256, "error": error}
        at = self._clock.utcnow()
        run = partial(journal_rows.move, row_id=row_id, move=move, urls=urls, fields=fields, at=at)
        return self._put(run, f"row {row_id} as {MOVES[move][1].value}", task_id)

    async def row(
        self, *, row_id: int | None = None, key: str | None = None, task_id: str | None = None
    ) -> JournalRow | None:
        """Return the row with this number, key or task id (one is given), as it stands now."""
        given = {"id": row_id, "key": key, "task_id": task_id}
        wanted = [(column, value) for column, value in given.items() if value is not None]
        if len(wanted) != 1:
            raise JournalError("A row of the journal is looked up by one of its number, its key and its task id.")
        ((column, value),) = wanted
        return await self._put(partial(journal_rows.row, column=column, value=value))

    async def row_ids(self, *states: EffectState) -> list[int]:
        """Return the numbers of the rows in these states (none named: in any), in order."""
        return await self._put(partial(journal_rows.row_ids, states=states))

    async def rows(self, *states: EffectState, after: int = 0, limit: int = 1000) -> list[JournalRow]:
        """Return the rows in these states (none named: in any) with an id above `after`, in the order of their ids."""
        return await self._put(partial(journal_rows.rows, states=states, after=after, limit=limit))

    def prune(self, before: datetime) -> asyncio.Future[int]:
        """Delete the rows that are settled (SAVED, REFUSED, FAILED) and were written last before a time.

        Their keys are forgotten with them. When they were sent is kept apart, some 70 bytes for each, so that a
        `Budget` with `per` counts them still. The result is how many they were.
        """
        return self._put(partial(journal_rows.prune, before=before), f"without rows from before {before:%Y-%m-%d}")

    async def sent_since(self, moment: datetime) -> list[datetime]:
        """Return when each submission left, from a moment on, that may have been accepted; the earliest first."""
        return await self._put(partial(journal_rows.sent_since, moment=moment))

    async def load(self, name: str) -> str | None:
        """Return the text stored under a name, if any."""
        return await self._put(partial(journal_rows.load, name=name))

    def store(self, name: str, text: str) -> asyncio.Future[None]:
        """Keep a text under a name."""
        return self._put(partial(journal_rows.store, name=name, text=text), f"the note {shorten(name)}")

    async def aclose(self) -> None:
        """Commit what was written, and close. Idempotent, and goes on if it is cancelled.

        Raises:
            JournalError: The disk did not answer in time, or the file could not be closed.
        """
        if self._stage is not _Stage.NEW and os.getpid() != self._pid:
            return
        if self._stage in (_Stage.OPENING, _Stage.OPEN):
            # A last read is done once all that was called before is done.
            last = self._put(partial(journal_rows.load, name="")) if self._stage is _Stage.OPEN else None
            self._closing = asyncio.create_task(
                self._close(last), name="finevoice-journal-close", context=contextvars.Context()
            )
        self._stage = _Stage.CLOSED
        if self._closing is not None and (error := await asyncio.shield(self._closing)) is not None:
            raise error

    async def _close(self, last: asyncio.Future[str | None] | None) -> JournalError | None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + CLOSE_TIMEOUT
        if last is not None:
            await asyncio.wait([last], timeout=CLOSE_TIMEOUT)
        late, self._queue = self._queue, []
        closed = loop.run_in_executor(self._executor, self._worker.close)
        self._executor.shutdown(wait=False)
        await asyncio.wait([closed], timeout=max(deadline - loop.time(), 0))
        for job in late + self._batch:
            job.settle(job.refuse(self._path, "the disk gave no answer in time. It may have been written or not"))
        if closed.done():
            return closed.result()
        return JournalError(f"The journal {self._path.name} could not be closed within {CLOSE_TIMEOUT:g} s.")

    def _check_process(self) -> None:
        if self._stage is not _Stage.NEW and os.getpid() != self._pid:
            raise JournalError(f"The journal {self._path.name} belongs to process {self._pid}; this is a fork of it.")

    def _put(self, run: _Run[_T], what: str = "", task_id: str | None = None) -> asyncio.Future[_T]:
        self._check_process()
        loop = asyncio.get_running_loop()
        job = _Job(loop.create_future(), run, what, task_id)
        if self._stage is not _Stage.OPEN:
            job.settle(job.refuse(self._path, f"it is {self._stage.value}"))
            return job.future
        self._queue.append(job)
        if not self._busy:
            self._busy = True
            # Not at once: more may be written in this turn of the loop. And for many, so in nobody's context.
            loop.call_soon(self._start, context=contextvars.Context())
        return job.future

    def _start(self) -> None:
        self._batch, self._queue = self._queue[:MAX_BATCH], self._queue[MAX_BATCH:]
        self._busy = bool(self._batch)
        if self._batch:
            on_thread = asyncio.get_running_loop().run_in_executor(self._executor, self._worker.run, self._batch)
            on_thread.add_done_callback(self._written)

    def _written(self, on_thread: asyncio.Future[list[Any]]) -> None:
        batch, self._batch = self._batch, []
        failure = on_thread.exception()  # of this code, or of somebody's logging; nobody must wait for ever
        words = JournalError(f"The journal {self._path.name} failed: {failure!r}. It may have been written or not.")
        for job, outcome in zip(batch, [words] * len(batch) if failure else on_thread.result(), strict=True):
            job.settle(outcome)
        self._start()
