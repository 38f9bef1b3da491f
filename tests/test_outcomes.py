"""Many effects at once: drawn as there is room, one outcome each, and nothing sent that nobody waits for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NoReturn

import pytest
from fake_journal import FakeJournal
from fakes import FAILED, FINISHED, LINK, FakeBody, FakeFetcher, FakeSlots, FakeTransport, says
from outcome_streams import Count, Source, all_end, outcomes_of, stream
from parts import RAIN, WIND, assemble, told

from finevoice_async.core.ledger import EffectState, JournalRow
from finevoice_async.core.requests import SfxRequest
from finevoice_async.effect import Outcome
from finevoice_async.errors import (
    FineVoiceError,
    InsufficientCreditsError,
    InvalidRequestError,
    PollError,
    SubmitNotSentError,
    SubmitUnknownError,
    TaskFailedError,
    TaskNotFoundError,
    TaskTimeoutError,
)

QUEUED, SENDING, SUBMITTED, DONE, SAVED, REFUSED, UNKNOWN, FAILED_, GONE = EffectState


# Outcomes


async def test_one_outcome_each() -> None:
    """Each request has an outcome as it ends: with its place, key, request, task id, and an effect or an error."""
    journal, fetcher = FakeJournal(), FakeFetcher(FakeBody(200, (b"RIFF",)))
    async with assemble(FakeTransport(says(422)), journal=journal, fetcher=fetcher) as parts:
        all_end(parts.transport)
        parts.transport.tasks["t1"] = FAILED
        requests = ["rain", {"prompt": "wind", "key": "k"}, RAIN, {"prompt": "x", "key": "bad", "duration": 99}]
        outcomes = await outcomes_of(parts, requests)
        by_place = {outcome.index: outcome for outcome in outcomes}
        refused, failed, made, invalid = (by_place[place] for place in range(4))
        assert outcomes[0] is invalid
        assert (type(invalid.error), invalid.key, invalid.request) == (InvalidRequestError, "bad", None)
        assert refused.error is not None
        assert (refused.error.status, refused.task_id, refused.request) == (422, None, SfxRequest("rain"))
        assert (type(failed.error), failed.task_id, failed.key) == (TaskFailedError, "t1", "k")
        assert failed.request == WIND
        assert (made.error, made.task_id, made.request, made.key) == (None, "t2", RAIN, None)
        assert made.effect is not None
        assert (made.effect.urls, await made.effect.read()) == ((LINK,), b"RIFF")
        assert [outcome.effect for outcome in (refused, failed, invalid)] == [None] * 3


@pytest.mark.parametrize("ordered", [False, True])
async def test_order(ordered: bool) -> None:
    """Outcomes come as they end, or in the order of the requests where that is asked for."""
    async with assemble() as parts:
        parts.transport.tasks = {"t2": FINISHED, "t3": FINISHED}
        async with stream(parts, ["a", "b", "c"], ordered=ordered) as outcomes:
            asyncio.get_running_loop().call_later(10, parts.transport.tasks.update, {"t1": FINISHED})
            came = [outcome.index async for outcome in outcomes]
        assert came == ([0, 1, 2] if ordered else [1, 2, 0])


async def test_nothing_to_draw() -> None:
    """Without requests there are no outcomes."""
    async with assemble() as parts:
        assert await outcomes_of(parts, []) == []


async def test_one_key_many_times() -> None:
    """Requests of one key share one effect, and each has its outcome; another request under it is refused."""
    async with assemble(journal=FakeJournal()) as parts:
        all_end(parts.transport)
        same = {"prompt": "rain", "key": "k"}
        outcomes = await outcomes_of(parts, [same, same, {"prompt": "wind", "key": "k"}, same], ordered=True)
        assert [outcome.task_id for outcome in outcomes] == ["t1", "t1", None, "t1"]
        assert isinstance(outcomes[2].error, InvalidRequestError)
        assert {outcome.key for outcome in outcomes} == {"k"}
        assert len(parts.transport.posts) == 1


@pytest.mark.parametrize("retry_failed", [False, True])
async def test_what_failed_before(retry_failed: bool) -> None:
    """A key whose effect failed is paid for again only where that is asked for."""
    journal = FakeJournal()
    async with assemble(journal=journal) as parts:
        all_end(parts.transport)
        journal.leave(FAILED_, key="k", task_id="old")
        (outcome,) = await outcomes_of(parts, [{"prompt": "rain", "key": "k"}], retry_failed=retry_failed)
        assert (outcome.effect is not None) is retry_failed
        assert isinstance(outcome.error, TaskFailedError) is not retry_failed


async def test_rows_of_the_journal() -> None:
    """A row is taken up where it stands: sent, followed, told, or given."""
    journal = FakeJournal()

    async def rows() -> AsyncIterator[JournalRow]:
        for state in (QUEUED, UNKNOWN, SUBMITTED, DONE, GONE):
            task_id = f"old {state.value}" if state in (SUBMITTED, DONE, GONE) else None
            yield journal.leave(state, state.value, key=f"key {state.value}", urls=(LINK,), task_id=task_id)

    async with assemble(journal=journal) as parts:
        all_end(parts.transport)
        parts.transport.tasks["old%20submitted"] = FINISHED
        outcomes = {outcome.index: outcome for outcome in await outcomes_of(parts, rows())}
        assert [outcomes[place].task_id for place in range(5)] == ["t1", None, "old submitted", "old done", "old lost"]
        assert [type(outcomes[place].error) for place in (1, 4)] == [SubmitUnknownError, TaskNotFoundError]
        assert all(outcomes[place].effect for place in (0, 2, 3))
        for place, state in enumerate((QUEUED, UNKNOWN, SUBMITTED, DONE, GONE)):
            assert outcomes[place].request == SfxRequest(state.value)
            assert outcomes[place].key == f"key {state.value}"
        assert parts.transport.prompts == ["queued"]


# Items that misbehave


class Unreadable(dict[str, Any]):
    """A mapping that raises what it is told to."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(key="k", prompt="rain")
        self.error = error

    def __iter__(self) -> NoReturn:
        raise self.error

    keys = __iter__  # what dict() asks for


