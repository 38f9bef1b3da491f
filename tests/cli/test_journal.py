"""`finevoice journal`: what a journal holds, for people, pipes and programs, whoever has it open."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import COLUMNS, COMMAND, PATIENCE, Terminal
from journals import WAYS, opened, row_in

from finevoice_async import EffectState, SfxRequest
from finevoice_async.cli import exits
from finevoice_async.core.ledger import Move

IN_DOUBT = {"sending", "unknown", "lost"}
V1 = Path(__file__).parent.parent / "samples" / "journal_v1.db"


def fill(path: Path) -> None:
    """Leave a journal with a row in each state; SENDING is what a crash left."""

    async def write() -> None:
        journal = await opened(path)
        for state in WAYS:
            await row_in(journal, state, key=f"scene {state.value}, door")
        await journal.aclose()

    with asyncio.Runner() as runner:
        runner.run(write())


@pytest.fixture
def journal(tmp_path: Path) -> str:
    """A journal with a row in each state."""
    fill(tmp_path / "j.db")
    return "j.db"


def test_a_pipe_gets_fields(run: Any, journal: str) -> None:
    """In a pipe each effect is a line of nine fields between tabs, in the order of an effect's life."""
    result = run("journal", journal)
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert [line[1] for line in lines] == [state.value for state in EffectState]
    assert {len(line) for line in lines} == {9}
    assert {line[1] for line in lines if line[2] == "perhaps paid"} == IN_DOUBT
    assert {line[2] for line in lines} == {"", "perhaps paid"}
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("names", "states"),
    [
        (["saved"], ["saved"]),
        (["SAVED", "done"], ["done", "saved"]),
        (["perhaps-paid"], ["sending", "unknown", "lost"]),
        (["perhaps paid", "lost"], ["sending", "unknown", "lost"]),
    ],
)
def test_states(run: Any, journal: str, names: list[str], states: list[str]) -> None:
    """`--state` shows only what it names, also what is perhaps paid."""
    options = [word for name in names for word in ("--state", name)]
    told = run("journal", journal, *options, "--json").stdout
    assert [json.loads(line)["state"] for line in told.splitlines()] == states


def test_json_has_every_field(run: Any, tmp_path: Path) -> None:
    """With --json each effect is an object with all that the journal knows, the request's fields included."""

    async def write() -> None:
        journal = await opened(tmp_path / "j.db")
        request = SfxRequest("rain\n\x1b[31m", negative_prompt="music", duration=2.5, use_async=False)
        row_id = (await journal.begin(request, key="ключ", state=EffectState.SENDING)).row.id
        await journal.move(row_id, Move.ACCEPT, task_id="p1-1")
        await journal.move(row_id, Move.LOSE, error="away")
        await journal.move(row_id, Move.ADOPT, task_id="p1-2")
        await journal.move(row_id, Move.FINISH, urls=("https://a.example/1.mp3",))
        await journal.move(row_id, Move.SAVE, path="/x.mp3", sha256="ab")
        await journal.aclose()

    with asyncio.Runner() as runner:
        runner.run(write())
    told = json.loads(run("journal", "j.db", "--json").stdout)
    moments = [told.pop(name) for name in ("created_at", "updated_at", "submitted_at")]
    assert all(moment.endswith("+00:00") for moment in moments)
    assert told == {
        "id": 1,
        "key": "ключ",
        "state": "saved",
        "perhaps_paid": False,
        "task_id": "p1-2",
        "past_task_ids": ["p1-1"],
        "urls": ["https://a.example/1.mp3"],
        "path": "/x.mp3",
        "sha256": "ab",
        "error": "away",
        "prompt": "rain\n\x1b[31m",
        "negative_prompt": "music",
        "source_url": None,
        "source_type": None,
        "duration": 2.5,
        "use_async": False,
    }
    line = run("journal", "j.db").stdout
    assert line.count("\n") == 1
    assert "\x1b" not in line


