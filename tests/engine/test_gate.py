"""The line of submissions that wait: who goes when, who is sent home, and what a cancellation leaves behind."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest
from fakes import DateClock
from hasty_clock import HastyClock
from parts import FairLuck, turns

from finevoice_async.config import Retry
from finevoice_async.core.failures import Failure, FailureKind
from finevoice_async.engine.gate import Gate, Place
from finevoice_async.errors import SessionClosedError
from finevoice_async.ports import Clock

FULL = Failure(FailureKind.RATE, "the plan is full")
AWAY = Failure(FailureKind.NOT_SENT, "connection refused")
LOST = Failure(FailureKind.LOST, "connection reset")
REFUSED = Failure(FailureKind.INVALID, "too loud")
CLOCKS = pytest.mark.parametrize("clock", [DateClock, HastyClock])


def make(clock: Callable[[], Clock] = DateClock, *, patience: float = 120.0, first_delay: float = 0.5) -> Gate:
    """Make a gate whose jitter is always the middle."""
    return Gate(retry=Retry(patience=patience, first_delay=first_delay), clock=clock(), rng=FairLuck(7))


def now() -> float:
    """Return the loop's time."""
    return asyncio.get_running_loop().time()


class Line:
    """Submissions that wait, and in which order they were let out."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.out: list[tuple[str, bool]] = []  # who went, and whether as the probe
        self.home: dict[str, tuple[float, Failure]] = {}  # who was sent home, when and why

    def wait(self, name: str, place: Place | None = None, *, again: bool = False) -> asyncio.Task[None]:
        """Let somebody wait."""
        return asyncio.ensure_future(self._wait(name, self.gate.place() if place is None else place, again=again))

    async def _wait(self, name: str, place: Place, *, again: bool) -> None:
        turn = await self.gate.turn(place, again=again)
        if isinstance(turn, Failure):
            self.home[name] = (now(), turn)
        else:
            self.out.append((name, turn))

    def answer(self, failure: Failure | None) -> None:
        """Answer the probe, as a sender does."""
        self.gate.judge(failure, probe=True)
        self.gate.probe_ended()


async def gone(task: asyncio.Task[None]) -> None:
    """Cancel somebody, and see that they are gone."""
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


# Order


async def test_an_open_gate_lets_everybody_pass_at_once() -> None:
    """Who comes to an open gate goes, and not as a probe."""
    gate = make()
    assert repr(gate) == "<Gate open, 0 waiting>"
    assert await gate.turn(gate.place(), again=False) is False


@CLOCKS
async def test_one_probe_then_everybody(clock: Callable[[], Clock]) -> None:
    """While the service is away one goes at a time, in order; once it answers, all do, in order."""
    line = Line(gate := make(clock))
    gate.judge(AWAY, probe=False)
    began = now()
    for name in "abc":
        line.wait(name)
    await turns(2)
    assert repr(gate) == "<Gate shut (not sent), 3 waiting>"
    assert gate.is_shut
    await asyncio.sleep(0.2475)
    assert line.out == []
    await asyncio.sleep(0.003)
    assert line.out == [("a", True)]
    await asyncio.sleep(100)
    assert len(line.out) == 1, "its answer is waited for"
    assert now() > began + 100
    line.answer(None)
    await turns(2)
    assert line.out == [("a", True), ("b", False), ("c", False)]
    assert not gate.is_shut


async def test_a_full_plan_is_filled_one_after_another() -> None:
    """After a 429 each answer lets exactly one more go, until nobody waits."""
    line = Line(gate := make())
    gate.judge(FULL, probe=False)
    for name in "abcd":
        line.wait(name)
    await asyncio.sleep(1)
    for names in ("ab", "abc", "abcd"):
        line.answer(None)
        await turns(2)
        assert "".join(name for name, _ in line.out) == names
        await asyncio.sleep(1)
    assert all(probe for _, probe in line.out)
    assert gate.is_shut
    line.answer(None)
    assert not gate.is_shut


async def test_who_was_sent_before_keeps_its_place() -> None:
    """A probe that failed, and all that were refused together, wait before those who come later, in their order."""
    line = Line(gate := make())
    places = {name: gate.place() for name in "abc"}
    gate.judge(AWAY, probe=False)
    line.wait("late")
    await turns(2)
    for name in "bac":  # as their answers came
        line.wait(name, places[name], again=True)
    await asyncio.sleep(0.3)
    assert line.out == [("a", True)]
    line.answer(AWAY)
    line.wait("a again", places["a"], again=True)
    await asyncio.sleep(0.6)
    line.answer(None)
    await turns(2)
    assert [name for name, _ in line.out] == ["a", "a again", "b", "c", "late"]


async def test_who_left_before_opens_nothing() -> None:
    """An answer to a submission that was on its way already lets nobody go."""
    line = Line(gate := make(first_delay=20))
    gate.judge(AWAY, probe=False)
    waiter = line.wait("a")
    await asyncio.sleep(1)
    gate.judge(None, probe=False)
    gate.judge(REFUSED, probe=False)
    await asyncio.sleep(1)
    assert line.out == []
    await asyncio.wait_for(waiter, 20)


async def test_a_refusal_is_an_answer() -> None:
    """A probe that is refused for its own sake tells that the service is there."""
    line = Line(gate := make())
    gate.judge(AWAY, probe=False)
    for name in "ab":
        line.wait(name)
    await asyncio.sleep(1)
    line.answer(REFUSED)
    await turns(2)
    assert line.out == [("a", True), ("b", False)]


async def test_a_probe_without_an_answer_lets_the_next_go() -> None:
    """A probe that never left, for a reason of its own, costs nobody a pause."""
    line = Line(gate := make())
    gate.judge(AWAY, probe=False)
    for name in "ab":
        line.wait(name)
    await asyncio.sleep(1)
    gate.probe_ended()
    await turns(2)
    assert line.out == [("a", True), ("b", True)]


# Cancellation


@pytest.mark.parametrize("steps", range(6))
@pytest.mark.parametrize("open_again", [False, True])
async def test_cancelled_at_any_step(steps: int, open_again: bool) -> None:
    """Whoever is cancelled, before, while or after it is let out, leaves the way free for the next."""
    line = Line(gate := make())
    gate.judge(AWAY, probe=False)
    first, second = line.wait("a"), line.wait("b")
    await asyncio.sleep(0.2499)
    loop = asyncio.get_running_loop()
    loop.call_at(loop.time() + 0.0001, lambda: None)
    for _ in range(steps):
        await asyncio.sleep(0.00005 if not line.out else 0)
    first.cancel()
    await asyncio.wait([first])
    if not first.cancelled():  # it was out already: its sender tells
        assert line.out == [("a", True)]
        line.answer(None if open_again else AWAY)
    await asyncio.wait_for(second, 5)
    assert line.out[-1] == ("b", not (open_again and not first.cancelled()))


async def test_cancelled_in_the_step_in_which_it_is_let_out() -> None:
    """The probe is given back, and the next goes as the probe at once; nobody is lost."""
    line = Line(gate := make())
    gate.judge(FULL, probe=False)
    first, second, third = (line.wait(name) for name in "abc")
    await asyncio.sleep(0.3)
    assert line.out == [("a", True)]
    line.answer(None)  # b is let out in this step
    await gone(second)
    await turns(2)
    assert line.out == [("a", True), ("c", True)]
    assert first.done()
    assert third.done()


async def test_cancelled_as_all_go() -> None:
    """Who is cancelled as everybody is let out takes nothing along."""
    line = Line(gate := make())
    gate.judge(AWAY, probe=False)
    tasks = [line.wait(name) for name in "abc"]
    await asyncio.sleep(0.3)
    line.answer(None)
    await gone(tasks[1])
    await turns(2)
    assert line.out == [("a", True), ("c", False)]
    gate.judge(AWAY, probe=False)
    await asyncio.wait_for(line.wait("d"), 1)
    assert line.out[-1] == ("d", True)


# Patience


@CLOCKS
@pytest.mark.parametrize("failure", [FULL, AWAY])
async def test_patience_is_each_ones_own(clock: Callable[[], Clock], failure: Failure) -> None:
    """Who has waited for `Retry.patience` is told why, and who came later goes on waiting for theirs."""
    line, began = Line(gate := make(clock, patience=10, first_delay=1000)), now()
    gate.judge(failure, probe=False)
    line.wait("a")
    await asyncio.sleep(4)
    line.wait("b")
    await asyncio.sleep(7)
    assert list(line.home) == ["a"]
    await asyncio.sleep(4)
    assert {name: (round(at - began), why) for name, (at, why) in line.home.items()} == {
        "a": (10, failure),
        "b": (14, failure),
    }
    assert line.out == []


async def test_progress_begins_patience_anew() -> None:
    """While others of the line are taken, nobody is sent home."""
    line, began = Line(gate := make(patience=10)), now()
    gate.judge(FULL, probe=False)
    for name in "abcdef":
        line.wait(name)
    for _ in range(3):
        await asyncio.sleep(9)
        line.answer(None)
    assert line.home == {}
    await asyncio.sleep(20)
    assert set(line.home) == {"e", "f"}
    assert [round(at - began) for at, _ in line.home.values()] == [37, 37]


async def test_under_the_brake_nobody_is_sent_home() -> None:
    """Who waits for the answer of others has paid nothing and can leave; afterwards it is patient anew."""
    line = Line(gate := make(patience=10, first_delay=1000))
    for _ in range(3):
        gate.judge(LOST, probe=False)
    tasks = [line.wait(name) for name in "abc"]
    await asyncio.sleep(500)
    assert (line.out, line.home) == ([("a", True)], {})
    began = now()
    line.answer(AWAY)
    await asyncio.sleep(30)
    assert {name: round(at - began) for name, (at, _) in line.home.items()} == {"b": 10, "c": 10}
    assert all(task.done() for task in tasks)


async def test_the_brake_while_others_lose_patience() -> None:
    """Who had little patience left when the brake came on is not sent home either."""
    line = Line(gate := make(patience=10, first_delay=16))
    gate.judge(AWAY, probe=False)
    for name in "ab":
        line.wait(name)
    await asyncio.sleep(9)
    assert line.out == [("a", True)]
    line.answer(LOST)
    await asyncio.sleep(100)
    assert line.home == {}
    assert line.out == [("a", True), ("b", True)]


async def test_who_comes_when_others_have_lost_patience_waits_for_one_probe() -> None:
    """A long list without a network ends soon: latecomers go home with the next probe that fails, that one first."""
    line = Line(gate := make(patience=20, first_delay=1000))  # pauses of 15 s
    gate.judge(AWAY, probe=False)
    early = gate.place()
    await line.wait("early", early)
    line.answer(AWAY)
    await line.wait("early again", early, again=True)
    assert (line.out, list(line.home)) == ([("early", True)], ["early again"])
    place = gate.place()
    probe = line.wait("probe", place)
    line.wait("late")
    await probe
    assert (line.out[1:], len(line.home)) == ([("probe", True)], 1)
    line.answer(AWAY)
    line.wait("probe again", place, again=True)
    await turns(3)
    assert set(line.home) == {"early again", "late", "probe again"}
    await line.wait("after")
    assert line.out[2:] == [("after", True)]
    line.answer(None)
    assert not gate.is_shut


# Closing, timers, words


async def test_a_closed_gate_takes_nobody() -> None:
    """Whoever comes hears that nothing was sent; who waits is its owner's to call off."""
    line = Line(gate := make())
    gate.judge(AWAY, probe=False)
    waiter = line.wait("a")
    await turns(2)
    gate.close()
    with pytest.raises(SessionClosedError, match="Nothing was sent"):
        await gate.turn(gate.place(), again=False)
    await gone(waiter)
    assert repr(gate) == "<Gate shut (not sent), 0 waiting>"


