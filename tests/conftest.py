"""Every async test runs on virtual time, over real sockets, and leaves nothing open."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import random
import signal
import time
import types
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp.connector
import anyio.to_thread
import pytest
from aiohttp import ClientResponse
from virtual_time import ThreadWork, VirtualTimeLoop

from finevoice_async import FineVoiceSession, wiring
from finevoice_async.adapters import fresh_connector
from finevoice_async.emulator import Emulator


@pytest.hookimpl
def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run async tests on virtual time, and those marked `real_time` on the ordinary loop."""
    if item.get_closest_marker("real_time"):
        return {"real": asyncio.SelectorEventLoop}
    if item.get_closest_marker("uvloop"):
        uvloop = pytest.importorskip("uvloop")
        return {"uvloop": uvloop.new_event_loop}
    return {"virtual": VirtualTimeLoop}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let reports travel between processes: what is logged of half a character cannot be encoded."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


def pytest_collection_finish() -> None:
    """Leave what was imported and collected to no collector: hundreds of tests collect, each all that there is."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _frozen() -> Iterator[None]:
    """Nor what a module's tests have left in caches, once what is garbage of it is gone."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _thread_work_takes_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let virtual time stand still while anyio works in a thread."""
    real = anyio.to_thread.run_sync

    async def run_sync(func: Any, *args: Any, **options: Any) -> Any:
        loop = asyncio.get_running_loop()
        if not isinstance(loop, VirtualTimeLoop):
            return await real(func, *args, **options)
        work = ThreadWork(loop, func)
        try:
            return await real(work, *args, **options)
        finally:
            work.reported()

    monkeypatch.setattr(anyio.to_thread, "run_sync", run_sync)


@pytest.fixture(scope="session", autouse=True)
def _signals_are_heard() -> None:
    """Hear Ctrl-C and SIGTERM, as do the programs that tests start, though whoever runs the tests ignores them.

    A shell ignores Ctrl-C for what it runs in the background, and what is ignored is not heard, on purpose.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_IGN:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the machine's own key and address out of the tests, and how they run out of programs that they start."""
    monkeypatch.delenv("COVERAGE_PROCESS_START", raising=False)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.delenv("FINEVOICE_API_KEY", raising=False)
    monkeypatch.delenv("FINEVOICE_BASE_URL", raising=False)


@pytest.fixture(autouse=True)
def _sessions_draw_the_same_luck(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let jitter be what it was the last time: a test that fails once in twenty runs tells nothing.

    Other luck for all of them: set `FINEVOICE_LUCK` to any text.
    """
    seed, sessions = f"{os.environ.get('FINEVOICE_LUCK', '')} {request.node.name}", itertools.count()

    def draw() -> random.Random:
        return random.Random(f"{seed} {next(sessions)}")

    monkeypatch.setattr(wiring, "random", types.SimpleNamespace(Random=draw))


@pytest.fixture(autouse=True)
def _connections_age_in_virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let aiohttp's connections, whose age it takes from the machine's clock, grow old as the loop's time goes on."""

    def now() -> float:
        try:
            return asyncio.get_running_loop().time()
        except RuntimeError:
            return time.monotonic()

    for module in (aiohttp.connector, fresh_connector):
        monkeypatch.setattr(module, "monotonic", now)


def open_sockets() -> int:
    """Count this process's open sockets and files below the temporary folders."""
    count = 0
    for handle in Path("/proc/self/fd").iterdir():
        try:
            target = str(handle.readlink())
        except OSError:
            continue
        count += target.startswith("socket:") or ".part" in target or target.endswith((".db", ".db-wal"))
    return count


@pytest.fixture
async def no_leaks() -> AsyncIterator[list[dict[str, Any]]]:
    """Fail the test that leaves a task, a socket, a file or an unseen error behind."""
    loop = asyncio.get_running_loop()
    complaints: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    before = open_sockets()
    tasks_before = asyncio.all_tasks()
    yield complaints
    for _ in range(10):
        await asyncio.sleep(0)
    gc.collect()
    await asyncio.sleep(0.01)
    for _ in range(100):
        if open_sockets() <= before:
            break
        await asyncio.sleep(0.01)  # the other end may be closed by a service's thread, which has its turn later
    left = {task for task in asyncio.all_tasks() - tasks_before if not task.done()} - {asyncio.current_task()}
    assert not left, f"tasks left: {left}"
    assert open_sockets() <= before, "sockets or files left"
    assert not complaints, complaints


SessionMaker = Callable[..., FineVoiceSession]


@pytest.fixture
async def emulator(no_leaks: object) -> AsyncIterator[Emulator]:
    """A service on loopback, whose effects take 4 s in the middle."""
    async with Emulator(seed=1) as emulator:
        yield emulator


@pytest.fixture
async def session(emulator: Emulator) -> AsyncIterator[FineVoiceSession]:
    """A session with the emulator."""
    async with FineVoiceSession(emulator.api_key, base_url=emulator.url) as session:
        yield session


@pytest.fixture
def connect(emulator: Emulator) -> SessionMaker:
    """Make sessions with the emulator, options given."""

    def make(**options: Any) -> FineVoiceSession:
        return FineVoiceSession(emulator.api_key, base_url=emulator.url, **options)

    return make


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a journal is."""
    return tmp_path / "effects.db"


@pytest.fixture(params=["with a journal", "without"])
def kept_in(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """Options of a session with a journal, and of one without."""
    return {"journal": tmp_path / "effects.db"} if request.param == "with a journal" else {}


@pytest.fixture
def aioresponses_of_today(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adapt aioresponses 0.7.9 to aiohttp 3.14, whose ClientResponse wants a `stream_writer`."""
    real = ClientResponse.__init__

    def init(self: ClientResponse, *args: Any, **options: Any) -> None:
        options.setdefault("stream_writer", _NoWriter())
        real(self, *args, **options)

    monkeypatch.setattr(ClientResponse, "__init__", init)


class _NoWriter:
    output_size = 0
