"""`finevoice generate`: one effect, from a prompt to a file."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs

from finevoice_async import FineVoiceSession, Retry, SfxRequest

PATIENCE = 10.0
"""Seconds for which a command waits for a service that is not reached or is full: whoever sits at a terminal wants to
hear by then, and can type it again; two minutes of silence look like a hang."""


@attrs.frozen
class Wish:
    """What the command line asks for."""

    fields: dict[str, Any]
    output: str
    overwrite: bool = attrs.field(kw_only=True)
    journal: Path | None = attrs.field(kw_only=True)
    base_url: str | None = attrs.field(kw_only=True)
    emulator: bool = attrs.field(kw_only=True)


@asynccontextmanager
async def connected(
    *, emulator: bool, base_url: str | None = None, journal: Path | None = None, **options: Any
) -> AsyncIterator[FineVoiceSession]:
    """Return a session with the service, or with an emulator of its own."""
    if not emulator:
        async with FineVoiceSession(base_url=base_url, journal=journal, **options) as session:
            yield session
        return
    from finevoice_async.emulator import Emulator, LogNormal

    async with (
        Emulator(service_time=LogNormal(median=1.5, scaled=False)) as service,
        FineVoiceSession(service.api_key, base_url=service.url, journal=journal, **options) as session,
    ):
        yield session


def say_what_runs(session: FineVoiceSession, journal: Path | None = None) -> None:
    """Tell, after Ctrl-C, which tasks still run and how to come back to them."""
    ids = [str(task.id) for task in session.tasks]
    if ids:
        lines = ["", "Interrupted. These tasks are paid for and still run at the service:", *(f"  {i}" for i in ids)]
        again = "in Python: task = await session.attach(TASK_ID)"
        if journal is not None:
            again = f"with: finevoice resume {journal}"
        print("\n".join([*lines, f"Pick them up {again}"]), file=sys.stderr)


async def generate_one(wish: Wish, *, as_json: bool) -> int:
    """Make and save one effect."""
    request = SfxRequest(**wish.fields)
    retry = Retry(patience=PATIENCE)
    async with connected(emulator=wish.emulator, base_url=wish.base_url, journal=wish.journal, retry=retry) as session:
        try:
            task = await session.submit(request)
            if not as_json:
                print(f"Submitted: {task.id}", file=sys.stderr)
            effect = await task
            path = await effect.save(wish.output, overwrite=wish.overwrite)
        except asyncio.CancelledError:
            await session.aclose()  # settles a POST under way, so that its id is known, too
            say_what_runs(session, wish.journal)
            raise
    if as_json:
        print(json.dumps({"task_id": effect.task_id, "path": str(path), "urls": list(effect.urls)}))
    else:
        print(path)
    return 0
