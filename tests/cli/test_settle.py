"""`finevoice journal` settles what is perhaps paid, and removes what is old."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from journals import WAYS, opened, row_in, sql

from finevoice_async import EffectState
from finevoice_async.cli import exits


@pytest.fixture
def journal(commands: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A journal with a row in each state, in their order from 1; and no key in the environment."""

    async def write() -> None:
        journal = await opened(tmp_path / "j.db")
        for state in WAYS:
            await row_in(journal, state, key=state.value)
        await journal.aclose()

    commands.do(write())
    return "j.db"


def row_of(state: EffectState) -> str:
    """Return the number of the row in a state."""
    return str(list(WAYS).index(state) + 1)


def states(path: Path) -> dict[str, str]:
    """Return the states by key."""
    return dict(sql(path, "SELECT key, state FROM effects"))


def test_adopt(commands: Any, journal: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row gets the task that was found in the account, without a key and without a call."""
    monkeypatch.delenv("FINEVOICE_API_KEY")
    row = row_of(EffectState.UNKNOWN)
    result = commands("journal", journal, "--adopt", f"{row}=p1-found=1")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"Row {row} adopted as task p1-found=1; finevoice resume j.db fetches it.\n"
    assert sql(tmp_path / "j.db", f"SELECT state, task_id FROM effects WHERE id = {row}") == [
        ("submitted", "p1-found=1")
    ]
    assert commands.emulator.ledger.posts == commands.emulator.ledger.polls == 0


@pytest.mark.parametrize("state", [EffectState.QUEUED, EffectState.SENDING, EffectState.UNKNOWN, EffectState.LOST])
def test_discard(
    commands: Any, journal: str, tmp_path: Path, state: EffectState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in doubt or was never sent is given up, without a key; others stay as they are."""
    monkeypatch.delenv("FINEVOICE_API_KEY")
    before = states(tmp_path / "j.db")
    result = commands("journal", journal, "--discard", row_of(state), "--json")
    assert json.loads(result.stdout) == {"row": int(row_of(state)), "done": "discarded", "task_id": None}
    after = states(tmp_path / "j.db")
    assert after.pop(state.value) == "refused"
    assert after.items() <= (before | {"sending": "unknown"}).items()


@pytest.mark.parametrize("options", ["--adopt {row}=p1-x", "--discard {row}", "--resend {row} --accept-double-charge"])
@pytest.mark.parametrize("state", [EffectState.SAVED, EffectState.DONE, EffectState.FAILED, EffectState.REFUSED, None])
def test_what_is_settled_stays(
    commands: Any, journal: str, tmp_path: Path, options: str, state: EffectState | None
) -> None:
    """A row that is settled, or not there, is refused by its number, and nothing is sent."""
    row = "77" if state is None else row_of(state)
    before = states(tmp_path / "j.db")
    result = commands("journal", journal, *options.format(row=row).split())
    assert result.exit_code == exits.WRONG_USE
    assert f"row {row} " in result.stderr.lower()
    assert states(tmp_path / "j.db") == before | {"sending": "unknown"}
    assert commands.emulator.ledger.posts == 0


def test_a_task_has_one_row(commands: Any, journal: str, tmp_path: Path) -> None:
    """A task that belongs to another row cannot be adopted."""
    (task_id,) = sql(tmp_path / "j.db", "SELECT task_id FROM effects WHERE state = 'saved'")[0]
    result = commands("journal", journal, "--adopt", f"{row_of(EffectState.UNKNOWN)}={task_id}")
    assert result.exit_code == 7
    assert f"belongs to row {row_of(EffectState.SAVED)}" in result.stderr


@pytest.mark.parametrize("state", [EffectState.UNKNOWN, EffectState.LOST, EffectState.SENDING])
def test_resend(commands: Any, journal: str, tmp_path: Path, state: EffectState) -> None:
    """Whoever accepts to pay twice sends a row again, once, and only that one."""
    sql(tmp_path / "j.db", "DELETE FROM effects WHERE state = 'submitted'")
    result = commands("journal", journal, "--resend", row_of(state), "--accept-double-charge")
    assert result.exit_code == 0, result.output
    (task_id,) = commands.emulator.ledger.accepted
    assert f"Row {row_of(state)} sent again as task {task_id}" in result.stdout
    assert states(tmp_path / "j.db")[state.value] in ("submitted", "done")
    assert commands.emulator.ledger.posts == 1


def test_resend_needs_consent(commands: Any, journal: str, tmp_path: Path) -> None:
    """Without the words for it nothing is sent and nothing is changed."""
    before = states(tmp_path / "j.db")
    result = commands("journal", journal, "--resend", row_of(EffectState.UNKNOWN))
    assert result.exit_code == exits.WRONG_USE
    assert "--accept-double-charge" in result.stderr
    assert "accept_double_charge" not in result.stderr
    assert states(tmp_path / "j.db") == before
    assert commands.emulator.ledger.posts == 0


def test_resend_needs_a_key(commands: Any, journal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sent needs the key."""
    monkeypatch.delenv("FINEVOICE_API_KEY")
    result = commands("journal", journal, "--resend", row_of(EffectState.UNKNOWN), "--accept-double-charge")
    assert result.exit_code == exits.WRONG_USE
    assert "FINEVOICE_API_KEY" in result.stderr


def test_resend_that_is_stopped(commands: Any, journal: str, tmp_path: Path) -> None:
    """Stopped while its answer is due, a row that was sent again is perhaps paid, and shown by the next command."""
    sql(tmp_path / "j.db", "DELETE FROM effects WHERE state = 'submitted'")
    commands.emulator.inject("submit.hang")
    row = row_of(EffectState.UNKNOWN)
    result = commands.interrupted(2, "journal", journal, "--resend", row, "--accept-double-charge")
    assert result.exit_code == exits.INTERRUPTED
    assert "perhaps paid" in result.stderr
    assert result.stderr.splitlines()[-1].strip() == "finevoice journal j.db --state perhaps-paid"
    assert states(tmp_path / "j.db")["unknown"] == "unknown"


def test_several_at_once(commands: Any, journal: str, tmp_path: Path) -> None:
    """Several rows are settled by one command."""
    lost, unknown, queued = (row_of(EffectState[name]) for name in ("LOST", "UNKNOWN", "QUEUED"))
    options = ("--adopt", f"{lost}=p1-l", "--adopt", f"{unknown}=p1-u", "--discard", queued, "--json")
    told = [json.loads(line) for line in commands("journal", journal, *options).stdout.splitlines()]
    assert [(line["row"], line["done"]) for line in told] == [
        (int(lost), "adopted"),
        (int(unknown), "adopted"),
        (int(queued), "discarded"),
    ]


def test_prune(commands: Any, journal: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settled rows that are older are removed, and no other; how many is said."""
    monkeypatch.delenv("FINEVOICE_API_KEY")
    assert "0 rows removed" in commands("journal", journal, "--prune", "30d").stdout
    sql(tmp_path / "j.db", "UPDATE effects SET updated_at = '2020-01-01T00:00:00.000000+00:00' WHERE state <> 'failed'")
    before = states(tmp_path / "j.db")
    result = commands("journal", journal, "--prune", "30d")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("2 rows removed")
    kept = states(tmp_path / "j.db")
    assert before.keys() - kept.keys() == {"saved", "refused"}
    sql(tmp_path / "j.db", "UPDATE effects SET updated_at = '2020-01-01T00:00:00.000000+00:00'")
    assert json.loads(commands("journal", journal, "--prune", "12h", "--json").stdout) == {"pruned": 1}
    assert states(tmp_path / "j.db").keys() == {"queued", "sending", "submitted", "done", "unknown", "lost"}
