"""Effects that are saved beside: they come with their paths, and making others does not wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finevoice_async import (
    ConfigurationError,
    DownloadError,
    Downloads,
    FineVoiceSession,
    InvalidRequestError,
    Outcome,
    Polling,
    Retry,
)
from finevoice_async.emulator import Constant, Emulator

Connect = Callable[..., FineVoiceSession]
FAST = Polling.fixed(0.5)


async def taken(session: FineVoiceSession, requests: Any, **options: Any) -> list[Outcome]:
    """Take all outcomes, in order."""
    return [outcome async for outcome in session.generate_many(requests, ordered=True, **options)]


async def test_a_folder(connect: Connect, tmp_path: Path) -> None:
    """The folder is made; each effect has a file of its own in it, and the outcome says which."""
    folder = tmp_path / "new" / "effects"
    async with connect() as session:
        outcomes = await taken(session, ["rain", "wind", "rain"], save_to=folder)
    paths = [outcome.path for outcome in outcomes]
    assert len(set(paths)) == 3
    assert {path.parent for path in paths if path} == {folder}
    assert all(path and path.suffix == ".wav" and path.read_bytes()[:4] == b"RIFF" for path in paths)
    assert [outcome.error for outcome in outcomes] == [None] * 3
    assert outcomes[0].unwrap().key is None


@pytest.mark.parametrize("slash", ["", "/"])
async def test_a_text_is_a_folder(connect: Connect, tmp_path: Path, slash: str) -> None:
    """With or without a slash at its end it is a folder."""
    async with connect() as session:
        (outcome,) = await taken(session, ["rain"], save_to=f"{tmp_path}/effects{slash}")
    assert outcome.path is not None
    assert outcome.path.parent == tmp_path / "effects"


async def test_named_files(connect: Connect, tmp_path: Path) -> None:
    """An item names its file, in a folder below the folder too; the suffix follows what came if it has none."""
    requests = [{"prompt": "rain", "file": "weather/rain"}, {"prompt": "wind", "file": "wind.mp3", "key": "w"}]
    async with connect() as session:
        rain, wind = await taken(session, requests, save_to=tmp_path)
    assert (rain.path, rain.note) == (tmp_path / "weather" / "rain.wav", None)
    assert wind.path == tmp_path / "wind.mp3"
    assert "audio/wav" in str(wind.note), "a suffix that contradicts what came is kept, and said"
    assert wind.key == "w"


@pytest.mark.parametrize("file", ["../rain.wav", "/tmp/rain.wav", "", "a/../../b", ".", "a\0b", 7])
async def test_files_outside_the_folder(connect: Connect, tmp_path: Path, emulator: Emulator, file: Any) -> None:
    """A name that leads out of the folder is refused before anything is sent."""
    async with connect() as session:
        (outcome,) = await taken(session, [{"prompt": "rain", "file": file}], save_to=tmp_path)
    assert isinstance(outcome.error, InvalidRequestError)
    assert not emulator.ledger.accepted


@pytest.mark.parametrize("save_to", [None, lambda request, key: "x.wav"], ids=["nothing", "callable"])
async def test_a_file_without_a_folder(connect: Connect, emulator: Emulator, save_to: Any) -> None:
    """Where no folder is given, a file's name means nothing, and is refused."""
    async with connect() as session:
        (outcome,) = await taken(session, [{"prompt": "rain", "file": "rain.wav"}], save_to=save_to)
    assert isinstance(outcome.error, InvalidRequestError)
    assert not emulator.ledger.accepted


async def test_a_callable(connect: Connect, tmp_path: Path) -> None:
    """A callable gives each path, of the request and the key."""
    async with connect() as session:
        outcomes = await taken(
            session,
            ["rain", {"prompt": "wind", "key": "w"}],
            save_to=lambda request, key: tmp_path / f"{request.prompt}-{key}",
        )
    assert [outcome.path for outcome in outcomes] == [tmp_path / "rain-None.wav", tmp_path / "wind-w.wav"]


