"""Errors as they come out of a session: each says what is known, in words that are true and said once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import attrs
import pytest
from raw_server import Peer, RawServer, Request

from finevoice_async import (
    AuthenticationError,
    DownloadError,
    FineVoiceError,
    FineVoiceSession,
    InsufficientCreditsError,
    InvalidRequestError,
    JournalError,
    PollError,
    RateLimitError,
    RequestRejectedError,
    Retry,
    SessionClosedError,
    SfxRequest,
    SubmitNotSentError,
    SubmitUnknownError,
    TaskFailedError,
    TaskNotFoundError,
    TaskTimeoutError,
    Timeouts,
)

Visit = Callable[..., FineVoiceSession]
RAIN = SfxRequest("rain")
SORRY = b'{"error": {"code": "0007", "message": "We are sorry."}}'
Answer = tuple[int, bytes] | None


@attrs.frozen
class Case:
    """What a server answers, and the error that comes of it. An answer that is None resets the connection."""

    kind: type[FineVoiceError]
    paid: bool | None
    post: Answer = (200, b'{"task_id": "t"}')
    poll: Answer = (200, b'{"status": "processing"}')
    status: int | None = None
    code: str | None = None
    task_id: str | None = "t"


CASES = [
    Case(AuthenticationError, False, post=(401, SORRY), status=401, code="0007", task_id=None),
    Case(InsufficientCreditsError, False, post=(402, SORRY), status=402, code="0007", task_id=None),
    Case(RequestRejectedError, False, post=(422, SORRY), status=422, code="0007", task_id=None),
    Case(RequestRejectedError, False, post=(200, b'{"status": "failed"}'), status=200, task_id=None),
    Case(RateLimitError, False, post=(429, SORRY), status=429, code="0007", task_id=None),
    Case(SubmitUnknownError, None, post=(503, SORRY), status=503, code="0007", task_id=None),
    Case(SubmitUnknownError, None, post=(200, b"<html>"), status=200, task_id=None),
    Case(SubmitUnknownError, None, post=(200, b'{"task_id": "a\\n"}'), status=200, task_id="a\n"),
    Case(SubmitUnknownError, None, post=None, task_id=None),
    Case(AuthenticationError, True, poll=(401, SORRY), status=401, code="0007"),
    Case(PollError, True, poll=(402, SORRY), status=402, code="0007"),
    Case(PollError, True, poll=(500, SORRY), status=500, code="0007"),
    Case(TaskNotFoundError, None, poll=(404, SORRY), status=404, code="0007"),
    Case(TaskFailedError, True, poll=(200, b'{"status": "failed", "error": null, "message": "No."}')),
    Case(TaskFailedError, True, poll=(200, b'{"status": 500, "error": {"code": "0001"}}'), code="0001"),
    Case(PollError, True, poll=(200, b'{"status": "done"}')),
    Case(TaskTimeoutError, True),
    Case(TaskTimeoutError, True, poll=(429, SORRY), status=429, code="0007"),
    Case(DownloadError, True, poll=(200, b'{"status": "done", "url": "http://127.0.0.1:9/x"}')),
]


async def error_of(job: Awaitable[object]) -> FineVoiceError:
    """Return the error that a job ends with."""
    with pytest.raises(FineVoiceError) as caught:
        await job
    return caught.value


def check_words(error: FineVoiceError) -> None:
    """Check that a message is whole sentences, none said twice, and no advice costs money twice."""
    for doubled in ("..", ". .", "?.", "  ", "None", ".)."):
        assert doubled not in error.message.replace("task_id=...", "")
    assert error.message.endswith(".")
    assert error.message.lower().count("your account") <= 1
    if error.paid is not False:
        assert "submit it again" not in error.message
        assert "again" not in error.user_message


@pytest.mark.parametrize("journalled", [False, True], ids=["", "journal"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind.__name__}-{case.post}-{case.poll}"[:70])
async def test_an_error_says_what_is_known(visit: Visit, tmp_path: Path, case: Case, journalled: bool) -> None:
    """Each has the key, the request, the id, the reply's status, code, body and name, and whether it was paid."""

    async def script(request: Request, peer: Peer) -> None:
        answer = case.post if request.method == "POST" else case.poll
        if answer is None:
            await peer.reset()
        else:
            status, body = answer
            if server.count("POST") > 1:
                body = body.replace(b'"t"', b'"t2"')  # the second effect is another task
            peer.answer(status, body, X_Request_Id="r-1", Retry_After="3")

    key = "scene 3" if journalled else None
    async with RawServer(script) as server:
        options = {"timeouts": Timeouts(task=300, connect=5, read=5), "retry": Retry(attempts=2)}
        async with visit(server.url, journal=tmp_path / "j.db" if journalled else None, **options) as session:

            async def make() -> None:
                await (await session.generate(RAIN, key=key)).read()

            error = await error_of(make())
            assert type(error) is case.kind
            assert (error.paid, error.task_id, error.key, error.request) == (case.paid, case.task_id, key, RAIN)
            if case.status is not None:
                assert (error.status, error.code, error.retry_after) == (case.status, case.code, 3)
                assert error.body
            if case.status is not None or case.kind is TaskFailedError:
                assert error.request_id == "r-1"
            check_words(error)
            (outcome,) = [outcome async for outcome in session.generate_many([{"prompt": "rain", "key": key}])]
            if outcome.error is not None:
                check_words(outcome.error)
                assert (outcome.error.key, outcome.error.request) == (key, RAIN)
                assert outcome.error.paid is case.paid
            if journalled:
                async for row in session.rows():
                    if row.error is not None:
                        check_words(case.kind(row.error))


