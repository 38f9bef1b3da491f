"""`finevoice emulator`: the emulated service, until Ctrl-C."""

from __future__ import annotations

import asyncio

from finevoice_async.config import API_KEY_VARIABLE, BASE_URL_VARIABLE
from finevoice_async.emulator import Emulator


async def serve(port: int, plan_limit: int | None, seed: int) -> int:
    """Serve, and print the two lines that point the library to it."""
    async with Emulator(port=port, plan_limit=plan_limit, seed=seed) as emulator:
        print(f"export {BASE_URL_VARIABLE}={emulator.url}")
        print(f"export {API_KEY_VARIABLE}={emulator.api_key}", flush=True)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ledger = emulator.ledger
            print(f"\n{len(ledger.accepted)} accepted, {ledger.polls} polls, {ledger.fetches} downloads")
            raise
    return 0
