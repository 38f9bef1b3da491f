"""What README says of fleets runs as it is printed, with another database."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import PATIENCE, Served, served
from fleets import sql
from queues import jobs
from test_readme import COMMANDS, DATABASE, FLEETS

import finevoice_async

pytestmark = pytest.mark.real_time


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A service that programs find by the environment."""
    with served(service_time=0.1, quick_sounds=True) as service:
        monkeypatch.setenv("FINEVOICE_API_KEY", "k")
        monkeypatch.setenv("FINEVOICE_BASE_URL", service.emulator.url)
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        monkeypatch.setenv("PYTHONPATH", str(Path(finevoice_async.__file__).parents[1]))  # programs run this package
        monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
        monkeypatch.chdir(tmp_path)
        yield service


def run(*command: str) -> str:
    """Run something, see that it ends well, and return what it says on standard error."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_the_commands(service: Served, empty_url: str) -> None:
    """An empty database becomes a fleet's, once and again, and shows itself."""
    (block,) = [block for block in COMMANDS if DATABASE in block]
    commands = [line for line in block.splitlines() if line.startswith("finevoice")]
    assert len(commands) == 2
    for init, look in (commands, commands):
        assert "is ready" in run("bash", "-ec", init.replace(DATABASE, empty_url))
        run("bash", "-ec", look.replace(DATABASE, empty_url))
    assert sql(empty_url, "SELECT count(*) FROM finevoice.effects") == [(0,)]


def test_the_programs(service: Served, queue_url: str) -> None:
    """Run twice, one makes one effect, and the other queues one."""
    assert len(FLEETS) == 2
    for program in [*FLEETS, *FLEETS]:
        assert not run(sys.executable, "-W", "error", "-c", program.replace(DATABASE, queue_url))
    accepted = service.emulator.ledger.accepted.values()
    assert [task.request.prompt for task in accepted] == ["Door creaks open"]
    assert {(key, status) for key, status, _ in jobs(queue_url)} == {("scene 3, bell", "todo")}
