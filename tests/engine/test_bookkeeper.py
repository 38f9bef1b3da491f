"""The books: each step of a submission or a task is one move, and a journal that fails hides nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest
from fake_journal import FakeJournal, Step
from parts import RAIN, WIND

from finevoice_async.core.ledger import EffectState, JournalRow, Move
from finevoice_async.engine.bookkeeper import PAGE, Bookkeeper
from finevoice_async.engine.records import Submission, TaskRecord
from finevoice_async.errors import (
    ConfigurationError,
    JournalError,
    SessionClosedError,
)

QUEUED, SENDING, SUBMITTED, DONE, SAVED, REFUSED, UNKNOWN, FAILED, LOST = EffectState
FULL = JournalError("The disk is full.")


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


def submission_of(row: JournalRow | None, *, may_be_paid: bool = False, left_behind: bool = False) -> Submission:
    """Return a submission of a row."""
    submission = Submission(RAIN, "k", row, may_be_paid=may_be_paid, left_behind=left_behind)
    if row is not None:
        submission.state = row.state
    return submission


async def all_moved() -> None:
    """Let the journal tell of what was called."""
    await asyncio.sleep(0.01)


# Without a journal


async def test_without_a_journal_nothing_is_kept() -> None:
    """Steps are counted, and what needs rows says that it needs a journal."""
    books, submission, record = Bookkeeper(None), Submission(RAIN), TaskRecord("t1", RAIN, 0.0)
    await books.open()
    assert not books.has_journal
    assert await books.load("note") is None
    assert await books.row_of(task_id="t1") is None
    for step in (books.held, books.refused, books.unknown):
        await step(submission, "no")
    assert books.withdrawn(submission, "no", doubt=True) is None
    assert books.accepted_as(submission, record) is None
    books.ended(record)
    await books.saved(None, path="a", sha256="b")
    await books.saved(7, path="a", sha256="b")
    with pytest.raises(ConfigurationError, match="needs a journal"):
        books.begin(submission, QUEUED)
    with pytest.raises(ConfigurationError, match="needs a journal"):
        await books.row(1)
    with pytest.raises(ConfigurationError, match="needs a journal"):
        [row async for row in books.rows()]
    await books.aclose({"note": "text"})
    assert (books.accepted, books.completed, books.failed) == (1, 0, 1)


# Opening and closing


async def test_opened_once_and_again_after_a_failure() -> None:
    """A failed opening may be tried again; after one that worked there is nothing more to do."""
    journal, fault = FakeJournal(), OSError("no disk")
    books = Bookkeeper(journal)
    journal.failing["open"] = fault
    with pytest.raises(JournalError, match=r"The journal failed \(OSError\)\.") as caught:
        await books.open()
    assert caught.value.__cause__ is fault
    journal.failing["open"] = FULL
    with pytest.raises(JournalError) as caught:
        await books.open()
    assert caught.value is FULL
    journal.failing.clear()
    await books.open()
    await books.open()
    assert journal.opened == 3


async def test_closing_keeps_the_notes() -> None:
    """The last notes are kept, and found again."""
    journal = FakeJournal()
    books = Bookkeeper(journal)
    await books.open()
    await books.aclose({"a": "1", "b": "2"})
    assert not journal.is_open
    assert journal.notes == {"a": "1", "b": "2"}
    await books.open()  # it was, and stays so
    journal.is_open = True
    assert await books.load("a") == "1"
    assert await books.load("c") is None


async def test_closing_what_was_never_opened_keeps_nothing() -> None:
    """A journal that was not opened gets no notes, but is closed: it may have been opened halfway."""
    journal = FakeJournal()
    journal.failing["aclose"] = FULL
    journal.raising["store"] = AssertionError("it is not open")
    await Bookkeeper(journal).aclose({"a": "1"})
    assert journal.notes == {}


@pytest.mark.parametrize("fault", [FULL, OSError("no disk")])
async def test_a_closing_that_fails_is_logged(fault: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody could mend it, so a closing that fails is a line in the log."""
    journal = FakeJournal()
    books = Bookkeeper(journal)
    await books.open()
    journal.failing["aclose"] = fault
    await books.aclose({})
    assert "could not be closed" in caplog.text


