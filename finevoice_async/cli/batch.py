"""`finevoice batch`: a manifest becomes a folder of sounds; run again after anything, it does what is left."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import attrs

from finevoice_async import (
    BudgetExceededError,
    ConfigurationError,
    FineVoiceSession,
    JournalError,
    JournalRow,
    ManifestError,
    Polling,
    Retry,
    TaskFailedError,
)
from finevoice_async.batch import (
    BatchOptions,
    BatchReport,
    Manifest,
    Plan,
    PlanEntry,
    PlanState,
    read_manifest,
    run_batch,
)
from finevoice_async.batch.run import select, settle
from finevoice_async.batch.survey import JOURNAL_NAME, Hashes, Survey
from finevoice_async.cli import exits
from finevoice_async.cli.batch_journal import BatchJournal
from finevoice_async.cli.batch_view import BatchView
from finevoice_async.cli.fleet import check_url
from finevoice_async.cli.memory import Memory
from finevoice_async.cli.plan import cost_words, preview, seconds_for, tell_faults, tell_plan
from finevoice_async.cli.posting import Interruption, look_at
from finevoice_async.cli.runs import Purse, RunMark, in_doubt_since
from finevoice_async.cli.service import connected
from finevoice_async.cli.signals import heard
from finevoice_async.cli.stopping import Stopping
from finevoice_async.cli.talk import count, give_json, listed, plain, say, this_command
from finevoice_async.core.polling.schedule import make_schedule

_CLOSE = 2.0  # seconds for the POSTs under way when somebody presses Ctrl-C twice


@attrs.frozen(kw_only=True)
class Job:
    """What the command line asks for.

    Attributes:
        manifest: The manifest's file, `-` for standard input.
        out: The folder.
        options: What the run may do.
        purse: What it may pay.
        concurrency: Slots of the plan.
        journal: Keep one.
        database: Keep it in this database of a fleet, not in the folder.
        frozen: Fail rather than pay.
        yes: Do not ask.
        dry_run: Send nothing.
        emulator: Use an embedded emulator.
        base_url: The service's address.
        as_json: Print JSON.
        quiet: Print errors only.
    """

    manifest: str
    out: Path
    options: BatchOptions
    purse: Purse
    concurrency: int
    journal: bool = True
    database: str | None = None
    frozen: bool = False
    yes: bool = False
    dry_run: bool = False
    emulator: bool = False
    base_url: str | None = None
    as_json: bool = False
    quiet: bool = False

    @property
    def kept_in(self) -> BatchJournal:
        """Where the journal is."""
        if not self.journal:
            return BatchJournal(None)
        return BatchJournal(self.database or self.out / JOURNAL_NAME)


async def batch(job: Job) -> int:
    """Do it."""
    if job.purse.budget is not None and job.purse.price is None:
        raise ConfigurationError(
            "--budget needs --price-per-effect: the service publishes no prices, your account shows yours. Nothing was "
            "sent."
        )
    if job.database is not None:
        check_url(job.database)
        if job.emulator or not job.journal:
            other = "--emulator" if job.emulator else "--no-journal"
            raise ConfigurationError(f"--journal does not go with {other}. Nothing was sent.")
    if job.options.finish is not None:
        job.options.finish.check()
    try:
        return await _Batch(job).run()
    except ManifestError as error:
        return tell_faults(error, as_json=job.as_json)


class _Batch:
    """One run of the command."""

    def __init__(self, job: Job) -> None:
        if job.frozen:  # whatever comes of what is fetched, nothing is paid for
            job = attrs.evolve(job, options=attrs.evolve(job.options, limit=0, reroll_silent=0))
        self._job = job
        self._hashes = Hashes()
        self._polling = Memory(job.base_url, emulator=job.emulator).polling()

    async def run(self) -> int:
        """Plan, ask, make, and say what came of it.

        Raises:
            ManifestError: There are faults. Nothing was sent.
            FineVoiceError: It could not begin.
        """
        job = self._job
        manifest = await anyio.to_thread.run_sync(lambda: read_manifest(job.manifest, out=job.out))
        rows = await job.kept_in.rows() if job.kept_in.is_shared else None
        survey, plan = await anyio.to_thread.run_sync(self._preview, manifest, rows)
        make, fetch = select(plan, job.options if not job.frozen else attrs.evolve(job.options, limit=None))
        if job.dry_run:
            tell_plan(plan, make, manifest, purse=job.purse, seconds=self._seconds(make), as_json=job.as_json)
            return 0
        changed: list[PlanEntry] = []
        if not job.options.remake:
            others, _ = select(plan, attrs.evolve(job.options, remake=True, limit=None))
            changed = [entry for entry in others if entry.state is PlanState.CHANGED]
        if job.frozen and (make or changed):
            return self._refuse_to_pay(make, changed)
        mark = RunMark(job.out)
        began = mark.began()
        spent = 0 if began is None else await job.kept_in.spent_since(began)
        if not job.emulator and make and not await self._may_go_on(make, spent):
            return exits.NOT_DONE
        if make or fetch:
            report, code = await self._make(manifest, len(make) + len(fetch), spent, mark)
        else:
            report, code = await settle(survey, plan, job.options), 0
        if report is None:
            return code
        self._tell(report, bool(changed))
        return code or report.exit_code

    def _preview(self, manifest: Manifest, rows: list[JournalRow] | None) -> tuple[Survey, Plan]:
        look = partial(
            preview,
            manifest,
            self._job.out,
            hashes=self._hashes,
            want_silent=self._job.options.reroll_silent,
            rows=rows,
            emulated=self._job.options.emulated,
        )
        try:
            return look(self._job.kept_in.file)
        except JournalError:
            if self._job.frozen or self._job.dry_run:
                raise
            return look(None)  # opening it will tell

    def _seconds(self, entries: list[PlanEntry]) -> float | None:
        return seconds_for(make_schedule(self._polling), entries, self._job.concurrency)

    def _refuse_to_pay(self, make: list[PlanEntry], changed: list[PlanEntry]) -> int:
        keys = sorted({entry.key for entry in [*make, *changed]})
        if self._job.as_json:
            give_json({"event": "frozen", "submissions": len(make), "changed": len(changed), "keys": keys})
        else:
            what = [f"{count(len(make), 'sound')} would be paid for"] if make else []
            what += [f"{count(len(changed), 'sound')} changed"] if changed else []
            say(f"finevoice: frozen, but {' and '.join(what)}. Nothing was sent.", *listed(keys))
        return exits.FROZEN

    # Paying

    async def _may_go_on(self, make: list[PlanEntry], spent: int) -> bool:
        """Ask before the first payment, on a terminal."""
        job = self._job
        if job.yes or job.as_json or not (sys.stdin.isatty() and sys.stderr.isatty()):
            return True
        most = job.purse.most
        number = len(make) if most is None else max(min(len(make), most - spent), 0)
        if not number:
            return True
        say(cost_words(number, job.purse, self._seconds(make[:number])))
        print("Go on? [y/N] ", end="", file=sys.stderr, flush=True)
        answer = await _read_line()
        if answer.strip().lower() in ("y", "yes"):
            return True
        say("Nothing was sent.")
        return False

    async def _make(self, manifest: Manifest, total: int, spent: int, mark: RunMark) -> tuple[BatchReport | None, int]:
        """Make what is to be made; return what came of it, and a code if it was stopped."""
        job = self._job
        options = job.options
        is_spent = job.purse.most is not None and job.purse.most <= spent
        if is_spent:
            options = attrs.evolve(options, limit=0, reroll_silent=0)
        began = mark.begin()
        session: FineVoiceSession | None = None
        stopping = Stopping(self._say_stopping)
        job.out.mkdir(parents=True, exist_ok=True)
        running: list[str] = []
        try:
            with heard(stopping.on):
                async with connected(
                    emulator=job.emulator,
                    base_url=job.base_url,
                    journal=job.kept_in.place,
                    retry=Retry(),  # a batch has the patience that a person at a prompt has not
                    max_concurrency=job.concurrency,
                    budget=None if is_spent else job.purse.left(spent),
                ) as session:
                    with BatchView(
                        total, as_json=job.as_json, quiet=job.quiet, seconds_left=self._estimate(session)
                    ) as view:
                        work = run_batch(
                            session,
                            manifest,
                            job.out,
                            on_update=view.hear,
                            stop=stopping.asked,
                            options=options,
                            hashes=self._hashes,
                        )
                        try:
                            report = await stopping.run(work)
                        except asyncio.CancelledError:
                            await session.aclose(timeout=_CLOSE)
                            running = [str(task.id) for task in session.tasks if task.id is not None]
                            raise
        except asyncio.CancelledError:
            await self._tell_what_runs(running, began)
            return None, stopping.code
        if is_spent and report.not_begun:
            report.stopped_by = BudgetExceededError(
                f"The budget of {count(job.purse.most or 0, 'submission')} was spent before this run was cut off. "
                "Nothing more was sent; the next run has a budget of its own."
            )
        if stopping.asked.is_set() and (report.not_begun or report.failed):
            return report, stopping.code
        mark.end()
        return report, 0

    def _estimate(self, session: FineVoiceSession) -> Callable[[int], float | None]:
        """Return what tells how long so many more sounds take, by what the session has learned."""
        slots = self._job.concurrency

        def look(left: int) -> float | None:
            one = make_schedule(Polling(state=session.polling_state())).estimate(0.0)
            return None if one is None else one.median * max(left / slots, 1)

        return look

    # Words

    def _say_stopping(self) -> None:
        if self._job.as_json:
            give_json({"event": "stopping"})
        else:
            say("Stopping: nothing more is submitted, what runs is finished and saved. Ctrl-C again ends at once.")

    async def _tell_what_runs(self, running: list[str], began: datetime) -> None:
        """Say what is open when a run is ended at once."""
        in_doubt = in_doubt_since(await self._job.kept_in.rows(), began)
        told = Interruption(
            emulated=self._job.emulator,
            running=running,
            in_doubt=in_doubt,
            advice="Go on with:",
            again=this_command(),
        )
        told.tell(as_json=self._job.as_json)

    def _tell(self, report: BatchReport, has_changed: bool) -> None:
        """Say what came of it all, and what to type next."""
        job = self._job
        if job.as_json:
            give_json(_summary(report, job.purse))
            return
        if report.stopped_by is not None:
            say(f"finevoice: {exits.words(report.stopped_by)}")
        if report.lock_error is not None:
            say(f"finevoice: {exits.words(report.lock_error)}")
        for record, error in report.unfinished:
            say(f"{plain(record.key)}: {exits.words(error)}")
        for result in report.existing:
            if result.note is not None:
                say(f"{plain(result.key)}: {plain(str(result.path))}: {result.note}")
        if not job.quiet:
            say(_counted(report, job.purse))
        if report.unknown:
            keys = [f"{result.key}, take {result.take}" for result in report.unknown]
            say("Perhaps paid, and never sent again by itself; look at your account:", *listed(map(plain, keys)))
            if job.kept_in.is_shared:
                say("Settle them with adopt, discard or resubmit of a session; its unknown() gives them.")
            elif job.kept_in.file is not None:
                say(f"Settle them with: {look_at(job.kept_in.file)}")
        if job.quiet:
            return
        if has_changed:
            say("What changed is paid for with --remake: as new takes, beside what is there.")
        if any(isinstance(result.error, TaskFailedError) for result in report.failed):
            say("What failed at the service is paid for again with --retry-failed.")
        if report.is_stopped and report.not_begun:
            say(f"{exits.GO_ON}{this_command()}")
        if job.emulator and report.saved:
            say(f"These are the emulator's, as the lock says. Take another --out for real ones, or remove {job.out}.")


def _counted(report: BatchReport, purse: Purse) -> str:
    counts = [
        (len(report.saved), "saved"),
        (len(report.existing), "there already"),
        (len(report.changed), "changed"),
        (len(report.failed), "failed"),
        (len(report.unknown), "perhaps paid"),
        (len(report.invalid), "refused"),
        (len(report.not_begun), "not begun"),
        (len(report.orphaned), "orphaned"),
    ]
    words = ", ".join(f"{number} {what}" for number, what in counts if number) or "nothing to do"
    cost = purse.cost(report.paid)
    paid = f"{count(report.paid, 'submission')} paid for" + ("" if cost is None else f", {cost}")
    return f"{words}; {paid}."


def _summary(report: BatchReport, purse: Purse) -> dict[str, Any]:
    return {
        "event": "end",
        "saved": len(report.saved),
        "existing": len(report.existing),
        "changed": len(report.changed),
        "failed": len(report.failed),
        "perhaps_paid": len(report.unknown),
        "invalid": len(report.invalid),
        "not_begun": len(report.not_begun),
        "orphaned": len(report.orphaned),
        "paid": report.paid,
        "cost": purse.cost(report.paid),
        "lock": str(report.lock_path),
        "stopped_by": None if report.stopped_by is None else type(report.stopped_by).__name__,
        "message": None if report.stopped_by is None else exits.words(report.stopped_by),
        "unknown_keys": [[result.key, result.take] for result in report.unknown],
        "continue": this_command() if report.is_stopped and report.not_begun else None,
    }


async def _read_line() -> str:
    """Read a line of standard input, so that Ctrl-C still ends the program."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    try:
        loop.add_reader(sys.stdin.fileno(), _set, ready)
    except (NotImplementedError, OSError, ValueError):
        return sys.stdin.readline()  # Windows: its loop cannot wait for a console
    try:
        await ready
    finally:
        loop.remove_reader(sys.stdin.fileno())
    return sys.stdin.readline()


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
