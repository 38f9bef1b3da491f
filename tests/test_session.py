"""The session against the emulator: the main job and its promises."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from finevoice_async import (
    AuthenticationError,
    ConfigurationError,
    FineVoiceSession,
    InsufficientCreditsError,
    InvalidRequestError,
    Polling,
    SessionClosedError,
    SfxRequest,
    SubmitUnknownError,
    TaskFailedError,
    TaskNotFoundError,
    TaskStatus,
    TaskTimeoutError,
    Timeouts,
)
from finevoice_async.adapters.local_slots import LocalSlots
from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.emulator import Constant, Emulator, greedy_bound
from finevoice_async.engine.exchange import Exchange

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


async def test_task_is_awaitable_many_times(session: FineVoiceSession) -> None:
    """A task gives the same effect to everyone, as often as they like."""
    task = await session.submit(SfxRequest("Door creaks open", duration=3))
    assert not task.done()
    assert task.submitted_at is not None
    first, second = await asyncio.gather(task, task.wait())
    assert first == second == await task
    assert task.done()
    assert task.status is TaskStatus.COMPLETED


async def test_cancelled_waiter_harms_nobody(session: FineVoiceSession) -> None:
    """Of two waiters one is cancelled: the other gets its effect."""
    task = await session.submit("bell")
    one, other = asyncio.create_task(task.wait()), asyncio.create_task(task.wait())
    await asyncio.sleep(0.1)
    one.cancel()
    assert (await other).task_id == task.id
    assert one.cancelled()


async def test_cancelled_waiters_leave_the_place_taken(connect: Connect, emulator: Emulator) -> None:
    """A task that nobody waits for any more keeps its place until it ends."""
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


async def test_timeout_is_followed_by_success(session: FineVoiceSession) -> None:
    """A wait that runs out says so, keeps the id, and can go on."""
    task = await session.submit("engine", duration=30)
    with pytest.raises(TaskTimeoutError, match="attach") as caught:
        await task.wait(timeout=3)
    assert caught.value.task_id == task.id
    assert isinstance(caught.value, TimeoutError)
    assert (await task).task_id == task.id


async def test_end_beats_timeout(connect: Connect, emulator: Emulator) -> None:
    """A task that ended before the deadline is found, although no poll was due in between."""
    emulator.service_time = Constant(3.0)
    async with connect(polling=Polling.fixed(10)) as session:
        task = await session.submit("bell")
        assert (await task.wait(timeout=3.5)).task_id == task.id


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


async def test_updates_tell_each_state_once(session: FineVoiceSession) -> None:
    """Updates come in order, end with the end, and give the last state afterwards."""
    task = await session.submit("steps", duration=10)
    states = [update.status async for update in task.updates()]
    assert states[-1] is TaskStatus.COMPLETED
    assert len(states) == len(set(states))
    assert [update.status async for update in task.updates()] == [TaskStatus.COMPLETED]


async def test_failed_task(session: FineVoiceSession, emulator: Emulator) -> None:
    """A task that the service fails is an error with its reason, and an update to those who watch."""
    emulator.inject("task.fail")
    task = await session.submit("glass")
    with pytest.raises(TaskFailedError, match="could not make this sound") as caught:
        await task
    assert caught.value.task_id == task.id
    assert caught.value.body is not None
    assert [update.status async for update in task.updates()] == [TaskStatus.FAILED]


async def test_synchronous_answer(session: FineVoiceSession, emulator: Emulator) -> None:
    """With use_async=False the answer carries the result, and nothing is polled."""
    effect = await session.generate("click", use_async=False)
    assert (await effect.read())[:4] == b"RIFF"
    assert emulator.ledger.polls == 0


async def test_two_hundred_effects(emulator: Emulator, connect: Connect) -> None:
    """200 effects at 5 places: no 429, never more than 5 at once, and the places are kept full."""
    emulator.plan_limit = 5
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with connect(max_concurrency=5, polling=Polling.fixed(2.5)) as session:
        outcomes = [outcome async for outcome in session.generate_many(f"sound {i}" for i in range(200))]
    makespan = loop.time() - began
    assert sorted(outcome.index for outcome in outcomes) == list(range(200))
    assert not [outcome for outcome in outcomes if outcome.error]
    assert 429 not in emulator.ledger.refused
    assert emulator.ledger.most_running == 5
    times = [task.service_time for task in emulator.ledger.accepted.values()]
    assert makespan <= 1.15 * greedy_bound([time + 2.5 for time in times], 5)


class _Source:
    """An endless source that counts what was drawn."""

    def __init__(self) -> None:
        self.drawn = 0

    def __iter__(self) -> Iterator[str]:
        while True:
            self.drawn += 1
            yield f"sound {self.drawn}"


async def test_generate_many_draws_lazily(connect: Connect, emulator: Emulator) -> None:
    """An endless source is drawn at most twice max_concurrency ahead, and not at all after the loop is left."""
    source, taken = _Source(), 0
    async with connect(max_concurrency=3) as session:
        outcomes = session.generate_many(source)
        async for _ in outcomes:
            taken += 1
            await asyncio.sleep(20)
            assert source.drawn <= taken + 6
            if taken == 4:
                break
        await outcomes.aclose()  # type: ignore[attr-defined]  # an async generator, as its docstring says
        drawn = source.drawn
        await asyncio.sleep(60)
        assert source.drawn == drawn
        assert not session.tasks


async def test_generate_many_takes_anything(session: FineVoiceSession) -> None:
    """Prompts, dicts and requests come from an async iterable; a bad one is one outcome; the order can be kept."""

    async def requests() -> AsyncIterator[Any]:
        yield "rain"
        yield {"prompt": "rain", "duration": 99}
        yield SfxRequest("wind", duration=1)
        yield 17

    outcomes = [outcome async for outcome in session.generate_many(requests(), ordered=True)]
    assert [outcome.index for outcome in outcomes] == [0, 1, 2, 3]
    assert [type(outcome.error) for outcome in outcomes] == [type(None), InvalidRequestError] * 2
    assert outcomes[0].effect is not None
    assert outcomes[0].effect.task_id == outcomes[0].task_id


async def test_callers_own_error_reaches_them(session: FineVoiceSession) -> None:
    """An iterable that raises ends the loop with its error, after the outcomes of what was drawn."""

    def requests() -> Iterator[str]:
        yield "rain"
        raise LookupError("the list is gone")

    outcomes = session.generate_many(requests())
    assert (await anext(outcomes)).effect is not None
    with pytest.raises(LookupError):
        await anext(outcomes)


@pytest.mark.parametrize(
    ("fault", "error"), [("no_credits", InsufficientCreditsError), ("unauthorized", AuthenticationError)]
)
async def test_fatal_error_stops_the_batch(
    session: FineVoiceSession, emulator: Emulator, fault: str, error: type[Exception]
) -> None:
    """After spent credits or a refused key nothing more is sent, running tasks finish, each request has an outcome."""
    requests = [f"sound {i}" for i in range(30)]
    outcomes = []
    async for outcome in session.generate_many(requests):
        outcomes.append(outcome)
        if len(outcomes) == 5:
            emulator.inject(f"submit.{fault}", 1)
    assert len(outcomes) == 30
    good = [outcome for outcome in outcomes if outcome.effect]
    bad = [outcome for outcome in outcomes if isinstance(outcome.error, error)]
    assert len(good) + len(bad) == 30
    assert len(good) == len(emulator.ledger.accepted) < 20


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


async def test_closing_frees_who_waits_for_a_place(connect: Connect, emulator: Emulator) -> None:
    """A submission that still waits for its place when the session closes was never sent."""
    session = connect(max_concurrency=1)
    await session.submit("wind")
    second = asyncio.create_task(session.submit("rain"))
    await asyncio.sleep(0.1)
    assert session.stats.waiting == 1
    await session.aclose()
    with pytest.raises(SessionClosedError, match="Nothing was sent"):
        await second
    assert emulator.ledger.posts == 1


@pytest.mark.parametrize("shared", [False, True])
async def test_closing_ends_every_loop(connect: Connect, emulator: Emulator, shared: bool) -> None:
    """A loop over many effects ends when another coroutine closes the session: each drawn request has an outcome."""

    async def slow_source() -> AsyncIterator[str]:
        yield "rain"
        await asyncio.Event().wait()

    async def take(requests: Any) -> list[Any]:
        return [outcome async for outcome in session.generate_many(requests)]

    slots = LocalSlots(2, LoopClock()) if shared else None
    session = connect(max_concurrency=2, slots=slots)
    async with session:
        loops = [asyncio.create_task(take(requests)) for requests in (["rain"] * 9, slow_source())]
        await asyncio.sleep(0.5)
    async with asyncio.timeout(1):
        many, one = await asyncio.gather(*loops)
    assert {type(outcome.error) for outcome in many + one} == {SessionClosedError}
    assert sorted(outcome.index for outcome in many) == list(range(len(many)))
    assert len(one) == 1
    assert slots is None or slots.used == 0


async def test_shared_place_given_to_a_cancelled_caller(connect: Connect) -> None:
    """A shared place that comes in the very step of the cancellation is given back."""
    slots = LocalSlots(1, LoopClock())
    async with connect(slots=slots) as session:
        for turns in range(5):
            held = slots.occupy()
            waiting = asyncio.create_task(session.submit("rain"))
            await asyncio.sleep(0.01)
            slots.release(held)
            for _ in range(turns):
                await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
            await asyncio.sleep(60)
            assert slots.used == 0


async def test_a_bug_gives_its_slot_back(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected error in a submission is told as what it may have cost, and costs no slot."""

    async def broken(*_: object) -> None:
        raise ZeroDivisionError("injected")

    slots = LocalSlots(1, LoopClock())
    async with connect(slots=slots) as session:
        monkeypatch.setattr(Exchange, "submit", broken)
        for _ in range(2):
            with pytest.raises(SubmitUnknownError, match="ZeroDivisionError") as caught:
                await session.submit("rain")
            assert isinstance(caught.value.__cause__, ZeroDivisionError)
        (outcome,) = [outcome async for outcome in session.generate_many(["rain"])]
        assert isinstance(outcome.error.__cause__ if outcome.error else None, ZeroDivisionError)
        assert slots.used == 0


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
    """A number of places must be a whole one."""
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
    from finevoice_async import RequestRejectedError

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
