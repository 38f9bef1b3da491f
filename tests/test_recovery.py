"""The session with a journal: what survives, what is never sent twice."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finevoice_async import (
    ConfigurationError,
    EffectState,
    FineVoiceSession,
    InvalidRequestError,
    JournalRow,
    SessionClosedError,
    SubmitNotSentError,
    SubmitUnknownError,
    TaskFailedError,
    Timeouts,
)
from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.adapters.sqlite_journal import SqliteJournal
from finevoice_async.core.requests import SfxRequest
from finevoice_async.emulator import Emulator

Connect = Callable[..., FineVoiceSession]


async def rows(path: Path) -> list[JournalRow]:
    """Read a journal that nobody has open."""
    journal = SqliteJournal(path, LoopClock())
    await journal.open()
    try:
        return await journal.rows()
    finally:
        await journal.aclose()


async def test_a_row_tells_the_whole_story(connect: Connect, path: Path, tmp_path: Path) -> None:
    """An effect's row ends with its task id, its links, its file and the file's SHA-256."""
    async with connect(journal=path) as session:
        effect = await session.generate("rain", key="scene 1", duration=1)
        saved = await effect.save(tmp_path / "rain.wav")
    (row,) = await rows(path)
    assert (row.state, row.key, row.task_id, row.urls) == (EffectState.SAVED, "scene 1", effect.task_id, effect.urls)
    assert row.request == SfxRequest("rain", duration=1)
    assert row.path == str(saved)
    assert row.sha256 == hashlib.sha256(saved.read_bytes()).hexdigest()


async def test_a_key_is_paid_for_once(connect: Connect, path: Path, emulator: Emulator) -> None:
    """The same key gives the earlier effect: at once, while it runs, and in another session."""
    async with connect(journal=path) as session:
        first, second = await asyncio.gather(session.generate("rain", key="a"), session.generate("rain", key="a"))
        third = await session.generate("rain", key="a")
        with pytest.raises(InvalidRequestError, match="another request"):
            await session.generate("wind", key="a")
    async with connect(journal=path) as session:
        fourth = await session.generate("rain", key="a")
        async for outcome in session.generate_many([{"prompt": "rain", "key": "a"}]):
            assert outcome.task_id == fourth.task_id
    assert len({effect.task_id for effect in (first, second, third, fourth)}) == 1
    assert len(emulator.ledger.accepted) == 1


async def test_a_failed_key_may_be_tried_again(connect: Connect, path: Path, emulator: Emulator) -> None:
    """After a failure the same key gives the failure, and submits anew only where that is asked for."""
    emulator.inject("task.fail")
    async with connect(journal=path) as session:
        with pytest.raises(TaskFailedError):
            await session.generate("rain", key="a")
        with pytest.raises(TaskFailedError, match="retry_failed"):
            await session.generate("rain", key="a")
        assert (await session.generate("rain", key="a", retry_failed=True)).task_id
    assert len(emulator.ledger.accepted) == 2


@pytest.mark.parametrize("key", ["", " ", 5])
async def test_bad_keys(connect: Connect, path: Path, key: Any) -> None:
    """A key must be a name, and so must an owner, with a journal and without."""
    for options in ({"journal": path}, {}):
        async with connect(**options) as session:
            for call in (session.enqueue, session.submit, session.generate):
                with pytest.raises(InvalidRequestError, match="key"):
                    await call("rain", key=key)
                with pytest.raises(InvalidRequestError, match="owner"):
                    await call("rain", owner=key)


async def test_what_needs_a_journal(connect: Connect) -> None:
    """Without a journal there is nothing to recover, and the session says so."""
    async with connect() as session:
        with pytest.raises(ConfigurationError, match="journal"):
            await session.unknown()


async def test_recover_picks_everything_up(connect: Connect, path: Path, emulator: Emulator, tmp_path: Path) -> None:
    """A later session polls on what was submitted, submits what was never sent, lists what is unknown."""
    emulator.plan_limit = 2
    session = connect(journal=path, max_concurrency=2, timeouts=Timeouts(close=1))
    done = await session.generate("done")
    emulator.inject("submit.lose_reply")
    with pytest.raises(SubmitUnknownError):
        await session.submit("unknown")
    await asyncio.sleep(60)
    running = [await session.submit("running"), await session.submit("running")]
    waiting = asyncio.create_task(session.submit("told that nothing was sent"))
    await asyncio.sleep(0.1)
    await session.aclose()
    with pytest.raises(SessionClosedError, match="Nothing was sent"):
        await waiting
    journal = SqliteJournal(path, LoopClock())
    await journal.open()
    await journal.begin(SfxRequest("waiting"), key=None, state=EffectState.QUEUED)  # by a process that crashed
    await journal.aclose()
    accepted = len(emulator.ledger.accepted)

    async with connect(journal=path, max_concurrency=2) as session:
        outcomes = [outcome async for outcome in session.recover()]
        for outcome in outcomes:
            if outcome.effect:
                await outcome.effect.save(f"{tmp_path}/out/")
        assert not [outcome async for outcome in session.recover() if outcome.effect]
    by_prompt = {str(outcome.request.prompt): outcome for outcome in outcomes if outcome.request}
    assert set(by_prompt) == {"done", "unknown", "running", "waiting"}
    assert isinstance(by_prompt["unknown"].error, SubmitUnknownError)
    assert by_prompt["done"].task_id == done.task_id
    ids = {outcome.task_id for outcome in outcomes if outcome.request and outcome.request.prompt == "running"}
    assert ids == {task.id for task in running}
    assert len(emulator.ledger.accepted) == accepted + 1
    assert emulator.ledger.most_running <= 2
    states = sorted(row.state.value for row in await rows(path))
    assert states == ["refused"] + ["saved"] * 4 + ["unknown"]


async def test_unknown_is_sent_again_only_on_purpose(connect: Connect, path: Path, emulator: Emulator) -> None:
    """An unknown row is listed, refused without the word, and sent again with it."""
    emulator.inject("submit.lose_reply")
    async with connect(journal=path) as session:
        with pytest.raises(SubmitUnknownError):
            await session.submit("rain", key="a")
        with pytest.raises(SubmitUnknownError, match="resubmit"):
            await session.submit("rain", key="a")
        (row,) = await session.unknown()
        with pytest.raises(InvalidRequestError, match="accept_double_charge"):
            await session.resubmit(row)
        assert len(emulator.ledger.accepted) == 1
        task = await session.resubmit(row, accept_double_charge=True)
        await task
        assert not await session.unknown()
        (row,) = [row async for row in session.rows()]
        with pytest.raises(InvalidRequestError, match="not unknown"):
            await session.resubmit(row, accept_double_charge=True)
    assert len(emulator.ledger.accepted) == 2


async def test_cancelled_before_sending_is_withdrawn(connect: Connect, path: Path, emulator: Emulator) -> None:
    """A submission cancelled while it waits for its place is not sent by a later session either."""
    async with connect(journal=path, max_concurrency=1) as session:
        await session.submit("runs")
        waiting = asyncio.create_task(session.submit("withdrawn"))
        await asyncio.sleep(0.1)
        waiting.cancel()
        await asyncio.wait([waiting])
        at_once = asyncio.create_task(session.submit("withdrawn", key="b"))
        await asyncio.sleep(0)
        at_once.cancel()
        await asyncio.wait([at_once])
    async with connect(journal=path) as session:
        outcomes = [outcome async for outcome in session.recover()]
    assert [outcome.request.prompt for outcome in outcomes if outcome.request] == ["runs"]
    assert len(emulator.ledger.accepted) == 1


async def test_not_sent_is_not_unknown(no_leaks: object, path: Path) -> None:
    """A service that cannot be reached leaves no row that may have been paid for."""
    async with FineVoiceSession("key", base_url="http://127.0.0.1:1", journal=path) as session:
        with pytest.raises(SubmitNotSentError):
            await session.submit("rain")
        assert not await session.unknown()
    (row,) = await rows(path)
    assert row.state is EffectState.REFUSED


async def test_the_schedule_is_kept(connect: Connect, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What was learned is in the journal, and a damaged state is ignored with a warning."""
    async with connect(journal=path) as session:
        [outcome async for outcome in session.generate_many(["rain"] * 5)]
        learned = session.polling_state()
    async with connect(journal=path) as session:
        assert session.polling_state() == json.loads(json.dumps(learned))
    journal = SqliteJournal(path, LoopClock())
    await journal.open()
    await journal.store("polling", '{"version": 1e9}')
    await journal.aclose()
    async with connect(journal=path) as session:
        assert session.polling_state() != learned
    assert "ignored" in caplog.text


