"""Sessions in a fleet whose database goes away, that fall silent, or whose process dies."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from databases import Databases, Server
from fleet_sessions import Sessions, freeze, journal_of
from fleets import QUICK, sql, until

from finevoice_async import EffectState, FineVoiceError, FineVoiceSession, PollError, SubmitUnknownError, Timeouts
from finevoice_async.adapters.postgres import schema
from finevoice_async.core.ledger import Move
from finevoice_async.testing import EmulatedService, make_service

pytestmark = pytest.mark.real_time
MEMBER = Path(__file__).parent / "member.py"


@pytest.fixture
def service() -> Iterator[EmulatedService]:
    """A service that lets two tasks run at once, for a fifth of a second each."""
    with make_service(plan_limit=2, service_time=0.2) as service:
        yield service


@pytest.fixture
async def fleet(service: EmulatedService, url: str, no_leaks: object) -> AsyncIterator[Sessions]:
    """Sessions that share a database."""
    async with Sessions(service, url) as sessions:
        yield sessions


async def start(fleet: Sessions, *wishes: str, plan: int = 2) -> asyncio.subprocess.Process:
    """Start a process that is in the fleet."""
    service = fleet.service
    words = [str(MEMBER), fleet.url, service.url, service.api_key, str(plan), *wishes]
    return await asyncio.create_subprocess_exec(sys.executable, *words, stdout=asyncio.subprocess.PIPE)


async def says(process: asyncio.subprocess.Process, word: str) -> str:
    """Wait until a process says something, and return the line."""
    assert process.stdout is not None
    async with asyncio.timeout(20):
        while True:
            line = (await process.stdout.readline()).decode()
            assert line, f"it ended before it said {word!r}"
            if line.startswith(word):
                return line.strip()


async def kill(process: asyncio.subprocess.Process) -> None:
    """Let a process die."""
    process.kill()
    await process.wait()


async def test_a_killed_process_leaves_its_tasks_and_slots(fleet: Sessions) -> None:
    """What runs is adopted with its slot, which is free once the task has ended; nothing is paid twice."""
    fleet.service.service_time = 0.8
    process = await start(fleet, "one", "two")
    await says(process, "submitted")
    await says(process, "submitted")
    survivor = await fleet.open()
    waits = asyncio.ensure_future(survivor.generate("three", key="three"))
    await kill(process)
    effects = [await survivor.generate(key, key=key) for key in ("one", "two")]
    ended_at = time.monotonic()
    await until(lambda: "three" in fleet.prompts, within=2)
    assert time.monotonic() - ended_at < 2
    await waits
    ledger = fleet.service.ledger
    assert [effect.task_id for effect in effects] == list(ledger.accepted)[:2]
    assert (ledger.posts, ledger.most_running) == (3, 2)


async def test_a_process_that_is_killed_while_it_sends(fleet: Sessions) -> None:
    """What it was sending is unknown once its lease is over, for whoever waits, and is sent by nobody."""
    fleet.service.inject("submit.hang")
    process = await start(fleet, "one")
    await until(lambda: fleet.service.ledger.posts == 1, within=20)
    survivor = await fleet.open()
    waits = asyncio.ensure_future(survivor.generate("one", key="one"))
    await until(lambda: "Following 1" in repr(survivor._parts._following))
    assert await survivor.unknown() == []
    await kill(process)
    killed_at = time.monotonic()
    with pytest.raises(SubmitUnknownError):
        await waits
    assert time.monotonic() - killed_at < QUICK.lease + 3
    assert [row.key for row in await survivor.unknown()] == ["one"]
    assert fleet.service.ledger.posts == 1


async def test_a_process_that_is_killed_while_it_waits(fleet: Sessions) -> None:
    """What it had queued goes on where somebody else waits for it, and nowhere else."""
    fleet.service.inject("task.never_ends")
    survivor = await fleet.open(max_concurrency=1)
    running = await survivor.submit("first", key="first")
    process = await start(fleet, "one", "two", plan=1)

    async def wait() -> bool:
        return (await survivor.fleet()).waiting == 2

    await until(wait, within=20)
    wanted = asyncio.ensure_future(survivor.generate("one", key="one"))
    await until(lambda: "Following 1" in repr(survivor._parts._following))
    await kill(process)
    (row,) = [row async for row in survivor.rows(EffectState.SUBMITTED)]
    assert await journal_of(survivor).move(row.id, Move.FAIL, task_id=running.id)
    await wanted
    assert fleet.prompts == ["first", "one"]
    assert [row.key async for row in survivor.rows(EffectState.QUEUED)] == ["two"]
    assert [outcome.key async for outcome in survivor.recover() if outcome.key == "two"] == ["two"]


async def test_a_process_that_stands_still_beyond_its_lease(fleet: Sessions) -> None:
    """Its task is adopted; awake again it comes back, hears the end, and nothing is paid twice."""
    fleet.service.service_time = 1.5
    process = await start(fleet, "one", "two", plan=1)
    await says(process, "submitted")
    survivor = await fleet.open(max_concurrency=1)
    process.send_signal(signal.SIGSTOP)

    async def alone() -> bool:
        return (await survivor.fleet()).sessions == 1

    await until(alone, within=QUICK.lease + 3)
    effect = await survivor.generate("one", key="one")
    process.send_signal(signal.SIGCONT)
    assert str(effect.task_id) in await says(process, "made")
    await says(process, "idle")
    assert sorted(fleet.prompts) == ["one", "two"]
    assert fleet.service.ledger.most_running == 1
    await kill(process)


async def test_an_answer_that_comes_after_its_session_was_taken_for_dead(fleet: Sessions) -> None:
    """Others call the submission unknown; its answer settles it all the same, for all who wait."""
    fleet.service.inject("submit.slow", value=2.5)
    patient = Timeouts(read=10)
    silent, other = await fleet.open(timeouts=patient), await fleet.open()
    task = asyncio.ensure_future(silent.generate("Door", key="k"))
    await until(lambda: fleet.service.ledger.posts == 1)
    await freeze(silent)

    async def is_unknown() -> bool:
        return [row.key for row in await other.unknown()] == ["k"]

    await until(is_unknown)
    effect = await task
    assert (await other.generate("Door", key="k")).task_id == effect.task_id
    assert await other.unknown() == []
    assert fleet.service.ledger.posts == 1


async def test_nothing_leaves_while_others_may_take_it_for_dead(fleet: Sessions) -> None:
    """A session that could not say for half a lease that it lives sends nothing until it has."""
    session = await fleet.open()
    journal = journal_of(session)
    await freeze(session)
    await until(lambda: not journal.is_sure())
    wish = asyncio.ensure_future(session.generate("Door", key="k"))
    await asyncio.sleep(0.2)
    assert fleet.service.ledger.posts == 0
    journal._beat = asyncio.create_task(journal._keep_beating())
    await wish
    assert fleet.service.ledger.posts == 1


async def test_while_the_database_is_down(service: EmulatedService, server: Server, no_leaks: object) -> None:
    """Nothing is sent, what runs is asked for and told, and what is true is written once the database is back."""
    url = Databases(server.url).make()
    await schema.init(url)
    service.service_time = 0.6
    async with Sessions(service, url) as fleet:
        session = await fleet.open()
        first = await session.submit("first", key="first")
        await asyncio.to_thread(server.crash)
        second = asyncio.ensure_future(session.generate("second", key="second"))
        effect = await first  # the service has told it
        assert await effect.read()
        await asyncio.sleep(0.3)
        assert (service.ledger.posts, second.done()) == (1, False)
        await asyncio.to_thread(server.start)
        await second
        rows = {row.key: row async for row in session.rows()}
        assert {row.state for row in rows.values()} == {EffectState.DONE}
        assert rows["first"].task_id == effect.task_id
        assert service.ledger.posts == 2


async def test_connections_that_are_cut(fleet: Sessions) -> None:
    """All sessions come back by themselves: who makes it, who follows it, and who waits for a slot."""
    fleet.service.service_time = 0.4
    a, b = await fleet.open(max_concurrency=1), await fleet.open(max_concurrency=1)
    task = await a.submit("Door", key="k")
    followed = asyncio.ensure_future(b.generate("Door", key="k"))
    waits = asyncio.ensure_future(b.generate("Wind", key="w"))
    await until(lambda: journal_of(b).slots.waiting_here)
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'finevoice'"
    await asyncio.to_thread(sql, fleet.url, cut)
    assert (await task).task_id == (await followed).task_id == task.id
    assert (await waits).key == "w"
    ledger = fleet.service.ledger
    assert (ledger.posts, ledger.most_running) == (2, 1)
    assert await a.unknown() == []


async def test_a_password_is_shown_nowhere(
    fleet: Sessions, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither in a repr nor in an error, its causes or the log, whatever the database says."""
    caplog.set_level(0)
    secret = "s3cr3t-w0rd"
    wrong = fleet.url.replace("finevoice@", f"finevoice:{secret}@")
    shown = []
    for url in (wrong.replace("127.0.0.1", "127.0.0.2"), wrong + "_not_there", wrong + "?sslmode=nonsense"):
        session = fleet.service.session(journal=url)
        with pytest.raises(FineVoiceError) as failed:
            await session.submit("Door")
        await session.aclose()
        cause: BaseException | None = failed.value
        while cause is not None:
            shown += [str(cause), repr(cause)]
            cause = cause.__cause__ or cause.__context__
        shown += [repr(session), repr(session._parts._journal), repr(session._parts)]
    shown += [caplog.text, *capsys.readouterr()]
    assert secret not in "".join(shown)
    assert os.environ.get("PGPASSWORD") is None


