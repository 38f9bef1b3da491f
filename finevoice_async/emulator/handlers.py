"""What the handlers of both hosts share: refusals, waiting, and the ways a connection can end."""

from __future__ import annotations

import asyncio
import math
import os
import socket
import struct
from collections.abc import Callable, Mapping

from aiohttp import web

from finevoice_async.emulator.faults import Fault, FaultName, FaultPlan
from finevoice_async.emulator.service import Service

_LINGER_ZERO = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)  # closing drops what is unsent, and resets


def now() -> float:
    """Return the event loop's time: the only clock there is, so that tests may replace it."""
    return asyncio.get_running_loop().time()


class Handlers:
    """The base of the handlers."""

    def __init__(
        self, service: Service, faults: FaultPlan, stopping: asyncio.Event, base_url: Callable[[], str]
    ) -> None:
        self._service = service
        self._ledger = service.ledger
        self._faults = faults
        self._stopping = stopping  # set when the emulator closes: frees who waits
        self._base_url = base_url

    def _meet(self, kind: str, *, without: tuple[FaultName, ...] = ()) -> Fault | None:
        fault = self._faults.next(kind, without=without)
        if fault is not None:
            self._ledger.meet(fault.name)
        return fault

    def _refuse(self, status: int, body: object, headers: Mapping[str, str] | None = None) -> web.Response:
        self._ledger.refuse(status)
        return web.json_response(body, status=status, headers=headers)

    def _refuse_by_order(self, fault: Fault, status: int) -> web.Response:
        headers = {"Retry-After": fault.text} if status == 429 and fault.text else None
        error = {"code": fault.name.partition(".")[2].upper(), "message": "An ordered fault."}
        return self._refuse(status, {"error": error}, headers)

    def _redirect(self, status: int, location: str) -> web.Response:
        self._ledger.refuse(status)
        return web.Response(status=status, headers={"Location": location})

    async def _until(self, when: float) -> None:
        """Wait until a time, or until the emulator closes."""
        stopped = asyncio.ensure_future(self._stopping.wait())
        try:  # asyncio.wait cancels nothing when the time is over, unlike a timeout
            await asyncio.wait([stopped], timeout=None if math.isinf(when) else max(0.0, when - now()))
        finally:
            stopped.cancel()

    async def _hang(self, request: web.Request) -> web.StreamResponse:
        await self._stopping.wait()
        return cut(request)


def cut(request: web.Request, response: web.StreamResponse | None = None) -> web.StreamResponse:
    """Close the connection without (the rest of) an answer."""
    if request.transport is not None:
        request.transport.close()
    return web.Response() if response is None else response


def reset(request: web.Request) -> web.StreamResponse:
    """Reset the connection without an answer."""
    transport = request.transport
    if transport is not None:
        real = transport.get_extra_info("socket")
        # A second handle on the same socket: the transport's own allows no options on every event loop.
        with socket.fromfd(real.fileno(), real.family, real.type) as twin:
            twin.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        transport.abort()
    return web.Response()
