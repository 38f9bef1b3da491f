"""A worker of `fleet.py`: makes the effects whose keys come in by its pipe, until it is killed."""

from __future__ import annotations

import asyncio
from multiprocessing.connection import Connection

import attrs

from finevoice_async import FineVoiceError, FineVoiceSession, Fleet, JournalError, Polling, SubmitUnknownError, Timeouts
from finevoice_async.adapters.postgres.journal import PostgresJournal  # noqa: F401 - before the fork, not after


@attrs.frozen
class Place:
    """Where a worker works.

    Attributes:
        database: The fleet's.
        service: The service's address.
        api_key: The key.
        plan: Tasks at once.
        fleet: How it lives.
    """

    database: str
    service: str
    api_key: str
    plan: int
    fleet: Fleet


async def make(session: FineVoiceSession, key: str, pipe: Connection) -> None:
    """Make one effect, and say what came of it."""
    try:
        await session.generate(key, key=key)
    except SubmitUnknownError:
        pipe.send(("unknown", key, ""))
    except FineVoiceError as error:
        pipe.send(("failed", key, repr(error)))
    else:
        pipe.send(("made", key, ""))


def run(place: Place, pipe: Connection) -> None:
    """Make what comes, until somebody kills this process."""
    asyncio.run(_run(place, pipe))


async def _run(place: Place, pipe: Connection) -> None:
    session = _session(place)
    while True:
        try:
            await session.fleet()
        except JournalError:  # the database is away as this process comes up: as a process manager would
            await session.aclose()
            await asyncio.sleep(0.2)
            session = _session(place)
        else:
            break
    making = set()

    def take() -> None:
        task = asyncio.create_task(make(session, pipe.recv(), pipe))
        making.add(task)
        task.add_done_callback(making.discard)

    asyncio.get_running_loop().add_reader(pipe.fileno(), take)
    pipe.send(("ready", "", ""))
    await asyncio.Event().wait()


def _session(place: Place) -> FineVoiceSession:
    return FineVoiceSession(
        place.api_key,
        base_url=place.service,
        journal=place.database,
        fleet=place.fleet,
        max_concurrency=place.plan,
        polling=Polling.fixed(0.1, min_gap=0.05),
        timeouts=Timeouts(read=5.0),
    )
