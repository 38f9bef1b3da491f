"""The command line as a whole: what is wrong with one is told in two lines, and a fault of the program in one."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from finevoice_async.cli.exits import WRONG_USE, words
from finevoice_async.cli.runner import report
from finevoice_async.cli.talk import UnwrittenError, flush, give_json, say, say_at_length

_UsageError: Any = typer.BadParameter.__mro__[1]  # of click, or of typer's own copy of it


class Commands(TyperGroup):
    """Runs a command, and ends the program with its exit code."""

    def main(self, args: Sequence[str] | None = None, *more: Any, **options: Any) -> Any:
        """Run a command."""
        given = sys.argv[1:] if args is None else list(args)
        try:
            code = super().main(given, *more, **{**options, "standalone_mode": False})
        except _UsageError as error:
            sys.exit(_explain_use(error, given))
        except typer.Abort:
            sys.exit(130)
        except OSError as error:  # of what a job did, its runner has told: this was a word of help
            sys.exit(report(UnwrittenError(error.errno, error.strerror), as_json=False))
        except Exception as error:  # noqa: BLE001 - it is told, and makes the exit code
            if "--debug" in given:
                traceback.print_exception(error)
            sys.exit(report(error, as_json="--json" in given))
        sys.exit((code if isinstance(code, int) else 0) or flush())


def _explain_use(error: Any, arguments: list[str]) -> int:
    """Say what is wrong with a command line, and where to read on."""
    told = words(typer.BadParameter(error.format_message()))
    path = "finevoice" if error.ctx is None else " ".join(["finevoice", *error.ctx.command_path.split()[1:]])
    if "--json" in arguments:
        data = {"error": "UsageError", "message": told, "task_id": None, "paid": False, "exit_code": WRONG_USE}
        give_json(data)
    else:
        say_at_length(f"finevoice: {told}")
        say(f"See: {path} --help")
    return WRONG_USE
