"""A program that saves a task's result. Run by test_download_crashes.py, which kills it.

save_child.py URL TASK PATH
"""

from __future__ import annotations

import asyncio
import sys

from finevoice_async import FineVoiceSession, Polling


async def main(url: str, task_id: str, path: str) -> None:
    """Fetch the result and save it."""
    polling = Polling(min_gap=0.01, max_gap=0.1, budget=1000)
    async with FineVoiceSession("key", base_url=url, polling=polling) as session:
        effect = await (await session.attach(task_id))
        await effect.save(path, overwrite=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
