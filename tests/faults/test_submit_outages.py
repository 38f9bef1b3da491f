"""Outages as a server sees them: how many submissions leave meanwhile, what goes out after it, and who hears what."""

from __future__ import annotations

import asyncio
import collections
import json
import shutil
from collections.abc import Awaitable, Callable
from email.utils import format_datetime
from pathlib import Path

import pytest
from raw_server import Peer, RawServer, Request

from finevoice_async import (
    FineVoiceSession,
    Outcome,
    RateLimitError,
    Retry,
    SessionClosedError,
    SubmitNotSentError,
)
from finevoice_async.adapters.loop_clock import LoopClock

Visit = Callable[..., FineVoiceSession]
Fault = Callable[["Service", Peer], Awaitable[None]]
LINK = "http://127.0.0.1:9/x.wav"
CLOSED = "http://127.0.0.1:1"
"""Nobody listens there."""


def now() -> float:
    """Return the loop's time."""
    return asyncio.get_running_loop().time()


class Service:
    """A service with a plan, effects that take a while, and an outage at its beginning."""

    def __init__(self, fault: Fault | None = None, *, lasts: float = 0.0, plan: int = 1000, takes: float = 4.0) -> None:
        self.fault = fault  # what comes of a POST during the outage
        self.over_at = now() + lasts
        self.plan = plan
        self.takes = takes
        self.posts: list[tuple[float, str]] = []  # when, and what for
        self.refused: list[float] = []  # when 429 was said
        self.ends: dict[str, float] = {}  # when each task ends, by its id
        self.paid_blind: list[str] = []  # accepted, but nobody was told
        self.most_running = 0

    @property
    def began(self) -> float:
        """When the first POST came."""
        return self.posts[0][0]

    def during(self) -> int:
        """Count the POSTs of the outage."""
        return sum(at < self.over_at for at, _ in self.posts)

    def running(self) -> int:
        """Count what runs now."""
        return sum(end > now() for end in self.ends.values())

    async def __call__(self, request: Request, peer: Peer) -> None:
        """Answer a request."""
        if request.method == "GET":
            task_id = request.path.rsplit("/", 1)[1]
            done = now() >= self.ends[task_id]
            peer.answer(
                200, json.dumps({"status": "completed", "url": LINK} if done else {"status": "processing"}).encode()
            )
            return
        prompt = json.loads(request.body)["prompt"]
        self.posts.append((now(), prompt))
        await asyncio.sleep(0.1)
        if self.fault is not None and now() < self.over_at:
            await self.fault(self, peer)
        elif self.running() >= self.plan:
            await full()(self, peer)
        else:
            peer.answer(200, json.dumps({"task_id": self.accept()}).encode())

    def accept(self) -> str:
        """Begin a task."""
        task_id = f"t{len(self.ends)}"
        self.ends[task_id] = now() + self.takes
        self.most_running = max(self.most_running, self.running())
        return task_id


async def bad_gateway(service: Service, peer: Peer) -> None:
    """Answer 502."""
    peer.answer(502, b"<html>nginx</html>")


async def reset(service: Service, peer: Peer) -> None:
    """Send RST."""
    await peer.reset()


async def hang(service: Service, peer: Peer) -> None:
    """Never answer."""
    await peer.hang()


async def accepted_but_504(service: Service, peer: Peer) -> None:
    """Begin the task, which is paid for, and lose the answer."""
    service.paid_blind.append(service.accept())
    peer.answer(504, b"")


def full(retry_after: str | None = None) -> Fault:
    """Say that the plan is full."""

    async def answer(service: Service, peer: Peer) -> None:
        service.refused.append(now())
        peer.answer(429, b"{}", **({} if retry_after is None else {"Retry_After": retry_after}))

    return answer


async def many(session: FineVoiceSession, count: int) -> list[Outcome]:
    """Make so many effects."""
    return [outcome async for outcome in session.generate_many([f"sound {number}" for number in range(count)])]


def kinds(outcomes: list[Outcome]) -> dict[str, int]:
    """Count the outcomes by what they are."""
    return dict(collections.Counter("effect" if o.error is None else type(o.error).__name__ for o in outcomes))


# Answers that are lost


@pytest.mark.parametrize("fault", [bad_gateway, reset, hang, accepted_but_504])
@pytest.mark.parametrize("slots", [5, 300])
async def test_answers_are_lost_for_a_while(visit: Visit, fault: Fault, slots: int) -> None:
    """Ten leave, and then one probe at a time; what waited goes out afterwards, and nothing twice."""
    service = Service(fault, lasts=10)
    async with RawServer(service) as server, visit(server.url, max_concurrency=slots) as session:
        outcomes = await many(session, 300)
    lost = service.during()
    probes = 4  # after 1, 2, 4 s, and what is left
    assert 3 <= lost <= 10 + probes
    assert kinds(outcomes) == {"SubmitUnknownError": lost, "effect": 300 - lost}
    prompts = [prompt for _, prompt in service.posts]
    assert len(prompts) == len(set(prompts)) == 300
    after = [at for at, _ in service.posts if at >= service.over_at]
    assert after[0] - service.over_at <= 16, "the longest pause so far"


