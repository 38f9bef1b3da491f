"""Workers: each job is made once and saved, by whoever is alive; the plan holds for all of them together."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fleets import QUICK, sql, until
from queues import at_work, fill, jobs

from finevoice_async import EffectState, Fleet, JournalError, Retry
from finevoice_async.queue import Queue
from finevoice_async.testing import RETRY, EmulatedService, make_service

pytestmark = pytest.mark.real_time


@pytest.fixture
def service() -> Iterator[EmulatedService]:
    """A service that lets two tasks run at once, for a moment each."""
    with make_service(plan_limit=2, service_time=0.1) as service:
        yield service


def prompts(service: EmulatedService) -> Counter[str]:
    """Return what the service has accepted, and how often."""
    return Counter(str(task.request.prompt) for task in service.ledger.accepted.values())


async def test_jobs_become_files(service: EmulatedService, queue_url: str, tmp_path: Path) -> None:
    """Each job is made and saved, what came before the worker and after; nothing of them is left in the queue."""
    await fill(queue_url, "a", "b", "c")
    async with at_work(service, queue_url, tmp_path) as shift:
        await until(lambda: len(shift.saved) == 3)
        await fill(queue_url, "d")
        await until(lambda: len(shift.saved) == 4)
        await shift.end()
    assert jobs(queue_url) == []
    assert sorted(shift.saved) == ["a", "b", "c", "d"]
    files = {update.path for update in shift.updates}
    assert files == set(tmp_path.iterdir())
    assert all(path is not None and path.read_bytes()[:4] == b"RIFF" for path in files)
    assert sql(queue_url, "SELECT state, count(*) FROM finevoice.effects GROUP BY state") == [("saved", 4)]


async def test_two_workers_share_queue_and_plan(service: EmulatedService, queue_url: str, tmp_path: Path) -> None:
    """Together they keep the plan full and never overdraw it; a key that was queued twice is one effect."""
    service.service_time = 0.5  # two meet also on a machine that is busy
    keys = [f"k{number}" for number in range(12)]
    await fill(queue_url, *keys, *keys)
    async with (
        at_work(service, queue_url, tmp_path / "a", concurrency=5) as first,
        at_work(service, queue_url, tmp_path / "b", concurrency=5) as second,
    ):
        await until(lambda: len(first.saved + second.saved) == 24, within=20)
    assert prompts(service) == Counter(f"Sound {key}" for key in keys)
    ledger = service.ledger
    assert (ledger.most_running, ledger.rate_limited) == (2, 0)
    assert first.saved
    assert second.saved
    assert jobs(queue_url) == []
    files = [path.name for folder in ("a", "b") for path in (tmp_path / folder).iterdir()]
    assert len(set(files)) == 12


async def test_a_session_beside_it(service: EmulatedService, queue_url: str, tmp_path: Path) -> None:
    """What a web process wants at once and what is in the queue are the same effect, if they have the same key."""
    await fill(queue_url, "a")
    async with at_work(service, queue_url, tmp_path) as shift:
        async with service.session(journal=queue_url, fleet=QUICK, max_concurrency=2) as web:
            effect = await web.generate("Sound a", key="a")
        await until(lambda: shift.saved)
    assert shift.updates[0].task_id == effect.task_id
    assert service.ledger.posts == 1


async def test_what_runs_is_finished_and_what_waits_goes_back(
    service: EmulatedService, queue_url: str, tmp_path: Path
) -> None:
    """Told to stop, a worker takes no more, saves what was sent, and another makes the rest: nothing is sent twice."""
    service.service_time = 0.5
    keys = [f"k{number}" for number in range(6)]
    await fill(queue_url, *keys)
    async with at_work(service, queue_url, tmp_path, concurrency=4) as shift:
        await until(lambda: service.ledger.most_running == 2 and shift.worker.in_hand == 4)
        await shift.end()
        assert len(shift.saved) == 2
        assert [update.again_in for update in shift.updates if update.error is not None] == [0.0, 0.0]
    assert {status for _, status, _ in jobs(queue_url)} == {"todo"}
    assert service.ledger.posts == 2
    async with at_work(service, queue_url, tmp_path) as other:
        await until(lambda: len(other.saved) == 4)
    assert prompts(service) == Counter(f"Sound {key}" for key in keys)


async def test_cut_off(service: EmulatedService, queue_url: str, tmp_path: Path) -> None:
    """Cancelled, a worker gives back all that it has; what it had sent is followed by the next one, and paid once."""
    service.service_time = 0.5
    await fill(queue_url, "a", "b", "c")
    async with at_work(service, queue_url, tmp_path) as shift:
        await until(lambda: service.ledger.most_running == 2)
        shift.work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await shift.work
        assert {(status, attempts) for _, status, attempts in jobs(queue_url)} == {("todo", 1)}
    async with at_work(service, queue_url, tmp_path) as other:
        await until(lambda: len(other.saved) == 3)
    assert set(prompts(service).values()) == {1}
    assert service.ledger.posts == 3


async def test_perhaps_paid_is_never_repeated(service: EmulatedService, queue_url: str, tmp_path: Path) -> None:
    """A submission whose answer was lost stays unknown, its job fails, and the next ones go on."""
    service.inject("submit.lose_reply")
    await fill(queue_url, "a")
    async with at_work(service, queue_url, tmp_path) as shift:
        await until(lambda: shift.updates)
        assert type(shift.updates[0].error).__name__ == "SubmitUnknownError"
        assert shift.updates[0].again_in is None
        await fill(queue_url, "b")
        await until(lambda: shift.saved == ["b"])
        assert [row.key async for row in shift.session.rows(EffectState.UNKNOWN)] == ["a"]
        await shift.end()
    assert jobs(queue_url) == [("a", "failed", 1)]
    assert service.ledger.posts == 2


async def test_certainly_not_sent_is_repeated(service: EmulatedService, queue_url: str, tmp_path: Path) -> None:
    """What the service had no room for goes back to the queue, for some seconds, and is made then."""
    service.inject("submit.rate_limit", times=100)
    await fill(queue_url, "a")
    hasty = Retry(first_delay=0.01, max_delay=0.02, max_retry_after=0.02, patience=0.05)
    async with at_work(service, queue_url, tmp_path, retry=hasty) as shift:
        await until(lambda: shift.updates)
        await until(lambda: jobs(queue_url) == [("a", "todo", 1)])
        ((when,),) = sql(queue_url, "SELECT scheduled_at FROM procrastinate_jobs")
        assert timedelta(seconds=2) < when - datetime.now(UTC) <= timedelta(seconds=5)
        assert shift.updates[0].again_in == 5.0
    service.heal()
    sql(queue_url, "UPDATE procrastinate_jobs SET scheduled_at = now()")
    async with at_work(service, queue_url, tmp_path, retry=RETRY) as shift:
        await until(lambda: shift.saved == ["a"])
    assert prompts(service) == {"Sound a": 1}


async def test_a_file_that_cannot_be_had(service: EmulatedService, queue_url: str, tmp_path: Path) -> None:
    """What is made and cannot be fetched is fetched again later: that costs nothing."""
    service.inject("download.error_500", times=100)
    await fill(queue_url, "a")
    async with at_work(service, queue_url, tmp_path) as shift:
        await until(lambda: shift.updates, within=10)
        assert shift.updates[0].again_in == 5.0
        await until(lambda: jobs(queue_url) == [("a", "todo", 1)])
        service.heal()
        sql(queue_url, "UPDATE procrastinate_jobs SET scheduled_at = now()")
        await until(lambda: shift.saved == ["a"])
    assert service.ledger.posts == 1


async def test_what_every_job_would_meet(service: EmulatedService, queue_url: str, tmp_path: Path) -> None:
    """A refused key ends the worker after one try, not after one for each job; all of them stay in the queue."""
    await fill(queue_url, "a", "b", "c")
    async with at_work(service, queue_url, tmp_path, api_key="another", concurrency=1) as shift:
        await asyncio.wait_for(shift.work, 5)
        assert type(shift.worker.stopped_by).__name__ == "AuthenticationError"
    assert [status for _, status, _ in jobs(queue_url)] == ["todo"] * 3
    assert len(shift.updates) == 1


async def test_another_request_for_a_key(service: EmulatedService, queue_url: str, tmp_path: Path) -> None:
    """A key is for one request: a job with another one fails, and says so; one that nobody can read does, too."""
    async with Queue(queue_url) as queue:
        await queue.enqueue("Door", key="k")
    async with at_work(service, queue_url, tmp_path) as shift:
        await until(lambda: shift.saved == ["k"])
        async with Queue(queue_url) as queue:
            await queue.enqueue("Wind", key="k")
        await until(lambda: len(shift.updates) == 2)
        assert "another request" in str(shift.updates[1].error)
        for args in ('{"request": "{", "key": "x", "owner": null}', '{"key": "y"}'):
            sql(
                queue_url,
                "INSERT INTO procrastinate_jobs (queue_name, task_name, args) "
                "VALUES ('finevoice', 'finevoice.generate', %s)",
                args,
            )
        await until(lambda: len(shift.updates) == 4)
        await shift.end()
    assert [(key, status) for key, status, _ in jobs(queue_url)] == [("k", "failed"), ("x", "failed"), ("y", "failed")]
    assert service.ledger.posts == 1


async def test_jobs_of_the_dead(service: EmulatedService, queue_url: str, tmp_path: Path) -> None:
    """A job of a worker that is silent for a lease goes to another; that of one that lives does not."""
    await fill(queue_url, "dead", "alive")
    sql(
        queue_url,
        "INSERT INTO procrastinate_workers (last_heartbeat) VALUES (now() - interval '1 h'), (now() + interval '1 h')",
    )
    sql(
        queue_url,
        "UPDATE procrastinate_jobs j SET status = 'doing', worker_id = w.id FROM procrastinate_workers w "
        "WHERE (args->>'key' = 'dead') = (last_heartbeat < now())",
    )
    async with at_work(service, queue_url, tmp_path) as shift:
        await asyncio.sleep(5 * QUICK.beat)
        assert [status for _, status, _ in jobs(queue_url)] == ["doing", "doing"], "the other one is lower, and rescues"
        sql(queue_url, "DELETE FROM procrastinate_workers WHERE last_heartbeat > now() + interval '1 min'")
        await until(lambda: sorted(shift.saved) == ["alive", "dead"])


async def test_a_worker_that_others_took_for_dead(service: EmulatedService, queue_url: str, tmp_path: Path) -> None:
    """It was paused: its row is gone, its job is another's. Awake, it goes on as a new one; nothing is paid twice."""
    service.service_time = 0.6
    await fill(queue_url, "a")
    async with at_work(service, queue_url, tmp_path) as shift:
        await until(lambda: service.ledger.most_running)
        sql(queue_url, "DELETE FROM procrastinate_workers")
        sql(queue_url, "UPDATE procrastinate_jobs SET status = 'todo'")
        await until(lambda: shift.saved[:1] == ["a"])
        await fill(queue_url, "b")
        await until(lambda: "b" in shift.saved, within=10)
        await shift.end()
    assert jobs(queue_url) == []
    assert prompts(service) == {"Sound a": 1, "Sound b": 1}


