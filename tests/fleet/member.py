"""A program that is in a fleet until somebody kills it. Run by test_fleet_processes.py.

    member.py DATABASE SERVICE KEY PLAN WISH...

Each wish is the key of an effect, and its prompt. It says `submitted KEY ID` and `made KEY ID` for each on a line, and
stays.
"""

from __future__ import annotations

import asyncio
import sys

from finevoice_async import FineVoiceSession, Fleet, Polling, SubmitUnknownError


def say(*words: object) -> None:
    """Say something on a line."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def make(session: FineVoiceSession, key: str) -> None:
    """Make one, and say so."""
    try:
        task = await session.submit(key, key=key)
        say("submitted", key, task.id)
        say("made", key, (await task).task_id)
    except SubmitUnknownError:
        say("unknown", key)


async def main(database: str, service: str, key: str, plan: str, *wishes: str) -> None:
    """Make all, and stay."""
    options = Fleet(beat=0.05, lease=1.0, hold=0.5)
    polling = Polling.fixed(0.02, min_gap=0.02)
    async with FineVoiceSession(
        key, base_url=service, journal=database, fleet=options, max_concurrency=int(plan), polling=polling
    ) as session:
        await asyncio.gather(*[make(session, wish) for wish in wishes])
        say("idle")
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