async def _cancelled(line: Line, task: asyncio.Task[None]) -> None:
    await gone(task)


async def _let_out(line: Line, task: asyncio.Task[None]) -> None:
    await asyncio.wait_for(task, 10)
    line.answer(None)


async def _sent_home(line: Line, task: asyncio.Task[None]) -> None:
    line.gate.judge(Failure(FailureKind.RATE, "full", retry_after=100.0), probe=False)
    await asyncio.wait_for(task, 10)
    assert line.home


@pytest.mark.parametrize("end", [_cancelled, _let_out, _sent_home])
async def test_no_timer_without_anybody_who_waits(end: Callable[[Line, asyncio.Task[None]], Awaitable[None]]) -> None:
    """However the last one leaves, nothing is left to ring."""
    clock = HastyClock()
    line = Line(gate := make(lambda: clock, patience=5))
    gate.judge(AWAY, probe=False)
    assert clock.pending() == 0
    task = line.wait("a")
    await turns(2)
    assert clock.pending() == 1
    await end(line, task)
    assert clock.pending() == 0


async def test_a_timer_follows_what_it_waits_for() -> None:
    """Told to wait longer, it rings later; nobody goes at the time of before."""
    line = Line(gate := make())
    gate.judge(FULL, probe=False)
    began, task = now(), line.wait("a")
    await turns(2)
    gate.judge(Failure(FailureKind.RATE, "full", retry_after=40.0), probe=False)
    await asyncio.wait_for(task, 60)
    assert now() - began == pytest.approx(42.0)


async def test_what_the_log_says(caplog: pytest.LogCaptureFixture) -> None:
    """One line when submissions begin to wait, one when the reason changes, one when they leave freely; no more."""
    caplog.set_level(logging.INFO, "finevoice_async")
    line = Line(gate := make())
    for _ in range(5):
        gate.judge(AWAY, probe=False)
    for failure in (AWAY, FULL, FULL, None):
        line.answer(failure)
    gate.judge(None, probe=False)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "submissions wait, but for one probe at a time: connection refused"),
        ("WARNING", "submissions wait, but for one probe at a time: the plan is full"),
        ("INFO", "submissions leave freely again"),
    ]
