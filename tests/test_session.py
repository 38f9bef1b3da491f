"""The session against the emulator: the main job and its promises."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from finevoice_async import (
    ConfigurationError,
    EffectState,
    FineVoiceSession,
    InvalidRequestError,
    JournalError,
    JournalRow,
    Polling,
    RequestRejectedError,
    SessionClosedError,
    SfxRequest,
    SubmitUnknownError,
    TaskNotFoundError,
    Timeouts,
)
from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.adapters.sqlite_journal import SqliteJournal
from finevoice_async.emulator import Emulator

Connect = Callable[..., FineVoiceSession]


async def test_generate_gives_audio(session: FineVoiceSession, emulator: Emulator, tmp_path: Path) -> None:
    """One effect goes from a prompt to a file."""
    effect = await session.generate("Thunderstorm with heavy rain", negative_prompt="music", duration=2)
    path = await effect.save(tmp_path / "thunder.wav")
    assert path.read_bytes() == await effect.read()
    assert path.read_bytes()[:4] == b"RIFF"
    accepted = emulator.ledger.accepted[str(effect.task_id)]
    assert accepted.request == SfxRequest("Thunderstorm with heavy rain", negative_prompt="music", duration=2)
    assert (emulator.ledger.posts, accepted.fetched, emulator.ledger.leaked_keys) == (1, 2, 0)


async def test_cancelled_waiters_leave_the_slot_taken(connect: Connect, emulator: Emulator) -> None:
    """A task that nobody waits for any more keeps its slot until it ends."""
    emulator.plan_limit = 1
    async with connect(max_concurrency=1) as session:
        task = await session.submit("wind")
        waiter = asyncio.create_task(task.wait())
        await asyncio.sleep(0.1)
        waiter.cancel()
        await session.generate("rain")
        assert task.done()
    assert emulator.ledger.most_running == 1
    assert 429 not in emulator.ledger.refused


async def test_cancelled_submission_keeps_its_id(session: FineVoiceSession, emulator: Emulator) -> None:
    """Cancelled while its POST is under way, the session still learns the task id and follows the task."""
    submission = asyncio.create_task(session.submit("wind"))
    await asyncio.sleep(0)  # it starts
    await asyncio.sleep(0)  # its POST starts
    assert session.stats.submitting == 1
    submission.cancel()
    with pytest.raises(asyncio.CancelledError):
        await submission
    await asyncio.sleep(0.1)
    (task,) = session.tasks
    assert list(emulator.ledger.accepted) == [task.id]
    assert (await task).task_id == task.id


async def test_attach(session: FineVoiceSession, connect: Connect) -> None:
    """A task of one session is awaited in another."""
    task = await session.submit("bird")
    async with connect() as other:
        effect = await (await other.attach(str(task.id)))
        assert effect.task_id == task.id
        assert effect.request is None
        with pytest.raises(TaskNotFoundError) as caught:
            await (await other.attach("nobody"))
        assert caught.value.task_id == "nobody"
        with pytest.raises(InvalidRequestError):
            await other.attach("../balance\r\n")


async def test_synchronous_answer(session: FineVoiceSession, emulator: Emulator) -> None:
    """With use_async=False the answer carries the result, and nothing is polled."""
    effect = await session.generate("click", use_async=False)
    assert (await effect.read())[:4] == b"RIFF"
    assert emulator.ledger.polls == 0


async def test_closing_tells_waiters_in_order(connect: Connect) -> None:
    """Closing with tasks in flight tells each waiter its id, in the order of submission; closing twice is fine."""
    told: list[str | None] = []

    async def wait(task: Any) -> None:
        with pytest.raises(SessionClosedError) as caught:
            await task
        told.append(caught.value.task_id)

    session = connect()
    tasks = [await session.submit(f"sound {i}") for i in range(4)]
    waiters = [asyncio.create_task(wait(task)) for task in reversed(tasks)]
    await asyncio.sleep(0.1)
    await asyncio.gather(session.aclose(), session.aclose())
    await asyncio.gather(*waiters)
    assert told == [task.id for task in tasks]
    await session.aclose()
    for use in (session.submit("x"), tasks[0].wait()):
        with pytest.raises(SessionClosedError):
            await use


async def test_closing_frees_who_waits_for_a_slot(connect: Connect, emulator: Emulator) -> None:
    """A submission that still waits for its slot when the session closes was never sent."""
    session = connect(max_concurrency=1)
    await session.submit("wind")
    second = asyncio.create_task(session.submit("rain"))
    await asyncio.sleep(0.1)
    assert session.stats.waiting == 1
    await session.aclose()
    with pytest.raises(SessionClosedError, match="Nothing was sent"):
        await second
    assert emulator.ledger.posts == 1


async def test_closing_settles_posts_for_a_bounded_time(connect: Connect, emulator: Emulator) -> None:
    """A POST that hangs at closing is given its time, then its waiter hears that the outcome is unknown."""
    emulator.inject("submit.hang")
    session = connect(timeouts=Timeouts(close=3))
    submission = asyncio.create_task(session.submit("wind"))
    await asyncio.sleep(0.1)
    began = asyncio.get_running_loop().time()
    await session.aclose()
    assert asyncio.get_running_loop().time() - began == pytest.approx(3, abs=0.1)
    with pytest.raises(SubmitUnknownError):
        await submission


@pytest.mark.parametrize("key", [None, "", "  ", "gehe\u00efm", "a b", "a\nb"])
def test_bad_key(key: str | None) -> None:
    """A key that no header can carry is refused with a word on where keys come from, and never shown."""
    with pytest.raises(ConfigurationError, match="FINEVOICE_API_KEY") as caught:
        FineVoiceSession(key)
    assert "gehe" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["", "ftp://x", "https://", "https://u:p@x", "nonsense", "http://x:99999", "https://x?a=b"]
)
def test_bad_base_url(url: str) -> None:
    """An address that cannot be the service's is refused."""
    with pytest.raises(ConfigurationError, match="FINEVOICE_BASE_URL"):
        FineVoiceSession("key", base_url=url or "/")


