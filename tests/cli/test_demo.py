"""`finevoice demo`: what a newcomer sees first."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from commands import COLUMNS, PATIENCE, Terminal, start

from finevoice_async import DownloadError, SoundEffect
from finevoice_async.cli import exits
from finevoice_async.cli.serve import make_emulator


def test_demo(run: Any, tmp_path: Path, quick_emulator: None) -> None:
    """The demo makes a dozen different files and says what to type next."""
    result = run("demo", "--out", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    files = sorted((tmp_path / "out").glob("*.wav"))
    assert len({path.read_bytes() for path in files}) == len(files) == 12
    assert "Next:" in result.output


def test_what_it_says_next_is_true(run: Any, quick_emulator: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two lines for the program name the very port and key of the emulator that is shown beside them."""
    told = run("demo", "--out", "out").output
    (port, key) = re.findall(r"^  finevoice emulator --port (\d+) --api-key (\S+)$", told, re.MULTILINE)[0]
    assert f"\n  export FINEVOICE_BASE_URL=http://127.0.0.1:{port}\n" in told
    assert f"\n  export FINEVOICE_API_KEY={key}\n" in told
    assert make_emulator({"port": int(port), "api_key": key}, []).url == f"http://127.0.0.1:{port}"


def test_head_is_no_error(tmp_path: Path) -> None:
    """Whoever reads only the beginning gets all the files, and no error."""
    process = start("demo", "--out", "out")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    told = process.stderr.read()
    process.stderr.close()
    assert (process.wait(PATIENCE), told) == (0, "")
    assert len(list((tmp_path / "out").glob("*.wav"))) == 12


def test_as_json(run: Any, tmp_path: Path, quick_emulator: None) -> None:
    """With --json each effect is an object, and so is the sum; nothing else is said."""
    result = run("demo", "--out", "out", "--json")
    *effects, total = map(json.loads, result.stdout.splitlines())
    assert len({effect["path"] for effect in effects}) == total["effects"] == 12
    assert total["failed"] == 0
    assert result.stderr == ""


def test_in_an_impossible_folder(run: Any, tmp_path: Path) -> None:
    """A folder that cannot be made is one readable line."""
    (tmp_path / "file").write_text("")
    result = run("demo", "--out", str(tmp_path / "file"))
    assert result.exit_code == exits.WRONG_USE
    assert result.stderr == (
        f"finevoice: The result cannot be saved to {tmp_path / 'file'}/: file exists. Nothing was made.\n"
    )


def test_goes_on_after_a_failed_download(
    run: Any, tmp_path: Path, quick_emulator: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A result that cannot be saved is told, the others are saved, and the exit code says that one is missing."""
    save = SoundEffect._save

    async def fail_once(effect: SoundEffect, *arguments: Any, **options: Any) -> Path:
        if effect.request is not None and effect.request.prompt == "Footsteps on gravel":
            raise DownloadError("the disk is full")
        return await save(effect, *arguments, **options)

    monkeypatch.setattr(SoundEffect, "_save", fail_once)
    result = run("demo", "--out", "out")
    assert result.exit_code == 1
    assert "  failed  Footsteps on gravel: the disk is full" in result.stdout
    assert len(list((tmp_path / "out").glob("*.wav"))) == 11


def test_on_a_terminal() -> None:
    """On 80 columns no line is broken; Ctrl-C ends it, and says that nothing was paid."""
    terminal = Terminal("demo", "--out", "out")
    terminal.read_until("  saved   ")
    terminal.press_ctrl_c()
    code, told = terminal.end()
    assert code == exits.INTERRUPTED
    assert "/12" in told
    assert "nothing was paid" in told
    assert "Traceback" not in told
    assert max(len(line.split("\r")[-1]) for line in told.splitlines()) <= COLUMNS
