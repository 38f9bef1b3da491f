"""What goes wrong with submissions. Whatever happens, the server sees one POST an effect."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from email.utils import format_datetime
from typing import Any

import pytest
from raw_server import Peer, RawServer, Request

from finevoice_async import (
    FineVoiceSession,
    Outcome,
    RateLimitError,
    RequestRejectedError,
    Retry,
    SubmitNotSentError,
    SubmitUnknownError,
)
from finevoice_async.adapters.local_slots import LocalSlots
from finevoice_async.adapters.loop_clock import LoopClock

Visit = Callable[..., FineVoiceSession]
Unseen = Callable[..., None]
DONE = json.dumps({"status": "completed", "url": "http://127.0.0.1:9/x.wav"}).encode()


async def unknown(visit: Visit, unseen: Unseen, script: Any) -> tuple[SubmitUnknownError, RawServer]:
    """Submit to a server that misbehaves; give the error, after the checks that all share."""
    slots = LocalSlots(5, LoopClock())
    async with RawServer(script) as server, visit(server.url, slots=slots) as session:
        with pytest.raises(SubmitUnknownError) as caught:
            await session.submit("rain")
        await asyncio.sleep(60)
        assert session.stats.running == session.stats.submitting == 0
        unseen(session, caught.value)
        assert slots.used == 0, "its slot was given back"
    assert server.count("POST") == 1
    return caught.value, server


async def test_server_closes_after_the_post(visit: Visit, unseen: Unseen) -> None:
    """The server reads the POST and closes: unknown, one POST."""

    async def script(request: Request, peer: Peer) -> None:
        await peer.close()

    await unknown(visit, unseen, script)


async def test_server_resets_after_the_post(visit: Visit, unseen: Unseen) -> None:
    """The server reads the POST and resets: unknown, one POST."""

    async def script(request: Request, peer: Peer) -> None:
        await peer.reset()

    await unknown(visit, unseen, script)


async def test_server_hangs_after_the_post(visit: Visit, unseen: Unseen) -> None:
    """The server reads the POST and hangs past the read limit: unknown, one POST."""

    async def script(request: Request, peer: Peer) -> None:
        await peer.hang()

    await unknown(visit, unseen, script)


async def test_connection_refused_and_then_up(visit: Visit) -> None:
    """Connection refused twice, then up: one accepted."""

    async def script(request: Request, peer: Peer) -> None:
        peer.answer(200, DONE)

    async with RawServer(script) as first:
        port = first.port
    async with visit(f"http://127.0.0.1:{port}", retry=Retry(attempts=10, first_delay=4)) as session:
        submission = asyncio.create_task(session.generate("rain"))
        await asyncio.sleep(2)
        async with RawServer(script, port) as server:
            assert (await submission).url
            assert server.count("POST") == 1


async def test_connection_refused_for_ever(visit: Visit, unseen: Unseen) -> None:
    """Never up: certainly not sent, after all patience."""
    async with visit("http://127.0.0.1:1") as session:
        with pytest.raises(SubmitNotSentError, match="safe to submit") as caught:
            await session.submit("rain")
        unseen(caught.value)


async def test_pooled_connection_closes(visit: Visit) -> None:
    """A pooled connection closes as the POST starts: unknown, never a silent second POST."""

    async def script(request: Request, peer: Peer) -> None:
        if server.count("POST") == 1:
            peer.answer(200, DONE)
        else:
            await peer.reset()

    async with RawServer(script) as server, visit(server.url) as session:
        await session.generate("first")
        with pytest.raises(SubmitUnknownError):
            await session.submit("second")
    assert (server.count("POST"), server.connections) == (2, 1)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("same", [True, False])
async def test_post_is_redirected(visit: Visit, unseen: Unseen, status: int, same: bool) -> None:
    """A redirected POST is not followed, to the same or another origin, and the second address is never asked."""

    async def never(request: Request, peer: Peer) -> None:
        peer.answer(200, b'{"task_id": "stolen"}')

    async with RawServer(never) as other:

        async def script(request: Request, peer: Peer) -> None:
            peer.answer(status, b"", Location="/elsewhere" if same else other.url + "/v1/x")

        error, server = await unknown(visit, unseen, script)
        assert other.requests == []
    assert [request.path for request in server.requests] == ["/v1/audio/sfx-generation"]
    assert error.status == status


@pytest.mark.parametrize(
    "reply",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000 + b"\r\nContent-Length: 2\r\n\r\n{}",
        b"<html>HTTP/0.9</html>",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=["ssh", "long header", "http 0.9", "bad status", "short body", "bad chunk"],
)
async def test_unreadable_replies(visit: Visit, unseen: Unseen, reply: bytes) -> None:
    """A reply that is no HTTP is unknown, not the "400" that the HTTP library makes up."""

    async def script(request: Request, peer: Peer) -> None:
        peer.send(reply)
        await peer.close()

    error, _ = await unknown(visit, unseen, script)
    assert error.status in (None, 200)


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408, 409])
async def test_gateway_errors_after_the_post(visit: Visit, unseen: Unseen, status: int) -> None:
    """A gateway's error may hide an acceptance: unknown, one POST, the body kept."""

    async def script(request: Request, peer: Peer) -> None:
        peer.answer(status, b"<html><title>Bad Gateway</title>nginx</html>")

    error, _ = await unknown(visit, unseen, script)
    assert error.status == status
    assert "nginx" in str(error.body)
    assert "HTML page (Bad Gateway)" in str(error)