@pytest.mark.parametrize("item", [17, None, b"rain", "", {"prompt": "x", "key": ""}, {"loud": True}])
async def test_what_cannot_be_a_request(item: object) -> None:
    """It is one outcome with an error, and its neighbours are made."""
    async with assemble() as parts:
        all_end(parts.transport)
        outcomes = await outcomes_of(parts, ["a", item, "b"])
        bad = [outcome for outcome in outcomes if outcome.error]
        assert [(outcome.index, type(outcome.error)) for outcome in bad] == [(1, InvalidRequestError)]
        assert len(outcomes) == 3


@pytest.mark.parametrize("error", [RuntimeError(), asyncio.CancelledError()])
async def test_an_item_that_raises(error: BaseException) -> None:
    """What an item raises as it is read is its outcome's cause."""
    async with assemble() as parts:
        all_end(parts.transport)
        outcomes = await outcomes_of(parts, [Unreadable(error), "a"])
        assert [type(outcome.error) for outcome in outcomes] == [InvalidRequestError, type(None)]
        assert outcomes[0].error is not None
        assert outcomes[0].error.__cause__ is error


async def test_a_bug_in_one_request() -> None:
    """A bug is the outcome of the request that met it."""
    slots = FakeSlots()
    slots.faults["try_acquire"] = ZeroDivisionError()
    async with assemble(slots=slots) as parts:
        all_end(parts.transport)
        async with stream(parts, ["a", "b"], ahead=1) as outcomes:
            first = await anext(outcomes)
            slots.faults.clear()
            second = await anext(outcomes)
        assert first.error is not None
        assert "bug of the library" in first.error.message
        assert isinstance(first.error.__cause__, ZeroDivisionError)
        assert first.error.request == SfxRequest("a")
        assert second.effect is not None


async def test_a_cancellation_that_is_nobodys() -> None:
    """A cancellation that comes out of a bug is the outcome of the request that met it, and ends the loop loudly."""
    slots = FakeSlots()
    slots.faults["try_acquire"] = asyncio.CancelledError()
    async with assemble(slots=slots) as parts, stream(parts, ["a", "b"]) as outcomes:
        first = await anext(outcomes)
        assert first.error is not None
        assert "CancelledError" in first.error.message
        with pytest.raises(RuntimeError, match="CancelledError"):
            await anext(outcomes)


async def test_a_request_that_ends_in_the_step_in_which_it_is_drawn() -> None:
    """Slots that fail while others wait fail the new one at once, and it has its outcome."""
    slots = FakeSlots()
    slots.held = True
    async with assemble(slots=slots, shared=True) as parts:
        waiting = parts.start()
        await asyncio.sleep(1)
        slots.faults["try_acquire"] = OSError("away")
        (outcome,) = await outcomes_of(parts, ["a"])
        assert isinstance(outcome.error, SubmitNotSentError)
        assert outcome.request == SfxRequest("a")
        assert isinstance(await told(waiting), SubmitNotSentError)


# Sources that misbehave


def _raising(error: BaseException) -> Iterator[str]:
    yield "a"
    raise error


async def _raising_async(error: BaseException) -> AsyncIterator[str]:
    yield "a"
    raise error


@pytest.mark.parametrize("make", [_raising, _raising_async])
@pytest.mark.parametrize("error", [LookupError("gone"), asyncio.CancelledError(), GeneratorExit()])
async def test_a_source_that_raises(make: Callable[[BaseException], Source], error: BaseException) -> None:
    """The error reaches the caller after the outcomes of what was drawn; what is no ordinary one is a cause."""
    async with assemble() as parts:
        all_end(parts.transport)
        async with stream(parts, make(error)) as outcomes:
            assert (await anext(outcomes)).effect is not None
            with pytest.raises(LookupError if isinstance(error, LookupError) else RuntimeError) as caught:
                await anext(outcomes)
        assert error in (caught.value, caught.value.__cause__)


# How far ahead


