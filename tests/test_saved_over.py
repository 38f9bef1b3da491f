"""Within one run no effect is saved over another: what was paid for is there, or its outcome says why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ledger.helpers import Connect, all_of, prompts

from finevoice_async import DownloadError, InvalidRequestError, Polling, SfxItem
from finevoice_async.emulator import Constant, Emulator

FAST = Polling.fixed(0.5)


@pytest.mark.parametrize("again", ["a.wav", "./a.wav"])
async def test_two_items_name_one_file(connect: Connect, emulator: Emulator, tmp_path: Path, again: str) -> None:
    """The second is refused before anything is sent for it, and says whose the file is."""
    requests: list[Any] = [
        {"prompt": "rain", "file": "a.wav", "key": "first"},
        {"prompt": "wind", "file": again},
        "snow",
    ]
    async with connect(polling=FAST) as session:
        rain, wind, snow = await all_of(session.generate_many(requests, ordered=True, save_to=tmp_path))
    assert rain.path == tmp_path / "a.wav"
    assert isinstance(wind.error, InvalidRequestError)
    assert "is that of item 0 (key 'first') already" in wind.error.message
    assert wind.error.paid is False
    assert snow.path is not None
    assert prompts(emulator) == ["rain", "snow"]


async def test_one_key_is_one_effect(connect: Connect, emulator: Emulator, tmp_path: Path) -> None:
    """An item that comes twice, under one key, is saved to its file both times: it is the same."""
    item: SfxItem = {"prompt": "rain", "file": "a", "key": "k"}
    async with connect(polling=FAST) as session:
        outcomes = await all_of(session.generate_many([item, item], save_to=tmp_path))
    assert [outcome.path for outcome in outcomes] == [tmp_path / "a.wav"] * 2
    assert prompts(emulator) == ["rain"]


async def test_a_file_is_free_again_in_the_next_run(connect: Connect, emulator: Emulator, tmp_path: Path) -> None:
    """What an earlier run has saved is replaced, as before."""
    async with connect(polling=FAST) as session:
        for prompt in ("rain", "wind"):
            (outcome,) = await all_of(session.generate_many([{"prompt": prompt, "file": "a"}], save_to=tmp_path))
            assert outcome.path == tmp_path / "a.wav"


async def test_an_invalid_item_keeps_no_file(connect: Connect, emulator: Emulator, tmp_path: Path) -> None:
    """What cannot be asked for has no file that another would overwrite."""
    requests: list[Any] = [{"prompt": "", "file": "a"}, {"prompt": "wind", "file": "a"}]
    async with connect(polling=FAST) as session:
        bad, good = await all_of(session.generate_many(requests, ordered=True, save_to=tmp_path))
    assert bad.error is not None
    assert good.path == tmp_path / "a.wav"


@pytest.mark.parametrize("seconds", [0.0, 3.0])
async def test_a_callable_gives_one_path_twice(
    connect: Connect, emulator: Emulator, tmp_path: Path, seconds: float
) -> None:
    """The first to come has the file; the other's outcome has the effect, and says where the file went."""
    emulator.service_time = Constant(1)
    emulator.inject("download.slow", 1, value=seconds)
    async with connect(polling=FAST) as session:
        outcomes = await all_of(session.generate_many(["rain", "wind"], save_to=lambda *_: tmp_path / "one"))
        (saved,) = [outcome for outcome in outcomes if outcome.path]
        (other,) = [outcome for outcome in outcomes if not outcome.path]
        assert saved.path == tmp_path / "one.wav"
        assert isinstance(other.error, DownloadError)
        assert f"item {saved.index} has that file already" in other.error.message
        assert "kept at the service" in other.error.message
        assert other.error.paid is True
        assert saved.effect is not None
        assert saved.path.read_bytes() == await saved.effect.read()
        assert other.effect is not None
        assert await other.effect.save(tmp_path / "two") == tmp_path / "two.wav"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["one.wav", "two.wav"]


async def test_a_suffix_makes_them_one(connect: Connect, emulator: Emulator, tmp_path: Path) -> None:
    """`a` becomes `a.wav`, which another item names: one of them is not saved, and says so."""
    requests: list[SfxItem] = [{"prompt": "rain", "file": "a"}, {"prompt": "wind", "file": "a.wav"}]
    async with connect(polling=FAST) as session:
        outcomes = await all_of(session.generate_many(requests, save_to=tmp_path))
    assert {outcome.path for outcome in outcomes} == {tmp_path / "a.wav", None}
    assert [type(outcome.error) for outcome in outcomes if outcome.path is None] == [DownloadError]


async def test_recovered_effects(connect: Connect, emulator: Emulator, tmp_path: Path) -> None:
    """recover() saves no effect over another either; what it could not save is given by the next one."""
    journal = tmp_path / "effects.db"
    async with connect(journal=journal, polling=FAST) as session:
        for prompt in ("rain", "wind"):
            await session.generate(prompt)
    async with connect(journal=journal) as session:
        outcomes = await all_of(session.recover(save_to=lambda *_: tmp_path / "one"))
        assert [outcome.path for outcome in outcomes].count(None) == 1
    async with connect(journal=journal) as session:
        (outcome,) = await all_of(session.recover(save_to=lambda *_: tmp_path / "two"))
    assert outcome.path == tmp_path / "two.wav"


async def test_what_an_earlier_run_saved_is_kept_too(connect: Connect, emulator: Emulator, tmp_path: Path) -> None:
    """A file that an earlier run made is its effect's in this one: nothing else is saved there."""
    journal, folder = tmp_path / "effects.db", tmp_path / "out"
    first: SfxItem = {"prompt": "rain", "key": "k", "file": "a.wav"}
    async with connect(journal=journal, polling=FAST) as session:
        (outcome,) = await all_of(session.generate_many([first], save_to=folder))
        assert outcome.path is not None
        content = outcome.path.read_bytes()
        requests: list[SfxItem] = [first, {"prompt": "wind", "file": "a"}]
        one, other = await all_of(session.generate_many(requests, ordered=True, save_to=folder))
    assert one.path == outcome.path
    assert isinstance(other.error, DownloadError)
    assert outcome.path.read_bytes() == content
