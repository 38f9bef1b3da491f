"""For tests of programs that use this library: the emulated service, and sessions with it that do not dawdle.

pytest's fixtures are made of it. Without them::

    with make_service() as service:
        async with service.session() as session:
            ...
"""

from __future__ import annotations

import asyncio
import gc
import os
import warnings
from types import TracebackType
from typing import TypedDict, Unpack

import aiohttp

from finevoice_async.config import Budget, Downloads, Fleet, Polling, Retry, Timeouts
from finevoice_async.emulator import Dialect, Emulator, EmulatorThread, Probabilities, ServiceLaw
from finevoice_async.ports import Journal, Observer, Slots
from finevoice_async.session import FineVoiceSession

SERVICE_TIME = 0.05
"""Seconds that an effect takes: enough to be seen running, and no time to wait."""

# A test's service is a function call away: what takes longer than these is what the test ordered.
POLLING = Polling(interval=0.01, min_gap=0.01, max_gap=0.1, budget=10_000.0, grace=0.2)
TIMEOUTS = Timeouts(connect=0.25, read=0.45, task=5.0, close=0.5)  # the first two together are a call's
RETRY = Retry(first_delay=0.01, max_delay=0.05, max_retry_after=0.05, patience=3.0)  # a 429 is held for 1 s, always


class SessionOptions(TypedDict, total=False):
    """What `FineVoiceSession` takes."""

    api_key: str | None
    base_url: str | None
    max_concurrency: int
    max_queue: int
    slots: Slots | None
    journal: str | os.PathLike[str] | Journal | None
    fleet: Fleet | None
    timeouts: Timeouts
    polling: Polling
    retry: Retry
    downloads: Downloads
    budget: Budget | None
    http: aiohttp.ClientSession | None
    observer: Observer | None


class EmulatorOptions(TypedDict, total=False):
    """What `Emulator` takes."""

    host: str
    port: int
    api_key: str | None
    plan_limit: int | None
    service_time: ServiceLaw | float | None
    speed: float
    seed: int | None
    dialect: Dialect
    credits: int | None
    faults: Probabilities | None
    quick_sounds: bool


class EmulatedService(EmulatorThread):
    """An emulator in a thread of its own, and the sessions with it.

    The end of its ``with`` closes those that were used and not closed, unless an event loop runs there.
    """

    def __init__(self, emulator: Emulator) -> None:
        super().__init__(emulator)
        self._sessions: list[FineVoiceSession] = []  # the only mutable state of its own: those that were made

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if not _a_loop_runs():
                self._finish_sessions()
        finally:
            super().__exit__(kind, error, trace)

    def _finish_sessions(self) -> None:
        sessions, self._sessions = self._sessions, []
        with warnings.catch_warnings():
            # Where a test's event loop is gone, nobody can close connections any more: they are dropped.
            warnings.filterwarnings("ignore", "unclosed (transport|<socket)", ResourceWarning)
            lost = sum(session._finish() for session in sessions)  # noqa: SLF001 - it is there for these fixtures
            if lost:
                gc.collect()

    def session(self, **options: Unpack[SessionOptions]) -> FineVoiceSession:
        """Return a session with this service, not opened yet: it polls every 10 ms, and gives up soon.

        Args:
            options: Any of `FineVoiceSession`'s, in place of these.

        Raises:
            ConfigurationError: An option cannot work.
        """
        fast: SessionOptions = {"polling": POLLING, "timeouts": TIMEOUTS, "retry": RETRY}
        chosen: SessionOptions = {"api_key": self.api_key, "base_url": self.url, **fast, **options}
        session = FineVoiceSession(**chosen)
        self._sessions.append(session)
        return session


def _a_loop_runs() -> bool:
    """Tell whether an event loop runs in this thread, so that no other can."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def make_service(**options: Unpack[EmulatorOptions]) -> EmulatedService:
    """Return an emulated service, not started yet: its effects take 50 ms, and sound simple.

    Args:
        options: Any of `Emulator`'s, in place of these.

    Raises:
        ValueError: An option makes no sense.
    """
    chosen: EmulatorOptions = {"service_time": SERVICE_TIME, "quick_sounds": True, **options}
    return EmulatedService(Emulator(**chosen))
