"""Requests are checked when they are made, and whatever is given, a broken rule is one kind of error."""

from __future__ import annotations

import contextlib
import io
import json
import sqlite3
from collections import UserDict, deque
from collections.abc import Iterator
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strange import (
    NO_NUMBERS,
    NO_TEXTS,
    BrokenFloat,
    BrokenInt,
    BrokenMapping,
    BrokenText,
    Liar,
    Seconds,
    Unshowable,
    Word,
)

from finevoice_async.core.requests import FIELDS, WIRE_NAMES, SfxRequest, as_request, check_many
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
    with pytest.raises(InvalidRequestError, match=f"^{named} .*Nothing was sent") as caught:
        SfxRequest(**fields)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("name", ["prompt", "negative_prompt", "source_url", "source_type"])
@pytest.mark.parametrize("value", NO_TEXTS)
def test_whatever_is_no_text_is_refused(name: str, value: str) -> None:
    """Objects that cannot be compared, shown or even asked for their class are refused as anything else is."""
    with pytest.raises(InvalidRequestError, match=f"^{name} must be ") as caught:
        SfxRequest(**{"prompt": "x", name: NO_TEXTS[value]})
    assert len(str(caught.value)) < 200
    str(caught.value).encode()


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_whatever_is_no_duration_is_refused(value: str) -> None:
    """A number beyond floats, of another kind, or that fails when it is compared is no duration."""
    with pytest.raises(InvalidRequestError, match=r"^duration must be ") as caught:
        SfxRequest("x", duration=NO_NUMBERS[value])
    assert len(str(caught.value)) < 200


def test_whatever_is_no_bool_is_refused() -> None:
    """Only True and False are yes and no."""
    for value in (None, 0, "yes", BrokenInt(1), Unshowable(), Liar()):
        with pytest.raises(InvalidRequestError, match=r"^use_async must be True or False"):
            SfxRequest("x", use_async=value)  # type: ignore[arg-type]  # on purpose


def test_kinds_of_texts_and_numbers_are_taken_as_plain_ones() -> None:
    """An enum's member counts as its text or number; so does a subclass that fails in all that it does."""
    plain = SfxRequest("rain", source_url="https://x/y", source_type="image", duration=5)
    source: dict[str, Any] = {"source_url": BrokenText("https://x/y"), "source_type": Word.IMAGE}
    named = SfxRequest(Word.RAIN, **source, duration=Seconds.FEW)
    assert named == plain
    assert (type(named.prompt), type(named.source_url), type(named.duration)) == (str, str, int)
    assert encode_request(named) == encode_request(plain)
    assert SfxRequest("rain", negative_prompt=BrokenText("")) == SfxRequest("rain", negative_prompt="")
    assert SfxRequest("rain", duration=BrokenFloat(2.5)) == SfxRequest("rain", duration=2.5)
    assert SfxRequest("rain", duration=BrokenInt(2)) == SfxRequest("rain", duration=2)


@given(st.floats() | st.integers())
def test_a_duration_is_above_0_and_at_most_30(duration: float) -> None:
    """Of all numbers, those are durations, as they are."""
    if 0 < duration <= 30:
        assert SfxRequest("x", duration=duration).duration == duration
    else:
        with pytest.raises(InvalidRequestError, match="duration"):
            SfxRequest("x", duration=duration)


@given(st.text())
def test_any_source_is_taken_or_refused(url: str) -> None:
    """No text makes the rule for addresses fail in another way."""
    with contextlib.suppress(InvalidRequestError):
        assert SfxRequest(source_url=url, source_type="image").source_url == url


@pytest.mark.parametrize(
    ("request_", "body"),
    [
        (SfxRequest("rain"), {"prompt": "rain", "useAsync": True}),
        (
            SfxRequest(duration=30, **VIDEO),
            {"sourceUrl": VIDEO["source_url"], "sourceType": "video", "duration": 30, "useAsync": True},
        ),
        (SfxRequest("x", use_async=False), {"prompt": "x", "useAsync": False}),
        (SfxRequest("x", duration=0.1), {"prompt": "x", "duration": 0.1, "useAsync": True}),
        (SfxRequest("é 雨", negative_prompt="x"), {"prompt": "é 雨", "negative_prompt": "x", "useAsync": True}),
    ],
)
def test_wire_body(request_: SfxRequest, body: dict[str, Any]) -> None:
    """The body has the endpoint's spelling, and nothing that was not given."""
    assert json.loads(encode_request(request_)) == body


