"""Who gets a free slot, in whose context a POST runs, and what is called back before it leaves."""

from __future__ import annotations

import asyncio
import contextvars
from functools import partial
from typing import Any

import pytest
from fake_journal import FakeJournal
from fakes import FINISHED, FakeSlots, FakeTransport, says
from parts import RAIN, WIND, Ear, assemble, told, turns

from finevoice_async.core.ledger import EffectState, Move
from finevoice_async.core.requests import SfxRequest
from finevoice_async.core.wire import Reply
from finevoice_async.engine.caller import until_kept
from finevoice_async.engine.records import Phase, TaskRecord, stay
from finevoice_async.errors import JournalError, SessionClosedError, SubmitNotSentError

QUEUED, SENDING, SUBMITTED, DONE, SAVED, REFUSED, UNKNOWN, FAILED, GONE = EffectState
BOTH_WAYS = pytest.mark.parametrize("journalled", [False, True])
BUSY = says(429, retry_after="1")

caller: contextvars.ContextVar[str] = contextvars.ContextVar("caller")


class Noting(FakeTransport):
    """Notes in whose context each POST runs."""

    def __init__(self) -> None:
        super().__init__()
        self.callers: list[tuple[str, str]] = []

    async def post(self, path: str, body: bytes, **options: Any) -> Reply:
        """Take a submission."""
        reply = await super().post(path, body, **options)
        self.callers.append((self.posts[-1]["prompt"], caller.get("nobody")))
        return reply


@BOTH_WAYS
async def test_a_post_runs_in_its_own_callers_context(journalled: bool) -> None:
    """Whoever frees the slot, and whoever came before: no POST carries what another caller has set."""
    transport = Noting()
    journal = FakeJournal() if journalled else None
    async with assemble(transport, slots=FakeSlots(1), journal=journal) as parts:
        parts.transport.tasks = {f"t{number}": FINISHED for number in range(1, 5)}
        jobs = []
        for name in ("rain", "wind", "snow"):
            context = contextvars.copy_context()
            context.run(caller.set, f"who wants {name}")
            jobs.append(asyncio.create_task(parts.submit(SfxRequest(name)), context=context))
        await asyncio.gather(*jobs)
        assert transport.callers == [(name, f"who wants {name}") for name in ("rain", "wind", "snow")]


async def test_no_context_is_kept() -> None:
    """A submission may be remembered for long: sent, or withdrawn, it keeps nothing of its caller's."""
    async with assemble(slots=FakeSlots(1)) as parts:
        sent, queued = [parts.submitter.submit(RAIN, key, Ear()) for key in "kl"]
        again = parts.submitter.submit(RAIN, "k", Ear())
        assert (sent.context, again.context) == (None, None)
        assert queued.context is not None
        assert await parts.submitter.withdraw(queued)
        assert queued.context is None


@BOTH_WAYS
async def test_owners_take_turns(journalled: bool) -> None:
    """With 5 slots, one owner with 50 and nine with one each: the nine are among the first 20."""
    journal = FakeJournal() if journalled else None
    async with assemble(slots=FakeSlots(5), journal=journal) as parts:
        parts.transport.tasks = {f"t{number}": FINISHED for number in range(1, 60)}
        for number in range(50):
            parts.submitter.submit(SfxRequest(f"many {number}"), None, Ear(), owner="a")
        jobs = [parts.start(SfxRequest(f"one {number}"), owner=f"b{number}") for number in range(9)]
        await asyncio.gather(*jobs)
        assert sum(prompt.startswith("one") for prompt in parts.transport.prompts[:20]) == 9
        await asyncio.sleep(60)
        many = [prompt for prompt in parts.transport.prompts if prompt.startswith("many")]
        assert many == [f"many {number}" for number in range(50)]


# Called back


@pytest.mark.parametrize("step", range(9))
async def test_called_back_as_it_is_sent_again(step: int) -> None:
    """Taken back at each moment around its second POST: either it is taken back and not sent, or neither."""
    journal, transport = FakeJournal(delay=0.1), FakeTransport(BUSY, latency=0.1)
    async with assemble(transport, journal=journal) as parts:
        ear = Ear()
        submission = parts.submitter.submit(RAIN, "k", ear)
        await asyncio.sleep(1.3 + 0.05 * step)
        posts = len(transport.posts)
        taken_back = await parts.submitter.withdraw(submission)
        await asyncio.sleep(5)
        if taken_back:
            assert posts == len(transport.posts) == 1
            assert isinstance(ear.only, SubmitNotSentError)
            assert journal.states == [REFUSED]
        else:
            assert len(transport.posts) == 2
            assert isinstance(ear.only, TaskRecord)
            assert journal.states == [SUBMITTED]
    if step < 3 or step > 6:  # well before the POST, and after it
        assert taken_back is (step < 3)


async def test_called_back_while_its_move_is_written() -> None:
    """The move to SENDING for its second POST is under way as it is taken back: the POST never leaves."""
    journal, transport = FakeJournal(), FakeTransport(BUSY, latency=0.0)
    async with assemble(transport, journal=journal) as parts:
        submission = parts.submitter.submit(RAIN, "k", Ear())
        await asyncio.sleep(0.2)
        assert submission.phase is Phase.HELD
        journal.hanging = {Move.SEND}
        await asyncio.sleep(2)
        assert journal.moves()[-1] is Move.SEND
        assert await parts.submitter.withdraw(submission) is True
        journal.let_go()
        await asyncio.sleep(5)
        assert len(transport.posts) == 1
        assert journal.states == [REFUSED]


