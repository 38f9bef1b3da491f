"""Batches: what a manifest asks for, what came of it, and how it sounds.

::

    manifest = read_manifest("sounds.csv", out="sounds")
    async with FineVoiceSession(journal="sounds/.finevoice.db", budget=Budget(effects=200)) as session:
        report = await run_batch(session, manifest, "sounds")
"""

from finevoice_async.batch.copies import Finish
from finevoice_async.batch.manifest import Manifest, read_manifest
from finevoice_async.batch.plan import Plan, PlanEntry, PlanState
from finevoice_async.batch.results import BatchReport, BatchResult, BatchUpdate, ResultKind
from finevoice_async.batch.rows import ManifestRow
from finevoice_async.batch.run import BatchOptions, run_batch
from finevoice_async.errors import ManifestError, ManifestFault

__all__ = [
    "BatchOptions",
    "BatchReport",
    "BatchResult",
    "BatchUpdate",
    "Finish",
    "Manifest",
    "ManifestError",
    "ManifestFault",
    "ManifestRow",
    "Plan",
    "PlanEntry",
    "PlanState",
    "ResultKind",
    "read_manifest",
    "run_batch",
]
