"""A PostgreSQL server for the tests, on loopback, and one database for each test.

The server is Debian's, started in a temporary folder; `FINEVOICE_TEST_POSTGRES` names another one, whose user may make
databases.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import uuid
from pathlib import Path
from typing import Any

import psycopg

from finevoice_async.adapters.postgres import schema

VARIABLE = "FINEVOICE_TEST_POSTGRES"
_SETTINGS = "-c fsync=off -c shared_buffers=32MB -c max_connections=200 -c log_min_messages=fatal"


def folder_of_programs() -> Path | None:
    """Return where the server's programs are, if it is installed."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return folders[-1] if folders else None


class Server:
    """A server of its own."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        # It refuses to run as root.
        self._user: dict[str, Any] = {"user": "postgres", "group": "postgres"} if os.getuid() == 0 else {}
        self._folder = Path(tempfile.mkdtemp(prefix="finevoice-pg-"))
        if self._user:
            shutil.chown(self._folder, self._user["user"], self._user["group"])
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"postgresql://finevoice@127.0.0.1:{self.port}"
        self._data = self._folder / "data"
        self._run("initdb", "-A", "trust", "-U", "finevoice", "-E", "UTF8", "--locale=C", "--no-sync", "-D", self._data)
        self.start()

    def _run(self, program: str, *arguments: object) -> None:
        words = [str(self._programs / program), *map(str, arguments)]
        with (self._folder.parent / f"{self._folder.name}.log").open("a+") as log:
            subprocess.run(words, check=True, timeout=60, cwd="/", stdout=log, stderr=log, **self._user)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"-p {self.port} -h 127.0.0.1 -k {self._folder} {_SETTINGS}"
        self._run("pg_ctl", "-w", "-D", self._data, "-l", self._folder / "log", "-o", options, "start")

    def crash(self) -> None:
        """Stop it as a crash does: no farewell to anybody, and recovery at the next start."""
        self._run("pg_ctl", "-w", "-D", self._data, "-m", "immediate", "stop")

    def pause(self) -> None:
        """Let every process of it stand still."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let them go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        postmaster = int((self._data / "postmaster.pid").read_text().splitlines()[0])
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        for process in [postmaster, *map(int, children)]:
            os.kill(process, number)

    def close(self) -> None:
        """Stop it and remove its folder."""
        self.crash()
        shutil.rmtree(self._folder)
        (self._folder.parent / f"{self._folder.name}.log").unlink()


class Databases:
    """Makes databases that have the schema already."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._template = f"finevoice_template_{uuid.uuid4().hex[:8]}"
        self._do(f"CREATE DATABASE {self._template}")
        with psycopg.connect(self.url_of(self._template), autocommit=True) as connection:
            connection.execute(schema.script())

    def url_of(self, name: str) -> str:
        """Return the URL of a database."""
        return f"{self._url}/{name}"

    def make(self, *, empty: bool = False) -> str:
        """Make a database, and return its URL."""
        name = f"finevoice_{uuid.uuid4().hex[:12]}"
        self._do(f"CREATE DATABASE {name}" + ("" if empty else f" TEMPLATE {self._template}"))
        return self.url_of(name)

    def drop(self, url: str) -> None:
        """Drop a database, whoever is connected to it."""
        self._do(f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)")

    def close(self) -> None:
        """Drop what new ones are made of."""
        self.drop(self.url_of(self._template))

    def _do(self, statement: str) -> None:
        with psycopg.connect(self.url_of("postgres"), autocommit=True) as connection:
            connection.execute(statement)  # type: ignore[call-overload]  # no literal, but the tests' own
