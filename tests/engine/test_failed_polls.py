"""What a failed poll means: when to ask again, who hears, and how the end of an outage is noticed."""

from __future__ import annotations

import asyncio

import pytest
from answer_cases import BROKEN, BUSY, GRACE, MAX_GAP, MIN_GAP, MISSING, RUNS, Case
from fakes import AWAY, FINISHED, FakeTransport, says
from parts import EVERY, RAIN, Eye, Parts, assemble

from finevoice_async.config import Polling, Retry
from finevoice_async.core.failures import Failure, FailureKind
from finevoice_async.engine.answers import PATIENCE, PROBE
from finevoice_async.errors import AuthenticationError, PollError


@pytest.fixture
async def parts() -> Parts:
    """Parts of which nothing runs: every two seconds a poll, ten of grace, three failures in a row."""
    return assemble(polling=Polling.fixed(2.0, grace=GRACE, failures=3), retry=Retry(first_delay=4, max_delay=100))


async def test_failures_in_a_row(parts: Parts) -> None:
    """Failed polls are repeated with growing pauses; at the limit the watchers hear, and the count begins anew."""
    case = Case(parts)
    for began in (0, 500):
        assert [case.takes(BROKEN, began + age) for age in (0, PATIENCE - 1)] == [2, 4]  # half of 4 and of 8
        assert case.takes(BROKEN, began + PATIENCE) == MAX_GAP
        case.record.unanswered = 0
    assert case.eye.seen
    error = case.eye.seen[0]
    assert isinstance(error, PollError)
    assert (error.task_id, error.request, error.status) == ("t1", RAIN, 500)
    assert case.heard == [PollError]
    assert case.record.end is None
    assert list(parts.inflight.tasks) == ["t1"]


async def test_failures_that_pass_soon(parts: Parts) -> None:
    """However many polls fail within the patience, nobody hears of it; nor of few, however long they take."""
    many, few = Case(parts), Case(parts, "t2")
    for age in range(int(PATIENCE)):
        many.takes(BROKEN, age)
    for age in (0, 1000):
        few.takes(BROKEN, age)
    assert many.heard == few.heard == []
    many.takes(BROKEN, PATIENCE)
    few.takes(BROKEN, 2000)
    assert many.heard == few.heard == [PollError]


async def test_polls_that_were_not_sent_do_not_count(parts: Parts) -> None:
    """As long as nothing reaches the service, nothing is known of the task: only the waiter's time ends the wait."""
    case = Case(parts)
    for age in range(0, 1000, 10):
        assert case.takes(AWAY, age) is not None
    case.takes(BROKEN, 1000)
    case.takes(AWAY, 1100)
    case.takes(BROKEN, 1200)
    assert case.heard == []
    case.takes(BROKEN, 1300)
    assert case.heard == [PollError]


async def test_while_polls_fail_somebody_is_asked_soon() -> None:
    """Backoffs grow, but one task at least is asked within seconds, so that the end of an outage is noticed."""
    parts = assemble(polling=Polling(), retry=Retry(first_delay=100, max_delay=100))
    cases = [Case(parts, task_id) for task_id in ("t1", "t2", "t3")]
    assert [case.takes(AWAY, 0) for case in cases] == [PROBE, 50, 50]
    assert cases[0].takes(AWAY, PROBE) == PROBE
    patient = Failure(FailureKind.SERVER, "The service answered 503: later", status=503, retry_after=80)
    assert cases[0].takes(patient, 100) == pytest.approx(84)
    assert cases[1].takes(AWAY, 100) == PROBE


async def test_with_the_first_answer_all_are_asked() -> None:
    """Whose last poll failed is asked at once when the service is back, but for those told when to come again."""
    parts = assemble(polling=Polling(), retry=Retry(first_delay=100, max_delay=100))
    first, second, told, ended, fine = [Case(parts, f"t{number}") for number in range(5)]
    fine.takes(RUNS)
    for case in (first, second, ended):
        case.takes(AWAY)
    told.takes(Failure(FailureKind.SERVER, "The service answered 503: later", status=503, retry_after=80))
    assert parts.answers.back() == []
    ended.takes(MISSING, 1000)
    fine.takes(RUNS)
    assert parts.answers.back() == [first.record, second.record]
    fine.takes(RUNS)
    assert parts.answers.back() == []


