"""The tasks in flight: each has its slot as long as it runs, and everybody who watches it hears its end."""

from __future__ import annotations

import pytest
from fake_journal import FakeJournal
from fakes import LINK, FakeSlots
from parts import RAIN, Eye

from finevoice_async.core.ledger import EffectState
from finevoice_async.core.tasks import TaskStatus, TaskUpdate
from finevoice_async.engine.bookkeeper import Bookkeeper
from finevoice_async.engine.inflight import InFlight
from finevoice_async.engine.records import News, TaskRecord
from finevoice_async.engine.slots import GuardedSlots
from finevoice_async.errors import PollError, SessionClosedError, TaskNotFoundError

RESULT = TaskUpdate(status=TaskStatus.COMPLETED, task_id="t1", urls=(LINK,))


@pytest.fixture
def slots() -> FakeSlots:
    """The plan."""
    return FakeSlots()


@pytest.fixture
def inflight(slots: FakeSlots) -> InFlight:
    """Tasks in flight, without a journal."""
    return InFlight(slots, Bookkeeper(None))


def running(inflight: InFlight, *ids: str) -> list[TaskRecord]:
    """Take tasks in, each with a slot."""
    records = [TaskRecord(task_id, RAIN, 0.0) for task_id in ids]
    for record in records:
        inflight.add(record)
        inflight.hold_slot(record)
    return records


async def test_taken_in(inflight: InFlight) -> None:
    """A task is found by its id, in the order of submission."""
    first, second = running(inflight, "b", "a")
    assert list(inflight.tasks.items()) == [("b", first), ("a", second)]
    assert first.followed
    assert repr(inflight) == "<InFlight of 2 tasks>"


async def test_found_by_its_row(inflight: InFlight) -> None:
    """A task is found by its row while it is in flight."""
    first, second = running(inflight, "a", "b")
    first.row_id, second.row_id = 3, 4
    assert inflight.of_row(4) is second
    assert inflight.of_row(5) is None
    inflight.drop(second, PollError("gone"))
    assert inflight.of_row(4) is None


async def test_one_slot_a_task(inflight: InFlight, slots: FakeSlots) -> None:
    """A task that has its slot takes no second one; dropped, it gives that one back, once."""
    (record,) = running(inflight, "a")
    inflight.hold_slot(record)
    assert slots.out == {record.slot}
    record.due = 7.0
    inflight.drop(record, PollError("gone"))
    assert (slots.out, record.slot, record.followed, inflight.tasks) == (set(), None, False, {})
    assert record.due == float("inf")
    inflight.drop(record, PollError("gone"))
    assert not slots.complaints


async def test_dropped(inflight: InFlight) -> None:
    """Who watches a task that is followed no more hears why; it has not ended."""
    (record,) = running(inflight, "a")
    eye = Eye(record)
    record.watchers.append(eye)
    inflight.drop(record, PollError("It is another's."))
    assert [str(news) for news in eye.seen] == ["It is another's."]
    assert record.end is None


async def test_two_of_one_id(inflight: InFlight) -> None:
    """If two tasks have one id for a moment, the end of the one does not take the other's entry, and is no fault."""
    first, second = running(inflight, "a", "a")
    inflight.end(first, RESULT)
    assert inflight.tasks == {"a": second}
    inflight.end(second, RESULT)
    assert inflight.tasks == {}


async def test_a_slot_that_could_not_be_had_is_not_given_back(slots: FakeSlots) -> None:
    """A task without a slot, because those of another failed, gives none back."""
    inflight = InFlight(GuardedSlots(slots), Bookkeeper(None))
    slots.faults["occupy"] = OSError("away")
    (record,) = running(inflight, "a")
    assert record.slot is None
    inflight.drop(record, PollError("gone"))
    assert not slots.complaints


async def test_an_end_frees_the_slot_first() -> None:
    """When the books and the watchers hear of an end, the slot is free and the task no more in flight."""
    slots, journal = FakeSlots(), FakeJournal()
    await journal.open()
    books = Bookkeeper(journal)
    inflight = InFlight(slots, books)
    (record,) = running(inflight, "t1")
    record.row_id = journal.leave(EffectState.SUBMITTED, task_id="t1").id
    seen: list[object] = []

    class Looking(Eye):
        def tell(self, news: News) -> None:
            seen.extend([news, len(slots.out), dict(inflight.tasks), journal.states, books.completed])

    record.watchers.append(Looking(record))
    inflight.end(record, RESULT)
    assert seen == [RESULT, 0, {}, [EffectState.DONE], 1]
    assert record.end is RESULT
    assert record.watchers == []


async def test_each_watcher_has_an_error_of_its_own(inflight: InFlight) -> None:
    """Watchers of one task get copies of its error: each may be raised with a traceback of its own."""
    (record,) = running(inflight, "a")
    eyes = [Eye(record), Eye(record)]
    record.watchers += eyes
    inflight.end(record, TaskNotFoundError("Gone.", task_id="a"))
    (first,), (second,) = (eye.seen for eye in eyes)
    assert str(first) == str(second) == "Gone."
    assert len({id(first), id(second), id(record.end)}) == 3


async def test_broken_down(inflight: InFlight, slots: FakeSlots, caplog: pytest.LogCaptureFixture) -> None:
    """Every watcher hears with its own id, and so does whoever comes later; nobody waits for the slots."""
    records = running(inflight, "a", "b")
    eyes = [Eye(record) for record in records]
    for eye in eyes:
        eye.record.watchers.append(eye)
    inflight.check()
    inflight.break_down("ZeroDivisionError")
    told = [eye.seen[0] for eye in eyes]
    assert [(type(error), getattr(error, "task_id", None)) for error in told] == [(PollError, "a"), (PollError, "b")]
    assert "the poller died (ZeroDivisionError); 2 tasks are not watched" in caplog.text
    assert not slots.out
    with pytest.raises(PollError, match="ZeroDivisionError") as caught:
        inflight.check()
    assert (caught.value.task_id, caught.value.request) == (None, None)
    with pytest.raises(PollError) as caught:
        inflight.add(TaskRecord("c", RAIN, 0.0))
    assert (caught.value.task_id, caught.value.request) == ("c", RAIN)
    assert list(inflight.tasks) == ["a", "b"]
    inflight.hold_slot(records[0])  # a poll that was under way may still be answered
    assert not slots.out
    inflight.close()
    assert not slots.complaints


async def test_closed(inflight: InFlight, slots: FakeSlots) -> None:
    """Closing tells the watchers in the order of submission, and gives the slots back; again it does nothing."""
    records = running(inflight, "b", "a")
    told: list[object] = []

    class Listing(Eye):
        def tell(self, news: News) -> None:
            told.append((type(news), getattr(news, "task_id", None)))

    for record in reversed(records):
        record.watchers.append(Listing(record))
    inflight.close()
    inflight.close()
    assert told == [(SessionClosedError, "b"), (SessionClosedError, "a")]
    assert not slots.out
    assert not slots.complaints
    inflight.check()  # of no task in particular there is nothing to say
    with pytest.raises(SessionClosedError, match="runs on at the service") as caught:
        inflight.add(TaskRecord("c", RAIN, 0.0))
    assert caught.value.task_id == "c"


async def test_closed_after_it_broke_down(inflight: InFlight) -> None:
    """Of a closed session it is said that it is closed, whatever it died of."""
    (record,) = running(inflight, "a")
    inflight.break_down("ZeroDivisionError")
    inflight.close()
    with pytest.raises(SessionClosedError):
        inflight.check(record)
