"""Time limits that share a timer: in time, in order, forgotten when they should be, and cheap."""

from __future__ import annotations

import asyncio

import pytest
from hasty_clock import HastyClock

from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.config import Timeouts
from finevoice_async.engine.expiry import CallLimits, Deadlines, Expiry


@pytest.mark.parametrize("clock", [LoopClock, HastyClock])
async def test_each_item_goes_after_its_own_time(no_leaks: object, clock: type[LoopClock]) -> None:
    """Two that are due together go together, a later one later; none early, and a discarded one never."""
    gone: list[tuple[str, float]] = []
    time = clock()
    began = time.monotonic()
    expiry: Expiry[str] = Expiry(10, time, lambda item: gone.append((item, round(time.monotonic() - began, 3))))
    expiry.add("first")
    expiry.add("twin")
    await asyncio.sleep(4)
    expiry.add("never")
    expiry.add("last")
    assert expiry.discard("never")
    assert not expiry.discard("never")
    assert not expiry.discard("nobody")
    assert len(expiry) == 3
    await asyncio.sleep(100)
    assert gone == [("first", 10), ("twin", 10), ("last", 14)]
    assert not expiry
    assert not expiry.discard("first")
    expiry.add("anew")
    await asyncio.sleep(10.1)
    assert gone[-1] == ("anew", 114)


async def test_one_timer_for_all(no_leaks: object) -> None:
    """Thousands that come and leave need no timer of their own; what is left over fires for nobody, and once."""
    clock, gone = HastyClock(), list[int]()
    expiry: Expiry[int] = Expiry(10, clock, gone.append)
    for item in range(5_000):
        expiry.add(item)
        expiry.discard(item)
    assert len(clock.timers) == 1
    await asyncio.sleep(5)
    expiry.add(5_000)  # the timer of the first looks early, and again when this one is due
    await asyncio.sleep(9.9)
    assert (gone, len(clock.timers) < 5) == ([], True)
    await asyncio.sleep(1)
    assert gone == [5_000]
    made = len(clock.timers)
    await asyncio.sleep(1_000)
    assert (len(clock.timers), clock.pending()) == (made, 0)


async def test_closing(no_leaks: object) -> None:
    """A closed one calls nobody, and no timer is left; closing again does nothing."""
    clock, gone = HastyClock(), list[str]()
    expiry: Expiry[str] = Expiry(10, clock, gone.append)
    expiry.close()
    expiry.add("one")
    expiry.close()
    expiry.close()
    assert (len(expiry), clock.pending()) == (0, 0)
    await asyncio.sleep(20)
    assert gone == []


async def test_items_may_leave_while_others_expire(no_leaks: object) -> None:
    """What is done for one item may add and discard others."""
    gone: list[str] = []

    def on_expired(item: str) -> None:
        gone.append(item)
        expiry.discard("later")
        if len(gone) < 3:
            expiry.add(item + "'")

    expiry = Expiry(10, LoopClock(), on_expired)
    expiry.add("a")
    await asyncio.sleep(1)
    expiry.add("later")
    await asyncio.sleep(100)
    assert gone == ["a", "a'", "a''"]


# Calls


async def _call(deadlines: Deadlines, seconds: float) -> float:
    with deadlines:
        await asyncio.sleep(seconds)
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize("clock", [LoopClock, HastyClock])
async def test_late_calls_end_in_time_and_others_go_on(no_leaks: object, clock: type[LoopClock]) -> None:
    """Each call has its own time from its own start; one that is late takes nobody with it."""
    deadlines = Deadlines(10, clock())
    loop = asyncio.get_running_loop()
    began = loop.time()
    late = asyncio.ensure_future(_call(deadlines, 100))
    await asyncio.sleep(4)
    later = asyncio.ensure_future(_call(deadlines, 100))
    fine = asyncio.ensure_future(_call(deadlines, 9))
    with pytest.raises(TimeoutError):
        await late
    assert loop.time() - began == pytest.approx(10)
    with pytest.raises(TimeoutError):
        await later
    assert loop.time() - began == pytest.approx(14)
    assert await fine - began == pytest.approx(13)
    assert await _call(deadlines, 9) - began == pytest.approx(23)  # a new timer, after a time with no call
    assert not deadlines
    assert not deadlines._late
    deadlines.close()
    deadlines.close()


async def test_a_call_that_ended_in_time_leaves_its_task_alone(no_leaks: object) -> None:
    """What the task does after its call has no limit."""
    deadlines = Deadlines(10, LoopClock())
    await _call(deadlines, 9)
    await asyncio.sleep(100)
    with pytest.raises(KeyError), deadlines:
        raise KeyError
    await asyncio.sleep(100)
    deadlines.close()


async def test_a_call_makes_no_timer(no_leaks: object) -> None:
    """Calls one after another, and at once, share a timer: none is made and called off for each."""
    clock = HastyClock()
    deadlines = Deadlines(10, clock)
    for _ in range(100):
        await _call(deadlines, 0)
    await asyncio.gather(*(_call(deadlines, 0.1) for _ in range(100)))
    assert len(clock.timers) == 1
    deadlines.close()
    assert clock.pending() == 0


