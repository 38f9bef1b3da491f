"""Time limits of calls: in time, per call, and told apart from a caller's own cancellation."""

from __future__ import annotations

import asyncio

import pytest

from finevoice_async.adapters.deadlines import Deadlines


async def _call(deadlines: Deadlines, seconds: float) -> float:
    with deadlines:
        await asyncio.sleep(seconds)
    return asyncio.get_running_loop().time()


async def test_late_calls_end_in_time_and_others_go_on(no_leaks: object) -> None:
    """Each call has its own time from its own start; one that is late takes nobody with it."""
    deadlines = Deadlines(10)
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
    assert not deadlines._calls
    assert await _call(deadlines, 9) - began == pytest.approx(23)  # a new timer, after a time with no call
    deadlines.close()
    deadlines.close()


async def test_a_callers_cancellation_stays_one(no_leaks: object) -> None:
    """A task that is cancelled in the same step as its time is up hears of the cancellation."""
    deadlines = Deadlines(10)
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


async def test_the_task_can_be_cancelled_after_a_timeout(no_leaks: object) -> None:
    """The cancellation that ends a call is taken back: `asyncio.timeout` around it works on."""
    deadlines = Deadlines(10)

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


async def test_a_call_thrown_away_is_silent(no_leaks: object) -> None:
    """A coroutine that is closed outside its task, as when its loop is dropped, leaves without an error."""
    deadlines = Deadlines(10)
    call = _call(deadlines, 100)
    task = asyncio.ensure_future(call)
    await asyncio.sleep(1)
    call.close()
    with pytest.raises(RuntimeError):  # asyncio's word for a task whose coroutine is gone
        await asyncio.wait_for(task, 200)
    deadlines.close()