async def test_the_queue_is_missing(service: EmulatedService, url: str, tmp_path: Path) -> None:
    """A worker of a database without a queue ends at once, with what to do."""
    sql(url, "ALTER TABLE IF EXISTS procrastinate_jobs RENAME TO elsewhere")
    try:
        async with at_work(service, url, tmp_path) as shift:
            with pytest.raises(JournalError, match="finevoice fleet init"):
                await shift.work
    finally:
        sql(url, "ALTER TABLE IF EXISTS elsewhere RENAME TO procrastinate_jobs")


async def test_a_worker_that_is_late(service: EmulatedService, queue_url: str, tmp_path: Path) -> None:
    """Its jobs are its own until a whole lease of silence is over."""
    await fill(queue_url, "late", "dead")
    sql(
        queue_url,
        "INSERT INTO procrastinate_workers (id, last_heartbeat) OVERRIDING SYSTEM VALUE "  # not the lowest
        "VALUES (1000000, now() - interval '42 s'), (1000001, now() - interval '66 s')",
    )
    sql(
        queue_url,
        "UPDATE procrastinate_jobs SET status = 'doing', "
        "worker_id = CASE WHEN args->>'key' = 'late' THEN 1000000 ELSE 1000001 END",
    )
    async with at_work(service, queue_url, tmp_path, fleet=Fleet(beat=0.05, lease=60)) as shift:
        await until(lambda: shift.saved == ["dead"])
        assert ("late", "doing", 0) in jobs(queue_url)
