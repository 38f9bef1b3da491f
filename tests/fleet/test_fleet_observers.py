"""What observers hear in a fleet: each step where it is made, and the end wherever somebody waits for it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import pytest
from diaries import Diary
from exported import Exported
from fleet_sessions import Sessions
from fleets import until

from finevoice_async import SessionClosedError, SubmitNotSentError, TaskStatus
from finevoice_async.events import Ended, Polled, Queued, Refused, Submitted, Unknown
from finevoice_async.testing import EmulatedService, make_service

pytestmark = pytest.mark.real_time


@pytest.fixture
def service() -> Iterator[EmulatedService]:
    """A service that lets two tasks run at once, for a fifth of a second each."""
    with make_service(plan_limit=2, service_time=0.2) as service:
        yield service


@pytest.fixture
async def fleet(service: EmulatedService, url: str, no_leaks: object) -> AsyncIterator[Sessions]:
    """Sessions that share a database."""
    async with Sessions(service, url) as sessions:
        yield sessions


async def test_slots_of_the_store(fleet: Sessions) -> None:
    """What waits for a slot that the store grants is told each step once, in order, in its own session."""
    diaries = [Diary(), Diary()]
    sessions = [await fleet.open(observer=diary) for diary in diaries]
    await asyncio.gather(*[each.generate(f"{number}") for number in range(4) for each in sessions])
    for diary in diaries:
        assert Counter(diary.kinds) == {Queued: 4, Submitted: 4, Ended: 4}
        assert list(diary.last_words().values()) == [1] * 4
        for effect in diary.last_words():
            kinds = [type(event) for event in diary.events if event.effect == effect]
            assert [kind for kind in kinds if kind is not Polled] == [Queued, Submitted, Ended]
    assert all(submitted.waited >= 0 for diary in diaries for submitted in diary.of(Submitted))


async def test_a_key_of_two_sessions(fleet: Sessions) -> None:
    """One submits and asks; the other hears the wish and the end, with the same task id and the effect's age."""
    a, b = Diary(), Diary()
    first, second = await fleet.open(observer=a), await fleet.open(observer=b)
    task = await first.submit("Door", key="k")
    effect = await second.generate("Door", key="k", owner="o")
    await task
    assert a.kinds == [Queued, Submitted, Ended]
    assert [type(event) for event in b.events] == [Queued, Ended]
    queued, ended = b.events
    assert isinstance(ended, Ended)
    assert (ended.effect, ended.key, ended.owner) == (queued.effect, "k", "o")
    assert (ended.task_id, ended.status, ended.error) == (effect.task_id, TaskStatus.COMPLETED, None)
    assert ended.seconds is not None
    assert ended.seconds > 0.1


async def test_a_duration_is_recorded_once(fleet: Sessions) -> None:
    """Of three sessions that ask for one key, or attach its task, the one that submits it records how long it took."""
    exports = [Exported() for _ in range(3)]
    first, second, third = [await fleet.open(observer=exported.observer) for exported in exports]
    task = await first.submit("Door", key="k")
    await asyncio.gather(task, second.generate("Door", key="k"), await third.attach(str(task.id)))
    counts = [exported.points().get("gen_ai.client.inference.duration", []) for exported in exports]
    assert [[point["count"] for point in points] for points in counts] == [[1], [], []]


async def test_attached_in_another_session(fleet: Sessions) -> None:
    """Of a task that another session asks for, whoever attached it hears the end, and nothing else."""
    diary = Diary()
    first, second = await fleet.open(), await fleet.open(observer=diary)
    task = await first.submit("Door", key="k")
    attached = await second.attach(str(task.id))
    await asyncio.gather(task, attached)
    assert [(type(event), event.key, event.task_id) for event in diary.events] == [(Ended, "k", task.id)]


async def test_a_session_takes_over(fleet: Sessions) -> None:
    """Where who asked has closed, each session has its own last word, and the second one polls."""
    fleet.service.service_time = 0.6
    a, b = Diary(), Diary()
    first, second = await fleet.open(observer=a), await fleet.open(observer=b)
    task = await first.submit("Door", key="k")
    followed = await second.enqueue("Door", key="k")
    await until(lambda: followed.id == task.id)
    await first.aclose()
    await followed
    assert a.kinds == [Queued, Submitted, Ended]
    assert isinstance(a.of(Ended)[0].error, SessionClosedError)
    assert b.kinds == [Queued, Ended]
    assert b.of(Polled)
    assert b.of(Ended)[0].error is None
    assert [list(diary.last_words().values()) for diary in (a, b)] == [[1], [1]]


async def test_closing_while_another_session_acts(fleet: Sessions) -> None:
    """What is followed has its last word as its session closes: a task may run on, a row that waits was not sent."""
    fleet.service.inject("task.never_ends")
    diary = Diary()
    first, second = await fleet.open(max_concurrency=1), await fleet.open(max_concurrency=1, observer=diary)
    runs = await first.submit("for ever", key="runs")
    await first.enqueue("Door", key="waits")
    wishes = [await second.enqueue(prompt, key=key) for prompt, key in (("for ever", "runs"), ("Door", "waits"))]
    await until(lambda: wishes[0].id == runs.id)
    await second.aclose()
    assert [type(event) for event in diary.events if event.key == "waits"] == [Queued, Refused]
    assert [type(event) for event in diary.events if event.key == "runs"] == [Queued, Ended]
    (ended,) = diary.of(Ended)
    assert (ended.status, type(ended.error)) == (TaskStatus.PENDING, SessionClosedError)
    assert list(diary.last_words().values()) == [1, 1]


async def test_closing_while_another_session_sends(fleet: Sessions) -> None:
    """Nobody here knows what comes of a request that another session has on its way: it is not told as refused."""
    fleet.service.inject("submit.hang")
    diary = Diary()
    first, second = await fleet.open(), await fleet.open(observer=diary)
    sends = asyncio.ensure_future(first.submit("Door", key="k"))
    await until(lambda: fleet.service.ledger.posts == 1)
    await second.enqueue("Door", key="k")
    await second.aclose()
    assert diary.kinds == [Queued, Unknown]
    sends.cancel()
    await asyncio.wait([sends])


async def test_what_was_found_and_is_withdrawn(fleet: Sessions) -> None:
    """A row of another session's that is looked at is heard of at once, and that it was taken back."""
    fleet.service.inject("task.never_ends")
    diary = Diary()
    first, second = await fleet.open(max_concurrency=1), await fleet.open(max_concurrency=1, observer=diary)
    await first.submit("for ever")
    wish = await first.enqueue("Door", key="k")
    found = await second.find(key="k")
    assert found is not None
    assert diary.kinds == [Queued]
    assert await wish.withdraw()
    with pytest.raises(SubmitNotSentError):
        await found
    assert diary.kinds == [Queued, Refused]
