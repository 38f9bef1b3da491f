"""The engine's parts, wired as a session wires them, with fakes of what lies outside."""

from __future__ import annotations

import asyncio
import random
from functools import partial
from types import TracebackType
from typing import Any, Self

import attrs
from fake_journal import FakeJournal
from fakes import DateClock, FakeFetcher, FakeSlots, FakeTransport

from finevoice_async.config import Budget, Polling, Retry
from finevoice_async.core.requests import SfxRequest
from finevoice_async.engine.answers import Answers
from finevoice_async.engine.bookkeeper import Bookkeeper
from finevoice_async.engine.caller import until_known
from finevoice_async.engine.downloads import Downloader
from finevoice_async.engine.exchange import Exchange
from finevoice_async.engine.gate import Gate
from finevoice_async.engine.inflight import InFlight
from finevoice_async.engine.poller import Poller
from finevoice_async.engine.records import News, Result, TaskRecord, Watcher
from finevoice_async.engine.registry import Registry
from finevoice_async.engine.sender import Sender
from finevoice_async.engine.slots import GuardedSlots
from finevoice_async.engine.submitter import Submitter
from finevoice_async.ports import Clock, Slots

RAIN = SfxRequest("rain", duration=2)
WIND = SfxRequest("wind")
EVERY = 2.0
"""Seconds between two polls of a task."""


class FairLuck(random.Random):
    """Draws the middle, whatever is drawn: jitter changes nothing, and a backoff is half its ceiling."""

    def random(self) -> float:
        """Return the middle."""
        return 0.5


@attrs.define(kw_only=True, eq=False)
class Parts:
    """A session's parts.

    Left, they are closed as a session closes them; then each slot must have been given back once, every task must have
    ended, and nothing may have gone wrong unseen.
    """

    transport: FakeTransport
    fetcher: FakeFetcher
    slots: FakeSlots
    journal: FakeJournal
    books: Bookkeeper
    exchange: Exchange
    inflight: InFlight
    answers: Answers
    poller: Poller
    registry: Registry
    sender: Sender
    submitter: Submitter
    downloads: Downloader
    _closed: bool = attrs.field(default=False, init=False)
    _before: set[asyncio.Task[Any]] = attrs.field(factory=set, init=False)  # tasks that are not the parts'
    _complaints: list[dict[str, Any]] = attrs.field(factory=list, init=False)  # of the event loop

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self._complaints.append(context))
        self._before = asyncio.all_tasks(loop)
        await self.books.open()
        await self.sender.spending.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
        await turns(3)
        if error is None:
            assert not self.slots.complaints
            assert not self.slots.out, "slots were not given back"
            assert not asyncio.all_tasks() - self._before, "tasks were left"
            assert not self._complaints

    async def close(self, timeout: float = 1.0) -> None:
        """Close in the order of a session. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self.submitter.refuse()
        await self.submitter.settle(timeout)
        await self.poller.aclose()
        self.inflight.close()
        await self.books.aclose({"learned": "something"})
        self.submitter.give_up()

    async def submit(self, request: SfxRequest = RAIN, key: str | None = None, **options: Any) -> TaskRecord:
        """Submit, and wait for the task id."""
        return await until_known(self.submitter, partial(self.submitter.submit, request, key, **options))

    def start(self, request: SfxRequest = RAIN, key: str | None = None, **options: Any) -> asyncio.Task[TaskRecord]:
        """Submit in a task of its own."""
        return asyncio.create_task(self.submit(request, key, **options))


def assemble(
    transport: FakeTransport | None = None,
    *,
    slots: FakeSlots | None = None,
    journal: FakeJournal | None = None,
    shared: bool = False,
    fetcher: FakeFetcher | None = None,
    polling: Polling = Polling.fixed(EVERY, grace=10),  # noqa: B008 - frozen
    retry: Retry = Retry(),  # noqa: B008 - frozen
    budget: Budget | None = None,
    local: bool = False,
    clock: Clock | None = None,
    max_queue: int = 10_000,
) -> Parts:
    """Wire the parts.

    Args:
        transport: The service.
        slots: The plan.
        journal: Where rows are kept; left out, nothing is.
        shared: The slots are another's, who may raise.
        fetcher: The file server.
        polling: When to ask.
        retry: What to try again.
        budget: How many submissions may be made.
        local: Whether private addresses are allowed.
        clock: The time; left out, the loop's.
        max_queue: How many may wait for a slot.
    """
    transport, fetcher = transport or FakeTransport(), fetcher or FakeFetcher()
    plan = slots or FakeSlots()
    used: Slots = GuardedSlots(plan) if shared else plan
    clock, rng = clock or DateClock(), FairLuck(7)
    books = Bookkeeper(journal)
    exchange = Exchange(transport, clock=clock)
    inflight = InFlight(used, books)
    answers = Answers(inflight, polling=polling, retry=retry, clock=clock, slots=used, rng=rng)
    poller = Poller(exchange, inflight, answers, polling=polling, clock=clock, rng=rng)
    registry = Registry(remembers=journal is None)
    gate = Gate(retry=retry, clock=clock, rng=rng)
    sender = Sender(
        exchange,
        poller,
        inflight,
        books,
        registry,
        gate=gate,
        slots=used,
        clock=clock,
        retry=retry,
        budget=budget,
        rng=rng,
    )
    return Parts(
        transport=transport,
        fetcher=fetcher,
        slots=plan,
        journal=journal or FakeJournal(),
        books=books,
        exchange=exchange,
        inflight=inflight,
        answers=answers,
        poller=poller,
        registry=registry,
        sender=sender,
        submitter=Submitter(
            sender, poller, inflight, books, registry, gate=gate, slots=used, clock=clock, max_queue=max_queue
        ),
        downloads=Downloader(fetcher, exchange, books, local=local, retry=retry, clock=clock, rng=rng),
    )


class Ear:
    """Listens to a submission, and keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[Result] = []

    def __call__(self, result: Result) -> None:
        """Hear."""
        self.heard.append(result)

    @property
    def only(self) -> Result:
        """What it heard, which was one thing."""
        (result,) = self.heard
        return result


@attrs.define(eq=False)
class Eye(Watcher):
    """Watches a task, and keeps what it is told."""

    seen: list[News] = attrs.field(factory=list, init=False)
    told_at: float = attrs.field(default=0.0, init=False)  # the last time, in seconds of the loop

    def tell(self, news: News) -> None:
        """Be told."""
        self.seen.append(news)
        self.told_at = asyncio.get_running_loop().time()


async def turns(count: int) -> None:
    """Let the loop take so many turns."""
    for _ in range(count):
        await asyncio.sleep(0)


async def told(job: asyncio.Future[Any]) -> BaseException:
    """Return the error that a job ends with."""
    await asyncio.wait([job])
    error = job.exception()
    assert error is not None, f"it came to {job.result()}"
    return error
