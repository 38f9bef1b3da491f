"""Running a command's job: signals, errors and a reader that went away become words and an exit code."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Coroutine, Iterator
from io import TextIOWrapper
from typing import Any, NoReturn

import typer

from finevoice_async.cli import exits
from finevoice_async.cli.talk import forget_stdout, give_json, say
from finevoice_async.errors import FineVoiceError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


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


def finish(job: Coroutine[Any, Any, int], *, as_json: bool, debug: bool) -> NoReturn:
    """Run a job, and leave with its exit code; an error becomes a line and a code."""
    level = logging.DEBUG if debug else logging.CRITICAL
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(message)s")
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may not know all letters; stderr does so anyway
    raise typer.Exit(_run(job, as_json=as_json, debug=debug))


def _run(job: Coroutine[Any, Any, int], *, as_json: bool, debug: bool) -> int:
    stop = _Stop()
    try:
        code = asyncio.run(_with_signals(job, stop))
        sys.stdout.flush()
    except (KeyboardInterrupt, asyncio.CancelledError):
        return stop.code
    except BrokenPipeError:
        forget_stdout()  # whoever read it has enough, such as `head`
        return 0
    except (FineVoiceError, OSError) as error:
        if debug:
            raise
        report(error, as_json=as_json)
        return exits.exit_code(error)
    return code


async def _with_signals(job: Coroutine[Any, Any, int], stop: _Stop) -> int:
    stop.job = asyncio.current_task()
    with _handled(stop):
        return await job


@contextlib.contextmanager
def _handled(stop: _Stop) -> Iterator[None]:
    """Let the signals cancel this task. Where they cannot (Windows, another thread), asyncio sees to Ctrl-C."""
    loop = asyncio.get_running_loop()
    mine: list[signal.Signals] = []
    for number in _SIGNALS:
        if signal.getsignal(number) is signal.SIG_IGN:  # as whoever started it wishes
            continue
        with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
            loop.add_signal_handler(number, stop.on, number)
            mine.append(number)
    try:
        yield
    finally:
        for number in mine:
            loop.remove_signal_handler(number)


def report(error: BaseException, *, as_json: bool) -> None:
    """Tell of an error, and with which command to go on, if it carries one."""
    again = exits.command_to_go_on(error)
    if as_json:
        told = {
            "error": type(error).__name__,
            "message": exits.words(error),
            "task_id": getattr(error, "task_id", None),
            "exit_code": exits.exit_code(error),
        }
        give_json(told if again is None else told | {"continue": again})
        return
    say(f"finevoice: {exits.words(error)}", *([] if again is None else [f"{exits.GO_ON}{again}"]))
