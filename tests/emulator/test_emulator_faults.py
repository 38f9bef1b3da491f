"""Every fault of the table, over real connections."""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING, get_args

import aiohttp
import pytest

from finevoice_async.core.tasks import TaskStatus
from finevoice_async.emulator import FAULTS, Emulator, FaultName

if TYPE_CHECKING:
    from emulator.conftest import Answered, Caller

ACCEPTED_AND_BROKEN = ["submit.lose_reply", "submit.reset"]
ACCEPTED_AND_WRONG = {
    "submit.error_500": 500,
    "submit.bad_gateway": 502,
    "submit.garbage": 200,
    "submit.no_task_id": 200,
}
NOT_ACCEPTED = {
    "submit.unavailable": 503,
    "submit.refuse": 400,
    "submit.rate_limit": 429,
    "submit.reject": 422,
    "submit.unauthorized": 401,
    "submit.forbidden": 403,
    "submit.no_credits": 402,
    "submit.redirect": 307,
}
POLL_ERRORS = {
    "poll.not_found": 404,
    "poll.error_500": 500,
    "poll.refuse": 400,
    "poll.unauthorized": 401,
    "poll.rate_limit": 429,
    "poll.redirect": 302,
}
POLL_BROKEN = ["poll.close", "poll.reset"]
HANGS = ["submit.hang", "poll.hang", "download.hang"]
BY_THEMSELVES = {
    "submit.slow", "poll.slow", "poll.garbage", "poll.no_link",
    "task.fail", "task.never_ends", "task.done_without_url",
    "download.cut", "download.cut_unnoticed", "download.expire", "download.slow", "download.error_500",
    "download.redirect", "download.whole", "download.wrong_range",
}  # fmt: skip


def test_every_fault_is_tested() -> None:
    """The table of faults and these tests name the same."""
    tested = {*ACCEPTED_AND_BROKEN, *ACCEPTED_AND_WRONG, *NOT_ACCEPTED, *POLL_ERRORS, *POLL_BROKEN, *HANGS}
    assert tested | BY_THEMSELVES == set(FAULTS)


def test_checkers_know_every_fault() -> None:
    """The names that editors offer and checkers accept are those of the table."""
    assert get_args(FaultName) == tuple(FAULTS)


@pytest.mark.parametrize("name", ACCEPTED_AND_BROKEN)
async def test_accepted_and_cut_off(caller: Caller, emulator: Emulator, name: FaultName) -> None:
    """The connection ends without an answer, and the task was accepted exactly once."""
    emulator.inject(name)
    with pytest.raises((aiohttp.ClientError, ConnectionError)) as caught:
        await caller.submit()
    assert (getattr(caught.value, "errno", None) == errno.ECONNRESET) == (name == "submit.reset")
    assert (len(emulator.ledger.accepted), emulator.ledger.posts) == (1, 1)
    assert (await caller.submit()).status == 200


@pytest.mark.parametrize(("name", "status"), ACCEPTED_AND_WRONG.items())
async def test_accepted_and_wrongly_answered(caller: Caller, emulator: Emulator, name: FaultName, status: int) -> None:
    """The answer has no task id, and the task was accepted all the same."""
    emulator.inject(name)
    answered = await caller.submit()
    assert answered.status == status
    assert next(iter(emulator.ledger.accepted)).encode() not in answered.body
    assert emulator.ledger.faults == {name: 1}


@pytest.mark.parametrize(("name", "status"), NOT_ACCEPTED.items())
async def test_not_accepted(caller: Caller, emulator: Emulator, name: FaultName, status: int) -> None:
    """The refusal has its status, and nothing was accepted."""
    emulator.inject(name)
    assert (await caller.submit()).status == status
    assert not emulator.ledger.accepted
    assert emulator.ledger.refused == {status: 1}
    assert (await caller.submit()).status == 200


@pytest.mark.parametrize(("name", "status"), POLL_ERRORS.items())
async def test_poll_errors(caller: Caller, emulator: Emulator, name: FaultName, status: int) -> None:
    """One poll is answered with the error, the next one well."""
    task_id = await caller.submit_id()
    emulator.inject(name)
    assert (await caller.poll(task_id)).status == status
    assert (await caller.poll(task_id)).status == 200
    assert emulator.ledger.accepted[task_id].polls == 2


