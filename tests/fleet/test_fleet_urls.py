"""Where a fleet's database is named: what is no such name is refused at once, and nothing of it is shown."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from finevoice_async import ConfigurationError, FineVoiceSession
from finevoice_async.adapters import job_queue
from finevoice_async.adapters.fleet_view import look, read_rows, spent_since
from finevoice_async.adapters.postgres import schema
from finevoice_async.cli import exits
from finevoice_async.cli.app import app
from finevoice_async.queue import Queue
from finevoice_async.worker import Worker


@pytest.mark.parametrize(
    "text",
    [
        "postgresql+asyncpg://me:S3cretPw@h/db",
        "postgresq://me:S3cretPw@h/db",
        "mysql://me:S3cretPw@h/db",
        "POSTGRESQL+psycopg://me:S3cretPw@h/db",
        " postgresql://me:S3cretPw@h/db",
        "sqlite+aiosqlite:///S3cretPw@h.db",
        "postgresql:/me:S3cretPw@h/db",
        "postgres:me:S3cretPw@h/db",
        "host=h user=me password=S3cretPw dbname=db",
        Path("postgresql+asyncpg://me:S3cretPw@h/db"),
        Path("postgresql://me:S3cretPw@h/db"),
    ],
)
def test_a_url_of_something_else_is_no_file(text: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused as the session is made, and by the command, with the same words; no file comes to be."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=r"A journal is a file, or a database: postgresql://") as caught:
        FineVoiceSession("key", journal=text)
    assert "S3cretPw" not in repr(caught.value)
    for words in (["journal", str(text)], ["generate", "Rain", "--journal", str(text)]):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 2
        assert "A journal is a file, or a database" in result.stderr
        assert "S3cretPw" not in result.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["effects.db", "a:b.db", "postgres.db", "my password.db", "http:", "C:/effects.db"])
def test_odd_names_of_files_stay_names(name: str) -> None:
    """What only looks a little like a URL is a file as before."""
    assert "new" in repr(FineVoiceSession("key", journal=name))
    assert "new" in repr(FineVoiceSession("key", journal=Path(name)))


SPLIT = [
    f"postgresql://me:{password}@127.0.0.1:1/db"
    for password in (
        "S3@cretPw",
        "S3/cretPw",
        "S3/12cretPw",
        "S3@cretPw:x",
        "S3@cretPw/x",
        "S3@cretPw/x?y",
        "S3@12:cretPw",
        "S3/?cretPw",
        "S3/?sslmode=cretPw",
        "12/?sslmode=cretPw",
        "S3@x?cretPw",
        "S3@x?cretPw=1",
        "S3@[cretPw",
        "S3@x,cretPw",
        "S3#/@:?cretPw",
        "cretPw@",
        "S3 cretPw",
        "S3\0cretPw",
        "S3\udc80cretPw",
    )
]
SPLIT += ["postgresql://me:cretPw@[bad/db", "postgresql://me:cretPw@127.0.0.1:no-port/db"]
PERCENTS = [f"postgresql://me:{password}@127.0.0.1:1/db" for password in ("cretPw%", "10%cretPw", "cretPw%00")]


async def ended(use: Callable[[], Any]) -> None:
    """Do something, whether it is to be awaited or not."""
    made = use()
    if asyncio.iscoroutine(made):
        await made


async def every_way_in(url: str, folder: Path) -> list[ConfigurationError]:
    """Give a URL wherever one is taken, and return the errors."""
    caught = []
    for use in (
        lambda: FineVoiceSession("key", journal=url),
        lambda: Queue(url),
        lambda: Worker(url, FineVoiceSession("key"), folder, concurrency=1, told=print),
        lambda: look(url),
        lambda: spent_since(url, "key", datetime.now(UTC)),
        lambda: read_rows(url, "key"),
        lambda: schema.init(url),
        lambda: job_queue.init(url),
        lambda: job_queue.check(url),
    ):
        with pytest.raises(ConfigurationError) as error:
            await ended(use)
        caught.append(error.value)
    return caught


@pytest.mark.parametrize("url", SPLIT + PERCENTS)
async def test_a_password_that_cannot_be_told_from_the_rest(url: str, tmp_path: Path) -> None:
    """It is an error before anybody connects, which says how to write it; neither it nor what led to it shows it."""
    for error in await every_way_in(url, tmp_path):
        assert "cannot be read" in str(error)
        assert "%40" in str(error)
        assert "PGPASSWORD" in str(error)
        assert ("a % must be written %25" in str(error)) is (url in PERCENTS)
        assert "cretPw" not in "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    "command", [("fleet",), ("fleet", "init"), ("worker",), ("journal",), ("generate", "Rain", "--journal")]
)
@pytest.mark.parametrize("more", [(), ("--debug",), ("--json",)])
@pytest.mark.parametrize("url", [SPLIT[0], SPLIT[1], PERCENTS[1]])
def test_the_command_shows_nothing_of_it(
    command: tuple[str, ...], more: tuple[str, ...], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command says it, also with a traceback, and counts it as wrong use."""
    monkeypatch.setenv("FINEVOICE_API_KEY", "k")
    result = CliRunner().invoke(app, [*command, url, *more])
    assert result.exit_code == exits.WRONG_USE
    assert "PGPASSWORD" in result.output
    assert "cretPw" not in result.output


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("foo=S3cretPw", "unknown parameter foo."),
        ("sslmode=require&Foo_bar=S3cretPw", "unknown parameter Foo_bar."),
        ("sslmode", "a parameter has no value."),
    ],
)
async def test_parameters_that_there_are_not(query: str, words: str, tmp_path: Path) -> None:
    """They are named, and their values are not."""
    for error in await every_way_in(f"postgresql://me:S3cretPw@127.0.0.1:1/db?{query}", tmp_path):
        assert str(error) == f"The URL of the fleet's database cannot be read: {words}"
        assert error.__cause__ is None


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:a%40b%2Fc%3Ad%23e%25f@h/db",
        "postgresql://me:a:b#c?d@h/db",
        "postgresql://me%40server:pw@h/db?application_name=a@b",
        "postgresql://h:1,k:2/db?ssl=true",
        "postgresql://u@[::1]:5432/db",
        "postgresql:///db?host=%2Fvar%2Frun",
        "postgresql://",
    ],
)
def test_urls_that_are_as_they_should_be(url: str) -> None:
    """What libpq reads as it is meant is taken."""
    assert "new" in repr(FineVoiceSession("key", journal=url))


@pytest.mark.parametrize("command", [("fleet",), ("generate", "Rain", "--journal"), ("journal",), ("worker",)])
@pytest.mark.parametrize("more", [(), ("--debug",)])
def test_debug_keeps_the_exit_code(
    command: tuple[str, ...], more: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that cannot be reached is the journal's fault, with a traceback and without."""
    monkeypatch.setenv("FINEVOICE_API_KEY", "k")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, [*command, "postgresql://me:S3cretPw@127.0.0.1:1/db", *more])
    assert result.exit_code == exits.JOURNAL
    assert ("Traceback" in result.stderr) is bool(more)
    assert "S3cretPw" not in result.output
