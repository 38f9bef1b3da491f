"""What stands on the screen while the database is away: a line when it goes and one when it is back."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest
from commands import PATIENCE, Terminal, end, served, start
from databases import Databases, Server
from fleets import sql

import finevoice_async
from finevoice_async.adapters import job_queue
from finevoice_async.adapters.postgres import schema
from finevoice_async.cli import exits

pytestmark = pytest.mark.real_time


@pytest.fixture
def url(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database on a server of its own, which programs of this very package look at."""
    monkeypatch.setenv("FINEVOICE_API_KEY", "k")
    monkeypatch.setenv("PYTHONPATH", str(Path(finevoice_async.__file__).parents[1]))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    url = Databases(server.url).make()
    asyncio.run(schema.init(url))
    asyncio.run(job_queue.init(url))
    return url


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A service that programs find by the environment."""
    with served(quick_sounds=True) as service:
        monkeypatch.setenv("FINEVOICE_BASE_URL", service.emulator.url)
        yield


def lines_until(stream: IO[str] | None, wanted: Callable[[str], bool]) -> list[str]:
    """Read lines until one is as wanted, and return all."""
    assert stream is not None
    lines: list[str] = []
    for line in stream:
        lines.append(line.rstrip("\n"))
        if wanted(lines[-1]):
            return lines
    raise AssertionError(lines)


@pytest.mark.parametrize("options", [(), ("-q",)])
def test_a_worker(url: str, service: None, server: Server, options: tuple[str, ...]) -> None:
    """Its screen shows two lines for all of an outage, also when it is quiet; nothing of its pool's."""
    process = working(url, *options)
    try:
        server.crash()
        with socket.create_server(("127.0.0.1", server.port)) as refusing:
            refusing.settimeout(PATIENCE)
            for _ in range(6):  # the pool tries again and again
                refusing.accept()[0].close()
        server.start()
        said = lines_until(process.stderr, "It is back.".__eq__)
        said += end(process, signal.SIGTERM)[1].splitlines()
    finally:
        process.kill()
    shown = [line for line in said if "jobs" not in line and "taken" not in line]
    assert shown == ["The database is away; nothing is sent until it is back.", "It is back."]


def test_a_worker_for_a_program(url: str, service: None, server: Server) -> None:
    """With --json the two are objects."""
    process = working(url, "--json")
    try:
        server.crash()
        server.start()
        told = lines_until(process.stdout, lambda line: json.loads(line)["event"] == "database_back")
        assert [json.loads(line)["event"] for line in told] == ["database_away", "database_back"]
        assert end(process, signal.SIGTERM)[1] == ""
    finally:
        process.kill()


def working(url: str, *options: str) -> subprocess.Popen[str]:
    """Start a worker, and wait until it takes jobs."""
    process = start("worker", url, *options)
    deadline = time.monotonic() + PATIENCE
    while sql(url, "SELECT count(*) FROM procrastinate_workers") != [(1,)]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def test_watching_on(url: str, server: Server) -> None:
    """Whoever watches sees a line at a look that fails, and the fleet again once the database is back."""
    screen = Terminal("fleet", url, "--watch")
    screen.read_until("No session has joined yet.")
    server.crash()
    screen.read_until("It is looked at again.")
    server.start()
    before = screen.text.count("Queue:")
    while screen.text.count("Queue:") <= before:
        assert screen._read(), screen.text
    screen.press_ctrl_c()
    code, text = screen.end()
    assert code == exits.INTERRUPTED
    assert "cannot be read" in text


def test_watching_on_for_a_program(url: str, server: Server) -> None:
    """With --json a look that fails is an object; so is one right at the start. Without --watch it is the end."""
    server.crash()
    process = start("fleet", url, "--watch", "--json")
    try:
        (line,) = lines_until(process.stdout, bool)
        assert json.loads(line)["error"] == "JournalError"
        once = start("fleet", url)
        end(once)
        assert once.returncode == exits.JOURNAL
        server.start()
        assert json.loads(lines_until(process.stdout, lambda line: "queue" in json.loads(line))[-1])["queue"]
        assert end(process, signal.SIGINT)[1] == ""
        assert process.returncode == exits.INTERRUPTED
    finally:
        process.kill()