async def test_a_callers_cancellation_stays_one(no_leaks: object) -> None:
    """A task that is cancelled in the same step as its time is up hears of the cancellation."""
    deadlines = Deadlines(10, LoopClock())
    call = asyncio.ensure_future(_call(deadlines, 100))
    asyncio.get_running_loop().call_later(10, call.cancel)
    with pytest.raises(asyncio.CancelledError):
        await call
    alone = asyncio.ensure_future(_call(deadlines, 100))
    await asyncio.sleep(1)
    alone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await alone
    deadlines.close()


async def test_a_cancellation_within_the_call_is_not_forgotten(no_leaks: object) -> None:
    """Who was cancelled during the call and went on is still cancelled when the call's time is up."""
    deadlines = Deadlines(10, LoopClock())

    async def stubborn() -> None:
        with deadlines:
            for _ in range(2):
                try:
                    await asyncio.sleep(100)
                except asyncio.CancelledError:
                    task = asyncio.current_task()
                    assert task is not None
                    if task.cancelling() > 1:
                        raise

    call = asyncio.ensure_future(stubborn())
    await asyncio.sleep(1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    deadlines.close()


async def test_a_call_of_a_task_that_was_cancelled_before(no_leaks: object) -> None:
    """Who cleans up after a cancellation has the same limit for each call, and hears of it."""
    deadlines = Deadlines(10, LoopClock())
    heard: list[float] = []

    async def job() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            for seconds in (1, 100, 1):
                try:
                    heard.append(await _call(deadlines, seconds) - began)
                except TimeoutError:
                    heard.append(asyncio.get_running_loop().time() - began)

    began = asyncio.get_running_loop().time()
    task = asyncio.ensure_future(job())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert heard == pytest.approx([1, 11, 12])
    deadlines.close()


async def test_the_task_can_be_cancelled_after_a_timeout(no_leaks: object) -> None:
    """The cancellation that ends a call is taken back: `asyncio.timeout` around it works on."""
    deadlines = Deadlines(10, LoopClock())

    async def job() -> None:
        with pytest.raises(TimeoutError):
            await _call(deadlines, 100)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        async with asyncio.timeout(5):
            await asyncio.sleep(100)

    with pytest.raises(TimeoutError):
        await job()
    deadlines.close()


async def test_an_error_in_the_step_of_the_timeout_is_the_error(no_leaks: object) -> None:
    """A call that fails by itself as its time is up fails with its own error, and the task goes on."""
    deadlines = Deadlines(10, LoopClock())

    async def failing() -> None:
        with deadlines:
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                raise KeyError from None

    async def job() -> None:
        with pytest.raises(KeyError):
            await failing()
        await asyncio.sleep(1)

    await asyncio.wait_for(job(), 100)
    deadlines.close()


async def test_closing_lets_calls_run(no_leaks: object) -> None:
    """A call under way when it is closed has no limit any more, and leaves as any other."""
    deadlines = Deadlines(10, LoopClock())
    call = asyncio.ensure_future(_call(deadlines, 100))
    await asyncio.sleep(1)
    deadlines.close()
    await call


async def test_a_call_thrown_away_is_silent(no_leaks: object) -> None:
    """A coroutine that is closed outside its task, as when its loop is dropped, leaves without an error."""
    deadlines = Deadlines(10, LoopClock())
    call = _call(deadlines, 100)
    task = asyncio.ensure_future(call)
    await asyncio.sleep(1)
    call.close()
    with pytest.raises(RuntimeError):  # asyncio's word for a task whose coroutine is gone
        await asyncio.wait_for(task, 200)
    deadlines.close()


def test_a_call_outlives_its_loop() -> None:
    """A call whose loop is closed leaves without an error when it is collected."""
    deadlines = Deadlines(10, LoopClock())
    loop = asyncio.new_event_loop()
    call = _call(deadlines, 100)

    async def begin() -> None:
        call.send(None)

    loop.run_until_complete(begin())
    loop.close()
    call.close()


async def test_limits_of_calls(no_leaks: object) -> None:
    """A synchronous answer has the effect's time, never less than a call's; closed, nothing has a limit."""
    clock = HastyClock()
    for task, seconds in ((900.0, 900.0), (1.0, 40.0)):
        limits = CallLimits(Timeouts(connect=10, read=30, task=task), clock)
        began = clock.monotonic()
        with pytest.raises(TimeoutError), limits.ordinary:
            await asyncio.sleep(1e6)
        assert clock.monotonic() - began == pytest.approx(40)
        with pytest.raises(TimeoutError), limits.synchronous:
            await asyncio.sleep(1e6)
        assert clock.monotonic() - began == pytest.approx(40 + seconds)
        limits.close()
        limits.close()
    endless = CallLimits(Timeouts(task=None), clock)
    with endless.synchronous:
        await asyncio.sleep(1e6)
    endless.close()
    assert clock.pending() == 0
