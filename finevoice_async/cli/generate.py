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
    FineVoiceError,
    FineVoiceSession,
    JournalError,
    JournalRow,
    SfxRequest,
    SfxTask,
    SubmitUnknownError,
    TaskNotFoundError,
    TaskStatus,
)
from finevoice_async.cli import exits
from finevoice_async.cli.kept import JournalPlace, reading
from finevoice_async.cli.place import STDOUT, Place
from finevoice_async.cli.posting import Interruption, Posting, look_at
from finevoice_async.cli.progress import Waiting, accepting, progress_of
from finevoice_async.cli.search import Search
from finevoice_async.cli.service import connected, host_of
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
        journal: Where the journal is.
        base_url: The service's address.
        given_url: The same, if it was typed and does not come from the environment.
        emulator: Use an embedded emulator.
        as_json: Print JSON.
    """

    fields: dict[str, Any] = attrs.field(factory=dict)
    place: Place
    key: str | None = None
    retry_failed: bool = False
    journal: JournalPlace | None = None
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

    def interrupted(self, posting: Posting | None, link: str | None) -> None:
        """Tell what an interruption of a submission leaves open."""
        task = None if posting is None else posting.task
        known = None if task is None else task.id
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

    def check(self) -> None:
        """Check what can be checked before anything is opened.

        Raises:
            ConfigurationError: The options do not go together, or there is no place for the result.
        """
        if self.emulator and isinstance(self.journal, str):
            raise ConfigurationError("--journal URL does not go with --emulator. Nothing was sent.")
        if self.as_json and self.place.is_stdout:
            raise ConfigurationError(f"--json and -o {STDOUT} both want standard output. Nothing was sent.")
        if self.emulator and self.given_url is not None:
            raise ConfigurationError("--emulator and --base-url name two services. Give one of them. Nothing was sent.")
        self.place.prepare(self.fields.get("prompt"), noted=self.journal is not None)

    def shown(self, describe: Callable[[], str], line: str | None = None) -> AbstractAsyncContextManager[object]:
        """Show what is waited for, unless a program reads; beside audio on its way, something that moves would not do.

        Args:
            describe: Says it, in words that may change.
            line: The one line to say away from a terminal, if it takes long.
        """
        return nullcontext() if self.as_json else Waiting(describe, line=line, moving=not self.place.is_stdout)


def _check_key(wish: Wish) -> None:
    """Check what goes with a key.

    Raises:
        ConfigurationError: Something is missing.
        InvalidRequestError: It can be no key.
    """
    if check_key(wish.key) is not None and wish.journal is None:
        raise ConfigurationError("--key needs --journal FILE: keys are kept there. Nothing was sent.")
    if wish.retry_failed and wish.key is None:
        raise ConfigurationError(
            "--retry-failed needs --key NAME, the name of the effect that failed before. Nothing was sent."
        )


async def generate_one(wish: Wish) -> int:
    """Make and save one effect."""
    request = SfxRequest(**wish.fields)
    _check_key(wish)
    if (row := await _saved_before(wish, request)) is not None and (path := wish.place.holds(row)) is not None:
        say(f"{path.name} is there already, from an earlier run with this key. Nothing was sent.")
        _give(wish, path, row.task_id, row.urls)
        return 0
    wish.check()
    posting: Posting | None = None
    links: list[str] = []
    host = "the emulator" if wish.emulator else host_of(wish.base_url)
    try:
        async with connected(emulator=wish.emulator, base_url=wish.base_url, journal=wish.journal) as session:
            posting = Posting(session, session.submit(request, key=wish.key, retry_failed=wish.retry_failed))
            try:
                async with wish.shown(accepting(host), f"Waiting for {host}, which has not accepted it yet."):
                    task = await posting.known()
                if not wish.as_json and task.id is not None:
                    found = not session.stats.submitted
                    say(f"{'Found by its key, not paid again' if found else 'Submitted'}: {task.id}")
                await _finish(wish, task, links)
            except asyncio.CancelledError:
                await posting.close()
                raise
    except asyncio.CancelledError:
        wish.interrupted(posting, next(iter(links), None))
        raise
    except FineVoiceError as error:
        if wish.emulator:
            error.paid = False
        if isinstance(error, SubmitUnknownError | TaskNotFoundError) and wish.journal is not None:
            error.add_note(exits.GO_ON + look_at(wish.journal))
        raise
    return 0


async def _saved_before(wish: Wish, request: SfxRequest) -> JournalRow | None:
    """Return the row of an effect that an earlier run has saved under this key."""
    if wish.key is None or wish.journal is None or (isinstance(wish.journal, Path) and not wish.journal.is_file()):
        return None
    try:
        async with reading(wish.journal) as journal:
            row = await journal.row(key=wish.key)
    except JournalError:
        return None  # whoever opens it will say what is wrong, or bring it up to date
    return row if row is not None and row.state is EffectState.SAVED and row.request == request else None


async def fetch(wish: Wish, task_id: str) -> int:
    """Wait for a task of another run, and save its result."""
    check_task_id(task_id)
    wish.check()
    search = Search(task_id, host_of(wish.base_url))
    try:
        async with connected(base_url=wish.base_url, journal=wish.journal) as session:
            await _fetch(wish, session, search)
    except asyncio.CancelledError:
        found = [task_id] if search.found else []
        asked_for = None if search.found else task_id
        again = wish.fetch(task_id)
        told = Interruption(emulated=False, running=found, asked_for=asked_for, advice="Go on with:", again=again)
        told.tell(as_json=wish.as_json)
        raise
    except FineVoiceError as error:
        if error.paid and not search.found:
            error.paid = None
        raise
    return 0


async def _fetch(wish: Wish, session: FineVoiceSession, search: Search) -> None:
    try:
        async with wish.shown(search.describe, f"Waiting for {search.host} to say what it knows of this task."):
            await search.run(session)
    except exits.WAIT_ON as error:
        error.add_note(exits.GO_ON + wish.fetch(search.task_id))
        raise
    task = await session.attach(search.task_id)
    if search.status not in (None, TaskStatus.COMPLETED, TaskStatus.FAILED) and not wish.as_json:
        say(f"Waiting for the end of task {search.task_id}")
    await _finish(wish, task, [])


async def _finish(wish: Wish, task: SfxTask, links: list[str]) -> None:
    """Wait for a task, note where its result lies, fetch it, and tell where it is.

    Raises:
        FineVoiceError: As for `SfxTask.wait` and `SoundEffect.save`; with the command to go on with.
    """
    try:
        async with wish.shown(progress_of(task)):
            effect = await task
        links += effect.urls
        async with wish.shown(lambda: "Fetching the result", "Fetching the result."):
            path = await wish.place.put(effect)
    except exits.WAIT_ON as error:
        _add_way_on(error, wish, task, links)
        raise
    except FineVoiceError:
        raise  # it has come to its end
    except Exception as error:
        _add_way_on(error, wish, task, links)  # a fault of this program: what was paid for is there all the same
        raise
    _give(wish, path, effect.task_id, effect.urls)


def _add_way_on(error: Exception, wish: Wish, task: SfxTask, links: list[str]) -> None:
    """Give an error the command line that gets the result."""
    again = wish.get(task.id, next(iter(links), None))
    if again is not None and not wish.emulator:
        error.add_note(exits.GO_ON + again)


def _give(wish: Wish, path: Path | None, task_id: str | None, urls: tuple[str, ...]) -> None:
    if path is None:
        return  # the audio itself was the result
    if wish.as_json:
        give_json({"task_id": task_id, "key": wish.key, "path": str(path), "urls": list(urls)})
    else:
        give(str(path))