def test_every_field_has_a_spelling() -> None:
    """No field is left out of the endpoint's names, and no two share one."""
    assert set(WIRE_NAMES) == FIELDS
    assert len(set(WIRE_NAMES.values())) == len(FIELDS)


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
    assert as_request(Word.RAIN, {"duration": 2}) == wanted
    assert as_request({"prompt": "rain"}, {"duration": 2}) == wanted
    assert as_request({BrokenText("prompt"): "rain"}, {"duration": 2}) == wanted
    assert as_request(None, {"prompt": "rain", "duration": 2}) == wanted
    assert as_request(SfxRequest("rain"), {"duration": 2}) == wanted
    assert as_request({"prompt": "rain", "duration": 9}, {"duration": 2}) == wanted


WRONG: list[tuple[Any, dict[str, Any], str]] = [
    (5, {}, "request"),
    (Liar(), {}, "request"),
    (["rain"], {}, "request"),
    (BrokenMapping(), {}, "request"),
    (None, {}, "prompt"),
    ("x", {"prompt": "y"}, "prompt"),
    (BrokenText("x"), {"prompt": Unshowable()}, "prompt"),
    ("x", {"colour": 1}, "field name"),
    ({"promt": "x"}, {}, "field name"),
    ({5: "x"}, {}, "field name"),
    ({Unshowable(): "x"}, {}, "field name"),
    (SfxRequest("x"), {"colour": 1}, "field name"),
    ({"prompt": "x", "duration": 10**400}, {}, "duration"),
]


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_as_request_refuses_the_rest(number: int) -> None:
    """Anything else is an InvalidRequestError that says what is wrong, never a TypeError."""
    request, fields, named = WRONG[number]
    with pytest.raises(InvalidRequestError, match=f"^{named} "):
        as_request(request, fields)


def test_a_mapping_that_fails_is_the_cause() -> None:
    """What a mapping of the caller's own raised is not lost."""
    with pytest.raises(InvalidRequestError) as caught:
        as_request(BrokenMapping(), {})
    assert isinstance(caught.value.__cause__, RuntimeError)


# Many


class Wish(NamedTuple):
    """A request as a tuple, whose parts would each be taken for a prompt."""

    prompt: str
    negative_prompt: str


class Table(list[str]):
    """A table of another library: drawn from, it gives its columns' names."""

    def keys(self) -> list[str]:
        """Return the names."""
        return list(self)


def _row() -> sqlite3.Row:
    database = sqlite3.connect(":memory:")
    database.row_factory = sqlite3.Row
    row: sqlite3.Row = database.execute("select 'rain' as prompt, 'music' as negative_prompt").fetchone()
    database.close()
    return row


def _function() -> Iterator[str]:
    yield "rain"


class Indexed:
    """Can be drawn from in the old way."""

    def __getitem__(self, index: int) -> str:
        return ["rain", "wind"][index]


class Waiting:
    """An async iterable."""

    def __aiter__(self) -> Waiting:
        return self


@pytest.mark.parametrize(
    "requests",
    [
        "rain",
        "",
        Word.RAIN,
        BrokenText("rain"),
        b"rain",
        bytearray(b"rain"),
        memoryview(b"rain"),
        {"prompt": "rain"},
        {},
        UserDict(prompt="rain"),
        MappingProxyType({"prompt": "rain"}),
        BrokenMapping(),
        SfxRequest("rain"),
        None,
        17,
        3.5,
        True,
        object(),
        _function,
        Unshowable(),
        Wish("rain", "music"),
        Table(["prompt", "file"]),
        _row(),
    ],
    ids=lambda requests: type(requests).__name__,
)
def test_one_in_place_of_many(requests: Any) -> None:
    """What is one request, or nothing to draw from, is refused, before its characters or names are paid for."""
    with pytest.raises(InvalidRequestError, match=r"^requests must be .*Nothing was sent\.$") as caught:
        check_many(requests)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "requests",
    [
        [],
        ["rain"],
        ("rain", "wind"),
        {"rain", "wind"},
        {"rain": 1}.keys(),
        {1: "rain"}.values(),
        iter(["rain"]),
        (prompt for prompt in ["rain"]),
        deque(["rain"]),
        io.StringIO("rain\n"),
        Table(["rain", "wind"]),
        Indexed(),
        Waiting(),
    ],
    ids=lambda requests: type(requests).__name__,
)
def test_whatever_can_be_drawn_from_is_many(requests: Any) -> None:
    """Any other source is taken, and not drawn from yet."""
    check_many(requests)
