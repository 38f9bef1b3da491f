"""generate_many() beside items, iterables and slots that raise: one outcome each, and never a hang."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from ledger.helpers import REFUSED, BrokenSlots, Connect, all_of, rows

from finevoice_async import FineVoiceError, FineVoiceSession, InvalidRequestError, Outcome, SubmitNotSentError
from finevoice_async.emulator import Emulator


class BadMapping(Mapping[str, Any]):
    """A mapping that raises as it is read."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __getitem__(self, name: str) -> Any:
        raise self.error

    def __iter__(self) -> Iterator[str]:
        raise self.error

    def __len__(self) -> int:
        return 1

    def __contains__(self, name: object) -> bool:
        raise self.error


class Disguised:
    """An object that raises when it is asked what it is."""

    @property  # type: ignore[misc]  # on purpose
    def __class__(self) -> type:
        raise OSError("who asks?")

    def __repr__(self) -> str:
        raise OSError("who asks?")


BAD_ITEMS: dict[str, Callable[[], Any]] = {
    "a huge number": lambda: {"prompt": "rain", "duration": 10**400},
    "a number too long to print": lambda: {"prompt": "rain", "duration": 10**5000},
    "not a number": lambda: {"prompt": "rain", "duration": float("nan")},
    "a huge prompt number": lambda: {"prompt": 10**5000},
    "a huge key": lambda: {"prompt": "rain", "key": 10**5000},
    "a blank key": lambda: {"prompt": "rain", "key": " "},
    "a key with a lone surrogate": lambda: {"prompt": "rain", "key": "\ud800"},
    "an unknown field": lambda: {"prompt": "rain", "colour": "red"},
    "a field that is no name": lambda: {7: "rain"},
    "an odd address": lambda: {"source_url": "http://[", "source_type": "image"},
    "nothing": lambda: None,
    "a number": lambda: 17,
    "a disguise": Disguised,
    "a lookup error": lambda: BadMapping(LookupError("gone")),
    "a system error": lambda: BadMapping(OSError("gone")),
    "the end of an iteration": lambda: BadMapping(StopIteration()),
    "the end of an async iteration": lambda: BadMapping(StopAsyncIteration()),
    "a recursion error": lambda: BadMapping(RecursionError()),
    "a cancellation": lambda: BadMapping(asyncio.CancelledError()),
}


def given(items: list[Any], *, as_async: bool) -> Any:
    """Return items as an iterable of either kind."""

    async def source() -> AsyncIterator[Any]:
        for item in items:
            yield item

    return source() if as_async else items


@pytest.mark.parametrize("as_async", [False, True])
@pytest.mark.parametrize("name", BAD_ITEMS)
async def test_an_item_that_raises(connect: Connect, path: Path, emulator: Emulator, name: str, as_async: bool) -> None:
    """An item that cannot be read is one outcome with an error that says so; its neighbours are made."""
    items = [{"prompt": "a", "key": "a"}, BAD_ITEMS[name](), {"prompt": "c", "key": "c"}]
    async with connect(journal=path) as session, asyncio.timeout(600):
        outcomes = await all_of(session.generate_many(given(items, as_async=as_async), ordered=True))
    assert [outcome.index for outcome in outcomes] == [0, 1, 2]
    assert [type(outcome.error) for outcome in outcomes] == [type(None), InvalidRequestError, type(None)]
    assert len(emulator.ledger.accepted) == 2


async def take(source: AsyncIterator[Outcome], outcomes: list[Outcome]) -> None:
    """Take outcomes until the end, or an error."""
    async with asyncio.timeout(600):
        async for outcome in source:
            outcomes.append(outcome)  # noqa: PERF401 - what came before an error counts


class BadIterable:
    """Gives an item, then raises: as a sync or an async iterable, which are no generators."""

    def __init__(self, error: BaseException, at: int = 1) -> None:
        self.error = error
        self.left = at

    def _next(self) -> str:
        if not self.left:
            raise self.error
        self.left -= 1
        return "rain"


class BadSync(BadIterable):
    """The sync kind."""

    def __iter__(self) -> BadSync:
        return self

    def __next__(self) -> str:
        return self._next()


class BadAsync(BadIterable):
    """The async kind. It ends by `None`, which nobody may mistake for its error."""

    def __aiter__(self) -> BadAsync:
        return self

    async def __anext__(self) -> str:
        return self._next()


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize("kind", [BadSync, BadAsync])
@pytest.mark.parametrize("error", [LookupError("gone"), OSError("gone"), FineVoiceError("theirs"), RecursionError()])
async def test_an_iterable_that_raises(
    session: FineVoiceSession, error: Exception, kind: type[BadIterable], at: int, ordered: bool
) -> None:
    """The caller's own error reaches them as it is, after the outcomes of what was drawn."""
    outcomes: list[Outcome] = []
    source: Any = kind(error, at)
    with pytest.raises(type(error)) as caught:
        await take(session.generate_many(source, ordered=ordered), outcomes)
    assert caught.value is error
    assert len([outcome for outcome in outcomes if outcome.effect]) == at


