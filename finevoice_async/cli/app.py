"""The commands and their options. What they do is in the modules beside this one, imported when needed."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from finevoice_async.cli import helps
from finevoice_async.cli.batch_commands import add_to as add_batch_commands
from finevoice_async.cli.exits import EPILOG
from finevoice_async.cli.fleet_commands import add_to as add_fleet_commands
from finevoice_async.cli.group import Commands
from finevoice_async.cli.report import add_to as add_report_command
from finevoice_async.cli.runner import finish
from finevoice_async.cli.spans import parse_span
from finevoice_async.cli.talk import as_text, version
from finevoice_async.config import BASE_URL_VARIABLE

app = typer.Typer(
    cls=Commands,
    help=helps.FINEVOICE,
    epilog=EPILOG,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error, and what is logged.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line, errors included.")]
Prompt = Annotated[str | None, typer.Argument(metavar="PROMPT", help="What should be heard.")]
Output = Annotated[
    str,
    typer.Option(
        "-o",
        "--output",
        metavar="FILE",
        help="The file; without a suffix (new3) it gets that of the sound (new3.wav). Or a folder, for a name made of "
        "the prompt. Or - for standard output. Folders that are missing are made.",
    ),
]
Folder = Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder for the files.")]
Embedded = Annotated[bool, typer.Option("--emulator", help="Use an embedded emulator: no key, no cost.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")]
JournalOption = Annotated[
    str | None,
    typer.Option(
        "--journal",
        metavar="FILE",
        help="A file that keeps every effect through crashes; made if need be. Or the URL of a fleet's database.",
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        metavar="NAME",
        help="Your name for the effect, with --journal: the same again is found, not paid again.",
    ),
]
BaseUrl = Annotated[
    str | None, typer.Option("--base-url", metavar="URL", help="The service's address.", envvar=BASE_URL_VARIABLE)
]
Duration = Annotated[float | None, typer.Option(metavar="SECONDS", help="How long the sound is, at most 30.")]
Port = Annotated[int, typer.Option(min=0, max=65535, metavar="PORT", help="The port; 0 takes a free one.")]
JournalArgument = Annotated[
    str, typer.Argument(metavar="FILE", help="The journal; or the URL of a fleet's database, with the key set.")
]
Limit = Annotated[int | None, typer.Option("--plan-limit", min=1, metavar="N", help="Tasks that may run at once.")]
Faults = Annotated[
    list[str] | None,
    typer.Option(
        "--fault",
        metavar="NAME=PROB",
        help="What goes wrong, and how likely: submit.lose_reply=0.1. May be repeated; a wrong name lists them all.",
    ),
]
TaskId = Annotated[
    str, typer.Argument(metavar="TASK_ID", help="The task's id, as `generate` or the service showed it.")
]


def _typed(base_url: str | None) -> str | None:
    """Return the address if it was typed: the next command finds that of the environment by itself."""
    return None if base_url == os.environ.get(BASE_URL_VARIABLE) else base_url


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"finevoice-async {version()}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def finevoice(
    context: typer.Context,
    version_: Annotated[  # noqa: ARG001 - its callback has done it
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Show the help if there is no command."""
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit


@app.command(epilog=EPILOG, help=helps.GENERATE)
def generate(
    prompt: Prompt = None,
    output: Output = ".",
    negative_prompt: Annotated[str | None, typer.Option(metavar="TEXT", help="Sounds to avoid.")] = None,
    source_url: Annotated[
        str | None, typer.Option(metavar="URL", help="An image or video to make sound for; with --source-type.")
    ] = None,
    source_type: Annotated[str | None, typer.Option(metavar="KIND", help="image or video.")] = None,
    duration: Duration = None,
    use_async: Annotated[bool, typer.Option("--async/--sync", help="Poll, or let the service hold its answer.")] = True,
    overwrite: Overwrite = False,
    key: Key = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="With --key: if it failed before, pay for another try.")
    ] = False,
    journal: JournalOption = None,
    base_url: BaseUrl = None,
    emulator: Embedded = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Make one sound effect and save it. It costs one effect of your plan."""
    from finevoice_async.cli.generate import Wish, generate_one
    from finevoice_async.cli.kept import as_place
    from finevoice_async.cli.place import Place

    wish = Wish(
        fields={
            "prompt": as_text(prompt),
            "negative_prompt": as_text(negative_prompt),
            "source_url": source_url,
            "source_type": source_type,
            "duration": duration,
            "use_async": use_async,
        },
        place=Place(output, overwrite=overwrite),
        key=as_text(key),
        retry_failed=retry_failed,
        journal=None if journal is None else as_place(journal),
        base_url=base_url,
        given_url=_typed(base_url),
        emulator=emulator,
        as_json=as_json,
    )
    finish(generate_one(wish), as_json=as_json, debug=debug)


@app.command(epilog=EPILOG, help=helps.FETCH)
def fetch(
    task_id: TaskId,
    output: Output = ".",
    overwrite: Overwrite = False,
    journal: JournalOption = None,
    base_url: BaseUrl = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Save the result of a task of another run or day. It costs nothing."""
    from finevoice_async.cli.generate import Wish
    from finevoice_async.cli.generate import fetch as run
    from finevoice_async.cli.kept import as_place
    from finevoice_async.cli.place import Place

    wish = Wish(
        place=Place(output, overwrite=overwrite),
        journal=None if journal is None else as_place(journal),
        base_url=base_url,
        given_url=_typed(base_url),
        as_json=as_json,
    )
    finish(run(wish, task_id), as_json=as_json, debug=debug, idle="Nothing was fetched")


