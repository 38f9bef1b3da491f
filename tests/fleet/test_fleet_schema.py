"""The schema of a fleet: made, made again, brought up to date; and what is told where it does not fit."""

from __future__ import annotations

import asyncio
import traceback
from functools import partial

import psycopg
import pytest
from fleets import Join, Member, sql

from finevoice_async.adapters.postgres import schema
from finevoice_async.errors import JournalError

pytestmark = pytest.mark.real_time


async def test_it_is_made_twice(empty_url: str) -> None:
    """To make it again, even by two at once, keeps what is there; rows and sessions go on."""
    await asyncio.gather(schema.init(empty_url), schema.init(empty_url))
    member = Member(empty_url)
    await member.open()
    row = await member.wish("k")
    await schema.init(empty_url)
    assert await member.get(row.id) == row
    assert (await member.wish("other")).id != row.id
    await member.aclose()


async def test_it_is_missing(empty_url: str) -> None:
    """One clear error, which says what to do; and then it may be tried again."""
    member = Member(empty_url)
    with pytest.raises(JournalError, match=r"is missing\. Make it once: finevoice fleet init URL"):
        await member.open()
    await schema.init(empty_url)
    await member.open()
    await member.aclose()


@pytest.mark.parametrize(("version", "words"), [(schema.VERSION + 1, "newer"), (0, "earlier version")])
async def test_another_version(url: str, version: int, words: str) -> None:
    """A newer schema is for a newer program, an older one is to be brought up to date."""
    sql(url, "UPDATE finevoice.meta SET version = %s", version)
    try:
        with pytest.raises(JournalError, match=words):
            await Member(url).open()
        if version > schema.VERSION:
            with pytest.raises(JournalError, match="newer"):
                await schema.init(url)
            assert sql(url, "SELECT version FROM finevoice.meta") == [(version,)]
    finally:
        sql(url, "UPDATE finevoice.meta SET version = %s", schema.VERSION)


async def test_a_later_version_keeps_the_rows(empty_url: str) -> None:
    """A step is made once, on top of those before it; what it does not touch stays."""
    first = schema.script()
    former = [schema.statements(name) for name in schema.STEPS]
    steps = (*former, "ALTER TABLE finevoice.effects ADD COLUMN mood text DEFAULT 'calm';")
    with psycopg.connect(empty_url, autocommit=True) as connection:
        connection.execute(first)
    member = Member(empty_url)
    await member.open()
    row = await member.wish("k")
    await member.aclose()
    with psycopg.connect(empty_url, autocommit=True) as connection:
        for _ in range(2):
            connection.execute(schema.script(steps))
    assert sql(empty_url, "SELECT id, mood FROM finevoice.effects") == [(row.id, "calm")]
    assert sql(empty_url, "SELECT version FROM finevoice.meta") == [(schema.VERSION + 1,)]


async def test_the_first_version_is_brought_up_to_date(empty_url: str) -> None:
    """A database of an earlier version is refused, then made this one, with all that it holds."""
    with psycopg.connect(empty_url, autocommit=True) as connection:
        connection.execute(schema.script((schema.statements(schema.STEPS[0]),)))
    with pytest.raises(JournalError, match="earlier version"):
        await Member(empty_url).open()
    await schema.init(empty_url)
    member = Member(empty_url)
    await member.open()
    assert (await member.wish("k")).key == "k"
    await member.aclose()


async def test_a_server_that_is_not_there() -> None:
    """What cannot be reached is told at once, without the password."""
    url = "postgresql://nobody:hunter2@127.0.0.1:1/none"
    for attempt in (Member(url).open, partial(schema.init, url)):
        with pytest.raises(JournalError) as caught:
            await attempt()
        told = "".join(traceback.format_exception(caught.value))  # its causes, too
        assert "hunter2" not in told + repr(caught.value) + repr(Member(url))


async def test_rights_that_are_missing(join: Join, url: str) -> None:
    """A user without rights hears which; a broken store does not wait for ever."""
    member = await join()
    sql(url, "ALTER TABLE finevoice.notes RENAME TO elsewhere")
    try:
        with pytest.raises(JournalError, match="does not exist"):
            await member.load("x")
    finally:
        sql(url, "ALTER TABLE finevoice.elsewhere RENAME TO notes")


async def test_closed_and_not_open(url: str) -> None:
    """Every call of a journal that is not open fails, and closing it does nothing."""
    member = Member(url)
    with pytest.raises(JournalError, match="it is not open"):
        await member.load("x")
    await member.aclose()
    member = Member(url)
    await member.open()
    await member.aclose()
    with pytest.raises(JournalError, match="it is closed"):
        await member.load("x")
