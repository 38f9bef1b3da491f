"""`finevoice plan` and `finevoice batch`: from a list to a folder, paid for once."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from commands import PATIENCE, Terminal, end, served, start

from finevoice_async.batch import keeping
from finevoice_async.batch.checks import AudioCheck
from finevoice_async.cli import exits

TEN = [f"Sound number {i}" for i in range(10)]


def write(*rows: dict[str, Any], name: str = "m.jsonl") -> None:
    """Write a manifest of rows of a tenth of a second."""
    Path(name).write_text("".join(json.dumps({"duration": 0.1, **row}) + "\n" for row in rows))


@pytest.fixture
def two(commands: Any) -> Any:
    """Commands, and a manifest of two sounds."""
    write({"key": "a", "prompt": "Rain"}, {"key": "b", "prompt": "Bell"})
    return commands


def events(result: Any) -> list[dict[str, Any]]:
    """Return what was printed as JSON."""
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_plan_needs_no_key(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """`plan` counts and lists, says what it would cost, and neither sends nor writes anything."""
    write({"key": "a", "prompt": "Rain", "takes": 2}, {"key": "b", "prompt": "Bell"})
    result = run("plan", "m.jsonl", "--out", "out", "--price-per-effect", "0.05")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "m.jsonl: 2 sounds",
        "  3 new: to be paid for",
        "      a, line 1",
        "      a (take 2), line 1",
        "      b, line 2",
        "3 submissions would be paid for: 0.15 at 0.05 each; how long it takes is learned from the first ones.",
    ]
    assert not Path("out").exists()


def test_a_batch_in_a_pipe(two: Any) -> None:
    """Each file is a line on standard output, the counts come on standard error; again, nothing is paid."""
    result = two("batch", "m.jsonl", "--out", "out", "--price-per-effect", "0.5")
    assert result.exit_code == 0
    assert sorted(result.stdout.splitlines()) == ["out/a.wav", "out/b.wav"]
    assert result.stderr == "2 saved; 2 submissions paid for, 1.0.\n"
    again = two("batch", "m.jsonl", "--out", "out")
    assert (again.exit_code, again.stdout, again.stderr) == (0, "", "2 there already; 0 submissions paid for.\n")
    assert two.emulator.ledger.posts == 2


def test_a_deleted_journal_and_a_kept_lock(two: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its lock, a folder is whole for CI: without the journal, without a key, with exit code 0."""
    two("batch", "m.jsonl", "--out", "out")
    Path("out/.finevoice.db").unlink()
    monkeypatch.delenv("FINEVOICE_API_KEY")
    assert two("batch", "m.jsonl", "--out", "out", "--frozen").exit_code == 0
    assert "2 done" in two("plan", "m.jsonl", "--out", "out").stdout


def test_frozen(two: Any) -> None:
    """`--frozen` fails rather than pay, and names what it would have paid for; what changed is stale, too."""
    result = two("batch", "m.jsonl", "--out", "out", "--frozen")
    assert result.exit_code == exits.FROZEN == 8
    assert "2 sounds would be paid for" in result.stderr
    assert two.emulator.ledger.posts == 0
    two("batch", "m.jsonl", "--out", "out")
    write({"key": "a", "prompt": "Snow"}, {"key": "b", "prompt": "Bell"})
    result = two("batch", "m.jsonl", "--out", "out", "--frozen", "--json")
    assert (result.exit_code, events(result)[0]["changed"]) == (8, 1)


def test_a_changed_prompt(two: Any) -> None:
    """`plan` says one changed, `batch` pays nothing, `--remake` pays one."""
    two("batch", "m.jsonl", "--out", "out")
    write({"key": "a", "prompt": "Snow"}, {"key": "b", "prompt": "Bell"})
    assert "  1 changed: " in two("plan", "m.jsonl", "--out", "out").stdout
    result = two("batch", "m.jsonl", "--out", "out")
    assert (result.exit_code, two.emulator.ledger.posts) == (0, 2)
    assert "--remake" in result.stderr
    result = two("batch", "m.jsonl", "--out", "out", "--remake")
    assert (result.stdout, two.emulator.ledger.posts) == ("out/a-2.wav\n", 3)


def test_faults_of_a_manifest(run: Any) -> None:
    """All faults stand on lines of their own, with exit code 2, also for a program; nothing is made."""
    write({"key": "a", "prompt": ""}, {"key": "b", "prompt": "x", "duration": 99})
    for command in ("plan", "batch"):
        result = run(command, "m.jsonl", "--out", "out")
        assert result.exit_code == 2
        head, first, second = result.stderr.splitlines()
        assert head == "finevoice: m.jsonl has 2 faults. Nothing was sent."
        assert first.startswith("  m.jsonl:1: prompt must")
        assert second.startswith("  m.jsonl:2: duration must")
        (told,) = events(run(command, "m.jsonl", "--out", "out", "--json"))
        assert (told["exit_code"], [fault["line"] for fault in told["faults"]]) == (2, [1, 2])
    assert not Path("out").exists()


