"""The recipe for Prometheus does what it says."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

from prometheus_client import REGISTRY

from finevoice_async import FineVoiceSession


async def test_recipe(connect: Callable[..., FineVoiceSession]) -> None:
    """Two effects are two of each step, and two durations."""
    recipe = runpy.run_path(str(Path(__file__).parent / "examples" / "prometheus_observer.py"))
    async with connect(observer=recipe["PrometheusObserver"]()) as session:
        outcomes = [outcome async for outcome in session.generate_many(["rain", "wind"])]
    assert len(outcomes) == 2
    for kind in ("queued", "submitted", "ended"):
        assert REGISTRY.get_sample_value("finevoice_events_total", {"kind": kind}) == 2
    assert REGISTRY.get_sample_value("finevoice_effect_seconds_count") == 2
