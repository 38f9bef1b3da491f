"""Running a command's job: signals, errors and a reader that went away become words and an exit code."""

from __future__ import annotations

import asyncio
import logging
import platform
import signal
import sys
import traceback
from collections.abc import Coroutine
from io import TextIOWrapper
from pathlib import PurePath
from typing import Any, NoReturn

import typer

from finevoice_async.cli import exits
from finevoice_async.cli.signals import heard
from finevoice_async.cli.talk import flush, forget_stdout, give_json, say, say_at_length, version
from finevoice_async.errors import FineVoiceError


class _Stop:
    """The signal that ended the job, if one did."""

    def __init__(self) -> None:
        # All mutable state:
        self._signal: signal.Signals | None = None
        self.job: asyncio.Task[Any] | None = None

    def on(self, number: signal.Signals) -> None:
        """Cancel the job, which then says what is open; end at once when asked again."""
        if self._signal is not None:
            raise KeyboardInterrupt  # through the event loop, which drops everything
        self._signal = number
        if self.job is not None:
            self.job.cancel()

    @property
    def code(self) -> int:
        """The exit code by the shells' rule; where asyncio itself handles Ctrl-C, no signal is known here."""
        return 128 + (self._signal or signal.SIGINT)


def finish(
    job: Coroutine[Any, Any, int], *, as_json: bool, debug: bool, idle: str | None = None, free: bool = False
) -> NoReturn:
    """Run a job, and leave with its exit code; an error becomes a line and a code.

    Args:
        job: What the command does.
        as_json: Tell errors as JSON, too.
        debug: Show the tracebacks of errors, too, and what is logged.
        idle: What an error says that did not happen, if it is not that something was sent.
        free: The job pays for nothing, whatever goes wrong.
    """
    level = logging.DEBUG if debug else logging.CRITICAL
    if not debug:
        logging.getLogger("psycopg").setLevel(level)  # else it takes a level of its own, and its pool tells of each try
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(message)s")
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may not know all letters; stderr does so anyway
    stop = _Stop()
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # from here on it is heard
    try:
        code = asyncio.run(_with_signals(job, stop))
    except (KeyboardInterrupt, asyncio.CancelledError):
        code = stop.code
    except BrokenPipeError:
        forget_stdout()  # whoever read it has enough, such as `head`
        code = 0
    except Exception as error:  # noqa: BLE001 - it is told, and makes the exit code
        if debug:
            traceback.print_exception(error)
        code = report(error, as_json=as_json, idle=idle, free=free)
    unwritten = flush()
    raise typer.Exit(code or unwritten)


async def _with_signals(job: Coroutine[Any, Any, int], stop: _Stop) -> int:
    stop.job = asyncio.current_task()
    with heard(stop.on):
        return await job


def report(error: Exception, *, as_json: bool, idle: str | None = None, free: bool = False) -> int:
    """Tell of an error, and with which command to go on, if it carries one; return its exit code."""
    again, code = exits.command_to_go_on(error), exits.exit_code(error)
    known = isinstance(error, FineVoiceError | OSError)
    told = exits.words(error, idle=idle) if known else _bug(error)
    if as_json:
        data = {
            "error": type(error).__name__ if known else "UnexpectedError",
            "message": told,
            "task_id": getattr(error, "task_id", None),
            "paid": False if free else getattr(error, "paid", None),
            "exit_code": code,
        }
        give_json(data if again is None else data | {"continue": again})
    else:
        say_at_length(f"finevoice: {told}")
        if again is not None:
            say(f"{exits.GO_ON}{again}")
    return code


def _bug(error: Exception) -> str:
    """Return how to report an error that nobody foresaw. Its own words are left out: they may hold a secret."""
    *_, (frame, line) = traceback.walk_tb(error.__traceback__)
    place = f"{PurePath(frame.f_code.co_filename).name}, line {line}"
    system = f"finevoice-async {version()}, Python {platform.python_version()}, {platform.system()}"
    return (
        f"An unexpected error, which is a fault of this program: {place} ({system}). Please report this line with "
        "what you typed, but without your key; --debug shows more."
    )
