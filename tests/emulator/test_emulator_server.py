"""The emulator as a whole: dialects, opening and closing."""

from __future__ import annotations

import asyncio
import gc
import json
from typing import TYPE_CHECKING

import aiohttp
import pytest

from finevoice_async.core.requests import SfxRequest
from finevoice_async.core.tasks import TaskStatus
from finevoice_async.emulator import Dialect, Emulator

if TYPE_CHECKING:
    from emulator.conftest import Caller


@pytest.mark.parametrize("dialect", ["reference", "quickstart", "mixed"])
async def test_dialects(caller: Caller, dialect: Dialect) -> None:
    """Whatever the dialect, the library reads the id, the state, the link and the failure."""
    async with Emulator(dialect=dialect, service_time=10) as emulator:
        speaker = type(caller)(emulator, caller.http)
        for _ in range(60):
            answered = (await speaker.submit()).update
            assert (answered.status.ended, answered.urls) == (False, ())
            assert answered.task_id in emulator.ledger.accepted
        emulator.inject("task.fail", value="no")
        failing = await speaker.submit_id()
        polled = [(await speaker.poll(task_id)).update for task_id in emulator.ledger.accepted]
        assert not any(update.status.ended or update.urls for update in polled)
        await asyncio.sleep(10)
        for task_id in emulator.ledger.accepted:
            update = (await speaker.poll(task_id)).update
            assert update.task_id == task_id
            if task_id == failing:
                assert (update.status, update.reason) == (TaskStatus.FAILED, "no")
            else:
                assert update.status is TaskStatus.COMPLETED
                assert update.urls == (f"{emulator.url}/files/{task_id}.0.wav",)


async def test_pure_dialects_look_like_the_vendors_pages(caller: Caller) -> None:
    """The reference answers with the whole object, the quickstart with the id alone."""
    async with Emulator(dialect="reference") as emulator:
        body = json.loads((await type(caller)(emulator, caller.http).submit()).body)
        assert set(body) == {"status", "url", "taskId", "error", "urls", "service", "port", "timestamp"}
        assert body["status"] == 202
    async with Emulator(dialect="quickstart") as emulator:
        speaker = type(caller)(emulator, caller.http)
        body = json.loads((await speaker.submit()).body)
        assert list(body) == ["task_id"]
        assert body["task_id"].startswith("p1-")
        assert (await speaker.poll(body["task_id"])).update.status is TaskStatus.PENDING


async def test_done_at_once(caller: Caller) -> None:
    """A task that takes no time has its link in the answer to its submission, and occupies no slot."""
    for dialect in ("reference", "quickstart", "mixed"):
        async with Emulator(service_time=0, dialect=dialect, plan_limit=1) as emulator:
            update = (await type(caller)(emulator, caller.http).submit()).update
            assert (update.status, len(update.urls)) == (TaskStatus.COMPLETED, 1)
            assert emulator.ledger.most_running == 0


@pytest.mark.parametrize(
    "options",
    [
        {"dialect": "klingon"},
        {"speed": 0},
        {"speed": float("nan")},
        {"service_time": -1},
        {"service_time": float("nan")},
        {"credits": -1},
        {"plan_limit": 1.5},
        {"api_key": ""},
        {"api_key": "two words"},
        {"api_key": "schl\u00fcssel"},
    ],
)
def test_options_that_make_no_sense(options: dict[str, object]) -> None:
    """They are refused before anything is started, by their name; a key is not shown."""
    (name,) = options
    with pytest.raises(ValueError, match=name.replace("api_key", "the API key must be")) as caught:
        Emulator(**options)  # type: ignore[arg-type]  # on purpose
    assert "two words" not in str(caught.value)


async def test_opening_and_closing_again(caller: Caller, emulator: Emulator) -> None:
    """Both are idempotent; a service that was away comes back at the same address with the same tasks."""
    task_id = await caller.submit_id()
    await emulator.start()
    url = emulator.url
    await emulator.aclose()
    await emulator.aclose()
    with pytest.raises(aiohttp.ClientConnectorError):
        await caller.poll(task_id)
    await emulator.start()
    assert emulator.url == url
    assert (await caller.poll(task_id)).status == 200


async def test_an_address_in_use(emulator: Emulator) -> None:
    """A port that is taken is an OSError, after which nothing is left open."""
    port = int(emulator.url.rpartition(":")[2])
    second = Emulator(port=port)
    for _ in range(2):
        with pytest.raises(OSError, match="address already in use"):
            await second.start()


@pytest.mark.real_time
async def test_closing_is_prompt(caller: Caller, emulator: Emulator) -> None:
    """Idle kept connections, held answers and hanging ones end within a second."""
    emulator.service_time = 1000
    link_calls = [asyncio.ensure_future(caller.submit(useAsync=False)) for _ in range(3)]
    task_id = await caller.submit_id()
    emulator.inject("poll.hang")
    link_calls.append(asyncio.ensure_future(caller.poll(task_id)))
    await asyncio.sleep(0.05)
    began = asyncio.get_running_loop().time()
    await emulator.aclose()
    assert asyncio.get_running_loop().time() - began < 1
    for result in await asyncio.gather(*link_calls, return_exceptions=True):
        assert isinstance(result, aiohttp.ClientError | ConnectionError)


async def test_dropped_open(no_leaks: object) -> None:
    """An emulator that is forgotten open says so."""
    emulator = Emulator()
    await emulator.start()
    runner = emulator._runner
    with pytest.warns(ResourceWarning, match="unclosed <Emulator on port"):
        emulator.__del__()
    await emulator.aclose()
    assert runner is not None
    del emulator
    gc.collect()


async def test_the_key_is_nowhere(caller: Caller, emulator: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    """Neither repr nor log shows the key."""
    await caller.submit()
    assert emulator.api_key not in repr(emulator) + repr(emulator.ledger) + caplog.text
    assert Emulator(api_key="mine").api_key == "mine"


def test_addresses() -> None:
    """The URL of an IPv6 address has its brackets."""
    assert Emulator(host="::1", port=5).url == "http://[::1]:5"


async def test_many_tasks(caller: Caller, emulator: Emulator) -> None:
    """Thousands of tasks run at once without a task of the event loop for any of them."""
    emulator.service_time = 60
    service, faults = emulator._service, emulator._faults
    before = len(asyncio.all_tasks())
    now = asyncio.get_running_loop().time()
    for number in range(10_000):
        service.accept(SfxRequest(f"rain {number}"), now, faults)
    assert (emulator.running, len(asyncio.all_tasks())) == (10_000, before)
    await asyncio.sleep(60)
    assert emulator.running == 0
