"""A loop over many effects is left, or the session closes under it: nothing more is drawn or sent, and nobody hangs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from fake_journal import FakeJournal
from fakes import FakeSlots, FakeTransport
from outcome_streams import Count, all_end, stream
from parts import assemble

from finevoice_async.errors import SessionClosedError
from finevoice_async.outcomes import OutcomeStream


async def test_left() -> None:
    """Nothing more is drawn or sent; what was sent goes on, and its ids are kept; leaving twice is fine."""
    source, streams, journal = Count(), dict[OutcomeStream, None](), FakeJournal()
    async with assemble(slots=FakeSlots(2), journal=journal) as parts:
        async with stream(parts, source, streams=streams) as outcomes:
            await asyncio.sleep(1)
            assert list(streams) == [outcomes]
        await outcomes.aclose()
        assert not streams
        assert [record.watchers for record in parts.inflight.tasks.values()] == [[], []]
        all_end(parts.transport)
        await asyncio.sleep(20)
        assert source.drawn == 4
        assert parts.transport.prompts == ["sound 1", "sound 2"]
        assert sorted(row.state.value for row in journal.contents.values()) == ["done"] * 2 + ["refused"] * 2


async def test_left_before_an_answer() -> None:
    """An answer that comes when the caller has left makes a task, and no outcome."""
    async with assemble(FakeTransport(latency=5)) as parts:
        async with stream(parts, ["a"]):
            await asyncio.sleep(1)
        await asyncio.sleep(5)
        assert list(parts.inflight.tasks) == ["t1"]
        assert parts.inflight.tasks["t1"].watchers == []


async def test_left_while_the_source_takes_its_time() -> None:
    """Who leaves waits until the source has ended: it may have something to close."""
    closed = []

    async def source() -> AsyncIterator[str]:
        try:
            yield "a"
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(1)
            closed.append("closed")

    async with assemble() as parts:
        async with stream(parts, source()):
            await asyncio.sleep(1)
        assert closed == ["closed"]


async def test_left_while_there_is_no_room() -> None:
    """Who leaves while a request waits to be taken in at all leaves without a fault, and it is not sent."""
    async with assemble(slots=FakeSlots(1), max_queue=1) as parts:
        first, second = parts.start(), parts.start()
        await asyncio.sleep(1)
        async with stream(parts, ["a", "b"]):
            await asyncio.sleep(1)
        second.cancel()
        await asyncio.wait([first, second])
        await asyncio.sleep(1)
        assert parts.transport.prompts == ["rain"]


@pytest.mark.parametrize("waits_on", [False, True], ids=["at once", "for ever"])
async def test_left_while_the_source_goes_on(waits_on: bool) -> None:
    """A source that goes on although it was cancelled gives nothing more that is sent, and holds nobody up."""

    async def source() -> AsyncIterator[str]:
        yield "a"
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        yield "b"
        while waits_on:
            await asyncio.Event().wait()
        yield "c"

    async with assemble() as parts:
        async with asyncio.timeout(10), stream(parts, source()):
            await asyncio.sleep(1)
        await asyncio.sleep(5)
        assert parts.transport.prompts == ["a"]


async def test_left_before_it_began() -> None:
    """A stream that was never entered has nothing to stop."""
    async with assemble() as parts:
        await stream(parts, ["a"]).aclose()


async def test_stopped() -> None:
    """Stopped, a stream draws no more, and ends with the outcomes of what was drawn."""
    source = Count()
    async with assemble(slots=FakeSlots(2)) as parts:
        async with stream(parts, source) as outcomes:
            await asyncio.sleep(1)
            outcomes.stop()
            all_end(parts.transport)
            assert [outcome.index async for outcome in outcomes] == [0, 1, 2, 3]
        assert source.drawn == 4


async def test_closed() -> None:
    """A submitter that closes ends the stream: each drawn request has an outcome, also one drawn too late."""
    source = Count()
    async with assemble(slots=FakeSlots(2)) as parts:
        async with stream(parts, source, ahead=3) as outcomes:
            await asyncio.sleep(1)
            parts.submitter.refuse()
            parts.inflight.close()
            came = [outcome async for outcome in outcomes]
        assert sorted(outcome.index for outcome in came) == list(range(4))
        assert all(isinstance(outcome.error, SessionClosedError) for outcome in came)
        assert source.drawn == 4
