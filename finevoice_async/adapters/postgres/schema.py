"""The schema `finevoice` of a fleet's database: its versions as data, how it is made, and how it is checked.

The tables go from version to version by steps, of which each is a file; the functions are code, and are replaced as a
whole. Any change of either is a new version.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any, Final

import psycopg

from finevoice_async.adapters.postgres.connection import connect, explain, place_of
from finevoice_async.errors import JournalError

STEPS: Final = ("tables_1.sql", "tables_2.sql")
"""What makes the tables of a version out of those of the one before; the first one out of nothing."""

FUNCTIONS: Final = ("slots.sql", "sessions.sql", "posts.sql", "effects.sql")

VERSION: Final = len(STEPS)

NEWER: Final = "FV002"
"""The SQLSTATE of a script that meets a schema of a later version."""

_MISSING: Final = ("42P01", "3F000")  # no such table, no such schema

_BEGIN = """BEGIN;
SELECT pg_advisory_xact_lock(1180070776, 0);  -- two at once take turns
CREATE SCHEMA IF NOT EXISTS finevoice;
CREATE TABLE IF NOT EXISTS finevoice.meta (version int NOT NULL);
INSERT INTO finevoice.meta SELECT 0 WHERE NOT EXISTS (SELECT FROM finevoice.meta);
DO $check$ BEGIN
    IF (SELECT version FROM finevoice.meta) > {version} THEN
        RAISE 'the schema is of version %, newer than {version}', (SELECT version FROM finevoice.meta)
            USING ERRCODE = '{newer}';
    END IF;
END $check$;
"""
_STEP = """
DO $step$ BEGIN
    IF (SELECT version FROM finevoice.meta) < {version} THEN EXECUTE $sql$
{statements}
$sql$; END IF;
END $step$;
UPDATE finevoice.meta SET version = greatest(version, {version});
"""
_DROP_FUNCTIONS = """
DO $drop$ DECLARE f regprocedure; BEGIN
    FOR f IN SELECT oid FROM pg_proc WHERE pronamespace = 'finevoice'::regnamespace LOOP
        EXECUTE 'DROP FUNCTION ' || f;
    END LOOP;
END $drop$;
"""


def script(steps: tuple[str, ...] | None = None) -> str:
    """Return what brings a database to this version, from any before it or from nothing. To run it again is harmless.

    Args:
        steps: The steps' statements, if not those of the files.
    """
    steps = tuple(statements(name) for name in STEPS) if steps is None else steps
    parts = [_BEGIN.format(version=len(steps), newer=NEWER)]
    parts += [_STEP.format(version=number, statements=text.strip()) for number, text in enumerate(steps, 1)]
    parts += [_DROP_FUNCTIONS, *(f"\n{statements(name)}" for name in FUNCTIONS), "\nCOMMIT;\n"]
    return "".join(parts)


def statements(name: str) -> str:
    """Return what stands in one of the files."""
    return files(__package__).joinpath("sql", name).read_text(encoding="utf-8")


async def init(url: str) -> None:
    """Make the schema, or bring it to this version.

    Raises:
        JournalError: The database cannot be reached or does not allow it, or its schema is newer.
    """
    try:
        connection = await connect(url)
        try:
            await connection.execute(script())
        finally:
            await connection.close()
    except psycopg.Error as error:
        if error.sqlstate == NEWER:
            raise JournalError(f"{_of(url)} was made by a newer finevoice_async. Upgrade this one.") from error
        raise JournalError(f"{_of(url)} cannot be made: {explain(error)}.") from error


async def check(connection: psycopg.AsyncConnection[Any], url: str) -> None:
    """Check that the schema is there and of this version.

    Raises:
        JournalError: It is missing, older or newer.
        psycopg.Error: It could not be read.
    """
    try:
        cursor = await connection.execute("SELECT version FROM finevoice.meta")
        found = await cursor.fetchone()
    except psycopg.Error as error:
        if error.sqlstate not in _MISSING:
            raise
        raise JournalError(f"{_of(url)} is missing. Make it once: finevoice fleet init URL.") from error
    version = 0 if found is None else found[0]
    if version > VERSION:
        raise JournalError(
            f"{_of(url)} was made by a newer finevoice_async (schema {version}, here {VERSION}). Upgrade this one."
        )
    if version < VERSION:
        raise JournalError(
            f"{_of(url)} is of an earlier version (schema {version}, here {VERSION}). Run: finevoice fleet init URL."
        )


def _of(url: str) -> str:
    return f"The schema finevoice of the database {place_of(url)}"
