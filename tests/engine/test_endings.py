"""How submissions end: each is told once, and not before the journal has it on disk that nothing will be sent."""

from __future__ import annotations

import asyncio
import logging

import pytest
from fake_journal import FakeJournal
from fakes import FakeSlots
from parts import RAIN, Ear, turns

from finevoice_async.core.ledger import EffectState, Move
from finevoice_async.engine.bookkeeper import Bookkeeper
from finevoice_async.engine.endings import Endings
from finevoice_async.engine.records import Phase, Submission, TaskRecord
from finevoice_async.engine.registry import Registry
from finevoice_async.engine.rows import closed_error
from finevoice_async.engine.slot_queue import SlotQueue
from finevoice_async.errors import (
    FineVoiceError,
    InsufficientCreditsError,
    JournalError,
    SessionClosedError,
    SubmitUnknownError,
)

QUEUED, SENDING, SUBMITTED, DONE, SAVED, REFUSED, UNKNOWN, FAILED, LOST = EffectState


class Case:
    """Endings with a journal, and one submission with a slot and a listener."""

    def __init__(self, state: EffectState | None, phase: Phase, *, key: str | None = "k") -> None:
        self.journal = FakeJournal()
        self.journal.is_open = True
        self.slots, self.ear, self.registry = FakeSlots(), Ear(), Registry(remembers=False)
        self.queue = SlotQueue(self.slots)
        self.books = Bookkeeper(self.journal)
        self.endings = Endings(self.books, self.registry, self.queue, self.slots)
        row = None if state is None else self.journal.leave(state, key=key)
        self.submission = Submission(RAIN, key, row, state or QUEUED, phase=phase, listeners={self.ear: None})
        self.submission.slot = self.slots.try_acquire()
        self.registry.add(self.submission)

    @property
    def heard(self) -> FineVoiceError:
        """The error that the listener has heard."""
        error = self.ear.only
        assert isinstance(error, FineVoiceError)
        return error


# Finished


async def test_told_once() -> None:
    """Every listener hears, each an error of its own; a second end is told to nobody."""
    case, other = Case(None, Phase.OUT), Ear()
    case.submission.listeners[other] = None
    case.endings.finish(case.submission, closed_error())
    case.endings.finish(case.submission, TaskRecord("t1", RAIN, 0.0))
    assert isinstance(case.heard, SessionClosedError)
    assert isinstance(other.only, SessionClosedError)
    assert case.heard is not other.only
    assert case.submission.phase is Phase.ENDED
    assert isinstance(case.submission.result, SessionClosedError)
    assert case.registry.find("k") is None


@pytest.mark.parametrize("key", [None, "k"])
async def test_its_row_is_free_then(key: str | None) -> None:
    """A row is under way until its submission has ended, with a key or without."""
    case = Case(QUEUED, Phase.QUEUED, key=key)
    row = case.journal.contents[1]
    case.endings.retire(case.submission, closed_error())
    assert case.registry.holds(row)
    await turns(2)
    assert not case.registry.holds(row)


async def test_one_task_for_all() -> None:
    """All listeners hear of the one task."""
    case, other, record = Case(None, Phase.OUT), Ear(), TaskRecord("t1", RAIN, 0.0)
    case.submission.listeners[other] = None
    case.endings.finish(case.submission, record)
    assert case.ear.only is other.only is record


async def test_a_launch_that_comes_to_nothing_is_told() -> None:
    """Whoever waits for the launch waits no more."""
    case = Case(None, Phase.QUEUED)
    waiting = asyncio.create_task(case.submission.until_launched())
    await turns(1)
    case.endings.finish(case.submission, closed_error())
    async with asyncio.timeout(1):
        await waiting


@pytest.mark.parametrize("listens", [False, True])
@pytest.mark.parametrize("phase", [Phase.ANSWERED, Phase.BEGINNING])
async def test_a_task_without_a_listener(phase: Phase, listens: bool, caplog: pytest.LogCaptureFixture) -> None:
    """What was just submitted for somebody who has left is worth a line in the log: it was paid for."""
    case = Case(None, phase)
    if not listens:
        case.submission.listeners.clear()
    case.endings.finish(case.submission, TaskRecord("t1", RAIN, 0.0))
    other = Submission(RAIN, phase=phase)
    case.endings.finish(other, closed_error())
    assert len(caplog.records) <= 1
    logged = "task t1 was submitted although its caller was cancelled" in caplog.text
    assert logged is (phase is Phase.ANSWERED and not listens)


async def test_a_slot_goes_back_once() -> None:
    """A slot is given back, and a second time there is none."""
    case = Case(None, Phase.OUT)
    case.endings.release(case.submission)
    case.endings.release(case.submission)
    assert not case.slots.out
    assert not case.slots.complaints


# Retired


