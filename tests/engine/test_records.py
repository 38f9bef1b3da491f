"""What the parts share: tasks as their rows tell them, their errors, and who waits for a submission."""

from __future__ import annotations

import asyncio
import copy
from datetime import UTC, datetime, timedelta

import attrs
import pytest
from fakes import LINK
from parts import RAIN, WIND, Eye, turns

from finevoice_async.core.ledger import EffectState, JournalRow
from finevoice_async.core.requests import SfxRequest
from finevoice_async.core.tasks import TaskStatus, TaskUpdate
from finevoice_async.engine.records import Phase, Submission, TaskRecord
from finevoice_async.engine.rows import unknown_error
from finevoice_async.errors import (
    FineVoiceError,
    InvalidRequestError,
    PollError,
    RequestRejectedError,
    SessionClosedError,
    SubmitNotSentError,
    SubmitUnknownError,
    TaskFailedError,
    TaskNotFoundError,
    TaskTimeoutError,
)

QUEUED, SENDING, SUBMITTED, DONE, SAVED, REFUSED, UNKNOWN, FAILED, LOST = EffectState
TODAY = datetime(2030, 1, 1, tzinfo=UTC)


def row_in(state: EffectState, **fields: object) -> JournalRow:
    """Return a row that was written 100 s ago, and last 40 s ago."""
    defaults: dict[str, object] = {
        "task_id": "t1",
        "key": "k",
        "created_at": TODAY - timedelta(seconds=100),
        "updated_at": TODAY - timedelta(seconds=40),
    }
    return JournalRow(id=3, state=state, request=RAIN, **(defaults | fields))  # type: ignore[arg-type]  # as above


def task_of(row: JournalRow) -> TaskRecord:
    """Return the task of a row, at 1000 s of the clock."""
    return TaskRecord.of_row(row, now=1000.0, utcnow=TODAY)


# Tasks of rows


def test_a_row_that_runs() -> None:
    """A task is as old as its submission, and known to the service."""
    record = task_of(row_in(SUBMITTED, submitted_at=TODAY - timedelta(seconds=60)))
    assert (record.task_id, record.request, record.key, record.row_id) == ("t1", RAIN, "k", 3)
    assert record.born == 940
    assert record.submitted_at == TODAY - timedelta(seconds=60)
    assert record.attached
    assert record.seen
    assert record.end is None


def test_the_age_of_a_row() -> None:
    """Without a date of submission the last writing counts; a date to come makes nothing younger than now."""
    assert task_of(row_in(SUBMITTED)).born == 960
    assert task_of(row_in(SUBMITTED, submitted_at=TODAY + timedelta(days=1))).born == 1000


@pytest.mark.parametrize("state", [DONE, SAVED])
def test_a_row_that_is_done(state: EffectState) -> None:
    """The result is known at once."""
    record = task_of(row_in(state, urls=(LINK,)))
    assert record.status is TaskStatus.COMPLETED
    assert record.end == TaskUpdate(status=TaskStatus.COMPLETED, task_id="t1", urls=(LINK,))


def test_a_row_that_failed() -> None:
    """The failure is told again, with the way to another try."""
    record = task_of(row_in(FAILED, error="No such sound."))
    assert record.status is TaskStatus.FAILED
    assert isinstance(record.end, TaskFailedError)
    assert "No such sound. To pay for another try, pass retry_failed=True." in record.end.message
    assert (record.end.task_id, record.end.request) == ("t1", RAIN)


def test_a_row_that_is_lost() -> None:
    """The task was not known any more: the error has the id, and the three ways out."""
    record = task_of(row_in(LOST))
    assert not record.seen
    assert isinstance(record.end, TaskNotFoundError)
    assert record.end.task_id == "t1"
    for way in ("adopt(row", "resubmit(row", "discard(row"):
        assert way in record.end.message


def test_a_row_of_which_nothing_is_known() -> None:
    """Nothing is made up: it has no end, and the service has not shown it."""
    record = task_of(row_in(QUEUED))
    assert record.end is None
    assert not record.seen


@pytest.mark.parametrize(
    ("state", "kind", "words", "status"),
    [
        (SENDING, SubmitUnknownError, "may have been accepted and paid for", TaskStatus.UNKNOWN),
        (UNKNOWN, SubmitUnknownError, "may have been accepted and paid for", TaskStatus.UNKNOWN),
        (REFUSED, RequestRejectedError, "Nothing was paid", TaskStatus.FAILED),
    ],
)
def test_a_row_that_came_to_no_task(
    state: EffectState, kind: type[FineVoiceError], words: str, status: TaskStatus
) -> None:
    """Whoever waits for it hears why there is none, and the service has not shown it."""
    record = task_of(attrs.evolve(row_in(state), task_id=None))
    assert type(record.end) is kind
    assert words in record.end.message
    assert record.status is status
    assert not record.seen


def test_a_row_that_was_given_up() -> None:
    """If it has a task id all the same, the service may know more: it is asked."""
    assert task_of(row_in(REFUSED)).end is None


# Ends and errors


def test_what_an_end_is_to_watchers() -> None:
    """A result is an update, a failure an error in the service's words, and a result without a link is none."""
    record = TaskRecord("t1", RAIN, 0.0)
    done = TaskUpdate(status=TaskStatus.COMPLETED, urls=(LINK,))
    assert record.ended_by(done) is done
    failed = record.ended_by(
        TaskUpdate(status=TaskStatus.FAILED, code="0001", reason="no such sound", raw={"sound": "ö"})
    )
    assert isinstance(failed, TaskFailedError)
    assert failed.message == "Task t1 failed: no such sound (code 0001)."
    assert (failed.task_id, failed.request, failed.code, failed.body) == ("t1", RAIN, "0001", '{"sound": "ö"}')
    silent = record.ended_by(TaskUpdate(status=TaskStatus.FAILED))
    assert str(silent) == "Task t1 failed: the service gave no reason."
    linkless = record.ended_by(TaskUpdate(status=TaskStatus.COMPLETED, raw={"status": 200}))
    assert isinstance(linkless, PollError)
    assert "gives no link" in linkless.message
    assert linkless.body == '{"status": 200}'


