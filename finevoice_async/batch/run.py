"""A batch from its manifest to files on disk."""

from __future__ import annotations

import asyncio
import fnmatch
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

import anyio
import attrs

from finevoice_async.batch.copies import Finish, make_copies
from finevoice_async.batch.finish import FinishError
from finevoice_async.batch.lock import LockRecord
from finevoice_async.batch.lock_writer import LockWriter
from finevoice_async.batch.manifest import Manifest
from finevoice_async.batch.plan import Plan, PlanEntry, PlanState
from finevoice_async.batch.results import BatchReport, BatchResult, OnUpdate, ResultKind, as_it_is
from finevoice_async.batch.survey import Hashes, Survey
from finevoice_async.batch.work import Limits, Work
from finevoice_async.core.ledger import EffectState, JournalRow
from finevoice_async.errors import ConfigurationError
from finevoice_async.session import FineVoiceSession

_PAGE: Final = 200  # rows of the journal that are looked at together, in a thread: a few milliseconds


@attrs.frozen(kw_only=True)
class BatchOptions:
    """What a run may do.

    Attributes:
        remake: Pay for sounds whose request changed: as new takes, beside what is there.
        retry_failed: Pay for another try of what the service could not make.
        limit: Begin at most so many.
        only: Leave all others alone whose key, and whose file, does not match this pattern of a shell.
        max_failures: Stop after so many that came to nothing.
        reroll_silent: Make at most so many more takes of a sound in place of silent ones, which stay.
        finish: Make finished copies of all sounds that are there.
        emulated: An emulator makes the sounds. The lock says so, and nobody who has the lock takes them for real ones.
    """

    remake: bool = False
    retry_failed: bool = False
    limit: int | None = None
    only: str | None = None
    max_failures: int | None = None
    reroll_silent: int = 0
    finish: Finish | None = None
    emulated: bool = False


async def run_batch(
    session: FineVoiceSession,
    manifest: Manifest,
    out: str | os.PathLike[str],
    *,
    on_update: OnUpdate | None = None,
    stop: asyncio.Event | None = None,
    options: BatchOptions = BatchOptions(),
    hashes: Hashes | None = None,
) -> BatchReport:
    """Make what a manifest names and the folder does not hold; run again, it goes on where it was.

    With a journal in the session nothing is paid for twice, whatever happens; with a fleet's, on several machines at
    once: each sound is made by one of them, and fetched by all. Without one, the lock alone tells what
    was made, and a crash forgets what was under way. What is perhaps paid for is never sent again.

    Cancelled, it ends at once: what was not sent is taken back, what runs is in the journal and in `session.tasks`.

    Args:
        session: Makes the sounds; its `Budget` bounds them.
        manifest: What is wanted.
        out: The folder for the files; no file in it is ever replaced.
        on_update: Hears of each submission, and of what becomes of each sound.
        stop: Set it to have nothing more submitted; what runs is finished and saved.
        options: What it may do.
        hashes: What an earlier look at the folder has found.

    Raises:
        ManifestError: There is no place for the files, or the lock cannot be read. Nothing was sent.
        ConfigurationError: Finished copies cannot be made. Nothing was sent.
        JournalError: The journal could not be read.
        SessionClosedError: The session is closed.
    """
    folder = Path(out)
    if options.finish is not None:
        options.finish.check()
    shared = await _is_shared(session)
    survey = Survey(manifest, folder, hashes, shared=shared, emulated=options.emulated)
    await anyio.to_thread.run_sync(manifest.check_place, folder)
    await anyio.to_thread.run_sync(survey.read_lock)
    await _take_in_journal(session, survey)
    todo = await anyio.to_thread.run_sync(_Todo, survey, options)
    plan = todo.plan
    await _free_keys(session, todo.stale)
    lock = LockWriter(manifest.lock_path(folder), emulated=options.emulated)
    for record in survey.unlocked:
        lock.keep(record)
    work = Work(
        session,
        folder,
        lock,
        limits=Limits(max_failures=options.max_failures, reroll_silent=options.reroll_silent),
        next_take=todo.takes.another,
        on_update=on_update,
        shared=shared,
    )
    unfinished: list[tuple[LockRecord, FinishError]] = []
    try:
        await work.run(todo.fetch, todo.make, stop)
        if options.finish is not None:
            unfinished = await make_copies(_there(plan, work.saved, options), folder, options.finish, lock)
    finally:
        lock_error = await lock.aclose()
    report = BatchReport(
        manifest=manifest.name,
        out=folder,
        lock_path=lock.path,
        paid=work.paid,
        perhaps_paid=work.perhaps_paid,
        stopped_by=work.stopped_by,
        is_stopped=work.is_stopped,
        lock_error=lock_error,
        records=lock.mine,
        unfinished=[*unfinished],
    )
    await anyio.to_thread.run_sync(_fill, report, plan, work.results, options)
    return report


async def _is_shared(session: FineVoiceSession) -> bool:
    """Tell whether the session's journal is a fleet's."""
    try:
        await session.fleet()
    except ConfigurationError:
        return False  # whatever else is wrong, the first submission says so
    return True


