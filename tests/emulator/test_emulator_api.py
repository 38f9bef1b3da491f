"""The two endpoints: what is accepted, what is refused, and how."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from finevoice_async.core.requests import SUBMIT_PATH
from finevoice_async.core.tasks import TaskStatus
from finevoice_async.emulator import Constant, Emulator

if TYPE_CHECKING:
    from emulator.conftest import Caller


async def test_a_task_runs_its_time(caller: Caller, emulator: Emulator) -> None:
    """A submission gives an id at once, runs until its drawn time is over, and then has a link that works."""
    emulator.service_time = 10
    task_id = await caller.submit_id(duration=2)
    assert not (await caller.poll(task_id)).update.status.ended
    await asyncio.sleep(5)
    assert (await caller.poll(task_id)).update.status is TaskStatus.PROCESSING
    await asyncio.sleep(5)
    update = (await caller.poll(task_id)).update
    assert update.status is TaskStatus.COMPLETED
    assert update.task_id == task_id
    assert (await caller.ask("GET", update.urls[0])).status == 200


async def test_the_result_itself(caller: Caller, emulator: Emulator) -> None:
    """Without `useAsync: true` the answer is held until the end and is the result."""
    emulator.service_time = Constant(7)
    for body in ({"prompt": "rain"}, {"prompt": "rain", "useAsync": False}):
        began = asyncio.get_running_loop().time()
        answered = await caller.ask("POST", SUBMIT_PATH, key=emulator.api_key, json=body)
        assert answered.update.status is TaskStatus.COMPLETED
        assert asyncio.get_running_loop().time() - began == pytest.approx(7, abs=0.1)
    assert emulator.ledger.polls == 0


async def test_a_held_answer_tells_a_failure(caller: Caller, emulator: Emulator) -> None:
    """A failure of a task that is waited for comes in the answer, with its id."""
    emulator.inject("task.fail", value="too loud")
    update = (await caller.submit(useAsync=False)).update
    assert (update.status, update.reason) == (TaskStatus.FAILED, "too loud")
    assert update.task_id in emulator.ledger.accepted


@pytest.mark.parametrize("key", [None, "", "wrong", "emulator-", "\u00e9"])
async def test_wrong_keys(caller: Caller, emulator: Emulator, key: str | None) -> None:
    """Without the right key there is neither a task nor an answer about one."""
    task_id = await caller.submit_id()
    posted = await caller.ask("POST", SUBMIT_PATH, key=key, json={"prompt": "rain"})
    polled = await caller.ask("GET", f"/v1/task/{task_id}", key=key)
    assert (posted.status, polled.status) == (401, 401)
    ledger = emulator.ledger
    assert (len(ledger.accepted), ledger.posts, ledger.polls, ledger.wrong_keys) == (1, 2, 1, 2)
    assert ledger.accepted[task_id].polls == 0


async def test_unknown_task(caller: Caller, emulator: Emulator) -> None:
    """A task that was never accepted is not found, whatever its id looks like."""
    for task_id in ("nobody", "..%2F..%2Fetc", "a%20b", "%E2%82%AC", "x" * 2000):
        assert (await caller.poll(task_id)).status == 404
    assert emulator.ledger.refused == {404: 5}


async def test_strays(caller: Caller, emulator: Emulator) -> None:
    """Any other address is not found, and noted."""
    for method, path in (("GET", "/v1/tasks/1"), ("POST", SUBMIT_PATH + "/elsewhere"), ("GET", SUBMIT_PATH)):
        assert (await caller.ask(method, path)).status == 404
    assert emulator.ledger.strays == 3
    assert emulator.ledger.stray_paths[0] == "GET /v1/tasks/1"
    assert emulator.ledger.posts == 0


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({}, "prompt"),
        ({"prompt": "  "}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": "x", "duration": 31}, "duration"),
        ({"prompt": "x", "duration": 0}, "duration"),
        ({"prompt": "x", "duration": "5"}, "duration"),
        ({"prompt": "x", "duration": float("nan")}, "duration"),
        ({"prompt": "x", "duration": None}, "duration"),
        ({"prompt": "x", "duration": 10**400}, "duration"),
        ({"prompt": "\ud800"}, "prompt"),
        ({"prompt": "x", "useAsync": "true"}, "useAsync"),
        ({"sourceUrl": "http://a.b/c.mp4"}, "sourceType"),
        ({"sourceType": "video"}, "sourceUrl"),
        ({"sourceUrl": "file:///etc/passwd", "sourceType": "video"}, "sourceUrl"),
        ({"source_url": "http://a.b/c.mp4", "source_type": "video"}, "prompt"),  # not the endpoint's spelling
        ({"prompt": "x", "negative_prompt": ["y"]}, "negative_prompt"),
    ],
)
async def test_invalid_requests(caller: Caller, emulator: Emulator, body: dict[str, Any], where: str) -> None:
    """A broken rule is told as the service's framework tells it, with the field's name on the wire."""
    answered = await caller.ask("POST", SUBMIT_PATH, key=emulator.api_key, json=body)
    assert answered.status == 422
    [detail] = json.loads(answered.body)["detail"]
    assert detail["loc"] == ["body", where]
    assert detail["msg"]
    assert detail["type"] == "value_error"
    assert not emulator.ledger.accepted


@pytest.mark.parametrize("body", [b"", b"not JSON", b"[]", b"5", b"\xff\xfe", b"[" * 20_000])
async def test_bodies_that_are_no_object(caller: Caller, emulator: Emulator, body: bytes) -> None:
    """Whatever is no JSON object is refused, not a crash."""
    assert (await caller.ask("POST", SUBMIT_PATH, key=emulator.api_key, data=body)).status == 422


async def test_unknown_fields_are_ignored(caller: Caller) -> None:
    """Such frameworks ignore fields that they do not know."""
    assert (await caller.submit(colour="red")).status == 200


async def test_over_large_body(caller: Caller, emulator: Emulator) -> None:
    """A prompt of 1 MB is answered 413 and accepted nowhere."""
    assert (await caller.submit(prompt="x" * 1_000_000)).status == 413
    assert (emulator.ledger.posts, len(emulator.ledger.accepted)) == (1, 0)


async def test_plan_limit(caller: Caller, emulator: Emulator) -> None:
    """One task more than the plan allows is answered 429; a slot is free at the very end of a task."""
    emulator.plan_limit, emulator.service_time = 2, Constant(10)
    for _ in range(2):
        await caller.submit()
    refused = await caller.submit()
    assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
    await asyncio.sleep(10)
    assert (await caller.submit()).status == 200
    assert (emulator.ledger.most_running, emulator.ledger.rate_limited) == (2, 1)


async def test_credits(caller: Caller, emulator: Emulator) -> None:
    """When the credits are used up, submissions are answered 402 and polls go on."""
    emulator.credits = 1
    task_id = await caller.submit_id()
    assert (await caller.submit()).status == 402
    assert (await caller.poll(task_id)).status == 200
    assert emulator.credits == 0
