"""The service is away for a while, after it was paid: everybody gets what they paid for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from raw_server import Peer, RawServer, Request

from finevoice_async import FineVoiceSession, PollError, Polling, SfxTask, TaskTimeoutError, Timeouts
from finevoice_async.engine.answers import PATIENCE

Visit = Callable[..., FineVoiceSession]
DONE = b'{"status": "completed", "url": "http://127.0.0.1:9/x.wav"}'
RUNNING = b'{"status": "processing"}'


class Service:
    """Accepts what is asked for, and says how the tasks are doing as it is told to."""

    def __init__(self) -> None:
        self.accepted = 0
        self.answer: Callable[[Peer], object] = lambda peer: peer.answer(200, RUNNING)

    async def __call__(self, request: Request, peer: Peer) -> None:
        """Answer a request."""
        if request.method == "POST":
            self.accepted += 1
            peer.answer(200, b'{"task_id": "t%d"}' % self.accepted)
        elif (more := self.answer(peer)) is not None:
            assert asyncio.iscoroutine(more)
            await more

    def works(self) -> None:
        """Let everything be done."""
        self.answer = lambda peer: peer.answer(200, DONE)


async def submitted(session: FineVoiceSession, count: int) -> list[SfxTask]:
    """Submit some effects, all of which run."""
    tasks = [await session.submit("rain") for _ in range(count)]
    await asyncio.sleep(5)
    return tasks


def now() -> float:
    """Return the loop's time."""
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize("count", [1, 5, 40])
@pytest.mark.parametrize("polling", [Polling(), Polling.fixed(2.5)], ids=["learned", "fixed"])
async def test_the_service_refuses_connections_for_45_s(visit: Visit, count: int, polling: Polling) -> None:
    """Nobody listens for 45 s: every effect comes, soon after somebody listens again."""
    service = Service()
    options = {"polling": polling, "max_concurrency": count, "timeouts": Timeouts()}
    async with RawServer(service) as server:
        session = visit(server.url, **options)
        tasks = await submitted(session, count)
    began = now()
    waiters = [asyncio.ensure_future(task.wait()) for task in tasks]
    await asyncio.sleep(45)
    assert not any(waiter.done() for waiter in waiters)
    service.works()
    async with RawServer(service, server.port), session:
        effects = await asyncio.gather(*waiters)
        assert all(effect.url for effect in effects)
        assert now() - began < 45 + 8


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408, 429, 200])
async def test_a_gateway_answers_in_its_place(visit: Visit, status: int) -> None:
    """For 100 s a gateway answers, with errors or with a page: every effect comes, soon after that."""
    service = Service()
    async with RawServer(service) as server, visit(server.url, max_concurrency=10, timeouts=Timeouts()) as session:
        tasks = await submitted(session, 10)
        service.answer = lambda peer: peer.answer(status, b"<html><title>Away</title>")
        began = now()
        waiters = [asyncio.ensure_future(task.wait()) for task in tasks]
        await asyncio.sleep(100)
        service.works()
        await asyncio.gather(*waiters)
        assert now() - began < 100 + (30 if status == 429 else 8)  # a 429 asks for the pauses that it gets


async def test_connections_are_reset_for_a_minute(visit: Visit) -> None:
    """Every connection is reset: the effects come, soon after that ends."""
    service = Service()
    async with RawServer(service) as server, visit(server.url, max_concurrency=10, timeouts=Timeouts()) as session:
        tasks = await submitted(session, 10)
        service.answer = lambda peer: peer.reset()
        began = now()
        waiters = [asyncio.ensure_future(task.wait()) for task in tasks]
        await asyncio.sleep(60)
        service.works()
        await asyncio.gather(*waiters)
        assert now() - began < 60 + 8


async def test_a_service_that_stays_broken_is_told(visit: Visit) -> None:
    """500 without end is told after two minutes, with the id; the task is not given up."""
    service = Service()
    async with RawServer(service) as server, visit(server.url, timeouts=Timeouts()) as session:
        (task,) = await submitted(session, 1)
        service.answer = lambda peer: peer.answer(500, b'{"message": "We are sorry."}', X_Request_Id="r-1")
        began = now()
        with pytest.raises(PollError, match=r"We are sorry\. The task may still run") as caught:
            await task
        assert PATIENCE <= now() - began < PATIENCE + 60
        error = caught.value
        assert (error.task_id, error.status, error.request_id, error.paid) == (task.id, 500, "r-1", True)
        service.works()
        assert (await task).task_id == task.id


async def test_the_waiters_own_time_rules(visit: Visit) -> None:
    """A waiter whose time is up during an outage hears so, and why nobody could ask."""
    service = Service()
    async with RawServer(service) as server:
        session = visit(server.url)
        (task,) = await submitted(session, 1)
    async with session:
        began = now()
        with pytest.raises(TaskTimeoutError, match=r"Its last poll failed: The service was not reached") as caught:
            await task.wait(timeout=20)
        assert 20 <= now() - began < 26
        assert (caught.value.task_id, caught.value.paid) == (task.id, True)