async def test_few_are_paid_for_blindly(visit: Visit) -> None:
    """Accepted, and every answer lost for 30 s, on the smallest plan: a handful is paid for without an id."""
    service = Service(accepted_but_504, lasts=30, plan=1000)
    async with RawServer(service) as server, visit(server.url, max_concurrency=5) as session:
        outcomes = await many(session, 60)
    assert len(service.paid_blind) <= 7 + 5  # what was out, two in their places, and probes after 1, 2, 4, 8, 16 s
    assert kinds(outcomes) == {
        "SubmitUnknownError": len(service.paid_blind),
        "effect": 60 - len(service.paid_blind),
    }


async def test_answers_are_lost_for_ever(visit: Visit) -> None:
    """In an hour there are a few more than a hundred probes; closing ends the wait, and nothing more is sent."""
    service = Service(bad_gateway, lasts=1e9)
    async with RawServer(service) as server, visit(server.url, max_concurrency=300) as session:
        job = asyncio.create_task(many(session, 300))
        await asyncio.sleep(3600)
        assert 100 <= len(service.posts) <= 10 + 5 + 121
        await session.aclose()
        outcomes = await job
        sent = len(service.posts)
        await asyncio.sleep(100)
        assert len(service.posts) == sent
    assert set(kinds(outcomes)) == {"SubmitUnknownError", "SessionClosedError"}
    assert kinds(outcomes)["SubmitUnknownError"] == sent


# The plan is full


@pytest.mark.parametrize("asked", [None, "2", "0", "9"])
async def test_somebody_else_fills_the_plan(visit: Visit, asked: str | None) -> None:
    """All succeed, with few 429s, and soon after it the slots are full again."""
    service = Service(full(asked), lasts=8, plan=5)
    async with RawServer(service) as server, visit(server.url, max_concurrency=5) as session:
        outcomes = await many(session, 20)
        took = now() - service.began
    assert kinds(outcomes) == {"effect": 20}
    assert len(service.refused) <= 5 + 15, "a burst, and probes with growing pauses"
    assert service.most_running == 5
    best = 8 + 20 / 5 * (service.takes + 0.3)
    assert took <= 2 * best, "the plan is full again soon"


async def test_a_limit_above_the_plan(visit: Visit) -> None:
    """Somebody who allows more than the plan has pays with a few 429s, not with many, and keeps the plan busy."""
    service = Service(plan=3)
    async with RawServer(service) as server, visit(server.url, max_concurrency=8) as session:
        outcomes = await many(session, 60)
        took = now() - service.began
    assert kinds(outcomes) == {"effect": 60}
    assert len(service.refused) <= 2 * 60
    assert took <= 2 * 60 / 3 * service.takes


@pytest.mark.parametrize("asked", [None, "0", "past", "9999"])
async def test_the_plan_is_full_for_ever(visit: Visit, asked: str | None) -> None:
    """Everybody hears so after their patience, and the service is asked calmly."""
    if asked == "past":
        asked = format_datetime(LoopClock().utcnow().replace(year=2001), usegmt=True)
    service = Service(full(asked), lasts=1e9)
    async with RawServer(service) as server, visit(server.url) as session:
        began = now()
        jobs = [asyncio.create_task(session.generate(f"sound {number}")) for number in range(5)]
        errors = await asyncio.gather(*jobs, return_exceptions=True)
        assert {type(error) for error in errors} == {RateLimitError}
        assert now() - began == pytest.approx(120.1, abs=0.5)
        assert len(service.refused) <= 5 + 30


# No network


