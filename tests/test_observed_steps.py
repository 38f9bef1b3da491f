"""The rarer steps that an observer hears, each with all that it says; and none twice."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
from diaries import Diary, request_of

from finevoice_async import FineVoiceError, FineVoiceSession, PollError, Retry, SfxEvent, SoundEffect
from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.core.polling.schedule import LearnedSchedule
from finevoice_async.core.requests import SfxRequest
from finevoice_async.core.tasks import TaskStatus
from finevoice_async.emulator import Emulator
from finevoice_async.engine.records import TaskRecord
from finevoice_async.engine.watching import Watching
from finevoice_async.errors import RequestRejectedError, SubmitUnknownError
from finevoice_async.events import (
    About,
    Braked,
    Ended,
    Polled,
    Queued,
    Refused,
    Saved,
    Submitted,
    Throttled,
    Unknown,
)

Connect = Callable[..., FineVoiceSession]


def fields(event: SfxEvent) -> set[str]:
    """Return the names of an event's own fields."""
    return {field.name for field in attrs.fields(type(event))} - {"about", "task_id", "at"}


async def test_a_throttled_submission(connect: Connect, emulator: Emulator) -> None:
    """A 429 is told with its Retry-After; the brake is told when it is put on, and when it is let go, once each."""
    diary = Diary()
    emulator.inject("submit.rate_limit", value="7")
    async with connect(observer=diary) as session:
        await session.generate("rain", key="k", owner="o")
    assert diary.kinds == [Queued, Braked, Throttled, Braked, Submitted, Ended]
    (throttled,) = diary.of(Throttled)
    assert (throttled.polling, throttled.retry_after, throttled.task_id) == (False, 7.0, None)
    assert (throttled.key, throttled.owner) == ("k", "o")
    on, off = diary.of(Braked)
    assert on.cause == "rate"
    assert on.why
    assert (off.cause, off.why) == (None, None)
    assert (on.effect, on.key, on.owner, on.request, on.task_id) == (0, None, None, None, None)
    assert off.at - on.at >= 7
    assert off.timestamp > on.timestamp


async def test_a_throttled_poll(connect: Connect, emulator: Emulator) -> None:
    """A poll that is told 429 is a poll without a status, and slows all down."""
    diary = Diary()
    emulator.inject("poll.rate_limit", value="3")
    async with connect(observer=diary) as session:
        effect = await session.generate("rain")
    (throttled,) = diary.of(Throttled)
    assert (throttled.polling, throttled.retry_after, throttled.task_id) == (True, 3.0, effect.task_id)
    polls = diary.of(Polled)
    assert polls[0].status is None
    assert "429" in str(polls[0].failure)
    assert all(poll.failure is None and poll.seconds >= 0 for poll in polls[1:])
    assert polls[-1].status is TaskStatus.COMPLETED
    assert list(diary.last_words().values()) == [1]


async def test_unknown_and_sent_again(connect: Connect, emulator: Emulator) -> None:
    """Where that is wanted it is sent again, and a second lost answer is told again; then it is accepted."""
    diary = Diary()
    emulator.inject("submit.error_500", 2)
    async with connect(observer=diary, retry=Retry(resend_unknown=True)) as session:
        await session.generate("rain")
    assert [kind for kind in diary.kinds if kind is not Braked] == [Queued, Unknown, Unknown, Submitted, Ended]
    assert [unknown.again for unknown in diary.of(Unknown)] == [True, True]
    assert diary.of(Unknown)[0].error is not diary.of(Unknown)[1].error


async def test_unknown_for_good(connect: Connect, emulator: Emulator, kept_in: dict[str, Any]) -> None:
    """The last attempt's lost answer is the last word, and so is a refusal after a lost one."""
    diary = Diary()
    emulator.inject("submit.error_500")
    async with connect(observer=diary, retry=Retry(resend_unknown=True, attempts=2), **kept_in) as session:
        emulator.inject("submit.reject")
        with pytest.raises(SubmitUnknownError):
            await session.generate("rain", key="k")
    assert diary.kinds == [Queued, Unknown, Unknown]
    assert [unknown.again for unknown in diary.of(Unknown)] == [True, False]
    assert isinstance(diary.of(Unknown)[1].error, SubmitUnknownError)


