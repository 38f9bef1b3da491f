"""The books of what was accepted: ids, ends, saves, and what the caller settles."""

from __future__ import annotations

import asyncio
import logging

import attrs
import pytest
from fake_journal import FakeJournal
from fakes import LINK
from parts import RAIN

from finevoice_async.core.ledger import GIVEN_UP, PERHAPS_PAID, EffectState, JournalRow, Move
from finevoice_async.core.tasks import TaskStatus, TaskUpdate
from finevoice_async.engine.bookkeeper import Bookkeeper
from finevoice_async.engine.records import Submission, TaskRecord
from finevoice_async.errors import (
    FineVoiceError,
    InvalidRequestError,
    JournalError,
    PollError,
    TaskFailedError,
    TaskNotFoundError,
    TaskTimeoutError,
)
from finevoice_async.ports import TaskIdTakenError

QUEUED, SENDING, SUBMITTED, DONE, SAVED, REFUSED, UNKNOWN, FAILED, LOST = EffectState
FULL = JournalError("The disk is full.")
RESULT = TaskUpdate(status=TaskStatus.COMPLETED, task_id="t1", urls=(LINK,))


@pytest.fixture
async def journal() -> FakeJournal:
    """An open journal."""
    journal = FakeJournal()
    await journal.open()
    return journal


@pytest.fixture
async def books(journal: FakeJournal) -> Bookkeeper:
    """Books with a journal."""
    return Bookkeeper(journal)


def task_of(row: JournalRow | None, task_id: str | None = "t1") -> TaskRecord:
    """Return the task of a row."""
    return TaskRecord(task_id, RAIN, 0.0, row_id=None if row is None else row.id)


# Ids


async def test_accepted(books: Bookkeeper, journal: FakeJournal) -> None:
    """An id is counted at once, and noted; the note tells when it is on disk."""
    row = journal.leave(SENDING)
    submission, record = Submission(RAIN, None, row, SENDING), task_of(row)
    journal.delays[Move.ACCEPT] = 3
    note = books.accepted_as(submission, record)
    assert note is not None
    assert (books.accepted, submission.state) == (1, SUBMITTED)
    waiting = asyncio.create_task(books.noted(note, record))
    await asyncio.sleep(2)
    assert not waiting.done()
    await waiting
    assert (journal.contents[1].task_id, journal.states) == ("t1", [SUBMITTED])


async def test_accepted_without_id_or_row(books: Bookkeeper, journal: FakeJournal) -> None:
    """A result without an id, and a submission without a row, are counted, and there is nothing to note."""
    row = journal.leave(SENDING)
    assert books.accepted_as(Submission(RAIN, None, row), task_of(row, None)) is None
    assert books.accepted_as(Submission(RAIN), task_of(None)) is None
    assert books.accepted == 2
    assert journal.steps == []


async def test_an_id_that_belongs_to_another(books: Bookkeeper, journal: FakeJournal) -> None:
    """Whose id it is, is said by an error of its own class."""
    journal.leave(DONE, task_id="t1")
    row = journal.leave(SENDING)
    note = books.accepted_as(Submission(RAIN, None, row), task_of(row))
    assert note is not None
    with pytest.raises(TaskIdTakenError):
        await books.noted(note, task_of(row))


