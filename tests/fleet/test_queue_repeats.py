"""When a job is delivered again: only where that cannot pay twice, and may help."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from databases import Server
from fleets import until
from queues import at_work, fill, jobs

from finevoice_async import errors
from finevoice_async.adapters import job_queue
from finevoice_async.adapters.postgres import schema
from finevoice_async.testing import make_service
from finevoice_async.worker import FETCHES, FIRST_DELAY, LONGEST_DELAY, again_in

pytestmark = pytest.mark.real_time

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.FineVoiceError)]
UNPAID_AND_PASSING = {
    errors.AuthenticationError,
    errors.BudgetExceededError,
    errors.ConfigurationError,
    errors.InsufficientCreditsError,
    errors.ManifestError,
    errors.PollError,
    errors.QueueFullError,
    errors.RateLimitError,
    errors.SessionClosedError,
    errors.SubmitNotSentError,
}
STILL_TO_BE_HAD = {errors.DownloadError, errors.PollError, errors.SessionClosedError, errors.TaskTimeoutError}


@pytest.mark.parametrize("kind", KINDS)
def test_every_error(kind: type[errors.FineVoiceError]) -> None:
    """Without a task: what certainly was not sent, and may be later. With one: what is made, and can still be had."""
    unsent, made = kind("x"), kind("x", task_id="t")
    assert (again_in(unsent, 0) is not None) == (kind in UNPAID_AND_PASSING or kind is errors.DownloadError)
    if kind in STILL_TO_BE_HAD:
        assert again_in(made, 0) is not None
    elif made.paid is not False:
        assert again_in(made, 0) is None
    if unsent.paid is not False and kind is not errors.DownloadError:
        assert again_in(unsent, 0) is None, "perhaps paid, and delivered again"


@pytest.mark.parametrize("error", [ValueError("x"), OSError("x"), KeyError("x"), errors.FineVoiceError("x")])
def test_what_nobody_foresaw(error: Exception) -> None:
    """Nobody knows what it means, so it is not tried again."""
    assert again_in(error, 0) is None


def test_how_long_it_waits() -> None:
    """Each time twice as long, up to some minutes, at least as the service asks; without an end for what is unsent."""
    error = errors.RateLimitError("x")
    delays = [again_in(error, attempts) for attempts in range(10_000)]
    assert delays[:3] == [FIRST_DELAY, 2 * FIRST_DELAY, 4 * FIRST_DELAY]
    assert delays[-1] == LONGEST_DELAY
    assert again_in(errors.RateLimitError("x", retry_after=60), 0) == 60
    assert again_in(errors.RateLimitError("x", retry_after=1e9), 0) == LONGEST_DELAY
    fetch = errors.DownloadError("x", task_id="t")
    assert [again_in(fetch, attempts) is None for attempts in (FETCHES - 2, FETCHES - 1)] == [False, True]


def test_a_worker_that_ends() -> None:
    """What it gives back is for the next one at once."""
    assert again_in(asyncio.CancelledError(), 5) == 0
    assert again_in(errors.SessionClosedError("x"), 5) == 0


async def test_the_database_crashes(server: Server, tmp_path: Path) -> None:
    """A worker outlives it: what ran is noted when it is back, the rest is made then, and nothing is paid twice."""
    url = f"{server.url}/postgres"
    await schema.init(url)
    await job_queue.init(url)
    keys = ("a", "b", "c", "d")
    await fill(url, *keys)
    with make_service(plan_limit=2, service_time=0.3) as service:
        async with at_work(service, url, tmp_path, concurrency=2) as shift:
            await until(lambda: service.ledger.most_running == 2, within=20)
            await asyncio.to_thread(server.crash)
            await asyncio.sleep(0.2)
            await asyncio.to_thread(server.start)
            await until(lambda: set(shift.saved) == set(keys), within=60)
            await until(lambda: not jobs(url), within=60)
        accepted = [str(task.request.prompt) for task in service.ledger.accepted.values()]
    assert sorted(accepted) == [f"Sound {key}" for key in keys]
