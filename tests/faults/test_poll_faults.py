"""What goes wrong with polls, waiters, the key and the clock."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_server import Peer, RawServer, Request
from virtual_time import VirtualTimeLoop

from finevoice_async import (
    AuthenticationError,
    FineVoiceError,
    FineVoiceSession,
    InsufficientCreditsError,
    PollError,
    Polling,
    TaskNotFoundError,
    TaskTimeoutError,
    Timeouts,
)
from finevoice_async.adapters.local_slots import LocalSlots
from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.core.polling.schedule import LearnedSchedule
from finevoice_async.emulator import Constant, Emulator
from finevoice_async.emulator.faults import as_fault_name

Visit = Callable[..., FineVoiceSession]
Connect = Callable[..., FineVoiceSession]
ACCEPTED = b'{"task_id": "t"}'
RUNNING = b'{"status": 202}'
DONE = json.dumps({"status": "completed", "url": "http://127.0.0.1:9/x.wav"}).encode()


async def test_polls_answer_404_and_then_fine(visit: Visit) -> None:
    """Three 404 after the submission are borne."""

    async def script(request: Request, peer: Peer) -> None:
        if request.method == "POST":
            peer.answer(200, ACCEPTED)
        else:
            peer.answer(404 if server.count("GET") <= 3 else 200, DONE)

    async with RawServer(script) as server, visit(server.url) as session:
        assert (await session.generate("rain")).task_id == "t"


async def test_polls_answer_404_for_ever(visit: Visit) -> None:
    """After the grace period the task is not found, and its place is free."""

    async def script(request: Request, peer: Peer) -> None:
        peer.answer(200 if request.method == "POST" else 404, ACCEPTED)

    async with RawServer(script) as server, visit(server.url, max_concurrency=1) as session:
        for _ in range(2):
            with pytest.raises(TaskNotFoundError) as caught:
                await session.generate("rain")
            assert caught.value.task_id == "t"


async def test_polls_fail_every_other_time(visit: Visit) -> None:
    """Polls alternate 500 and 202: the count of failures begins anew each time."""

    async def script(request: Request, peer: Peer) -> None:
        if request.method == "POST":
            peer.answer(200, ACCEPTED)
        elif server.count("GET") > 40:
            peer.answer(200, DONE)
        else:
            peer.answer(500 if server.count("GET") % 2 else 200, RUNNING)

    async with RawServer(script) as server, visit(server.url, timeouts=Timeouts(task=None)) as session:
        assert (await session.generate("rain")).url


async def test_one_poll_in_ten_hangs(connect: Connect, emulator: Emulator) -> None:
    """One poll in ten hangs: all succeed, and the lag of the others is that of a quiet service."""
    emulator.service_time = Constant(5.0)
    async with connect(max_concurrency=10, polling=Polling.fixed(2.0), timeouts=Timeouts(read=8, task=None)) as session:
        submitted = [await session.submit("rain") for _ in range(10)]
        emulator.inject("poll.hang", 1)
        await asyncio.sleep(9)
        assert sum(task.done() for task in submitted) >= 9
        await asyncio.gather(*submitted)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["status", "error", "data"]), inner),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(JSON, min_size=1, max_size=4))
def test_polls_answer_any_json(answers: list[Any]) -> None:
    """No answer kills the poller or delays the deadline; what is not an end ends with the timeout."""
    turns = itertools.cycle(answers)

    async def script(request: Request, peer: Peer) -> None:
        body = json.dumps(next(turns)).encode()
        peer.answer(200, ACCEPTED if request.method == "POST" else body)

    async def job() -> None:
        async with RawServer(script) as server:
            timeouts = Timeouts(task=40)
            async with FineVoiceSession(
                "k", base_url=server.url, polling=Polling.fixed(2), timeouts=timeouts
            ) as session:
                began = asyncio.get_running_loop().time()
                with pytest.raises(FineVoiceError) as caught:
                    await session.generate("rain")
                assert caught.value.task_id == "t"
                assert asyncio.get_running_loop().time() - began <= 46
                with contextlib.suppress(FineVoiceError):
                    await (await session.attach("t")).wait(5)
                assert session.stats.polls > 1, "the poller lives"

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(job())


async def test_an_answer_that_drips_ends_in_time(visit: Visit) -> None:
    """A server that sends a byte now and then keeps no call longer than a silent one: connect + read seconds."""

    async def script(request: Request, peer: Peer) -> None:
        if request.method == "POST":
            peer.answer(200, ACCEPTED)
        elif server.count("GET") > 1:
            peer.answer(200, DONE)
        else:
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            while True:
                peer.send(b" ")
                await asyncio.sleep(2)

    async with RawServer(script) as server, visit(server.url) as session:
        began = asyncio.get_running_loop().time()
        assert (await session.generate("rain")).task_id == "t"
        assert asyncio.get_running_loop().time() - began < 2 + 10 + 5  # the gap, the limit, one more try


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (401, b'{"error": {"message": "bad key KEY"}}'),
        (400, b"KEY is no key"),
        (200, b'{"status": "failed", "error": "KEY has no credits"}'),
        (200, b"KEY"),
    ],
)
async def test_echoed_key_is_shown_nowhere(
    visit: Visit, unseen: Callable[..., None], key: str, status: int, answer: bytes
) -> None:
    """A service that repeats the key, in whatever answer, does not bring it into an error."""

    async def script(request: Request, peer: Peer) -> None:
        accepted = request.method == "POST" and server.count("POST") == 1
        peer.answer(200 if accepted else status, ACCEPTED if accepted else answer.replace(b"KEY", key.encode()))

    async with RawServer(script) as server, visit(server.url) as session:
        for _ in range(2):  # the poll fails, then the submission
            with pytest.raises(FineVoiceError) as caught:
                await session.generate("rain")
            assert "***" in f"{caught.value} {caught.value.body}"
            unseen(caught.value, session)


async def test_a_link_with_the_key_stays_whole(visit: Visit, key: str) -> None:
    """What was paid for is not lost for hiding the key: a link is used as it came."""
    link = f"http://127.0.0.1:9/x.wav?key={key}"

    async def script(request: Request, peer: Peer) -> None:
        peer.answer(200, json.dumps({"task_id": "t", "status": "completed", "url": link}).encode())

    async with RawServer(script) as server, visit(server.url) as session:
        effect = await session.generate("rain")
        assert effect.urls == (link,)
        assert key not in repr(effect)


async def test_the_poller_dies(
    connect: Connect, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The poller itself raises: every waiter hears with its id, loudly, and nothing is submitted again."""

    def broken(*_: object, **__: object) -> float:
        raise ZeroDivisionError("injected")

    async with connect() as session:
        tasks = [await session.submit("rain") for _ in range(3)]
        waiters = [asyncio.ensure_future(task.wait()) for task in tasks]
        await asyncio.sleep(0)
        monkeypatch.setattr(LearnedSchedule, "finished", broken)
        monkeypatch.setattr(LearnedSchedule, "running", broken)
        errors = await asyncio.gather(*waiters, return_exceptions=True)
        assert all(isinstance(error, PollError) for error in errors)
        assert {error.task_id for error in errors if isinstance(error, PollError)} == {task.id for task in tasks}
    assert emulator.ledger.posts == 3
    assert any(record.levelname == "CRITICAL" for record in caplog.records)


