"""The command, but for its polling: it asks every few milliseconds, as the emulated service of a test allows."""

from __future__ import annotations

import sys

from finevoice_async import Polling
from finevoice_async.cli import main
from finevoice_async.cli.memory import Memory

HASTY = Polling(interval=0.02, min_gap=0.01, max_gap=0.1, budget=10_000)


def polling(_: Memory) -> Polling:
    """Return the options, whatever was learned."""
    return HASTY


if __name__ == "__main__":
    Memory.polling = polling  # type: ignore[method-assign,assignment]  # this program's own process
    sys.argv[0] = "finevoice"
    main()