@pytest.mark.parametrize("slots", [5, 300])
async def test_no_network_for_a_while(visit: Visit, slots: int, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody listens for 20 s, and then somebody does: everything succeeds, and few connections were tried."""
    service = Service()
    async with RawServer(service) as first:
        port = first.port
    async with visit(f"http://127.0.0.1:{port}", max_concurrency=slots) as session:
        job = asyncio.create_task(many(session, 500))
        await asyncio.sleep(20)
        tried = sum("attempt" in record.getMessage() for record in caplog.records)
        assert 1 <= tried <= 10 + 10
        async with RawServer(service, port):
            back = now()
            outcomes = await job
            assert service.began - back <= 30
    assert kinds(outcomes) == {"effect": 500}
    assert len(service.posts) == 500


@pytest.mark.parametrize("slots", [1, 5, 50])
async def test_no_network_for_ever(visit: Visit, slots: int) -> None:
    """Everybody hears so: the first after their patience, and a long list does not take that time for each few."""
    async with visit(CLOSED, max_concurrency=slots, retry=Retry(patience=60)) as session:
        began = now()
        outcomes = []
        async for outcome in session.generate_many([f"sound {number}" for number in range(40)]):
            outcomes.append(outcome)
            if len(outcomes) == 1:
                assert now() - began == pytest.approx(60, abs=0.5)
    assert kinds(outcomes) == {"SubmitNotSentError": 40}
    assert now() - began <= 60 + 40 / min(slots, 10) * 31, "a probe for each few, with the longest pauses"


# Those who wait


async def test_a_caller_who_leaves_the_line(visit: Visit) -> None:
    """Whoever is cancelled while it is held is gone, nothing of it is sent, and the next goes in its turn."""
    service = Service(full("2"), lasts=3)  # nor does a probe leave before everybody is in the line
    async with RawServer(service) as server, visit(server.url) as session:
        jobs = [asyncio.create_task(session.generate(f"sound {number}")) for number in range(4)]
        await asyncio.sleep(0.15)
        sent = len(service.posts)
        assert sent == 4
        jobs[0].cancel()
        jobs[2].cancel()
        await asyncio.wait([jobs[0], jobs[2]], timeout=0.001)
        assert jobs[0].cancelled()
        assert jobs[2].cancelled()
        assert session.stats.submitting == 2
        await asyncio.gather(jobs[1], jobs[3])
        later = {prompt for _, prompt in service.posts[sent:]}
        assert later == {"sound 1", "sound 3"}


async def test_a_caller_who_leaves_before_the_line(visit: Visit) -> None:
    """Whoever leaves in the very step in which it is launched does not wait in line for nobody."""
    service = Service(full("60"), lasts=3)
    async with RawServer(service) as server, visit(server.url) as session:
        first = asyncio.create_task(session.generate("first"))
        await asyncio.sleep(0.2)
        second = asyncio.create_task(session.generate("second"))
        for _ in range(9):
            await asyncio.sleep(0)
            second.cancel()
        await asyncio.wait([second])
        await asyncio.sleep(0.1)
        assert session.stats.submitting == 1
        await first
    assert [prompt for _, prompt in service.posts] == ["first", "first"]


async def test_closing_while_some_are_held(visit: Visit, tmp_path: Path) -> None:
    """They hear at once that nothing was sent, their rows say so, and nothing is sent afterwards."""
    service = Service(full("60"), lasts=1e9)
    async with RawServer(service) as server:
        async with visit(server.url, journal=tmp_path / "j.db") as session:
            jobs = [asyncio.create_task(session.generate(f"sound {number}")) for number in range(3)]
            await asyncio.sleep(1)
            began = now()
            await session.aclose()
            errors = await asyncio.gather(*jobs, return_exceptions=True)
            assert now() - began < 0.5
            assert {type(error) for error in errors} == {SessionClosedError}
        await asyncio.sleep(300)
        assert len(service.posts) == 3
        async with visit(server.url, journal=tmp_path / "j.db") as session:
            assert [outcome async for outcome in session.recover()] == []


async def test_a_second_caller_of_a_held_key(visit: Visit, tmp_path: Path) -> None:
    """A caller who joins keeps the submission in its place when the first one leaves."""
    service = Service(full(), lasts=3)
    async with RawServer(service) as server, visit(server.url, journal=tmp_path / "j.db") as session:
        first = asyncio.create_task(session.generate("rain", key="k"))
        await asyncio.sleep(0.3)
        second = asyncio.create_task(session.generate("rain", key="k"))
        await asyncio.sleep(0.3)
        first.cancel()
        await asyncio.wait([first])
        assert first.cancelled()
        await second
    assert len(service.ends) == 1


async def test_a_crash_while_one_is_held(visit: Visit, tmp_path: Path) -> None:
    """Its row is queued, and so the next program sends it, once."""
    service = Service(full("60"), lasts=3)
    async with RawServer(service) as server:
        async with visit(server.url, journal=tmp_path / "j.db") as session:
            job = asyncio.create_task(session.generate("rain", key="k"))
            await asyncio.sleep(2)
            shutil.copytree(tmp_path, tmp_path / "then")
            job.cancel()
            await asyncio.wait([job])
        await asyncio.sleep(2)
        async with visit(server.url, journal=tmp_path / "then" / "j.db") as session:
            outcomes = [outcome async for outcome in session.recover()]
    assert kinds(outcomes) == {"effect": 1}
    assert (outcomes[0].key, len(service.ends)) == ("k", 1)


async def test_recover_without_a_network(visit: Visit, tmp_path: Path) -> None:
    """What an earlier program wished for stays queued when this one does not reach the service, either."""
    service = Service(full("60"), lasts=3)
    async with RawServer(service) as server, visit(server.url, journal=tmp_path / "j.db") as session:
        job = asyncio.create_task(session.generate("rain", key="k"))
        await asyncio.sleep(2)
        shutil.copytree(tmp_path, tmp_path / "then")
        job.cancel()
        await asyncio.wait([job])
    for _ in range(2):
        journal = tmp_path / "then" / "j.db"
        async with visit(CLOSED, journal=journal, retry=Retry(patience=5)) as session:
            (outcome,) = [outcome async for outcome in session.recover()]
            assert isinstance(outcome.error, SubmitNotSentError)
            assert "stays queued" in str(outcome.error)
    async with RawServer(service) as server, visit(server.url, journal=journal) as session:
        assert kinds([outcome async for outcome in session.recover()]) == {"effect": 1}