async def test_all_waiters_are_cancelled(connect: Connect, emulator: Emulator, tmp_path: Path) -> None:
    """All waiters are cancelled: the task is tracked to its end, and journalled."""
    async with connect(journal=tmp_path / "j.db") as session:
        task = await session.submit("rain")
        waiters = [asyncio.ensure_future(task.wait()) for _ in range(3)]
        await asyncio.sleep(0.1)
        for waiter in waiters:
            waiter.cancel()
        await asyncio.sleep(60)
        assert task.done()
        (row,) = [row async for row in session.rows()]
        assert (row.task_id, row.state.value) == (task.id, "done")


def _steps(job: Coroutine[Any, Any, Any], cancel_at: int) -> Coroutine[Any, Any, bool]:
    """Run a job as a task and cancel it after so many turns of the loop; tells whether it ended before."""

    async def run() -> bool:
        task = asyncio.ensure_future(job)
        for turn in range(cancel_at):
            if task.done():
                break
            await asyncio.sleep(0 if turn % 8 else 0.0003)  # time passes only when nothing is ready
        early = task.done()
        task.cancel()
        await asyncio.wait([task])
        return early

    return run()


@pytest.mark.parametrize("journalled", [False, True])
async def test_cancelled_at_every_await(connect: Connect, emulator: Emulator, tmp_path: Path, journalled: bool) -> None:
    """A submission with its wait and its save is cancelled at each turn of the loop in turn; nothing is lost."""
    emulator.service_time = Constant(0.0005)

    async def job(session: FineVoiceSession, number: int) -> None:
        task = await session.submit(f"rain {number}")
        effect = await task
        await effect.save(tmp_path / f"{number}.wav")

    journal = tmp_path / "j.db" if journalled else None
    polling = Polling.fixed(0.001, min_gap=0.001, budget=1e6)
    slots = LocalSlots(2, LoopClock())
    async with connect(journal=journal, polling=polling, slots=slots) as session:
        number = 0
        while not await _steps(job(session, number), number):
            number += 1
            assert number < 2000, "the job never ended"
            await asyncio.sleep(1)
            ids = {task.id for task in session.tasks}
            assert session.stats.submitting == session.stats.waiting == 0
            assert ids <= set(emulator.ledger.accepted)
            assert slots.used == len(ids) == 0
        assert number > 20
        assert session.stats.submitted == len(emulator.ledger.accepted)
        if journalled:
            rows = [row async for row in session.rows()]
            assert {row.task_id for row in rows if row.task_id} == set(emulator.ledger.accepted)
            assert {row.state.value for row in rows} <= {"done", "saved", "refused"}
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".part")]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("unauthorized", AuthenticationError),
        ("forbidden", AuthenticationError),
        ("no_credits", InsufficientCreditsError),
    ],
)
async def test_key_or_credits_fail_in_the_middle(
    connect: Connect, emulator: Emulator, fault: str, kind: type[FineVoiceError]
) -> None:
    """401, 403 and 402 stop the batch with that error; what runs is polled to its end; every id is kept."""
    async with connect() as session:
        outcomes = []
        async for outcome in session.generate_many([f"rain {i}" for i in range(20)]):
            outcomes.append(outcome)
            if len(outcomes) == 3:
                emulator.inject(as_fault_name(f"submit.{fault}"))
    good = {outcome.task_id for outcome in outcomes if outcome.effect}
    assert good == set(emulator.ledger.accepted)
    assert {type(outcome.error) for outcome in outcomes if outcome.error} == {kind}
    assert len(outcomes) == 20


