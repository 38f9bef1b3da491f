"""What runs for many carries the context of nobody: else all traces and logs would be the first request's."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from finevoice_async import FineVoiceSession, Polling, TaskTimeoutError
from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.emulator import Emulator

request_of: contextvars.ContextVar[str] = contextvars.ContextVar("request_of", default="nobody")


class Noted(logging.Handler):
    """Notes each line with the context in which it was logged."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Note a line."""
        self.lines.append((record.getMessage(), request_of.get()))


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Noted]:
    """The library's log, with contexts."""
    log, handler = logging.getLogger("finevoice_async"), Noted()
    log.addHandler(handler)
    monkeypatch.setattr(log, "level", logging.DEBUG)
    log.manager._clear_cache()  # type: ignore[attr-defined]  # of the levels, which typeshed does not know
    yield handler
    log.removeHandler(handler)


@pytest.mark.parametrize("journalled", [False, True], ids=["", "journal"])
@pytest.mark.parametrize("count", [1, 12])
async def test_calls_and_logs_are_nobodys(
    emulator: Emulator, noted: Noted, tmp_path: Path, count: int, journalled: bool
) -> None:
    """Polls, ends and what is logged of them are nobody's; each POST is the business of whoever asked for it."""
    asked: list[tuple[str, str]] = []

    async def note(_: object, __: object, params: aiohttp.TraceRequestStartParams) -> None:
        asked.append((params.method, request_of.get()))

    tracing = aiohttp.TraceConfig()
    tracing.on_request_start.append(note)

    async def visit(session: FineVoiceSession, name: str) -> None:
        request_of.set(name)
        await session.generate("rain", key=name if journalled else None)
        assert request_of.get() == name

    async with aiohttp.ClientSession(trace_configs=[tracing]) as http:
        journal = tmp_path / "effects.db" if journalled else None
        async with FineVoiceSession(emulator.api_key, base_url=emulator.url, http=http, journal=journal) as session:
            await asyncio.gather(*[asyncio.create_task(visit(session, f"request {n}")) for n in range(count)])
    assert {method for method, _ in asked} == {"POST", "GET"}
    assert {name for method, name in asked if method == "GET"} == {"nobody"}
    assert sorted(name for method, name in asked if method == "POST") == sorted(f"request {n}" for n in range(count))
    assert [name for line, name in noted.lines if "ended" in line] == ["nobody"] * count


async def test_failures_and_timeouts_are_nobodys(emulator: Emulator, noted: Noted) -> None:
    """Nor are polls that fail, and what a timer does."""
    emulator.inject("poll.error_500", 3)
    async with FineVoiceSession(emulator.api_key, base_url=emulator.url, polling=Polling.fixed(0.5)) as session:
        request_of.set("somebody")
        task = await session.submit("rain")
        with pytest.raises(TaskTimeoutError):
            await task.wait(timeout=1)
        await task
    assert any("failed" in line for line, _ in noted.lines)
    assert {name for line, name in noted.lines if "submitted" not in line} == {"nobody"}


async def test_timers_are_nobodys() -> None:
    """A timer that one caller sets may serve others."""
    clock, seen = LoopClock(), asyncio.get_running_loop().create_future()
    request_of.set("somebody")
    clock.call_at(clock.monotonic() + 1, lambda: seen.set_result(request_of.get()))
    assert await seen == "nobody"
