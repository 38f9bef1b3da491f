"""The options of `finevoice plan` and `finevoice batch`."""

from __future__ import annotations

import os
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated

import typer

from finevoice_async.cli import helps
from finevoice_async.cli.exits import EPILOG
from finevoice_async.cli.runner import finish
from finevoice_async.config import BASE_URL_VARIABLE


def parse_money(text: str) -> Decimal:
    """Return an amount above 0.

    Raises:
        typer.BadParameter: It is none.
    """
    try:
        amount = Decimal(text.strip())
    except InvalidOperation:
        amount = Decimal(0)
    if not (amount.is_finite() and 0 < amount < 10**12 and -amount.as_tuple().exponent <= 12):  # type: ignore[operator]  # finite: it is a number
        raise typer.BadParameter(f"{text!r} is no amount of money. Write a number, such as 0.05 or 20.")
    return amount


ManifestFile = Annotated[
    str, typer.Argument(metavar="MANIFEST", help="CSV, JSON Lines, TOML, or a prompt a line; - for standard input.")
]
Out = Annotated[Path, typer.Option("--out", help="The folder for the files.")]
Price = Annotated[
    Decimal | None,
    typer.Option("--price-per-effect", parser=parse_money, metavar="P", help="What one costs; see your account."),
]
Concurrency = Annotated[int, typer.Option(min=1, help="How many your plan lets run at once.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, an object a line, and nothing else.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error, and what is logged.")]
BaseUrl = Annotated[str | None, typer.Option("--base-url", help="The service's address.", envvar=BASE_URL_VARIABLE)]


def plan(
    manifest: ManifestFile,
    out: Out = Path("effects"),
    price_per_effect: Price = None,
    concurrency: Concurrency = 5,
    base_url: BaseUrl = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run the command."""
    from finevoice_async.cli.plan import show_plan
    from finevoice_async.cli.runs import Purse

    purse = Purse(price=price_per_effect)
    job = show_plan(manifest, out, purse=purse, concurrency=concurrency, base_url=base_url, as_json=as_json)
    finish(job, as_json=as_json, debug=debug, free=True)


def batch(
    manifest: ManifestFile,
    out: Out = Path("effects"),
    concurrency: Concurrency = 5,
    max_effects: Annotated[int | None, typer.Option(min=1, help="Submit at most so many.")] = None,
    budget: Annotated[
        Decimal | None,
        typer.Option(parser=parse_money, metavar="MONEY", help="Pay at most so much; needs --price-per-effect."),
    ] = None,
    price_per_effect: Price = None,
    limit: Annotated[int | None, typer.Option(min=0, help="Begin at most so many sounds.")] = None,
    only: Annotated[str | None, typer.Option(metavar="GLOB", help="Only keys or files like this: 'scene3/*'.")] = None,
    remake: Annotated[
        bool, typer.Option("--remake", help="Pay for what changed, as new takes; what is there stays.")
    ] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Pay again for what failed before.")] = False,
    reroll_silent: Annotated[
        int, typer.Option(min=0, max=20, metavar="N", help="At most N more takes of a sound that came silent.")
    ] = 0,
    format: Annotated[  # noqa: A002 - as it is typed
        str | None,
        typer.Option("--format", metavar="wav|flac|ogg", help="Make finished copies in this format, beside the files."),
    ] = None,
    trim: Annotated[bool, typer.Option("--trim", help="Make finished copies without silence at both ends.")] = False,
    peak: Annotated[
        float | None, typer.Option("--peak", min=-120, max=0, metavar="DB", help="Make finished copies so loud.")
    ] = None,
    max_failures: Annotated[int | None, typer.Option(min=1, help="Stop after so many failures.")] = None,
    frozen: Annotated[bool, typer.Option("--frozen", help="Exit with 8 rather than pay for anything: for CI.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before paying.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and send nothing.")] = False,
    journal: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Keep the journal in a fleet's database: several machines share the work."),
    ] = None,
    no_journal: Annotated[bool, typer.Option("--no-journal", help="Keep no journal: a crash may cost money.")] = False,
    emulator: Annotated[bool, typer.Option("--emulator", help="Use an embedded emulator: no key, no cost.")] = False,
    base_url: BaseUrl = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show errors only.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run the command."""
    from finevoice_async.batch import BatchOptions, Finish
    from finevoice_async.cli.batch import Job
    from finevoice_async.cli.batch import batch as run
    from finevoice_async.cli.runs import Purse

    job = Job(
        manifest=manifest,
        out=out,
        options=BatchOptions(
            remake=remake,
            retry_failed=retry_failed,
            limit=limit,
            only=only,
            max_failures=max_failures,
            reroll_silent=reroll_silent,
            emulated=emulator,
            finish=Finish(format=format, trim=trim, peak_db=peak) if format or trim or peak is not None else None,
        ),
        purse=Purse(max_effects=max_effects, budget=budget, price=price_per_effect),
        concurrency=concurrency,
        journal=not no_journal,
        database=journal,
        frozen=frozen,
        yes=yes,
        dry_run=dry_run,
        emulator=emulator,
        base_url=None if base_url == os.environ.get(BASE_URL_VARIABLE) else base_url,
        as_json=as_json,
        quiet=quiet,
    )
    finish(run(job), as_json=as_json, debug=debug, free=emulator or dry_run)


def add_to(app: typer.Typer) -> None:
    """Add both commands."""
    app.command(help=helps.PLAN, epilog=EPILOG)(plan)
    app.command(help=helps.BATCH, epilog=EPILOG)(batch)
