"""Connections of which a submission gets none that a server may be closing just now."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import Final

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


def _look_at(protocol: ResponseHandler) -> Callable[[], bool]:
    """Return what tells whether a connection has something to read that the loop has not read yet.

    While it is idle that can only be its end, or what nobody asked for.
    """
    transport = protocol.transport
    socket = None if transport is None else transport.get_extra_info("socket")
    if socket is None:  # a transport of somebody's own
        return lambda: False
    if not hasattr(select, "poll"):  # Windows, where `select` takes any number
        return lambda: bool(select.select([socket], [], [], 0)[0])
    poll = select.poll()
    poll.register(socket, select.POLLIN)
    return lambda: bool(poll.poll(0))


@attrs.define(eq=False)
class _Use:
    """One connection, and when it was last in use."""

    has_news: Callable[[], bool]
    ended: float = 0.0  # in seconds of the loop


_ELSEWHERE: Final = _Use(bool)
"""For a call whose connection was made elsewhere, as far as is known here."""


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
        call = asyncio.current_task(self._loop)
        self._calls[call] = None
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = connection.protocol
            assert protocol is not None  # noqa: S101 - it was not given back yet
            use = self._uses.get(protocol)
            if use is None:
                use = self._first_use(protocol)
            elif req.method == "POST" and (self._loop.time() - use.ended > FRESH or use.has_news()):
                connection.close()
                continue
            self._calls[call] = use
            return connection

    def _first_use(self, protocol: ResponseHandler) -> _Use:
        """Begin to note a connection's use, and forget those that were closed."""
        self._uses = {known: use for known, use in self._uses.items() if known.is_connected()}
        use = self._uses[protocol] = _Use(_look_at(protocol))
        return use

    def call_ended(self) -> bool:
        """Note that this task's call has ended, and tell whether it may have had a connection."""
        use = self._calls.pop(asyncio.current_task(self._loop), _ELSEWHERE)
        if use is None:
            return False
        if use is not _ELSEWHERE:
            use.ended = self._loop.time()
        return True
