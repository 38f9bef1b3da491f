"""What a notebook shows of an effect, and a file's name for people."""

from __future__ import annotations

import base64
import gc
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from finevoice_async import FineVoiceSession, SoundEffect, shown


def played(effect: SoundEffect) -> bytes | None:
    """Return what the player would play, None if there is none."""
    found = re.search(r'<audio controls src="data:audio/wav;base64,([^"]*)">', effect._repr_html_())
    return base64.b64decode(found[1]) if found else None


async def test_a_player(session: FineVoiceSession) -> None:
    """Before it was read there are words that say how to get it, then the sound itself; its link is in neither."""
    effect = await session.generate("rain <script>alert(1)</script> & \"wind\" 'x'", duration=1)
    before = effect._repr_html_()
    assert "await effect.read()" in before
    sound = await effect.read()
    after = effect._repr_html_()
    assert played(effect) == sound
    for page in (before, after):
        assert "<script" not in page
        assert effect.url not in page
        assert "rain &lt;script&gt;" in page


async def test_saved(session: FineVoiceSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was saved plays from its file, wherever the program stands; where that has gone, words say so."""
    effect = await session.generate("rain", duration=1)
    monkeypatch.chdir(tmp_path)
    path = await effect.save("rain")
    monkeypatch.chdir("/")
    path = tmp_path / path
    assert played(effect) == path.read_bytes()
    path.unlink()
    assert played(effect) is None
    assert "await effect.read()" in effect._repr_html_()


async def test_too_large(session: FineVoiceSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No page grows by more than its bound, neither by bytes nor by a file; what was kept before is not shown."""
    effect = await session.generate("rain", duration=1)
    sound = await effect.read()
    assert played(effect)
    monkeypatch.setattr(shown, "MAX_SHOWN", len(sound) - 1)
    await effect.read()
    assert played(effect) is None
    await effect.save(tmp_path / "rain")
    assert played(effect) is None
    monkeypatch.setattr(shown, "MAX_SHOWN", len(sound))
    assert played(effect) == sound


async def test_memory(session: FineVoiceSession) -> None:
    """The sounds read last are kept, as long as somebody has their effects; a pickle has none of it."""
    gc.collect()
    earlier = len(shown._BY_AGE)
    effects = [await session.generate("rain", duration=1) for _ in range(shown.MAX_KEPT + 3)]
    sizes = [len(await effect.read()) for effect in effects]
    assert len(pickle.dumps(effects[-1])) < sizes[-1]
    assert [played(effect) is not None for effect in effects] == [False] * 3 + [True] * shown.MAX_KEPT
    assert len(shown._BY_AGE) == shown.MAX_KEPT
    effects.clear()
    gc.collect()
    assert len(shown._BY_AGE) <= earlier


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("Thunder, with heavy rain!", "thunder-with-heavy-rain.wav"),
        ("../../etc/passwd", "etc-passwd.wav"),
        ("CON", "_con.wav"),
        ("!?", "effect.wav"),
        ("Grüße aus 東京", "grüße-aus-東京.wav"),
        ("a" * 1000, "a" * 40 + ".wav"),
    ],
)
async def test_file_name(session: FineVoiceSession, prompt: str, name: str) -> None:
    """It has words of the prompt and the suffix, and is a plain name everywhere."""
    assert (await session.generate(prompt)).file_name == name


async def test_an_attached_effect(session: FineVoiceSession, connect: Callable[[], FineVoiceSession]) -> None:
    """Of one whose request nobody knows, the id stands in for the prompt, and the name is a plain one."""
    effect = await session.generate("rain", duration=1)
    assert effect.task_id is not None
    async with connect() as other:
        attached = await (await other.attach(effect.task_id))
        assert attached.file_name == "effect.wav"
        assert effect.task_id in attached._repr_html_()