async def test_three_unknown_put_the_brake_on(connect: Connect, emulator: Emulator) -> None:
    """After three lost answers in a row the session brakes; the first that is answered lets it go."""
    diary = Diary()
    emulator.inject("submit.error_500", 3)
    async with connect(observer=diary, max_concurrency=1) as session:
        await asyncio.gather(*[session.generate("rain") for _ in range(4)], return_exceptions=True)
    assert [braked.cause for braked in diary.of(Braked)] == ["unknown", None]
    assert list(diary.last_words().values()) == [1] * 4


async def test_refused_says_why(connect: Connect, emulator: Emulator) -> None:
    """The error is what the caller is told, and a copy: what the observer does with it is its own business."""
    diary = Diary()
    emulator.inject("submit.reject")
    async with connect(observer=diary) as session:
        with pytest.raises(RequestRejectedError) as caught:
            await session.generate("rain", key="k")
    (refused,) = diary.of(Refused)
    assert str(refused.error) == str(caught.value)
    assert refused.error is not caught.value


class Forger(Diary):
    """Writes into the errors that it is told."""

    def on_event(self, event: SfxEvent) -> None:
        """Hear, and forge."""
        super().on_event(event)
        error = getattr(event, "error", None)
        if error is not None:
            error.message, error.task_id = "forged", "forged"


@pytest.mark.parametrize(
    ("fault", "kind"), [("submit.reject", Refused), ("submit.error_500", Unknown), ("task.fail", Ended)]
)
async def test_an_observers_errors_are_its_own(
    connect: Connect, emulator: Emulator, fault: Any, kind: type[SfxEvent]
) -> None:
    """What an observer does to an error that it is told, nobody else sees."""
    diary = Forger()
    emulator.inject(fault)
    async with connect(observer=diary) as session:
        with pytest.raises(FineVoiceError) as caught:
            await session.generate("rain")
    assert diary.kinds[-1] is kind
    assert "forged" not in (caught.value.message, caught.value.task_id)


async def test_an_observers_errors_are_its_own_at_closing(connect: Connect, emulator: Emulator) -> None:
    """Nor where the task runs on, or is sent again."""
    diary = Forger()
    emulator.inject("submit.error_500")
    emulator.inject("task.never_ends")
    async with connect(observer=diary, retry=Retry(resend_unknown=True)) as session:
        task = await session.submit("rain")
        waits = asyncio.ensure_future(task.wait())
        await asyncio.sleep(0)
    with pytest.raises(FineVoiceError) as caught:
        await waits
    assert diary.kinds == [Queued, Unknown, Submitted, Ended]
    assert "forged" not in (caught.value.message, caught.value.task_id)


async def test_an_observers_doubt_is_its_own(connect: Connect, emulator: Emulator) -> None:
    """Nor where what is to be sent again is called off, and its caller hears of the answer that was lost."""
    diary = Forger()
    emulator.inject("submit.error_500")
    async with connect(observer=diary, retry=Retry(resend_unknown=True, first_delay=1e6, max_delay=1e6)) as session:
        wish = asyncio.ensure_future(session.generate("rain"))
        await asyncio.sleep(0.5)
    with pytest.raises(SubmitUnknownError) as caught:
        await wish
    assert "sent again, but" in str(caught.value)
    assert "forged" not in str(caught.value)
    assert [unknown.again for unknown in diary.of(Unknown)] == [True, False]


async def test_a_row_is_wished_for_when_it_is_taken_up(connect: Connect, path: Path, emulator: Emulator) -> None:
    """A row that an earlier run left is told as wished for at once, in its caller's context, not when it has a slot."""
    async with connect(journal=path, max_concurrency=1) as session:
        await session.submit("wind")
        await session.enqueue("rain", key="waited")
    emulator.inject("task.never_ends")
    diary = Diary()
    async with connect(journal=path, max_concurrency=1, observer=diary) as session:
        handle = await session.find(key="waited")
        assert handle is not None
        assert diary.of(Queued) == []
        request_of.set("mine")
        waits = asyncio.ensure_future(handle.wait())
        await asyncio.sleep(0.01)
        heard = zip(diary.events, diary.contexts, strict=True)
        assert [(type(event), context) for event, context in heard if event.key == "waited"] == [(Queued, "mine")]
        waits.cancel()
        await asyncio.wait([waits])


