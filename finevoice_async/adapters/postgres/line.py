"""The connection on which a session speaks: one call of the schema's functions after another, in the order they came.

While the database is away the first one waits, and with it all behind it: an intent must not be acted on before it is
written, and a fact must not be lost. What failed without an answer is asked again, and says so (`Turn.again`): every
function can tell whether it was done before.

Calls that wait together share a commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar

import attrs
import psycopg

from finevoice_async.adapters.postgres.connection import Connection, connect, explain, is_away
from finevoice_async.adapters.postgres.membership import Membership
from finevoice_async.errors import FineVoiceError, JournalError

log = logging.getLogger("finevoice_async")
T = TypeVar("T")

MAX_BATCH: Final = 50
"""Calls in one commit: the account is locked meanwhile, for some 10 ms."""

ANSWER: Final = 15.0
"""Seconds for a batch; longer than the server gives a statement."""

LONGEST_PAUSE: Final = 0.5
"""Seconds between two tries while the database is away, at most: it costs little, and slots stand idle meanwhile."""

NOT_MEMBER: Final = "FV001"
"""The SQLSTATE of an intent whose session is not in the fleet any more."""


@attrs.frozen
class Turn:
    """What a call learns when its turn has come.

    Attributes:
        me: The session's number in the fleet; 0 for a call that needs none.
        again: It was made before, and its answer was lost.
    """

    me: int
    again: bool


@attrs.define(eq=False)
class Call(Generic[T]):
    """A statement, and who wants to hear of it.

    Attributes:
        statement: The SQL, with holes.
        values: What fills them.
        read: Makes the result of the rows.
        future: Gets it.
        what: What is written, in words; empty for a read.
        task_id: The task that it is about.
        needs_member: It is an intent: the session must be in the fleet.
        is_look: It only reads: it leaves the line when nobody waits for it any more.
        failed: Makes an error of a statement that the database refused; left out, the usual one.
        after: Is called with the result, once whoever waits for it will hear it first.
        tries: How often it was made.
    """

    statement: str
    values: Callable[[Turn], Sequence[object]]
    read: Callable[[list[tuple[Any, ...]]], T]
    future: asyncio.Future[T]
    what: str = ""
    task_id: str | None = None
    needs_member: bool = False
    is_look: bool = False
    failed: Callable[[psycopg.Error], JournalError | None] = lambda _: None
    after: Callable[[T], None] = lambda _: None
    tries: int = 0

    @property
    def is_given_up(self) -> bool:
        """Whether it is for nobody any more."""
        return self.is_look and self.future.cancelled()

    def settle(self, result: T) -> None:
        """Tell the result."""
        if not self.future.done():
            self.future.set_result(result)
        self.after(result)

    def fail(self, error: FineVoiceError) -> None:
        """Log a write that failed: perhaps nobody awaits it, and its task id must be found somewhere."""
        if self.what and isinstance(error, JournalError):
            log.error("journal: writing %s (task %s) failed: %s", self.what, self.task_id, error)
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()  # retrieved: it has been logged

    def refuse(self, reason: str) -> None:
        """Fail, for a reason in words."""
        what = f"could not write {self.what}" if self.what else "could not be read"
        self.fail(JournalError(f"The fleet's journal {what}: {reason}.", task_id=self.task_id))


def nobody(_: Turn) -> Sequence[object]:
    """Return the values of a statement without holes."""
    return ()


class Line:
    """Owns the connection and the calls that wait for it."""

    def __init__(self, url: str, membership: Membership) -> None:
        self._url = url
        self._membership = membership
        # All mutable state:
        self.commits = 0  # made for writes
        self.seconds = 0.0  # spent on them
        self._connection: Connection | None = None
        self._losses = 0  # of the membership's connection, when this one was made
        self._queue: deque[Call[Any]] = deque()
        self._batch: list[Call[Any]] = []  # under way
        self._wake: asyncio.Event = asyncio.Event()
        self._idle: asyncio.Event = asyncio.Event()
        self._idle.set()
        self._worker: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return sum(not call.is_given_up for call in (*self._queue, *self._batch))

    @property
    def is_connected(self) -> bool:
        """Whether there was a connection when the database was spoken to last; it may be lost by now."""
        return self._connection is not None

    async def open(self) -> Connection:
        """Connect; `start` begins to work.

        Raises:
            psycopg.Error: It could not be done.
        """
        self._connection = await connect(self._url)
        return self._connection

    def start(self) -> None:
        """Begin with what was put."""
        self._worker = asyncio.create_task(self._work(), name="finevoice-fleet-line", context=contextvars.Context())

    def put(self, call: Call[T], *, first: bool = False) -> asyncio.Future[T]:
        """Let a call wait for its turn, behind all others or before them, and return its result to come."""
        if first:
            self._queue.appendleft(call)
        else:
            self._queue.append(call)
        if call.is_look:
            call.future.add_done_callback(lambda _: self._forget(call))
        self._idle.clear()
        self._wake.set()
        return call.future

    def _forget(self, call: Call[Any]) -> None:
        """Let a call leave the line that is given up. One that is under way leaves before it is tried again."""
        if call.is_given_up:
            with contextlib.suppress(ValueError):
                self._queue.remove(call)

    async def _work(self) -> None:
        while True:
            while not self._queue:
                self._idle.set()
                self._wake.clear()
                await self._wake.wait()
            while self._queue and len(self._batch) < MAX_BATCH:
                self._batch.append(self._queue.popleft())
            await self._do_batch()

    async def _do_batch(self) -> None:
        """Do what is in the batch, however often the database is away meanwhile."""
        pause, alone = 0.05, False
        while self._batch:
            calls = self._batch[:1] if alone else list(self._batch)
            try:
                if any(call.needs_member for call in calls):
                    await self._membership.here.wait()
                if any(call.is_given_up for call in self._batch):
                    self._batch = [call for call in self._batch if not call.is_given_up]
                    continue
                results = await self._execute(calls)
            except (psycopg.Error, OSError, TimeoutError) as error:
                if getattr(error, "sqlstate", None) == NOT_MEMBER:
                    await self._membership.join_again()
                elif is_away(error):
                    await self._lose(error)
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, LONGEST_PAUSE)
                elif len(calls) > 1:
                    alone = True  # one of them is bad: the others must not suffer for it
                else:
                    self._give_back(calls[0], error)
                    del self._batch[0]
                continue
            except Exception as error:
                log.exception("an unexpected error in the fleet's journal")
                for call in calls:
                    call.refuse(f"{type(error).__name__}. It may have been written or not")
                del self._batch[: len(calls)]
                continue
            self._membership.contact.speaks()
            for call, rows in zip(calls, results, strict=True):
                try:
                    call.settle(call.read(rows))
                except FineVoiceError as error:
                    call.fail(error)
            del self._batch[: len(calls)]

    def _give_back(self, call: Call[Any], error: Exception) -> None:
        own = call.failed(error) if isinstance(error, psycopg.Error) else None
        if own is not None:
            call.fail(own)
        else:
            call.refuse(explain(error))

    async def _execute(self, calls: list[Call[Any]]) -> list[list[tuple[Any, ...]]]:
        connection = self._connection
        losses = self._membership.contact.losses
        if connection is None or connection.closed or losses != self._losses:  # lost with the other, most likely
            await self._disconnect()
            connection = self._connection = await connect(self._url)
            self._losses = losses
        me = self._membership.me or 0
        statements = []
        for call in calls:
            statements.append((call.statement, call.values(Turn(me, again=call.tries > 0))))
            call.tries += 1
        began = time.perf_counter()
        async with asyncio.timeout(ANSWER):
            results = await _together(connection, self._membership.account, statements)
        if any(call.what for call in calls):
            self.commits += 1
            self.seconds += time.perf_counter() - began
        return results

    async def _lose(self, error: Exception) -> None:
        self._membership.contact.stopped_speaking(error)
        await self._disconnect()

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error, OSError):  # it is lost already
                await connection.close()

    def drop(self) -> None:
        """Close the connection without an event loop."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.pgconn.finish()

    async def aclose(self, timeout: float) -> None:
        """Do what was put, within `timeout` seconds, and close; what is left then hears that it may not be written."""
        if self._worker is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._idle.wait()
            self._worker.cancel()
            await asyncio.wait([self._worker])
        left, self._batch, self._queue = [*self._batch, *self._queue], [], deque()
        for call in left:
            call.refuse("the database gave no answer in time. It may have been written or not")
        await self._disconnect()


async def _together(
    connection: Connection, account: str, statements: list[tuple[str, Sequence[object]]]
) -> list[list[tuple[Any, ...]]]:
    """Execute statements in one commit, sent together; the account is locked before any row is."""
    if len(statements) == 1:
        ((statement, values),) = statements
        cursor = await connection.execute(statement, values)
        return [await cursor.fetchall()]
    async with connection.pipeline():  # one transaction for the server, and one round trip
        await connection.execute("SELECT finevoice.lock(%s)", (account,))
        cursors = [await connection.execute(*each) for each in statements]
    return [await cursor.fetchall() for cursor in cursors]
