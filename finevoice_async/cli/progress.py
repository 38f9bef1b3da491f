"""What a person sees while effects are made: a live display on a terminal, or plain lines."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.status import Status

from finevoice_async import SfxTask
from finevoice_async.cli.talk import fit, say

SILENCE = 3.0
"""Seconds after which whoever waits wants to know for what."""

_TURN = 0.5  # seconds between two looks at the words


class Waiting:
    """Shows what is waited for: moving on a terminal; elsewhere as one line, once it takes long."""

    def __init__(self, describe: Callable[[], str], *, line: str | None, moving: bool = True) -> None:
        """Set it up.

        Args:
            describe: Says what is waited for, in words that may change.
            line: The one line for where nothing moves, if there is one.
            moving: Whether something may move; else it is as without a terminal.
        """
        self._describe = describe
        self._line = line
        console = Console(stderr=True)
        self._status = console.status("") if moving and console.is_terminal and not console.is_dumb_terminal else None
        self._timer: asyncio.TimerHandle | asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin to show it."""
        if self._status is not None:
            self._status.update(escape(self._describe()))
            self._status.start()
            self._timer = asyncio.create_task(self._move(self._status), name="finevoice-spinner")
        elif self._line is not None:
            self._timer = asyncio.get_running_loop().call_later(SILENCE, say, self._line)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Show it no more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._status is not None:
            self._status.stop()

    async def _move(self, status: Status) -> None:
        while True:
            await asyncio.sleep(_TURN)
            status.update(escape(self._describe()))

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Let lines be printed meanwhile."""
        if self._status is None:
            yield
            return
        self._status.stop()
        try:
            yield
        finally:
            self._status.start()


def accepting(host: str) -> Callable[[], str]:
    """Return what tells that a service has not taken a submission yet, and for how long."""
    began = time.monotonic()

    def describe() -> str:
        waited = time.monotonic() - began
        if waited < SILENCE:
            return "Submitting"
        return f"Submitting; {host} has not accepted it yet, {waited:.0f} s so far"

    return describe


def progress_of(task: SfxTask) -> Callable[[], str]:
    """Return what tells how much longer a task will take, by what was learned."""
    began = time.monotonic()

    def describe() -> str:
        estimate = task.estimate()
        if estimate is None:
            return f"Making the sound, {time.monotonic() - began:.0f} s so far"
        return f"Making the sound, about {max(estimate.median, 1):.0f} s more"

    return describe


class ManyProgress:
    """Counts effects; says a line for each where there is no terminal."""

    def __init__(self, total: int, console: Console) -> None:
        self._console = console
        self._live: Progress | None = None
        if console.is_terminal:
            self._live = Progress(
                SpinnerColumn(),
                TextColumn("Making sound effects"),
                BarColumn(20),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.description}"),
                console=console,
            )
            self._bar = self._live.add_task("", total=total)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, line: str) -> None:
        """Say what one effect came to, on one line."""
        if self._live is not None:
            line = fit(line, self._console.width - 1).rstrip()
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def advance(self, remaining: str) -> None:
        """One more is done; `remaining` says how long the rest may take."""
        if self._live is not None:
            self._live.update(self._bar, advance=1, description=remaining)
