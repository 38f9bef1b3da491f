"""A raw server that is the service and its download host at once, and real sound to be had from it."""

from __future__ import annotations

import io
import json
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raw_server import Peer, RawServer, Request

from finevoice_async import FineVoiceSession

Visit = Callable[..., FineVoiceSession]


def _sound() -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(range(256)) * 1000)
    return buffer.getvalue()


SOUND = _sound()


class FileServer:
    """A raw server that is the service and its download host: `serve` answers for the file."""

    def __init__(self, serve: Any, link: str | None = None) -> None:
        self.serve = serve
        self.link = link
        self.server = RawServer(self._script)

    async def _script(self, request: Request, peer: Peer) -> None:
        link = self.link or f"{self.server.url}/file.wav"
        if request.path == "/file.wav":
            await self.serve(request, peer)
        else:
            peer.answer(200, json.dumps({"taskId": "t", "status": 200, "url": link}).encode())

    @property
    def asked(self) -> list[Request]:
        """The requests for the file."""
        return [request for request in self.server.requests if request.path == "/file.wav"]


async def fetch(visit: Visit, files: FileServer, tmp_path: Path) -> Path:
    """Make an effect and save it; no part may be left, whatever happens."""
    async with files.server, visit(files.server.url) as session:
        effect = await session.generate("rain")
        try:
            return await effect.save(tmp_path / "x.wav")
        finally:
            names = [path.name for path in tmp_path.iterdir()]
            assert names in ([], ["x.wav"])
            assert all("authorization" not in request.headers for request in files.asked)
