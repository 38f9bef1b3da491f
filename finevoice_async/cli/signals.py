"""Hearing Ctrl-C and SIGTERM inside the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from contextvars import ContextVar

_hearer: ContextVar[Callable[[signal.Signals], None] | None] = ContextVar("_hearer", default=None)


@contextlib.contextmanager
def heard(hear: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Have each signal told to somebody, and to whoever heard it before from then on.

    Where that cannot be (Windows, another thread), asyncio sees to Ctrl-C.
    """
    loop = asyncio.get_running_loop()
    before = _hearer.get()
    mine: list[signal.Signals] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:  # as whoever started it wishes
            continue
        with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
            loop.add_signal_handler(number, hear, number)
            mine.append(number)
    token = _hearer.set(hear)
    try:
        yield
    finally:
        _hearer.reset(token)
        for number in mine:
            if before is None:
                loop.remove_signal_handler(number)
            else:
                loop.add_signal_handler(number, before, number)
