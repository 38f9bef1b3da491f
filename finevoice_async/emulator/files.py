"""The download host: results by link, without a key."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import attrs
from aiohttp import web

from finevoice_async.emulator.faults import Fault, FaultPlan
from finevoice_async.emulator.handlers import Handlers, cut, now
from finevoice_async.emulator.ledger import Accepted
from finevoice_async.emulator.library import AudioFile, Library
from finevoice_async.emulator.ranges import UnsatisfiableRangeError, read_range
from finevoice_async.emulator.service import Service


@attrs.frozen
class _Part:
    """What is sent of a file."""

    file: AudioFile
    start: int
    end: int
    ranged: bool

    @property
    def content(self) -> bytes:
        return self.file.content[self.start : self.end]

    @property
    def size(self) -> int:
        return self.end - self.start

    def headers(self, shift: int = 0) -> dict[str, str]:
        headers = {"ETag": self.file.etag, "Accept-Ranges": "bytes", "Content-Type": "audio/wav"}
        if self.ranged:
            total = len(self.file.content)
            headers["Content-Range"] = f"bytes {self.start + shift}-{self.end - 1 + shift}/{total}"
        return headers


class FileHandlers(Handlers):
    """Answers downloads."""

    def __init__(
        self,
        service: Service,
        faults: FaultPlan,
        stopping: asyncio.Event,
        base_url: Callable[[], str],
        *,
        library: Library,
    ) -> None:
        super().__init__(service, faults, stopping, base_url)
        self._library = library

    async def download(self, request: web.Request) -> web.StreamResponse:
        """Answer with a result, or the asked part of it."""
        self._ledger.fetches += 1
        if "Authorization" in request.headers:
            self._ledger.leaked_keys += 1
        task = self._service.find(request.match_info["name"], now())
        if isinstance(task, int):
            return self._refuse(task, {"detail": "The link has expired" if task != 404 else "No such file"})
        file = await self._library.get(task.request)
        part = self._choose(request, file)
        if part is None:
            size = len(file.content)
            return self._refuse(416, {"detail": "No such range"}, {"Content-Range": f"bytes */{size}"})
        fault = self._meet("download", without=() if part.ranged else ("download.wrong_range",))
        try:
            if fault is None:
                return await self._send(request, task, part)
            return await self._break(fault, request, task, part)
        except ConnectionResetError:  # the client left, which is its right and no fault of the server's to log
            return cut(request)

    def _choose(self, request: web.Request, file: AudioFile) -> _Part | None:
        """Choose what was asked for; None if the file has no such bytes."""
        size = len(file.content)
        condition = request.headers.get("If-Range", file.etag)
        try:
            wanted = read_range(request.headers.get("Range"), size) if condition == file.etag else None
        except UnsatisfiableRangeError:
            return None
        start, end = wanted or (0, size)
        return _Part(file, start, end, ranged=wanted is not None)

    async def _break(self, fault: Fault, request: web.Request, task: Accepted, part: _Part) -> web.StreamResponse:
        match fault.name:
            case "download.expire":
                status = int(fault.number)
                self._service.expire(task, status)
                return self._refuse(status, {"detail": "The link has expired"})
            case "download.hang":
                return await self._hang(request)
            case "download.error_500":
                return self._refuse_by_order(fault, 500)
            case "download.redirect":
                return self._redirect(302, fault.text or f"{self._base_url()}{request.rel_url.raw_path}")
            case "download.whole":
                whole = _Part(part.file, 0, len(part.file.content), ranged=False)
                return await self._send(request, task, whole)
            case "download.slow":
                return await self._send(request, task, part, pause=fault.number)
            case "download.wrong_range":
                return await self._send(request, task, part, shift=1)
        sent = part.size // 2 if fault.number < 0 else min(int(fault.number), part.size - 1)
        return await self._send_some(request, part, sent, noticed=fault.name == "download.cut")

    async def _send(
        self, request: web.Request, task: Accepted, part: _Part, *, pause: float = 0.0, shift: int = 0
    ) -> web.StreamResponse:
        response = web.StreamResponse(status=206 if part.ranged else 200, headers=part.headers(shift))
        response.content_length = part.size
        await response.prepare(request)
        content = part.content
        if pause:
            half = part.size // 2
            await response.write(content[:half])
            await self._until(now() + pause)
            if self._stopping.is_set():
                return cut(request, response)
            content = content[half:]
        last = part.end == len(part.file.content)
        task.fetched += last  # first: whoever has the last byte may look at once, from another thread
        try:
            await response.write(content)
            await response.write_eof()
        except BaseException:
            task.fetched -= last
            raise
        return response

    async def _send_some(self, request: web.Request, part: _Part, sent: int, *, noticed: bool) -> web.StreamResponse:
        """Send an answer that ends early: against its Content-Length, or without one and so by the rules."""
        response = web.StreamResponse(status=206 if part.ranged else 200, headers=part.headers())
        if noticed:
            response.content_length = part.size
        await response.prepare(request)
        if sent:
            await response.write(part.content[:sent])
        if noticed:
            return cut(request, response)
        await response.write_eof()
        return response
