"""The options of `finevoice fleet` and `finevoice worker`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from finevoice_async.cli import helps
from finevoice_async.cli.exits import EPILOG
from finevoice_async.cli.runner import finish
from finevoice_async.config import BASE_URL_VARIABLE

INIT = "init"

First = Annotated[str | None, typer.Argument(metavar="init", help="Make what is missing, and look at nothing.")]
Second = Annotated[str | None, typer.Argument(metavar="URL", help="The database: postgresql://user@host/database.")]
Url = Annotated[str, typer.Argument(metavar="URL", help="The database: postgresql://user@host/database.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, an object a line, and nothing else.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error, and what is logged.")]


def fleet(
    first: First = None,
    second: Second = None,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every two seconds, until Ctrl-C.")] = False,
    sql: Annotated[bool, typer.Option("--sql", help="With init: print what would be done, and do nothing.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run the command."""
    from finevoice_async.cli.fleet import init, show_fleet

    given = [word for word in (first, second) if word is not None]
    wants_init = given[:1] == [INIT]
    urls = given[1:] if wants_init else given
    if len(urls) > 1:
        raise typer.BadParameter("There is one database: finevoice fleet URL, or finevoice fleet init URL.")
    if wants_init:
        if watch:
            raise typer.BadParameter("--watch looks, and init makes: two runs.")
        if not urls and not sql:
            raise typer.BadParameter("Name the database: finevoice fleet init URL.")
        job = init(urls[0] if urls else None, as_sql=sql, as_json=as_json)
    else:
        if sql:
            raise typer.BadParameter("--sql goes with init: finevoice fleet init --sql.")
        if not urls:
            raise typer.BadParameter("Name the database: finevoice fleet URL.")
        job = show_fleet(urls[0], watch=watch, as_json=as_json)
    finish(job, as_json=as_json, debug=debug, free=True)


def worker(
    url: Url,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder for the files.")] = Path("effects"),
    concurrency: Annotated[int, typer.Option(min=1, metavar="N", help="How many jobs it has in hand at once.")] = 20,
    max_concurrency: Annotated[int, typer.Option(min=1, metavar="N", help="How many your plan lets run at once.")] = 5,
    base_url: Annotated[
        str | None, typer.Option("--base-url", metavar="URL", help="The service's address.", envvar=BASE_URL_VARIABLE)
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show errors only.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run the command."""
    from finevoice_async.cli.worker import WorkerJob, work

    job = WorkerJob(
        url=url,
        out=out,
        concurrency=concurrency,
        max_concurrency=max_concurrency,
        base_url=None if base_url == os.environ.get(BASE_URL_VARIABLE) else base_url,
        as_json=as_json,
        quiet=quiet,
    )
    finish(work(job), as_json=as_json, debug=debug)


def add_to(app: typer.Typer) -> None:
    """Add both commands."""
    app.command(help=helps.FLEET, epilog=EPILOG)(fleet)
    app.command(help=helps.WORKER, epilog=EPILOG)(worker)
