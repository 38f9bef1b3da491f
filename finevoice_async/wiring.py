"""What a session is made of: the engine's parts and the adapters, wired once, opened and closed in order."""

from __future__ import annotations

import json
import logging
import os
import random

import aiohttp

from finevoice_async.adapters.aiohttp_fetcher import AiohttpFetcher
from finevoice_async.adapters.aiohttp_transport import AiohttpTransport
from finevoice_async.adapters.journals import close_at_once, make_journal
from finevoice_async.adapters.local_slots import LocalSlots
from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.config import (
    API_KEY_VARIABLE,
    BASE_URL,
    BASE_URL_VARIABLE,
    Budget,
    Downloads,
    Polling,
    Retry,
    Timeouts,
)
from finevoice_async.core.addresses import is_local, origin_of
from finevoice_async.core.ledger import EffectState
from finevoice_async.core.text import shorten
from finevoice_async.engine.answers import Answers
from finevoice_async.engine.bookkeeper import Bookkeeper
from finevoice_async.engine.downloads import Downloader
from finevoice_async.engine.exchange import Exchange
from finevoice_async.engine.expiry import CallLimits
from finevoice_async.engine.gate import Gate
from finevoice_async.engine.inflight import InFlight
from finevoice_async.engine.poller import Poller, warn_of_budget
from finevoice_async.engine.registry import Registry
from finevoice_async.engine.sender import Sender
from finevoice_async.engine.slots import GuardedSlots
from finevoice_async.engine.submitter import Submitter
from finevoice_async.engine.watching import Watching, check_observer
from finevoice_async.errors import ConfigurationError
from finevoice_async.ports import Journal, Observer, Slots

log = logging.getLogger("finevoice_async")

_LEARNED = "polling"  # the name under which the journal keeps what the schedule has learned


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
        if observer is not None:
            check_observer(observer)
        warn_of_budget(polling, max_concurrency)
        self.timeouts = timeouts
        self.max_concurrency = max_concurrency
        self.slots: Slots = own if slots is None else GuardedSlots(slots)
        self._journal = make_journal(journal, clock)
        watch = None if observer is None else Watching(observer, clock)
        self.bookkeeper = books = Bookkeeper(self._journal, watch)
        self.exchange = exchange = Exchange(self._transport, clock=clock, synchronous=self._limits.synchronous)
        self.inflight = inflight = InFlight(self.slots, books)
        self.answers = Answers(inflight, polling=polling, retry=retry, clock=clock, slots=self.slots, rng=rng)
        self.poller = poller = Poller(exchange, inflight, self.answers, polling=polling, clock=clock, rng=rng)
        gate = Gate(retry=retry, clock=clock, rng=rng, on_brake=None if watch is None else watch.braked)
        registry = Registry(remembers=not books.has_journal)
        parts = (poller, inflight, books, registry)
        sender = Sender(exchange, *parts, gate=gate, slots=self.slots, clock=clock, retry=retry, budget=budget, rng=rng)
        self._spending = sender.spending
        self.submitter = Submitter(sender, *parts, gate=gate, slots=self.slots, clock=clock, max_queue=max_queue)
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
        await self._spending.open()
        learned = await self.bookkeeper.load(_LEARNED)
        if learned is not None:
            try:
                self.answers.learn_from(json.loads(learned))
            except (ValueError, RecursionError, ConfigurationError) as error:
                log.warning("what the journal knows of polling is ignored: %s", error)
        async for row in self.bookkeeper.rows(EffectState.SUBMITTED):
            self.poller.pick_up(row)

    async def give_back(self) -> None:
        """Close what is open still once the session's event loop is gone, with all that ran in it. Another loop may."""
        self._limits.close()
        close_at_once(self._journal)
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