async def test_a_note_that_cannot_be_kept_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A journal of the caller's own that raises as a note is given to it does not stop the closing."""
    journal = FakeJournal()
    books = Bookkeeper(journal)
    await books.open()
    journal.raising["store"] = OSError("no disk")
    await books.aclose({"a": "1"})
    assert not journal.is_open
    assert caplog.text


# Reading


async def test_rows_come_in_pages(books: Bookkeeper, journal: FakeJournal) -> None:
    """Every row in the states comes once and in order, however many there are."""
    for number in range(PAGE + 7):
        journal.leave(QUEUED if number % 2 else DONE, f"sound {number}")
    assert [row.id async for row in books.rows()] == list(range(1, PAGE + 8))
    assert [row.id async for row in books.rows(QUEUED)] == list(range(2, PAGE + 8, 2))
    assert [row async for row in books.rows(LOST)] == []


async def test_one_row(books: Bookkeeper, journal: FakeJournal) -> None:
    """A row is found by its number, and by its task id."""
    row = journal.leave(SUBMITTED, task_id="t1")
    assert await books.row(1) == row == await books.row_of(task_id="t1")
    assert await books.row(2) is None
    assert await books.row_of(task_id="t2") is None


async def test_what_was_left_behind(books: Bookkeeper, journal: FakeJournal) -> None:
    """Each row that is not settled comes once, those to be sent last; each as it stands when its turn comes."""
    for state in EffectState:
        journal.leave(state)
    came = []
    async for row in books.left_behind():
        came.append(row)
        if len(came) == 1:
            assert await journal.move(8 if row.id != 8 else 7, Move.DISCARD) is False  # failed and unknown ones
            assert await journal.move(1, Move.REFUSE)
            assert await journal.move(9, Move.ADOPT, task_id="t9")
    assert [(row.id, row.state) for row in came] == [(3, SUBMITTED), (4, DONE), (7, UNKNOWN), (9, SUBMITTED)]


@pytest.mark.parametrize("use", ["row", "rows", "row_ids", "load"])
async def test_a_read_that_fails(books: Bookkeeper, journal: FakeJournal, use: str) -> None:
    """Whatever a journal raises as it is read, is a JournalError with its cause."""
    journal.failing[use] = fault = OSError("no disk")
    reads: dict[str, Callable[[], Awaitable[object]]] = {
        "row": lambda: books.row(1),
        "rows": lambda: anext(books.rows()),
        "row_ids": lambda: anext(books.left_behind()),
        "load": lambda: books.load("note"),
    }
    with pytest.raises(JournalError, match="OSError") as caught:
        await reads[use]()
    assert caught.value.__cause__ is fault


async def test_what_is_asked_of_a_closed_journal(books: Bookkeeper, journal: FakeJournal) -> None:
    """Whoever asks as the session closes hears that it is closed, and not of the journal."""
    row = journal.leave(EffectState.UNKNOWN)
    await books.aclose({})
    uses: list[Callable[[], Awaitable[object]]] = [
        lambda: books.row(1),
        lambda: books.row_of(task_id="t1"),
        lambda: anext(books.rows()),
        lambda: anext(books.left_behind()),
        lambda: books.adopt(row, "t1"),
        lambda: books.discard(row),
    ]
    for use in uses:
        with pytest.raises(SessionClosedError, match=r"rows\(\) of a later one") as caught:
            await use()
        assert isinstance(caught.value.__cause__, JournalError)


# A submission's steps