@pytest.mark.parametrize(
    "fault", [ZeroDivisionError(), asyncio.CancelledError(), StopAsyncIteration(), KeyError("prompt")]
)
async def test_a_callable_that_raises(connect: Connect, tmp_path: Path, fault: BaseException) -> None:
    """Whatever it raises, the effect is there, the error says so, and the others are saved."""

    def choose(request: Any, key: str | None) -> Path:
        if key == "bad":
            raise fault
        return tmp_path / "good"

    async with connect() as session:
        bad, good = await taken(session, [{"prompt": "rain", "key": "bad"}, "wind"], save_to=choose)
    assert isinstance(bad.error, DownloadError)
    assert bad.effect is not None
    assert bad.path is None
    assert (bad.error.task_id, bad.error.key, bad.error.paid) == (bad.task_id, "bad", True)
    with pytest.raises(DownloadError):
        bad.unwrap()
    assert good.path == tmp_path / "good.wav"


@pytest.mark.parametrize("save_to", [7, b"effects", object()])
async def test_what_is_no_destination(connect: Connect, emulator: Emulator, save_to: Any) -> None:
    """What is neither a folder nor callable is refused at once."""
    async with connect() as session:
        with pytest.raises(ConfigurationError, match="save_to"):
            await taken(session, ["rain"], save_to=save_to)
    assert not emulator.ledger.accepted


async def test_a_folder_that_cannot_be(connect: Connect, tmp_path: Path, emulator: Emulator) -> None:
    """A file in the folder's place is told before anything is paid for."""
    (tmp_path / "effects").write_text("not a folder")
    async with connect() as session:
        for folder in (tmp_path / "effects", tmp_path / "effects" / "deeper"):
            with pytest.raises(ConfigurationError, match="Nothing was sent"):
                await taken(session, ["rain"], save_to=folder)
    assert not emulator.ledger.accepted


async def test_a_download_that_fails(connect: Connect, tmp_path: Path, emulator: Emulator) -> None:
    """It is one outcome, with the effect and the error; the others are saved, and the effect can be saved again."""
    emulator.inject("download.error_500", 4)
    async with connect(max_concurrency=1, retry=Retry(attempts=2, first_delay=0.1)) as session:
        outcomes = await taken(session, ["rain", "wind", "bells"], save_to=tmp_path)
        failed = [outcome for outcome in outcomes if outcome.error]
        assert len(failed) in (1, 2)
        assert len(list(tmp_path.iterdir())) == 3 - len(failed)
        for outcome in failed:
            assert isinstance(outcome.error, DownloadError)
            assert outcome.effect is not None
            assert (await outcome.effect.save(tmp_path)).is_file()


async def test_downloads_run_beside(connect: Connect, tmp_path: Path, emulator: Emulator) -> None:
    """60 effects of 2 s in 10 slots take hardly longer with downloads of a second than with instant ones."""
    emulator.service_time = Constant(2)
    loop = asyncio.get_running_loop()
    took = {}
    for seconds in (0.0, 1.0):
        if seconds:
            emulator.inject("download.slow", 60, value=seconds)
        async with connect(max_concurrency=10, polling=FAST, downloads=Downloads(concurrency=16)) as session:
            began = loop.time()
            outcomes = await taken(session, [f"sound {n}" for n in range(60)], save_to=tmp_path / str(seconds))
            took[seconds] = loop.time() - began
        assert not [outcome.error for outcome in outcomes if outcome.error]
    assert took[1.0] <= 1.05 * took[0.0] + 1.0, "the last download comes after the last effect"