@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (BadSync, asyncio.CancelledError()),
        (BadAsync, asyncio.CancelledError()),
        (BadSync, StopAsyncIteration()),
        (BadSync, GeneratorExit()),
    ],
)
async def test_an_iterable_that_raises_what_means_an_end(
    session: FineVoiceSession, error: BaseException, kind: type[BadIterable], at: int
) -> None:
    """What would end or cancel the caller's loop, and is neither, is a RuntimeError with its cause."""
    outcomes: list[Outcome] = []
    source: Any = kind(error, at)
    with pytest.raises(RuntimeError) as caught:
        await take(session.generate_many(source), outcomes)
    assert caught.value.__cause__ is error
    assert len([outcome for outcome in outcomes if outcome.effect]) == at
    assert (await session.generate("fine")).task_id  # the session is not harmed


async def test_an_iterable_that_ends(session: FineVoiceSession) -> None:
    """The ordinary end of either kind is an end."""
    for kind, error in ((BadSync, StopIteration()), (BadAsync, StopAsyncIteration())):
        async with asyncio.timeout(600):
            outcomes = await all_of(session.generate_many(kind(error, 2)))
        assert len([outcome for outcome in outcomes if outcome.effect]) == 2


@pytest.mark.parametrize("what", [17, None, object()])
async def test_what_is_no_iterable(session: FineVoiceSession, what: Any) -> None:
    """What cannot be iterated over is an error, not a hang."""
    with pytest.raises((TypeError, FineVoiceError)):
        async with asyncio.timeout(600):
            await all_of(session.generate_many(what))


async def test_a_cancelled_caller_is_cancelled(session: FineVoiceSession) -> None:
    """Whoever is really cancelled in the loop hears a CancelledError, and no RuntimeError."""
    taking = asyncio.create_task(all_of(session.generate_many(["rain"] * 10)))
    await asyncio.sleep(0.5)
    taking.cancel()
    await asyncio.wait([taking])
    assert taking.cancelled()


@pytest.mark.parametrize("journalled", [False, True])
@pytest.mark.parametrize("error", [OSError("away"), ValueError("away"), asyncio.CancelledError()])
@pytest.mark.parametrize("broken", ["try_acquire", "acquire"])
async def test_slots_that_give_none(
    connect: Connect, path: Path, emulator: Emulator, broken: str, error: BaseException, journalled: bool
) -> None:
    """Slots raise whatever they like as one is wanted: each effect hears that it was not sent, and why."""
    slots = BrokenSlots(broken, error)
    async with connect(slots=slots, journal=path if journalled else None) as session, asyncio.timeout(600):
        outcomes = await all_of(session.generate_many(["a", "b", "c"]))
        assert [type(outcome.error) for outcome in outcomes] == [SubmitNotSentError] * 3
        for outcome in outcomes:
            assert outcome.error is not None
            assert outcome.error.request == outcome.request
            assert outcome.error.__cause__ is error
        with pytest.raises(SubmitNotSentError) as caught:
            await session.submit("d")
        assert caught.value.__cause__ is error
        slots.broken = ""
        assert (await session.generate("e")).task_id  # they work again
    assert slots.slots.used == slots.slots.waiting == 0
    assert len(emulator.ledger.accepted) == 1
    if journalled:
        assert [row.state for row in await rows(path) if row.task_id is None] in ([], [REFUSED] * 4)


@pytest.mark.parametrize("broken", ["release", "slow_down", "waiting", "occupy"])
async def test_slots_that_fail_otherwise(connect: Connect, path: Path, emulator: Emulator, broken: str) -> None:
    """A fault of shared slots at any other moment costs no effect."""
    async with connect(journal=path) as session:
        await session.submit("old")
    emulator.inject("submit.rate_limit")
    slots = BrokenSlots(broken, OSError("the lock server is away"), limit=2)
    async with connect(slots=slots, journal=path) as session, asyncio.timeout(600):
        outcomes = await all_of(session.generate_many([f"sound {number}" for number in range(6)]))
        assert all(outcome.effect for outcome in outcomes)
        assert session.stats.waiting == 0
        assert all(outcome.effect for outcome in await all_of(session.recover()))
    assert len(emulator.ledger.accepted) == 7


async def test_slots_that_fail_now_and_then(connect: Connect, emulator: Emulator) -> None:
    """Slots that fail while others wait: only who was to get that slot hears, and nobody waits for ever."""
    slots = BrokenSlots("", OSError("away"), limit=1)
    async with connect(slots=slots) as session, asyncio.timeout(600):
        calls = [asyncio.create_task(session.generate(f"sound {number}")) for number in range(4)]
        await asyncio.sleep(1)
        slots.broken = "try_acquire"
        await asyncio.sleep(5)
        slots.broken = ""
        told = await asyncio.gather(*calls, return_exceptions=True)
        errors = [one for one in told if isinstance(one, BaseException)]
        assert all(isinstance(error, SubmitNotSentError) for error in errors)
        assert len(emulator.ledger.accepted) == 4 - len(errors) >= 1
    assert slots.slots.used == 0
