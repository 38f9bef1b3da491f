"""A program forks: a session that was only made works in each child; one that was opened stays with its process."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, os, sys
from finevoice_async import ConfigurationError, FineVoiceSession, Polling
from finevoice_async.emulator import Constant, Emulator

session = FineVoiceSession("key", base_url="http://127.0.0.1:{port}", polling=Polling.fixed(0.02, min_gap=0.01){more})

async def use():
    async with Emulator(api_key="key", port={port}, service_time=Constant(0.01)):
        async with session:
            print((await session.generate("rain")).task_id is not None, flush=True)

async def refused():
    for call in (lambda: session.generate("rain"), session.aclose):
        try:
            await call()
        except ConfigurationError as error:
            print(error, flush=True)

if {opened}:
    asyncio.run(session._open())
child = os.fork()
if child:
    os.waitpid(child, 0)
else:
    asyncio.run(refused() if {opened} else use())
    os._exit(0)
if not {opened}:
    asyncio.run(use())
"""


def run(unused_port: int, *, opened: bool, more: str = "") -> list[str]:
    """Run the program, and return what it said."""
    program = PROGRAM.format(port=unused_port, opened=opened, more=more)
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in ran.stderr, ran.stderr
    return ran.stdout.splitlines()


@pytest.fixture
def unused_port() -> int:
    """A port that nobody listens at."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_made_at_import_and_used_after_the_fork(unused_port: int) -> None:
    """The child uses it, and so does the parent, each for itself."""
    assert run(unused_port, opened=False) == ["True", "True"]


def test_opened_before_the_fork(unused_port: int) -> None:
    """Its connections are the parent's: the child is refused, and told what to do."""
    told = run(unused_port, opened=True)
    assert "belongs to another process; make one after the fork" in told[0]
    assert "close it there" in told[1]
