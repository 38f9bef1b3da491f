"""`finevoice report`: one page on which every sound of a folder can be heard, and what needs a look comes first."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import anyio.to_thread
import typer

from finevoice_async import ConfigurationError
from finevoice_async.cli import helps
from finevoice_async.cli.exits import EPILOG, OutputError
from finevoice_async.cli.runner import finish
from finevoice_async.cli.talk import count, give, give_json, plain, say, without_passwords

if TYPE_CHECKING:
    from finevoice_async import JournalRow
    from finevoice_async.batch.report_data import ReportData
    from finevoice_async.cli.kept import JournalPlace

PAGE_NAME = "report.html"

_WORTH_SAYING = 50  # files to measure: fewer take no time that anybody notices


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a batch.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help=f"The page; by default DIR/{PAGE_NAME}.")
    ] = None,
    manifest: Annotated[
        Path | None, typer.Option("--manifest", help="The list of sounds; else found by its lock, in DIR or beside it.")
    ] = None,
    journal: Annotated[
        str | None,
        typer.Option("--journal", metavar="FILE", help="The journal, or a fleet's database; else the file in DIR."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, an object a line, and nothing else.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error, and what is logged.")] = False,
) -> None:
    """Run the command."""
    from finevoice_async.cli.kept import as_place

    page = folder / PAGE_NAME if output is None else output
    place = None if journal is None else as_place(journal)
    job = make_report(folder, page, manifest=manifest, place=place, as_json=as_json)
    finish(job, as_json=as_json, debug=debug, idle="No page was written.", free=True)


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(help=helps.REPORT, epilog=EPILOG)(report)


async def make_report(
    folder: Path, page: Path, *, manifest: Path | None, place: JournalPlace | None, as_json: bool
) -> int:
    """Write the page, and say what it shows.

    Raises:
        ConfigurationError: What makes pages is not installed.
        ManifestError: Nothing of a batch is known of the folder.
        OutputError: The page cannot be written.
        JournalError: The database cannot be read.
    """
    try:
        from finevoice_async.batch.report import render, write
        from finevoice_async.batch.report_folder import SharedRows, read_folder
    except ModuleNotFoundError as error:
        if error.name not in ("jinja2", "markupsafe"):
            raise
        raise ConfigurationError("A report takes jinja2: pip install 'finevoice-async[cli]'.") from None

    from finevoice_async.cli.kept import reading

    async def read(url: str) -> SharedRows:
        async with reading(url) as reader:
            rows: list[JournalRow] = []
            past: dict[int, list[str]] = {}
            while more := await reader.rows(after=rows[-1].id if rows else 0):
                rows += more
                past |= await reader.past_task_ids([row.id for row in more])
        return SharedRows(without_passwords(url), rows, past)

    journal = await read(place) if isinstance(place, str) else place

    def tell(files: int) -> None:
        if files >= _WORTH_SAYING and not as_json:
            say(f"Measuring {count(files, 'file')} ...")

    def work() -> ReportData:
        data = read_folder(
            folder, now=datetime.now(UTC), page=page, manifest=manifest, journal=journal, on_counted=tell
        )
        text = render(data)
        try:
            page.parent.mkdir(parents=True, exist_ok=True)
            write(text, page)
        except OSError as error:
            raise OutputError(f"The page {page} cannot be written: {error.strerror or error}.") from error
        return data

    data = await anyio.to_thread.run_sync(work)
    _tell(data, page, as_json=as_json)
    return 0


def _tell(data: ReportData, page: Path, *, as_json: bool) -> None:
    if as_json:
        give_json(
            {
                "report": str(page),
                "effects": len(data.effects),
                "need_a_look": data.needing_care,
                "not_begun": data.not_begun,
                "states": {state.value: number for state, number in data.counts.items()},
                "paid": data.paid,
                "perhaps_paid": data.perhaps_paid,
                "continue": data.command,
                "notes": list(data.notes),
            }
        )
        return
    for note in data.notes:
        say(plain(note))
    looks = f", {data.needing_care} of them {'needs' if data.needing_care == 1 else 'need'} a look"
    say(f"{count(len(data.effects), 'effect')}{looks if data.needing_care else ''}. Open it in a browser:")
    give(plain(str(page)))
