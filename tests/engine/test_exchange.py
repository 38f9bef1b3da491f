"""One call to the service: each answer becomes an update or a failure, in words that hold no secret."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import timedelta
from email.utils import format_datetime

import pytest
from fakes import KEY, LINK, DateClock, FakeTransport, says

from finevoice_async.core.failures import Failure, FailureKind
from finevoice_async.core.requests import SfxRequest
from finevoice_async.core.tasks import MAX_TASK_ID, TaskStatus, TaskUpdate
from finevoice_async.core.wire import Reply
from finevoice_async.engine.exchange import ADVICE, Exchange, error_of
from finevoice_async.errors import (
    FineVoiceError,
    RateLimitError,
    SubmitNotSentError,
    SubmitUnknownError,
    TaskFailedError,
)

RAIN = SfxRequest("rain", negative_prompt="music", duration=2)


async def submit(answer: Reply | Exception) -> TaskUpdate | Failure:
    """Submit, and return what becomes of that answer."""
    return await Exchange(FakeTransport(answer), clock=DateClock()).submit(RAIN)


async def ask(answer: Reply | Exception) -> TaskUpdate | Failure:
    """Ask for a task, and return what becomes of that answer."""
    return await Exchange(FakeTransport(polls=(answer,)), clock=DateClock()).ask("t1")


async def refused(answer: Reply | Exception) -> Failure:
    """Submit, and return the failure that comes of that answer."""
    failure = await submit(answer)
    assert isinstance(failure, Failure)
    return failure


async def test_a_request_goes_out_once() -> None:
    """A submission sends its fields, and nothing that was not given."""
    transport = FakeTransport()
    update = await Exchange(transport, clock=DateClock()).submit(RAIN)
    assert isinstance(update, TaskUpdate)
    assert update.task_id == "t1"
    assert transport.posts == [{"prompt": "rain", "negative_prompt": "music", "duration": 2, "useAsync": True}]
    assert transport.gets == []


async def test_an_id_is_one_segment_of_a_path() -> None:
    """Whatever an id is, it stays one segment."""
    transport = FakeTransport()
    await Exchange(transport, clock=DateClock()).ask("../a b?c")
    assert transport.gets == ["/v1/task/..%2Fa%20b%3Fc"]
    assert transport.posts == []


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (says(task_id="t"), (TaskStatus.UNKNOWN, "t", ())),
        (says(201, taskId=7), (TaskStatus.UNKNOWN, "7", ())),
        (says(status="done", url=LINK), (TaskStatus.COMPLETED, None, (LINK,))),
        (says(task_id="t", status="done", url=LINK), (TaskStatus.COMPLETED, "t", (LINK,))),
        (says(task_id="t", status="failed"), (TaskStatus.FAILED, "t", ())),
        (Reply(200, {}, b'{"task_id": "t"}', whole=False), (TaskStatus.UNKNOWN, "t", ())),
        (Reply(200, {}, b'{"task_id": "t", "more": "x', whole=False), (TaskStatus.UNKNOWN, "t", ())),
        (Reply(200, {}, b'[{"task_id": "t"}]'), (TaskStatus.UNKNOWN, "t", ())),
    ],
)
async def test_acceptances(answer: Reply, expected: tuple[TaskStatus, str | None, tuple[str, ...]]) -> None:
    """An id or a link in a 2xx answer is an acceptance, whatever the rest of it looks like."""
    update = await submit(answer)
    assert isinstance(update, TaskUpdate)
    assert (update.status, update.task_id, update.urls) == expected


@pytest.mark.parametrize(
    ("body", "whole", "words"),
    [
        (b"", True, "with an empty body"),
        (b"<html><title>Hello</title>", True, "with an HTML page (Hello) instead of JSON"),
        (b"[1]", True, "with the JSON '[1]' instead of an object"),
        (b'{"status": 202}', True, "with neither a task id nor a link"),
        (b'{"task_id": "t', False, "instead of JSON, and then broke off or was far too long"),
        (b'{"task_id": "  "}', True, "with neither a task id nor a link"),
    ],
)
async def test_an_answer_that_says_nothing(body: bytes, whole: bool, words: str) -> None:
    """A 2xx answer without id and link is unreadable: nobody knows what it means, and its body is kept."""
    failure = await refused(Reply(200, {}, body, whole=whole))
    assert failure.kind is FailureKind.UNREADABLE
    assert failure.what.startswith("The service answered 200 ")
    assert words in failure.what
    assert (failure.status, failure.body, failure.task_id) == (200, body.decode(), None)


@pytest.mark.parametrize("task_id", ["..", "a\nb", "x" * (MAX_TASK_ID + 1)])
async def test_an_id_that_cannot_be_used(task_id: str) -> None:
    """An id that no path can have is unreadable; the failure keeps it, for it was paid for."""
    failure = await refused(says(task_id=task_id))
    assert failure.kind is FailureKind.UNREADABLE
    assert "an id that cannot be used" in failure.what
    assert not failure.what.endswith(".")
    assert failure.task_id == task_id[:MAX_TASK_ID]


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        ({"code": "0007", "message": "too loud"}, "0007", "with a failure: too loud"),
        ({"code": "0007"}, "0007", "with a failure: code 0007"),
        (None, None, "with a failure: the request failed"),
    ],
)
async def test_a_failure_in_a_200(error: object, code: str | None, words: str) -> None:
    """A failure without an id was not accepted: it is refused, with the service's own words if it has some."""
    failure = await refused(says(status="failed", error=error))
    assert (failure.kind, failure.status, failure.code) == (FailureKind.INVALID, 200, code)
    assert failure.what.endswith(words)
    assert failure.body is not None
    assert "failed" in failure.body


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (302, FailureKind.REDIRECT),
        (400, FailureKind.INVALID),
        (401, FailureKind.FORBIDDEN),
        (402, FailureKind.CREDITS),
        (404, FailureKind.MISSING),
        (409, FailureKind.CONFLICT),
        (429, FailureKind.RATE),
        (503, FailureKind.SERVER),
        (99, FailureKind.UNREADABLE),
    ],
)
async def test_refusals(status: int, kind: FailureKind) -> None:
    """A status that is no success has its kind, and its words, code and body, for a POST and a GET."""
    answer = says(status, task_id="t", error={"code": "0004", "message": "not today"})
    for failure in (await submit(answer), await ask(answer)):
        assert isinstance(failure, Failure)
        assert (failure.kind, failure.status, failure.code) == (kind, status, "0004")
        assert failure.what == f"The service answered {status}: not today"
        assert failure.body == answer.body.decode()
        assert failure.task_id is None
        assert failure.retry_after is None


