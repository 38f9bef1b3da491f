"""The process is killed while it saves, or another saves to the same place."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from file_server import SOUND, FileServer, Visit
from raw_server import Peer, Request

from finevoice_async import DownloadError, EffectState, FineVoiceSession

CHILD = Path(__file__).with_name("save_child.py")
HALF = len(SOUND) // 2
OTHER = SOUND[:-1000] + bytes(1000)

pytestmark = pytest.mark.real_time


def left(folder: Path) -> list[str]:
    """List what is in a folder, hidden files too."""
    return sorted(entry.name for entry in folder.iterdir())


class HalfServer(FileServer):
    """Sends the first to ask half a file and then nothing; to others what a good server sends of `content`."""

    def __init__(self, content: bytes = SOUND, etag: str = '"v1"') -> None:
        super().__init__(self._serve)
        self.content, self.etag = content, etag
        self.is_silent = True
        self.server.script = self._answer

    async def _answer(self, request: Request, peer: Peer) -> None:
        """Answer for the file, whatever the signature of its link; each link that is told has another one."""
        if request.path.startswith("/file.wav"):
            await self._serve(request, peer)
        else:
            link = f"{self.server.url}/file.wav?signature={len(self.server.requests)}"
            peer.answer(200, json.dumps({"taskId": "t", "status": 200, "url": link}).encode())

    @property
    def asked(self) -> list[Request]:
        """The requests for the file."""
        return [request for request in self.server.requests if request.path.startswith("/file.wav")]

    async def _serve(self, request: Request, peer: Peer) -> None:
        size = len(self.content)
        if self.is_silent:
            head = f'HTTP/1.1 200 OK\r\nETag: "v1"\r\nContent-Length: {len(SOUND)}\r\n\r\n'
            peer.send(head.encode() + SOUND[:HALF])
            await peer.hang()
        match = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
        if match is None or request.headers["if-range"] != self.etag:
            peer.answer(200, self.content, ETag=self.etag)
        else:
            start = int(match[1])
            span = f"bytes {start}-{size - 1}/{size}"
            peer.answer(206, self.content[start:], ETag=self.etag, Content_Range=span)


@asynccontextmanager
async def child(files: FileServer, path: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the program; it is killed at the end, if it still lives."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(CHILD), files.server.url, "t", path, env=environment, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.communicate()


async def until(there: Callable[[], bool]) -> None:
    """Wait until another process has done something."""
    async with asyncio.timeout(60):
        while not there():  # noqa: ASYNC110 - another process sets no event of ours
            await asyncio.sleep(0.005)


async def killed(files: HalfServer, folder: Path, path: str) -> None:
    """Let a program be killed while it saves, once some of the file is on the disk."""
    async with child(files, path):
        await until(lambda: any(entry.stat().st_size for entry in folder.rglob("*.part")))
    files.is_silent = False
    files.server.requests.clear()


async def save(session: FineVoiceSession, path: str | Path) -> Path:
    """Save the task's result."""
    return await (await (await session.attach("t"))).save(path)


@pytest.mark.parametrize("place", ["x.wav", "thunder", "new/"])
async def test_killed_while_it_saves(visit: Visit, tmp_path: Path, place: str) -> None:
    """The next save goes on where the killed one came to, also under a link with a new signature; nothing is left."""
    files = HalfServer()
    async with files.server:
        await killed(files, tmp_path, f"{tmp_path}/{place}")
        async with visit(files.server.url) as session:
            path = await save(session, f"{tmp_path}/{place}")
        (asked,) = files.asked
        assert int(asked.headers["range"].removeprefix("bytes=").rstrip("-")) > 0
        assert asked.headers["if-range"] == '"v1"'
    assert path.read_bytes() == SOUND
    assert left(path.parent) == [path.name]


@pytest.mark.parametrize("etag", ['"v1"', '"v2"', 'W/"v1"'])
async def test_another_content_meanwhile(visit: Visit, tmp_path: Path, etag: str) -> None:
    """If the file is another one now, nothing of the old one is in it."""
    files = HalfServer(OTHER + b"longer", etag)
    async with files.server:
        await killed(files, tmp_path, f"{tmp_path}/x.wav")
        async with visit(files.server.url) as session:
            path = await save(session, tmp_path / "x.wav")
    assert path.read_bytes() == OTHER + b"longer"
    assert left(tmp_path) == ["x.wav"]