async def test_one_last_word_on_a_task() -> None:
    """A task that was left, or has ended, is not told to have ended again."""
    diary = Diary()
    watching = Watching(diary, LoopClock())
    for first in (watching.ended, lambda record: watching.left(record, record.closed_error())):
        record = TaskRecord("t1", None, 0.0)
        first(record)
        watching.ended(record)
        watching.left(record, record.closed_error())
    assert [event.effect for event in diary.of(Ended)] == sorted({event.effect for event in diary.of(Ended)})
    assert len(diary.events) == 2


async def test_the_poller_dies(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each task that nobody asks for any more gets its last word once, with the error of its waiter."""

    def broken(*_: object, **__: object) -> float:
        raise ZeroDivisionError("injected")

    diary = Diary()
    async with connect(observer=diary) as session:
        tasks = [await session.submit("rain") for _ in range(3)]
        monkeypatch.setattr(LearnedSchedule, "finished", broken)
        monkeypatch.setattr(LearnedSchedule, "running", broken)
        await asyncio.gather(*[task.wait() for task in tasks], return_exceptions=True)
        with pytest.raises(PollError):
            await session.submit("rain")
    assert len(diary.of(Ended)) == 3
    assert all(isinstance(ended.error, PollError) and ended.lag is None for ended in diary.of(Ended))
    assert set(diary.last_words().values()) == {1}


async def test_a_failed_task(connect: Connect, emulator: Emulator) -> None:
    """A failure is an end with its error."""
    diary = Diary()
    emulator.inject("task.fail")
    async with connect(observer=diary) as session:
        with pytest.raises(FineVoiceError) as caught:
            await session.generate("rain")
    (ended,) = diary.of(Ended)
    assert (ended.status, str(ended.error)) == (TaskStatus.FAILED, str(caught.value))
    assert ended.seconds is not None


async def test_an_attached_task(connect: Connect) -> None:
    """It begins with its first poll; when it was submitted is not known here."""
    diary = Diary()
    async with connect() as other:
        task = await other.submit("rain")
        async with connect(observer=diary) as session:
            assert task.id is not None
            attached = await session.attach(task.id)
            await attached
        await task
    assert diary.kinds == [Ended]
    (ended,) = diary.of(Ended)
    assert ended.task_id == task.id
    assert (ended.key, ended.owner, ended.request, ended.seconds) == (None, None, None, None)
    assert diary.events[0].effect == ended.effect > 0
    assert isinstance(diary.events[0], Polled)


async def test_attached_when_it_had_ended(connect: Connect) -> None:
    """Nobody here saw it run, so that nobody knows how late its end was noticed."""
    diary = Diary()
    async with connect() as other, connect(observer=diary) as session:
        effect = await other.generate("rain")
        assert effect.task_id is not None
        await (await session.attach(effect.task_id))
    (ended,) = diary.of(Ended)
    assert (ended.lag, ended.seconds, ended.status) == (None, None, TaskStatus.COMPLETED)


async def test_recovered_effects(connect: Connect, path: Path) -> None:
    """Of an earlier run: what waited is wished for anew, what ran begins with a poll; the key is the row's."""
    async with connect(journal=path, max_concurrency=1) as session:
        await session.submit("rain", key="ran")
        await session.enqueue("wind", key="waited")
    diary = Diary()
    async with connect(journal=path, max_concurrency=1, observer=diary) as session:
        assert [outcome.error async for outcome in session.recover()] == [None, None]
    by_key: dict[str | None, list[type[SfxEvent]]] = {}
    for event in diary.events:
        kinds = by_key.setdefault(event.key, [])
        if type(event) is not Polled or Polled not in kinds:
            kinds.append(type(event))
    assert by_key == {"ran": [Polled, Ended], "waited": [Queued, Submitted, Polled, Ended]}
    assert {event.request for event in diary.events if event.key == "ran"} == {SfxRequest("rain")}
    assert set(diary.last_words().values()) == {1}


async def test_two_wishes_of_one_key(connect: Connect, kept_in: dict[str, Any]) -> None:
    """Who joins a key is told nothing of its own; who comes after its end gets that at once."""
    diary = Diary()
    async with connect(observer=diary, **kept_in) as session:
        await asyncio.gather(session.generate("rain", key="k"), session.generate("rain", key="k"))
        assert diary.kinds == [Queued, Submitted, Ended]
        await session.generate("rain", key="k")
    assert diary.kinds == [Queued, Submitted, Ended, Queued, Ended]
    again = diary.of(Ended)[1]
    assert (again.seconds, again.lag, again.error) == (None, None, None)
    assert list(diary.last_words().values()) == [1, 1]


async def test_withdrawn(connect: Connect, kept_in: dict[str, Any]) -> None:
    """What is taken back is refused, once."""
    diary = Diary()
    async with connect(observer=diary, max_concurrency=1, **kept_in) as session:
        await session.submit("rain")
        task = await session.enqueue("wind", key="k")
        assert await task.withdraw()
        with pytest.raises(FineVoiceError):
            await task
    assert [event.key for event in diary.of(Refused)] == ["k"]


async def test_acknowledged_and_a_copy(connect: Connect, path: Path) -> None:
    """An acknowledged effect is told saved, without a file; a pickled copy knows of no observer."""
    diary = Diary()
    async with connect(observer=diary, journal=path) as session:
        effect = await session.generate("rain", key="k")
        copied: SoundEffect = pickle.loads(pickle.dumps(effect))  # its own
        assert copied == effect
        assert copied._arrived.watched is None
        await effect.acknowledge()
    (saved,) = diary.of(Saved)
    assert (saved.key, saved.path, saved.sha256, saved.size, saved.seconds) == ("k", None, None, None, None)


async def test_saved_twice(connect: Connect, tmp_path: Path) -> None:
    """Each save is told, with its own file and digest."""
    diary = Diary()
    async with connect(observer=diary) as session:
        effect = await session.generate("rain")
        files = [await effect.save(tmp_path / name) for name in ("a", "b")]
    first, second = diary.of(Saved)
    assert [first.path, second.path] == [str(file) for file in files]
    assert first.sha256 == second.sha256
    assert first.sha256 is not None
    assert len(first.sha256) == 64
    assert first.size == files[0].stat().st_size
    assert first.seconds is not None


@pytest.mark.parametrize("way", ["enqueue", "generate_many", "submit"])
async def test_whose_context(connect: Connect, kept_in: dict[str, Any], way: str) -> None:
    """However it is wished for, the wish is heard in its caller's context, and its polls in nobody's."""
    diary = Diary()

    async def wish(session: FineVoiceSession, name: str) -> None:
        request_of.set(name)
        if way == "generate_many":
            assert [1 async for _ in session.generate_many([{"prompt": "rain", "key": name}] * 1)]
        else:
            task = await getattr(session, way)("rain", key=name)
            await task

    async with connect(observer=diary, max_concurrency=1, **kept_in) as session:
        await asyncio.gather(*[asyncio.create_task(wish(session, name)) for name in ("a", "b", "c")])
    heard = list(zip(diary.contexts, diary.events, strict=True))
    assert {(context, event.key) for context, event in heard if isinstance(event, Queued | Submitted)} == {
        (name, name) for name in ("a", "b", "c")
    }
    assert {context for context, event in heard if isinstance(event, Polled | Ended)} == {"nobody"}


def test_events_are_frozen_and_dated() -> None:
    """No event can be changed, and each has a date."""
    about = About(3, "k", "o", SfxRequest("rain"), 100.0, 1_700_000_000.0)
    error = FineVoiceError("No.")
    events: list[SfxEvent] = [
        Queued(about, None, 102.5),
        Submitted(about, "t", 102.5, 1.0, 2.0),
        Polled(about, "t", 102.5, None, 0.1, "why"),
        Ended(about, "t", 102.5, TaskStatus.COMPLETED, 1.0, 0.5),
        Saved(about, "t", 102.5),
        Refused(about, None, 102.5, error),
        Unknown(about, None, 102.5, error),
        Throttled(about, None, 102.5, polling=True),
        Braked(about, None, 102.5, "rate"),
    ]
    for event in events:
        assert (event.effect, event.key, event.owner, event.request) == (3, "k", "o", SfxRequest("rain"))
        assert event.when == datetime.fromtimestamp(1_700_000_000, UTC) + timedelta(seconds=2.5)
        for name in {"at", "key", "task_id", "about", *fields(event)}:
            with pytest.raises(AttributeError):
                setattr(event, name, 1)
