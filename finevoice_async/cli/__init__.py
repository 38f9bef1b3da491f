"""The `finevoice` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command, or say what to install for it."""
    try:
        from finevoice_async.cli.app import app
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich", "click"):
            raise
        sys.exit("The command needs typer and rich: pip install 'finevoice-async[cli]'")
    app()