def test_a_terminal_gets_a_list(journal: str) -> None:
    """On 80 columns every line fits, and what is perhaps paid is told in words, with what settles it."""
    code, told = Terminal("journal", journal).end()
    assert code == 0
    assert max(map(len, told.splitlines())) <= COLUMNS
    for words in (
        "unknown, perhaps paid",
        "lost, perhaps paid",
        "9 effects",
        "3 effects perhaps paid",
        "sending may be under way",
        "--adopt ROW=TASK",
    ):
        assert words in told
    assert "\t" not in told


def test_head_is_no_error(tmp_path: Path) -> None:
    """Whoever reads only the beginning ends the command without a word, however long the journal is."""

    async def write() -> None:
        journal = await opened(tmp_path / "j.db")
        request = SfxRequest("x" * 2000)
        await asyncio.gather(*[journal.begin(request, key=None, state=EffectState.QUEUED) for _ in range(600)])
        await journal.aclose()

    with asyncio.Runner() as runner:
        runner.run(write())
    for options in ([], ["--json"]):
        process = subprocess.Popen(
            [*COMMAND, "journal", "j.db", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
        process.stderr.close()
        assert process.wait(PATIENCE) == 0


OWNER = """
import asyncio, sys
from finevoice_async import FineVoiceSession
async def own():
    async with FineVoiceSession("k", base_url=sys.argv[1], journal="j.db") as session:
        await session.submit("rain", key="a")
        print("open", flush=True)
        await asyncio.to_thread(sys.stdin.read)
asyncio.run(own())
"""


def test_while_a_program_has_it_open(commands: Any, tmp_path: Path) -> None:
    """A running program's file is read as it is now, the program keeps it, and nothing in the file changes."""
    from commands import served

    with (
        served(service_time=60.0) as service,
        subprocess.Popen(
            [sys.executable, "-c", OWNER, service.emulator.url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as owner,
    ):
        assert owner.stdout is not None
        assert owner.stdout.readline() == "open\n"
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        row = json.loads(commands("journal", "j.db", "--json").stdout)
        assert (row["state"], row["key"]) == ("submitted", "a")
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
        for options in (["--discard", "1"], ["--prune", "1d"], ["--adopt", "1=p1"]):
            refused = commands("journal", "j.db", *options)
            assert refused.exit_code == 7
            assert "in use" in refused.stderr
        owner.communicate("", timeout=PATIENCE)
        assert owner.returncode == 0


def test_in_the_program_that_has_it_open(run: Any, tmp_path: Path) -> None:
    """Read within the owner's own process, the file stays locked for others."""

    async def own() -> None:
        journal = await opened(tmp_path / "j.db")
        await journal.begin(SfxRequest("rain"), key="a", state=EffectState.QUEUED)
        result = await asyncio.to_thread(run, "journal", "j.db")
        assert result.stdout.startswith("1\tqueued\t")
        other = await asyncio.to_thread(
            subprocess.run, [*COMMAND, "journal", "j.db", "--discard", "1"], capture_output=True, text=True
        )
        assert (other.returncode, "in use" in other.stderr) == (7, True)
        await journal.aclose()

    with asyncio.Runner() as runner:
        runner.run(own())
    assert run("journal", "j.db", "--discard", "1").exit_code == 0


def test_an_older_file_is_not_touched(run: Any, tmp_path: Path) -> None:
    """A file of the first version is told in clear words and stays as it is."""
    (tmp_path / "j.db").write_bytes(V1.read_bytes())
    result = run("journal", "j.db")
    assert result.exit_code == 7
    assert "older" in result.stderr
    assert "finevoice resume" in result.stderr
    assert (tmp_path / "j.db").read_bytes() == V1.read_bytes()


def test_a_journal_that_is_not_there(run: Any, tmp_path: Path) -> None:
    """No journal is made by looking for one."""
    for arguments in (["journal"], ["resume"], ["journal", "--prune", "1d"], ["journal", "--discard", "1"]):
        assert run(arguments[0], "none.db", *arguments[1:]).exit_code == exits.WRONG_USE
    assert list(tmp_path.iterdir()) == []