async def test_a_row_begins(books: Bookkeeper, journal: FakeJournal) -> None:
    """A beginning writes the request under its key; the key's row is found again, whose ever it is."""
    first, second = Submission(RAIN, "k"), Submission(WIND, "k")
    books.begin(first, QUEUED)
    books.begin(second, QUEUED)
    assert first.begun is not None
    assert second.begun is not None
    await all_moved()
    mine, other = books.found(first.begun), books.found(second.begun)
    assert (mine.is_mine, mine.row.request, mine.row.key, first.state) == (True, RAIN, "k", QUEUED)
    assert (other.is_mine, other.row) == (False, mine.row)
    await journal.move(1, Move.REFUSE)
    third = Submission(WIND, "k")
    books.begin(third, QUEUED)
    await all_moved()
    assert third.begun is not None
    assert books.found(third.begun).row.request == WIND


async def test_a_failed_effect_begins_again_only_where_that_is_asked_for(
    books: Bookkeeper, journal: FakeJournal
) -> None:
    """RETRY takes a FAILED row, QUEUE does not."""
    journal.leave(FAILED, key="k")
    for again, mine in ((Move.QUEUE, False), (Move.RETRY, True)):
        submission = Submission(RAIN, "k")
        books.begin(submission, QUEUED, again)
        await all_moved()
        assert submission.begun is not None
        assert books.found(submission.begun).is_mine is mine


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (FULL, "The disk is full. Nothing was sent."),
        (OSError("no disk"), "The journal failed (OSError). Nothing was sent."),
        (asyncio.CancelledError(), "The journal failed (CancelledError). Nothing was sent."),
    ],
)
async def test_a_row_that_cannot_begin(
    books: Bookkeeper, journal: FakeJournal, fault: BaseException, words: str
) -> None:
    """What a beginning comes to in the end is a JournalError, whatever its future holds."""
    journal.failing[QUEUED] = fault
    submission = Submission(RAIN)
    books.begin(submission, QUEUED)
    await all_moved()
    assert submission.begun is not None
    with pytest.raises(JournalError) as caught:
        books.found(submission.begun)
    assert caught.value.message == words


@pytest.mark.parametrize(("fault", "words"), [(FULL, FULL.message), (OSError(), "The journal failed (OSError).")])
async def test_a_beginning_that_cannot_be_called(
    books: Bookkeeper, journal: FakeJournal, fault: Exception, words: str
) -> None:
    """A fault of the call itself is a JournalError, too, and leaves no beginning behind."""
    journal.raising[QUEUED] = fault
    submission = Submission(RAIN)
    with pytest.raises(JournalError) as caught:
        books.begin(submission, QUEUED)
    assert caught.value.message == f"{words} Nothing was sent."
    assert caught.value.paid is False
    assert submission.begun is None


async def test_sent_at_once(books: Bookkeeper, journal: FakeJournal) -> None:
    """A submission without a row gets one that says SENDING, on disk before the POST may leave."""
    journal.delays[SENDING] = 5
    submission = Submission(RAIN)
    sending = asyncio.create_task(books.sending(submission))
    await asyncio.sleep(4)
    assert not sending.done()
    assert await sending
    assert submission.row is not None
    assert (submission.row.id, submission.state, journal.states) == (1, SENDING, [SENDING])


@pytest.mark.parametrize(
    ("state", "may_be_paid", "move"),
    [
        (QUEUED, False, Move.SEND),
        (UNKNOWN, True, Move.RESEND),
        (LOST, True, Move.RESEND),
        (UNKNOWN, False, None),
        (QUEUED, True, None),
        (SUBMITTED, False, None),
    ],
)
async def test_sent_after_a_wait(
    books: Bookkeeper, journal: FakeJournal, state: EffectState, may_be_paid: bool, move: Move | None
) -> None:
    """A row is sent from where it should be, and not at all if it is somewhere else."""
    submission = submission_of(journal.leave(state), may_be_paid=may_be_paid)
    assert await books.sending(submission) is (move is not None)
    assert journal.moves() == ([] if move is None else [move])
    assert submission.state is (state if move is None else SENDING)


