"""The command within the test's own process, on virtual time, with a service of its own."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import attrs
import pytest
from typer.testing import CliRunner, Result
from virtual_time import VirtualTimeLoop

import finevoice_async
from finevoice_async.cli.app import app
from finevoice_async.emulator import Emulator

T = TypeVar("T")


@pytest.fixture(autouse=True)
def state_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep what the command learns out of the home of whoever runs the tests, and colours out of its words."""
    folder = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("PYTHONPATH", str(Path(finevoice_async.__file__).parents[1]))  # programs run this very package
    return folder


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands name files as people do: from where they are."""
    monkeypatch.chdir(tmp_path)


@attrs.define
class Commands:
    """Runs commands one after another, with a service that goes on between them.

    Attributes:
        emulator: The service.
        stop: Seconds after which a command is sent a signal, and which.
    """

    emulator: Emulator
    _runner: asyncio.Runner
    stop: tuple[float, int] | None = None

    def __call__(self, *arguments: str) -> Result:
        """Run a command as if it were typed."""
        return CliRunner().invoke(app, list(arguments))

    def interrupted(self, seconds: float, *arguments: str, number: int = signal.SIGINT) -> Result:
        """Run a command that is sent a signal after so many (virtual) seconds."""
        self.stop = seconds, number
        try:
            return self(*arguments)
        finally:
            self.stop = None

    def do(self, job: Coroutine[Any, Any, T]) -> T:
        """Run something else in the same loop, such as a session of the library."""
        return self._runner.run(job)

    def run(self, job: Coroutine[Any, Any, T]) -> T:
        """Stand in for `asyncio.run`."""
        return self._runner.run(self._with_a_signal(job))

    async def _with_a_signal(self, job: Coroutine[Any, Any, T]) -> T:
        if self.stop is None:
            return await job
        seconds, number = self.stop
        timer = asyncio.get_running_loop().call_later(seconds, os.kill, os.getpid(), number)
        try:
            return await job
        finally:
            timer.cancel()


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Iterator[Commands]:
    """Commands that find an emulator by the environment, as with `finevoice emulator`."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        emulator = Emulator(api_key="k", service_time=4.0)
        runner.run(emulator.start())
        commands = Commands(emulator, runner)
        monkeypatch.setattr(asyncio, "run", commands.run)
        monkeypatch.setenv("FINEVOICE_API_KEY", "k")
        monkeypatch.setenv("FINEVOICE_BASE_URL", emulator.url)
        yield commands
        runner.run(emulator.aclose())


@pytest.fixture
def quick_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the embedded emulators make effects in no time, and the command run on virtual time."""
    from finevoice_async.emulator import LogNormal

    def run(job: Coroutine[Any, Any, int]) -> int:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            return runner.run(job)

    monkeypatch.setattr(LogNormal, "__call__", lambda self, request, rng: 0.01)
    monkeypatch.setattr(asyncio, "run", run)


Run = Callable[..., Result]


@pytest.fixture
def run() -> Run:
    """Run a command as if it were typed."""
    return lambda *arguments: CliRunner().invoke(app, list(arguments))
