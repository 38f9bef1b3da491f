"""The life of a session: one loop, one process, opened once and closed once, however many call and are cancelled."""

from __future__ import annotations

import asyncio
import os
from contextvars import ContextVar

import pytest

from finevoice_async.engine.life import OPENING, Life, SessionState
from finevoice_async.errors import ConfigurationError, JournalError, SessionClosedError

NEW, OPEN, CLOSING, CLOSED = SessionState
request_of: ContextVar[str] = ContextVar("request_of", default="nobody")


class Work:
    """Something to open or close, which takes its time, and may fail."""

    def __init__(self, seconds: float = 1.0, *errors: BaseException) -> None:
        self.seconds = seconds
        self.errors = list(errors)
        self.begun = 0
        self.ended = 0
        self.seen: str | None = None

    async def __call__(self) -> None:
        """Do it."""
        self.begun += 1
        self.seen = request_of.get()
        await asyncio.sleep(self.seconds)
        if self.errors:
            raise self.errors.pop(0)
        self.ended += 1


async def test_opened_once_for_all() -> None:
    """Many callers wait for one opening, and later ones for none."""
    life, work = Life(), Work()
    assert life.state is NEW
    await asyncio.gather(*[life.open(work) for _ in range(3)])
    await life.open(work)
    assert (life.state, work.begun, work.ended) == (OPEN, 1, 1)


async def test_nothing_to_open() -> None:
    """Without an opener it is open at once."""
    life = Life()
    await life.open(None)
    assert life.state is OPEN


async def test_it_carries_no_callers_context() -> None:
    """What opens and closes runs outside of whatever its first caller was doing."""
    life, opening, closing = Life(), Work(), Work()
    request_of.set("somebody")
    await life.open(opening)
    await life.close(closing)
    assert (opening.seen, closing.seen) == ("nobody", "nobody")


async def test_a_failed_opening_is_tried_again() -> None:
    """All who wait hear why it failed, and the next caller tries anew."""
    life, work = Life(), Work(1, JournalError("The disk is full."))
    outcomes = await asyncio.gather(life.open(work), life.open(work), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [JournalError] * 2
    assert life.state is NEW
    await life.open(work)
    assert (life.state, work.begun, work.ended) == (OPEN, 2, 1)


async def test_a_retry_is_not_lost_to_who_hears_late() -> None:
    """Whoever hears of the failure last does not throw away the opening that somebody has begun since."""
    life, work = Life(), Work(1, JournalError("The disk is full."))

    async def persist() -> None:
        try:
            await life.open(work)
        except JournalError:
            await life.open(work)

    outcomes = await asyncio.gather(persist(), life.open(work), persist(), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None), JournalError, type(None)]
    assert (work.begun, life.state) == (2, OPEN)


async def test_an_opening_cancelled_from_outside() -> None:
    """Nobody hears a cancellation that is not theirs, and the next caller tries anew."""
    life, work = Life(), Work(1)
    before = asyncio.all_tasks()
    caller = asyncio.create_task(life.open(work))
    await asyncio.sleep(0.5)
    (opening,) = asyncio.all_tasks() - before - {caller}
    opening.cancel()
    with pytest.raises(ConfigurationError, match="cancelled from outside"):
        await caller
    await life.open(work)
    assert life.state is OPEN


async def test_a_cancelled_caller_stops_nothing() -> None:
    """The opening, and the closing, go on without whoever began them."""
    life, opening, closing = Life(), Work(), Work()
    for use, work in ((life.open(opening), opening), (life.close(closing), closing)):
        caller = asyncio.create_task(use)
        await asyncio.sleep(0.5)
        caller.cancel()
        await asyncio.wait([caller])
        assert caller.cancelled()
        await asyncio.sleep(1)
        assert work.ended == 1
    assert life.state is CLOSED


async def test_closed_once_for_all() -> None:
    """Many callers wait for one closing; in between nothing is taken; a later call does nothing."""
    life, work = Life(), Work()
    await life.open(None)
    closing = [asyncio.create_task(life.close(work)) for _ in range(3)]
    await asyncio.sleep(0.5)
    assert life.state is CLOSING
    with pytest.raises(SessionClosedError, match="Nothing was sent"):
        await life.open(work)
    await asyncio.gather(*closing)
    assert life.state is CLOSED
    with pytest.raises(SessionClosedError):
        life.bind()
    await life.close(work)
    assert (work.begun, work.ended) == (1, 1)


