"""The help reads well on a terminal: it fits, and says what a command costs, how it is used and how it ends."""

from __future__ import annotations

from typing import Any

import pytest
from commands import COLUMNS

COMMANDS = ("generate", "fetch", "demo", "emulator", "journal", "resume", "plan", "batch", "report", "fleet", "worker")


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(COLUMNS))


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_it_fits(run: Any, name: str) -> None:
    """No line is longer than a terminal is wide, none is cut, and the exit codes are a list of their own, once."""
    lines = run(*name.split(), "--help").output.splitlines()
    assert max(map(len, lines)) <= COLUMNS
    assert "..." not in " ".join(lines).replace("FINEVOICE_API_KEY=...", "").replace("[ARGS]...", "")
    assert lines.count("  Exit codes:") == 1
    assert "    2    wrong use, or no place for the result: nothing was sent" in lines


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("generate", "costs one effect"),
        ("fetch", "costs nothing"),
        ("demo", "costs nothing"),
        ("emulator", "costs nothing"),
        ("journal", "Only --resend may cost"),
        ("resume", "costs one effect each"),
        ("fleet", "costs nothing"),
        ("worker", "Each new effect costs one"),
    ],
)
def test_what_it_costs(run: Any, name: str, words: str) -> None:
    """Each command says what it costs."""
    assert words in " ".join(run(name, "--help").output.split())


@pytest.mark.parametrize("name", ["generate", "fetch", "emulator", "journal", "resume", "fleet", "worker"])
def test_examples(run: Any, name: str) -> None:
    """Each command that takes something has an example that stands on a line of its own."""
    assert f"    finevoice {name}" in run(name, "--help").output


def test_what_a_file_is_called(run: Any) -> None:
    """How a name without a suffix gets one is said."""
    assert "without a suffix (new3) it gets that of the sound (new3.wav)" in " ".join(
        run("generate", "--help").output.split()
    )
