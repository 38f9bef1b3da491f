"""Both dialects and their mixtures, by sample files and both ways."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import cattrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finevoice_async.core.dialects import Answer, make_quickstart_converter, make_reference_converter, read_error
from finevoice_async.core.requests import SfxRequest
from finevoice_async.core.tasks import TaskStatus, TaskUpdate
from finevoice_async.core.wire import UnreadableReplyError, decode_update

SAMPLES = Path(__file__).parent.parent / "samples"
REFERENCE_ID = "a1b2c3d4-e5f6-7890-abcd-ef1234567890"
QUICKSTART_ID = "p1-c3d4e5f6-a7b8-9012-cdef-123456789012"
FIRST = "https://cdn.finevoice.ai/r/1.mp3"
SECOND = "https://cdn.finevoice.ai/r/2.mp3"

READ: dict[str, TaskUpdate] = {
    "reference_submitted": TaskUpdate(status=TaskStatus.PROCESSING, task_id=REFERENCE_ID),
    "reference_submitted_with_result": TaskUpdate(status=TaskStatus.COMPLETED, task_id=REFERENCE_ID, urls=(FIRST,)),
    "reference_processing": TaskUpdate(status=TaskStatus.PROCESSING, task_id=REFERENCE_ID),
    "reference_done": TaskUpdate(status=TaskStatus.COMPLETED, task_id=REFERENCE_ID, urls=(FIRST, SECOND)),
    "reference_failed": TaskUpdate(
        status=TaskStatus.FAILED, task_id=REFERENCE_ID, code="GENERATION_FAILED", reason="no sound"
    ),
    "reference_numbers_as_text": TaskUpdate(status=TaskStatus.COMPLETED, task_id="4711", urls=(FIRST,)),
    "reference_only_urls": TaskUpdate(status=TaskStatus.COMPLETED, task_id="t", urls=(FIRST,)),
    "quickstart_submitted": TaskUpdate(status=TaskStatus.UNKNOWN, task_id=QUICKSTART_ID),
    "quickstart_pending": TaskUpdate(status=TaskStatus.PENDING, task_id=QUICKSTART_ID),
    "quickstart_processing": TaskUpdate(status=TaskStatus.PROCESSING, task_id=QUICKSTART_ID),
    "quickstart_done": TaskUpdate(
        status=TaskStatus.COMPLETED, task_id=QUICKSTART_ID, urls=("https://dlfile.fineshare.net/x.mp3",)
    ),
    "quickstart_failed": TaskUpdate(status=TaskStatus.FAILED, task_id=QUICKSTART_ID, reason="the reason"),
    "mixed_success_below_result": TaskUpdate(status=TaskStatus.COMPLETED, task_id="t", urls=(FIRST,)),
    "mixed_processing_below_data": TaskUpdate(status=TaskStatus.PROCESSING, task_id="t"),
    "mixed_link_without_status": TaskUpdate(status=TaskStatus.COMPLETED, task_id="t", urls=(FIRST,)),
    "mixed_link_beside_processing": TaskUpdate(status=TaskStatus.PROCESSING, task_id="t"),
    "mixed_unknown_status": TaskUpdate(status=TaskStatus.UNKNOWN, task_id="t"),
    "mixed_failing_body": TaskUpdate(status=TaskStatus.FAILED, task_id="t", code="E7", reason="content policy"),
    "mixed_error_without_status": TaskUpdate(status=TaskStatus.FAILED, task_id="t", reason="out of memory"),
    "mixed_done_without_link": TaskUpdate(status=TaskStatus.COMPLETED, task_id="t"),
}


@pytest.mark.parametrize("name", READ)
def test_sample_is_read(name: str) -> None:
    """Each sample file is read as the table says."""
    assert decode_update((SAMPLES / f"{name}.json").read_bytes()) == READ[name]


def test_every_sample_is_in_the_table() -> None:
    """No sample file is left out."""
    assert {path.stem for path in SAMPLES.glob("*.json")} == set(READ)


ANSWERS = [
    Answer(task_id="t", status=TaskStatus.PENDING),
    Answer(task_id="t", status=TaskStatus.PROCESSING),
    Answer(task_id="t", status=TaskStatus.COMPLETED, urls=(FIRST,)),
    Answer(task_id="t", status=TaskStatus.FAILED, code="E", reason="no"),
]


@pytest.mark.parametrize("make", [make_reference_converter, make_quickstart_converter])
@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.status.value)
def test_written_answers_are_read_back(make: Any, answer: Answer) -> None:
    """What either dialect writes, the lenient reader understands."""
    converter: cattrs.Converter = make()
    update = decode_update(json.dumps(converter.unstructure(answer)).encode())
    told_as = TaskStatus.PROCESSING if make is make_reference_converter else TaskStatus.PENDING
    assert update.status is (told_as if answer.status is TaskStatus.PENDING else answer.status)
    assert (update.task_id, update.urls, update.reason) == (answer.task_id, answer.urls, answer.reason)


@pytest.mark.parametrize("word", ["completed", "SUCCESS", " succeeded ", "Done", "finished", "200", 200, 200.0])
def test_words_for_done(word: object) -> None:
    """Every documented or seen word for done is one, in any case."""
    assert decode_update(json.dumps({"status": word, "url": FIRST}).encode()).urls == (FIRST,)


@pytest.mark.parametrize("word", ["pending", "QUEUED", "processing", "running", "In_Progress", "202", 202])
def test_words_for_running(word: object) -> None:
    """Every documented or seen word for in progress is one, and beats a link."""
    assert not decode_update(json.dumps({"status": word, "url": FIRST}).encode()).status.ended


@pytest.mark.parametrize(
    "status", [True, None, [], {}, "", "paused", 299, float("nan"), float("inf"), 1e300, "9" * 5000]
)
def test_unknown_status_goes_on(status: object) -> None:
    """A status that nobody documented means still in progress."""
    assert decode_update(json.dumps({"taskId": "t", "status": status}).encode()).status is TaskStatus.UNKNOWN


ERRORS: list[tuple[dict[str, Any], tuple[str | None, str | None]]] = [
    ({"message": "m"}, (None, "m")),
    ({"error": {"message": "m", "code": 7}}, ("7", "m")),
    ({"error": {"code": None, "message": ""}}, (None, None)),
    ({"error": "text"}, (None, "text")),
    ({"error": "text", "details": "more"}, (None, "text (more)")),
    ({"detail": "d"}, (None, "d")),
    ({"detail": [{"loc": ["body", "duration"], "msg": "too long"}]}, (None, "body.duration: too long")),
    ({"detail": [{"msg": "bare"}, 5, {}]}, (None, "bare")),
    ({"detail": [{"loc": ["body", 0, None, ["x"]], "msg": "m"}]}, (None, "body.0: m")),
    ({"error": True}, (None, None)),
    ({"error": {"message": "\ud800"}}, (None, "?")),
    ({}, (None, None)),
]


@pytest.mark.parametrize(("body", "expected"), ERRORS)
def test_error_bodies(body: dict[str, Any], expected: tuple[str | None, str | None]) -> None:
    """The forms of error bodies that gateways use are read."""
    assert read_error(body) == expected


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "taskId",
                    "task_id",
                    "status",
                    "url",
                    "urls",
                    "error",
                    "result",
                    "data",
                    "code",
                    "message",
                    "audio_url",
                ]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)


@given(json_values)
def test_any_json_is_an_update_or_unreadable(value: object) -> None:
    """Arbitrary JSON gives an update, or the one error for what is no object; never anything else."""
    update: TaskUpdate | None
    try:
        update = decode_update(json.dumps(value).encode())
    except UnreadableReplyError:
        update = None
    assert (update is None) is not isinstance(value, dict)
    if update is None:
        return
    assert isinstance(update.status, TaskStatus)
    assert update.task_id is None or isinstance(update.task_id, str)
    assert all(type(url) is str and url for url in update.urls)
    assert not update.urls or update.status is TaskStatus.COMPLETED


@given(st.binary(max_size=200))
def test_any_bytes_are_an_update_or_unreadable(body: bytes) -> None:
    """Arbitrary bytes never raise anything else either."""
    try:
        decode_update(body)
    except UnreadableReplyError:
        return


def test_requests_are_spelled_as_the_endpoint_does() -> None:
    """Both dialects spell a request the same way."""
    request = SfxRequest("p", negative_prompt="n", source_url="https://x/y", source_type="image", duration=2.5)
    spelled = {
        "prompt": "p",
        "negative_prompt": "n",
        "sourceUrl": "https://x/y",
        "sourceType": "image",
        "duration": 2.5,
        "useAsync": True,
    }
    for converter in (make_reference_converter(), make_quickstart_converter()):
        assert converter.unstructure(request) == spelled
        assert converter.unstructure(SfxRequest("p")) == {"prompt": "p", "useAsync": True}


@pytest.mark.parametrize(
    ("fields", "code", "reason"),
    [
        ({"error": None, "message": "why"}, None, "why"),
        ({"error": None, "detail": "why"}, None, "why"),
        ({"error": None, "reason": "why"}, None, "why"),
        ({"error": None, "error_message": "why"}, None, "why"),
        ({"error": "", "msg": "why"}, None, "why"),
        ({"error": {}, "message": "why"}, None, "why"),
        ({"error": {"code": "0007", "message": None}, "message": "why"}, "0007", "why"),
        ({"error": {"code": "0007", "message": ""}, "details": ["why", "and how"]}, "0007", "why; and how"),
        ({"error": {"reason": "why"}}, None, "why"),
        ({"error": ["why"]}, None, "why"),
        ({"error": None, "code": "E1", "message": "why"}, "E1", "why"),
        ({"error": "why", "message": "Task query succeeded"}, None, "why"),
        ({"data": {"error": None, "message": "why"}, "message": "success", "code": 0}, None, "why"),
        ({"data": {"error": None}, "message": "success", "code": 0}, None, None),
        ({"data": {"error": None}, "message": "why", "code": "E1"}, "E1", "why"),
        ({"error": None}, None, None),
    ],
)
@pytest.mark.parametrize("status", ["failed", 500])
def test_why_a_task_failed(status: object, fields: dict[str, Any], code: str | None, reason: str | None) -> None:
    """The reason is found wherever the service puts it, and what an envelope says of the call is none."""
    answer = copy.deepcopy(fields)
    answer.get("data", answer)["status"] = status
    update = decode_update(json.dumps(answer).encode())
    assert (update.status, update.code, update.reason) == (TaskStatus.FAILED, code, reason)


@pytest.mark.parametrize("status", ["processing", 202, None])
def test_a_message_beside_no_error_is_no_failure(status: object) -> None:
    """Words in an answer that does not say that the task failed are no reason to think so."""
    update = decode_update(json.dumps({"status": status, "error": None, "message": "all is well"}).encode())
    assert not update.status.ended


def test_reasons_are_one_line() -> None:
    """What goes into a message, the log and the journal commands no terminal, and looks like no second line."""
    said = {"status": "failed", "error": {"code": "a\nb", "message": "c\r\n\x1b[2J\u202ed\x00 \ud800"}}
    update = decode_update(json.dumps(said).encode())
    assert (update.code, update.reason) == ("a b", "c [2J d ?")


def test_half_characters_in_links() -> None:
    """A link that no text can hold is kept as far as it goes: it must not stop what stores it."""
    update = decode_update(rb'{"status": "done", "url": "https://x.test/\ud800\u00e4"}')
    assert update.urls[0].startswith("https://x.test/?")
    update.urls[0].encode()
