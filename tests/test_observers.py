"""What an observer hears, in which order and context; and that it can harm nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from diaries import Diary, Faulty, Sluggish, request_of
from fake_journal import FakeJournal

from finevoice_async import (
    ConfigurationError,
    FineVoiceError,
    FineVoiceSession,
    JournalError,
    SfxEvent,
    SubmitNotSentError,
)
from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.core.ledger import Move
from finevoice_async.core.requests import SfxRequest
from finevoice_async.core.tasks import TaskStatus, TaskUpdate
from finevoice_async.emulator import Emulator
from finevoice_async.engine.records import Submission, TaskRecord
from finevoice_async.engine.watching import Watching
from finevoice_async.events import Ended, Polled, Queued, Refused, Saved, Submitted, Unknown

Connect = Callable[..., FineVoiceSession]


async def test_a_whole_life(connect: Connect, tmp_path: Path, kept_in: dict[str, Any], emulator: Emulator) -> None:
    """Each step is told once, in order, with the same number, key and owner; and nothing secret."""
    diary = Diary()
    async with connect(observer=diary, **kept_in) as session:
        handle = await session.submit("rain", key="k", owner="o")
        effect = await handle
        file = await effect.save(tmp_path / "rain.wav")
    assert diary.kinds == [Queued, Submitted, Ended, Saved]
    assert {(event.effect, event.key, event.owner) for event in diary.events} == {(diary.events[0].effect, "k", "o")}
    assert {event.task_id for event in diary.events[1:]} == {effect.task_id}
    times = [event.at for event in diary.events]
    assert times == sorted(times)
    ended, saved = diary.events[-2:]
    assert isinstance(ended, Ended)
    assert ended.status is TaskStatus.COMPLETED
    assert ended.seconds is not None
    assert ended.lag is not None
    assert 0 <= ended.lag <= ended.seconds
    assert isinstance(saved, Saved)
    assert (saved.path, saved.size) == (str(file), file.stat().st_size)
    told = repr(diary.events)
    assert emulator.api_key not in told
    assert effect.url not in told


async def test_queued_is_told_in_the_callers_context(connect: Connect) -> None:
    """A wish is heard in the context of whoever wished, what is done for all in nobody's."""
    diary = Diary()

    async def visit(session: FineVoiceSession, name: str) -> None:
        request_of.set(name)
        await session.generate("rain", key=name)

    async with connect(observer=diary) as session:
        await asyncio.gather(*[asyncio.create_task(visit(session, name)) for name in ("a", "b")])
    heard = [(context, event) for context, event in zip(diary.contexts, diary.events, strict=True)]
    assert [context for context, event in heard if isinstance(event, Queued)] == ["a", "b"]
    assert {context for context, event in heard if isinstance(event, Polled | Ended)} == {"nobody"}


@pytest.mark.parametrize(("fault", "last"), [("submit.reject", Refused), ("submit.error_500", Unknown)])
async def test_what_is_not_accepted(connect: Connect, emulator: Emulator, fault: Any, last: type[SfxEvent]) -> None:
    """A refusal and a lost answer are the last words on an effect."""
    diary = Diary()
    emulator.inject(fault)
    async with connect(observer=diary) as session:
        with pytest.raises(FineVoiceError):
            await session.generate("rain")
    assert diary.kinds == [Queued, last]


async def test_one_last_word_each_at_closing(connect: Connect) -> None:
    """What runs and what waits when the session closes gets its last word, too."""
    diary = Diary()
    async with connect(observer=diary, max_concurrency=1) as session:
        jobs = [asyncio.create_task(session.generate("rain")) for _ in range(3)]
        await asyncio.sleep(0.5)
    await asyncio.wait(jobs)
    assert all(job.exception() for job in jobs)
    assert sorted(kind.__name__ for kind in diary.kinds) == ["Ended", *["Queued"] * 3, *["Refused"] * 2, "Submitted"]
    (ended,) = [event for event in diary.events if isinstance(event, Ended)]
    assert not ended.status.ended
    assert ended.seconds is not None
    assert ended.seconds >= 0.5


class _OfNoKind(BaseException):
    """What no `except Exception` catches."""


