"""Programs of tests/examples, run as they are printed: in a process of their own, warnings are errors."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import attrs
import httpx

from finevoice_async.testing import EmulatedService

EXAMPLES = Path(__file__).parent / "examples"
PATIENCE = 120.0
"""Seconds for a program to come up or to end: each takes one, but for a machine out of breath."""


@attrs.define
class Program:
    """A program that runs.

    Attributes:
        process: Its process.
        log: What it has said, on either stream.
    """

    process: subprocess.Popen[bytes]
    log: Path
    url: str = ""

    @property
    def said(self) -> str:
        """What it has said so far."""
        return self.log.read_text(encoding="utf-8")

    def stop(self, sign: signal.Signals = signal.SIGTERM) -> tuple[int, float]:
        """Stop it as a process manager does; return its exit code, and the seconds that it took."""
        began = time.perf_counter()
        self.process.send_signal(sign)
        return self.process.wait(PATIENCE), time.perf_counter() - began


def environment(service: EmulatedService, **more: str) -> dict[str, str]:
    """Return what the emulator's two lines put into the environment, and more."""
    return {**os.environ, "FINEVOICE_BASE_URL": service.url, "FINEVOICE_API_KEY": service.api_key, **more}


@contextmanager
def running(command: list[str], folder: Path, variables: Mapping[str, str]) -> Iterator[Program]:
    """Run a program in a folder."""
    log = folder / "said.txt"
    with log.open("ab") as said:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", *command], cwd=folder, env=variables, stdout=said, stderr=said
        )
    try:
        yield Program(process, log)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(PATIENCE)


@contextmanager
def web_app(name: str, folder: Path, service: EmulatedService, **more: str) -> Iterator[Program]:
    """Run a web app of the examples until it answers."""
    port = free_port()
    variables = environment(service, PORT=str(port), **more)
    with running([str(EXAMPLES / name)], folder, variables) as program:
        program.url = f"http://localhost:{port}"
        wait_for(program)
        yield program


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def wait_for(program: Program) -> None:
    """Wait until a web app answers."""
    until = time.monotonic() + PATIENCE
    while True:
        assert program.process.poll() is None, program.said
        assert time.monotonic() < until, program.said
        try:
            httpx.get(program.url)
        except httpx.TransportError:
            time.sleep(0.005)
        else:
            return


def load(name: str) -> ModuleType:
    """Import a program of the examples."""
    spec = importlib.util.spec_from_file_location(name.removesuffix(".py"), EXAMPLES / name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
