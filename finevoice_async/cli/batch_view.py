"""What is seen of a batch while it runs: a bar on a terminal, a line a sound in a pipe, or JSON."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from finevoice_async.batch import BatchResult, BatchUpdate, ResultKind
from finevoice_async.cli import exits
from finevoice_async.cli.talk import fit, give, give_json, plain, say

_TURN = 1.0  # seconds between two looks at the estimate
_WARM = 5  # sounds after which a rate says something


class BatchView:
    """Hears what becomes of the sounds, and shows it."""

    def __init__(self, total: int, *, as_json: bool, quiet: bool, seconds_left: Callable[[int], float | None]) -> None:
        """Set it up.

        Args:
            total: How many are to be done.
            as_json: Print an object for each event, and nothing else.
            quiet: Show errors only.
            seconds_left: Tells about how long so many more will take.
        """
        self._as_json = as_json
        self._quiet = quiet
        self._seconds_left = seconds_left
        self._began = time.monotonic()
        self._total = total
        # All mutable state:
        self._looked = 0.0
        self._estimate: float | None = None
        self._live: Progress | None = None
        if sys.stdout.isatty() and not (as_json or quiet):
            self._console = Console()
            columns = (BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
            self._live = Progress(*columns, console=self._console)
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

    def hear(self, update: BatchUpdate) -> None:
        """Show what has happened."""
        result = update.result
        if self._as_json:
            give_json(_as_data(update))
        elif self._live is not None:
            self._move(self._live, update)
        elif result is not None and result.kind is ResultKind.SAVED and not self._quiet:
            give(str(result.path))
        if result is not None and not self._as_json:
            self._complain(result)

    def say(self, words: str) -> None:
        """Say something beside the bar."""
        if self._live is not None:
            self._live.console.print(words, markup=False, highlight=False, soft_wrap=True)
        elif not self._as_json:
            say(words)

    def _complain(self, result: BatchResult) -> None:
        name = result.key if result.take == 1 else f"{result.key} (take {result.take})"
        if result.error is not None and result.kind is not ResultKind.NOT_BEGUN:
            self.say(f"{plain(name)}: {exits.words(result.error)}")
        elif result.kind is ResultKind.SAVED and result.note is not None:
            self.say(f"{plain(name)}: {plain(result.note)}")

    def _move(self, live: Progress, update: BatchUpdate) -> None:
        done = update.made + update.failed + update.unknown
        now = time.monotonic()
        if now - self._looked >= _TURN:
            self._looked, self._estimate = now, self._seconds_left(update.left)
        words = [f"{update.made} made"]
        words += [f"{update.failed} failed"] if update.failed else []
        words += [f"{update.unknown} perhaps paid"] if update.unknown else []
        words.append(f"{update.left} left")
        if update.made >= _WARM:
            words.append(f"{60 * update.made / (now - self._began):.0f}/min")
        if self._estimate is not None and update.left:
            words.append(f"about {max(self._estimate, 1):.0f} s")
        room = max(live.console.width - 40, 10)
        self._total = max(self._total, done + update.left)  # further takes of silent ones
        live.update(self._bar, completed=done, total=self._total, description=fit(", ".join(words), room).rstrip())


def _as_data(update: BatchUpdate) -> dict[str, Any]:
    result = update.result
    event = "submitted" if result is None else result.kind.name.lower()
    data: dict[str, Any] = {"event": event, "key": update.key, "take": update.take, "task_id": update.task_id}
    if result is not None:
        error = result.error
        data |= {
            "path": None if result.path is None else str(result.path),
            "sha256": None if result.record is None else result.record.sha256,
            "seconds": None if result.record is None else result.record.seconds,
            "error": None if error is None else type(error).__name__,
            "message": None if error is None else exits.words(error),
            "note": result.note,
        }
    counts = {"made": update.made, "failed": update.failed, "perhaps_paid": update.unknown, "left": update.left}
    return data | counts | {"paid": update.paid}
