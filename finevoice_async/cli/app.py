"""The commands and their options. What they do is in the modules beside this one, imported when needed."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from finevoice_async.cli import exits

EPILOG = (
    "Exit codes: 0 done, 1 other, 2 wrong use, 3 refused, 4 not done, 5 unknown and perhaps paid, 6 not saved, "
    "7 journal, 130 interrupted."
)

app = typer.Typer(
    help="Sound effects from FineVoice, many at once. Try `finevoice demo`: it needs no key.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error, and what is logged.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Prompt = Annotated[str | None, typer.Argument(help="What should be heard.")]
Output = Annotated[str, typer.Option("-o", "--output", help="The file, or a folder (for a name made of the prompt).")]
Folder = Annotated[Path, typer.Option("--out", help="The folder for the files.")]
Embedded = Annotated[bool, typer.Option("--emulator", help="Use an embedded emulator: no key, no cost.")]
JournalFile = Annotated[Path | None, typer.Option("--journal", help="A file that keeps every effect through crashes.")]
BaseUrl = Annotated[str | None, typer.Option("--base-url", help="The service's address.", envvar="FINEVOICE_BASE_URL")]
Duration = Annotated[float | None, typer.Option(help="Seconds, at most 30.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")]
File = Annotated[Path, typer.Argument(help="The journal.")]
Limit = Annotated[int | None, typer.Option("--plan-limit", min=1, help="Tasks that may run at once.")]
Faults = Annotated[
    list[str] | None,
    typer.Option(
        "--fault",
        metavar="NAME=PROB",
        help="What goes wrong, and how likely: submit.lose_reply=0.1. May be repeated; a wrong name lists them all.",
    ),
]


@app.command()
def generate(
    prompt: Prompt = None,
    output: Output = ".",
    negative_prompt: Annotated[str | None, typer.Option(help="Sounds to avoid.")] = None,
    source_url: Annotated[str | None, typer.Option(help="An image or video to make sound for.")] = None,
    source_type: Annotated[str | None, typer.Option(help="image or video.")] = None,
    duration: Duration = None,
    use_async: Annotated[bool, typer.Option("--async/--sync", help="Poll, or let the service hold its answer.")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")] = False,
    journal: JournalFile = None,
    base_url: BaseUrl = None,
    emulator: Embedded = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Make one sound effect and save it."""
    from finevoice_async.cli.generate import Wish, generate_one

    fields: dict[str, Any] = {
        "prompt": prompt,
        "negative_prompt": negative_prompt,
        "source_url": source_url,
        "source_type": source_type,
        "duration": duration,
        "use_async": use_async,
    }
    wish = Wish(fields, output, overwrite=overwrite, journal=journal, base_url=base_url, emulator=emulator)
    _finish(generate_one(wish, as_json=as_json), as_json=as_json, debug=debug)


@app.command()
def demo(out: Folder = Path("effects"), debug: Debug = False) -> None:
    """Make a dozen effects at once on an embedded emulator: no key, no network, real audio."""
    from finevoice_async.cli.demo import run_demo

    _finish(run_demo(out), as_json=False, debug=debug)


@app.command()
def emulator(
    port: Port = 0,
    api_key: Annotated[str | None, typer.Option(help="The key that it accepts; else one is made up.")] = None,
    service_time: Annotated[float | None, typer.Option(help="Seconds that each effect takes; else about 4.")] = None,
    speed: Annotated[float, typer.Option(help="How many times faster than that.")] = 1.0,
    plan_limit: Limit = None,
    credits: Annotated[int | None, typer.Option(min=0, help="Effects that can be paid; then it answers 402.")] = None,
    dialect: Annotated[str, typer.Option(help="How it answers: reference, quickstart, or mixed.")] = "mixed",
    fault: Faults = None,
    seed: Annotated[int | None, typer.Option(help="Repeats the same ids, times and chances; else all are new.")] = None,
    debug: Debug = False,
) -> None:
    """Serve the emulator until Ctrl-C, and print how to use it."""
    from finevoice_async.cli.serve import serve

    options: dict[str, Any] = {
        "port": port,
        "api_key": api_key,
        "service_time": service_time,
        "speed": speed,
        "plan_limit": plan_limit,
        "credits": credits,
        "dialect": dialect,
        "seed": seed,
    }
    _finish(serve(options, fault or []), as_json=False, debug=debug)


@app.command()
def journal(file: File, as_json: Json = False, debug: Debug = False) -> None:
    """Show the effects that a journal keeps, by state."""
    from finevoice_async.cli.journal import show_journal

    _finish(show_journal(file, as_json=as_json), as_json=as_json, debug=debug)


@app.command()
def resume(file: File, out: Folder = Path("effects"), base_url: BaseUrl = None, debug: Debug = False) -> None:
    """Pick up what an interrupted run left in its journal, and save the results."""
    from finevoice_async.cli.journal import resume as run

    _finish(run(file, out, base_url=base_url), as_json=False, debug=debug)


def _finish(job: Coroutine[Any, Any, int], *, as_json: bool, debug: bool) -> None:
    """Run a job, and leave with its exit code; an error becomes a line and a code."""
    from finevoice_async.errors import FineVoiceError

    level = logging.DEBUG if debug else logging.CRITICAL
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(message)s")
    try:
        code = asyncio.run(job)
    except KeyboardInterrupt:
        code = exits.INTERRUPTED
    except (FineVoiceError, OSError) as error:
        if debug:
            raise
        code = exits.exit_code(error)
        if as_json:
            told = {"error": type(error).__name__, "message": str(error), "task_id": getattr(error, "task_id", None)}
            print(json.dumps(told))
        else:
            print(f"finevoice: {error}", file=sys.stderr)
    raise typer.Exit(code)