def _there(plan: Plan, saved: list[BatchResult], options: BatchOptions) -> list[LockRecord]:
    """Return the sounds that are there, as they should be."""
    before = [entry.record for entry in plan.entries if entry.state is PlanState.DONE and _is_meant(entry, options)]
    return [record for record in (*before, *(each.record for each in saved)) if record is not None]


async def settle(survey: Survey, plan: Plan, options: BatchOptions) -> BatchReport:
    """Do what takes no session: bring the lock up to date, and make finished copies.

    Raises:
        ConfigurationError: Finished copies cannot be made.
    """
    lock = LockWriter(survey.manifest.lock_path(survey.out), emulated=options.emulated)
    for record in survey.unlocked:
        lock.keep(record)
    unfinished: list[tuple[LockRecord, FinishError]] = []
    try:
        if options.finish is not None:
            options.finish.check()
            unfinished = await make_copies(_there(plan, [], options), survey.out, options.finish, lock)
    finally:
        lock_error = await lock.aclose()
    report = BatchReport(
        manifest=survey.manifest.name,
        out=survey.out,
        lock_path=lock.path,
        lock_error=lock_error,
        records=lock.mine,
        unfinished=[*unfinished],
    )
    await anyio.to_thread.run_sync(_fill, report, plan, {}, options)
    return report


def select(plan: Plan, options: BatchOptions) -> tuple[list[PlanEntry], list[PlanEntry]]:
    """Return what a run would pay for, and what it would fetch."""
    make = [
        entry
        for entry in plan.to_pay(remake=options.remake, retry_failed=options.retry_failed)
        if _is_meant(entry, options)
    ]
    fetch = [entry for entry in plan.to_fetch() if _is_meant(entry, options)]
    return make[: options.limit], fetch


def _is_meant(entry: PlanEntry, options: BatchOptions) -> bool:
    if options.only is None:
        return True
    names = (entry.key, entry.stem, entry.file or "")
    return any(fnmatch.fnmatchcase(name, options.only) for name in names)


async def _take_in_journal(session: FineVoiceSession, survey: Survey) -> None:
    """Take in the journal, if there is one."""
    rows: list[JournalRow] = []
    try:
        async for row in session.rows():
            rows.append(row)
            if len(rows) >= _PAGE:
                await anyio.to_thread.run_sync(survey.add_rows, rows)
                rows = []
    except ConfigurationError:
        return  # there is none; whatever else is wrong, the first submission says so
    await anyio.to_thread.run_sync(survey.add_rows, rows)


class _Todo:
    """What a run has to do. Worked out in a thread: there may be 100,000 sounds."""

    def __init__(self, survey: Survey, options: BatchOptions) -> None:
        self.plan = survey.plan(want_silent=options.reroll_silent)
        self.make, self.fetch = select(self.plan, options)
        self.stale = {entry.journal_key for entry in self.make if entry.frees}
        self.takes = _Takes(self.plan, survey)


async def _free_keys(session: FineVoiceSession, names: set[str]) -> None:
    """Give up what an earlier run has wished for and never sent, where the manifest wants something else by now."""
    if not names:
        return
    stale = [row async for row in _queued(session) if row.key in names]
    for row in stale:
        await session.discard(row)


async def _queued(session: FineVoiceSession) -> AsyncIterator[JournalRow]:
    async for row in session.rows(EffectState.QUEUED):
        yield row


class _Takes:
    """Numbers for further takes."""

    def __init__(self, plan: Plan, survey: Survey) -> None:
        self._survey = survey
        self._last: dict[str, int] = {}  # by key
        for entry in plan.entries:
            known = survey.known.get(entry.key, {})
            self._last[entry.key] = max(self._last.get(entry.key, 0), entry.take, *known)

    def another(self, entry: PlanEntry) -> PlanEntry:
        """Return the entry of a further take of a sound, whose name nothing else has."""
        assert entry.row is not None  # noqa: S101 - what is orphaned is not made
        while True:
            take = self._last[entry.key] = self._last[entry.key] + 1
            stem = entry.row.stem(take)
            if not self._survey.manifest.names(stem) and self._survey.is_free(stem):
                return PlanEntry(
                    state=PlanState.NEW,
                    key=entry.key,
                    take=take,
                    stem=stem,
                    row=entry.row,
                    request_hash=entry.row.request_hash,
                )


def _fill(report: BatchReport, plan: Plan, made: Mapping[tuple[str, int], BatchResult], options: BatchOptions) -> None:
    """Put the results into the order of the manifest, and say of the others how they stand."""
    results = dict(made)
    for entry in plan.entries:
        if entry.state is PlanState.ORPHANED:
            report.orphaned.append(entry)
        elif _is_meant(entry, options):
            result = results.pop((entry.key, entry.take), None) or as_it_is(entry, report.out)
            report.results.append(result or BatchResult.of(entry, ResultKind.NOT_BEGUN))
    report.results += results.values()
