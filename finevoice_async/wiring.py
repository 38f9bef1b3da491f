"""What a session is made of: the engine's parts and the adapters, wired once, opened and closed in order."""

from __future__ import annotations

import json
import logging
import os
import random
from typing import TYPE_CHECKING, TypedDict

import aiohttp

from finevoice_async.adapters.aiohttp_fetcher import AiohttpFetcher
from finevoice_async.adapters.aiohttp_transport import AiohttpTransport
from finevoice_async.adapters.journals import close_at_once, make_journal, make_shared_journal
from finevoice_async.adapters.local_slots import LocalSlots
from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.config import (
    API_KEY_VARIABLE,
    BASE_URL,
    BASE_URL_VARIABLE,
    Budget,
    Downloads,
    Fleet,
    Polling,
    Retry,
    Timeouts,
)
from finevoice_async.core.addresses import is_local, origin_of
from finevoice_async.core.ledger import EffectState, JournalRow
from finevoice_async.core.text import shorten
from finevoice_async.engine.answers import Answers
from finevoice_async.engine.bookkeeper import Bookkeeper
from finevoice_async.engine.downloads import Downloader
from finevoice_async.engine.exchange import Exchange
from finevoice_async.engine.expiry import CallLimits
from finevoice_async.engine.gate import Gate
from finevoice_async.engine.inflight import InFlight
from finevoice_async.engine.poller import Poller, warn_of_budget
from finevoice_async.engine.records import Submission, TaskRecord
from finevoice_async.engine.registry import FoundRow, Registry
from finevoice_async.engine.sender import Sender
from finevoice_async.engine.slots import GuardedSlots
from finevoice_async.engine.submitter import Submitter
from finevoice_async.errors import ConfigurationError
from finevoice_async.ports import Journal, Observer, Slots

if TYPE_CHECKING:  # the parts of a fleet, and what watches, are imported for who has one or an observer
    from finevoice_async.engine.fleet.books import SharedBookkeeper
    from finevoice_async.engine.fleet.following import Following
    from finevoice_async.engine.watching import Watching
    from finevoice_async.shared_ports import FleetStats, SharedJournal

log = logging.getLogger("finevoice_async")

_LEARNED = "polling"  # the name under which the journal keeps what the schedule has learned


class _Limits(TypedDict):
    gate: Gate
    clock: LoopClock
    max_queue: int


