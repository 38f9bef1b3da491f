"""What the benchmarks share: the server and the clients in processes of their own, statistics, tables."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import selectors
import statistics
import subprocess
import sys
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Self
from urllib.parse import urlsplit

import attrs

ROOT = Path(__file__).parent.parent


@attrs.frozen
class Spread:
    """Several measurements of one thing.

    Attributes:
        median: The middle one.
        low: The least.
        high: The most.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Sum measurements up."""
        return cls(statistics.median(values), min(values), max(values))

    def show(self, digits: int = 2) -> str:
        """Give the median with the range."""
        return f"{self.median:.{digits}f} ({self.low:.{digits}f}-{self.high:.{digits}f})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Give a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def alternated(names: Sequence[str], turn: int) -> list[str]:
    """Give the order of a turn: forwards, then backwards, so that drift of the machine favours nobody."""
    return list(names) if turn % 2 == 0 else list(reversed(names))


class _HastySelector(selectors.BaseSelector):
    """A selector that waits a fraction of the time it is told to."""

    def __init__(self, faster: float) -> None:
        self._real = selectors.DefaultSelector()
        self._faster = faster

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return self._real.select(None if timeout is None else timeout / self._faster)

    def close(self) -> None:
        self._real.close()

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()


class HastyLoop(asyncio.SelectorEventLoop):
    """An event loop whose time, and so all that waits on it, passes faster than the machine's."""

    def __init__(self, faster: float) -> None:
        super().__init__(_HastySelector(faster))
        self._faster = faster

    def time(self) -> float:
        """Return its own time in seconds."""
        return super().time() * self._faster


def run_hastily(job: Coroutine[Any, Any, None], faster: float) -> None:
    """Run a job in a world that is so many times faster; what it does itself takes as long as ever."""
    with asyncio.Runner(loop_factory=lambda: HastyLoop(faster)) as runner:
        runner.run(job)


def resident() -> int:
    """Give this process's resident memory in bytes (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def sockets() -> int:
    """Give how many TCP sockets this process holds (Linux)."""
    inodes: set[str] = set()
    for table_ in ("tcp", "tcp6"):
        lines = Path(f"/proc/self/net/{table_}").read_text().splitlines()[1:]
        inodes.update(line.split()[9] for line in lines)
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            link = str(entry.readlink())
            count += link.startswith("socket:[") and link[8:-1] in inodes
    return count


def environment() -> dict[str, str]:
    """Give the environment of a child that imports from this tree."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}  # as installed
    return kept | {"PYTHONPATH": os.pathsep.join(paths)}


class Child:
    """A Python script in a process of its own, spoken to by lines of JSON."""

    def __init__(self, *arguments: str) -> None:
        """Start it.

        Args:
            arguments: The script, then what it is given.
        """
        self._process = subprocess.Popen(
            [sys.executable, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stdin.close()
        self._process.wait(30)

    @property
    def _stdin(self) -> IO[str]:
        assert self._process.stdin is not None
        return self._process.stdin

    def line(self) -> str:
        """Give its next line.

        Raises:
            RuntimeError: It ended.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"A process of the benchmark ended early: {self._process.args!r}.")
        return line.strip()

    def ask(self, **message: Any) -> dict[str, Any]:
        """Send a message, and give what it answers."""
        self._stdin.write(json.dumps(message) + "\n")
        self._stdin.flush()
        answer: dict[str, Any] = json.loads(self.line())
        return answer


def messages() -> Iterator[dict[str, Any]]:
    """Give the messages that the parent sends, in a child, until it has enough."""
    for line in sys.stdin:
        yield json.loads(line)


def reply(**message: Any) -> None:
    """Answer the parent, in a child."""
    print(json.dumps(message), flush=True)


class FastServer(Child):
    """`fast_server.py` in a process of its own."""

    def __init__(self) -> None:
        super().__init__(str(ROOT / "benchmarks" / "fast_server.py"))
        self.url = self.line()

    def reset(self, **law: Any) -> None:
        """Forget all; see `fast_server.Law` for the fields."""
        self._call("POST", "/reset", law)

    def stats(self) -> dict[str, Any]:
        """Give what happened since the last reset; see `fast_server.Counts`."""
        return self._call("GET", "/stats", {})

    def _call(self, method: str, path: str, message: dict[str, Any]) -> dict[str, Any]:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=30)
        try:
            connection.request(method, path, json.dumps(message))
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        return answer
