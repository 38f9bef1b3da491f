"""What goes wrong with results."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import re
import socket
import tracemalloc
from pathlib import Path

import pytest
from file_server import SOUND, FileServer, Visit, fetch
from raw_server import Peer, RawServer, Request

from finevoice_async import DownloadError, SoundEffect
from finevoice_async.adapters.aiohttp_fetcher import AiohttpFetcher
from finevoice_async.config import Timeouts
from finevoice_async.core.failures import Failure, FailureKind
from finevoice_async.engine import downloads


@pytest.mark.parametrize("at", [0, 1, 100, len(SOUND) - 1])
@pytest.mark.parametrize("then", ["206", "200", "416", "wrong range", "other file"])
async def test_download_is_cut_and_then(visit: Visit, tmp_path: Path, at: int, then: str) -> None:
    """A download is cut at a byte, then goes on in each way a server may: the file is identical."""

    async def serve(request: Request, peer: Peer) -> None:
        match = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
        if len(files.asked) == 1:
            peer.send(b'HTTP/1.1 200 OK\r\nETag: "v1"\r\nContent-Length: %d\r\n\r\n' % len(SOUND) + SOUND[:at])
            await peer.close()
        elif match is None or then == "200":
            peer.answer(200, SOUND, ETag='"v1"')
        elif then == "416":
            peer.answer(416, b"", Content_Range=f"bytes */{len(SOUND)}")
        else:
            start = int(match[1]) + (then == "wrong range")
            assert request.headers["if-range"] == '"v1"'
            etag = '"v2"' if then == "other file" else '"v1"'
            span = f"bytes {start}-{len(SOUND) - 1}/{len(SOUND)}"
            peer.answer(206, SOUND[start:], ETag=etag, Content_Range=span)

    files = FileServer(serve)
    assert (await fetch(visit, files, tmp_path)).read_bytes() == SOUND


async def test_weak_validators_start_over(visit: Visit, tmp_path: Path) -> None:
    """Without a strong ETag nothing proves that the rest is of the same file: begin anew."""

    async def serve(request: Request, peer: Peer) -> None:
        assert "range" not in request.headers
        if len(files.asked) == 1:
            peer.send(b'HTTP/1.1 200 OK\r\nETag: W/"v1"\r\nContent-Length: %d\r\n\r\n' % len(SOUND) + SOUND[:99])
            await peer.close()
        else:
            peer.answer(200, SOUND)

    files = FileServer(serve)
    assert (await fetch(visit, files, tmp_path)).read_bytes() == SOUND


@pytest.mark.parametrize("way", ["close", "chunked"])
async def test_early_end_without_length(visit: Visit, tmp_path: Path, way: str) -> None:
    """No Content-Length and an early end: noticed by the format, not saved as whole."""

    async def serve(request: Request, peer: Peer) -> None:
        if way == "chunked":
            half = SOUND[: len(SOUND) // 2]
            peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            peer.send(b"%x\r\n" % len(half) + half + b"\r\n0\r\n\r\n")
        else:
            peer.send(b"HTTP/1.1 200 OK\r\n\r\n" + SOUND[:-1])
            await peer.close()

    with pytest.raises(DownloadError, match="WAV file ends") as caught:
        await fetch(visit, FileServer(serve), tmp_path)
    assert caught.value.task_id == "t"


async def test_whole_without_length(visit: Visit, tmp_path: Path) -> None:
    """No Content-Length, but the format says that it is whole."""

    async def serve(request: Request, peer: Peer) -> None:
        peer.send(b"HTTP/1.1 200 OK\r\n\r\n" + SOUND)
        await peer.close()

    assert (await fetch(visit, FileServer(serve), tmp_path)).read_bytes() == SOUND


async def test_disk_is_full_during_a_save(visit: Visit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full: no final file, the task id on the error, and the effect can be saved later."""

    async def serve(request: Request, peer: Peer) -> None:
        peer.answer(200, SOUND)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    files = FileServer(serve)
    async with files.server, visit(files.server.url) as session:
        effect = await session.generate("rain")
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(DownloadError, match="No space left") as caught:
                await effect.save(tmp_path / "x.wav")
        assert caught.value.task_id == "t"
        assert list(tmp_path.iterdir()) == []
        assert (await effect.save(tmp_path / "x.wav")).read_bytes() == SOUND


