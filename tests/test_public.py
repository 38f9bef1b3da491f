"""What users can type: the exported names, the options, the errors."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from typing import Any

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
        ("sys.argv = ['finevoice', '--help']; from finevoice_async.cli import main; main()", ["numpy", "aiohttp.web"]),
    ],
)
def test_imports_what_it_needs_and_no_more(code: str, unwanted: list[str]) -> None:
    """What costs time to import waits until it is used."""
    report = "import atexit, sys; atexit.register(lambda: print(*sys.modules)); "
    ran = subprocess.run([sys.executable, "-c", report + code], capture_output=True, text=True, check=True)
    assert set(unwanted).isdisjoint(ran.stdout.split())


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
