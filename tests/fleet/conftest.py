"""Fleets: a server for all tests, a database for each, and sessions' journals on it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("psycopg")

from databases import VARIABLE, Databases, Server, folder_of_programs
from fleets import Join, Member

pytestmark = pytest.mark.real_time


def _programs() -> Path:
    """Return where a server's programs are; where there are none, the test is skipped."""
    programs = folder_of_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed here (apt-get install postgresql)")
    return programs


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    """Databases on a server."""
    with contextlib.ExitStack() as stack:
        url = os.environ.get(VARIABLE)
        if url is None:
            server = Server(_programs())
            stack.callback(server.close)
            url = server.url
        databases = Databases(url)
        yield databases
        databases.close()


@pytest.fixture
def server() -> Iterator[Server]:
    """A server of the test's own, which it may crash."""
    server = Server(_programs())
    yield server
    server.go_on()
    server.close()


@pytest.fixture
def url(databases: Databases) -> Iterator[str]:
    """A database with the schema."""
    url = databases.take()
    yield url
    databases.give_back(url)


@pytest.fixture
def empty_url(databases: Databases) -> Iterator[str]:
    """A database without it."""
    url = databases.make()
    yield url
    databases.drop(url)


@pytest.fixture
async def join(url: str) -> AsyncIterator[Join]:
    """Let journals join, which leave at the end."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(**options: Any) -> Member:
            member = Member(options.pop("url", url), **options)
            stack.push_async_callback(member.aclose)
            await member.open()
            return member

        yield make


@pytest.fixture
def queue_url(url: str) -> Iterator[str]:
    """A database with the schema and an empty queue."""
    import psycopg

    from finevoice_async.adapters import job_queue

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(job_queue.script().encode())
    yield url
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("TRUNCATE procrastinate_jobs, procrastinate_workers, procrastinate_events CASCADE")
