"""Many downloads at once, and what becomes of them when the session closes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from file_server import SOUND, FileServer, Visit
from raw_server import Peer, Request

from finevoice_async import DownloadError, Downloads, FineVoiceSession, Retry, SessionClosedError, SoundEffect


def left(folder: Path) -> list[str]:
    """List what is in a folder, hidden files too."""
    return sorted(entry.name for entry in folder.iterdir())


async def hang(request: Request, peer: Peer) -> None:
    """Send half, and no more."""
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(SOUND) + SOUND[:999])
    await peer.hang()


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_only_so_many_at_once(visit: Visit, concurrency: int) -> None:
    """The rest waits for its turn, which a failed attempt gives up while it waits for the next."""
    running, most = 0, 0

    async def serve(request: Request, peer: Peer) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(1)
        running -= 1
        peer.answer(200, SOUND) if len(files.asked) % 4 else peer.answer(500)

    files = FileServer(serve)
    async with (
        files.server,
        visit(files.server.url, downloads=Downloads(concurrency=concurrency), retry=Retry(attempts=30)) as session,
    ):
        effect = await session.generate("rain")
        assert await asyncio.gather(*(effect.read() for _ in range(9))) == [SOUND] * 9
    assert most == concurrency


async def test_who_is_cancelled_gives_its_turn_up(visit: Visit) -> None:
    """A download that is cancelled, in its turn or before, leaves the turn to others."""

    async def serve(request: Request, peer: Peer) -> None:
        if len(files.asked) < 3:
            await hang(request, peer)
        peer.answer(200, SOUND)

    files = FileServer(serve)
    async with files.server, visit(files.server.url, downloads=Downloads(concurrency=1)) as session:
        effect = await session.generate("rain")
        for _ in range(2):
            reads = [asyncio.create_task(effect.read()) for _ in range(3)]
            await asyncio.sleep(1)
            for read in reads:
                read.cancel()
            await asyncio.wait(reads)
        assert await effect.read() == SOUND
        stream = effect.stream()
        await anext(stream)
        waiting = asyncio.create_task(effect.read())
        await asyncio.sleep(1)
        assert not waiting.done()
        await stream.aclose()
        assert await waiting == SOUND


async def test_attempts_of_downloads(visit: Visit) -> None:
    """Downloads may have another patience than all other calls."""

    async def serve(request: Request, peer: Peer) -> None:
        peer.answer(500)

    files = FileServer(serve)
    async with files.server, visit(files.server.url, downloads=Downloads(attempts=2)) as session:
        with pytest.raises(DownloadError, match="500"):
            await (await session.generate("rain")).read()
    assert len(files.asked) == 2


@pytest.mark.parametrize("where", ["running", "waiting", "pausing", "asking", "unanswered"])
async def test_the_session_closes(visit: Visit, tmp_path: Path, where: str) -> None:
    """Whoever is downloading hears of it at once, wherever it is; nothing is left on the disk."""
    loop = asyncio.get_running_loop()

    async def serve(request: Request, peer: Peer) -> None:
        match where:
            case "pausing":
                peer.answer(503, b"", Retry_After="60")
            case "asking":
                peer.answer(403)
                files.server.script = lambda _, peer: peer.hang()
            case "unanswered":
                await peer.hang()
            case _:
                await hang(request, peer)

    files = FileServer(serve)
    async with files.server:
        session = visit(files.server.url, downloads=Downloads(concurrency=1))
        effect = await session.generate("rain")
        others = [asyncio.create_task(effect.read())] if where == "waiting" else []
        await asyncio.sleep(0.1)
        saving = asyncio.create_task(effect.save(tmp_path / "a.wav"))
        await asyncio.sleep(0.1)
        closed_at = loop.time()
        await session.aclose()
        for job in (saving, *others):
            with pytest.raises(SessionClosedError, match="attach") as caught:
                await job
            assert caught.value.task_id == "t"
        assert loop.time() - closed_at < 0.1
        await check_closed(effect, tmp_path)


async def check_closed(effect: SoundEffect, folder: Path) -> None:
    """Check that nothing is begun any more."""
    with pytest.raises(SessionClosedError):
        await effect.save(f"{folder}/new/")
    assert left(folder) == []


async def test_a_stream_that_nobody_reads_while_the_session_closes(visit: Visit) -> None:
    """Who waits behind a stream that is left open hears of the end, too."""
    files = FileServer(hang)
    async with files.server:
        session: FineVoiceSession = visit(files.server.url, downloads=Downloads(concurrency=1))
        effect = await session.generate("rain")
        stream = effect.stream()
        await anext(stream)
        waiting = asyncio.create_task(effect.read())
        await asyncio.sleep(0.1)
        await session.aclose()
        with pytest.raises(SessionClosedError):
            await waiting
        with pytest.raises(SessionClosedError):
            await anext(stream)
