"""The recipe for Prometheus does what it says."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

from prometheus_client import REGISTRY

from finevoice_async import FineVoiceSession
from finevoice_async.emulator import Emulator


async def test_recipe(connect: Callable[..., FineVoiceSession], emulator: Emulator) -> None:
    """Three effects are three of each step; two durations, in buckets of seconds to minutes; and one failure."""
    recipe = runpy.run_path(str(Path(__file__).parent / "examples" / "prometheus_observer.py"))
    emulator.inject("task.fail")
    async with connect(observer=recipe["PrometheusObserver"]()) as session:
        outcomes = [outcome async for outcome in session.generate_many(["rain", "wind", "hail"])]
    assert len([outcome for outcome in outcomes if outcome.error is None]) == 2
    for kind in ("queued", "submitted", "ended"):
        assert REGISTRY.get_sample_value("finevoice_events_total", {"kind": kind}) == 3
    assert REGISTRY.get_sample_value("finevoice_effect_seconds_count") == 2
    assert REGISTRY.get_sample_value("finevoice_effect_seconds_bucket", {"le": "640.0"}) == 2
    assert REGISTRY.get_sample_value("finevoice_failures_total", {"error": "TaskFailedError"}) == 1