@pytest.mark.parametrize(
    "error",
    [
        ValueError("mine"),
        asyncio.CancelledError(),
        RecursionError(),
        GeneratorExit(),
        StopIteration(),
        BaseExceptionGroup("several", [_OfNoKind()]),
        _OfNoKind(),
        KeyboardInterrupt(),
        SystemExit(1),
    ],
    ids=repr,
)
async def test_a_faulty_observer_harms_nobody(
    connect: Connect, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    """Each kind of its faults is logged once with its traceback, and nobody is cancelled."""
    async with connect(observer=Faulty(error)) as session:
        assert len([1 async for outcome in session.generate_many(["rain"] * 7) if outcome.error is None]) == 7
    logged = [record for record in caplog.records if "the observer failed" in record.getMessage()]
    assert sorted(record.getMessage().split()[5] for record in logged) == ["Ended", "Polled", "Queued", "Submitted"]
    assert all(record.exc_info for record in logged)


async def test_a_faulty_observer_of_everything_else(connect: Connect, emulator: Emulator, tmp_path: Path) -> None:
    """Nor does it harm at the rare events: refused, unknown, throttled, braked, saved."""
    for fault in ("submit.reject", "submit.error_500", "submit.rate_limit", "poll.rate_limit"):
        emulator.inject(fault)
    async with connect(observer=Faulty(_OfNoKind()), max_concurrency=1) as session:
        results = await asyncio.gather(*[session.generate("rain") for _ in range(4)], return_exceptions=True)
        assert [type(result).__name__ for result in results[:2]] == ["RequestRejectedError", "SubmitUnknownError"]
        for number, effect in enumerate(results[2:]):
            assert not isinstance(effect, BaseException)
            await effect.save(tmp_path / str(number))


async def test_a_slow_observer_costs_its_own_time_only(connect: Connect) -> None:
    """One that holds the loop up sees all, and all come to their end."""
    diary = Sluggish()
    async with connect(observer=diary) as session:
        assert len([1 async for outcome in session.generate_many(["rain"] * 7) if outcome.error is None]) == 7
    assert list(diary.last_words().values()) == [1] * 7


async def test_an_observer_may_look_and_cancel(connect: Connect) -> None:
    """It may ask for counts and cancel a caller within an event: the others are not touched."""
    jobs: list[asyncio.Task[Any]] = []

    class Meddler:
        def on_event(self, event: SfxEvent) -> None:
            assert session.stats.waiting >= 0
            if isinstance(event, Submitted) and event.key == "0":
                jobs[0].cancel()

    async with connect(observer=Meddler()) as session:
        jobs += [asyncio.create_task(session.generate("rain", key=str(number))) for number in range(3)]
        await asyncio.wait(jobs)
    assert [job.cancelled() for job in jobs] == [True, False, False]
    assert jobs[1].result().task_id != jobs[2].result().task_id


async def test_what_cannot_hear_is_refused(connect: Connect) -> None:
    """An observer without the method, or with a coroutine function, is the caller's mistake."""

    class Slow:
        async def on_event(self, event: SfxEvent) -> None:
            """Never heard."""

    class Unwilling:
        @property
        def on_event(self) -> object:
            raise ZeroDivisionError

    for wrong in (object(), Slow(), Unwilling()):
        with pytest.raises(ConfigurationError, match="on_event"):
            connect(observer=wrong)


async def test_a_task_whose_id_cannot_be_kept(connect: Connect) -> None:
    """Its caller hears of the journal; the task is asked for on, and its end is the last word."""
    diary, journal = Diary(), FakeJournal()
    journal.failing[Move.ACCEPT] = JournalError("The disk is full.")
    async with connect(observer=diary, journal=journal) as session:
        with pytest.raises(JournalError, match="full"):
            await session.submit("rain")
        assert diary.kinds == [Queued, Submitted]
        await asyncio.sleep(60)
    assert diary.kinds == [Queued, Submitted, Ended]
    (ended,) = diary.of(Ended)
    assert (ended.status, ended.error) == (TaskStatus.COMPLETED, None)


async def test_a_refusal_is_certain() -> None:
    """What may have been paid for before is not told as refused, whatever it fails of now."""
    diary = Diary()
    watching = Watching(diary, LoopClock())
    for may_be_paid in (False, True):
        error = SubmitNotSentError("The disk is full.")
        watching.settled(Submission(SfxRequest("rain"), may_be_paid=may_be_paid), error)
    assert diary.kinds == [Queued, Refused, Queued, Unknown]


async def test_attached_before_its_answer_was_here() -> None:
    """A task that was attached by its id is its submission's from the answer on: the other number has its last word."""
    diary = Diary()
    watching = Watching(diary, LoopClock())
    submission, record = Submission(SfxRequest("rain"), "k"), TaskRecord("t1", None, 0.0, attached=True)
    watching.queued(submission)
    watching.polled(record, TaskUpdate(status=TaskStatus.PENDING), 0.0, 0.0)
    watching.leaves(submission)
    watching.accepted(submission, record)
    watching.ended(record)
    wished, attached = diary.events[0].effect, diary.events[1].effect
    assert wished != attached
    assert [(type(event), event.effect) for event in diary.events] == [
        (Queued, wished),
        (Polled, attached),
        (Ended, attached),
        (Submitted, wished),
        (Ended, wished),
    ]


def test_a_session_may_be_made_before_there_is_a_loop() -> None:
    """An observer needs no loop before the first use."""
    assert FineVoiceSession("key", observer=Diary()).stats.waiting == 0
