"""Fakes of what the engine speaks to, but for the journal: they keep the promises of `ports`, without sockets."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import attrs

from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.core.failures import Failure, FailureKind
from finevoice_async.core.requests import SUBMIT_PATH
from finevoice_async.core.tasks import TASK_PATH
from finevoice_async.core.wire import Reply

# Time


class DateClock(LoopClock):
    """The loop's clock, whose date goes on as its seconds do."""

    def utcnow(self) -> datetime:
        """Return the date that belongs to the loop's time."""
        return datetime(2030, 1, 1, tzinfo=UTC) + timedelta(seconds=self.monotonic())


# The service

Answer = Reply | Exception | None
"""What comes of a call: an answer, a failure (or a bug), or nothing ever."""

LINK: Final = "https://cdn.test/rain.mp3"
KEY: Final = b"the-api-key"


def says(http: int = 200, /, *, retry_after: str | None = None, **fields: object) -> Reply:
    """Return an answer of the service: its HTTP status, and the fields of its JSON."""
    headers = {} if retry_after is None else {"retry-after": retry_after}
    return Reply(http, headers, json.dumps(fields).encode())


RUNNING: Final = says(status="processing")
FINISHED: Final = says(status="completed", url=LINK)
FAILED: Final = says(status="failed", error={"code": "0001", "message": "no such sound"})
AWAY: Final = Failure(FailureKind.NOT_SENT, "connection refused")
LOST: Final = Failure(FailureKind.LOST, "connection reset")


class FakeTransport:
    """A service in memory. What is not scripted is accepted, as t1, t2, ..., and runs until `tasks` says more."""

    def __init__(self, *posts: Answer, polls: tuple[Answer, ...] = (), latency: float = 0.1) -> None:
        self.latency = latency  # seconds until an answer, or a failure, comes
        self.on_post: deque[Answer] = deque(posts)  # what comes of the next POSTs
        self.on_get: deque[Answer] = deque(polls)  # what comes of the next GETs, whatever task they ask for
        self.tasks: dict[str, Answer] = {}  # what comes of a GET for a task, by id; else it runs
        self.posts: list[dict[str, Any]] = []  # what was sent, in the order in which it left
        self.deadlines: list[AbstractContextManager[None] | None] = []  # the limits of the POSTs
        self.gets: list[str] = []  # paths that were asked for
        self.posting = 0  # POSTs under way
        self.most_posting = 0
        self.accepted = 0

    @property
    def prompts(self) -> list[str]:
        """The prompts that were sent, in order."""
        return [sent["prompt"] for sent in self.posts]

    async def post(self, path: str, body: bytes, *, deadline: AbstractContextManager[None] | None = None) -> Reply:
        """Take a submission; its limit is noted, not kept."""
        assert path == SUBMIT_PATH
        self.deadlines.append(deadline)
        self.posts.append(json.loads(body))
        self.posting += 1
        self.most_posting = max(self.most_posting, self.posting)
        try:
            return await self._answer(self.on_post.popleft() if self.on_post else self._accept())
        finally:
            self.posting -= 1

    async def get(self, path: str) -> Reply:
        """Say how a task is doing."""
        self.gets.append(path)
        state = self.tasks.get(path.removeprefix(TASK_PATH), RUNNING)
        return await self._answer(self.on_get.popleft() if self.on_get else state)

    def _accept(self) -> Reply:
        self.accepted += 1
        return says(task_id=f"t{self.accepted}")

    async def _answer(self, answer: Answer) -> Reply:
        await asyncio.sleep(self.latency)
        if answer is None:
            await asyncio.Event().wait()
        if isinstance(answer, Exception):
            raise answer
        assert answer is not None
        return answer

    def conceal(self, body: bytes) -> bytes:
        """Strike the key out."""
        return body.replace(KEY, b"***")

    async def aclose(self) -> None:
        """Nothing is open."""


# The results


@attrs.define
class FakeBody:
    """An answer of a file server, and how it breaks off, if it does."""

    status: int = 200
    content: tuple[bytes, ...] = ()
    headers: Mapping[str, str] = attrs.field(factory=dict)
    failure: Failure | None = None

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body, piece by piece."""
        for piece in self.content:
            await asyncio.sleep(0)
            yield piece
        if self.failure is not None:
            raise self.failure


class FakeFetcher:
    """Gives scripted answers, one after another, and keeps what was asked for."""

    def __init__(self, *answers: FakeBody | Failure) -> None:
        self.answers = deque(answers)
        self.asked: list[tuple[str, dict[str, str]]] = []  # links, and the headers that went with them
        self.reading = 0  # answers that are open

    @asynccontextmanager
    async def get(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[FakeBody]:
        """Ask for a link."""
        self.asked.append((url, dict(headers)))
        await asyncio.sleep(0)
        answer = self.answers.popleft()
        if isinstance(answer, Failure):
            raise answer
        self.reading += 1
        try:
            yield answer
        finally:
            self.reading -= 1

    async def aclose(self) -> None:
        """Nothing is open."""


# The plan


class FakeSlots:
    """Slots that differ, so that one which is given back twice is noticed. They can be held back, and can raise."""

    def __init__(self, limit: int = 5) -> None:
        self.limit = limit
        self.held = False  # none is given, although some may be free
        self.faults: dict[str, BaseException] = {}  # what methods raise, by their names
        self.out: set[object] = set()  # given, and not given back
        self.slowed: list[float] = []  # seconds, as they were asked for
        self.complaints: list[str] = []  # what must not have happened
        self._queue: deque[asyncio.Future[object]] = deque()

    def _use(self, method: str) -> None:
        if method in self.faults:
            raise self.faults[method]

    def _give(self) -> object:
        slot = object()
        self.out.add(slot)
        return slot

    def try_acquire(self) -> object | None:
        """Take a slot if one is free now."""
        self._use("try_acquire")
        return None if self.held or self._queue or len(self.out) >= self.limit else self._give()

    async def acquire(self) -> object:
        """Wait for a slot."""
        self._use("acquire")
        slot = self.try_acquire()
        if slot is not None:
            return slot
        waiter = asyncio.get_running_loop().create_future()
        self._queue.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.release(waiter.result())  # it was given in the same step
            elif waiter in self._queue:
                self._queue.remove(waiter)
            raise

    def occupy(self) -> object:
        """Take a slot, free or not."""
        self._use("occupy")
        return self._give()

    def release(self, slot: object) -> None:
        """Take a slot back."""
        if slot not in self.out:
            self.complaints.append(f"{slot!r} was given back, which nobody had")
        self.out.discard(slot)
        self._hand_out()
        self._use("release")

    def _hand_out(self) -> None:
        while self._queue and not self.held and len(self.out) < self.limit:
            waiter = self._queue.popleft()
            if not waiter.done():
                waiter.set_result(self._give())

    def let_go(self) -> None:
        """Hold them back no more."""
        self.held = False
        self._hand_out()

    def fail(self, error: BaseException) -> None:
        """Let those who wait now hear of a fault."""
        while self._queue:
            waiter = self._queue.popleft()
            if not waiter.done():
                waiter.set_exception(error)

    def slow_down(self, seconds: float) -> None:
        """Note it."""
        self._use("slow_down")
        self.slowed.append(seconds)

    @property
    def waiting(self) -> int:
        """How many wait."""
        self._use("waiting")
        return len(self._queue)

    async def aclose(self) -> None:
        """Nothing is open."""
