"""Effects and outcomes travel: to another process, into a cache; without their session, and they say so."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from finevoice_async import ConfigurationError, DownloadError, FineVoiceSession, Outcome, SoundEffect

T = TypeVar("T")
TWINS = pytest.mark.parametrize(
    "twin_of",
    [copy.copy, copy.deepcopy, lambda whole: pickle.loads(pickle.dumps(whole))],
    ids=["copy", "deep", "pickle"],
)


@TWINS
async def test_an_effect(
    session: FineVoiceSession, tmp_path: Path, twin_of: Callable[[SoundEffect], SoundEffect]
) -> None:
    """All that is known of it goes along; only it cannot download, and says what can."""
    effect = await session.generate("rain", duration=2)
    twin = twin_of(effect)
    assert twin == effect
    assert (twin.raw, twin.key, twin.url, twin.row_id) == (effect.raw, effect.key, effect.url, effect.row_id)
    assert repr(twin) == repr(effect)

    async def stream() -> None:
        async for _ in twin.stream():
            pass

    for use in (twin.read, stream, lambda: twin.save(tmp_path / "x.wav")):
        with pytest.raises(ConfigurationError, match="copy without a session") as caught:
            await use()
        assert (caught.value.task_id, caught.value.paid) == (effect.task_id, True)
    assert not list(tmp_path.iterdir())
    assert await effect.read(), "the effect itself is as it was"
    assert effect.task_id is not None
    assert (await (await session.attach(effect.task_id)).wait()).url == twin.url


@TWINS
async def test_outcomes(session: FineVoiceSession, twin_of: Callable[[Outcome], Outcome]) -> None:
    """Good ones and bad ones keep what they say."""
    outcomes = [outcome async for outcome in session.generate_many(["rain", ""], ordered=True)]
    good, bad = map(twin_of, outcomes)
    assert good == outcomes[0]
    assert bad.error is not None
    assert outcomes[1].error is not None
    assert vars(bad.error) == vars(outcomes[1].error)
    assert type(bad.error) is type(outcomes[1].error)


async def test_errors_of_a_download_say_whose_they_are(session: FineVoiceSession, tmp_path: Path) -> None:
    """A save that fails has the task id, the request and the key, and it is paid for."""
    effect = await session.generate("rain")
    (tmp_path / "x.wav").touch()
    with pytest.raises(DownloadError) as caught:
        await effect.save(tmp_path / "x.wav")
    error = caught.value
    assert (error.task_id, error.request, error.key, error.paid) == (effect.task_id, effect.request, effect.key, True)