async def test_told_when_it_is_on_disk() -> None:
    """The row is withdrawn at once, so that the key is free; the listener hears once that is on disk."""
    case = Case(QUEUED, Phase.QUEUED)
    case.journal.delays[Move.REFUSE] = 3
    case.queue.add(case.submission)
    case.endings.retire(case.submission, InsufficientCreditsError("No credits."))
    assert case.queue.count == 0
    assert case.registry.find("k") is None
    assert case.journal.states == [REFUSED]
    assert not case.submission.is_waiting
    (note,) = case.endings.pending
    await asyncio.sleep(2)
    assert case.ear.heard == []
    await note
    await turns(2)
    assert isinstance(case.heard, InsufficientCreditsError)
    assert (case.heard.message, case.heard.request) == ("No credits.", RAIN)
    assert case.endings.pending == []


async def test_told_at_once_where_nothing_is_to_be_noted() -> None:
    """Without a row, or with one that says so already, there is nothing to wait for."""
    for case in (Case(None, Phase.QUEUED), Case(REFUSED, Phase.QUEUED)):
        case.endings.retire(case.submission, closed_error())
        assert case.heard.message == "The session was closed. Nothing was sent."
        assert case.journal.steps == []


async def test_what_becomes_of_the_row_is_told() -> None:
    """What an earlier process wished for stays queued; what may be paid for stays unknown: the error says so."""
    left = Case(SENDING, Phase.HELD)
    left.submission.left_behind = True
    doubtful = Case(SENDING, Phase.HELD)
    doubtful.submission.may_be_paid = True
    for case, state, words in ((left, QUEUED, "stays queued"), (doubtful, UNKNOWN, "stays as it was")):
        case.endings.retire(case.submission, closed_error())
        await turns(3)
        assert case.journal.states == [state]
        assert words in case.heard.message