def test_errors_about_a_task() -> None:
    """Each has the id and the request, and says what becomes of the task."""
    record = TaskRecord("t1", RAIN, 0.0, status=TaskStatus.PROCESSING)
    for error, kind, words in (
        (record.timeout_error(), TaskTimeoutError, "its state was 'processing'"),
        (record.closed_error(), SessionClosedError, "Task t1 runs on at the service"),
    ):
        assert type(error) is kind
        assert words in error.message
        assert (error.task_id, error.request, error.body, error.code) == ("t1", RAIN, None, None)


@pytest.mark.parametrize(
    ("attached", "row_id", "request_", "strange"),
    [(True, None, None, True), (False, None, None, False), (True, 1, None, False), (True, None, RAIN, False)],
)
def test_a_stranger(attached: bool, row_id: int | None, request_: SfxRequest | None, strange: bool) -> None:
    """Of an attached id without row and request nothing is known here."""
    record = TaskRecord("t1", request_, 0.0, attached=attached, row_id=row_id)
    assert record.is_strange is strange


def test_the_length_that_was_asked_for() -> None:
    """It is the request's, and nothing where that is not known."""
    assert TaskRecord("t1", RAIN, 0.0).duration == 2
    assert TaskRecord("t1", None, 0.0).duration is None


async def test_told_once() -> None:
    """Watchers are told, each an error of its own, and are forgotten; whoever comes while they are told stays."""
    record = TaskRecord("t1", RAIN, 0.0)
    late = Eye(record)

    class Bringing(Eye):
        def tell(self, news: object) -> None:
            record.watchers.append(late)

    eye = Eye(record)
    record.watchers += [Bringing(record), eye]
    error = record.closed_error()
    record.tell(error)
    assert record.watchers == [late]
    assert late.seen == []
    assert isinstance(eye.seen[0], SessionClosedError)
    assert eye.seen[0] is not error
    update = TaskUpdate(status=TaskStatus.COMPLETED)
    record.tell(update)
    assert late.seen == [update]


def test_the_words_of_a_row_in_doubt() -> None:
    """The error names the row, why it is in doubt, and the three ways out."""
    error = unknown_error(row_in(UNKNOWN, error="the cable was pulled"))
    assert (error.request, error.task_id) == (RAIN, "t1")
    assert error.message.startswith("Row 3 of the journal may have been accepted and paid for (the cable was pulled). ")
    for way in ("adopt(row", "resubmit(row", "discard(row"):
        assert way in error.message
    assert "paid for. It is" in unknown_error(row_in(UNKNOWN)).message


# Submissions


def test_a_key_is_one_request() -> None:
    """Another request under the same key is refused, with the request that came too much."""
    submission = Submission(RAIN, "k")
    submission.check_same(copy.copy(RAIN))
    with pytest.raises(InvalidRequestError, match="'k' belongs to another request") as caught:
        submission.check_same(WIND)
    assert caught.value.request == WIND


DOUBT = "An earlier submission of it may have been accepted and paid for: its row stays as it was."


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((False, False), "No."),
        ((False, True), "No. Its row stays queued in the journal: recover() sends it later."),
        ((True, False), f"No. {DOUBT}"),
        ((True, True), f"No. {DOUBT}"),
    ],
)
def test_what_is_told_of_a_submission(flags: tuple[bool, bool], words: str) -> None:
    """An error says what becomes of the row, in its message and its text; the original stays as it was."""
    may_be_paid, left_behind = flags
    submission = Submission(RAIN, may_be_paid=may_be_paid, left_behind=left_behind)
    error: FineVoiceError = SubmitNotSentError("No.")
    told = submission.told(error)
    assert (type(told), told.message, str(told), told.request) == (SubmitNotSentError, words, words, RAIN)
    assert (error.message, error.request) == ("No.", None)


@pytest.mark.parametrize("phase", Phase)
def test_who_waits(phase: Phase) -> None:
    """Only what has no slot yet waits, and can be called off."""
    assert Submission(RAIN, phase=phase).is_waiting is (phase in (Phase.BEGINNING, Phase.QUEUED))


def test_what_is_told_of_a_doubt_of_its_own() -> None:
    """If an earlier POST of this very submission is in doubt, so is all that it comes to; the cause is kept."""
    submission = Submission(RAIN, may_be_paid=True, doubt=SubmitUnknownError("The answer was lost."))
    error = RequestRejectedError("Too loud.", status=422, code="c", body="b")
    told = submission.told(error)
    assert isinstance(told, SubmitUnknownError)
    assert told.message == "The answer was lost. It was to be sent again, but: Too loud."
    assert told.__cause__ is error
    assert (told.request, told.status, told.code, told.body) == (RAIN, 422, "c", "b")


async def test_everybody_hears_of_the_launch() -> None:
    """All who wait for the launch hear of it; who stopped waiting is no hindrance; later there is nobody."""
    submission = Submission(RAIN)
    waiting = [asyncio.create_task(submission.until_launched()) for _ in range(3)]
    await turns(1)
    waiting[1].cancel()
    await turns(1)
    submission.launched()
    await turns(1)
    assert [job.done() for job in waiting] == [True] * 3
    assert waiting[1].cancelled()
    assert submission.launch_watchers == ()
    submission.launched()
