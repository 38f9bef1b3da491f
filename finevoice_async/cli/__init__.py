"""The `finevoice` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command, or say what to install for it."""
    try:
        from finevoice_async.cli.app import app
        from finevoice_async.cli.talk import mend_streams
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich", "click", "platformdirs"):
            raise
        sys.exit("The command needs typer, rich and platformdirs: pip install 'finevoice-async[cli]'")
    except KeyboardInterrupt:
        sys.exit(130)
    mend_streams()
    app()