@app.command(epilog=EPILOG, help=helps.DEMO)
def demo(out: Folder = Path("effects"), as_json: Json = False, debug: Debug = False) -> None:
    """Make a dozen effects at once on an embedded emulator. It costs nothing."""
    from finevoice_async.cli.demo import run_demo

    finish(run_demo(out, as_json=as_json), as_json=as_json, debug=debug, idle="Nothing was made", free=True)


@app.command(epilog=EPILOG, help=helps.EMULATOR)
def emulator(
    port: Port = 0,
    api_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="The key that it accepts; else one is made up.")
    ] = None,
    service_time: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Seconds that each effect takes; else about 4.")
    ] = None,
    speed: Annotated[float, typer.Option(metavar="TIMES", help="How many times faster than that.")] = 1.0,
    plan_limit: Limit = None,
    credits: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Effects that can be paid; then it answers 402.")
    ] = None,
    dialect: Annotated[
        str, typer.Option(metavar="NAME", help="How it answers: reference, quickstart, or mixed.")
    ] = "mixed",
    fault: Faults = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Repeats the same ids, times and chances; else all are new.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Serve an emulated FineVoice until Ctrl-C."""
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
    finish(serve(options, fault or []), as_json=False, debug=debug, free=True)


@app.command(epilog=EPILOG, help=helps.JOURNAL)
def journal(
    journal: JournalArgument,
    state: Annotated[
        list[str] | None,
        typer.Option("--state", metavar="STATE", help="Show only these, such as saved, unknown or perhaps-paid."),
    ] = None,
    adopt: Annotated[
        list[str] | None, typer.Option("--adopt", metavar="ROW=TASK", help="Perhaps paid: this is its task.")
    ] = None,
    discard: Annotated[
        list[int] | None, typer.Option("--discard", metavar="ROW", min=1, help="Perhaps paid, or queued: give it up.")
    ] = None,
    resend: Annotated[
        list[int] | None, typer.Option("--resend", metavar="ROW", min=1, help="Perhaps paid: send it again.")
    ] = None,
    accept_double_charge: Annotated[
        bool, typer.Option("--accept-double-charge", help="With --resend: it may cost a second time.")
    ] = False,
    prune: Annotated[
        timedelta | None,
        typer.Option(
            parser=parse_span,
            metavar="AGE",
            help="Remove what is saved, refused or failed and older, such as 30d or 12h.",
        ),
    ] = None,
    base_url: BaseUrl = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what a journal keeps, or settle it. Only --resend may cost something."""
    from finevoice_async.cli.journal import parse_state, show_journal
    from finevoice_async.cli.kept import as_place
    from finevoice_async.cli.settle import Settlement, parse_adoption, settle

    states = tuple(found for name in state or () for found in parse_state(name))
    wanted = Settlement(
        adopt=[parse_adoption(text) for text in adopt or ()],
        discard=discard or (),
        resend=resend or (),
        accept_double_charge=accept_double_charge,
        prune=prune,
    )
    if wanted and states:
        raise typer.BadParameter(
            "--state shows effects, and --adopt, --discard, --resend and --prune change them: two runs."
        )
    if wanted:
        job = settle(as_place(journal), wanted, base_url=base_url, as_json=as_json)
        finish(job, as_json=as_json, debug=debug, free=not resend)
    finish(show_journal(as_place(journal), states, as_json=as_json), as_json=as_json, debug=debug, free=True)


@app.command(epilog=EPILOG, help=helps.RESUME)
def resume(
    journal: JournalArgument,
    out: Folder = Path("effects"),
    base_url: BaseUrl = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Pick up what an interrupted run left in a journal."""
    from finevoice_async.cli.kept import as_place
    from finevoice_async.cli.resume import resume as run

    job = run(as_place(journal), out, base_url=base_url, given_url=_typed(base_url), as_json=as_json)
    finish(job, as_json=as_json, debug=debug)


add_batch_commands(app)
add_report_command(app)
add_fleet_commands(app)