@pytest.mark.parametrize(("fault", "words"), [(FULL, "The disk is full."), (OSError(), "failed (OSError)")])
@pytest.mark.parametrize("at_once", [False, True])
async def test_an_id_that_cannot_be_kept(
    books: Bookkeeper,
    journal: FakeJournal,
    fault: Exception,
    words: str,
    at_once: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The error has the id and the request, and the log has the id: it was paid for."""
    (journal.raising if at_once else journal.failing)[Move.ACCEPT] = fault
    row = journal.leave(SENDING)
    note = books.accepted_as(Submission(RAIN, None, row), task_of(row))
    assert note is not None
    with pytest.raises(JournalError, match="could not keep its id") as caught:
        await books.noted(note, task_of(row))
    assert words in caught.value.message
    assert (caught.value.task_id, caught.value.request) == ("t1", RAIN)
    assert caplog.records[-1].levelno == logging.CRITICAL
    assert "t1" in caplog.records[-1].getMessage()


# Ends


@pytest.mark.parametrize(
    ("state", "status", "end", "move", "completed"),
    [
        (SUBMITTED, TaskStatus.COMPLETED, RESULT, Move.FINISH, True),
        (LOST, TaskStatus.COMPLETED, RESULT, Move.FINISH, True),
        (SUBMITTED, TaskStatus.FAILED, TaskFailedError("It failed."), Move.FAIL, False),
        (SUBMITTED, TaskStatus.PROCESSING, TaskNotFoundError("It is gone."), Move.LOSE, False),
        (SUBMITTED, TaskStatus.COMPLETED, PollError("There is no link."), None, False),
        (SUBMITTED, TaskStatus.PROCESSING, TaskTimeoutError("It takes too long."), None, False),
        (SUBMITTED, TaskStatus.PROCESSING, TaskFailedError("Of an earlier try."), None, False),
    ],
)
async def test_ends(
    books: Bookkeeper,
    journal: FakeJournal,
    state: EffectState,
    status: TaskStatus,
    end: TaskUpdate | FineVoiceError,
    move: Move | None,
    completed: bool,
) -> None:
    """An end is counted, and what it says of the effect is noted: a lost link or a patience that ended says nothing."""
    record = task_of(journal.leave(state, task_id="t1"))
    record.status, record.end = status, end
    books.ended(record)
    await asyncio.sleep(0.01)
    assert journal.moves() == ([] if move is None else [move])
    assert (books.completed, books.failed) == (int(completed), int(not completed))
    row = journal.contents[1]
    assert row.urls == ((LINK,) if completed else ())
    assert row.error == (end.message if move and isinstance(end, FineVoiceError) else None)


async def test_a_result_without_an_id(books: Bookkeeper, journal: FakeJournal) -> None:
    """A result that came with the answer to the POST, and without an id, is noted as that."""
    record = task_of(journal.leave(SENDING), None)
    record.end = RESULT
    books.ended(record)
    await asyncio.sleep(0.01)
    assert journal.moves() == [Move.ANSWER]
    assert journal.contents[1].urls == (LINK,)


@pytest.mark.parametrize("end", [RESULT, TaskFailedError("It failed."), TaskNotFoundError("It is gone.")])
async def test_an_end_of_an_earlier_task(
    books: Bookkeeper, journal: FakeJournal, end: TaskUpdate | FineVoiceError
) -> None:
    """A row that has another task by now is not moved by the end of the one before."""
    record = task_of(journal.leave(SUBMITTED, task_id="t2"))
    record.status, record.end = TaskStatus.FAILED, end
    books.ended(record)
    await asyncio.sleep(0.01)
    assert journal.states == [SUBMITTED]


async def test_an_id_is_written_again_with_the_end(books: Bookkeeper, journal: FakeJournal) -> None:
    """An id that could not be kept is tried once more when the task ends: the disk may work again."""
    row = journal.leave(SENDING)
    record = task_of(row)
    journal.failing[Move.ACCEPT] = FULL
    note = books.accepted_as(Submission(RAIN, None, row), record)
    assert note is not None
    with pytest.raises(JournalError):
        await books.noted(note, record)
    journal.failing.clear()
    record.end = RESULT
    books.ended(record)
    await asyncio.sleep(0.01)
    assert journal.moves() == [Move.ACCEPT, Move.FINISH]
    assert (journal.contents[1].task_id, journal.states) == ("t1", [DONE])


async def test_an_id_for_a_row_that_was_moved(books: Bookkeeper, journal: FakeJournal) -> None:
    """A row that is not being sent any more does not get the id, and the caller hears it."""
    row = journal.leave(UNKNOWN)
    note = books.accepted_as(Submission(RAIN, None, row), task_of(row))
    assert note is not None
    with pytest.raises(JournalError, match="moved by somebody else") as caught:
        await books.noted(note, task_of(row))
    assert caught.value.task_id == "t1"


async def test_an_end_without_a_row(books: Bookkeeper, journal: FakeJournal) -> None:
    """An end of what has no row is counted."""
    record = task_of(None)
    record.end = RESULT
    books.ended(record)
    assert books.completed == 1
    assert journal.steps == []


@pytest.mark.parametrize("fault", [FULL, asyncio.CancelledError()])
async def test_an_end_that_cannot_be_noted(
    books: Bookkeeper, journal: FakeJournal, fault: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody waits for the note: a fault is a line in the log."""
    journal.failing[Move.FINISH] = fault
    record = task_of(journal.leave(SUBMITTED))
    record.end = RESULT
    books.ended(record)
    await asyncio.sleep(0.01)
    assert ("could not note 'finish' of row 1: The disk is full." in caplog.text) is (fault is FULL)


async def test_a_late_end(books: Bookkeeper, journal: FakeJournal, caplog: pytest.LogCaptureFixture) -> None:
    """A row that was past it already stays as it is, and that is no fault."""
    caplog.set_level(logging.DEBUG)
    record = task_of(journal.leave(SAVED))
    record.end = RESULT
    books.ended(record)
    await asyncio.sleep(0.01)
    assert journal.states == [SAVED]
    assert {record.levelno for record in caplog.records} <= {logging.DEBUG, logging.INFO}


# Saves


async def test_saved(books: Bookkeeper, journal: FakeJournal, caplog: pytest.LogCaptureFixture) -> None:
    """Where a result was saved is in its row, the last time counts; what is not done is not saved, and logged."""
    journal.leave(DONE)
    journal.leave(LOST)
    await books.saved(1, path="a.wav", sha256="1")
    await books.saved(1, path="b.wav", sha256="2")
    assert not caplog.records
    await books.saved(2, path="c.wav", sha256="3")
    await books.saved(None, path="d.wav", sha256="4")
    assert [(row.state, row.path, row.sha256) for row in journal.contents.values()] == [
        (SAVED, "b.wav", "2"),
        (LOST, None, None),
    ]
    assert "row 2 of the journal could not be noted as saved" in caplog.text
    journal.failing[Move.SAVE] = FULL
    with pytest.raises(JournalError, match="disk is full"):
        await books.saved(1, path="e.wav", sha256="5")


# The caller's steps


@pytest.mark.parametrize("state", EffectState)
@pytest.mark.parametrize("more", [(), (QUEUED,)])
async def test_what_is_the_callers_to_settle(
    books: Bookkeeper, journal: FakeJournal, state: EffectState, more: tuple[EffectState, ...]
) -> None:
    """What may be paid for is; what else may be is named; all the rest is settled, and the error says how."""
    row = journal.leave(UNKNOWN)
    current = journal.contents[1] = attrs.evolve(row, state=state)
    if state in (UNKNOWN, LOST, *more):
        assert await books.to_settle(row, *more) is current
    else:
        with pytest.raises(InvalidRequestError, match=f"Row 1 is {state.value}, not unknown"):
            await books.to_settle(row, *more)


async def test_a_row_that_is_gone(books: Bookkeeper, journal: FakeJournal) -> None:
    """Nothing is there to settle."""
    row = journal.leave(UNKNOWN)
    journal.contents.clear()
    with pytest.raises(InvalidRequestError, match="Row 1 is gone"):
        await books.to_settle(row)


async def test_adopted(books: Bookkeeper, journal: FakeJournal) -> None:
    """The caller names the task, and gets the row as it is then; a second time it is settled."""
    row = journal.leave(UNKNOWN)
    adopted = await books.adopt(row, "t1")
    assert (adopted.id, adopted.state, adopted.task_id) == (1, SUBMITTED, "t1")
    with pytest.raises(InvalidRequestError, match="settled meanwhile") as caught:
        await books.adopt(row, "t2")
    assert caught.value.request == row.request
    assert journal.contents[1].task_id == "t1"
    with pytest.raises(InvalidRequestError, match="cannot get task t1") as caught:
        await books.adopt(journal.leave(LOST), "t1")
    assert caught.value.task_id == "t1"
    assert isinstance(caught.value.__cause__, TaskIdTakenError)
    journal.failing[Move.ADOPT] = FULL
    with pytest.raises(JournalError, match="disk is full"):
        await books.adopt(journal.leave(LOST), "t3")


async def test_given_up(books: Bookkeeper, journal: FakeJournal) -> None:
    """The caller gives up what may be paid for or was never sent; the row says so; a second time it is settled."""
    rows = [journal.leave(state) for state in (UNKNOWN, LOST, QUEUED)]
    for row in rows:
        await books.discard(row)
    assert journal.states == [REFUSED] * 3
    assert [row.error for row in journal.contents.values()] == [PERHAPS_PAID, PERHAPS_PAID, GIVEN_UP]
    with pytest.raises(InvalidRequestError, match="settled meanwhile") as caught:
        await books.discard(rows[0])
    assert caught.value.request == rows[0].request
