"""The `finevoice` command."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Run the command, or say what to install for it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Until a command listens nothing has begun: Ctrl-C ends it at once, and is not lost in an import.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        from finevoice_async.cli.app import app
        from finevoice_async.cli.talk import mend_streams
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich", "click", "platformdirs"):
            raise
        sys.exit("The command needs typer, rich and platformdirs: pip install 'finevoice-async[cli]'")
    mend_streams()
    app()