@pytest.mark.uvloop
async def test_a_reset_on_uvloop(caller: Caller, emulator: Emulator) -> None:
    """A connection is reset on that event loop, too."""
    emulator.inject("submit.reset")
    with pytest.raises(aiohttp.ClientOSError) as caught:
        await caller.submit()
    assert caught.value.errno == errno.ECONNRESET


@pytest.mark.parametrize("name", POLL_BROKEN)
async def test_polls_cut_off(caller: Caller, emulator: Emulator, name: FaultName) -> None:
    """The connection ends without an answer; aiohttp may ask once more by itself, so two are ordered."""
    task_id = await caller.submit_id()
    emulator.inject(name, 2)
    with pytest.raises((aiohttp.ClientError, ConnectionError)):
        await caller.poll(task_id)


@pytest.mark.parametrize("body", ["[]", "null", "{}", "<html>"])
async def test_any_poll_answer(caller: Caller, emulator: Emulator, body: str) -> None:
    """A poll is answered with the body that was ordered."""
    task_id = await caller.submit_id()
    emulator.inject("poll.garbage", value=body)
    assert (await caller.poll(task_id)).body == body.encode()


@pytest.mark.parametrize("value", ["2", "-1", "nan", "1e9", "Wed, 21 Oct 2015 07:28:00 GMT", "rubbish", ""])
async def test_any_retry_after(caller: Caller, emulator: Emulator, value: str) -> None:
    """A 429 has the Retry-After that was ordered, or none."""
    emulator.inject("submit.rate_limit", value=value)
    assert (await caller.submit()).headers.get("Retry-After", "") == value


async def call_of_kind(caller: Caller, name: str, task_id: str, link: str) -> Answered:
    """Make the call that a fault of this name meets."""
    match name.partition(".")[0]:
        case "submit":
            return await caller.submit()
        case "poll":
            return await caller.poll(task_id)
        case _:
            return await caller.ask("GET", link)


@pytest.mark.parametrize("name", HANGS)
async def test_hanging(caller: Caller, emulator: Emulator, name: FaultName) -> None:
    """It is never answered, and ends at once when the emulator closes."""
    link = await caller.link()
    emulator.inject(name)
    task_id = next(iter(emulator.ledger.accepted))
    call = asyncio.ensure_future(call_of_kind(caller, name, task_id, link))
    await asyncio.sleep(200)
    assert not call.done()
    began = asyncio.get_running_loop().time()
    await emulator.aclose()
    assert asyncio.get_running_loop().time() - began < 1
    with pytest.raises((aiohttp.ClientError, ConnectionError)):
        await call


@pytest.mark.parametrize("name", ["submit.slow", "poll.slow", "download.slow"])
async def test_slow(caller: Caller, emulator: Emulator, name: FaultName) -> None:
    """The answer is right, and late by what was ordered."""
    link = await caller.link(duration=1)
    emulator.inject(name, value=9)
    task_id = next(iter(emulator.ledger.accepted))
    began = asyncio.get_running_loop().time()
    assert (await call_of_kind(caller, name, task_id, link)).status == 200
    assert asyncio.get_running_loop().time() - began == pytest.approx(9, abs=0.1)


async def test_poll_without_link_waits_for_an_end(caller: Caller, emulator: Emulator) -> None:
    """An order of an end without a link is not used up by polls of a task that runs."""
    emulator.service_time = 5
    task_id = await caller.submit_id()
    emulator.inject("poll.no_link")
    assert not (await caller.poll(task_id)).update.status.ended
    await asyncio.sleep(5)
    updates = [(await caller.poll(task_id)).update for _ in range(2)]
    assert [update.status for update in updates] == [TaskStatus.COMPLETED] * 2
    assert [len(update.urls) for update in updates] == [0, 1]


@pytest.mark.parametrize(("value", "links"), [(2, [0, 0, 1]), (None, [0, 0, 0])])
async def test_done_without_url(caller: Caller, emulator: Emulator, value: int | None, links: list[int]) -> None:
    """An end is told without a link as often as ordered, or always."""
    emulator.service_time = 0.1
    emulator.inject("task.done_without_url", value=value)
    task_id = await caller.submit_id()
    await asyncio.sleep(1)
    updates = [(await caller.poll(task_id)).update for _ in links]
    assert {update.status for update in updates} == {TaskStatus.COMPLETED}
    assert [len(update.urls) for update in updates] == links


