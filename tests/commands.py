"""What the tests of the command share: it as a program, on a terminal or not, with a service of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from finevoice_async.emulator import Emulator

COMMAND = [sys.executable, "-c", "import sys; sys.argv[0] = 'finevoice'; from finevoice_async.cli import main; main()"]
_TAKE_TERMINAL = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)"  # so that its Ctrl-C reaches it
COLUMNS = 80
PATIENCE = 120.0
"""Seconds for a program that starts on a busy machine."""


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Start the command; its words can be read."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    return subprocess.Popen([*COMMAND, *arguments], **pipes)


def end(process: subprocess.Popen[str], number: int | None = None) -> tuple[str, str]:
    """Send a signal, if one is named, and return what was said on both ways."""
    if number is not None:
        process.send_signal(number)
    told = process.communicate(timeout=PATIENCE)
    return told[0], told[1]


class Terminal:
    """The command on a terminal of 80 columns."""

    def __init__(self, *arguments: str) -> None:
        """Start it."""
        self._screen = ""  # all that was written, to be read again
        self._descriptor, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
        words = [sys.executable, "-c", f"{_TAKE_TERMINAL}; {COMMAND[-1]}", *arguments]
        environment = os.environ | {"TERM": "xterm-256color"}
        self._process = subprocess.Popen(
            words, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, env=environment
        )
        os.close(theirs)

    def read_until(self, wanted: str) -> str:
        """Read until a text has come, and return all that has come, without what moves and colours."""
        deadline = time.monotonic() + PATIENCE
        while wanted not in self.text:
            assert time.monotonic() < deadline, self.text
            assert self._read(), self.text
        return self.text

    def type(self, text: str) -> None:
        """Type a text."""
        os.write(self._descriptor, text.encode())

    def press_ctrl_c(self) -> None:
        """Do as the key does: the terminal sends the signal."""
        os.write(self._descriptor, b"\x03")

    def end(self) -> tuple[int, str]:
        """Wait for the end, and return the exit code and all that has come."""
        deadline = time.monotonic() + PATIENCE
        while self._read():
            assert time.monotonic() < deadline, self.text
        os.close(self._descriptor)
        return self._process.wait(PATIENCE), self.text

    def _read(self) -> bool:
        if not select.select([self._descriptor], [], [], PATIENCE)[0]:
            return False
        try:
            piece = os.read(self._descriptor, 65536)
        except OSError:  # Linux's word for the end of a terminal
            return False
        self._screen += piece.decode(errors="replace")
        return bool(piece)

    @property
    def text(self) -> str:
        """All that has come, without what moves and colours."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self._screen).replace("\r\n", "\n")


class Served:
    """An emulator on a thread and a loop of its own, for commands that are programs of their own."""

    def __init__(self, emulator: Emulator, loop: asyncio.AbstractEventLoop) -> None:
        self.emulator = emulator
        self._loop = loop

    def do(self, action: Callable[[Emulator], object]) -> None:
        """Do something with the emulator on its thread."""

        async def act() -> None:
            action(self.emulator)

        asyncio.run_coroutine_threadsafe(act(), self._loop).result(PATIENCE)

    def wait_until(self, holds: Callable[[Emulator], bool]) -> None:
        """Wait until something holds of the emulator."""
        deadline = time.monotonic() + PATIENCE
        while not holds(self.emulator):
            assert time.monotonic() < deadline
            time.sleep(0.005)


@contextlib.contextmanager
def served(**options: Any) -> Iterator[Served]:
    """Serve an emulator while the test runs."""
    loop = asyncio.SelectorEventLoop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    emulator = Emulator(api_key="k", **options)
    try:
        asyncio.run_coroutine_threadsafe(emulator.start(), loop).result(PATIENCE)
        yield Served(emulator, loop)
    finally:
        asyncio.run_coroutine_threadsafe(emulator.aclose(), loop).result(PATIENCE)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
