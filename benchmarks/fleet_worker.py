"""A worker of `fleet.py`: makes the effects whose keys come in on its lines, until it is killed.

    python benchmarks/fleet_worker.py DATABASE SERVICE API_KEY PLAN BEAT LEASE HOLD

For each key it says `made KEY`, `unknown KEY` or `failed KEY WHY` on a line.
"""

from __future__ import annotations

import asyncio
import sys

from finevoice_async import FineVoiceError, FineVoiceSession, Fleet, Polling, SubmitUnknownError, Timeouts


def say(*words: str) -> None:
    """Say something on a line."""
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


async def make(session: FineVoiceSession, key: str) -> None:
    """Make one effect."""
    try:
        await session.generate(key, key=key)
    except SubmitUnknownError:
        say("unknown", key)
    except FineVoiceError as error:
        say("failed", key, repr(error))
    else:
        say("made", key)


async def main(database: str, service: str, key: str, plan: str, *times: str) -> None:
    """Read keys and make them."""
    beat, lease, hold = map(float, times)
    keys = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(keys), sys.stdin)
    async with FineVoiceSession(
        key,
        base_url=service,
        journal=database,
        fleet=Fleet(beat=beat, lease=lease, hold=hold),
        max_concurrency=int(plan),
        polling=Polling.fixed(0.1, min_gap=0.05),
        timeouts=Timeouts(read=5.0),
    ) as session:
        say("ready")
        making = set()
        while line := (await keys.readline()).decode().strip():
            task = asyncio.create_task(make(session, line))
            making.add(task)
            task.add_done_callback(making.discard)
        await asyncio.gather(*making)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
