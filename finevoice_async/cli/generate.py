"""`finevoice generate` and `finevoice fetch`: one effect, from a prompt or a task id to a file."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from typing import Any

import attrs

from finevoice_async import (
    ConfigurationError,
    JournalError,
    JournalRow,
    SfxRequest,
    SfxTask,
    SubmitUnknownError,
    TaskNotFoundError,
)
from finevoice_async.adapters.journal_reader import read_journal
from finevoice_async.cli import exits
from finevoice_async.cli.place import STDOUT, Place
from finevoice_async.cli.posting import Interruption, Posting, look_at
from finevoice_async.cli.progress import progress_of, waiting
from finevoice_async.cli.service import connected
from finevoice_async.cli.talk import command, give, give_json, say, this_command
from finevoice_async.core.ledger import EffectState, check_key
from finevoice_async.core.tasks import check_task_id


@attrs.frozen(kw_only=True)
class Wish:
    """What the command line asks for.

    Attributes:
        fields: The request's.
        place: Where the result goes.
        key: The caller's own name for the effect.
        retry_failed: If the key's effect failed, pay for another try.
        journal: The journal's file.
        base_url: The service's address.
        given_url: The same, if it was typed and does not come from the environment.
        emulator: Use an embedded emulator.
        as_json: Print JSON.
    """

    fields: dict[str, Any] = attrs.field(factory=dict)
    place: Place
    key: str | None = None
    retry_failed: bool = False
    journal: Path | None = None
    base_url: str | None = None
    given_url: str | None = None
    emulator: bool = False
    as_json: bool = False

    def fetch(self, task_id: str) -> str:
        """Return the command line that fetches a task's result to the same place."""
        overwrite = "--overwrite" if self.place.overwrite else None
        options = {"output": self.place.given, "journal": self.journal, "base_url": self.given_url}
        json = "--json" if self.as_json else None
        return command("fetch", task_id, overwrite, json, **options)

    def get(self, task_id: str | None, link: str | None) -> str | None:
        """Return the command line that gets a result that was paid for; without a task there is its link only."""
        if task_id is not None:
            return self.fetch(task_id)
        if link is None:
            return None
        if self.journal is not None:
            return command("resume", str(self.journal), base_url=self.given_url)
        return shlex.join(["curl", "--location", "--remote-name", link])

    def interrupted(self, posting: Posting | None, task_id: str | None = None, link: str | None = None) -> None:
        """Tell what an interruption leaves open."""
        task = None if posting is None else posting.task
        known = task_id if task is None else task.id
        in_doubt = posting is not None and posting.is_in_doubt
        advice, again = "Begin again with:", this_command()
        if not self.emulator and (got := self.get(known, link)) is not None:
            advice, again = "Go on with:", got
        elif in_doubt and not self.emulator and self.journal is None:
            advice, again = "If you find its task there, go on with:", self.fetch("TASK_ID")
        elif in_doubt and not self.emulator:
            advice, again = "Its row is kept. See it, and settle it, with:", look_at(self.journal)
        running = [known] if known is not None else [] if link is None else ["a result without a task id"]
        told = Interruption(emulated=self.emulator, running=running, in_doubt=int(in_doubt), advice=advice, again=again)
        told.tell(as_json=self.as_json)


def _check(wish: Wish) -> None:
    """Check what can be checked before anything is opened.

    Raises:
        ConfigurationError: The options do not go together.
        OutputError: There is no place for the result.
    """
    if wish.as_json and wish.place.is_stdout:
        raise ConfigurationError(f"--json and -o {STDOUT} both want standard output. Nothing was sent.")
    wish.place.prepare()


async def generate_one(wish: Wish) -> int:
    """Make and save one effect."""
    request = SfxRequest(**wish.fields)
    if check_key(wish.key) is not None and wish.journal is None:
        raise ConfigurationError("--key needs --journal FILE: keys are kept there. Nothing was sent.")
    if (row := _saved_before(wish, request)) is not None and (path := wish.place.holds(row)) is not None:
        say(f"{path.name} is there already, from an earlier run with this key. Nothing was sent.")
        _give(wish, path, row.task_id, row.urls)
        return 0
    _check(wish)
    posting: Posting | None = None
    links: list[str] = []
    try:
        async with connected(emulator=wish.emulator, base_url=wish.base_url, journal=wish.journal) as session:
            posting = Posting(session, session.submit(request, key=wish.key, retry_failed=wish.retry_failed))
            try:
                async with _shown(wish, lambda: "Submitting"):
                    task = await posting.known()
                if not wish.as_json and task.id is not None:
                    found = not session.stats.submitted
                    say(f"{'Found by its key, not paid again' if found else 'Submitted'}: {task.id}")
                await _finish(wish, task, links)
            except asyncio.CancelledError:
                await posting.close()
                raise
    except asyncio.CancelledError:
        wish.interrupted(posting, link=next(iter(links), None))
        raise
    except (SubmitUnknownError, TaskNotFoundError) as error:
        if wish.journal is not None:
            error.add_note(exits.GO_ON + look_at(wish.journal))
        raise
    return 0


def _saved_before(wish: Wish, request: SfxRequest) -> JournalRow | None:
    """Return the row of an effect that an earlier run has saved under this key."""
    if wish.key is None or wish.journal is None or not wish.journal.is_file():
        return None
    try:
        with read_journal(wish.journal) as journal:
            row = journal.row(key=wish.key)
    except JournalError:
        return None  # whoever opens it will say what is wrong, or bring it up to date
    return row if row is not None and row.state is EffectState.SAVED and row.request == request else None


async def fetch(wish: Wish, task_id: str) -> int:
    """Wait for a task of another run, and save its result."""
    check_task_id(task_id)
    _check(wish)
    try:
        async with connected(base_url=wish.base_url, journal=wish.journal) as session:
            await _finish(wish, await session.attach(task_id), [])
    except asyncio.CancelledError:
        wish.interrupted(None, task_id)
        raise
    return 0


async def _finish(wish: Wish, task: SfxTask, links: list[str]) -> None:
    """Wait for a task, note where its result lies, fetch it, and tell where it is.

    Raises:
        FineVoiceError: As for `SfxTask.wait` and `SoundEffect.save`; with the command to go on with.
    """
    try:
        async with _shown(wish, progress_of(task)):
            effect = await task
        links += effect.urls
        async with _shown(wish, lambda: "Fetching the result"):
            path = await wish.place.put(effect)
    except exits.WAIT_ON as error:
        again = wish.get(task.id, next(iter(links), None))
        if again is not None and not wish.emulator:
            error.add_note(exits.GO_ON + again)
        raise
    _give(wish, path, effect.task_id, effect.urls)


def _shown(wish: Wish, describe: Callable[[], str]) -> AbstractAsyncContextManager[None]:
    """Show what is waited for, unless a program reads."""
    return nullcontext() if wish.as_json or wish.place.is_stdout else waiting(describe)


def _give(wish: Wish, path: Path | None, task_id: str | None, urls: tuple[str, ...]) -> None:
    if path is None:
        return  # the audio itself was the result
    if wish.as_json:
        give_json({"task_id": task_id, "key": wish.key, "path": str(path), "urls": list(urls)})
    else:
        give(str(path))
