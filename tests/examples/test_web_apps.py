"""The web apps: what a browser, a stranger, a client who leaves and a process manager see of them."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from fastapi import Request, Response
from programs import PATIENCE, Program, load, web_app

from finevoice_async.testing import EmulatedService, make_service

APPS = ("aiohttp_app.py", "fastapi_app.py")
WISH = {"prompt": "Rain on a tin roof", "duration": 1}


@pytest.fixture(scope="module", params=APPS)
def app(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, ...]]:
    """An app, the service that it asks, and a client of it."""
    with (
        make_service(service_time=0.1) as service,
        web_app(request.param, tmp_path_factory.mktemp("app"), service) as program,
        httpx.Client(base_url=program.url, timeout=PATIENCE) as client,
    ):
        yield program, service, client
        code, seconds = program.stop()
        assert code in (0, -signal.SIGTERM)
        assert seconds < PATIENCE / 2
        assert "Warning" not in program.said
        if request.param == "aiohttp_app.py":  # with uvicorn only an exception cuts an answer
            assert "Traceback" not in program.said


def events(client: httpx.Client, key: str) -> list[dict[str, Any]]:
    """Return the life of a sound, as a browser hears it."""
    with client.stream("GET", f"/sounds/{key}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        return [json.loads(line.removeprefix("data: ")) for line in answer.iter_lines() if line.startswith("data: ")]


def order(client: httpx.Client) -> str:
    """Order a sound, and return its key."""
    answer = client.post("/sounds", json=WISH)
    assert answer.status_code == 202, answer.text
    key = str(answer.json()["key"])
    assert answer.headers["location"] == f"/sounds/{key}"
    return key


def until(reached: Callable[[], bool], program: Program) -> None:
    """Wait until something is so."""
    last = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < last, program.said
        time.sleep(0.005)


def test_a_sound(app: tuple[Program, EmulatedService, httpx.Client]) -> None:
    """The key comes at once, then its life until its end, then the audio, of the right kind; it is paid for once."""
    _, service, client = app
    before = len(service.ledger.accepted)
    key = order(client)
    life = events(client, key)
    assert {"key", "status", "position", "seconds"} <= life[0].keys()
    assert [event.get("ended", False) for event in life] == [False] * (len(life) - 1) + [True]
    assert life[-1]["status"] == client.get(f"/sounds/{key}").json()["status"] == "completed"
    for _ in range(2):
        audio = client.get(f"/sounds/{key}/audio")
        assert audio.status_code == 200
        assert audio.headers["content-type"] == "audio/wav"
        assert audio.headers["x-content-type-options"] == "nosniff"
        assert "rain-on-a-tin-roof.wav" in audio.headers["content-disposition"]
        assert audio.content[:4] == b"RIFF"
    assert len(service.ledger.accepted) == before + 1


@pytest.mark.parametrize("path", ["zzz", "..%2f..%2fetc", "A" * 32, "0" * 31, "0" * 33, "0" * 32, "%00" * 32])
def test_ids_from_outside(app: tuple[Program, EmulatedService, httpx.Client], path: str) -> None:
    """What is no key gets no further than the address; what is nobody's key is not found."""
    _, _, client = app
    for more in ("", "/events", "/audio"):
        assert client.get(f"/sounds/{path}{more}").status_code in (404, 422)


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        "rain",
        None,
        {"prompt": ""},
        {"prompt": "   "},
        {"prompt": 5},
        {"prompt": ["rain"]},
        {"prompt": "x" * 100_000},
        {"prompt": "rain", "duration": 31},
        {"prompt": "rain", "duration": "long"},
        {"prompt": "\ud800"},
    ],
)
def test_bodies_from_outside(app: tuple[Program, EmulatedService, httpx.Client], body: object) -> None:
    """What cannot be asked for is refused as the client's mistake, and nothing is sent."""
    program, service, client = app
    posts = service.ledger.posts
    answer = client.post("/sounds", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 413, 422), program.said
    assert service.ledger.posts == posts


@pytest.mark.parametrize("more", [{"key": "mine"}, {"owner": "x"}, {"retry_failed": True}, {"source_url": "http://x/"}])
def test_nobody_sets_what_is_the_apps(
    app: tuple[Program, EmulatedService, httpx.Client], more: dict[str, object]
) -> None:
    """A body's fields do not reach the session: they are refused or mean nothing."""
    _, service, client = app
    answer = client.post("/sounds", json=WISH | more)
    if answer.status_code == 202:
        assert events(client, answer.json()["key"])[-1]["status"] == "completed"
        assert answer.json()["key"] != "mine"
    assert all(task.request.source_url is None for task in service.ledger.accepted.values())


