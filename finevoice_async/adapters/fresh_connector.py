"""Connections of which a submission gets none that a server may be closing just now."""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Mapping
from time import monotonic
from traceback import walk_tb
from typing import Final

import aiohttp
from aiohttp.client_proto import ResponseHandler

FRESH = 0.05
"""Seconds for which a connection may have been idle before it carries a submission. Servers close one after a second
at the soonest, and their word for that takes a while to come; a submission mostly follows right on a poll's answer.
Were it longer, a submission might be lost; were it shorter, a busy session would make a connection for each."""

_CONNECT: Final = aiohttp.BaseConnector.connect.__code__


class FreshConnector(aiohttp.TCPConnector):
    """A connector which sees to it that a POST gets a connection that is new, or was used a moment ago.

    aiohttp sends a GET again that finds its connection closed. A POST that meets the end of its connection on the way
    may have been taken or not, and nobody knows. It is for one server: all its connections lead there.
    """

    def close_old(self) -> None:
        """Close what has been idle for long, or has ended, up to the first connection that a POST may take.

        To be called in the step in which the POST begins: it takes its connection in the same one, or waits for one
        that is given back then.
        """
        # aiohttp has no public name for its pool: the oldest first, each with the time of its last use. To keep the
        # same beside it takes 2 % of an effect's cost. Should the name go, old connections are used, and a test fails.
        pools: Mapping[object, deque[tuple[ResponseHandler, float]]] = getattr(self, "_conns", {})
        now = monotonic()
        for idle in pools.values():
            while idle and (now - idle[0][1] > FRESH or _has_news(idle[0][0])):
                idle.popleft()[0].close()


def _has_news(protocol: ResponseHandler) -> bool:
    """Tell whether the loop has not read yet what came on an idle connection: its end, or what nobody asked for.

    The loop may have been blocked for long, and even a free one reads only between two steps of its tasks.
    """
    transport = protocol.transport
    socket = None if transport is None else transport.get_extra_info("socket")
    if socket is None:  # it has ended, or is no socket
        return False
    if not hasattr(select, "poll"):  # Windows, where `select` takes any number
        return bool(select.select([socket], [], [], 0)[0])
    poll = select.poll()
    poll.register(socket, select.POLLIN)
    return bool(poll.poll(0))


def was_connected(error: BaseException) -> bool:
    """Tell whether a call had a connection when this error stopped it: it did not come through `connect`."""
    frames = (frame for each in (error, error.__cause__) if each for frame, _ in walk_tb(each.__traceback__))
    return all(frame.f_code is not _CONNECT for frame in frames)