async def test_leaving_the_loop(connect: Connect, tmp_path: Path, emulator: Emulator) -> None:
    """Left while downloads are under way, it stops them, and the journal gives the effects to the next run."""
    emulator.service_time = Constant(1)
    journal = tmp_path / "effects.db"
    async with connect(journal=journal, polling=FAST) as session:
        emulator.inject("download.hang", 4)
        async for outcome in session.generate_many(["rain", "wind", "bells", "bees", "cars"], save_to=tmp_path / "a"):
            assert outcome.error is None
            break
    async with connect(journal=journal, polling=FAST) as session:
        again = [outcome async for outcome in session.recover(save_to=tmp_path / "a")]
    assert len(again) == 4
    assert all(outcome.path for outcome in again)
    assert len(list((tmp_path / "a").glob("*.wav"))) == 5
    assert not [path for path in (tmp_path / "a").iterdir() if path.suffix != ".wav"]
    assert len(emulator.ledger.accepted) == 5


async def test_a_second_run(connect: Connect, tmp_path: Path, emulator: Emulator) -> None:
    """What an earlier run saved is not fetched again as long as its file is there; else it is."""
    requests = [{"prompt": "rain", "key": "r"}, {"prompt": "wind", "key": "w", "file": "wind"}]
    paths = []
    for _ in range(2):
        async with connect(journal=tmp_path / "effects.db") as session:
            paths.append([outcome.path for outcome in await taken(session, requests, save_to=tmp_path / "a")])
    assert paths[0] == paths[1]
    assert emulator.ledger.fetched == 2
    (tmp_path / "a" / "wind.wav").unlink()
    async with connect(journal=tmp_path / "effects.db") as session:
        await taken(session, requests, save_to=tmp_path / "a")
        await taken(session, requests[:1], save_to=tmp_path / "b")
    assert emulator.ledger.fetched == 4
    assert (tmp_path / "a" / "wind.wav").is_file()
    assert len(emulator.ledger.accepted) == 2


async def test_what_was_not_taken(
    connect: Connect, tmp_path: Path, emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """Finished effects that nobody took are logged with their ids, unless a journal knows them."""
    emulator.service_time = Constant(1)
    for journal in (None, tmp_path / "effects.db"):
        caplog.clear()
        async with connect(journal=journal) as session:
            outcomes = session.generate_many(["rain", "wind", "bells"])
            first = await anext(outcomes)
            await asyncio.sleep(20)
            await outcomes.aclose()
        ids = {task_id for task_id in emulator.ledger.accepted if task_id in caplog.text and task_id != first.task_id}
        said = [record for record in caplog.records if "not taken" in record.message]
        assert (len(ids & set(" ".join(r.message for r in said).replace(",", "").split())), len(said)) == (
            (2, 1) if journal is None else (0, 0)
        )


async def test_acknowledged(connect: Connect, tmp_path: Path, emulator: Emulator) -> None:
    """Who reads an effect says so, and is not given it again; without that, it is given again."""
    journal = tmp_path / "effects.db"
    async with connect(journal=journal) as session:
        read = await session.generate("rain")
        await read.read()
        await read.acknowledge()
        await (await session.generate("wind")).read()
    async with connect(journal=journal) as session:
        assert [outcome.request.prompt async for outcome in session.recover() if outcome.request] == ["wind"]
    async with connect() as session:
        await (await session.generate("bells")).acknowledge()  # without a journal there is nothing to note


async def test_left_while_it_is_saved_and_without_a_journal(
    connect: Connect, tmp_path: Path, emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """What was made and not saved yet is named in the log, for nothing else knows it: it is paid for."""
    emulator.service_time = Constant(1)
    emulator.inject("download.slow", 2, value=60)
    async with connect(polling=FAST) as session:
        taking = asyncio.create_task(taken(session, ["rain", "wind"], save_to=tmp_path))
        await asyncio.sleep(5)
        taking.cancel()
        await asyncio.wait([taking])
    (said,) = [record.message for record in caplog.records if "not taken" in record.message]
    assert all(task_id in said for task_id in emulator.ledger.accepted)