@pytest.mark.parametrize("phase", [Phase.LAUNCHED, Phase.OUT, Phase.ANSWERED, Phase.ENDED])
async def test_too_late_to_call_back(phase: Phase) -> None:
    """From its last write on it is on its way."""
    journal = FakeJournal()
    if phase is Phase.LAUNCHED:
        journal.delays[Move.SEND] = 1
    if phase is Phase.ANSWERED:
        journal.delays[Move.ACCEPT] = 1
    async with assemble(FakeTransport(latency=1.0 if phase is Phase.OUT else 0.0), journal=journal) as parts:
        ear = Ear()
        submission = parts.submitter.submit(RAIN, "k", ear)
        await asyncio.sleep(0.5)
        assert submission.phase is phase
        assert await parts.submitter.withdraw(submission) is False
        await asyncio.sleep(2)
        assert isinstance(ear.only, TaskRecord)


async def test_what_may_be_paid_for_is_not_called_back() -> None:
    """A row that is sent again with the caller's consent stays what it was: it cannot be made refused."""
    journal, slots = FakeJournal(), FakeSlots()
    slots.held = True
    async with assemble(journal=journal, slots=slots) as parts:
        row = journal.leave(UNKNOWN)
        submission = parts.submitter.submit_row(row, Ear(), resend=True)
        assert submission.phase is Phase.QUEUED
        assert await parts.submitter.withdraw(submission) is False
        assert journal.states == [UNKNOWN]


async def test_the_slot_of_what_is_called_back_is_free() -> None:
    """What was held gives its slot to who is next, at once."""
    slots = FakeSlots(1)
    async with assemble(FakeTransport(BUSY), slots=slots) as parts:
        submission = parts.submitter.submit(RAIN, "k", Ear())
        waiting = parts.start(WIND)
        await asyncio.sleep(0.3)
        assert await parts.submitter.withdraw(submission)
        assert (await waiting).task_id == "t1"


@pytest.mark.parametrize("phase", [Phase.QUEUED, Phase.HELD])
async def test_whoever_has_left_is_not_called_a_closed_session(phase: Phase) -> None:
    """Who waited has left: a handle that somebody else has says that, and that nothing was sent."""
    journal, slots = FakeJournal(), FakeSlots()
    slots.held = phase is Phase.QUEUED
    async with assemble(FakeTransport(BUSY), journal=journal, slots=slots) as parts:
        ear, other = Ear(), Ear()
        submission = parts.submitter.submit(RAIN, "k", ear)
        await asyncio.sleep(0.5)
        assert submission.phase is phase
        parts.submitter.leave(submission, ear)
        await turns(3)
        parts.submitter.join(submission, other)
        assert str(other.only) == "Nobody waited for it any more. Nothing was sent and nothing paid."
        assert journal.states == [REFUSED]


# Kept


async def test_a_kept_wish_needs_nobody() -> None:
    """Once it is kept, whoever waits may leave, while it is queued and while it is held."""
    journal, slots = FakeJournal(), FakeSlots()
    slots.held = True
    async with assemble(FakeTransport(BUSY), journal=journal, slots=slots) as parts:
        ear = Ear()
        submission = parts.submitter.submit(RAIN, "k", ear)
        await submission.until_kept()
        parts.submitter.keep(submission)
        parts.submitter.leave(submission, ear)
        assert list(submission.listeners) == [stay]
        slots.let_go()
        await asyncio.sleep(0.5)
        assert submission.phase is Phase.HELD
        parts.submitter.join(submission, ear)
        parts.submitter.leave(submission, ear)
        assert not ear.heard
        await asyncio.sleep(5)
        assert journal.states == [SUBMITTED]


async def test_a_wish_that_comes_as_the_session_closes() -> None:
    """Once its row is there it is kept, and stays queued: it is for its handle to tell what came of it."""
    journal = FakeJournal(delay=0.1)
    async with assemble(journal=journal) as parts:
        keeping = asyncio.create_task(until_kept(parts.submitter, partial(parts.submitter.submit, RAIN, "k")))
        await asyncio.sleep(0)
        parts.submitter.refuse()
        submission = await keeping
        assert submission.stays_queued
        assert isinstance(submission.result, SessionClosedError)
        assert journal.states == [QUEUED]


async def test_a_row_that_cannot_be_written() -> None:
    """It is no wish: whoever waits hears it, and the key is free."""
    journal = FakeJournal()
    journal.failing[QUEUED] = JournalError("The disk is full.")
    async with assemble(journal=journal) as parts:
        submission = parts.submitter.submit(RAIN, "k", Ear())
        with pytest.raises(JournalError, match="Nothing was sent"):
            await submission.until_kept()
        assert await parts.submitter.withdraw(submission) is False
        await turns(2)
        assert await parts.submitter.find(key="k") is None


@pytest.mark.parametrize("step", [QUEUED, Move.REFUSE])
async def test_a_journal_that_gives_no_answer(step: EffectState | Move) -> None:
    """Whoever waits for a row to be written, or for the note that it is withdrawn, hears as the session closes."""
    journal, slots = FakeJournal(), FakeSlots()
    slots.held = True
    journal.hanging = {step}
    async with assemble(journal=journal, slots=slots) as parts:
        submission = parts.submitter.submit(RAIN, "k", Ear())
        job: asyncio.Task[object] = asyncio.create_task(submission.until_kept())
        finding = asyncio.create_task(parts.submitter.find(key="k"))
        if step is Move.REFUSE:
            await asyncio.sleep(1)
            job = asyncio.create_task(parts.submitter.withdraw(submission))
        await asyncio.sleep(1)
        await parts.close()
        assert "The journal could not note that" in str(await told(job))
        await asyncio.wait([finding])
