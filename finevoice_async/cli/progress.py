"""What a person sees while many effects are made: a live display, or plain lines."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


class ManyProgress:
    """Counts effects; says a line for each where there is no terminal."""

    def __init__(self, total: int, console: Console) -> None:
        self._console = console
        self._live: Progress | None = None
        if console.is_terminal:
            self._live = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=console,
            )
            self._bar = self._live.add_task("Making sound effects", total=total)

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
        """Say what one effect came to."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def advance(self, remaining: str) -> None:
        """One more is done; `remaining` says how long the rest may take."""
        if self._live is not None:
            self._live.update(self._bar, advance=1, description=f"Making sound effects {remaining}".rstrip())
