"""A worker as the command runs it, in a fleet that notices soon: to be killed."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from finevoice_async import Fleet
from finevoice_async.cli.worker import WorkerJob, work

url, folder = sys.argv[1:]
job = WorkerJob(url=url, out=Path(folder), concurrency=4, max_concurrency=2, fleet=Fleet(beat=0.1, lease=2.0, hold=0.5))
sys.exit(asyncio.run(work(job)))
