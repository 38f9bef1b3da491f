"""A server in a thread of its own, which goes on while the client's loop is blocked."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class ThreadServer:
    """Answers every request, counts the POSTs, and closes its idle connections when it is told."""

    def __init__(self) -> None:
        self.posts = 0
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        self.close_idle()
        for thread in self._threads:
            thread.join()

    def close_idle(self) -> None:
        """Close all connections; none has a request under way."""
        while self._open:
            with contextlib.suppress(OSError):
                self._open.pop().shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # it was told to end
            while True:
                peer = self._listener.accept()[0]
                self.connections += 1
                self._open.append(peer)
                self._threads.append(threading.Thread(target=self._serve, args=(peer,)))
                self._threads[-1].start()

    def _serve(self, peer: socket.socket) -> None:
        with peer, contextlib.suppress(ConnectionError):
            while head := peer.recv(65536):  # on loopback a small request comes whole
                self.posts += head.startswith(b"POST")
                peer.sendall(ANSWER)
