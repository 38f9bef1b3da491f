"""Whatever bytes a server sends, nothing but the library's own errors comes out, and the poller lives."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import pickle
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw_server import Peer, RawServer, Request
from virtual_time import VirtualTimeLoop

from finevoice_async import FineVoiceError, FineVoiceSession, Polling, Timeouts

ACCEPTED = b'{"task_id": "t"}'
DONE = b'{"status": "completed", "url": "http://127.0.0.1:9/x.wav"}'
DIGITS = b"9" * 5000
DEEP = b'{"a":' * 100_000 + b"1" + b"}" * 100_000


def run(job: Coroutine[Any, Any, None]) -> None:
    """Run a job on virtual time, and see to it that nothing went wrong unseen."""
    complaints: list[dict[str, Any]] = []

    async def watched() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        await job

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(watched())
    assert not complaints


def check(error: BaseException | None) -> None:
    """Check that an error is the library's own, and can be shown, logged, sent on and kept."""
    if error is None:
        return
    assert isinstance(error, FineVoiceError), repr(error)
    for text in (error.message, str(error), error.user_message, error.code or "", error.request_id or ""):
        assert text.isprintable()
        text.encode()
    (error.body or "").encode()
    for twin in (copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        assert vars(twin) == vars(error)


async def fetch(session: FineVoiceSession, prompt: str) -> bytes:
    """Make an effect and download it."""
    return await (await session.generate(prompt)).read()


async def meet(post: bytes, poll: bytes, **options: Any) -> tuple[BaseException | None, BaseException | None]:
    """Submit to a server that answers with these bytes; return the errors of that effect and of one that it accepts."""

    async def script(request: Request, peer: Peer) -> None:
        if request.method == "POST" and b"strange" in request.body:
            peer.send(post)
            await peer.close()
        elif request.method == "GET" and request.path.endswith("/other"):
            peer.answer(200, DONE)
        elif request.method == "GET":
            peer.send(poll)
            await peer.close()
        else:
            peer.answer(200, ACCEPTED)

    polling = Polling.fixed(2, grace=5)
    async with RawServer(script) as server:
        timeouts = Timeouts(task=30, read=5, connect=5)
        async with FineVoiceSession(
            "k-1234567", base_url=server.url, polling=polling, timeouts=timeouts, **options
        ) as session:
            outcomes = await asyncio.gather(
                *[fetch(session, prompt) for prompt in ("strange", "rain")], return_exceptions=True
            )
            async with asyncio.timeout(1000):  # a 429 may ask all polls to wait for two minutes
                other = await (await session.attach("other")).wait(timeout=None)
            assert other.urls, "the poller lives"
            first, second = (outcome if isinstance(outcome, BaseException) else None for outcome in outcomes)
            check(first)
            check(second)
            return first, second


def reply(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    """Return a reply."""
    lines = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


STRANGE: dict[str, bytes] = {
    "a number of 5,000 digits": reply(b'{"task_id": "t", "status": "completed", "progress": %s}' % DIGITS),
    "a negative number of 5,000 digits": reply(b'{"task_id": "t", "status": "failed", "code": -%s}' % DIGITS),
    "a status of 5,000 digits": reply(b'{"task_id": "t", "status": %s}' % DIGITS),
    "an id of 5,000 digits": reply(b'{"task_id": %s}' % DIGITS),
    "infinite numbers": reply(b'{"task_id": "t", "status": 1e999, "progress": -Infinity, "x": NaN}'),
    "an error that is a number": reply(b'{"task_id": "t", "status": "failed", "error": 1e999}'),
    "deep JSON": reply(DEEP),
    "a failure with deep JSON": reply(b'{"task_id": "t", "status": "failed", "x": %s}' % DEEP),
    "a failure with JSON just not too deep": reply(b'{"status": "failed", "x": %s}' % (b"[" * 900 + b"]" * 900)),
    "half a character as id": reply(b'{"task_id": "a\\ud800"}'),
    "half a character as reason": reply(b'{"task_id": "t", "status": "failed", "error": "a\\udfff\\u202eb"}'),
    "half a character elsewhere": reply(b'{"task_id": "t", "status": "failed", "x": "\\ud800"}'),
    "half a character as link": reply(b'{"task_id": "t", "status": "done", "url": "http://127.0.0.1:9/\\ud800"}'),
    "a reason with lines and escapes": reply(b'{"status": "failed", "error": "a\\nCRITICAL b\\u001b[2Jc\\u0000"}'),
    "a code with lines": reply(b'{"status": "failed", "error": {"code": "a\\nb", "message": "c\\rd"}}'),
    "an id with lines": reply(b'{"task_id": "a\\nb\\u001b[2J"}'),
    "no status line": b"\x00\xff\x16\x03\x01\r\n\r\n",
    "a status of many digits": reply(b"{}", status=DIGITS),
    "no number as status": reply(b"{}", status=b"two hundred"),
    "status 0": reply(b"{}", status=b"000 Nothing"),
    "status 999": reply(b"{}", status=b"999 Whatever"),
    "other protocols": reply(b"{}", b"Upgrade: h2c", b"Connection: upgrade", status=b"101 Switching Protocols"),
    "early hints for ever": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 50,
    "no content": reply(b"", status=b"204 No Content"),
    "not modified": reply(b"", status=b"304 Not Modified"),
    "a length of 5,000 digits": b"HTTP/1.1 200 OK\r\nContent-Length: " + DIGITS + b"\r\n\r\n{}",
    "a length below nothing": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "an endless header": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000,
    "a chunk of endless size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"F" * 5000 + b"\r\n{}",
    "an unknown encoding": reply(b"{}", b"Content-Encoding: rot13"),
    "false gzip": reply(b"{}", b"Content-Encoding: gzip"),
    "an unknown charset": reply(b"{}", b"Content-Type: application/json; charset=no-such-\xff"),
    "an odd cookie": reply(b"{}", b'Set-Cookie: \xff=\x01; expires=never; a="b'),
    "an odd redirect": reply(b"{}", b"Location: http://[::1", status=b"302 Found"),
    "an odd date to wait for": reply(
        b"{}", b"Retry-After: Mon, 01 Jan 2024 00:00:00 +99999999999999999", status=b"503 Away"
    ),
    "an odd date of the reply": reply(
        b"{}",
        b"Retry-After: Mon, 01 Jan 2024 00:00:00 GMT",
        b"Date: Mon, 01 Jan 0000 00:00:00 -99999999",
        status=b"429 x",
    ),
    "a wait of 5,000 digits": reply(b"{}", b"Retry-After: " + DIGITS, status=b"503 Away"),
    "an odd name of the call": reply(b"{}", b"X-Request-Id: \xff\xfe\x1b[2J", status=b"400 Bad"),
    "lines in an HTML title": reply(b"<html><title>a\nb\x1b[2J\xff</title>", status=b"400 Bad"),
    "UTF-16": reply("{'a': 1}".encode("utf-16"), status=b"400 Bad"),
    "a cut byte order mark": reply(b"\xff\xfe\x00", status=b"400 Bad"),
}


@pytest.mark.parametrize("strange", STRANGE.values(), ids=STRANGE)
async def test_a_strange_reply(
    strange: bytes, no_leaks: object, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """A reply that nobody expects ends in an error of the library, and no log line has two lines or escapes."""
    caplog.set_level(logging.DEBUG, logger="finevoice_async")
    for error in await meet(strange, strange, journal=tmp_path / "effects.db"):
        assert error is not None
    lines = [record.getMessage() for record in caplog.records if record.name == "finevoice_async"]
    assert lines
    assert all(line.isprintable() for line in lines)
    assert not [record for record in caplog.records if record.levelno >= logging.CRITICAL]
    for line in lines:
        line.encode()


# Whatever bytes

SCALARS = (
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers()
    | st.sampled_from([10**4000, -(10**4299), "1e999", "200", "failed", "done", "pending", "success"])
    | st.text(st.characters(codec=None), max_size=6)
)
NAMES = st.sampled_from(
    ["status", "error", "data", "result", "task_id", "taskId", "url", "urls", "message", "detail", "details", "code"]
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5), max_leaves=12
)
BODIES = JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60)
STATUSES = st.sampled_from([b"200 OK", b"201 x", b"302 x", b"400 x", b"401 x", b"404 x", b"429 x", b"500 x", b"503 x"])
HEADERS = st.lists(
    st.builds(
        lambda name, value: name + b": " + value.translate(None, b"\r\n"),
        st.sampled_from(
            [b"Retry-After", b"Date", b"X-Request-Id", b"Content-Type", b"Content-Encoding", b"Location", b"Set-Cookie"]
        ),
        st.binary(max_size=30)
        | st.sampled_from([DIGITS, b"1e999", b"nan", b"-1", b"Fri, 31 Dec 9999 23:59:59 -2359", b"gzip", b"br", b"99"])
        | st.datetimes().map(lambda date: date.strftime("%a, %d %b %Y %H:%M:%S GMT").encode()),
    ),
    max_size=4,
)


@st.composite
def replies(draw: st.DrawFn) -> bytes:
    """Draw a reply that may be all right, but for a few of its bytes."""
    raw = reply(draw(BODIES), *draw(HEADERS), status=draw(STATUSES))
    if draw(st.booleans()):
        at = draw(st.integers(0, len(raw)))
        raw = raw[:at] + draw(st.binary(max_size=4)) + raw[at + draw(st.integers(0, 4)) :]
    return raw[: draw(st.integers(0, len(raw)))] if draw(st.booleans()) else raw


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(replies(), replies())
def test_any_reply(post: bytes, poll: bytes) -> None:
    """Whatever bytes a server answers with, the library's own errors come out, and the poller asks on."""

    async def job() -> None:
        await meet(post, poll)

    run(job())
