"""Bytes to values: refusals, descriptions, paths."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finevoice_async.core.tasks import task_path
from finevoice_async.core.wire import UnreadableReplyError, body_text, decode_object, decode_refusal, describe


@pytest.mark.parametrize(
    ("task_id", "path"),
    [
        ("p1-a", "/v1/task/p1-a"),
        ("../../x", "/v1/task/..%2F..%2Fx"),
        ("a?b#c", "/v1/task/a%3Fb%23c"),
        ("a%2F", "/v1/task/a%252F"),
        ("é", "/v1/task/%C3%A9"),
    ],
)
def test_task_path_is_one_segment(task_id: str, path: str) -> None:
    """An id can name no other path."""
    assert task_path(task_id) == path


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
        (b"<html>", None, "an HTML page"),
        (b"busy", None, "'busy'"),
    ],
)
def test_refusals_are_told(body: bytes, code: str | None, words: str) -> None:
    """Whatever its body looks like, a refusal has words."""
    assert decode_refusal(body) == (code, words)


@given(st.binary())
def test_describe_is_short_and_printable(body: bytes) -> None:
    """Any body can be described in a message."""
    assert len(describe(body)) < 900
    assert body_text(body) is not None


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
