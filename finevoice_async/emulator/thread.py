"""The emulated service on an event loop and in a thread of its own: for tests of any loop, or of none."""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

from finevoice_async.emulator.faults import Fault, FaultName, FaultValue
from finevoice_async.emulator.laws import ServiceLaw
from finevoice_async.emulator.ledger import Ledger
from finevoice_async.emulator.server import Emulator

T = TypeVar("T")

PATIENCE = 10.0
"""Seconds for the thread to start, to answer and to end: each takes milliseconds, but for a machine out of breath."""

_HELD_UP = "Its thread is held up, perhaps by a law of service times that waits for something."


class EmulatorThread:
    """Runs an emulator in a thread of its own.

    Use it with ``with``, or `start` and `close`. It answers whoever asks: tests with any event loop, with several, or
    without one. All of it may be used from any thread; what is set holds from the next request on. After `close` it
    may be started again: same address, same key, same tasks, like a service that was away.
    """

    def __init__(self, emulator: Emulator) -> None:
        """Set it up.

        Args:
            emulator: An emulator that is not open, and that nobody else uses from now on.
        """
        self._emulator = emulator
        self._turn = threading.Lock()  # held by who starts, closes, or has something done
        # All mutable state:
        self._run: _Run | None = None  # while it is open

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._emulator!r}>"

    def __del__(self) -> None:
        run: _Run | None = getattr(self, "_run", None)
        if run is not None:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            run.stop()

    # Life

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Listen. Idempotent.

        Raises:
            OSError: The address cannot be listened on.
            TimeoutError: The thread did not come up.
        """
        with self._turn:
            if self._run is None:
                run = _Run(self._emulator)
                run.start()
                self._run = run

    def close(self) -> None:
        """Stop listening, close every connection, and end the thread. Idempotent.

        Raises:
            TimeoutError: The thread does not end.
        """
        with self._turn:
            run, self._run = self._run, None
            if run is not None:
                run.close()

    # What the emulator has, too

    @property
    def url(self) -> str:
        """The base URL, once started."""
        return self._emulator.url

    @property
    def api_key(self) -> str:
        """The key that it accepts."""
        return self._emulator.api_key

    @property
    def seed(self) -> int:
        """What repeats the same service times, ids, words and chances."""
        return self._emulator.seed

    @property
    def ledger(self) -> Ledger:
        """What happened so far."""
        return self._emulator.ledger

    @property
    def running(self) -> int:
        """How many tasks run at this moment. Only while it is open."""
        return self._do(lambda: self._emulator.running)

    @property
    def plan_limit(self) -> int | None:
        """Tasks that may run at once; may be changed at any time."""
        return self._emulator.plan_limit

    @plan_limit.setter
    def plan_limit(self, limit: int | None) -> None:
        self._set("plan_limit", limit)

    @property
    def credits(self) -> int | None:
        """Submissions that are still paid for; may be changed at any time."""
        return self._emulator.credits

    @credits.setter
    def credits(self, left: int | None) -> None:
        self._set("credits", left)

    @property
    def service_time(self) -> ServiceLaw:
        """How long tasks take from now on, before `Emulator(speed=)`."""
        return self._emulator.service_time

    @service_time.setter
    def service_time(self, law: ServiceLaw | float) -> None:
        self._set("service_time", law)

    def inject(self, fault: FaultName | Fault, times: int = 1, *, value: FaultValue | None = None) -> None:
        """Let the next `times` requests of its kind meet a fault; see `Emulator.inject`.

        Raises:
            ValueError: There is no such fault, or its value makes no sense.
        """
        self._do(partial(self._emulator.inject, fault, times, value=value))

    def heal(self) -> None:
        """From now on, nothing goes wrong."""
        self._do(self._emulator.heal)

    def bound(self, slots: int) -> float:
        """Return the greedy makespan of what was accepted so far, in seconds, at this many slots."""
        return self._emulator.bound(slots)

    def _set(self, name: str, value: object) -> None:
        self._do(partial(setattr, self._emulator, name, value))

    def _do(self, job: Callable[[], T]) -> T:
        """Have a job done where the emulator lives, so that it never changes under a request that is being answered."""
        run = self._run
        if run is not None and run.thread is threading.current_thread():  # a law of service times of the user's
            return job()
        with self._turn:
            return job() if self._run is None else self._run.do(job)


class _Run:
    """One life of the thread. It knows nothing of its owner, so that one who is forgotten can say so."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        # The plain loop, whatever policy the tests have set: here time passes by itself.
        self._loop = asyncio.SelectorEventLoop()
        self._stopping = asyncio.Event()
        self._listening: Future[None] = Future()
        self._error: BaseException | None = None  # what ended it after it had come up
        self.thread = threading.Thread(target=self._main, name="finevoice-emulator", daemon=True)

    def start(self) -> None:
        """Return once it listens."""
        try:
            self.thread.start()
        except BaseException:
            self._loop.close()
            raise
        try:
            self._listening.result(PATIENCE + 1)  # it minds its time itself, unless something holds it up
        except BaseException as error:  # also Ctrl-C
            self.close()
            if isinstance(error, TimeoutError):
                raise TimeoutError(f"The emulator did not come up within {PATIENCE:g} s.") from error
            raise

    def _main(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - it is raised again where the emulator was started, or closed
            if self._listening.done():
                self._error = error
            else:
                self._listening.set_exception(error)

    async def _serve(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await self._emulator.start()
        try:
            self._listening.set_result(None)
            await self._stopping.wait()
        finally:
            await self._emulator.aclose()

    def do(self, job: Callable[[], T]) -> T:
        """Have a job done in the thread, and return what it returns."""
        result: Future[T] = Future()

        def work() -> None:
            try:
                result.set_result(job())
            except BaseException as error:  # noqa: BLE001 - it is raised where the job comes from
                result.set_exception(error)

        self._loop.call_soon_threadsafe(work)
        if not wait([result], PATIENCE).done:
            raise TimeoutError(f"The emulator has not answered for {PATIENCE:g} s. {_HELD_UP}")
        return result.result()

    def stop(self) -> None:
        """Let it end, without waiting for it."""
        with suppress(RuntimeError):  # it has ended, and its loop is closed
            self._loop.call_soon_threadsafe(self._stopping.set)

    def close(self) -> None:
        """Let it end, and return once it has."""
        self.stop()
        self.thread.join(PATIENCE)
        if self.thread.is_alive():
            raise TimeoutError(f"The emulator did not end within {PATIENCE:g} s. {_HELD_UP}")
        if self._error is not None:
            raise self._error
