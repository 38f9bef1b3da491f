"""Streams of outcomes over the engine's parts, and sources to draw from."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Iterator
from typing import Any

from fakes import FINISHED, FakeTransport
from parts import Parts

from finevoice_async.effect import Outcome
from finevoice_async.outcomes import OutcomeStream

Source = Iterable[Any] | AsyncIterable[Any]


class Count:
    """An endless source of prompts that counts what was drawn."""

    def __init__(self) -> None:
        self.drawn = 0

    def __iter__(self) -> Iterator[str]:
        while True:
            self.drawn += 1
            yield f"sound {self.drawn}"


def stream(parts: Parts, source: Source, *, ahead: int = 100, **options: Any) -> OutcomeStream:
    """Return a stream of outcomes."""
    timeout = options.pop("timeout", 100.0)
    options.setdefault("keeps", True)
    streams: dict[OutcomeStream, None] = options.pop("streams", {})
    return OutcomeStream(
        streams, parts.submitter, parts.poller, parts.downloads, source, ahead=ahead, timeout=timeout, **options
    )


async def outcomes_of(parts: Parts, source: Source, **options: Any) -> list[Outcome]:
    """Take all outcomes."""
    async with stream(parts, source, **options) as outcomes:
        return [outcome async for outcome in outcomes]


def all_end(transport: FakeTransport, count: int = 50) -> None:
    """Let tasks be done when they are asked for first."""
    transport.tasks = {f"t{number}": FINISHED for number in range(1, count + 1)}