async def test_failing_task(caller: Caller, emulator: Emulator) -> None:
    """A task ends as a failure, told with HTTP 200, and has no file."""
    emulator.service_time = 1
    emulator.inject("task.fail", value="no sound came out")
    task_id = await caller.submit_id()
    await asyncio.sleep(1)
    answered = await caller.poll(task_id)
    assert (answered.status, answered.update.status) == (200, TaskStatus.FAILED)
    assert answered.update.reason == "no sound came out"
    assert (await caller.ask("GET", f"/files/{task_id}.0.wav")).status == 404
    assert emulator.ledger.accepted[task_id].fails


async def test_task_that_never_ends(caller: Caller, emulator: Emulator) -> None:
    """It runs for ever and keeps its slot, and its drawn time stays in the ledger."""
    emulator.service_time = 1
    emulator.inject("task.never_ends")
    task_id = await caller.submit_id()
    await asyncio.sleep(100_000)
    assert not (await caller.poll(task_id)).update.status.ended
    assert (emulator.running, emulator.ledger.service_times) == (1, [1])


@pytest.mark.parametrize("status", [403, 404, 410])
async def test_expired_link(caller: Caller, emulator: Emulator, status: int) -> None:
    """The link ends for good, and the next poll gives a fresh one to the same file."""
    link = await caller.link()
    whole = await caller.ask("GET", link)
    emulator.inject("download.expire", value=status)
    for _ in range(2):
        assert (await caller.ask("GET", link)).status == status
    fresh = (await caller.poll(next(iter(emulator.ledger.accepted)))).update.urls[0]
    assert fresh != link
    assert (await caller.ask("GET", link)).status == status
    assert (await caller.ask("GET", fresh)).body == whole.body


@pytest.mark.parametrize("value", [None, 0, 1000, 10**9])
async def test_cut_download(caller: Caller, emulator: Emulator, value: int | None) -> None:
    """The body ends before its Content-Length, after the bytes that were ordered."""
    link = await caller.link(duration=0.5)
    whole = (await caller.ask("GET", link)).body
    emulator.inject("download.cut", value=value)
    received = bytearray()

    async def receive(response: aiohttp.ClientResponse) -> None:
        async for piece in response.content.iter_any():
            received.extend(piece)

    async with caller.http.get(link) as response:
        with pytest.raises(aiohttp.ClientPayloadError):
            await receive(response)
    assert response.content_length == len(whole)
    assert len(received) == {None: len(whole) // 2, 10**9: len(whole) - 1}.get(value, value)
    assert whole.startswith(received)
    assert emulator.ledger.fetched == 1


async def test_unnoticed_cut(caller: Caller, emulator: Emulator) -> None:
    """Without a Content-Length, HTTP itself says nothing about the early end."""
    link = await caller.link(duration=0.5)
    emulator.inject("download.cut_unnoticed", value=1000)
    answered = await caller.ask("GET", link)
    assert (answered.status, len(answered.body)) == (200, 1000)
    assert "Content-Length" not in answered.headers


async def test_other_download_faults(caller: Caller, emulator: Emulator) -> None:
    """Errors, redirects, and ranges that are answered wrongly."""
    link = await caller.link(duration=0.5)
    some = {"Range": "bytes=100-199"}
    emulator.inject("download.error_500")
    assert (await caller.ask("GET", link)).status == 500
    emulator.inject("download.redirect")
    redirected = await caller.ask("GET", link)
    assert (redirected.status, redirected.headers["Location"]) == (302, link)
    emulator.inject("download.redirect", value="http://10.0.0.1/x")
    assert (await caller.ask("GET", link)).headers["Location"] == "http://10.0.0.1/x"
    emulator.inject("download.whole")
    whole = await caller.ask("GET", link, headers=some)
    assert (whole.status, len(whole.body)) == (200, int(whole.headers["Content-Length"]))
    emulator.inject("download.wrong_range")
    assert (await caller.ask("GET", link)).status == 200  # no range: the order waits
    wrong = await caller.ask("GET", link, headers=some)
    assert wrong.headers["Content-Range"] == f"bytes 101-200/{len(whole.body)}"
