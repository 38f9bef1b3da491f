"""`finevoice plan`: what a batch would do, pay and take, without sending anything and without a key."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from finevoice_async import JournalRow, ManifestError
from finevoice_async.adapters.journal_reader import read_journal
from finevoice_async.batch import Manifest, Plan, PlanEntry, PlanState, read_manifest
from finevoice_async.batch.survey import JOURNAL_NAME, Hashes, Survey
from finevoice_async.cli import exits
from finevoice_async.cli.memory import Memory
from finevoice_async.cli.runs import Purse
from finevoice_async.cli.talk import count, give, give_json, plain, say
from finevoice_async.core.polling.schedule import Schedule, make_schedule

LISTED = 20
"""Sounds of one state that are listed on a terminal; in a pipe it is all."""

_PAGE = 1000

WORDS = {
    PlanState.NEW: "to be paid for",
    PlanState.CHANGED: "made for another request; paid for with --remake, as a new take",
    PlanState.DONE: "there, as the lock says",
    PlanState.MISSING: "made, and not there: fetched again, not paid again",
    PlanState.UNSAVED: "paid for, and still to be fetched",
    PlanState.UNKNOWN: "never paid again by itself",
    PlanState.FAILED: "paid for again with --retry-failed",
    PlanState.EDITED: "not what the lock says: kept, and not paid for",
    PlanState.ORPHANED: "no longer in the manifest: left alone",
}


def tell_faults(error: ManifestError, *, as_json: bool) -> int:
    """Show all that is wrong with a manifest, a line each, and return the exit code."""
    if as_json:
        faults = [attrs.asdict(fault) for fault in error.faults]
        head = error.message.splitlines()[0]
        told = {"error": "ManifestError", "message": head, "faults": faults, "exit_code": exits.WRONG_USE}
        give_json(told)
    else:
        head, *lines = error.message.splitlines()
        say(f"finevoice: {plain(head)}", *(f"  {plain(line)}" for line in lines))
    return exits.WRONG_USE


def preview(
    manifest: Manifest,
    out: Path,
    journal: Path | None,
    hashes: Hashes | None = None,
    *,
    want_silent: int = 0,
    rows: Sequence[JournalRow] | None = None,
    emulated: bool = False,
) -> tuple[Survey, Plan]:
    """Plan a manifest by what lies on disk; also while a batch runs. Blocks.

    Args:
        manifest: The sounds.
        out: The folder.
        journal: The journal's file.
        hashes: What an earlier look has found.
        want_silent: How many more takes a silent one may lead to.
        rows: What a fleet's journal holds, in the place of a file.
        emulated: An emulator is to make the sounds.

    Raises:
        ManifestError: The lock cannot be read.
        JournalError: The journal cannot be read.
    """
    survey = Survey(manifest, out, hashes, shared=rows is not None, emulated=emulated)
    survey.read_lock()
    survey.add_rows(rows or ())
    if journal is not None and journal.is_file():
        with read_journal(journal) as reader:
            after = 0
            while page := reader.rows(after=after, limit=_PAGE):
                survey.add_rows(page)
                after = page[-1].id
    return survey, survey.plan(want_silent=want_silent)


def seconds_for(schedule: Schedule, entries: list[PlanEntry], slots: int) -> float | None:
    """Return about how long so many sounds take, by what was learned; None if nothing was."""
    total = 0.0
    for entry in entries:
        estimate = schedule.estimate(0.0, None if entry.request is None else entry.request.duration)
        if estimate is None:
            return None
        total += estimate.median
    return total / slots


async def show_plan(
    path: str, out: Path, *, purse: Purse, concurrency: int, base_url: str | None, as_json: bool
) -> int:
    """Plan a manifest, and print it."""
    try:
        manifest = read_manifest(path, out=out)
        _, plan = preview(manifest, out, out / JOURNAL_NAME)
    except ManifestError as error:
        return tell_faults(error, as_json=as_json)
    pay = plan.to_pay()
    schedule = make_schedule(Memory(base_url, emulator=False).polling())
    tell_plan(plan, pay, manifest, purse=purse, seconds=seconds_for(schedule, pay, concurrency), as_json=as_json)
    return 0


def tell_plan(
    plan: Plan, pay: list[PlanEntry], manifest: Manifest, *, purse: Purse, seconds: float | None, as_json: bool
) -> None:
    """Print a plan: every state counted and listed, then what it would cost."""
    if as_json:
        for entry in plan.entries:
            give_json(_as_data(entry))
        counts = {state.name.lower(): number for state, number in plan.counts.items()}
        give_json({"summary": counts, "submissions": len(pay), "cost": purse.cost(len(pay)), "seconds": seconds})
        return
    most = LISTED if sys.stdout.isatty() else None
    give(f"{manifest.name}: {count(len(manifest), 'sound')}")
    for state, number in plan.counts.items():
        if not number:
            continue
        give(f"  {number} {state.value}: {WORDS[state]}")
        entries = [entry for entry in plan.entries if entry.state is state]
        for entry in entries[:most]:
            give(f"      {_line(entry)}")
        if most is not None and number > most:
            give(f"      and {number - most} more; in a pipe, or with --json, all are listed")
    give(cost_words(len(pay), purse, seconds))


def cost_words(submissions: int, purse: Purse, seconds: float | None) -> str:
    """Say what would be paid, and how long it would take."""
    if not submissions:
        return "Nothing would be paid for."
    words = f"{count(submissions, 'submission')} would be paid for"
    cost = purse.cost(submissions)
    words += f": {cost} at {purse.price} each" if cost is not None else ""
    return f"{words}; {span_words(seconds)}."


def span_words(seconds: float | None) -> str:
    """Say how long something takes."""
    if seconds is None:
        return "how long it takes is learned from the first ones"
    if seconds < 90:
        return f"about {max(seconds, 1):.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"


def _line(entry: PlanEntry) -> str:
    take = "" if entry.take == 1 else f" (take {entry.take})"
    where = f", line {entry.row.line}" if entry.row is not None and entry.row.line is not None else ""
    file = "" if entry.file is None else f", {entry.file}"
    note = "" if entry.note is None else f": {entry.note}"
    return plain(f"{entry.key}{take}{where}{file}{note}")


def _as_data(entry: PlanEntry) -> dict[str, Any]:
    return {
        "state": entry.state.name.lower(),
        "key": entry.key,
        "take": entry.take,
        "file": entry.file,
        "stem": entry.stem,
        "line": None if entry.row is None else entry.row.line,
        "task_id": entry.task_id,
        "note": entry.note,
    }
