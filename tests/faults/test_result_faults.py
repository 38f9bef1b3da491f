"""A server says 200, and what it sends is no audio, or other audio than its link says, or comes late."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from file_server import SOUND, FileServer, Visit, fetch
from raw_server import Peer, Request

from finevoice_async import DownloadError, EffectState, SoundEffect

MP3 = (b"\xff\xfb\x90\x00" + bytes(413)) * 9
PAGE = b"<!DOCTYPE html><html><title>Sign in</title></html>"
NO_AUDIO = {
    "html": PAGE,
    "html after white space": b"\n" * 5000 + PAGE,
    "html with a byte order mark": b"\xef\xbb\xbf" + PAGE,
    "html in utf-16": PAGE.decode().encode("utf-16"),
    "json": b'{"error": "expired"}',
    "a json list": b" [ ]",
    "null": b"null",
    "xml": b"<?xml version='1.0'?><Error/>",
    "nothing": b"",
    "white space": b" \r\n" * 100,
}
WAYS = ("read", "save", "stream")


async def get(effect: SoundEffect, way: str, folder: Path) -> bytes:
    """Get a result in one of the three ways; a stream must not give anything that is no audio."""
    match way:
        case "read":
            return await effect.read()
        case "save":
            return (await effect.save(folder / "x.wav")).read_bytes()
    pieces = []
    async for piece in effect.stream():
        pieces.append(piece)
        assert SOUND.startswith(b"".join(pieces))
    return b"".join(pieces)


def answers(*bodies: bytes, **headers: str) -> tuple[FileServer, Callable[[], int]]:
    """Return a server that gives these, one after another, the last one for ever; and how often it was asked."""

    async def serve(request: Request, peer: Peer) -> None:
        peer.answer(200, bodies[min(len(files.asked), len(bodies)) - 1], **headers)

    files = FileServer(serve)
    return files, lambda: len(files.asked)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NO_AUDIO)
async def test_no_audio(visit: Visit, tmp_path: Path, name: str, way: str) -> None:
    """After all attempts it is an error; no file is left, no piece is given, and the journal does not say SAVED."""
    files, asked = answers(NO_AUDIO[name], Content_Type="audio/mpeg")
    async with files.server, visit(files.server.url, journal=tmp_path / "j.db") as session:
        effect = await session.generate("rain")
        with pytest.raises(DownloadError, match="200, but") as caught:
            await get(effect, way, tmp_path)
        assert (caught.value.task_id, caught.value.status) == ("t", 200)
        assert asked() == 4
        assert [row.state async for row in session.rows()] == [EffectState.DONE]
    assert [path.name for path in tmp_path.iterdir() if "j.db" not in path.name] == []


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NO_AUDIO)
async def test_it_becomes_right(visit: Visit, tmp_path: Path, name: str, way: str) -> None:
    """A page that comes first, for a moment, costs an attempt and no more; what the header says does not count."""
    files, asked = answers(NO_AUDIO[name], SOUND, Content_Type="text/html")
    async with files.server, visit(files.server.url) as session:
        assert await get(await session.generate("rain"), way, tmp_path) == SOUND
        assert asked() == 2


@pytest.mark.parametrize("way", WAYS)
async def test_a_page_in_the_middle(visit: Visit, tmp_path: Path, way: str) -> None:
    """A page between two halves takes nothing away: the second half is asked for again."""

    async def serve(request: Request, peer: Peer) -> None:
        match len(files.asked):
            case 1:
                peer.send(b'HTTP/1.1 200 OK\r\nETag: "v1"\r\nContent-Length: %d\r\n\r\n' % len(SOUND) + SOUND[:999])
                await peer.close()
            case 2:
                peer.answer(200, PAGE)
            case _:
                assert request.headers["range"] == "bytes=999-"
                span = f"bytes 999-{len(SOUND) - 1}/{len(SOUND)}"
                peer.answer(206, SOUND[999:], ETag='"v1"', Content_Range=span)

    files = FileServer(serve)
    async with files.server, visit(files.server.url) as session:
        assert await get(await session.generate("rain"), way, tmp_path) == SOUND


async def test_unknown_audio_passes(visit: Visit, tmp_path: Path) -> None:
    """What nobody knows may be audio: it is saved, under the suffix of its header or link."""
    files, _ = answers(b"\x01\x02 samples without a header", Content_Type="audio/flac")
    async with files.server, visit(files.server.url) as session:
        effect = await session.generate("rain")
        assert (await effect.save(tmp_path / "a")).name == "a.flac"
        assert (effect.suffix, effect.media_type) == (".flac", "audio/flac")


# Stored with strange words


@pytest.mark.parametrize("word", ["aws-chunked", "none", "binary", "UTF-8", "", "identity", "Identity", "utf-8,none"])
async def test_words_that_compress_nothing(visit: Visit, tmp_path: Path, word: str) -> None:
    """What people store in `Content-Encoding` is no reason to refuse a result."""
    files, asked = answers(SOUND, Content_Encoding=word)
    assert (await fetch(visit, files, tmp_path)).read_bytes() == SOUND
    assert asked() == 1


@pytest.mark.parametrize("word", ["gzip", "x-gzip", "br", "zstd", "deflate", "compress", "aws-chunked,gzip"])
async def test_words_that_compress(visit: Visit, tmp_path: Path, word: str) -> None:
    """What compresses was not asked for."""
    files, asked = answers(gzip.compress(SOUND), Content_Encoding=word)
    with pytest.raises(DownloadError, match="compressed"):
        await fetch(visit, files, tmp_path)
    assert asked() == 1


# Late


@pytest.mark.parametrize("status", [403, 404, 410])
async def test_a_link_before_its_file(visit: Visit, tmp_path: Path, status: int) -> None:
    """A file that comes half a second after its link is waited for."""
    loop = asyncio.get_running_loop()
    there = 0.0

    async def serve(request: Request, peer: Peer) -> None:
        nonlocal there
        there = there or loop.time() + 0.5
        peer.answer(200, SOUND) if loop.time() >= there else peer.answer(status)

    for number in range(20):
        (tmp_path / str(number)).mkdir()
        there = 0.0
        assert (await fetch(visit, FileServer(serve), tmp_path / str(number))).read_bytes() == SOUND


async def test_a_gateway_on_the_way_to_a_fresh_link(visit: Visit, tmp_path: Path) -> None:
    """A 502 in answer to the question for a fresh link does not end the download: it is asked again."""
    polls = 0

    async def script(request: Request, peer: Peer) -> None:
        nonlocal polls
        done = {"taskId": "t", "status": 200, "url": f"{files.server.url}/file.wav"}
        if request.method == "POST":
            peer.answer(200, json.dumps(done).encode())
        elif request.path == "/file.wav":
            peer.answer(403)
        elif request.path == "/fresh.wav":
            peer.answer(200, SOUND)
        else:
            polls += 1
            done["url"] = f"{files.server.url}/fresh.wav"
            peer.answer(502, b"<html>") if polls < 3 else peer.answer(200, json.dumps(done).encode())

    async def nothing(request: Request, peer: Peer) -> None:
        raise AssertionError("the script is another")

    files = FileServer(nothing)
    files.server.script = script
    assert (await fetch(visit, files, tmp_path)).read_bytes() == SOUND
    assert polls == 3


# Suffixes


@pytest.mark.parametrize(
    ("body", "suffix", "media_type"), [(SOUND, ".wav", "audio/wav"), (MP3, ".mp3", "audio/mpeg")], ids=["wav", "mp3"]
)
@pytest.mark.parametrize("link", ["/file.wav", "/file.php?f=file.wav", "/file", "/file.txt"])
async def test_the_suffix_follows_the_content(
    visit: Visit, tmp_path: Path, body: bytes, suffix: str, media_type: str, link: str
) -> None:
    """A name without a suffix, and one of ours, get that of what came, whatever the link says."""

    async def script(request: Request, peer: Peer) -> None:
        done = {"taskId": "t", "status": 200, "url": files.server.url + link}
        peer.answer(200, body if request.path == link else json.dumps(done).encode(), Content_Type="audio/ogg")

    files = FileServer(script)
    files.server.script = script
    async with files.server, visit(files.server.url) as session:
        effect = await session.generate("Regen über 雨")
        suggested = {"/file.wav": (".wav", "audio/wav")}.get(link, ("", None))
        assert (effect.suffix, effect.media_type) == suggested
        assert (await effect.save(tmp_path / "thunder")).name == f"thunder{suffix}"
        assert (effect.suffix, effect.media_type) == (suffix, media_type)
        assert (await effect.save(f"{tmp_path}/new/")).name == f"regen-über-雨-t{suffix}"
        with pytest.raises(DownloadError, match="exists"):
            await effect.save(tmp_path / "thunder")
        await effect.save(tmp_path / "thunder", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", f"thunder{suffix}"]


@pytest.mark.parametrize(
    ("name", "body", "is_told"),
    [
        ("rain.wav", MP3, True),
        ("rain.mp3", SOUND, True),
        ("rain.php", SOUND, True),
        ("rain.txt", MP3, True),
        ("rain.WAV", SOUND, False),
        ("rain.wave", SOUND, False),
        ("rain.mpga", MP3, False),
        ("rain.wav", b"samples without a header", False),
        ("rain.txt", b"samples without a header", False),
    ],
    ids=range(9),
)
async def test_a_suffix_of_the_callers(
    visit: Visit, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, body: bytes, is_told: bool
) -> None:
    """It is kept; if it contradicts what came, the log says so."""
    files, _ = answers(body)
    async with files.server, visit(files.server.url) as session:
        effect = await session.generate("rain")
        assert (await effect.save(tmp_path / name)).name == name
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == is_told
    assert all("suffix is the caller's" in words and "task t" in words for words in warnings)


# Names


@pytest.mark.parametrize(
    "name",
    [
        "雨" * 83 + "é.wav",
        "雨" * 79 + ".wav",
        "🌧" * 62 + ".wav",
        "🌧" * 62 + "ab.wav",
        "é" * 125 + ".wav",
        "x" * 251 + ".wav",
    ],
    ids=range(6),
)
async def test_long_names_of_the_callers(visit: Visit, tmp_path: Path, name: str) -> None:
    """Whatever the file system takes as a name is one; the temporary name has room beside it."""
    name = name.replace("é.wav", ".wav") if len(name.encode()) > 255 else name
    assert 238 <= len(name.encode()) <= 255
    files, _ = answers(SOUND)
    async with files.server, visit(files.server.url) as session:
        effect = await session.generate("rain")
        assert (await effect.save(tmp_path / name)).name == name
        bare = name.removesuffix(".wav") + "雨"
        assert (await effect.save(tmp_path / bare, overwrite=True)).suffix == ".wav"
    assert all(len(path.name.encode()) <= 255 for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    "prompt", ["CON", "nul.wav", "COM¹", "雨" * 500, "مطر\u202e", "🌧", "a. . .", "\u0301", "x" * 5000]
)
async def test_names_from_prompts(visit: Visit, tmp_path: Path, prompt: str) -> None:
    """Each prompt makes one file inside the folder, whose name every file system takes."""
    files, _ = answers(SOUND)
    async with files.server, visit(files.server.url) as session:
        path = await (await session.generate(prompt)).save(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert path.name.endswith("-t.wav")
    assert path.name.isprintable()
    assert len(path.name.encode()) <= 255
