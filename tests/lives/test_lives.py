"""Whole lives of sessions, drawn from seeds, against a model: nothing is paid for twice, and nothing paid is lost.

``FINEVOICE_SEED=n pytest tests/lives`` lives one seed again; ``FINEVOICE_LIVES=5000`` lives as many.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest
from lives.life import run_seed

SEEDS = int(os.environ.get("FINEVOICE_LIVES", "300"))
ONE = os.environ.get("FINEVOICE_SEED")
MANY = 1000
"""From so many seeds on, they are spread over the processors."""

CHUNK = 25
SHOWN = 3


def _stories() -> Iterator[str | None]:
    """Live all seeds, and yield what went wrong in each."""
    seeds = range(SEEDS) if ONE is None else [int(ONE)]
    if len(seeds) < MANY:
        yield from map(run_seed, seeds)
        return
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(run_seed, seeds, chunksize=CHUNK)


@pytest.mark.timeout(1800)
def test_no_life_breaks_a_rule() -> None:
    """No rule of the oracle is broken in any life of any seed."""
    stories = [story for story in _stories() if story is not None]
    shown = "\n\n".join(stories[:SHOWN])
    heads = "\n".join("\n".join(story.splitlines()[:2]) for story in stories[SHOWN : 10 * SHOWN])
    assert not stories, f"{len(stories)} seeds broke a rule\n\n{shown}\n\nAlso:\n{heads}"