async def test_another_effect_to_the_same_path(visit: Visit, tmp_path: Path) -> None:
    """What was kept of one link is not gone on with at another."""
    files = HalfServer()
    async with files.server:
        await killed(files, tmp_path, f"{tmp_path}/x.wav")

    async def serve(request: Request, peer: Peer) -> None:
        assert "range" not in request.headers
        peer.answer(200, OTHER, ETag='"v1"')

    others = FileServer(serve)  # at another port, and so of another link
    async with others.server, visit(others.server.url) as session:
        path = await (await session.generate("wind")).save(tmp_path / "x.wav")
    assert path.read_bytes() == OTHER
    assert left(tmp_path) == ["x.wav"]


async def test_the_file_is_there_meanwhile(visit: Visit, tmp_path: Path) -> None:
    """A save that is refused because the file exists removes what the killed one left."""
    files = HalfServer()
    async with files.server:
        await killed(files, tmp_path, f"{tmp_path}/x.wav")
        (tmp_path / "x.wav").write_bytes(b"mine")
        async with visit(files.server.url) as session:
            with pytest.raises(DownloadError, match="exists"):
                await save(session, tmp_path / "x.wav")
    assert left(tmp_path) == ["x.wav"]


async def test_another_process_saves_there(visit: Visit, tmp_path: Path) -> None:
    """Two processes that save to one path at once have a temporary file each; both files are whole, none is left."""
    files = HalfServer()
    async with files.server:
        async with child(files, f"{tmp_path}/x.wav"):
            await until(lambda: any(entry.stat().st_size for entry in tmp_path.glob("*.part")))
            (theirs,) = left(tmp_path)
            content = (tmp_path / theirs).read_bytes()
            files.is_silent = False
            async with visit(files.server.url) as session:
                path = await save(session, tmp_path / "x.wav")
            assert path.read_bytes() == SOUND
            assert left(tmp_path) == sorted([theirs, "x.wav"])
            assert (tmp_path / theirs).read_bytes() == content
        async with visit(files.server.url) as session:
            with pytest.raises(DownloadError, match="exists"):
                await save(session, tmp_path / "x.wav")
    assert left(tmp_path) == ["x.wav"]


async def test_a_restart_with_a_journal(visit: Visit, tmp_path: Path) -> None:
    """`recover` gives what was being saved, and the save goes on."""
    files, folder = HalfServer(), tmp_path / "out"
    async with files.server:
        async with visit(files.server.url, journal=tmp_path / "j.db") as session:
            saving = asyncio.create_task((await session.generate("rain", key="k")).save(f"{folder}/"))
            await until(lambda: folder.exists() and any(entry.stat().st_size for entry in folder.iterdir()))
            (name,) = left(folder)
            kept = (folder / name).read_bytes()
            saving.cancel()
            await asyncio.wait([saving])
        (folder / name).write_bytes(kept)  # as a crash would have left it
        files.is_silent = False
        files.server.requests.clear()
        async with visit(files.server.url, journal=tmp_path / "j.db") as session:
            async for outcome in session.recover():
                assert outcome.effect is not None
                path = await outcome.effect.save(f"{folder}/")
            assert [row.state async for row in session.rows()] == [EffectState.SAVED]
        assert "range" in files.asked[0].headers
    assert path.read_bytes() == SOUND
    assert left(folder) == [path.name]


async def test_many_saves_of_one_path_at_once(visit: Visit, tmp_path: Path) -> None:
    """In one process, too, each has a temporary file of its own; the file is one of theirs, whole."""
    files = HalfServer()
    files.is_silent = False
    async with files.server, visit(files.server.url) as session:
        effect = await (await session.attach("t"))
        saves = (effect.save(tmp_path / "x.wav", overwrite=True) for _ in range(12))
        assert set(await asyncio.gather(*saves)) == {tmp_path / "x.wav"}
        outcomes = await asyncio.gather(*(effect.save(tmp_path / "y") for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(outcome, Path) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, DownloadError) for outcome in outcomes) == 4
    assert left(tmp_path) == ["x.wav", "y.wav"]
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {SOUND}
