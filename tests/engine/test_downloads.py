"""Results: bytes, pieces, files; whole or not at all."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from finevoice_async import DownloadError, FineVoiceSession, SessionClosedError, SoundEffect
from finevoice_async.emulator import Emulator

Connect = Callable[..., FineVoiceSession]


@pytest.fixture
async def effect(session: FineVoiceSession) -> SoundEffect:
    """A finished effect."""
    return await session.generate("Church bell", duration=2)


def left(folder: Path) -> list[str]:
    """List what is in a folder, hidden files too."""
    return sorted(entry.name for entry in folder.iterdir())


async def test_read_stream_and_save_agree(effect: SoundEffect, tmp_path: Path) -> None:
    """All three ways give the same bytes."""
    whole = await effect.read()
    assert b"".join([piece async for piece in effect.stream()]) == whole
    assert (await effect.save(tmp_path / "a.wav")).read_bytes() == whole
    assert left(tmp_path) == ["a.wav"]


@pytest.mark.parametrize("way", ["read", "stream", "save"])
async def test_cut_download_is_resumed(effect: SoundEffect, emulator: Emulator, tmp_path: Path, way: str) -> None:
    """A download that is cut goes on where it was, and the result is whole."""
    whole = await effect.read()
    emulator.inject("download.cut", 2)
    if way == "read":
        got = await effect.read()
    elif way == "stream":
        got = b"".join([piece async for piece in effect.stream()])
    else:
        got = (await effect.save(tmp_path / "a.wav")).read_bytes()
    assert got == whole
    assert emulator.ledger.fetches == 4


async def test_given_up_download_leaves_nothing(effect: SoundEffect, emulator: Emulator, tmp_path: Path) -> None:
    """After all attempts there is an error with the task id, and no file under any name."""
    emulator.inject("download.error_500", 4)
    with pytest.raises(DownloadError, match="500") as caught:
        await effect.save(tmp_path / "a.wav")
    assert caught.value.task_id == effect.task_id
    assert caught.value.status == 500
    assert left(tmp_path) == []
    await effect.save(tmp_path / "a.wav")


async def test_expired_link_is_refreshed_once(effect: SoundEffect, emulator: Emulator) -> None:
    """An expired link asks the task for a fresh one, without a second submission."""
    emulator.inject("download.expire")
    assert (await effect.read())[:4] == b"RIFF"
    assert emulator.ledger.posts == 1


async def test_save_does_not_overwrite(effect: SoundEffect, tmp_path: Path) -> None:
    """A file that is there stays, unless the caller says so."""
    target = tmp_path / "a.wav"
    target.write_text("mine")
    with pytest.raises(DownloadError, match="overwrite=True"):
        await effect.save(target)
    assert target.read_text() == "mine"
    await effect.save(target, overwrite=True)
    assert target.read_bytes()[:4] == b"RIFF"


async def test_folders_get_safe_names(session: FineVoiceSession, tmp_path: Path) -> None:
    """A folder as target gets a name of the prompt's words and the id; a new folder is made."""
    effect = await session.generate("../../etc <b>CON</b>", duration=1)
    first = await effect.save(tmp_path)
    second = await effect.save(f"{tmp_path}/new/deep/")
    assert first.parent == tmp_path
    assert second.parent == tmp_path / "new" / "deep"
    assert first.name == second.name == f"etc-b-con-b-{effect.task_id}.wav"


async def test_impossible_targets(effect: SoundEffect, tmp_path: Path) -> None:
    """A folder that is missing, or that cannot be written to, is a clear error that keeps the effect."""
    (tmp_path / "file").write_text("")
    for target in (tmp_path / "nowhere" / "a.wav", tmp_path / "file" / "a.wav", "a\0b", "/proc/a.wav"):
        with pytest.raises(DownloadError, match="kept at the service"):
            await effect.save(target)


async def test_cancelled_save_leaves_nothing(effect: SoundEffect, emulator: Emulator, tmp_path: Path) -> None:
    """A save that is cancelled, at any moment, leaves the whole file or none."""
    whole = await effect.read()
    for steps in range(40):
        target = tmp_path / f"{steps}.wav"
        saving = asyncio.create_task(effect.save(target))
        for _ in range(steps):
            await asyncio.sleep(0)
        saving.cancel()
        await asyncio.wait([saving])
        await asyncio.sleep(0.1)
        assert not target.exists() or target.read_bytes() == whole
    assert not [name for name in left(tmp_path) if name.endswith(".part")]


async def test_after_closing(connect: Connect, tmp_path: Path) -> None:
    """An effect of a closed session says so, at once, and where the result is."""
    async with connect() as session:
        effect = await session.generate("bell", duration=1)
    loop = asyncio.get_running_loop()
    began = loop.time()
    for way in (effect.read(), anext(effect.stream()), effect.save(tmp_path / "new" / "a.wav")):
        with pytest.raises(SessionClosedError, match="attach") as caught:
            await way
        assert (caught.value.task_id, caught.value.request) == (effect.task_id, effect.request)
    assert loop.time() == began
    assert left(tmp_path) == []


async def test_full_disk(effect: SoundEffect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full is a clear error; no file is left, and the effect can be saved later."""

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DownloadError, match="No space left"):
        await effect.save(tmp_path / "a.wav")
    assert left(tmp_path) == []
    monkeypatch.undo()


async def test_links_in_a_repr(effect: SoundEffect) -> None:
    """A link may carry a signature, so it is in no repr."""
    assert "http" not in repr(effect)
