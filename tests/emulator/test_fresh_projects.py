"""The fixtures in projects of others: any event loop, any plugin, or none. Warnings are errors there, too."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import attrs
import pytest

ROOT = Path(__file__).parents[2]
PLUGIN = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]["finevoice_async"]

CONFTEST = """
import threading

def pytest_sessionfinish():
    assert threading.enumerate() == [threading.main_thread()]
"""

TESTS = {
    "strict": """
import pytest

from finevoice_async import FineVoiceSession, SubmitUnknownError

@pytest.mark.asyncio
async def test_session(finevoice_session, finevoice_emulator):
    async with finevoice_session as session:
        effect = await session.generate("bell")
        assert (await effect.read())[:4] == b"RIFF"
    assert finevoice_emulator.ledger.fetched == 1

@pytest.mark.asyncio
async def test_fault(finevoice_emulator):
    finevoice_emulator.inject("submit.lose_reply")
    async with finevoice_emulator.session() as session:
        with pytest.raises(SubmitUnknownError):
            await session.generate("bell")
    assert len(finevoice_emulator.ledger.accepted) == 1
""",
    "auto": """
import pytest

@pytest.fixture
async def session(finevoice_emulator):
    async with finevoice_emulator.session() as session:
        yield session

async def test_own_fixture(session, finevoice_emulator):
    finevoice_emulator.service_time = 0
    async for outcome in session.generate_many(["bell"] * 7):
        assert outcome.effect
    assert len(finevoice_emulator.ledger.accepted) == 7

async def test_session(finevoice_session):
    async with finevoice_session:
        await finevoice_session.generate("bell")
""",
    "module": """
import asyncio

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="module")
loops = set()

@pytest.mark.parametrize("turn", [1, 2])
async def test_one_loop(finevoice_session, finevoice_emulator, turn):
    loops.add(asyncio.get_running_loop())
    async with finevoice_session as session:
        assert await (await session.generate("bell")).read()
    assert len(finevoice_emulator.ledger.accepted) == len(loops) == 1
""",
    "forgetful": """
import asyncio
import pytest

@pytest.fixture
async def opened(finevoice_emulator):
    session = finevoice_emulator.session()
    await session.generate("rain")
    return session

async def test_used_and_not_closed(finevoice_session):
    assert await (await finevoice_session.generate("rain")).read()

async def test_opened_by_a_fixture(opened):
    assert opened.stats.completed == 1

def test_in_a_loop_that_is_gone(finevoice_emulator, finevoice_session, tmp_path):
    kept = finevoice_emulator.session(journal=tmp_path / "effects.db")
    for session in (finevoice_session, kept):
        asyncio.run(session.submit("rain"))

def test_never_used(finevoice_session):
    assert finevoice_session.stats.running == 0

def test_in_a_loop_that_waits(finevoice_session):
    loop = asyncio.new_event_loop()
    loop.run_until_complete(finevoice_session.submit("rain"))
    globals()["waits"] = loop

def test_after_it():
    waits.close()
""",
    "anyio": """
import pytest

@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"

@pytest.fixture
async def session(finevoice_session):
    async with finevoice_session:
        yield finevoice_session

@pytest.mark.anyio
async def test_session(session, finevoice_emulator):
    assert await (await session.generate("bell")).read()
    assert finevoice_emulator.ledger.fetched == 1

@pytest.mark.anyio
async def test_without_fixture(finevoice_emulator):
    async with finevoice_emulator.session() as session:
        await session.generate("bell")
""",
    "sync": """
import asyncio

from finevoice_async import FineVoiceSession

async def bot():
    async with FineVoiceSession() as session:
        task = await session.submit("bell")
        return task.id

async def generate(session):
    async with session:
        return await (await session.generate("bell")).read()

def test_environment(finevoice_emulator):
    ids = [asyncio.run(bot()) for _ in range(2)]
    assert ids == list(finevoice_emulator.ledger.accepted)

def test_session(finevoice_session):
    assert asyncio.run(generate(finevoice_session))

def test_nothing(finevoice_session):
    pass
""",
    "fastapi": """
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.testclient import TestClient

from finevoice_async import FineVoiceSession

def make_app(make_session):
    @asynccontextmanager
    async def lifespan(app):
        async with make_session() as session:
            app.state.session = session
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/effects/{prompt}")
    async def effect(prompt: str, request: Request):
        effect = await request.app.state.session.generate(prompt)
        return Response(await effect.read(), media_type="audio/wav")

    return app

def test_app(finevoice_emulator):
    with TestClient(make_app(finevoice_emulator.session)) as client:
        assert client.get("/effects/bell").content[:4] == b"RIFF"
        assert client.get("/effects/rain").content[:4] == b"RIFF"
    assert finevoice_emulator.ledger.fetched == 2

def test_environment(finevoice_emulator):
    with TestClient(make_app(FineVoiceSession)):
        pass
""",
}


@attrs.frozen(kw_only=True)
class Project:
    """A project of somebody else's.

    Attributes:
        tests: Its files, by their names in `TESTS`.
        plugins: The pytest plugins that it has installed, beside this one.
        settings: What stands in its pytest.ini.
        ignored: Warnings that are not this library's.
    """

    tests: tuple[str, ...]
    plugins: tuple[str, ...] = ()
    settings: str = ""
    ignored: tuple[str, ...] = ()


FUNCTION = "asyncio_default_fixture_loop_scope = function"
PROJECTS = {
    "asyncio, strict": Project(
        tests=("strict", "module"), plugins=("pytest_asyncio.plugin",), settings=f"asyncio_mode = strict\n{FUNCTION}"
    ),
    "asyncio, auto": Project(
        tests=("auto", "module", "forgetful"),
        plugins=("pytest_asyncio.plugin",),
        settings=f"asyncio_mode = auto\n{FUNCTION}",
    ),
    "anyio": Project(tests=("anyio",), plugins=("anyio.pytest_plugin",)),
    "no plugin": Project(
        tests=("sync", "fastapi"),
        ignored=("ignore:Using `httpx` with `starlette.testclient` is deprecated",),  # starlette prefers its successor
    ),
}


def run_pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in a folder, with warnings as errors."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=folder,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )


@pytest.mark.parametrize("project", PROJECTS.values(), ids=PROJECTS)
def test_a_fresh_project(tmp_path: Path, project: Project) -> None:
    """A small project's tests pass, and leave no thread, no socket and no session open, also what they forget."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "pytest.ini").write_text(f"[pytest]\n{project.settings}\n")
    for name in project.tests:
        (tmp_path / f"test_{name}.py").write_text(TESTS[name])
    plugins = [argument for plugin in (*project.plugins, PLUGIN) for argument in ("-p", plugin)]
    ignored = [argument for warning in project.ignored for argument in ("-W", warning)]
    run = run_pytest(tmp_path, *plugins, *ignored)
    assert run.returncode == 0, run.stdout + run.stderr
    assert " passed" in run.stdout
