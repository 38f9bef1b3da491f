"""`finevoice worker`: takes jobs from a fleet's queue, makes their effects, and saves them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from finevoice_async import FineVoiceError, Fleet, Retry, SubmitUnknownError, TaskNotFoundError
from finevoice_async.cli import exits
from finevoice_async.cli.place import Place
from finevoice_async.cli.service import connected
from finevoice_async.cli.signals import heard
from finevoice_async.cli.stopping import Stopping
from finevoice_async.cli.talk import give, give_json, plain, say
from finevoice_async.queue import check_url

if TYPE_CHECKING:
    from finevoice_async.worker import JobUpdate

_CLOSE = 2.0  # seconds for the POSTs under way when somebody presses Ctrl-C twice


@attrs.frozen(kw_only=True)
class WorkerJob:
    """What the command line asks for.

    Attributes:
        url: The database.
        out: The folder.
        concurrency: How many jobs are in hand at once.
        max_concurrency: Slots of the plan.
        base_url: The service's address.
        as_json: Print JSON.
        quiet: Print errors only.
        fleet: How it lives in the fleet.
    """

    url: str
    out: Path
    concurrency: int = 20
    max_concurrency: int = 5
    base_url: str | None = None
    as_json: bool = False
    quiet: bool = False
    fleet: Fleet = attrs.field(factory=Fleet)


async def work(job: WorkerJob) -> int:
    """Take jobs until told to stop."""
    check_url(job.url)
    from finevoice_async.adapters.job_queue import check
    from finevoice_async.worker import Worker  # with procrastinate

    Place(f"{job.out}/", overwrite=True).prepare(noted=True)
    await check(job.url)
    view = _View(job)
    stopping = Stopping(view.say_stopping)
    worker: Worker | None = None
    try:
        with heard(stopping.on), _told_of_database(view):
            async with connected(
                base_url=job.base_url,
                journal=job.url,
                fleet=job.fleet,
                retry=Retry(),  # nobody sits at a prompt
                max_concurrency=job.max_concurrency,
            ) as session:
                worker = Worker(
                    job.url,
                    session,
                    job.out,
                    concurrency=job.concurrency,
                    told=view.hear,
                    fleet=job.fleet,
                )
                view.say_ready()
                try:
                    await stopping.run(worker.run(stopping.asked))
                except asyncio.CancelledError:
                    view.running = len(session.tasks)
                    await session.aclose(timeout=_CLOSE)
                    raise
    except asyncio.CancelledError:
        view.tell()
        return stopping.code
    view.tell(worker.stopped_by)
    if worker.stopped_by is not None:
        return exits.exit_code(worker.stopped_by)
    return stopping.code if view.given_back else 0


@contextlib.contextmanager
def _told_of_database(view: _View) -> Iterator[None]:
    """Let the view hear that the database goes away and comes back."""
    from finevoice_async.adapters.postgres.contact import AWAY, LOGGER  # with psycopg

    logger, ears = logging.getLogger(LOGGER), _Ears(lambda words: view.say_database(is_away=words == AWAY))
    level, propagate = logger.level, logger.propagate
    if not logger.isEnabledFor(logging.WARNING):  # else --debug shows what is logged, too
        logger.setLevel(logging.WARNING)
        logger.propagate = False
    logger.addHandler(ears)
    try:
        yield
    finally:
        logger.removeHandler(ears)
        logger.setLevel(level)
        logger.propagate = propagate


class _Ears(logging.Handler):
    """Passes on what is logged, without what fills it."""

    def __init__(self, told: Callable[[str], None]) -> None:
        super().__init__()
        self._told = told

    def emit(self, record: logging.LogRecord) -> None:
        self._told(record.msg)


class _View:
    """Hears what becomes of the jobs, and shows it."""

    def __init__(self, job: WorkerJob) -> None:
        self._as_json = job.as_json
        self._quiet = job.quiet
        # All mutable state:
        self._saved = 0
        self._failed = 0
        self._perhaps_paid = 0
        self.given_back = 0
        self.running = 0  # tasks that run on without it

    def hear(self, update: JobUpdate) -> None:
        """Show what became of a job."""
        error = update.error
        if error is None:
            event, self._saved = "saved", self._saved + 1
        elif update.again_in is not None:
            event, self.given_back = "given_back", self.given_back + 1
        elif isinstance(error, SubmitUnknownError | TaskNotFoundError):
            event, self._perhaps_paid = "perhaps_paid", self._perhaps_paid + 1
        else:
            event, self._failed = "failed", self._failed + 1
        if self._as_json:
            give_json(
                {
                    "event": event,
                    "key": update.key,
                    "task_id": update.task_id,
                    "path": None if update.path is None else str(update.path),
                    "error": None if error is None else type(error).__name__,
                    "message": None if error is None else _words(error),
                    "again_in": update.again_in,
                }
            )
        elif error is None:
            if not self._quiet:
                give(str(update.path))
        elif not isinstance(error, asyncio.CancelledError):
            again = "" if update.again_in is None else f" It is tried again in {update.again_in:.0f} s."
            say(f"{plain(update.key)}: {_words(error)}{again}")

    def say_ready(self) -> None:
        """Say that it waits for jobs."""
        if not self._as_json and not self._quiet:
            say("Waiting for jobs. Ctrl-C ends it: what runs is finished first.")

    def say_database(self, *, is_away: bool) -> None:
        """Say that the database went away, or came back; also when quiet: somebody has to look after it."""
        if self._as_json:
            give_json({"event": "database_away" if is_away else "database_back"})
        else:
            say("The database is away; nothing is sent until it is back." if is_away else "It is back.")

    def say_stopping(self) -> None:
        """Say that it was told to stop."""
        if self._as_json:
            give_json({"event": "stopping"})
        else:
            say("Stopping: no more jobs are taken, what runs is finished and saved. Ctrl-C again ends at once.")

    def tell(self, error: FineVoiceError | None = None) -> None:
        """Say what came of it all.

        Args:
            error: What made it end by itself.
        """
        if self._as_json:
            give_json(
                {
                    "event": "end",
                    "saved": self._saved,
                    "failed": self._failed,
                    "perhaps_paid": self._perhaps_paid,
                    "given_back": self.given_back,
                    "running": self.running,
                    "stopped_by": None if error is None else type(error).__name__,
                    "message": None if error is None else _words(error),
                }
            )
            return
        if error is not None:
            say("finevoice: No more jobs are taken: every one would meet that error. They stay in the queue.")
        counts = (
            (self._saved, "saved"),
            (self._failed, "failed"),
            (self._perhaps_paid, "perhaps paid"),
            (self.given_back, "given back to the queue"),
        )
        if not self._quiet:
            words = ", ".join(f"{number} {what}" for number, what in counts if number) or "no job was taken"
            say(f"{words[:1].upper()}{words[1:]}.")
        if self.running:
            runs = "1 task is paid for and runs" if self.running == 1 else f"{self.running} tasks are paid for and run"
            say(f"{runs} on. Whoever takes the jobs next fetches what comes of it.")


def _words(error: BaseException) -> str:
    """Return what went wrong. The own words of an error that nobody foresaw are left out: they may hold a secret."""
    if isinstance(error, asyncio.CancelledError):
        return "The worker ended."
    if isinstance(error, FineVoiceError | OSError):
        return exits.words(error)
    return f"An unexpected error ({type(error).__name__}), which is a fault of this program; --debug shows more."
