"""Requests to bytes, replies to values or errors: pure functions, one for each kind of outcome."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

from finevoice_async.core.dialects import make_lenient_converter, read_error
from finevoice_async.core.requests import SfxRequest
from finevoice_async.core.tasks import MAX_TASK_ID, TaskUpdate
from finevoice_async.core.text import one_line
from finevoice_async.errors import MAX_BODY

_SNIPPET = 200  # characters of an unreadable body that go into a message
_MAX_REQUEST_ID = 200  # characters; real ones have 36
_REQUEST_IDS = ("x-request-id", "request-id", "x-amzn-requestid", "x-correlation-id", "x-trace-id", "cf-ray")
_MAX_DIGITS = 4000  # of a number: Python refuses to read or show one of more than 4,300

# A task id beside its name, in JSON of which nothing else is known: a string up to its closing quote, or a whole number
# up to what must follow one. Quotes without a backslash before them delimit strings, so nothing inside a string looks
# like this, and no look at one name goes on past the next: the time is in proportion to the text, whatever is in it.
_STRING = rf'"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{{4}}){{1,{MAX_TASK_ID}}}"'
_WHOLE = rf"-?(?:0|[1-9][0-9]{{0,{MAX_TASK_ID - 1}}})(?=[ \t\r\n,\]}}])"
_TASK_ID = rf'"task(?<!\\"task)(?:Id|_id)"[ \t\r\n]*:[ \t\r\n]*(?:({_STRING})|({_WHOLE}))'
_from_json = json.JSONDecoder().raw_decode
_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode  # made once: json.dumps makes one a call


@cache
def _hooks() -> tuple[Callable[..., TaskUpdate], Callable[[SfxRequest], dict[str, Any]]]:
    """Return what reads an update and what writes a request; made at the first call, not for the import."""
    converter = make_lenient_converter()
    return converter.get_structure_hook(TaskUpdate), converter.get_unstructure_hook(SfxRequest)


class Reply(NamedTuple):
    """What came back over HTTP, with nothing of HTTP's machinery.

    Attributes:
        status: The HTTP status.
        headers: Found by their lower-case names.
        body: The bytes, decompressed.
        whole: False if the body was cut: it broke off, or was longer than anybody should have to read.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool = True


class UnreadableReplyError(ValueError):
    """The body is not the JSON object that it should be. Never reaches the user as it is."""


def encode_request(request: SfxRequest) -> bytes:
    """Return the JSON body of a submission."""
    return _to_json(_hooks()[1](request)).encode()


def decode_object(body: bytes) -> dict[str, Any]:
    """Decode a JSON object.

    Raises:
        UnreadableReplyError: The body is anything else. The message says what.
    """
    try:
        payload = _parse(body)
    except (ValueError, RecursionError) as error:
        raise UnreadableReplyError(f"{describe(body)} instead of JSON") from error
    if not isinstance(payload, dict):
        raise UnreadableReplyError(f"the JSON {describe(body)} instead of an object")
    return payload


def _parse(body: bytes) -> object:
    try:
        text = body.decode()
        payload, end = _from_json(text)
        if not text[end:].strip(" \t\r\n"):  # what JSON calls white space
            return payload
    except ValueError:
        pass
    # This looks for white space, a byte order mark and UTF-16, which takes as long as all the rest.
    return json.loads(body, parse_int=_whole_number)


def _whole_number(digits: str) -> int | str:
    """Read a number, and one that is far too long as text: the rest of the answer may be all that counts."""
    return int(digits) if len(digits) <= _MAX_DIGITS else digits


def decode_update(body: bytes) -> TaskUpdate:
    """Decode what an answer says about its task.

    Raises:
        UnreadableReplyError: The body is no JSON object.
    """
    return _hooks()[0](decode_object(body), TaskUpdate)


def find_task_id(body: bytes) -> str | None:
    """Return the first task id in JSON that is damaged or cut off, None if none is there whole.

    What was paid for must not be lost because the rest of the answer is. Blank ids, and ids with damaged characters,
    are none.
    """
    text = body.decode(json.detect_encoding(body), "replace")
    for match in re.finditer(_TASK_ID, text):  # compiled when it is needed first, not for the import
        task_id: str = match[2] or json.loads(match[1])
        if task_id.strip() and task_id.isprintable() and "\ufffd" not in task_id:
            return task_id
    return None


def decode_refusal(body: bytes) -> tuple[str | None, str]:
    """Return the error code and the words of a refusal, whatever its body looks like."""
    try:
        payload = decode_object(body)
    except UnreadableReplyError:
        return None, describe(body)
    code, reason = read_error(payload)
    return code, reason or (f"code {code}" if code else describe(body))


def body_text(body: bytes) -> str:
    """Return the part of a body that an error keeps, as text."""
    return as_utf8(body[:MAX_BODY]).decode("utf-8", "replace")


def as_utf8(body: bytes) -> bytes:
    """Return a body in UTF-8, if it is in UTF-16 or UTF-32; any other as it is. Never fails."""
    encoding = json.detect_encoding(body)
    return body if encoding == "utf-8" else body.decode(encoding, "replace").encode("utf-8", "replace")


def request_id_of(headers: Mapping[str, str]) -> str | None:
    """Return what the service, or a gateway before it, calls this call, if it says so."""
    for name in _REQUEST_IDS:
        found = one_line(headers.get(name, ""))[:_MAX_REQUEST_ID]
        if found:
            return found
    return None


def describe(body: bytes) -> str:
    """Return a short, printable description of a body that made no sense."""
    text = body_text(body[: _SNIPPET * 20]).strip()
    if not text:
        return "an empty body"
    if text[:1] == "<":
        title = re.search(r"<title[^>]*>([^<]{1,200})", text, re.IGNORECASE)
        return f"an HTML page ({one_line(title[1])})" if title else "an HTML page"
    text = " ".join(text.split())
    return repr(text if len(text) <= _SNIPPET else text[:_SNIPPET] + "...")