def test_a_dry_run(two: Any) -> None:
    """`--dry-run` shows what would be done and sends nothing."""
    result = two("batch", "m.jsonl", "--out", "out", "--dry-run", "--limit", "1")
    assert "1 submission would be paid for" in result.stdout
    assert (two.emulator.ledger.posts, Path("out").exists()) == (0, False)


def test_budgets(two: Any) -> None:
    """A budget in money or in effects bounds what a run pays; without a price, money means nothing."""
    result = two("batch", "m.jsonl", "--out", "out", "--budget", "0.19", "--price-per-effect", "0.1")
    assert result.exit_code == exits.NOT_DONE
    assert two.emulator.ledger.posts == 1
    assert "1 saved, 1 not begun; 1 submission paid for, 0.1." in result.stderr
    assert two("batch", "m.jsonl", "--out", "out", "--budget", "5").exit_code == 2
    assert two("batch", "m.jsonl", "--out", "out", "--budget", "0", "--price-per-effect", "1").exit_code == 2
    assert two("batch", "m.jsonl", "--out", "out", "--max-effects", "1").exit_code == 0
    assert two.emulator.ledger.posts == 2


def test_a_budget_goes_on_with_its_run(two: Any) -> None:
    """A run that was cut off does not get its budget again; one that came to its end does."""
    write(*({"key": str(i), "prompt": f"Rain {i}"} for i in range(6)))
    arguments = ("batch", "m.jsonl", "--out", "out", "--max-effects", "3", "--concurrency", "2")
    result = two.interrupted(1, *arguments)
    assert (result.exit_code, two.emulator.ledger.posts) == (130, 2)
    assert two(*arguments).exit_code == exits.NOT_DONE
    assert two.emulator.ledger.posts == 3
    assert two(*arguments).exit_code == 0
    assert two.emulator.ledger.posts == 6


def test_a_spent_budget_of_a_run(two: Any) -> None:
    """A run that was cut off with its budget spent fetches what is paid for, and pays nothing."""
    arguments = ("batch", "m.jsonl", "--out", "out", "--max-effects", "1", "--concurrency", "1")
    two.interrupted(1, *arguments)
    Path("out/a.wav").unlink()
    result = two(*arguments)
    assert result.exit_code == exits.NOT_DONE
    assert "was spent before" in result.stderr
    assert (two.emulator.ledger.posts, Path("out/a.wav").exists()) == (1, True)
    assert two(*arguments).exit_code == 0


def test_a_budget_counts_what_was_paid_for_twice(two: Any) -> None:
    """A sound that failed and was paid for again counts twice in the budget of a run that was cut off."""
    write(*({"key": key, "prompt": f"Rain {key}"} for key in "abc"))
    arguments = ("batch", "m.jsonl", "--out", "out", "--max-effects", "3", "--concurrency", "1", "--retry-failed")
    two.emulator.inject("task.fail")
    two.interrupted(6, *arguments)
    two.interrupted(1, *arguments)
    assert two.emulator.ledger.posts == 3  # a, b, and a again
    result = two(*arguments)
    assert (result.exit_code, two.emulator.ledger.posts) == (exits.NOT_DONE, 3)
    assert "was spent before" in result.stderr