async def test_a_journal_of_the_callers_own(connect: Connect, path: Path) -> None:
    """A journal object is used like a path."""
    async with connect(journal=SqliteJournal(path, LoopClock())) as session:
        await session.generate("rain")
    assert [row.state for row in await rows(path)] == [EffectState.DONE]


async def test_two_recoveries_at_once_send_once(connect: Connect, path: Path, emulator: Emulator) -> None:
    """Rows read before somebody else submitted them are not submitted a second time, however that ended."""
    journal = SqliteJournal(path, LoopClock())
    await journal.open()
    for number in range(6):
        await journal.begin(SfxRequest(f"rain {number}"), key=None, state=EffectState.QUEUED)
    await journal.aclose()
    emulator.inject("submit.lose_reply", 2)
    async with connect(journal=path, max_concurrency=1) as session:

        async def recover() -> None:
            async for _ in session.recover():
                await asyncio.sleep(0)

        await asyncio.gather(recover(), recover(), recover())
        assert len(await session.unknown()) == 2
    accepted = [task.request.prompt for task in emulator.ledger.accepted.values()]
    assert sorted(map(str, accepted)) == [f"rain {number}" for number in range(6)]


async def test_resubmitted_twice_at_once_is_sent_once(connect: Connect, path: Path, emulator: Emulator) -> None:
    """An unknown row that is being sent again is not sent a third time beside it."""
    emulator.inject("submit.lose_reply")
    async with connect(journal=path) as session:
        with pytest.raises(SubmitUnknownError):
            await session.submit("rain")
        (row,) = await session.unknown()
        twice = [session.resubmit(row, accept_double_charge=True) for _ in range(2)]
        first, second = await asyncio.gather(*twice, return_exceptions=True)
        assert isinstance(second, InvalidRequestError)
        assert not isinstance(first, BaseException)
        await first
    assert len(emulator.ledger.accepted) == 2


@pytest.mark.parametrize("turns", range(6))
async def test_a_key_is_free_only_when_its_row_is_withdrawn(
    connect: Connect, path: Path, emulator: Emulator, turns: int
) -> None:
    """A submission cancelled while its row is written does not disturb the next one with the same key."""
    async with connect(journal=path, max_concurrency=1) as session:
        first = asyncio.create_task(session.submit("rain", key="a"))
        for _ in range(turns):
            await asyncio.sleep(0)
        first.cancel()
        effect = await session.generate("rain", key="a")
        await asyncio.wait([first])
        (row,) = [row async for row in session.rows()]
        assert (row.task_id, row.state) == (effect.task_id, EffectState.DONE)
    assert len(emulator.ledger.accepted) == 1


async def test_a_row_just_submitted_has_its_grace(connect: Connect, path: Path, emulator: Emulator) -> None:
    """After a quick restart a 404 is borne as in the session that submitted: the effect is not given up."""
    async with connect(journal=path) as session:
        await session.submit("rain")
    emulator.inject("poll.not_found", 2)
    async with connect(journal=path) as session:
        outcomes = [outcome async for outcome in session.recover()]
    assert [outcome.error for outcome in outcomes] == [None]