async def test_no_more_is_drawn_than_there_is_room_for() -> None:
    """So many are drawn beyond what was taken, and no more while one waits for its slot."""
    source = Count()
    async with assemble(slots=FakeSlots(100)) as parts:
        all_end(parts.transport)
        async with stream(parts, source, ahead=7) as outcomes:
            await asyncio.sleep(50)
            assert source.drawn == 7
            for taken in range(1, 20):
                await anext(outcomes)
                await asyncio.sleep(0.5)
                assert source.drawn == taken + 7
    source = Count()
    async with assemble(slots=FakeSlots(2)) as parts, stream(parts, source, ahead=50):
        await asyncio.sleep(10)
        assert source.drawn == 4  # two run, one is next, and one behind it, so that no free slot waits for a draw
        parts.transport.tasks["t1"] = FINISHED
        await asyncio.sleep(5)
        assert source.drawn == 5


# Errors that concern all


async def test_after_spent_credits() -> None:
    """Nothing more is sent: what waits and what is drawn later has that error, each its own; what runs goes on."""
    journal = FakeJournal()
    slots = FakeSlots(2)
    async with assemble(FakeTransport(says(task_id="t1"), says(402)), slots=slots, journal=journal) as parts:
        parts.transport.tasks["t1"] = FINISHED
        outcomes = await outcomes_of(parts, [f"sound {number}" for number in range(6)], ordered=True)
        assert outcomes[0].effect is not None
        errors = [outcome.error for outcome in outcomes[1:]]
        assert [type(error) for error in errors] == [InsufficientCreditsError] * 5
        assert len({id(error) for error in errors}) == 5
        assert [error.request for error in errors if error] == [outcome.request for outcome in outcomes[1:]]
        assert len(parts.transport.posts) == 2
        assert set(journal.states) == {DONE, REFUSED}


async def test_an_ordinary_refusal_is_nobody_elses() -> None:
    """A request that the service refuses stops no other."""
    async with assemble(FakeTransport(says(422)), slots=FakeSlots(1)) as parts:
        all_end(parts.transport)
        outcomes = await outcomes_of(parts, ["a", "b", "c"], ordered=True)
        assert [outcome.effect is not None for outcome in outcomes] == [False, True, True]


async def test_rows_stay_queued_after_spent_credits() -> None:
    """Rows that are not sent after an error that concerns all stay queued, and their errors say so."""
    journal = FakeJournal()

    async def rows() -> AsyncIterator[JournalRow]:
        for number in range(4):
            yield journal.leave(QUEUED, f"sound {number}")

    async with assemble(FakeTransport(says(402)), slots=FakeSlots(1), journal=journal) as parts:
        outcomes = await outcomes_of(parts, rows(), ordered=True)
        words = ["stays queued" in str(outcome.error) for outcome in outcomes]
        assert words == [False, True, True, True]
        assert journal.states == [REFUSED] + [QUEUED] * 3


async def test_who_waits_beside_a_stream_hears_it_too() -> None:
    """A request that somebody else waits for, too, is not sent either; who asks after that asks the service anew."""
    journal, slots = FakeJournal(), FakeSlots(1)
    async with assemble(FakeTransport(says(402), latency=5), slots=slots, journal=journal) as parts:
        requests = ["a", {"prompt": "rain", "key": "k"}]
        async with stream(parts, requests, ordered=True) as outcomes:
            await asyncio.sleep(1)
            other = parts.start(SfxRequest("rain"), "k")
            errors = [outcome.error async for outcome in outcomes]
            assert [type(error) for error in errors] == [InsufficientCreditsError] * 2
            assert isinstance(await told(other), InsufficientCreditsError)
        assert (await parts.submit(SfxRequest("rain"), "k")).task_id == "t1"


async def test_a_timeout_is_one_outcome() -> None:
    """A task that does not end in time is an outcome with its id; that it ends later is none."""
    async with assemble() as parts:
        (outcome,) = await outcomes_of(parts, ["a"], timeout=5.0)
        assert isinstance(outcome.error, TaskTimeoutError)
        assert (outcome.task_id, outcome.request) == ("t1", SfxRequest("a"))
        all_end(parts.transport)
        await asyncio.sleep(10)
        assert parts.books.completed == 1


async def test_the_poller_dies() -> None:
    """What runs, and what is drawn afterwards, hears of it; there is no hang."""
    async with assemble(FakeTransport(polls=(ZeroDivisionError(),)), slots=FakeSlots(2)) as parts:
        outcomes = await outcomes_of(parts, ["a", "b", "c", "d"])
        assert [type(outcome.error) for outcome in outcomes] == [PollError] * 4
        assert {outcome.task_id for outcome in outcomes} == {"t1", "t2", None}
        record = next(iter(parts.inflight.tasks.values()))
        row = FakeJournal().leave(SUBMITTED, task_id=record.task_id)
        (outcome,) = await outcomes_of(parts, _one(row))
        assert isinstance(outcome.error, PollError)


async def _one(row: JournalRow) -> AsyncIterator[JournalRow]:
    yield row


def test_outcomes_can_be_compared() -> None:
    """An outcome is a plain value."""
    assert Outcome(index=1) == Outcome(index=1) != Outcome(index=1, error=FineVoiceError("No."))
