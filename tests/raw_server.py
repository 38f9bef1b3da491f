"""A server on a raw socket, for what a well-behaved one cannot do: it answers each request as a script says."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

import attrs

RESET = struct.pack("ii", 1, 0)  # SO_LINGER with no time: close sends RST


@attrs.frozen
class Request:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@attrs.define(eq=False)
class Peer:
    """The connection that a request came on, to be answered or mistreated."""

    writer: asyncio.StreamWriter
    reader: asyncio.StreamReader
    finished: bool = False

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)

    def answer(self, status: int, body: bytes = b"{}", **headers: str) -> None:
        """Send an ordinary answer."""
        lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    async def close(self) -> None:
        """Send what is left, and FIN."""
        self.finished = True
        with contextlib.suppress(ConnectionError):
            await self.writer.drain()
        self.writer.close()

    async def reset(self) -> None:
        """Send RST."""
        self.finished = True
        raw: socket.socket = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.writer.transport.abort()

    async def hang(self) -> None:
        """Never answer."""
        await asyncio.Event().wait()


Script = Callable[[Request, Peer], Awaitable[None]]


class RawServer:
    """Reads requests one after another on each connection, notes them, and lets the script answer."""

    def __init__(self, script: Script, port: int = 0, *, tls: ssl.SSLContext | None = None) -> None:
        self.script = script
        self.tls = tls
        self.requests: list[Request] = []
        self.connections = 0
        self.port = port
        self._server: asyncio.Server | None = None
        self._handlers: set[asyncio.Task[None]] = set()
        self._endings: set[asyncio.Task[None]] = set()  # connections that are closed, and may have words to send still

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}"

    def count(self, method: str) -> int:
        """Count the requests of a method."""
        return sum(request.method == method for request in self.requests)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for tasks in (self._handlers, self._endings):  # the end of the first begins the last of the second
            for task in list(tasks):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        self.connections += 1
        peer = Peer(writer, reader)
        try:
            while not peer.finished:
                request = await _read(reader)
                self.requests.append(request)
                await self.script(request, peer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._handlers.discard(task)
            writer.close()
            ending = asyncio.create_task(writer.wait_closed())  # whose error is nobody's: the client may have left
            ending.add_done_callback(self._ended)
            self._endings.add(ending)

    def _ended(self, ending: asyncio.Task[None]) -> None:
        self._endings.discard(ending)
        if not ending.cancelled():
            ending.exception()  # retrieved


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    return Request(method, path, headers, await reader.readexactly(int(headers.get("content-length", "0"))))
