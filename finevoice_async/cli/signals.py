"""Hearing Ctrl-C and SIGTERM inside the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def heard(hear: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Have each signal told to somebody. Where that cannot be (Windows, another thread), asyncio sees to Ctrl-C."""
    loop = asyncio.get_running_loop()
    mine: list[signal.Signals] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:  # as whoever started it wishes
            continue
        with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
            loop.add_signal_handler(number, hear, number)
            mine.append(number)
    try:
        yield
    finally:
        for number in mine:
            loop.remove_signal_handler(number)
