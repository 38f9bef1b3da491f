"""A refused key and spent credits meet everybody: who waits is sent home unsent, and who comes later probes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fake_journal import FakeJournal
from fakes import FakeSlots, FakeTransport, says
from parts import RAIN, Ear, assemble, told

from finevoice_async.config import Retry
from finevoice_async.core.brake import KEY_PAUSE
from finevoice_async.core.ledger import EffectState, Move
from finevoice_async.core.requests import SfxRequest
from finevoice_async.core.wire import Reply
from finevoice_async.engine.records import TaskRecord
from finevoice_async.errors import AuthenticationError, FineVoiceError, InsufficientCreditsError, SubmitUnknownError

QUEUED, SENDING, SUBMITTED, DONE, SAVED, REFUSED, UNKNOWN, FAILED, GONE = EffectState
STATUSES = pytest.mark.parametrize(
    ("status", "kind"), [(401, AuthenticationError), (403, AuthenticationError), (402, InsufficientCreditsError)]
)
JOURNALLED = pytest.mark.parametrize("journalled", [False, True])


@STATUSES
@JOURNALLED
async def test_many_wait(status: int, kind: type[FineVoiceError], journalled: bool) -> None:
    """Of 200 that wait only those that were on their way are sent; each hears why, and that it was not sent."""
    journal = FakeJournal()
    transport = FakeTransport(*[says(status)] * 500)
    async with assemble(transport, slots=FakeSlots(4), journal=journal if journalled else None) as parts:
        jobs = [parts.start(SfxRequest(f"{number}"), f"k{number}") for number in range(200)]
        await asyncio.sleep(1)
        assert all(job.done() for job in jobs)
        errors = [await told(job) for job in jobs]
        assert {type(error) for error in errors} == {kind}
        assert len({id(error) for error in errors}) == 200
        unsent = [error for error in errors if "this one was not sent" in str(error)]
        assert len(transport.posts) == 4 == 200 - len(unsent)
        for error in unsent:
            assert isinstance(error, FineVoiceError)
            assert (error.paid, error.status) == (False, status)
        assert set(journal.states) <= {REFUSED}


@STATUSES
async def test_who_comes_later_probes(status: int, kind: type[FineVoiceError]) -> None:
    """After it, one asks for all who wait then: refused again, none of the others is sent; else all are."""
    transport = FakeTransport(says(status), says(status))
    async with assemble(transport) as parts:
        assert isinstance(await told(parts.start()), kind)
        await asyncio.sleep(KEY_PAUSE)
        for job in [parts.start(SfxRequest(f"{number}")) for number in range(4)]:
            assert isinstance(await told(job), kind)
        assert len(transport.posts) == 2
        await asyncio.sleep(KEY_PAUSE)
        records = await asyncio.gather(*[parts.start(SfxRequest(f"{number}")) for number in range(4)])
        assert {record.task_id for record in records} == {"t1", "t2", "t3", "t4"}


@pytest.mark.parametrize("status", [401, 402, 403])
async def test_how_soon(status: int) -> None:
    """A wrong key is asked about again after half a minute, what may be about one request, or mended, at once."""
    transport = FakeTransport(says(status))
    async with assemble(transport) as parts:
        await told(parts.start())
        if status == 401:
            await asyncio.sleep(KEY_PAUSE - 1)
            assert isinstance(await told(parts.start()), AuthenticationError)
            assert len(transport.posts) == 1
            await asyncio.sleep(1)
        assert (await parts.submit()).task_id == "t1"


@STATUSES
async def test_between_its_slot_and_its_post(status: int, kind: type[FineVoiceError]) -> None:
    """Who is about to leave, and only writes that down, is not sent any more."""
    journal = FakeJournal()
    transport = FakeTransport(says(status))
    async with assemble(transport, slots=FakeSlots(2), journal=journal) as parts:
        first = parts.start(SfxRequest("first"), "a")
        await asyncio.sleep(0.05)
        journal.delays[Move.SEND] = 2
        second = parts.start(SfxRequest("second"), "b")
        for job in (first, second):
            assert isinstance(await told(job), kind)
        assert transport.prompts == ["first"]
        assert journal.states == [REFUSED, REFUSED]


@STATUSES
async def test_while_its_row_is_written(status: int, kind: type[FineVoiceError]) -> None:
    """So is who wished for something before it, and whose row comes after it."""
    journal = FakeJournal()
    transport = FakeTransport(says(status))
    async with assemble(transport, journal=journal) as parts:
        first = parts.start(SfxRequest("first"), "a")
        await asyncio.sleep(0.05)
        journal.delays[QUEUED] = 2
        second = parts.start(SfxRequest("second"), "b")
        assert isinstance(await told(first), kind)
        assert isinstance(await told(second), kind)
        assert transport.prompts == ["first"]


@STATUSES
async def test_as_its_slot_comes(status: int, kind: type[FineVoiceError]) -> None:
    """Who gets a slot in the very step of the refusal is no probe: it was wished for before."""

    class Giving(FakeTransport):
        async def post(self, path: str, body: bytes, **options: Any) -> Reply:
            reply = await super().post(path, body, **options)
            slots.let_go()
            await asyncio.sleep(0)
            return reply

    slots = FakeSlots(2)
    async with assemble(Giving(says(status)), slots=slots) as parts:
        first = parts.start()
        await asyncio.sleep(0.05)
        slots.held = True
        others = [parts.start(SfxRequest(f"{number}")) for number in range(3)]
        for job in (first, *others):
            assert isinstance(await told(job), kind)
        assert len(parts.transport.posts) == 1


async def test_who_is_held_goes_home() -> None:
    """Who waits for a service that was full hears of the probe's refusal at once, and is not sent again."""
    transport = FakeTransport(says(429), says(429), says(402))
    async with assemble(transport, slots=FakeSlots(2), retry=Retry(patience=1000)) as parts:
        jobs = [parts.start(), parts.start(SfxRequest("wind"))]
        for job in jobs:
            assert isinstance(await told(job), InsufficientCreditsError)
        assert len(transport.posts) == 3