async def test_closed_before_it_was_used() -> None:
    """What was never opened can be closed, and not be opened any more."""
    life, work = Life(), Work()
    await life.close(work)
    assert (life.state, work.ended) == (CLOSED, 1)
    with pytest.raises(SessionClosedError):
        await life.open(None)


async def test_a_closing_that_fails_is_a_closing() -> None:
    """Whoever closed hears of the fault, and nothing can be used any more."""
    life = Life()
    await life.open(None)
    with pytest.raises(ZeroDivisionError):
        await life.close(Work(1, ZeroDivisionError()))
    assert life.state is CLOSED
    with pytest.raises(SessionClosedError):
        life.bind()


async def test_closed_while_it_is_opened() -> None:
    """The closing waits for the opening under way; whoever opened hears that it is closed."""
    life, opening, closing = Life(), Work(5), Work(0)
    caller = asyncio.create_task(life.open(opening))
    await asyncio.sleep(1)
    await life.close(closing)
    assert (opening.ended, closing.ended, life.state) == (1, 1, CLOSED)
    with pytest.raises(SessionClosedError):
        await caller


async def test_closed_while_an_opening_hangs() -> None:
    """An opening that never ends is waited for so long, then cut off: the closing comes all the same."""
    loop, life, closing = asyncio.get_running_loop(), Life(), Work(0)
    caller = asyncio.create_task(life.open(Work(1e9)))
    await asyncio.sleep(1)
    began = loop.time()
    await life.close(closing)
    assert loop.time() - began == pytest.approx(OPENING)
    assert closing.ended == 1
    with pytest.raises(SessionClosedError):
        await caller


async def test_closed_while_an_opening_fails() -> None:
    """An opening that fails during the closing is told as the closing, which goes on."""
    life, closing = Life(), Work(0)
    caller = asyncio.create_task(life.open(Work(5, JournalError("The disk is full."))))
    await asyncio.sleep(1)
    told, _ = await asyncio.gather(caller, life.close(closing), return_exceptions=True)
    assert isinstance(told, SessionClosedError)
    assert closing.ended == 1


def test_it_belongs_to_one_loop() -> None:
    """Where it was used first it belongs: another loop can neither use nor close it; closed, it is nobody's."""
    life, work = Life(), Work(0)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(life.open(None))
    with pytest.raises(ConfigurationError, match="another event loop"):
        asyncio.run(life.open(None))
    with pytest.raises(ConfigurationError, match="event loop; close it there"):
        asyncio.run(life.close(work))
    assert (life.state, work.begun) == (OPEN, 0)
    loop.run_until_complete(life.close(work))
    loop.close()
    asyncio.run(life.close(work))
    assert work.begun == 1


async def test_it_belongs_to_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a fork the child can neither use nor close it."""
    life, parent = Life(), os.getpid()
    await life.open(None)
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)
    with pytest.raises(ConfigurationError, match="another process"):
        life.bind()
    with pytest.raises(ConfigurationError, match="another process"):
        await life.close(Work(0))
    assert life.state is OPEN


async def test_made_before_a_fork_and_used_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It belongs to the process that uses it first: what was only made before the fork holds nothing of the parent."""
    life, work, parent = Life(), Work(0), os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)
    await life.open(work)
    assert (life.state, work.ended) == (OPEN, 1)
    monkeypatch.setattr(os, "getpid", lambda: parent)
    with pytest.raises(ConfigurationError, match="another process"):
        life.bind()
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)
    await life.close(work)
    assert life.state is CLOSED


async def test_callers_hear_of_a_failed_opening_each_for_themselves() -> None:
    """Each gets an error of its own, which says that nothing was paid."""
    life, work = Life(), Work(1, JournalError("The disk is full."))
    first, second = await asyncio.gather(life.open(work), life.open(work), return_exceptions=True)
    assert first is not second
    for error in (first, second):
        assert isinstance(error, JournalError)
        assert error.paid is False