async def test_rate_limit_then_accepted(visit: Visit) -> None:
    """429 with Retry-After: 2, then 200: waits, one accepted."""

    async def script(request: Request, peer: Peer) -> None:
        if server.count("POST") == 1:
            peer.answer(429, b"{}", Retry_After="2")
        else:
            peer.answer(200, DONE)

    async with RawServer(script) as server, visit(server.url) as session:
        began = asyncio.get_running_loop().time()
        await session.generate("rain")
        assert 2 <= asyncio.get_running_loop().time() - began < 2.5
    assert server.count("POST") == 2


@pytest.mark.parametrize("value", ["-1", "nan", "1e9", "soon", "", "date", "past"])
async def test_odd_retry_after(visit: Visit, value: str) -> None:
    """Whatever Retry-After says, the wait is bounded, and 429 for ever is a RateLimitError."""
    now = LoopClock().utcnow()
    value = {
        "date": format_datetime(now.replace(year=now.year + 1), usegmt=True),
        "past": format_datetime(now.replace(year=now.year - 1), usegmt=True),
    }.get(value, value)

    async def script(request: Request, peer: Peer) -> None:
        peer.answer(429, b"{}", Retry_After=value)

    async with RawServer(script) as server, visit(server.url) as session:
        began = asyncio.get_running_loop().time()
        with pytest.raises(RateLimitError):
            await session.submit("rain")
        assert asyncio.get_running_loop().time() - began == pytest.approx(Retry().patience, abs=0.1)
    assert 1 <= server.count("POST") <= 40


@pytest.mark.parametrize("body", ["{}", "[]", "null", '{"taskId": ""}', '{"task_id": null}', '"p1"', "7", ""])
async def test_accepted_without_a_task_id(visit: Visit, unseen: Unseen, body: str) -> None:
    """200 without an id and a link is unknown, and keeps the body."""

    async def script(request: Request, peer: Peer) -> None:
        peer.answer(200, body.encode())

    error, _ = await unknown(visit, unseen, script)
    assert error.body == body


async def test_number_as_task_id(visit: Visit) -> None:
    """A number as id is an id."""

    async def script(request: Request, peer: Peer) -> None:
        peer.answer(200, b'{"taskId": 4711}' if request.method == "POST" else DONE)

    async with RawServer(script) as server, visit(server.url) as session:
        task = await session.submit("rain")
        await task
    assert task.id == "4711"
    assert server.requests[-1].path == "/v1/task/4711"


@pytest.mark.parametrize("task_id", ["../../v1/balance", "a?b=c", "a#b", "a b", "é", "%2e%2e"])
async def test_odd_task_ids_are_encoded(visit: Visit, task_id: str) -> None:
    """An id with special characters is asked for as one path segment."""

    async def script(request: Request, peer: Peer) -> None:
        peer.answer(200, json.dumps({"taskId": task_id}).encode() if request.method == "POST" else DONE)

    async with RawServer(script) as server, visit(server.url) as session:
        task = await session.submit("rain")
        await task
    path = server.requests[-1].path
    assert path.startswith("/v1/task/")
    assert path.count("/") == 3
    assert not set(path) & set("?# ")


@pytest.mark.parametrize("task_id", ["a\r\nX: y", "\x00", "..", "x" * 10_000])
async def test_impossible_task_ids_are_kept_but_not_asked_for(visit: Visit, unseen: Unseen, task_id: str) -> None:
    """An id that cannot be asked for is unknown; the error keeps it, and no other path is asked."""

    async def script(request: Request, peer: Peer) -> None:
        peer.answer(200, json.dumps({"taskId": task_id}).encode())

    error, server = await unknown(visit, unseen, script)
    assert error.task_id == task_id[:512]
    assert len(server.requests) == 1


async def test_result_comes_with_the_submission_answer(visit: Visit) -> None:
    """An answer that carries the link is done, without a poll."""

    async def script(request: Request, peer: Peer) -> None:
        peer.answer(200, json.dumps({"taskId": "t", "status": 200, "url": "http://127.0.0.1:9/x.wav"}).encode())

    async with RawServer(script) as server, visit(server.url) as session:
        task = await session.submit("rain")
        assert task.done()
        assert (await task).url == "http://127.0.0.1:9/x.wav"
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [400, 404, 413, 422])
async def test_refusals_are_not_unknown(visit: Visit, unseen: Unseen, status: int) -> None:
    """A clear refusal was not paid for, and says why."""

    async def script(request: Request, peer: Peer) -> None:
        peer.answer(status, b'{"detail": [{"loc": ["body", "prompt"], "msg": "is rude"}]}')

    async with RawServer(script) as server, visit(server.url) as session:
        with pytest.raises(RequestRejectedError, match="is rude") as caught:
            await session.submit("rain")
        unseen(caught.value)
    assert (server.count("POST"), caught.value.status) == (1, status)


async def test_failure_in_the_clothes_of_a_success(visit: Visit) -> None:
    """200 with a failure inside and no id is a refusal."""

    async def script(request: Request, peer: Peer) -> None:
        peer.answer(200, b'{"status": 500, "error": {"code": "E1", "message": "no"}}')

    async with RawServer(script) as server, visit(server.url) as session:
        with pytest.raises(RequestRejectedError) as caught:
            await session.submit("rain")
    assert caught.value.code == "E1"


async def test_one_bad_effect_harms_no_neighbour(visit: Visit) -> None:
    """Of many effects one is lost: the others succeed, and it is one outcome."""

    async def script(request: Request, peer: Peer) -> None:
        if b"bad" in request.body:
            await peer.reset()
        else:
            peer.answer(200, DONE)

    async with RawServer(script) as server, visit(server.url) as session:
        outcomes: list[Outcome] = [o async for o in session.generate_many(["a", "bad", "c"], ordered=True)]
    assert [type(outcome.error) for outcome in outcomes] == [type(None), SubmitUnknownError, type(None)]
    assert server.count("POST") == 3
