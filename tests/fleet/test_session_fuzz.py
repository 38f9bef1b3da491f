"""Whole sessions in a fleet, in short lives that are drawn from seeds: calls, faults, cuts, pauses and deaths.

``FINEVOICE_SEED=n pytest tests/fleet/test_session_fuzz.py`` lives one seed again, as near as real time lets it;
``FINEVOICE_FLEET_LIVES=1000`` lives as many.
"""

from __future__ import annotations

import asyncio
import itertools
import os

import pytest
from fleet_lives.sessions import FleetLife

pytestmark = pytest.mark.real_time

LIVES = int(os.environ.get("FINEVOICE_FLEET_LIVES", "16"))
ONE = os.environ.get("FINEVOICE_SEED")
AT_ONCE = 8


@pytest.mark.timeout(7200)
async def test_no_life_of_a_fleet_breaks_a_rule(
    url: str, no_leaks: list[dict[str, object]], caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is paid for twice, nothing paid is lost, the plan holds, and nobody waits for ever, whatever happens."""
    seeds = iter(range(LIVES) if ONE is None else [int(ONE)])
    stories: list[str] = []
    while batch := [FleetLife(url, seed) for seed in itertools.islice(seeds, AT_ONCE)]:
        await asyncio.gather(*[life.live() for life in batch])
        stories += ["\n".join([*life.story, *life.faults]) for life in batch if life.faults]
        bugs = [record.getMessage() for record in caplog.records if "an unexpected error" in record.getMessage()]
        assert not bugs
        caplog.clear()
    assert not stories, f"{len(stories)} lives broke a rule\n\n" + "\n\n".join(stories[:3])
