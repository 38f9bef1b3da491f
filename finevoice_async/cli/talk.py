"""How the command speaks: results on standard output, as text or JSON; all other words on standard error."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.cells import cell_len, set_cell_size

_DATABASE = re.compile(r"(postgres(?:ql)?:/+[^:/@\s\"]*):[^\"\n]*@", re.IGNORECASE)
_PASSWORD = re.compile(r"(password=)[^&\s\"']*", re.IGNORECASE)

_unwritten: list[OSError] = []  # why lines of the result could not be written; the end of the run says it


class UnwrittenError(OSError):
    """Standard output cannot be written."""


def say(*lines: str) -> None:
    """Say lines to the person, on standard error."""
    for line in lines:
        print(line, file=sys.stderr, flush=True)


def say_at_length(text: str) -> None:
    """Say a sentence: one line for a program, on a terminal as many as it takes, none broken within a word."""
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns
        text = textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)
    say(text)


def give(line: str) -> None:
    """Give a line of the result. If it cannot be written, the work goes on: it may be paid for."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        forget_stdout()
    except OSError as error:  # such as a full disk
        _unwritten.append(error)
        say(line)


def put(text: str) -> None:
    """Print what can be had again.

    Raises:
        BrokenPipeError: Nobody reads it.
        UnwrittenError: It cannot be written.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UnwrittenError(error.errno, error.strerror) from error


def give_json(data: dict[str, Any]) -> None:
    """Give one JSON object, on a line of its own."""
    give(as_json_line(data))


def as_json_line(data: dict[str, Any]) -> str:
    """Return an object as one line, in ASCII: so also a path that is no text can be told."""
    return json.dumps(data)


def mend_streams() -> None:
    """Let what a closed stream is told go nowhere; Python itself would fail, after the effect was paid for."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - open to the end


def stdout_is_closed() -> bool:
    """Tell whether the command was started without standard output, as by `>&-`."""
    return sys.__stdout__ is None


def version() -> str:
    """Return the version of this package."""
    try:
        return metadata.version("finevoice-async")
    except metadata.PackageNotFoundError:
        return "of a source tree"


def as_text(typed: str | None) -> str | None:
    """Return what was typed; as UTF-8 where it is no text in the locale's own code, such as ASCII."""
    if typed is None or typed.isascii():
        return typed
    try:
        typed.encode()
    except UnicodeEncodeError:
        with contextlib.suppress(UnicodeError):
            return os.fsencode(typed).decode()
    return typed


def forget_stdout() -> None:
    """Let what is still written to standard output go nowhere: its reader has gone, such as `head`."""
    with contextlib.suppress(OSError, ValueError):
        descriptor = sys.stdout.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


def flush() -> int:
    """Write out what is still to be written; return 1 if that, or a line before, was not possible, and say why."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        forget_stdout()
    except OSError as error:
        _unwritten.append(error)
        forget_stdout()
    if not _unwritten:
        return 0
    say(f"finevoice: standard output cannot be written: {_unwritten[0].strerror}.")
    _unwritten.clear()
    return 1


def plain(text: str) -> str:
    """Return a text on one line, without characters that steer a terminal."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def command(name: str, *arguments: str | None, **options: str | Path | None) -> str:
    """Return a command line of this program, as a shell takes it; what is None is left out.

    Args:
        name: The command.
        arguments: Its arguments and flags.
        options: Its options and their values.
    """
    words = ["finevoice", name, *(word for word in arguments if word is not None)]
    for option, value in options.items():
        if value is not None:
            words += ["-o" if option == "output" else "--" + option.replace("_", "-"), str(value)]
    return without_passwords(shlex.join(words))


def this_command() -> str:
    """Return the command line that was typed, but for passwords of databases."""
    return without_passwords(shlex.join(["finevoice", *sys.argv[1:]]))


def count(number: int, what: str) -> str:
    """Return a number and a noun in the right form."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def listed(lines: Iterable[str]) -> list[str]:
    """Return lines with an indent."""
    return [f"  {line}" for line in lines]


def without_passwords(text: str) -> str:
    """Return a text in which no URL of a database shows its password."""
    return _PASSWORD.sub(r"\1***", _DATABASE.sub(r"\1:***@", text))


def fit(text: str, room: int) -> str:
    """Return a text in just so many columns of a terminal; letters of some scripts take two."""
    return set_cell_size(text, room) if cell_len(text) <= room else f"{set_cell_size(text, room - 1)}…"