def test_a_failed_sound(app: tuple[Program, EmulatedService, httpx.Client]) -> None:
    """Its events end with words for people, and its audio is a 502 with the same."""
    _, service, client = app
    service.inject("task.fail")
    key = order(client)
    last = events(client, key)[-1]
    assert last["status"] == "failed"
    assert last["error"] == "The sound service could not make this sound."
    assert client.get(f"/sounds/{key}").json()["error"] == last["error"]
    audio = client.get(f"/sounds/{key}/audio")
    assert (audio.status_code, audio.json()) == (502, {"error": last["error"]})


def test_a_download_that_fails(app: tuple[Program, EmulatedService, httpx.Client]) -> None:
    """Before the first piece it is a 502; after it the answer is cut, so that nobody takes it for whole."""
    _, service, client = app
    key = order(client)
    events(client, key)
    service.inject("download.error_500", 100)
    try:
        audio = client.get(f"/sounds/{key}/audio")
        assert (audio.status_code, audio.json()["error"][:19]) == (502, "Your sound is ready")
        service.heal()
        service.inject("download.cut", 100)
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            client.get(f"/sounds/{key}/audio")
    finally:
        service.heal()
    assert client.get(f"/sounds/{key}/audio").content[:4] == b"RIFF"


def test_a_client_who_leaves(app: tuple[Program, EmulatedService, httpx.Client]) -> None:
    """Leaving the events, or the audio before it is there, stops that waiting only: the sound is made."""
    program, _, client = app
    key = order(client)
    with client.stream("GET", f"/sounds/{key}/events") as answer:
        next(answer.iter_lines())
    with pytest.raises(httpx.ReadTimeout):
        client.get(f"/sounds/{key}/audio", timeout=0.05)
    until(lambda: client.get(f"/sounds/{key}").json()["status"] == "completed", program)
    assert client.get(f"/sounds/{key}/audio").content[:4] == b"RIFF"


@pytest.mark.parametrize("name", APPS)
def test_a_restart(name: str, tmp_path: Path) -> None:
    """SIGTERM ends open streams at once and the process cleanly; the next one knows the keys, and makes what waited."""
    with make_service(service_time=2.5) as service:
        with (
            web_app(name, tmp_path, service) as program,
            httpx.Client(base_url=program.url, timeout=PATIENCE) as client,
        ):
            keys = [order(client) for _ in range(7)]  # two more than run at once
            with client.stream("GET", f"/sounds/{keys[-1]}/events") as answer:
                lines = answer.iter_lines()
                first = json.loads(next(lines).removeprefix("data: "))
                assert first["status"] == "queued"
                assert first["position"] == 2
                code, seconds = program.stop()
                assert code in (0, -signal.SIGTERM), program.said
                assert seconds < 2.0, program.said
                assert "ended" not in "".join(lines), "a browser asks again"
            assert "Traceback" not in program.said
        service.service_time = 0.1
        with (
            web_app(name, tmp_path, service) as program,
            httpx.Client(base_url=program.url, timeout=PATIENCE) as client,
        ):
            assert all(events(client, key)[-1]["status"] == "completed" for key in keys), program.said
            assert client.get(f"/sounds/{keys[-1]}/audio").content[:4] == b"RIFF"
        assert len(service.ledger.accepted) == len(keys)
        assert service.ledger.most_running <= 5


@pytest.mark.real_time
async def test_a_cancelled_order(finevoice_emulator: EmulatedService, tmp_path: Path) -> None:
    """FastAPI: a middleware that cancels for a client who has left does not cut the wish off half-way."""
    program = load("fastapi_app.py")
    request = Request({"type": "http", "client": ("127.0.0.1", 1)})
    async with finevoice_emulator.session(journal=tmp_path / "sounds.db") as session:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await program.order(program.Wish(prompt="rain"), session, request, Response())
        (row,) = [row async for row in session.rows()]
        assert row.key is not None
        task = await session.find(key=row.key)
        assert task is not None
        assert (await task).key == row.key
    assert len(finevoice_emulator.ledger.accepted) == 1
