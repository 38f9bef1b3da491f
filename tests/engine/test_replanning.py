"""What polls find moves the due times of the tasks that wait: both ways, so many a round, and no others."""

from __future__ import annotations

import asyncio
import math
import statistics
from collections.abc import Callable

import pytest
from answer_cases import BROKEN, BUSY, DONE, LINKLESS_ANSWER, MISSING, RUNS, Case
from fakes import FINISHED
from parts import WIND, Eye, Parts, assemble

from finevoice_async import FineVoiceSession, Polling
from finevoice_async.core.failures import Failure
from finevoice_async.core.tasks import TaskUpdate
from finevoice_async.emulator import Constant, Emulator
from finevoice_async.engine.poller import REPLANNED
from finevoice_async.engine.records import TaskRecord

Connect = Callable[..., FineVoiceSession]


async def _wave(connect: Connect, emulator: Emulator, effects: int) -> tuple[float, float]:
    """Make effects that run at once; give polls an effect and the mean lag."""
    async with connect(max_concurrency=effects, polling=Polling(budget=1000, concurrency=effects)) as session:
        [outcome async for outcome in session.generate_many(["rain"] * effects)]
    tasks = list(emulator.ledger.accepted.values())
    lags = [task.noticed_at - task.ends_at for task in tasks if task.noticed_at is not None]
    return statistics.fmean(task.polls for task in tasks), statistics.fmean(lags)


@pytest.mark.parametrize(("seconds", "polls", "lag"), [(10.0, 2.6, 1.8), (25.0, 4.0, 2.8)])
async def test_a_wave_asks_for_each_other(
    connect: Connect, emulator: Emulator, seconds: float, polls: float, lag: float
) -> None:
    """A few of a wave ask while all run, and the first end that is found brings the others forward."""
    emulator.service_time = Constant(seconds)
    asked, late = await _wave(connect, emulator, 40)
    assert asked < polls
    assert late < lag


@pytest.fixture
async def parts() -> Parts:
    """Parts of which nothing runs; whatever is drawn is the middle."""
    return assemble(polling=Polling())


def _taught(parts: Parts) -> None:
    """Let the schedule learn that tasks end just past 20 s."""
    for number in range(30):
        record = TaskRecord(f"old{number}", WIND, 0.0)
        parts.inflight.add(record)
        parts.answers.take(record, RUNS, 19.9, 20.0)
        parts.answers.take(record, DONE, 20.4, 20.5)


async def test_a_waiting_task_is_planned_anew(parts: Parts) -> None:
    """It is put off when others are found to run for longer, and brought forward when one was found ended."""
    case = Case(parts)
    case.record.due = 100 + parts.answers.gap(case.record, 0.0)
    assert parts.answers.replan(case.record, 101.0) is None
    _taught(parts)
    later = parts.answers.replan(case.record, 101.0)
    assert later is not None
    assert 105 < later < 120
    case.record.due, case.record.last_age = 140.0, 19.9
    assert parts.answers.replan(case.record, 120.0) == pytest.approx(120.5, abs=0.4)


@pytest.mark.parametrize("answer", [BROKEN, BUSY, MISSING, LINKLESS_ANSWER])
async def test_who_waits_for_another_reason_is_left(parts: Parts, answer: TaskUpdate | Failure) -> None:
    """A pause after a failure, a `Retry-After` or a link that is to come is not the schedule's to move."""
    case = Case(parts)
    assert case.takes(answer, 25.0) is not None
    case.record.due = 140.0
    _taught(parts)
    assert parts.answers.replan(case.record, 125.0) is None
    case.record.linkless = 0
    case.takes(RUNS, 26.0)
    case.record.due = 160.0
    assert parts.answers.replan(case.record, 126.2) is not None


async def _crowd(parts: Parts, count: int) -> list[TaskRecord]:
    """Put tasks in flight that are due in an hour, though the schedule would ask sooner."""
    now = asyncio.get_running_loop().time()
    records = [TaskRecord(f"t{number}", None, now) for number in range(count)]
    for record in records:
        parts.poller.track(record)
        parts.poller._agenda.add(record, now + 3600)
    return records


def _moved(records: list[TaskRecord]) -> int:
    now = asyncio.get_running_loop().time()
    return sum(record.due < now + 3000 for record in records)


async def test_a_round_moves_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many are in flight, a round plans a bounded number anew; all have had their turn some rounds later."""
    async with assemble(polling=Polling()) as parts:
        records = await _crowd(parts, 2 * REPLANNED + 7)
        await asyncio.sleep(0.5)
        assert _moved(records) == 0  # no news
        schedule = parts.answers._schedule
        schedule.finished(5.0, 6.0)
        poller, now = parts.poller, asyncio.get_running_loop().time()
        counts = []
        for _ in range(4):
            poller._replan(now)
            counts.append(_moved(records))
        assert counts == [REPLANNED, 2 * REPLANNED, len(records), len(records)]
        parts.inflight.close()


async def test_all_are_moved_by_and_by() -> None:
    """The poller goes on with those whose turn has not come, tick after tick, though nothing is due."""
    async with assemble(polling=Polling()) as parts:
        records = await _crowd(parts, 2 * REPLANNED + 7)
        await asyncio.sleep(0.5)
        parts.answers._schedule.finished(5.0, 6.0)
        parts.poller._wake_up()
        await asyncio.sleep(0.5)
        assert _moved(records) == len(records)
        parts.inflight.close()


async def test_news_wake_the_poller() -> None:
    """When one is found ended, the others are asked within some ticks, not when they were due."""
    async with assemble(polling=Polling()) as parts:
        first, *others = await _crowd(parts, 4)
        eyes = [Eye(record) for record in others]
        for eye in eyes:
            parts.poller.watch(eye)
        parts.transport.tasks = {record.task_id or "": FINISHED for record in (first, *others)}
        await asyncio.sleep(6)
        parts.poller._ask_now(first)
        await asyncio.sleep(1)
        assert all(len(eye.seen) == 1 for eye in eyes)


async def test_nobody_is_moved_while_polls_are_overdue() -> None:
    """With more due than may be asked, the likeliest are asked by what is known anyway; nothing else is planned."""
    async with assemble(polling=Polling(budget=1, concurrency=1)) as parts:
        records = await _crowd(parts, 50)
        now = asyncio.get_running_loop().time()
        for record in records[:5]:
            parts.poller._agenda.add(record, now)
        parts.poller._agenda.ripen(now)
        parts.answers._schedule.finished(5.0, 6.0)
        parts.poller._replan(now)
        assert _moved(records[5:]) == 0
        parts.inflight.close()


async def test_polls_under_way_and_ended_tasks_are_left() -> None:
    """A task that is being asked, or has ended, gets no due time."""
    async with assemble(polling=Polling()) as parts:
        records = await _crowd(parts, 3)
        asked, ended, waits = records
        asked.due, ended.followed = math.inf, False
        parts.answers._schedule.finished(5.0, 6.0)
        parts.poller._replan(asyncio.get_running_loop().time())
        assert asked.due == math.inf
        assert (_moved([ended]), _moved([waits])) == (0, 1)
        parts.inflight.close()
