"""Bytes to values: objects, refusals, descriptions, and the id in an answer that is damaged."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from finevoice_async.core.tasks import MAX_TASK_ID
from finevoice_async.core.wire import (
    UnreadableReplyError,
    as_utf8,
    body_text,
    decode_object,
    decode_refusal,
    decode_update,
    describe,
    find_task_id,
    request_id_of,
)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"5", b'"x"', b"<html>", b"{", b"{} {}", b"{}\xc2\xa0", b"\xff\xfe", b"[" * 100_000]
)
def test_no_object_is_unreadable(body: bytes) -> None:
    """Everything but a JSON object is unreadable, and said in few words."""
    with pytest.raises(UnreadableReplyError) as caught:
        decode_object(body)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        (b'{"error": {"code": "E", "message": "no"}}', "E", "no"),
        (b'{"error": {"code": "E"}}', "E", "code E"),
        (b'{"detail": "gone"}', None, "gone"),
        (b"{}", None, "'{}'"),
        (b"", None, "an empty body"),
        (b"<html><title>502  Bad\nGateway</title>", None, "an HTML page (502 Bad Gateway)"),
        (b"<html><title>502\x1b[31m\xe2\x80\xae</title>", None, "an HTML page (502 [31m)"),
        (b"<html>", None, "an HTML page"),
        (b"busy", None, "'busy'"),
        (b"\x1b[31m", None, r"'\x1b[31m'"),
    ],
)
def test_refusals_are_told(body: bytes, code: str | None, words: str) -> None:
    """Whatever its body looks like, a refusal has words."""
    assert decode_refusal(body) == (code, words)


@given(st.binary() | st.text(min_size=1).map(lambda text: f"<title>{text}".encode("utf-8", "replace")))
def test_describe_is_short_and_printable(body: bytes) -> None:
    """Any body can be described in a message: in a few words, on one line, without control characters."""
    words = describe(body)
    assert 0 < len(words) < 900
    assert words.isprintable()


@given(st.text())
def test_a_body_is_kept_as_text(text: str) -> None:
    """What an error keeps of a body is its text; what is no text in UTF-8 is replaced."""
    assume(text.isprintable())
    assert body_text(text.encode()) == text
    assert body_text(text.encode() + b"\xff") == text + "\ufffd"


@given(st.dictionaries(st.text(), st.text()))
def test_objects_are_decoded(value: dict[str, str]) -> None:
    """Every JSON object is one, in whatever way JSON may be written."""
    text = json.dumps(value)
    for body in (text.encode(), f"\r\n {text} \n".encode(), text.encode("utf-8-sig"), text.encode("utf-16")):
        assert decode_object(body) == value


def test_long_text_is_cut() -> None:
    """A long body is cut in a message, and kept up to 64 KiB on an error."""
    assert describe(b"x" * 10_000).endswith("...'")
    assert len(body_text(b"x" * 100_000)) == 65536


DAMAGED: list[tuple[str, str | None]] = [
    ('{"taskId": "p1-a", "url": "https://cd', "p1-a"),
    ('{"task_id":"p1-a"', "p1-a"),
    ('{"status": 202, "result": {"taskId" \t\r\n:\r\n "p1-a"', "p1-a"),
    ('}{,,\x00\ufffd"taskId": "p1-a"', "p1-a"),
    (r'{"taskId": "a\u002d\"\\\/b\t", ', None),  # a control character is in no id
    (r'{"taskId": "a\u002d\"\\\/b", ', 'a-"\\/b'),
    (r'{"taskId": "\u96e8\ud83d\ude00"', "雨😀"),
    ('{"taskId": "雨"', "雨"),
    ('{"taskId": 4711, "url', "4711"),
    ('{"taskId": 4711}', "4711"),
    ('{"taskId": 0]', "0"),
    ('{"taskId": -5\n', "-5"),
    # Not whole:
    ('{"taskId": "p1-', None),
    ('{"taskId": "', None),
    ('{"taskId": "p1-a\\"', None),
    ('{"taskId": "p1-a\\', None),
    ('{"taskId": "p1-\\u00', None),
    ('{"taskId": 4711', None),
    ('{"taskId":', None),
    ('{"taskId', None),
    # No id:
    ("", None),
    ('{"taskId": ""}', None),
    ('{"taskId": " \\u0020"}', None),
    ('{"taskId": null, "task_id": true}', None),
    ('{"taskId": 1.5}', None),
    ('{"taskId": 1e3}', None),
    ('{"taskId": 007}', None),
    ('{"taskId": ["p1-a"]}', None),
    ('{"taskId": "\\ud800"}', None),
    ('{"taskId": "a\ufffdb"}', None),
    ('{"taskId": "a\nb"}', None),
    ('{"taskId": "a\\qb"}', None),
    ('{"taskId": "' + "x" * (MAX_TASK_ID + 1) + '"}', None),
    ('{"taskId": ' + "1" * (MAX_TASK_ID + 1) + "}", None),
    ('{"taskIds": "p1-a", "mytaskId": "p1-b", "TASKID": "p1-c", "task id": "p1-d"}', None),
    ('{"prompt": "say \\"taskId\\": \\"p1-a\\" ", ', None),
    ('{"prompt": "say \\"taskId": "p1-a" ', None),  # a name that only ends in it
    ('{"x": "taskId", "y": "p1-a"', None),
    # The first that is one:
    ('{"taskId": null, "data": {"task_id": "", "taskId": 7, "task_id": "p1-b"', "7"),
    ('{"taskId": "' + "x" * MAX_TASK_ID + '", "task_id": "p1-a"', "x" * MAX_TASK_ID),
    ('{"taskId": "a\ufffd", "task_id": "p1-a"', "p1-a"),
]


@pytest.mark.parametrize(("text", "task_id"), DAMAGED)
def test_an_id_is_found_in_what_is_left(text: str, task_id: str | None) -> None:
    """The first id that is there whole is found, whatever the rest is; nothing else is taken for one."""
    assert find_task_id(text.encode()) == task_id


def test_bytes_that_are_no_text() -> None:
    """Bytes that are no UTF-8 spoil an id that holds them, and no other; UTF-16 is known by its first bytes."""
    assert find_task_id(b'\xff{"x": "\xff", "taskId": "a\xff", "task_id": "p1-a"') == "p1-a"
    assert find_task_id(b"\xef\xbb\xbf" + b'{"taskId": "p1-a"') == "p1-a"
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32"):
        whole = '{"taskId": "p1-a", "url'.encode(encoding)
        assert find_task_id(whole) == find_task_id(whole[:-1]) == "p1-a"


MEGABYTES = 8 * 2**20
ENDLESS = [
    '"',
    '"taskId":"',
    '"taskId":"\\"',
    '"taskId":"\\\\',
    '"taskId" ',
    '"taskId":null,',
    '"task_id":1x',
    "\\",
    "[",
]


@pytest.mark.timeout(30)  # what is quadratic would take days
@pytest.mark.parametrize("unit", [*ENDLESS, ' {"x": "words"}', '"taskId":"' + "\\u1234" * 400], ids=lambda u: u[:20])
def test_megabytes_take_no_time(unit: str) -> None:
    """An id after megabytes of anything is found, and the search ends where there is none, in linear time."""
    body = (unit * (MEGABYTES // len(unit))).encode()
    find_task_id(body)
    if "\\" not in unit and unit != '"taskId":"':  # of those, the end is inside a string
        assert find_task_id(body + b' ,"taskId":"p1-a"') == "p1-a"


IDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40).filter(
    lambda text: text.strip() and text.isprintable() and "\ufffd" not in text
)
FILLERS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.just('"taskId": "no"'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.text(max_size=9), FILLERS, max_size=4),
    IDS | st.integers(),
    st.sampled_from(["taskId", "task_id"]),
    st.booleans(),
    st.sampled_from([None, 1]),
    st.data(),
)
@example({'"taskId": "no': 1}, "p1-a", "taskId", False, None, None)
def test_an_id_is_found_where_an_answer_is_cut(
    fields: dict[str, Any], task_id: str | int, name: str, plain: bool, indent: int | None, data: st.DataObject | None
) -> None:
    """Of an answer cut anywhere, the id is found exactly if it is there whole; never a part of it, or another."""
    for other in ("taskId", "task_id"):
        fields.pop(other, None)
    text = json.dumps({**fields, name: task_id, "url": "https://x"}, ensure_ascii=plain, indent=indent)
    member = f"{json.dumps(name)}: {json.dumps(task_id, ensure_ascii=plain)}"
    end = text.rindex(member) + len(member) + isinstance(task_id, int)  # a number needs what follows it
    cut = len(text) if data is None else data.draw(st.integers(0, len(text)))
    body = text[:cut].encode("utf-8", "replace")
    assert find_task_id(body) == (str(task_id) if cut >= end else None)
    assert cut < len(text) or find_task_id(body) == decode_update(body).task_id


@given(st.binary() | st.text(st.sampled_from('"\\taskId_:{} 1u')).map(str.encode))
def test_any_bytes_have_an_id_or_none(body: bytes) -> None:
    """No bytes make the search fail, and what it finds can be shown and stored."""
    found = find_task_id(body)
    assert found is None or (found.strip() and found.isprintable() and found.encode())


@pytest.mark.parametrize("digits", [4000, 4300, 4301, 100_000])
@pytest.mark.parametrize("sign", ["", "-"])
def test_numbers_that_python_does_not_read(digits: int, sign: str) -> None:
    """A number of thousands of digits, wherever it stands, hides nothing of the rest."""
    body = '{"status": "done", "url": "https://x.test/a", "progress": %s%s}' % (sign, "9" * digits)  # noqa: UP031 - braces
    update = decode_update(body.encode())
    assert update.urls == ("https://x.test/a",)
    json.dumps(update.raw)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_bodies_in_any_unicode(encoding: str) -> None:
    """A body is shown as the text that it is."""
    body = '{"message": "r\u00e4in"}'.encode(encoding)
    assert body_text(body).lstrip("\ufeff") == '{"message": "r\u00e4in"}'
    assert decode_refusal(body) == (None, "r\u00e4in")


@given(st.binary(max_size=20))
def test_any_bytes_are_some_text(body: bytes) -> None:
    """Nothing fails, whatever it is taken for."""
    as_utf8(body).decode("utf-8", "replace")
    assert body_text(body).encode() is not None


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"x-request-id": "r-1"}, "r-1"),
        ({"x-request-id": " ", "cf-ray": "c-1"}, "c-1"),
        ({"x-amzn-requestid": "a-1", "date": "x"}, "a-1"),
        ({"x-request-id": "a\x1b[2J\udcff"}, "a [2J?"),
        ({"x-request-id": "x" * 1000}, "x" * 200),
    ],
)
def test_names_of_calls(headers: dict[str, str], expected: str | None) -> None:
    """What a service or gateway calls a call is found, one line of it."""
    assert request_id_of(headers) == expected
