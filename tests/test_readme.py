"""The README's programs run as they are printed, against the emulator."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from finevoice_async.emulator import Emulator

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
DATABASE = "postgresql://me@db.example/sounds"
FLEETS = [block for block in BLOCKS if DATABASE in block]  # tried where there is one: see tests/fleet
PROGRAMS = [block for block in BLOCKS if "asyncio.run(" in block and block not in FLEETS]
TESTS = [block for block in BLOCKS if "def test_" in block]
COMMANDS = re.findall(r"^```sh\n(.*?)^```", README.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def test_every_block_is_tried() -> None:
    """Each block of Python is a program or a test."""
    assert len(PROGRAMS) + len(FLEETS) + len(TESTS) == len(BLOCKS)
    assert len(PROGRAMS) >= 4
    assert TESTS


@pytest.mark.parametrize("program", PROGRAMS, ids=range(len(PROGRAMS)))
def test_a_program(program: str, tmp_path: Path, finevoice_emulator: Emulator) -> None:
    """It ends well, says no word on standard error, and pays for each effect once; run again, too."""
    for run in (1, 2):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stderr) == (0, ""), f"run {run}: {done.stderr}"
    assert finevoice_emulator.ledger.accepted


@pytest.mark.parametrize("block", TESTS, ids=range(len(TESTS)))
def test_a_test(block: str, tmp_path: Path) -> None:
    """A test of the README's passes in a fresh project."""
    (tmp_path / "test_it.py").write_text(block, encoding="utf-8")
    options = ("[pytest]", "asyncio_mode = auto", "asyncio_default_fixture_loop_scope = function")
    (tmp_path / "pytest.ini").write_text("\n".join(options), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(300)
def test_a_list_of_sounds(tmp_path: Path) -> None:
    """The commands for a list make ten sounds and a page, for nothing and without a key."""
    (block,) = [block for block in COMMANDS if "finevoice batch" in block]
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {"PATH": paths, "HOME": str(tmp_path)}
    command = ["bash", "-ec", block]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(tmp_path.glob("sfx/*.wav"))) == 10
    assert (tmp_path / "sfx" / "report.html").is_file()
    assert (tmp_path / "sounds.txt.lock").is_file()