@pytest.mark.parametrize(
    "link",
    [
        "https://127.0.0.1:{port}/x",
        "https://[::1]:{port}/x",
        "https://0x7f000001:{port}/x",
        "https://2130706433:{port}/x",
        "https://[::ffff:127.0.0.1]:{port}/x",
        "https://localhost:{port}/x",
        "https://10.0.0.1:{port}/x",
        "https://169.254.169.254:{port}/x",
    ],
)
async def test_links_to_private_addresses_are_refused(
    no_leaks: object, monkeypatch: pytest.MonkeyPatch, link: str
) -> None:
    """A link that leads to a private address in any spelling is refused, and no connection is made."""

    async def script(request: Request, peer: Peer) -> None:
        raise AssertionError("somebody came")

    connected: list[object] = []
    monkeypatch.setattr(socket.socket, "connect", lambda *address: connected.append(address))
    async with RawServer(script) as server:
        fetcher = AiohttpFetcher(Timeouts(), local=False)
        with pytest.raises(Failure) as caught:
            async with fetcher.get(link.format(port=server.port), {}):
                pass
        assert caught.value.kind is FailureKind.INVALID
        await fetcher.aclose()
        assert server.connections == 0
    assert connected == []


@pytest.mark.parametrize("link", ["file:///etc/passwd", "ftp://x/y", "http:///", "data:,x", "https://a\nb/"])
async def test_links_of_other_schemes_are_refused(visit: Visit, tmp_path: Path, link: str) -> None:
    """A link that is no web address is refused."""

    async def serve(request: Request, peer: Peer) -> None:
        raise AssertionError("somebody came")

    with pytest.raises(DownloadError, match="link"):
        await fetch(visit, FileServer(serve, link), tmp_path)


async def test_redirects_are_checked(visit: Visit, tmp_path: Path) -> None:
    """Redirects are followed a few times, each checked anew; to a file, or in a circle, they are refused."""

    async def to_file(request: Request, peer: Peer) -> None:
        peer.answer(302, b"", Location="file:///etc/passwd")

    async def circle(request: Request, peer: Peer) -> None:
        peer.answer(302, b"", Location="/file.wav")

    async def once(request: Request, peer: Peer) -> None:
        if len(files.asked) <= 5:
            peer.answer(307, b"", Location="/file.wav")
        else:
            peer.answer(200, SOUND)

    with pytest.raises(DownloadError, match="link is not"):
        await fetch(visit, FileServer(to_file), tmp_path)
    with pytest.raises(DownloadError, match="redirected more than"):
        await fetch(visit, FileServer(circle), tmp_path)
    files = FileServer(once)
    assert (await fetch(visit, files, tmp_path)).read_bytes() == SOUND


async def test_compressed_result_is_refused(visit: Visit, tmp_path: Path) -> None:
    """A compressed answer was not asked for, and is refused unopened."""

    async def serve(request: Request, peer: Peer) -> None:
        peer.answer(200, gzip.compress(bytes(50_000_000)), Content_Encoding="gzip")

    with pytest.raises(DownloadError, match="compressed"):
        await fetch(visit, FileServer(serve), tmp_path)


@pytest.mark.parametrize("honest", [True, False])
async def test_endless_result_is_given_up(
    visit: Visit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, honest: bool
) -> None:
    """A body without end is cut at the cap, with flat memory; an honest length above it is not begun."""
    monkeypatch.setattr(downloads, "MAX_RESULT", 8 * 1024 * 1024)

    async def serve(request: Request, peer: Peer) -> None:
        length = b"Content-Length: 999999999\r\n" if honest else b""
        peer.send(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n")
        while not peer.writer.is_closing():
            peer.send(bytes(256 * 1024))
            await peer.writer.drain()
            await asyncio.sleep(0)

    tracemalloc.start()
    try:
        with pytest.raises(DownloadError, match="bytes"):
            await fetch(visit, FileServer(serve), tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 8 * 1024 * 1024
    finally:
        tracemalloc.stop()


NASTY = ["=cmd", "<script>", "../../x", "a\x00b", "CON", "x" * 10_000, "\u202egnp.exe"]


@pytest.mark.parametrize("prompt", NASTY, ids=range(len(NASTY)))
async def test_nasty_prompts(visit: Visit, tmp_path: Path, prompt: str) -> None:
    """Whatever the prompt is, it arrives as it was, and the file's name stays inside the folder."""

    async def serve(request: Request, peer: Peer) -> None:
        peer.answer(200, SOUND)

    files = FileServer(serve)
    folder = tmp_path / "out"
    async with files.server, visit(files.server.url) as session:
        effect: SoundEffect = await session.generate(prompt)
        path = await effect.save(f"{folder}/")
        assert path.parent == folder
        assert [entry.name for entry in folder.iterdir()] == [path.name]
        assert re.fullmatch(r"[a-z0-9][a-z0-9-]*\.wav", path.name)
        assert len(repr(effect)) < 500
    assert json.loads(files.server.requests[0].body)["prompt"] == prompt