@pytest.mark.parametrize("fault", [JournalError("The disk is full."), OSError(), asyncio.CancelledError()])
async def test_a_withdrawal_that_cannot_be_noted(fault: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """The listener hears that the row would be sent, and how to prevent it."""
    case = Case(QUEUED, Phase.QUEUED)
    case.journal.failing[Move.REFUSE] = fault
    error = closed_error()
    case.endings.retire(case.submission, error)
    await turns(3)
    assert case.heard.message.startswith("The session was closed. Nothing was sent. The journal could not note that")
    assert "discard(row)" in str(case.heard)
    assert str(error) == "The session was closed. Nothing was sent."
    assert "could not note that row 1 is withdrawn" in caplog.text
    assert case.endings.pending == []


async def test_a_doubt_that_cannot_be_noted() -> None:
    """A doubt is told as a doubt: the row is not one that recover() would send."""
    case = Case(SENDING, Phase.OUT)
    case.journal.failing[Move.DOUBT] = JournalError("The disk is full.")
    case.endings.cut_off(case.submission)
    await turns(3)
    assert isinstance(case.heard, SubmitUnknownError)
    assert "recover() may send it" not in case.heard.message


# Cut off


async def test_cut_off_after_the_answer() -> None:
    """What became of it is known, and is told; the slot that is left goes back."""
    record = TaskRecord("t1", RAIN, 0.0)
    case = Case(SENDING, Phase.ANSWERED)
    case.submission.result = record
    case.endings.cut_off(case.submission)
    assert case.ear.only is record
    assert not case.slots.out
    assert case.journal.steps == []


@pytest.mark.parametrize("fault", [None, JournalError("The disk is full."), asyncio.CancelledError()])
async def test_cut_off_while_the_answer_is_noted(fault: BaseException | None) -> None:
    """What is known is told once it is on disk, or cannot be."""
    record = TaskRecord("t1", RAIN, 0.0)
    case = Case(SENDING, Phase.ANSWERED)
    case.journal.delays[Move.ACCEPT] = 3
    if fault is not None:
        case.journal.failing[Move.ACCEPT] = fault
    case.submission.result = record
    note = case.books.accepted_as(case.submission, record)
    case.endings.cut_off(case.submission)
    assert case.endings.pending == [note]
    await asyncio.sleep(2)
    assert case.ear.heard == []
    await asyncio.sleep(2)
    assert case.ear.only is record
    assert case.endings.pending == []


async def test_cut_off_while_it_is_out(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody knows what became of it, and the row says so before it is told."""
    case = Case(SENDING, Phase.OUT)
    case.endings.cut_off(case.submission)
    assert case.journal.states == [UNKNOWN]
    assert case.ear.heard == []
    await turns(2)
    assert isinstance(case.heard, SubmitUnknownError)
    assert "closed before the answer came" in case.heard.message
    assert case.heard.request == RAIN
    assert not case.slots.out
    assert any(record.levelno == logging.WARNING for record in caplog.records)


async def test_cut_off_while_its_wait_is_noted() -> None:
    """What waits to be sent again is withdrawn, also while the row is being told that it waits."""
    case = Case(SENDING, Phase.HELD)
    case.journal.delays[Move.HOLD] = 3
    holding = asyncio.create_task(case.books.held(case.submission, "later"))
    await turns(1)
    case.endings.cut_off(case.submission)
    await holding
    assert isinstance(case.heard, SessionClosedError)
    assert case.journal.moves() == [Move.HOLD, Move.REFUSE]


@pytest.mark.parametrize("phase", [Phase.LAUNCHED, Phase.HELD])
async def test_cut_off_before_it_was_sent(phase: Phase) -> None:
    """What has a slot, or waits to be sent again, was certainly not accepted: the row is withdrawn."""
    case = Case(QUEUED, phase)
    case.endings.cut_off(case.submission)
    await turns(2)
    assert isinstance(case.heard, SessionClosedError)
    assert case.journal.states == [REFUSED]
    assert not case.slots.out


async def test_cut_off_without_a_journal() -> None:
    """Without a journal there is nothing to wait for."""
    case = Case(None, Phase.LAUNCHED)
    case.endings.cut_off(case.submission)
    assert isinstance(case.heard, SessionClosedError)
    assert not case.slots.out


@pytest.mark.parametrize("fault", [None, JournalError("The disk is full."), asyncio.CancelledError()])
async def test_cut_off_while_its_row_is_written(fault: BaseException | None) -> None:
    """The row that comes late is withdrawn, and only then it is told; one that never comes needs no withdrawal."""
    case = Case(None, Phase.LAUNCHED)
    case.journal.delays = {SENDING: 2, Move.REFUSE: 2}
    written = fault is None
    if fault is not None:
        case.journal.failing[SENDING] = fault
    case.books.begin(case.submission, SENDING)
    case.endings.cut_off(case.submission)
    assert not case.slots.out
    assert case.endings.pending == [case.submission.begun]
    await asyncio.sleep(1)
    assert case.ear.heard == []
    await asyncio.sleep(2)
    assert len(case.ear.heard) == (0 if written else 1)
    await asyncio.sleep(2)
    assert isinstance(case.heard, SessionClosedError)
    assert case.journal.states == ([REFUSED] if written else [])
    assert case.endings.pending == []


# Given up


async def test_given_up() -> None:
    """Who waits for a journal that says nothing more hears all the same, and once."""
    case = Case(QUEUED, Phase.QUEUED)
    case.journal.hanging.add(Move.REFUSE)
    case.endings.retire(case.submission, closed_error())
    await asyncio.sleep(1)
    assert case.ear.heard == []
    case.endings.give_up()
    assert isinstance(case.heard, SessionClosedError)
    case.journal.let_go()
    await turns(3)
    assert len(case.ear.heard) == 1
    assert case.endings.pending == []


async def test_given_up_after_the_answer() -> None:
    """What is known is told, also if its note never comes."""
    case = Case(SENDING, Phase.ANSWERED)
    case.journal.hanging.add(Move.REFUSE)
    case.submission.result = InsufficientCreditsError("No credits.")
    case.endings.retire(case.submission, InsufficientCreditsError("No credits."))
    case.endings.give_up()
    assert isinstance(case.heard, InsufficientCreditsError)


async def test_given_up_while_the_row_is_written() -> None:
    """A row that comes when all have heard is withdrawn, and told to nobody."""
    case = Case(None, Phase.LAUNCHED)
    case.journal.hanging.add(SENDING)
    case.books.begin(case.submission, SENDING)
    case.endings.cut_off(case.submission)
    case.endings.give_up()
    assert isinstance(case.heard, SessionClosedError)
    case.journal.let_go()
    await turns(3)
    assert case.journal.states == [REFUSED]
    assert len(case.ear.heard) == 1


async def test_a_doubt_is_never_given_up_as_unsent() -> None:
    """A POST that was out may be paid for, whatever the journal says or does not say."""
    case = Case(SENDING, Phase.OUT)
    case.journal.hanging.add(Move.DOUBT)
    case.endings.cut_off(case.submission)
    case.endings.give_up()
    assert isinstance(case.heard, SubmitUnknownError)


@pytest.mark.parametrize(("flag", "words"), [("left_behind", "stays queued"), ("may_be_paid", "stays as it was")])
async def test_what_becomes_of_the_row_is_told_when_all_is_given_up(flag: str, words: str) -> None:
    """Nobody is told that nothing was sent, and no more, whose row may be sent or paid for."""
    case = Case(SENDING, Phase.HELD)
    setattr(case.submission, flag, True)
    case.journal.hanging |= {Move.HOLD, Move.DOUBT}
    case.endings.cut_off(case.submission)
    case.endings.give_up()
    assert words in case.heard.message


async def test_a_withdrawal_that_is_given_up_is_told_as_one() -> None:
    """Who is told that nothing was sent while the row may still say QUEUED hears of that."""
    case = Case(QUEUED, Phase.QUEUED)
    case.journal.hanging.add(Move.REFUSE)
    case.endings.retire(case.submission, closed_error())
    case.endings.give_up()
    assert "journal" in case.heard.message