async def test_what_may_be_paid_for_is_in_doubt_still() -> None:
    """A resend that waits and is not sent is unknown, as it was; what an earlier session wished for stays queued."""
    journal, slots = FakeJournal(), FakeSlots(1)
    async with assemble(FakeTransport(says(402)), slots=slots, journal=journal) as parts:
        job = parts.start(RAIN, "first")
        await asyncio.sleep(0.05)
        unknown, queued = journal.leave(UNKNOWN, "unknown"), journal.leave(QUEUED, "queued")
        resending, left = Ear(), Ear()
        parts.submitter.submit_row(unknown, resending, resend=True)
        parts.submitter.submit_row(queued, left)
        await told(job)
        await asyncio.sleep(1)
        assert isinstance(resending.only, FineVoiceError)
        assert resending.only.paid is None
        assert isinstance(left.only, InsufficientCreditsError)
        assert "stays queued" in left.only.message
        assert journal.states == [REFUSED, UNKNOWN, QUEUED]
        assert len(parts.transport.posts) == 1


async def test_what_left_before_is_heard() -> None:
    """A submission that was on its way already, and is accepted, is a task."""
    transport = FakeTransport(says(402), says(task_id="late"))
    async with assemble(transport) as parts:
        first = parts.start()
        await asyncio.sleep(0.05)
        second = parts.start(SfxRequest("wind"))
        assert isinstance(await told(first), InsufficientCreditsError)
        assert isinstance(await second, TaskRecord)


async def test_a_probe_that_is_lost() -> None:
    """After a refusal the probe's answer is lost: it is unknown, and the next one probes in its turn."""
    transport = FakeTransport(says(403), says(500))
    async with assemble(transport) as parts:
        await told(parts.start())
        assert isinstance(await told(parts.start()), SubmitUnknownError)
        assert (await parts.submit()).task_id == "t1"