async def test_the_machine_sleeps(connect: Connect, emulator: Emulator) -> None:
    """An hour passes at once: nothing expires before one more poll, and the ended task is found."""
    emulator.service_time = Constant(100.0)
    async with connect() as session:
        task = await session.submit("rain")
        waiter = asyncio.ensure_future(task.wait(timeout=900))
        await asyncio.sleep(1)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        loop.jump(3600)
        assert (await waiter).task_id == task.id


async def test_the_date_jumps(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """The date jumps back and forth: only monotonic time counts."""
    from datetime import UTC, datetime

    from finevoice_async.adapters.loop_clock import LoopClock

    years = iter([2020, 2040, 1999, 2026] * 1000)
    monkeypatch.setattr(LoopClock, "utcnow", lambda _: datetime(next(years), 1, 1, tzinfo=UTC))
    async with connect() as session:
        outcomes = [outcome async for outcome in session.generate_many(["rain"] * 20)]
    assert all(outcome.effect for outcome in outcomes)


async def test_an_hour_of_mixed_faults(connect: Connect, emulator: Emulator) -> None:
    """An hour of work with faults: every effect ends known, and nothing grows."""
    slots = LocalSlots(2, LoopClock())
    async with connect(slots=slots) as session:
        ended, began = 0, asyncio.get_running_loop().time()
        names = ("poll.error_500", "poll.hang", "poll.garbage", "poll.rate_limit", "task.fail", "submit.rate_limit")
        while asyncio.get_running_loop().time() - began < 3600:
            emulator.inject(as_fault_name(names[ended // 20 % len(names)]))
            async for outcome in session.generate_many(["rain"] * 20):
                ended += 1
                assert outcome.task_id in emulator.ledger.accepted
        assert session.stats.running == 0
        assert slots.used == 0
        assert ended == session.stats.submitted == len(emulator.ledger.accepted) > 300


async def test_deadline_beats_a_dead_service(visit: Visit) -> None:
    """A service that vanishes after the submission: the waiter hears at its deadline, or of the failures."""

    async def script(request: Request, peer: Peer) -> None:
        if request.method == "POST":
            peer.answer(200, ACCEPTED)
        else:
            await peer.reset()

    async with RawServer(script) as server, visit(server.url) as session:
        with pytest.raises((PollError, TaskTimeoutError)) as caught:
            await session.generate("rain")
        assert caught.value.task_id == "t"
