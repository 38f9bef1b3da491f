"""`finevoice fleet`: the database that sessions of several processes and machines share: made, and looked at."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import attrs

from finevoice_async import ConfigurationError, JournalError
from finevoice_async.adapters.journals import EXTRA, names_a_database
from finevoice_async.cli.exits import words
from finevoice_async.cli.talk import count, give_json, put, say

if TYPE_CHECKING:
    from finevoice_async.adapters.fleet_view import FleetLook, JobCounts
    from finevoice_async.shared_ports import FleetStats

TURN = 2.0
"""Seconds between two looks."""

_CLEAR = "\x1b[H\x1b[2J"
_KEY = 8  # characters of a key's hash that tell it from others
_HEAD = ("sessions", "running", "waiting", "sending", "unknown", "done", "failed", "longest wait")
_WIDTHS = (8, 8, 7, 7, 7, 8, 7, 12)


def check_url(url: str) -> str:
    """Return a URL that names a database.

    Raises:
        ConfigurationError: It is another one or cannot be read, and is not shown; or psycopg is missing.
    """
    if not names_a_database(url):
        raise ConfigurationError(
            "A fleet is named by the URL of its PostgreSQL database: postgresql://user@host/database."
        )
    try:
        from finevoice_async.adapters.postgres.connection import read_url  # with psycopg, for who has a fleet
    except ImportError as error:  # also of the libpq that it wraps
        raise ConfigurationError(EXTRA) from error
    read_url(url)
    return url


async def init(url: str | None, *, as_sql: bool, as_json: bool) -> int:
    """Make what a fleet needs in its database, and what a queue needs, if procrastinate is installed; or print it."""
    if url is not None or not as_sql:
        check_url(url or "")
    from finevoice_async.adapters.postgres import schema

    try:
        from finevoice_async.adapters import job_queue
    except ImportError:  # a fleet may do without
        has_queue = False
    else:
        has_queue = True
    if as_sql:
        put(schema.script().rstrip())
        if has_queue:
            put(f"\n-- The queue: procrastinate's own tables.\n{job_queue.script().rstrip()}")
        return 0
    assert url is not None  # noqa: S101 - it was checked
    await schema.init(url)
    if has_queue:
        await job_queue.init(url)
    if as_json:
        give_json({"event": "made", "version": schema.VERSION, "queue": has_queue})
    elif has_queue:
        say("The database is ready for a fleet and its queue.")
    else:
        say("The database is ready for a fleet. For a queue, too: pip install 'finevoice-async[queue]', and again.")
    return 0


async def show_fleet(url: str, *, watch: bool, as_json: bool) -> int:
    """Show what the sessions of a database do, once or again and again: then also of one that is away for a while.

    Raises:
        JournalError: The one look failed.
    """
    check_url(url)
    from finevoice_async.adapters.fleet_view import look

    is_screen = sys.stdout.isatty() and not as_json
    while True:
        try:
            found = await look(url)
        except JournalError as error:
            if not watch:
                raise
            _tell(error, as_json=as_json, clear=is_screen)
            await asyncio.sleep(TURN)
            continue
        if as_json:
            _give_json(found)
        elif is_screen:
            _show(found, clear=watch)
        else:
            for account, stats in found.accounts.items():
                put("\t".join(_fields(account, stats)))
        if not watch:
            break
        await asyncio.sleep(TURN)
    return 0


def _tell(error: JournalError, *, as_json: bool, clear: bool) -> None:
    """Tell of a look that failed, in the place of what it would have shown; the next one may succeed."""
    told = words(error)
    if as_json:
        give_json({"error": type(error).__name__, "message": told})
        return
    if clear:
        put(_CLEAR)
    say(f"finevoice: {told} It is looked at again.")


def _give_json(found: FleetLook) -> None:
    for account, stats in found.accounts.items():
        give_json({"key_hash": account, **attrs.asdict(stats)})
    give_json({"queue": None if found.jobs is None else attrs.asdict(found.jobs)})


def _show(found: FleetLook, *, clear: bool) -> None:
    lines = [_line("key", _HEAD)]
    for account, stats in found.accounts.items():
        plan = stats.running if stats.plan is None else f"{stats.running} of {stats.plan}"
        numbers = (stats.waiting, stats.sending, stats.unknown, stats.done, stats.failed)
        wait = _span(stats.longest_wait) if stats.waiting else "-"
        lines.append(_line(account[:_KEY], (stats.sessions, plan, *numbers, wait)))
    if not found.accounts:
        lines = ["No session has joined yet."]
    if found.jobs is not None:
        lines.append(_queue(found.jobs))
    put((_CLEAR if clear else "") + "\n".join(lines))
    unknown = sum(stats.unknown for stats in found.accounts.values())
    if unknown and not clear:
        say(
            f"{count(unknown, 'effect')} perhaps paid: only you can tell. Look at your account, then settle each",
            "with adopt, discard or resubmit of a session; its unknown() gives them.",
        )


def _queue(jobs: JobCounts) -> str:
    failed = f", {jobs.failed} failed" if jobs.failed else ""
    return f"Queue: {count(jobs.waiting, 'job')} waiting, {jobs.in_hand} with a worker{failed}."


def _line(key: str, numbers: tuple[object, ...]) -> str:
    columns = (f"{word!s:>{width}}" for word, width in zip(numbers, _WIDTHS, strict=True))
    return " ".join([f"{key:{_KEY}}", *columns])


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _fields(account: str, stats: FleetStats) -> list[str]:
    """Return a key's numbers as fields for a pipe: always as many."""
    counts = (stats.sessions, stats.running, stats.waiting, stats.sending, stats.unknown, stats.done, stats.failed)
    return [account, *map(str, counts), f"{stats.longest_wait:.1f}", str(stats.taken), str(stats.plan or "")]