async def test_the_reason_of_a_failure_is_told(visit: Visit) -> None:
    """Where the service puts its reason beside an empty error, it is not lost."""

    async def script(request: Request, peer: Peer) -> None:
        failed = b'{"status": "failed", "error": null, "message": "The prompt names a brand."}'
        peer.answer(200, b'{"task_id": "t"}' if request.method == "POST" else failed)

    async with RawServer(script) as server, visit(server.url) as session:
        error = await error_of(session.generate("rain"))
        assert error.message == "Task t failed: The prompt names a brand."


async def test_nothing_was_sent(visit: Visit, tmp_path: Path) -> None:
    """Where nothing left, nothing is paid: an address that nobody has, a journal that cannot be, a closed session."""
    async with visit("http://127.0.0.1:9", retry=Retry(attempts=1)) as session:
        error = await error_of(session.submit(RAIN))
        assert (type(error), error.paid, error.request) == (SubmitNotSentError, False, RAIN)
        check_words(error)
        (outcome,) = [outcome async for outcome in session.generate_many([{"prompt": ""}])]
        assert isinstance(outcome.error, InvalidRequestError)
        assert outcome.error.paid is False
    error = await error_of(session.submit(RAIN))
    assert (type(error), error.paid) == (SessionClosedError, False)
    session = visit("http://127.0.0.1:9", journal=tmp_path / "no" / "such" / "folder.db")
    errors = await asyncio.gather(*[error_of(session.submit(RAIN)) for _ in range(2)])
    assert [(type(error), error.paid) for error in errors] == [(JournalError, False)] * 2
    assert errors[0] is not errors[1]
    await session.aclose()


async def test_a_session_that_closes_says_what_was_paid(visit: Visit) -> None:
    """Who waits for a task hears its id; who waits for a slot hears that nothing was sent."""

    async def script(request: Request, peer: Peer) -> None:
        peer.answer(200, b'{"task_id": "t", "status": "processing"}')

    async with RawServer(script) as server:
        session = visit(server.url, max_concurrency=1)
        jobs = [asyncio.ensure_future(error_of(session.generate(RAIN))) for _ in range(2)]
        await asyncio.sleep(3)
        await session.aclose()
        first, second = await asyncio.gather(*jobs)
        assert (type(first), first.task_id, first.paid) == (SessionClosedError, "t", True)
        assert (type(second), second.task_id, second.paid) == (SessionClosedError, None, False)
        assert second.request == RAIN


async def test_a_row_in_doubt_names_the_account_once(visit: Visit, tmp_path: Path) -> None:
    """What recover() and a later call of the same key tell of an unknown row says each thing once."""

    async def script(request: Request, peer: Peer) -> None:
        peer.answer(502, b'{"message": "Bad gateway."}')

    async with RawServer(script) as server, visit(server.url, journal=tmp_path / "j.db") as session:
        first = await error_of(session.generate(RAIN, key="k"))
        second = await error_of(session.generate(RAIN, key="k"))
        (outcome,) = [outcome async for outcome in session.recover()]
        assert outcome.error is not None
        for error in (first, second, outcome.error):
            check_words(error)
            assert isinstance(error, SubmitUnknownError)
            assert (error.key, error.request, error.paid) == ("k", RAIN, None)
            assert error.message.lower().count("your account") == 1
            assert "Bad gateway" in error.message