@pytest.mark.parametrize("step", [Move.SEND, SENDING])
async def test_nothing_is_sent_that_could_not_be_noted(books: Bookkeeper, journal: FakeJournal, step: Step) -> None:
    """If the row cannot say SENDING, an error says that nothing was sent."""
    journal.failing[step] = FULL
    submission = submission_of(journal.leave(QUEUED) if step is Move.SEND else None)
    with pytest.raises(JournalError, match=r"The disk is full\. Nothing was sent\."):
        await books.sending(submission)
    assert submission.state is not SENDING or submission.row is None


@pytest.mark.parametrize("may_be_paid", [False, True])
@pytest.mark.parametrize(
    ("step", "move", "end"), [("held", Move.HOLD, QUEUED), ("refused", Move.REFUSE, REFUSED), ("unknown", None, None)]
)
async def test_what_became_of_a_post(
    books: Bookkeeper, journal: FakeJournal, step: str, move: Move | None, end: EffectState | None, may_be_paid: bool
) -> None:
    """What may be paid for stays unknown, whatever a later POST comes to; an unknown one may be paid for."""
    submission = submission_of(journal.leave(SENDING), may_be_paid=may_be_paid)
    await getattr(books, step)(submission, "because of this")
    doubt = may_be_paid or move is None
    again = Move.DOUBT if move is None else Move.REVERT  # a later POST that was certainly not accepted
    assert journal.moves() == [again if doubt else move]
    assert journal.states == [submission.state] == [UNKNOWN if doubt else end]
    assert journal.contents[1].error == "because of this"
    assert submission.may_be_paid is doubt


@pytest.mark.parametrize("fault", [FULL, OSError("no disk")])
async def test_a_note_on_a_post_that_fails(
    books: Bookkeeper, journal: FakeJournal, fault: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """That the journal fails does not hide what became of the POST: the caller goes on to tell it."""
    for move, step in ((Move.HOLD, books.held), (Move.REFUSE, books.refused), (Move.DOUBT, books.unknown)):
        journal.raising[move] = fault
        await step(submission_of(journal.leave(SENDING)), "no")
    assert caplog.text.count("could not note what became of a submission") == 3
    assert journal.states == [SENDING] * 3


@pytest.mark.parametrize(
    ("state", "flags", "doubt", "end"),
    [
        (QUEUED, {}, False, REFUSED),
        (SENDING, {}, False, REFUSED),
        (SENDING, {}, True, UNKNOWN),
        (SENDING, {"left_behind": True}, False, QUEUED),
        (SENDING, {"may_be_paid": True}, False, UNKNOWN),
        (SENDING, {"may_be_paid": True, "left_behind": True}, False, UNKNOWN),
        (QUEUED, {"left_behind": True}, False, None),  # it says so already
        (UNKNOWN, {"may_be_paid": True}, False, None),
        (LOST, {"may_be_paid": True}, False, None),
    ],
)
async def test_withdrawn(
    books: Bookkeeper,
    journal: FakeJournal,
    state: EffectState,
    flags: dict[str, bool],
    doubt: bool,
    end: EffectState | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What is not sent any more stays what is true of it, and the next one with its key finds it so."""
    caplog.set_level(logging.INFO)
    submission = submission_of(journal.leave(state), **flags)
    note = books.withdrawn(submission, "the caller left", doubt=doubt)
    assert journal.states == [end or state]  # the call has put it in order
    assert "the caller left" in caplog.text
    assert (caplog.records[-1].levelno == logging.WARNING) is doubt
    if end is None:
        assert note is None
        return
    assert note is not None
    assert await note
    assert journal.contents[1].error == "the caller left"
    assert submission.state is end
    assert books.withdrawn(submission, "once more", doubt=False) is None or end is QUEUED


async def test_withdrawn_before_it_has_a_row(books: Bookkeeper, journal: FakeJournal) -> None:
    """Without a row there is nothing to note."""
    assert books.withdrawn(submission_of(None), "no", doubt=False) is None
    assert journal.steps == []
