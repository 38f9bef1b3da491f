"""The fixtures in projects of others: any event loop, any plugin, or none. Warnings are errors there, too."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
from environments import make_environment, needed, run

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
        installed: What it has installed, beside this package and pytest.
        settings: What stands in its pytest.ini.
        ignored: Warnings that are not this library's.
    """

    tests: tuple[str, ...]
    installed: tuple[str, ...] = ()
    settings: str = ""
    ignored: tuple[str, ...] = ()


FUNCTION = "asyncio_default_fixture_loop_scope = function"
PROJECTS = {
    "asyncio, strict": Project(
        tests=("strict", "module"), installed=("pytest-asyncio",), settings=f"asyncio_mode = strict\n{FUNCTION}"
    ),
    "asyncio, auto": Project(
        tests=("auto", "module", "forgetful"),
        installed=("pytest-asyncio",),
        settings=f"asyncio_mode = auto\n{FUNCTION}",
    ),
    "anyio": Project(tests=("anyio",)),
    "no plugin": Project(tests=("sync",)),
    "FastAPI": Project(
        tests=("fastapi",),
        installed=("fastapi", "httpx"),
        ignored=("ignore:Using `httpx` with `starlette.testclient` is deprecated",),  # starlette prefers its successor
    ),
}


@pytest.mark.parametrize("project", PROJECTS.values(), ids=PROJECTS)
def test_a_fresh_project(tmp_path: Path, project: Project) -> None:
    """A small project's tests pass, and leave no thread, no socket and no session open, also what they forget."""
    python = make_environment(tmp_path / "venv", "pytest", *project.installed)
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "pytest.ini").write_text(f"[pytest]\n{project.settings}\n")
    for name in project.tests:
        (folder / f"test_{name}.py").write_text(TESTS[name])
    ignored = [argument for warning in project.ignored for argument in ("-W", warning)]
    tested = run(python, "-m", "pytest", "-q", "-W", "error", *ignored, folder=folder)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert " passed" in tested.stdout


def test_the_package_alone(tmp_path: Path) -> None:
    """Without extras it works, and brings no more than it uses; the command says what to install for it."""
    assert {"typer", "rich", "jinja2", "numpy", "pytest"}.isdisjoint(needed("finevoice-async"))
    python = make_environment(tmp_path / "venv")
    assert run(python, "-c", "import finevoice_async, finevoice_async.batch", folder=tmp_path).returncode == 0
    told = run(python, "-c", "from finevoice_async.cli import main; main()", folder=tmp_path)
    assert told.returncode != 0
    assert "pip install 'finevoice-async[cli]'" in told.stderr
    assert "Traceback" not in told.stderr
