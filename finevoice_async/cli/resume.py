"""`finevoice resume`: picking up what an interrupted run left in its journal."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

import attrs

from finevoice_async import EffectState, Outcome, SubmitUnknownError, TaskNotFoundError
from finevoice_async.cli import exits
from finevoice_async.cli.kept import JournalPlace, check_exists, reading
from finevoice_async.cli.place import Place
from finevoice_async.cli.posting import Interruption
from finevoice_async.cli.progress import Waiting
from finevoice_async.cli.service import connected, host_of
from finevoice_async.cli.talk import command, give, give_json, say, say_at_length

MAX_ROWS = 100_000  # that may be paid for


@attrs.define
class _Counts:
    saved: int = 0
    failed: int = 0
    not_saved: int = 0
    unknown: int = 0

    @property
    def code(self) -> int:
        if self.unknown:
            return exits.UNKNOWN
        if self.not_saved:
            return exits.NOT_SAVED
        return exits.NOT_DONE if self.failed else 0

    def __str__(self) -> str:
        counts = f"{self.saved} saved, {self.failed} failed, {self.unknown} unknown"
        return f"{counts}, {self.not_saved} not saved" if self.not_saved else counts


async def resume(
    journal: JournalPlace, folder: Path, *, base_url: str | None, given_url: str | None, as_json: bool
) -> int:
    """Pick up what a journal left behind, and save every result; one that cannot be saved holds up no other."""
    check_exists(journal)
    place = Place(f"{folder}/", overwrite=True)
    place.prepare(noted=True)
    counts = _Counts()
    began = datetime.now(UTC)
    running: list[str] = []
    host = host_of(base_url)
    shown = Waiting(lambda: f"Waiting for {host}; {counts}", line=f"Waiting for {host}.")
    try:
        async with connected(base_url=base_url, journal=journal) as session:
            try:
                async with nullcontext() if as_json else shown:
                    async for outcome in session.recover(save_to=folder):
                        with shown.paused():
                            _take(outcome, counts, as_json=as_json)
            except asyncio.CancelledError:
                await session.aclose()  # settles the POSTs under way, so that their ids are known, too
                running = [str(task.id) for task in session.tasks]
                raise
    except asyncio.CancelledError:
        again = command("resume", str(journal), "--json" if as_json else None, out=folder, base_url=given_url)
        in_doubt = await _in_doubt_since(journal, began)
        told = Interruption(emulated=False, running=running, in_doubt=in_doubt, advice="Go on with:", again=again)
        told.tell(as_json=as_json)
        raise
    if as_json:
        give_json(attrs.asdict(counts))
    else:
        say(str(counts))
    return counts.code


async def _in_doubt_since(place: JournalPlace, moment: datetime) -> int:
    """Return how many submissions since then may be paid for, by the journal."""
    async with reading(place) as journal:
        rows = await journal.rows(EffectState.SENDING, EffectState.UNKNOWN, limit=MAX_ROWS)
    return sum(row.updated_at >= moment for row in rows)


def _take(outcome: Outcome, counts: _Counts, *, as_json: bool) -> None:
    """Say where an effect is saved, or why it is not."""
    path, error = outcome.path, outcome.error
    if error is None:
        counts.saved += 1
    elif outcome.effect is not None:
        counts.not_saved += 1
    elif isinstance(error, SubmitUnknownError | TaskNotFoundError):
        counts.unknown += 1
    else:
        counts.failed += 1
    if as_json:
        words = None if error is None else exits.words(error)
        kind = None if error is None else type(error).__name__
        give_json(
            {
                "key": outcome.key,
                "task_id": outcome.task_id,
                "path": None if path is None else str(path),
                "error": kind,
                "message": words,
            }
        )
    elif error is not None:
        say_at_length(f"finevoice: {exits.words(error)}")
    else:
        give(str(path))
