"""Task ids are checked before they are used; a path of one names no other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strange import BrokenText, Liar, LongWinded, Unshowable

from finevoice_async.core.tasks import MAX_TASK_ID, TaskStatus, check_task_id, task_path
from finevoice_async.errors import InvalidRequestError


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


NO_IDS: list[object] = ["", " ", ".", "..", "a\r\nb", "a\x00", "x" * 513, "\ud800", 5, None, 10**5000]
NO_IDS += [Unshowable(), Liar(), LongWinded()]


@pytest.mark.parametrize("number", range(len(NO_IDS)))
def test_bad_task_id(number: int) -> None:
    """What cannot be one path segment is refused, whatever it is."""
    with pytest.raises(InvalidRequestError) as caught:
        check_task_id(NO_IDS[number])
    (str(caught.value) + (caught.value.task_id or "")).encode()


def test_a_kind_of_text_is_taken_as_a_plain_one() -> None:
    """An id of a caller's own kind of text, which may do anything in its methods, is its characters."""
    assert type(check_task_id(BrokenText("p1-a"))) is str


@given(st.text())
def test_task_id_is_given_back_or_refused(task_id: str) -> None:
    """Every text is either an id as it is, or refused with a short message."""
    try:
        given = check_task_id(task_id)
    except InvalidRequestError as error:
        given, refusal = None, str(error)
    assert given is task_id if given is not None else len(refusal) < 300


def test_an_id_that_is_refused_is_kept() -> None:
    """The error has the id, cut where it is far too long."""
    with pytest.raises(InvalidRequestError) as caught:
        check_task_id("x" * 10_000)
    assert caught.value.task_id == "x" * MAX_TASK_ID


def test_two_states_are_ends() -> None:
    """Only a completed task and a failed one change no more."""
    assert {state for state in TaskStatus if state.ended} == {TaskStatus.COMPLETED, TaskStatus.FAILED}