async def test_a_poller_that_died(fleet: Sessions) -> None:
    """Its tasks are followed by another session, and it adopts no more."""
    fleet.service.service_time = 0.5
    broken, other = await fleet.open(), await fleet.open()
    task = await broken.submit("Door", key="k")
    poller = broken._parts.poller._coroutine
    assert poller is not None
    poller.cancel()
    with pytest.raises(PollError):
        await task
    await until(lambda: other.stats.running == 1)
    assert (await other.generate("Door", key="k")).task_id == task.id
    assert (broken.stats.running, (await other.fleet()).taken) == (1, 0)


async def test_a_task_that_is_given_up(fleet: Sessions) -> None:
    """What nobody waits for, and never ends, keeps no slot for ever; its row waits for its end."""
    fleet.service.inject("task.never_ends")
    session = await fleet.open()
    await session.submit("Door", key="k")
    (record,) = session._parts.inflight.tasks.values()
    session._parts.inflight.end(record, record.timeout_error())

    async def is_free() -> bool:
        stats = await session.fleet()
        return (stats.taken, stats.running) == (0, 1)

    await until(is_free)


@pytest.mark.filterwarnings("error::ResourceWarning")
def test_a_session_whose_loop_is_gone(url: str) -> None:
    """The fixtures' service drops its connections, so that the fleet does not take it for a session that lives."""
    with make_service() as service:
        session = service.session(journal=url, fleet=QUICK)
        asyncio.run(_made(session))
    assert sql(url, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'finevoice'") == [(0,)]


async def _made(session: FineVoiceSession) -> None:
    await session.generate("Door")
