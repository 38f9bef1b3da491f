"""Requests are checked when they are made; task ids before they are used."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finevoice_async.core.addresses import without_secrets
from finevoice_async.core.requests import SfxRequest, as_request
from finevoice_async.core.tasks import TaskStatus, check_task_id
from finevoice_async.core.text import shorten
from finevoice_async.core.wire import encode_request
from finevoice_async.errors import InvalidRequestError

VIDEO: dict[str, Any] = {"source_url": "https://example.com/a.mp4", "source_type": "video"}

BAD: list[tuple[dict[str, Any], str]] = [
    ({}, "prompt"),
    ({"prompt": ""}, "prompt"),
    ({"prompt": " \t\n"}, "prompt"),
    ({"prompt": " ", **VIDEO}, "prompt"),
    ({"prompt": 5}, "prompt"),
    ({"prompt": b"rain"}, "prompt"),
    ({"prompt": "\ud800"}, "prompt"),
    ({"prompt": "x", "negative_prompt": 1}, "negative_prompt"),
    ({"source_url": "https://example.com/a.mp4"}, "source_type"),
    ({"prompt": "x", "source_type": "image"}, "source_url"),
    ({"source_url": "ftp://example.com/a", "source_type": "video"}, "source_url"),
    ({"source_url": "https://", "source_type": "video"}, "source_url"),
    ({"source_url": "https://[::1", "source_type": "video"}, "source_url"),
    ({"source_url": "https://x", "source_type": "audio"}, "source_type"),
    ({"prompt": "x", "duration": 0}, "duration"),
    ({"prompt": "x", "duration": -1}, "duration"),
    ({"prompt": "x", "duration": 30.01}, "duration"),
    ({"prompt": "x", "duration": float("nan")}, "duration"),
    ({"prompt": "x", "duration": float("inf")}, "duration"),
    ({"prompt": "x", "duration": True}, "duration"),
    ({"prompt": "x", "duration": "5"}, "duration"),
    ({"prompt": "x", "use_async": 1}, "use_async"),
]


@pytest.mark.parametrize(("fields", "named"), BAD)
def test_bad_request_is_refused(fields: dict[str, Any], named: str) -> None:
    """A broken rule is an error that names the field, and a ValueError."""
    with pytest.raises(InvalidRequestError, match=named) as caught:
        SfxRequest(**fields)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("request_", "body"),
    [
        (SfxRequest("rain"), {"prompt": "rain", "useAsync": True}),
        (SfxRequest(duration=30, **VIDEO), None),
        (SfxRequest("x", use_async=False), {"prompt": "x", "useAsync": False}),
        (SfxRequest("x", duration=0.1), {"prompt": "x", "duration": 0.1, "useAsync": True}),
        (SfxRequest("é 雨"), {"prompt": "é 雨", "useAsync": True}),
    ],
)
def test_wire_body(request_: SfxRequest, body: dict[str, Any] | None) -> None:
    """The body has the endpoint's spelling, and nothing that was not given."""
    expected = body or {
        "sourceUrl": VIDEO["source_url"],
        "sourceType": "video",
        "duration": 30,
        "useAsync": True,
    }
    assert json.loads(encode_request(request_)) == expected


def test_request_shows_no_secret_and_no_megabyte() -> None:
    """A repr is short, and leaves out what a source address may carry."""
    request = SfxRequest("x" * 10**6, source_url="https://u:pw@h/a.mp4?sig=s3cret#f", source_type="video")
    assert len(repr(request)) < 400
    assert "s3cret" not in repr(request)
    assert "pw" not in repr(request)


def test_as_request_takes_what_callers_give() -> None:
    """A request, a prompt, a dict and keywords all make the same request."""
    wanted = SfxRequest("rain", duration=2)
    assert as_request(wanted, {}) is wanted
    assert as_request("rain", {"duration": 2}) == wanted
    assert as_request({"prompt": "rain"}, {"duration": 2}) == wanted
    assert as_request(None, {"prompt": "rain", "duration": 2}) == wanted
    assert as_request(SfxRequest("rain"), {"duration": 2}) == wanted


@pytest.mark.parametrize(
    ("request_", "fields"), [(5, {}), ("x", {"prompt": "y"}), ("x", {"colour": 1}), ({"promt": "x"}, {})]
)
def test_as_request_refuses_the_rest(request_: Any, fields: dict[str, Any]) -> None:
    """Anything else is an InvalidRequestError, never a TypeError."""
    with pytest.raises(InvalidRequestError):
        as_request(request_, fields)


@pytest.mark.parametrize("task_id", ["", " ", ".", "..", "a\r\nb", "a\x00", "x" * 513, 5, None, "\ud800"])
def test_bad_task_id(task_id: object) -> None:
    """What cannot be one path segment is refused."""
    with pytest.raises(InvalidRequestError):
        check_task_id(task_id)


@given(st.text())
def test_task_id_is_given_back_or_refused(task_id: str) -> None:
    """Every text is either an id as it is, or refused with a short message."""
    try:
        given = check_task_id(task_id)
    except InvalidRequestError as error:
        given, refusal = None, str(error)
    assert given is task_id if given is not None else len(refusal) < 300


def test_ended_states_are_never_left() -> None:
    """No late answer brings a task back; anything else is believed."""
    for state in TaskStatus:
        for told in TaskStatus:
            assert state.then(told) is (state if state.ended else told)


@given(st.text())
def test_shorten_is_short(text: str) -> None:
    """A shortened value fits a line."""
    assert len(shorten(text)) <= 60


@given(st.text())
def test_without_secrets_never_fails(text: str) -> None:
    """Any text can be shown without its secrets."""
    assert "?" not in (without_secrets(text) or "").replace("?...", "")


def test_without_secrets_of_nothing() -> None:
    """Nothing stays nothing."""
    assert without_secrets(None) is None
