"""What an answer means for a task: its end, or when to ask again, and who hears."""

from __future__ import annotations

import asyncio
import logging

import pytest
from answer_cases import (
    BROKEN,
    BUSY,
    DONE,
    GRACE,
    LINKLESS_ANSWER,
    MIN_GAP,
    MISSING,
    PENDING,
    RUNS,
    Case,
)
from parts import RAIN, Parts, assemble

from finevoice_async.config import Polling, Retry
from finevoice_async.core.failures import Failure, FailureKind
from finevoice_async.core.tasks import TaskStatus, TaskUpdate
from finevoice_async.engine.answers import LINKLESS, TICK
from finevoice_async.engine.records import TaskRecord
from finevoice_async.errors import PollError, TaskFailedError, TaskNotFoundError


@pytest.fixture
async def parts() -> Parts:
    """Parts of which nothing runs: every two seconds a poll, ten of grace, three failures in a row."""
    return assemble(polling=Polling.fixed(2.0, grace=GRACE, failures=3), retry=Retry(first_delay=4, max_delay=100))


# It runs, or has ended


async def test_it_runs(parts: Parts) -> None:
    """A running task is asked again after the gap, less half a tick; it has a slot, and its age is known."""
    case = Case(parts)
    assert case.takes(RUNS, 3) == pytest.approx(2 - TICK / 2)
    assert case.record.last_age == pytest.approx(2.9)
    assert case.record.seen
    assert parts.slots.out == {case.record.slot}
    case.takes(RUNS, 5)
    assert len(parts.slots.out) == 1


async def test_changes_are_told_to_those_who_want_each(parts: Parts) -> None:
    """A change of state is told once, and only to who asked for every one."""
    case = Case(parts)
    for update in (PENDING, PENDING, RUNS, PENDING, RUNS, RUNS):
        case.takes(update)
    assert case.curious.seen == [PENDING, RUNS, PENDING, RUNS]
    assert case.eye.seen == []
    assert case.record.watchers == [case.eye, case.curious]


async def test_a_state_that_nobody_documented(parts: Parts, caplog: pytest.LogCaptureFixture) -> None:
    """An unknown word is taken as running; after a known state it is worth a line in the log."""
    case, unknown = Case(parts), TaskUpdate(status=TaskStatus.UNKNOWN)
    assert case.takes(unknown) is not None
    assert not caplog.records
    case.takes(RUNS)
    assert case.takes(unknown) is not None
    assert "nobody documented" in caplog.text
    assert case.record.slot is not None


async def test_done(parts: Parts) -> None:
    """The end is told to all, frees the slot, and there is no next poll."""
    case = Case(parts)
    case.takes(RUNS)
    assert case.takes(DONE, 3) is None
    assert case.record.end is DONE
    assert case.record.status is TaskStatus.COMPLETED
    assert case.eye.seen == [DONE]
    assert (parts.slots.out, parts.inflight.tasks) == (set(), {})
    assert parts.books.completed == 1


async def test_failed(parts: Parts) -> None:
    """A failure is an end, in the service's words."""
    case = Case(parts)
    assert case.takes(TaskUpdate(status=TaskStatus.FAILED, reason="no such sound")) is None
    assert case.heard == [TaskFailedError]
    assert "no such sound" in str(case.eye.seen[0])
    assert case.record.status is TaskStatus.FAILED
    assert parts.books.failed == 1


async def test_done_without_a_link(parts: Parts) -> None:
    """The link may follow the word: it is asked for some more times, soon, then the task is given up with the body."""
    case = Case(parts)
    for _ in range(LINKLESS - 1):
        assert case.takes(LINKLESS_ANSWER) == MIN_GAP
    assert case.heard == []
    assert case.takes(LINKLESS_ANSWER) is None
    assert case.heard == [PollError]
    error = case.eye.seen[0]
    assert isinstance(error, PollError)
    assert error.body == '{"status": 200}'


async def test_the_link_follows(parts: Parts) -> None:
    """A link that comes in time is a result like any other."""
    case = Case(parts)
    case.takes(LINKLESS_ANSWER)
    assert case.takes(DONE) is None
    assert case.record.end is DONE


# 404


async def test_a_404_after_the_submission_is_borne(parts: Parts) -> None:
    """A task that was never seen is lost once its grace since the submission is over, and not before."""
    case = Case(parts)
    usual = 2 - TICK / 2
    for age, gap in ((0.5, usual), (5, usual), (9.9, 0.1 + MIN_GAP)):  # the last is asked for when the grace is over
        assert case.takes(MISSING, age) == pytest.approx(gap)
    assert case.heard == []
    assert case.takes(MISSING, GRACE) is None
    assert case.heard == [TaskNotFoundError]
    error = case.eye.seen[0]
    assert isinstance(error, TaskNotFoundError)
    assert (error.task_id, error.request, error.status) == ("t1", RAIN, 404)
    assert not parts.slots.out
    assert not parts.inflight.tasks


async def test_a_404_takes_no_slot(parts: Parts) -> None:
    """An id of which the service knows nothing holds up nobody."""
    case = Case(parts, attached=True)
    case.takes(MISSING)
    assert case.record.slot is None
    case.takes(RUNS)
    assert case.record.slot is not None


async def test_one_404_does_not_end_what_was_seen(parts: Parts) -> None:
    """A task that was seen running has a whole grace from the first 404 on, however old it is."""
    case = Case(parts)
    case.takes(RUNS, 50)
    assert case.takes(MISSING, 100) is not None
    assert case.takes(MISSING, 109.9) is not None
    assert case.heard == []
    assert case.takes(MISSING, 110) is None
    assert case.heard == [TaskNotFoundError]


