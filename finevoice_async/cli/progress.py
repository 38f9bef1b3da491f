"""What a person sees while effects are made: a live display on a terminal, or plain lines."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from finevoice_async import SfxTask
from finevoice_async.cli.talk import fit

_TURN = 0.5  # seconds between two looks at the estimate


@contextlib.asynccontextmanager
async def waiting(describe: Callable[[], str]) -> AsyncIterator[None]:
    """Show, on a terminal only, what is waited for, in words that may change."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(describe()) as status:

        async def look() -> None:
            while True:
                await asyncio.sleep(_TURN)
                status.update(describe())

        looking = asyncio.create_task(look(), name="finevoice-spinner")
        try:
            yield
        finally:
            looking.cancel()


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