class Wiring:
    """The parts of one session. It owns them all, and knows in which order they open and close."""

    def __init__(
        self,
        api_key: str | None,
        *,
        base_url: str | None,
        max_concurrency: int,
        max_queue: int,
        slots: Slots | None,
        journal: str | os.PathLike[str] | Journal | None,
        fleet: Fleet | None,
        timeouts: Timeouts,
        polling: Polling,
        retry: Retry,
        downloads: Downloads,
        budget: Budget | None,
        http: aiohttp.ClientSession | None,
        observer: Observer | None,
    ) -> None:
        """Wire them; nothing is opened. The arguments are the session's.

        Raises:
            ConfigurationError: The key, the address or an option cannot work.
        """
        key = api_key if api_key is not None else os.environ.get(API_KEY_VARIABLE)
        url = base_url if base_url is not None else os.environ.get(BASE_URL_VARIABLE) or BASE_URL
        clock, rng = LoopClock(), random.Random()  # noqa: S311 - jitter, no secret
        self._limits = CallLimits(timeouts, clock)
        self._transport = AiohttpTransport(url, key, timeouts, http, deadline=self._limits.ordinary)
        own = LocalSlots(max_concurrency, clock)  # checks the number, too
        if type(max_queue) is not int or max_queue < 1:
            raise ConfigurationError(f"max_queue must be a whole number of at least 1, not {shorten(max_queue)}.")
        watching = None if observer is None else _watching_of(observer, clock)
        warn_of_budget(polling, max_concurrency)
        self.timeouts = timeouts
        self.max_concurrency = max_concurrency
        self._shared = shared = make_shared_journal(journal, key, max_concurrency, clock, fleet, budget)
        if shared is not None and slots is not None:
            raise ConfigurationError("slots cannot be given with a journal in PostgreSQL: the fleet's slots are there.")
        self._journal: Journal | None = make_journal(journal, clock) if shared is None else shared
        self.slots: Slots
        self._books_of_fleet = books_of_fleet = None if shared is None else _books_of(shared, watching)
        self.bookkeeper = books = books_of_fleet or Bookkeeper(self._journal, watching)
        self.exchange = exchange = Exchange(self._transport, clock=clock, synchronous=self._limits.synchronous)
        if shared is None or books_of_fleet is None:
            self.slots = own if slots is None else GuardedSlots(slots)
            inflight, kind = InFlight(self.slots, books), Sender
        else:
            from finevoice_async.engine.fleet.sender import SharedInFlight, SharedSender

            kind = SharedSender
            self.slots, inflight = shared.slots, SharedInFlight(shared.slots, books_of_fleet)
        self.inflight = inflight
        self.answers = Answers(inflight, polling=polling, retry=retry, clock=clock, slots=self.slots, rng=rng)
        self.poller = poller = Poller(exchange, inflight, self.answers, polling=polling, clock=clock, rng=rng)
        gate = Gate(retry=retry, clock=clock, rng=rng, on_brake=None if watching is None else watching.braked)
        registry = Registry(remembers=not books.has_journal)
        sender = kind(
            *(exchange, poller, inflight, books, registry),
            gate=gate,
            slots=self.slots,
            clock=clock,
            retry=retry,
            budget=budget,
            rng=rng,
        )
        self._spending = sender.spending
        parts = (sender, poller, inflight)
        limits: _Limits = {"gate": gate, "clock": clock, "max_queue": max_queue}
        self._following: Following | None = None
        if shared is None or books_of_fleet is None:
            self.submitter = Submitter(*parts, books, registry, slots=self.slots, **limits)
        else:
            from finevoice_async.engine.fleet.following import Following
            from finevoice_async.engine.fleet.submitter import SharedSubmitter

            self._following = following = Following(books_of_fleet, poller, inflight, registry, clock)
            self.submitter = SharedSubmitter(
                *parts, books_of_fleet, registry, slots=shared.slots, following=following, **limits
            )
        local = is_local(self._transport.base_url)
        fetcher = AiohttpFetcher(timeouts, local=local, options=downloads)
        self.downloads = Downloader(
            fetcher, exchange, books, local=local, retry=retry, clock=clock, rng=rng, options=downloads
        )

    async def open_journal(self) -> None:
        """Open the journal; tasks that it knows to run take their slots before anything new is submitted.

        Raises:
            JournalError: It could not be opened, or is of another service.
        """
        await self.bookkeeper.open()
        await self.bookkeeper.claim(origin_of(self._transport.base_url))
        if self._books_of_fleet is None:  # else the store counts, what others send, too
            await self._spending.open()
        learned = await self.bookkeeper.load(_LEARNED)
        if learned is not None:
            try:
                self.answers.learn_from(json.loads(learned))
            except (ValueError, RecursionError, ConfigurationError) as error:
                log.warning("what the journal knows of polling is ignored: %s", error)
        if self._books_of_fleet is not None and self._following is not None:
            self._books_of_fleet.on_adopted(self._following.adopted)  # not before it is known to be of this service
            return
        async for row in self.bookkeeper.rows(EffectState.SUBMITTED):
            self.poller.pick_up(row)

    async def fleet(self) -> FleetStats:
        """Return what all sessions of the database are doing together.

        Raises:
            ConfigurationError: There is none.
            JournalError: It could not be read.
        """
        if self._books_of_fleet is None:
            raise ConfigurationError(
                "This needs a journal in PostgreSQL: FineVoiceSession(journal='postgresql://...')."
            )
        return await self._books_of_fleet.fleet()

    async def pick_up(self, row: JournalRow, *, ask_again: bool = False) -> TaskRecord | Submission | FoundRow:
        """Return what a handle on a row needs: what waits, what is on its way elsewhere, or the task.

        Args:
            row: The row.
            ask_again: Also ask for a task that the service did not know any more.

        Raises:
            FineVoiceError: As `Poller.pick_up`.
        """
        source = row if self._following is None else await self._following.source_of(row)
        if not isinstance(source, JournalRow):
            return source
        if source.state is EffectState.QUEUED:
            return self.submitter.found(source)
        return self.poller.pick_up(source, ask_again=ask_again)

    async def give_back(self) -> None:
        """Close what is open still once the session's event loop is gone, with all that ran in it. Another loop may."""
        self._limits.close()
        if self._shared is None:
            close_at_once(self._journal)
        else:
            self._shared.close_at_once()
        await self._transport.aclose()
        await self.downloads.aclose()

    async def aclose(self, timeout: float) -> None:
        """Settle the POSTs under way, stop asking, tell the waiters, close journal and HTTP.

        Args:
            timeout: Seconds for the POSTs.
        """
        try:
            self.submitter.refuse()  # whoever waits for a slot goes home
            await self.submitter.settle(timeout)
            await self.poller.aclose()
            self.inflight.close()
            await self.bookkeeper.aclose({_LEARNED: json.dumps(self.answers.learned())})
            self.submitter.give_up()
            await self.slots.aclose()
        finally:
            self._limits.close()
            await self._transport.aclose()
            await self.downloads.aclose()


def _watching_of(observer: Observer, clock: LoopClock) -> Watching:
    from finevoice_async.engine.watching import Watching, check_observer

    check_observer(observer)
    return Watching(observer, clock)


def _books_of(shared: SharedJournal, watching: Watching | None) -> SharedBookkeeper:
    from finevoice_async.engine.fleet.books import SharedBookkeeper

    return SharedBookkeeper(shared, watching)