@pytest.mark.parametrize("between", [RUNS, LINKLESS_ANSWER, BROKEN, Failure(FailureKind.INVALID, "422")])
async def test_404s_that_are_not_in_a_row(parts: Parts, between: TaskUpdate | Failure) -> None:
    """Any other word in between begins the grace anew."""
    case = Case(parts)
    case.takes(RUNS, 50)
    case.takes(MISSING, 100)
    case.takes(between, 105)
    assert case.takes(MISSING, 112) is not None
    assert case.takes(MISSING, 121) is not None
    assert case.takes(MISSING, 122) is None


async def test_a_429_says_nothing_of_the_task(parts: Parts) -> None:
    """404s with a 429 between them are still in a row."""
    case = Case(parts)
    case.takes(RUNS, 50)
    case.takes(MISSING, 100)
    case.takes(BUSY, 105)
    assert case.takes(MISSING, 110) is None


async def test_without_grace_two_404s_are_needed() -> None:
    """Without any grace the first 404 ends a task that was never seen, and the second one that was."""
    for seen in (False, True):
        case = Case(assemble(polling=Polling.fixed(2.0, grace=0)), seen=seen)
        assert (case.takes(MISSING, 1) is None) is not seen
        if seen:
            assert case.takes(MISSING, 1.5) is None


async def test_a_lost_task_keeps_its_state(parts: Parts) -> None:
    """That a task is lost does not say that it failed."""
    case = Case(parts)
    case.takes(RUNS, 1)
    case.takes(MISSING, 2)
    case.takes(MISSING, 20)
    assert isinstance(case.record.end, TaskNotFoundError)
    assert case.record.status is TaskStatus.PROCESSING


# What is learned


@pytest.mark.parametrize("attached", [False, True])
async def test_what_teaches(attached: bool) -> None:
    """Tasks of this session teach how long effects take; of an attached one nobody knows the age."""
    parts = assemble(polling=Polling())
    before = parts.answers.learned()
    case = Case(parts, attached=attached)
    case.takes(RUNS, 3)
    seen = parts.answers.learned()
    case.takes(DONE, 6)
    after = parts.answers.learned()
    assert (before == seen, seen == after) == (attached, attached)


async def test_estimates() -> None:
    """A running task has one once something was learned; an attached or ended one has none."""
    parts = assemble(polling=Polling())
    case = Case(parts)
    assert parts.answers.estimate(case.record) is None
    case.takes(RUNS, 3)
    case.takes(DONE, 6)
    running = TaskRecord("t2", RAIN, parts.answers._clock.monotonic())
    estimate = parts.answers.estimate(running)
    assert estimate is not None
    assert 0 < estimate.median <= estimate.p90
    running.born -= 3.0
    later = parts.answers.estimate(running)
    assert later is not None
    assert later.median < estimate.median
    assert parts.answers.estimate(case.record) is None
    running.attached = True
    assert parts.answers.estimate(running) is None


async def test_the_longest_wait_is_the_likeliest_to_have_ended() -> None:
    """Of two tasks, the one that was not asked for longer is asked first."""
    parts = assemble(polling=Polling.fixed(2.0))
    now = parts.answers._clock.monotonic()
    old, new = TaskRecord("t1", RAIN, now - 20), TaskRecord("t2", RAIN, now - 20)
    new.last_age = 15.0
    assert parts.answers.odds(old) > parts.answers.odds(new)


async def test_who_waits_for_a_slot_makes_notices_dearer() -> None:
    """While requests wait for slots, tasks are asked more often."""
    parts = assemble(polling=Polling())
    for number in range(30):
        case = Case(parts, f"t{number}")
        case.takes(RUNS, 3 + number / 10)
        case.takes(DONE, 5 + number / 10)
    record = TaskRecord("t", RAIN, 0.0)
    free = parts.answers.gap(record, 0.0)
    parts.slots.held = True
    waiting = asyncio.create_task(parts.slots.acquire())
    await asyncio.sleep(0)
    assert parts.answers.gap(record, 0.0) < free
    waiting.cancel()


async def test_learned_before(caplog: pytest.LogCaptureFixture) -> None:
    """What an earlier session learned is taken up, unless the options say what to go by."""
    caplog.set_level(logging.DEBUG)
    teacher = assemble(polling=Polling())
    case = Case(teacher)
    case.takes(RUNS, 3)
    case.takes(DONE, 6)
    learned, nothing = teacher.answers.learned(), assemble(polling=Polling()).answers.learned()
    for polling, expected in (
        (Polling(), learned),
        (Polling(state=nothing), nothing),
        (Polling.fixed(2.0), assemble(polling=Polling.fixed(2.0)).answers.learned()),
    ):
        pupil = assemble(polling=polling)
        pupil.answers.learn_from(learned)
        assert pupil.answers.learned() == expected


@pytest.mark.parametrize(
    ("polling", "tick"),
    [(Polling(), TICK), (Polling.fixed(2.5), TICK), (Polling.fixed(0.1), 0.02), (Polling(min_gap=0.01), 0.002)],
)
async def test_rounds(polling: Polling, tick: float) -> None:
    """Polls are gathered in rounds, which are short where gaps are; no gap is shorter than the shortest."""
    answers = assemble(polling=polling).answers
    assert answers.tick == pytest.approx(tick)
    shortest = min(polling.min_gap, polling.interval or polling.min_gap)
    assert answers.gap(TaskRecord("t1", RAIN, 0.0), 0.0) >= shortest
