"""The emulated service over real HTTP on loopback."""

from __future__ import annotations

import asyncio
import secrets
import warnings
from types import TracebackType
from typing import Self

from aiohttp import web

from finevoice_async.core.requests import SUBMIT_PATH
from finevoice_async.core.tasks import TASK_PATH
from finevoice_async.emulator.api import MAX_BODY, ApiHandlers
from finevoice_async.emulator.faults import Fault, FaultName, FaultPlan, FaultValue, Probabilities
from finevoice_async.emulator.files import FileHandlers
from finevoice_async.emulator.laws import ServiceLaw, as_law
from finevoice_async.emulator.ledger import Ledger
from finevoice_async.emulator.library import Library
from finevoice_async.emulator.service import FILES_PATH, Service
from finevoice_async.emulator.spelling import Dialect
from finevoice_async.reprs import with_safe_repr

_GRACE = 0.25  # seconds that answers under way are given at closing


def _checked_key(key: str) -> str:
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError("the API key must be printable ASCII without spaces")  # and is not shown
    return key


@with_safe_repr
class Emulator:
    """FineVoice on your own machine: the same two endpoints, real audio, no key and no cost.

    Use it with ``async with``, or `start` and `aclose`. All times come from the running event loop's clock. After
    `aclose` it may be started again: same address, same key, same tasks, like a service that was away.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        api_key: str | None = None,
        plan_limit: int | None = None,
        service_time: ServiceLaw | float | None = None,
        speed: float = 1.0,
        seed: int | None = None,
        dialect: Dialect = "mixed",
        credits: int | None = None,
        faults: Probabilities | None = None,
        quick_sounds: bool = False,
    ) -> None:
        """Set it up.

        Args:
            host: The address to listen on; keep to loopback.
            port: The port; 0 takes a free one.
            api_key: The key that it accepts; None makes one up.
            plan_limit: Tasks that may run at once; one more is answered 429. None sets no limit.
            service_time: How long tasks take: seconds, or a law such as `LogNormal(median=8)`; any function of the
                request and a `random.Random` will do.
            speed: How many times faster than that.
            seed: Repeats the same service times, ids, words and chances; None makes one up.
            dialect: `reference`, `quickstart`, or `mixed`.
            credits: Submissions that are paid for; then 402. None sets no limit.
            faults: How likely each fault is, by the names in `FAULTS`.
            quick_sounds: Every effect is a short hum, repeated: for tests that should not wait for real sounds.

        Raises:
            ValueError: The dialect or a fault does not exist, a number is out of its range, or no header can carry
                the key.
        """
        self.api_key: str = f"emulator-{secrets.token_hex(8)}" if api_key is None else _checked_key(api_key)
        self.seed: int = secrets.randbits(64) if seed is None else seed
        self._faults = FaultPlan(faults or {}, self.seed)
        self._service = Service(
            plan_limit=plan_limit,
            law=as_law(service_time),
            seed=self.seed,
            dialect=dialect,
            credits=credits,
            speed=speed,
        )
        self._host = host
        self._quick_sounds = quick_sounds
        # All other mutable state:
        self._port = port  # the real one, once it is known
        self._runner: web.AppRunner | None = None  # while open
        self._stopping = asyncio.Event()  # made anew by each start; frees the handlers that hang

    def __repr__(self) -> str:
        state = "closed" if self._runner is None else f"on port {self._port}"
        return f"<Emulator {state}, seed {self.seed}: {self.ledger!r}>"

    def __del__(self) -> None:
        if getattr(self, "_runner", None) is not None:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)

    @property
    def url(self) -> str:
        """The base URL, once started."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    @property
    def ledger(self) -> Ledger:
        """What happened so far."""
        return self._service.ledger

    @property
    def running(self) -> int:
        """How many tasks run at this moment. Only where an event loop runs."""
        return self.ledger.running(asyncio.get_running_loop().time())

    @property
    def plan_limit(self) -> int | None:
        """Tasks that may run at once; may be changed at any time."""
        return self._service.plan_limit

    @plan_limit.setter
    def plan_limit(self, limit: int | None) -> None:
        self._service.plan_limit = limit

    @property
    def credits(self) -> int | None:
        """Submissions that are still paid for; may be changed at any time."""
        return self._service.credits

    @credits.setter
    def credits(self, left: int | None) -> None:
        self._service.credits = left

    @property
    def service_time(self) -> ServiceLaw:
        """How long tasks take from now on, before `speed`."""
        return self._service.law

    @service_time.setter
    def service_time(self, law: ServiceLaw | float) -> None:
        self._service.law = as_law(law)

    def inject(self, fault: FaultName | Fault, times: int = 1, *, value: FaultValue | None = None) -> None:
        """Let the next `times` requests of its kind meet a fault.

        Args:
            fault: A name in `FAULTS`, or a `Fault`.
            times: How many meet it.
            value: What `FAULTS` says for that name; None takes the default.

        Raises:
            ValueError: There is no such fault, or its value makes no sense.
        """
        self._faults.order(Fault(fault, value) if isinstance(fault, str) else fault, times)

    def heal(self) -> None:
        """From now on, nothing goes wrong."""
        self._faults.cancel()

    def bound(self, slots: int) -> float:
        """Return the greedy makespan of what was accepted so far, in seconds, at this many slots."""
        return self._service.bound(slots)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def start(self) -> None:
        """Listen. Idempotent.

        Raises:
            OSError: The address cannot be listened on.
        """
        if self._runner is not None:
            return
        self._stopping = asyncio.Event()
        self._runner = web.AppRunner(self._make_app(), shutdown_timeout=_GRACE, access_log=None)
        try:
            await self._runner.setup()
            await web.TCPSite(self._runner, self._host, self._port).start()
            self._port = self._runner.addresses[0][1]
        except BaseException:
            await self.aclose()
            raise

    def _make_app(self) -> web.Application:
        shared = (self._service, self._faults, self._stopping, lambda: self.url)
        api = ApiHandlers(*shared, api_key=self.api_key)
        files = FileHandlers(*shared, library=Library(quick=self._quick_sounds))
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_post(SUBMIT_PATH, api.submit)
        app.router.add_get(TASK_PATH + "{task_id}", api.poll, allow_head=False)
        app.router.add_get(FILES_PATH + "{name}", files.download, allow_head=False)
        app.router.add_route("*", "/{anything:.*}", api.stray)
        return app

    async def aclose(self) -> None:
        """Stop listening and close every connection; what hangs ends at once. Idempotent."""
        self._stopping.set()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