def test_a_spent_budget_makes_nothing_in_place_of_silence(two: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run with a spent budget fetches may be silent: no other take of it is paid for."""
    monkeypatch.setattr(keeping, "check_file", lambda *_: AudioCheck(silent=True))
    arguments = ("batch", "m.jsonl", "--out", "out", "--max-effects", "1", "--concurrency", "1")
    two.interrupted(1, *arguments)
    Path("out/a.wav").unlink()
    result = two(*arguments, "--reroll-silent", "2")
    assert result.exit_code == exits.NOT_DONE
    assert "was spent before" in result.stderr
    assert two.emulator.ledger.posts == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal(commands: Any, monkeypatch: pytest.MonkeyPatch, number: int, code: int) -> None:
    """It submits no more, finishes what runs, saves it, and prints the command to go on with."""
    write(*({"key": str(i), "prompt": f"Rain {i}"} for i in range(6)))
    arguments = ("batch", "m.jsonl", "--out", "my out", "--concurrency", "2")
    monkeypatch.setattr("sys.argv", ["finevoice", *arguments])
    result = commands.interrupted(1, *arguments, number=number)
    assert result.exit_code == code
    assert sorted(result.stdout.splitlines()) == ["my out/0.wav", "my out/1.wav"]
    assert "Stopping: nothing more is submitted" in result.stderr
    assert result.stderr.splitlines()[-1] == "Go on with: finevoice batch m.jsonl --out 'my out' --concurrency 2"
    assert commands("batch", "m.jsonl", "--out", "my out").exit_code == 0
    assert commands.emulator.ledger.posts == 6


def test_the_second_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends at once, and names what runs; the next run fetches that and pays for the rest."""
    write(*({"key": str(i), "prompt": f"Rain {i}"} for i in range(4)))
    with served(service_time=60.0) as service:
        monkeypatch.setenv("FINEVOICE_API_KEY", "k")
        monkeypatch.setenv("FINEVOICE_BASE_URL", service.emulator.url)
        process = start("batch", "m.jsonl", "--out", "out", "--concurrency", "2", "--json")
        service.wait_until(lambda emulator: len(emulator.ledger.accepted) == 2)
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        assert {json.loads(line)["event"] for line in lines} == {"submitted"}
        process.send_signal(signal.SIGINT)
        assert json.loads(process.stdout.readline()) == {"event": "stopping"}  # two signals at once are one
        told, _ = end(process, signal.SIGINT)
        accepted = set(service.emulator.ledger.accepted)
    last = json.loads(told.splitlines()[-1])
    assert process.returncode == 130
    assert (set(last["task_ids"]), last["paid"], last["perhaps_paid"]) == (accepted, True, 0)
    assert last["continue"] == "finevoice batch m.jsonl --out out --concurrency 2 --json"


def test_events(two: Any) -> None:
    """With --json each submission, each end and the whole are objects."""
    two.emulator.inject("submit.lose_reply")
    result = two("batch", "m.jsonl", "--out", "out", "--json", "--concurrency", "1")
    assert result.exit_code == exits.UNKNOWN
    assert [event["event"] for event in events(result)] == ["unknown", "submitted", "saved", "end"]
    assert events(result)[0]["error"] == "SubmitUnknownError"
    assert events(result)[2]["path"] == "out/b.wav"
    last = events(result)[3]
    assert (last["saved"], last["perhaps_paid"], last["paid"], last["unknown_keys"]) == (1, 1, 1, [["a", 1]])
    assert result.stderr == ""


def test_what_is_perhaps_paid_can_be_settled(two: Any) -> None:
    """It is listed with the command that settles it; once its task is named, the next run fetches it."""
    two.emulator.inject("submit.lose_reply")
    result = two("batch", "m.jsonl", "--out", "out", "--concurrency", "1")
    assert "  a, take 1" in result.stderr.splitlines()
    assert "finevoice journal out/.finevoice.db --state perhaps-paid" in result.stderr
    (task_id,) = (id_ for id_, task in two.emulator.ledger.accepted.items() if task.request.prompt == "Rain")
    row = two("journal", "out/.finevoice.db", "--state", "perhaps-paid").stdout.split("\t")[0]
    two("journal", "out/.finevoice.db", "--adopt", f"{row}={task_id}")
    result = two("batch", "m.jsonl", "--out", "out")
    assert (result.exit_code, result.stdout, two.emulator.ledger.posts) == (0, "out/a.wav\n", 2)


def test_quiet(two: Any) -> None:
    """`--quiet` says nothing where nothing went wrong."""
    result = two("batch", "m.jsonl", "--out", "out", "--quiet")
    assert (result.exit_code, result.output) == (0, "")


def test_two_at_once(two: Any) -> None:
    """A folder has one batch at a time: the journal's owner."""
    from finevoice_async import FineVoiceSession

    async def meanwhile() -> Any:
        async with FineVoiceSession(journal="out/.finevoice.db") as session:
            await session.find(key="x")
            process = start("batch", "m.jsonl", "--out", "out")
            _, told = end(process)
            return process.returncode, told

    Path("out").mkdir()
    code, told = two.do(meanwhile())
    assert code == 7, told
    assert "in use" in told


def test_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first payment it asks; then one bar counts, and the whole is said."""
    write({"key": "a", "prompt": "Rain"}, {"key": "b", "prompt": "Bell"})
    with served(service_time=0.1) as service:
        monkeypatch.setenv("FINEVOICE_API_KEY", "k")
        monkeypatch.setenv("FINEVOICE_BASE_URL", service.emulator.url)
        refused = Terminal("batch", "m.jsonl", "--out", "out", "--price-per-effect", "2")
        text = refused.read_until("[y/N]")
        assert "2 submissions would be paid for: 4 at 2 each" in text
        refused.type("n\n")
        code, text = refused.end()
        assert (code, service.emulator.ledger.posts) == (exits.NOT_DONE, 0)
        assert "Nothing was sent." in text
        left = Terminal("batch", "m.jsonl", "--out", "out")
        left.read_until("[y/N]")
        left.press_ctrl_c()
        assert left.end()[0] == 130
        agreed = Terminal("batch", "m.jsonl", "--out", "out")
        agreed.read_until("[y/N]")
        agreed.type("y\n")
        code, text = agreed.end()
    assert code == 0
    assert "2 made, 0 left" in text
    assert "2 saved; 2 submissions paid for." in text
    assert Path("out/b.wav").exists()


def test_a_newcomer(tmp_path: Path) -> None:
    """Ten prompts in a text file become ten sounds on the emulator, with one command and no key."""
    Path("prompts.txt").write_text("\n".join(TEN))
    began = time.monotonic()
    process = start("batch", "prompts.txt", "--out", "sounds", "--emulator")
    told, words = process.communicate(timeout=2 * PATIENCE)
    assert process.returncode == 0, words
    assert len(told.splitlines()) == len(list(Path("sounds").glob("*.wav"))) == 10
    assert len(Path("prompts.txt.lock").read_text().splitlines()) == 10
    assert time.monotonic() - began < 60
