"""Connections of which a submission gets none that a server may be closing just now."""

from __future__ import annotations

import asyncio

import aiohttp
import attrs
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

FRESH = 0.05
"""Seconds for which a connection may have been idle before it carries a submission. Servers close one after a second
at the soonest, and their word for that takes a while to come; a submission mostly follows right on a poll's answer.
Were it longer, a submission might be lost; were it shorter, a busy session would make a connection for each."""


@attrs.define(eq=False)
class _Use:
    """When a connection was last in use."""

    loop: asyncio.AbstractEventLoop
    ended: float | None = None

    def end(self) -> None:
        """Note that it is idle from now on."""
        self.ended = self.loop.time()


class FreshConnector(aiohttp.TCPConnector):
    """A connector that gives a POST a connection which is new, or was used a moment ago, and a GET any.

    aiohttp sends a GET again that finds its connection closed. A POST that meets the end of its connection on the way
    may have been taken or not, and nobody knows.
    """

    def __init__(self, *, limit: int) -> None:
        super().__init__(limit=limit)
        # All mutable state of its own:
        self._uses: dict[ResponseHandler, _Use] = {}
        self._unconnected: set[asyncio.Task[object] | None] = set()  # whose calls got no connection

    async def connect(self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout) -> Connection:
        """Return a connection, from the pool or new."""
        while True:
            try:
                connection = await super().connect(req, traces, timeout)
            except BaseException:
                self._unconnected.add(asyncio.current_task())
                raise
            protocol = connection.protocol
            assert protocol is not None  # noqa: S101 - it was not given back yet
            use = self._uses.get(protocol)
            if use is None:
                use = self._first_use(protocol)
            elif req.method == "POST" and use.ended is not None and use.loop.time() - use.ended > FRESH:
                connection.close()
                continue
            connection.add_callback(use.end)
            return connection

    def _first_use(self, protocol: ResponseHandler) -> _Use:
        """Begin to note a connection's use, and forget those that were closed."""
        self._uses = {known: use for known, use in self._uses.items() if known.is_connected()}
        use = self._uses[protocol] = _Use(asyncio.get_running_loop())
        return use

    def was_unconnected(self) -> bool:
        """Tell, once, whether this task's call failed before it had a connection."""
        task = asyncio.current_task()
        unconnected = task in self._unconnected
        self._unconnected.discard(task)
        return unconnected
