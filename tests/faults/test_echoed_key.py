"""A service that repeats the key, however it spells it, brings it into no error, log line or repr."""

from __future__ import annotations

import base64
import html
import json
import logging
import traceback
from collections.abc import Iterable
from urllib.parse import quote, unquote

import pytest
from raw_server import Peer, RawServer, Request

from finevoice_async import FineVoiceError, FineVoiceSession, Polling, Timeouts

KEY = "fv+live/0123456789&abc"
ACCEPTED = b'{"task_id": "t"}'


def as_json(**fields: str) -> bytes:
    """Return a JSON object, its texts spelled as they are given."""
    return ("{" + ", ".join(f'"{name}": "{text}"' for name, text in fields.items()) + "}").encode()


BODIES: dict[str, bytes] = {
    "as it is": as_json(error=f"bad key {KEY}"),
    "beside a link": as_json(error=f"bad key {KEY}", url="http://127.0.0.1/x"),
    "in a link": as_json(message="no", url=f"http://127.0.0.1/x?key={quote(KEY, safe='')}"),
    "escaped as JSON may": as_json(message=KEY.replace("+", "\\u002B").replace("/", "\\/")),
    "escaped all": as_json(message="".join(f"\\u{ord(letter):04x}" for letter in KEY)),
    "as a code": json.dumps({"error": {"code": KEY, "message": "no"}}).encode(),
    "percent in JSON escapes": as_json(message=quote(KEY, safe="").replace("%", "\\u0025")),
    "JSON in JSON": json.dumps({"message": json.dumps({"Authorization": f"Bearer {KEY}"})}).encode(),
    "in HTML": f"<html><title>{html.escape(KEY)}</title>".encode(),
    "in HTML, by numbers": b"<title>" + "".join(f"&#{ord(letter)};" for letter in KEY).encode(),
    "in UTF-16": as_json(message=KEY).decode().encode("utf-16"),
    "in UTF-16 without a mark": as_json(message=KEY).decode().encode("utf-16-le"),
    "in UTF-32": as_json(message=KEY).decode().encode("utf-32"),
    "a page in UTF-16": f"<title>{KEY}</title>".encode("utf-16"),
    "in base64": base64.b64encode(f"Authorization: Bearer {KEY}\r\n".encode()),
    "at the end of what is shown": b"x" * 180 + KEY.encode() + b"x",
    "at the end of a reason": as_json(message="x" * 490 + KEY),
    "at the end of what is kept": b"x" * (65536 - 10) + KEY.encode(),
    "many times": KEY.encode() * 6000,
    "as a name": json.dumps({KEY: KEY}).encode(),
}


def shown(error: BaseException, lines: Iterable[str]) -> str:
    """Return everything that somebody may see of an error, decoded as far as anybody would."""
    parts = [*lines]
    seen: BaseException | None = error
    while seen is not None:
        parts += [str(seen), repr(seen), *map(str, vars(seen).values()), *traceback.format_exception(seen)]
        seen = seen.__cause__ or seen.__context__
    text = "\n".join(parts).replace("\0", "")
    for decode in (html.unescape, unquote, lambda text: text.replace("\\/", "/").replace("\\u002B", "+")):
        text += "\n" + decode(text)
    return text


def hidden(text: str) -> bool:
    """Tell whether neither the key nor half of it is in a text."""
    half = len(KEY) // 2
    secrets = [KEY[:half], KEY[half:], base64.b64encode(KEY.encode())[2:-4].decode(), "\\u006c\\u0069\\u0076"]
    return not any(secret in text for secret in secrets)


@pytest.mark.parametrize("status", [401, 422, 500, 200])
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_nobody_sees_the_key(
    no_leaks: object, caplog: pytest.LogCaptureFixture, status: int, body: bytes
) -> None:
    """In the answer to a poll or to a submission, whatever its status."""
    if status == 200 and b'"url"' in body:
        body = body.replace(b'"url"', b'"status": "failed", "url"')  # else it would be a result
    caplog.set_level(logging.DEBUG, logger="finevoice_async")

    async def script(request: Request, peer: Peer) -> None:
        accepted = request.method == "POST" and server.count("POST") == 1
        headers = {} if accepted else {"X_Request_Id": f"r-{KEY}"}
        peer.answer(200 if accepted else status, ACCEPTED if accepted else body, **headers)

    async with RawServer(script) as server:
        timeouts = Timeouts(task=20)
        async with FineVoiceSession(KEY, base_url=server.url, polling=Polling.fixed(2), timeouts=timeouts) as session:
            for _ in range(2):  # the poll fails, then the submission
                with pytest.raises(FineVoiceError) as caught:
                    await session.generate("rain")
                lines = [record.getMessage() for record in caplog.records if record.name == "finevoice_async"]
                assert hidden(shown(caught.value, [*lines, repr(session)]))
                assert caught.value.request_id == "r-***" or status == 200


async def test_a_result_keeps_its_links_but_does_not_show_them(no_leaks: object) -> None:
    """What was paid for can be fetched: its links are as they came, and in no repr."""
    link = f"http://127.0.0.1:9/x.wav?key={quote(KEY, safe='')}"

    async def script(request: Request, peer: Peer) -> None:
        peer.answer(200, json.dumps({"task_id": "t", "status": "completed", "url": link}).encode())

    async with RawServer(script) as server, FineVoiceSession(KEY, base_url=server.url) as session:
        task = await session.submit("rain")
        updates = [update async for update in task.updates()]
        effect = await task
        assert effect.urls == updates[-1].urls == (link,)
        assert effect.raw["url"] == link
        assert hidden(unquote(f"{effect!r} {updates!r} {task!r}"))


async def test_a_task_id_that_holds_the_key_still_leads_to_the_task(no_leaks: object) -> None:
    """An id is used as it came: what was paid for must be found."""

    async def script(request: Request, peer: Peer) -> None:
        assert request.method == "POST" or request.path.endswith("/p1-abcdefgh")
        done = b'{"status": "completed", "url": "http://127.0.0.1:9/x"}'
        peer.answer(200, b'{"task_id": "p1-abcdefgh"}' if request.method == "POST" else done)

    async with RawServer(script) as server, FineVoiceSession("abcdefgh", base_url=server.url) as session:
        assert (await session.generate("rain")).task_id == "p1-abcdefgh"