@pytest.mark.parametrize("number", [0, -1, 1.5, True, "5", None])
def test_bad_concurrency(number: Any) -> None:
    """A number of slots must be a whole one."""
    with pytest.raises(ConfigurationError, match="max_concurrency"):
        FineVoiceSession("key", max_concurrency=number)


async def test_environment_names_key_and_address(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Key and address come from the environment when they are not given."""
    monkeypatch.setenv("FINEVOICE_API_KEY", emulator.api_key)
    monkeypatch.setenv("FINEVOICE_BASE_URL", emulator.url + "/")
    async with FineVoiceSession() as session:
        assert (await session.generate("bell")).task_id in emulator.ledger.accepted


async def test_callers_http_session_stays_open(emulator: Emulator) -> None:
    """An HTTP session of the caller's is used and not closed."""
    async with aiohttp.ClientSession() as http:
        async with FineVoiceSession(emulator.api_key, base_url=emulator.url, http=http) as session:
            await session.generate("bell")
        assert not http.closed


def test_other_loop_is_refused() -> None:
    """A session that was used in one event loop is refused in another."""
    session = FineVoiceSession("key")
    loop = asyncio.new_event_loop()
    loop.run_until_complete(session.__aenter__())
    with pytest.raises(ConfigurationError, match="event loop"):
        asyncio.run(session.submit("x"))
    with pytest.raises(ConfigurationError, match="event loop"):
        asyncio.run(session.aclose())
    loop.run_until_complete(session.aclose())
    loop.close()


async def test_other_process_is_refused(session: FineVoiceSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a fork the child is told to make a session of its own."""
    real = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: real + 1)
    with pytest.raises(ConfigurationError, match="process"):
        await session.generate("x")
    monkeypatch.undo()


async def test_dropped_session_warns(connect: Connect) -> None:
    """A session dropped open gives a warning that names the running tasks."""
    session = connect()
    task = await session.submit("wind")
    with pytest.warns(ResourceWarning, match=str(task.id)):
        session.__del__()
    await session.aclose()


@pytest.mark.uvloop
async def test_uvloop() -> None:
    """The whole session works on uvloop, in real time."""
    polling = Polling(min_gap=0.005, max_gap=0.02, budget=1000)
    async with (
        Emulator(service_time=0.01) as emulator,
        FineVoiceSession(emulator.api_key, base_url=emulator.url, polling=polling) as session,
    ):
        outcomes = [outcome async for outcome in session.generate_many([{"prompt": "rain", "duration": 0.1}] * 20)]
        effects = [outcome.effect for outcome in outcomes if outcome.effect]
        assert len(effects) == 20
        assert (await effects[0].read())[:4] == b"RIFF"


async def test_big_prompt_is_refused_by_the_service(session: FineVoiceSession, emulator: Emulator) -> None:
    """A prompt of a megabyte is a clear error, and the session goes on."""
    with pytest.raises(RequestRejectedError, match="413") as caught:
        await session.generate("x" * 1_000_000)
    assert len(str(caught.value)) < 500
    assert len(repr(caught.value.request)) < 500
    assert (await session.generate("fine")).task_id


async def test_key_is_shown_nowhere(
    session: FineVoiceSession, emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """The key is in no repr, no log line and no error with its context."""
    caplog.set_level("DEBUG")
    emulator.inject("submit.lose_reply")
    with pytest.raises(SubmitUnknownError) as caught:
        await session.generate("x")
    error: BaseException | None = caught.value
    seen = [repr(session), repr(session.__dict__), caplog.text]
    while error is not None:
        seen += [str(error), repr(error), repr(error.__dict__)]
        error = error.__context__ or error.__cause__
    assert emulator.api_key not in "".join(seen)


async def test_an_entering_that_fails_gives_back_what_was_opened(connect: Connect, tmp_path: Path) -> None:
    """Nobody leaves what was never entered: the journal is free for others at once."""
    path = tmp_path / "effects.db"

    class Unreadable(SqliteJournal):
        async def row_ids(self, *states: EffectState) -> list[int]:
            raise JournalError("The disk fails.")

        async def rows(self, *states: EffectState, after: int = 0, limit: int = 1000) -> list[JournalRow]:
            raise JournalError("The disk fails.")

    session = connect(journal=Unreadable(path, LoopClock()))
    with pytest.raises(JournalError, match="disk fails"):
        async with session:
            pass
    assert repr(session).startswith("<FineVoiceSession closed")
    async with connect(journal=path):
        pass