async def test_one_bad_task_is_no_outage() -> None:
    """A task whose polls fail while others are answered keeps its backoff: it is not asked after each answer."""
    parts = assemble(polling=Polling())
    bad, good = Case(parts), Case(parts, "t2")
    for _ in range(10):
        bad.takes(BROKEN)
        good.takes(RUNS)
        assert parts.answers.back() == []


async def test_failures_are_forgiven(parts: Parts) -> None:
    """An answer in between begins the count anew."""
    case = Case(parts)
    for _ in range(5):
        case.takes(BROKEN)
        case.takes(BROKEN)
        case.takes(RUNS)
    assert case.eye.seen == []
    assert case.takes(BROKEN) == 2


async def test_a_failure_that_asks_for_patience(parts: Parts) -> None:
    """A `Retry-After` is obeyed; no pause is shorter than the shortest gap."""
    case = Case(parts)
    patient = Failure(FailureKind.SERVER, "The service answered 503: later", status=503, retry_after=20)
    assert case.takes(patient) == pytest.approx(21)
    hasty = Case(assemble(polling=Polling.fixed(2.0), retry=Retry(first_delay=0.01)))
    assert hasty.takes(BROKEN) == MIN_GAP


@pytest.mark.parametrize("kind", [FailureKind.CREDITS, FailureKind.INVALID, FailureKind.REDIRECT])
async def test_what_asking_again_does_not_mend(parts: Parts, kind: FailureKind) -> None:
    """The watchers of that task hear at once; the task is not given up, but asked for rarely."""
    case, other = Case(parts), Case(parts, "t2")
    assert case.takes(Failure(kind, "No")) == MAX_GAP
    assert (case.heard, other.heard) == ([PollError], [])
    assert case.record.end is None
    assert case.record.failures == 0


async def test_a_refused_key_is_everybodys(parts: Parts) -> None:
    """A 401 is told to the watchers of all tasks, each with its own id; none is given up."""
    cases = [Case(parts, task_id) for task_id in ("t1", "t2", "t3")]
    gap = cases[1].takes(Failure(FailureKind.FORBIDDEN, "The service answered 401: who?", status=401))
    assert gap == MAX_GAP
    for case in cases:
        assert case.heard == [AuthenticationError]
        error = case.eye.seen[0]
        assert isinstance(error, AuthenticationError)
        assert (error.task_id, error.status) == (case.record.task_id, 401)
    assert list(parts.inflight.tasks) == ["t1", "t2", "t3"]


async def test_a_429_slows_all_polls_down(parts: Parts) -> None:
    """No poll starts before the pause is over; pauses grow with 429s in a row, whosever they are."""
    case, other = Case(parts), Case(parts, "t2")
    budget = parts.answers.budget
    assert case.takes(BUSY, 0) == 2
    assert (budget.available(101.9), budget.available(102.1) > 0) == (0, True)
    assert other.takes(BUSY, 10) == 4
    assert budget.available(113.9) == 0
    asked = Failure(FailureKind.RATE, "The service answered 429: slowly", status=429, retry_after=60)
    assert case.takes(asked, 20) == pytest.approx(63)
    assert budget.available(182.9) == 0
    assert case.heard == other.heard == []
    case.takes(RUNS, 90)
    assert case.takes(BUSY, 91) == 2  # the row has ended
    assert case.record.failures == 0


async def test_a_pause_is_never_shorter_than_a_gap() -> None:
    """A 429 with a tiny backoff does not bring the next poll of the task forward."""
    case = Case(assemble(polling=Polling.fixed(2.0), retry=Retry(first_delay=0.01)))
    assert case.takes(BUSY) == MIN_GAP


async def test_nobody_starves_behind_a_task_that_is_never_answered() -> None:
    """Two tasks meet 429 for ever: another is asked in its turn all the same, however few polls there are."""
    transport = FakeTransport()
    async with assemble(transport, polling=Polling.fixed(EVERY, grace=10)) as parts:
        transport.tasks = {name: says(429, retry_after="0") for name in ("t1", "t2")}
        await asyncio.gather(parts.submit(), parts.submit())
        await asyncio.sleep(300)
        transport.tasks["t3"] = FINISHED
        eye = Eye(await parts.submit())
        parts.poller.watch(eye)
        await asyncio.sleep(100)
        assert eye.seen, "it is done, and somebody asked"