async def test_how_long_to_wait() -> None:
    """A `Retry-After` is seconds, or a date less the clock's."""
    assert (await refused(says(429, retry_after="7"))).retry_after == 7
    date = DateClock().utcnow() + timedelta(seconds=90)
    after = (await refused(says(503, retry_after=format_datetime(date, usegmt=True)))).retry_after
    assert after == pytest.approx(90, abs=1.5)  # HTTP's dates have whole seconds, and the answer takes 0.1 s


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (FailureKind.NOT_SENT, "The service was not reached: it slept"),
        (FailureKind.CERTIFICATE, "The service was not reached: it slept"),
        (FailureKind.LOST, "No answer came back: it slept"),
        (FailureKind.UNREADABLE, "No answer came back: it slept"),
    ],
)
async def test_no_answer(kind: FailureKind, words: str) -> None:
    """A call without an answer keeps its kind, and says whether the service was reached."""
    for failure in (await submit(Failure(kind, "it slept")), await ask(Failure(kind, "it slept"))):
        assert isinstance(failure, Failure)
        assert (failure.kind, failure.what) == (kind, words)


async def test_a_bug_is_no_failure() -> None:
    """What a transport must not raise is not taken for an answer."""
    with pytest.raises(ZeroDivisionError):
        await submit(ZeroDivisionError())


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("body", ['{"message": "who is %s?"}', "<title>who is %s?", '{"url": '])
async def test_the_key_is_struck_out(status: int, body: str) -> None:
    """A body that an error keeps holds no key, nor do its words, whatever it looks like."""
    failure = await refused(Reply(status, {}, body.replace("%s", KEY.decode()).encode()))
    assert failure.body == body.replace("%s", "***")
    assert KEY.decode() not in failure.what


async def test_a_link_is_not_touched() -> None:
    """A result stays as it is, although the key is in it: its link would lead nowhere else."""
    link = f"{LINK}?who={KEY.decode()}"
    for update in (await submit(says(url=link)), await ask(says(url=link))):
        assert isinstance(update, TaskUpdate)
        assert update.urls == (link,)


async def test_states_of_a_task() -> None:
    """An answer to a poll is what it says of the task."""
    update = await ask(says(status="processing"))
    assert isinstance(update, TaskUpdate)
    assert (update.status, update.raw) == (TaskStatus.PROCESSING, {"status": "processing"})


async def test_a_poll_that_cannot_be_read() -> None:
    """A poll's answer that is no JSON is unreadable; one that broke off is lost, whatever it seems to say."""
    failure = await ask(Reply(200, {}, b"<html>"))
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.body) == (FailureKind.UNREADABLE, "<html>")
    assert "an HTML page instead of JSON" in failure.what
    broken = await ask(says(status="failed")._replace(whole=False))
    assert isinstance(broken, Failure)
    assert (broken.kind, broken.status) == (FailureKind.LOST, 200)


def test_an_error_tells_all_that_the_failure_knows() -> None:
    """The user's error has the failure's fields, the request, and advice that fits its class."""
    failure = Failure(FailureKind.RATE, "No", status=429, code="c", body="b", retry_after=3)
    error = error_of(failure, RateLimitError, task_id="t", request=RAIN)
    assert type(error) is RateLimitError
    assert error.message == f"No. {ADVICE[RateLimitError]}"
    assert (error.status, error.code, error.body, error.task_id, error.request) == (429, "c", "b", "t", RAIN)
    assert error_of(failure, TaskFailedError).message == "No."


def test_an_id_that_came_with_a_failure_is_on_the_error() -> None:
    """The id of an answer that could not be read is not lost."""
    error = error_of(Failure(FailureKind.UNREADABLE, "No", task_id=".."), SubmitUnknownError)
    assert error.task_id == ".."


@pytest.mark.parametrize("kind", ADVICE)
def test_advice_ends_as_a_sentence(kind: type[FineVoiceError]) -> None:
    """Each advice is a sentence that can follow another one."""
    assert ADVICE[kind][0].isupper()
    assert ADVICE[kind].endswith(".")


def test_advice_says_what_was_paid() -> None:
    """Whoever was not reached took nothing; what nobody knows may have been paid for."""
    assert "nothing paid" in ADVICE[SubmitNotSentError]
    assert "may have been accepted and paid for" in ADVICE[SubmitUnknownError]


async def test_only_a_synchronous_submission_has_a_limit_of_its_own() -> None:
    """What is answered with its effect goes out with the limit for that, an ordinary one with the transport's."""
    transport, limit = FakeTransport(), nullcontext()
    exchange = Exchange(transport, clock=DateClock(), synchronous=limit)
    await exchange.submit(RAIN)
    await exchange.submit(SfxRequest("rain", use_async=False))
    assert transport.deadlines == [None, limit]
