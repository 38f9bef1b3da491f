"""`finevoice emulator`: its options."""

from __future__ import annotations

import asyncio
import shlex
from typing import Any

import pytest
from typer.testing import CliRunner

from finevoice_async import FineVoiceSession, errors
from finevoice_async.cli.app import app
from finevoice_async.cli.serve import make_emulator, serve

run = CliRunner().invoke


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--speed", "nan"], "speed must be finite and above 0"),
        (["--speed", "0"], "speed must be finite and above 0"),
        (["--service-time", "-1"], "service_time must be 0 seconds or above"),
        (["--service-time", "soon"], "--service-time"),
        (["--credits", "-1"], "--credits"),
        (["--plan-limit", "0"], "--plan-limit"),
        (["--port", "65536"], "--port"),
        (["--seed", "x"], "--seed"),
        (["--dialect", "klingon"], "reference, quickstart, mixed"),
        (["--api-key", ""], "the API key must be printable ASCII"),
        (["--api-key", "two words"], "the API key must be printable ASCII"),
        (["--fault", "submit.flop=1"], "no fault is called 'submit.flop'; there are submit.lose_reply, "),
        (["--fault", "submit.hang"], "--fault takes NAME=PROB, as in submit.hang=0.1, not 'submit.hang'"),
        (["--fault", "submit.hang=often"], "--fault takes NAME=PROB"),
        (["--fault", "submit.hang=1.5"], "from 0 to 1, not 1.5"),
        (["--fault", "submit.hang=nan"], "from 0 to 1, not nan"),
        (["--fault", "submit.hang=1", "--fault", "submit.hang=0"], "submit.hang is given twice"),
    ],
)
def test_options_that_make_no_sense(arguments: list[str], word: str) -> None:
    """Each is refused in a line that says what is wrong, before anything is served."""
    result = run(app, ["emulator", *arguments], env={"COLUMNS": "200"})
    assert result.exit_code == 2, result.output
    assert word in result.stderr
    assert "export" not in result.stdout
    assert "two words" not in result.output


def test_the_help_lists_the_options() -> None:
    """The help knows every option of the emulator."""
    told = run(app, ["emulator", "--help"], env={"COLUMNS": "200"}).output
    for name in ("port", "api-key", "service-time", "speed", "fault", "dialect", "credits", "plan-limit", "seed"):
        assert f"--{name}" in told


async def test_options_are_used(no_leaks: object) -> None:
    """What is asked for on the command line is how the emulator behaves."""
    options: dict[str, Any] = {
        "api_key": "it's",
        "service_time": 3.0,
        "speed": 1.5,
        "plan_limit": 4,
        "credits": 1,
        "dialect": "quickstart",
        "seed": 6,
    }
    async with make_emulator(options, ["task.fail=1", "submit.reject = 0"]) as emulator:
        async with FineVoiceSession("it's", base_url=emulator.url) as session:
            with pytest.raises(errors.TaskFailedError):
                await session.generate("rain")
            with pytest.raises(errors.InsufficientCreditsError):
                await session.generate("rain")
        assert (emulator.plan_limit, emulator.seed, emulator.ledger.service_times) == (4, 6, [2.0])
        assert next(iter(emulator.ledger.accepted)).startswith("p1-")


async def test_the_shell_can_read_the_key(no_leaks: object, capsys: pytest.CaptureFixture[str]) -> None:
    """A key with quotes is printed so that the shell takes it as it is."""
    serving = asyncio.create_task(serve({"api_key": "it's"}, []))
    await asyncio.sleep(1)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    url, key, *_ = capsys.readouterr().out.splitlines()
    assert shlex.split(url)[1].startswith("FINEVOICE_BASE_URL=http://127.0.0.1:")
    assert shlex.split(key) == ["export", "FINEVOICE_API_KEY=it's"]
