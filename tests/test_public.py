"""What users can type: the exported names, the options, the errors."""

from __future__ import annotations

import copy
import enum
import gc
import pickle
import subprocess
import sys
import traceback
from typing import Any, is_typeddict

import pytest

import finevoice_async
from finevoice_async import (
    ConfigurationError,
    FineVoiceError,
    Polling,
    Retry,
    SfxRequest,
    TaskTimeoutError,
    Timeouts,
    errors,
    shared_ports,
)


def test_all_is_sorted_and_complete() -> None:
    """`__all__` is sorted, and names what the module holds."""
    assert list(finevoice_async.__all__) == sorted(finevoice_async.__all__)
    assert all(hasattr(finevoice_async, name) for name in finevoice_async.__all__)


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import finevoice_async", ["anyio", "cattrs", "sqlite3", "numpy", "aiohttp.web"]),
        ("import finevoice_async", ["finevoice_async.engine.part_file", "finevoice_async.adapters.sqlite_journal"]),
        ("import finevoice_async", ["finevoice_async.shared_ports", "finevoice_async.engine.fleet", "psycopg"]),
        (
            "import finevoice_async; finevoice_async.FineVoiceSession('key')",
            ["finevoice_async.shared_ports", "finevoice_async.engine.fleet", "psycopg"],
        ),
        ("sys.argv = ['finevoice', '--help']; from finevoice_async.cli import main; main()", ["numpy", "aiohttp.web"]),
    ],
)
def test_imports_what_it_needs_and_no_more(code: str, unwanted: list[str]) -> None:
    """What costs time to import waits until it is used."""
    report = "import atexit, sys; atexit.register(lambda: print(*sys.modules)); "
    ran = subprocess.run([sys.executable, "-c", report + code], capture_output=True, text=True, check=True)
    assert set(unwanted).isdisjoint(ran.stdout.split())


def test_a_name_that_is_not_there() -> None:
    """It is missed as in any module, though one name waits until somebody asks for it."""
    assert finevoice_async.FleetStats is shared_ports.FleetStats
    with pytest.raises(AttributeError, match="FleetStat"):
        vars(finevoice_async)["__getattr__"]("FleetStat")
    with pytest.raises(ImportError):
        exec("from finevoice_async import FleetStat")  # checkers would refuse it


def test_every_error_is_exported_and_in_the_tree() -> None:
    """Each error is public, has one root, and stands in the module's docstring."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    for kind in kinds:
        assert issubclass(kind, FineVoiceError)
        assert kind.__name__ in finevoice_async.__all__
        assert kind.__name__ in str(errors.__doc__)


def test_errors_are_copied_whole() -> None:
    """Copies and pickles keep every attribute."""
    error = TaskTimeoutError("late", task_id="t", request=SfxRequest("x"), status=1, code="c", body="b")
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert twin.__dict__ == error.__dict__
        assert str(twin) == "late"
        assert isinstance(twin, TaskTimeoutError)


@pytest.mark.parametrize("name", finevoice_async.__all__)
def test_half_made_objects_have_a_repr(name: str) -> None:
    """Whatever made it fail: a traceback that shows its locals asks the half-made object for one."""
    kind = getattr(finevoice_async, name)
    of_checkers = is_typeddict(kind) or not isinstance(kind, type)  # they make no objects
    if not of_checkers and not isinstance(kind, enum.EnumMeta):
        half_made = kind.__new__(kind)
        assert kind.__name__ in repr(half_made)
        del half_made  # and so does nobody who drops it


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_session_that_could_not_be_made() -> None:
    """It can be shown, and thrown away without a word."""
    with pytest.raises(ConfigurationError) as caught:
        finevoice_async.FineVoiceSession("key", base_url="ftp://x")
    for frame, _ in traceback.walk_tb(caught.tb):
        half_made = frame.f_locals.get("self")
        assert half_made is None or repr(half_made)
    del frame, half_made, caught
    gc.collect()


SILENT = """
import asyncio
from finevoice_async import FineVoiceSession, SubmitUnknownError

async def main():
    async def hang_up(reader, writer):
        await reader.readuntil(b"}")
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, FineVoiceSession("key", base_url=f"http://127.0.0.1:{port}") as session:
        try:
            await session.submit("rain")
        except SubmitUnknownError as error:
            print(error.user_message)

asyncio.run(main())
"""


def test_without_logging_set_up_nothing_is_printed() -> None:
    """A library does not write to a program's stderr: a warning goes where the program sends its log."""
    ran = subprocess.run([sys.executable, "-c", SILENT], capture_output=True, text=True, check=True)
    assert ran.stderr == ""
    assert "not certain" in ran.stdout


def test_error_bodies_are_cut() -> None:
    """An error keeps at most 64 KiB of a body."""
    assert len(FineVoiceError("x", body="y" * 10**6).body or "") == 65536


BAD: list[tuple[type[Any], dict[str, Any]]] = [
    (Timeouts, {"connect": 0}),
    (Timeouts, {"read": float("nan")}),
    (Timeouts, {"task": -1}),
    (Timeouts, {"close": True}),
    (Polling, {"interval": 0}),
    (Polling, {"budget": float("inf")}),
    (Polling, {"min_gap": 5, "max_gap": 1}),
    (Polling, {"failures": 0}),
    (Polling, {"concurrency": 1.5}),
    (Polling, {"grace": -1}),
    (Retry, {"attempts": 0}),
    (Retry, {"max_delay": "1"}),
]


@pytest.mark.parametrize(("kind", "fields"), BAD)
def test_bad_options(kind: type[Any], fields: dict[str, Any]) -> None:
    """An option out of its range is refused by name."""
    with pytest.raises(ConfigurationError, match=next(iter(fields))):
        kind(**fields)


def test_options_without_end() -> None:
    """A task may be waited for without end; a fixed interval is chosen by name."""
    assert Timeouts(task=None).task is None
    assert Polling.fixed(3, grace=0).interval == 3
