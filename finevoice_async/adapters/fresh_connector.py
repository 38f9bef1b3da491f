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

    ended: float | None = None  # in seconds of the loop; None while it is in use


class FreshConnector(aiohttp.TCPConnector):
    """A connector that gives a POST a connection which is new, or was used a moment ago, and a GET any.

    aiohttp sends a GET again that finds its connection closed. A POST that meets the end of its connection on the way
    may have been taken or not, and nobody knows.
    """

    def __init__(self, *, limit: int) -> None:
        super().__init__(limit=limit)
        # All mutable state of its own:
        self._uses: dict[ResponseHandler, _Use] = {}
        self._calls: dict[asyncio.Task[object] | None, _Use | None] = {}  # None: it got no connection

    async def connect(self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout) -> Connection:
        """Return a connection, from the pool or new."""
        while True:
            try:
                connection = await super().connect(req, traces, timeout)
            except BaseException:
                self._calls[asyncio.current_task()] = None
                raise
            protocol = connection.protocol
            assert protocol is not None  # noqa: S101 - it was not given back yet
            use = self._uses.get(protocol)
            if use is None:
                use = self._first_use(protocol)
            elif req.method == "POST" and use.ended is not None and self._loop.time() - use.ended > FRESH:
                connection.close()
                continue
            use.ended = None
            self._calls[asyncio.current_task()] = use
            return connection

    async def close(self, *, abort_ssl: bool = False) -> None:
        """Close all connections, and forget them."""
        await super().close(abort_ssl=abort_ssl)
        self._uses.clear()
        self._calls.clear()

    def _first_use(self, protocol: ResponseHandler) -> _Use:
        """Begin to note a connection's use, and forget those that were closed."""
        self._uses = {known: use for known, use in self._uses.items() if known.is_connected()}
        use = self._uses[protocol] = _Use()
        return use

    def call_ended(self) -> bool:
        """Note that this task's call has ended, and tell whether it may have had a connection."""
        task = asyncio.current_task()
        if task not in self._calls:
            return True  # it was made elsewhere, as far as is known here
        use = self._calls.pop(task)
        if use is not None:
            use.ended = self._loop.time()
        return use is not None
