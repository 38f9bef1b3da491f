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
    """Return where the server's programs are, if it is installed; Debian keeps a client's in such a folder, too."""
    found = shutil.which("initdb")
    programs = [Path(found).resolve()] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return programs[-1].parent if programs else None


class Server:
    """A server of its own."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        # It refuses to run as root.
        self._user: dict[str, Any] = {"user": "postgres", "group": "postgres"} if os.getuid() == 0 else {}
        memory = Path("/dev/shm")
        self._folder = Path(tempfile.mkdtemp(prefix="finevoice-pg-", dir=memory if memory.is_dir() else None))
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
    """Makes databases, and hands one with the schema from test to test, emptied in between."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._clean: list[str] = []

    def make(self) -> str:
        """Make a database without the schema, and return its URL."""
        name = f"finevoice_{uuid.uuid4().hex[:12]}"
        self._do("postgres", f"CREATE DATABASE {name}")
        return f"{self._url}/{name}"

    def take(self) -> str:
        """Return the URL of a database with the schema and nothing in it."""
        if self._clean:
            return self._clean.pop()
        url = self.make()
        self._do(url, schema.script())
        return url

    def give_back(self, url: str) -> None:
        """Empty it, once nobody is connected any more."""
        self._do(
            url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        found = self._do(
            url,
            "SELECT string_agg(oid::regclass::text, ',') FROM pg_class "
            "WHERE relnamespace = 'finevoice'::regnamespace AND relkind = 'r' AND relname <> 'meta'",
        )
        self._do(url, f"TRUNCATE {found} RESTART IDENTITY")
        self._clean.append(url)

    def drop(self, url: str) -> None:
        """Drop a database, whoever is connected to it."""
        self._do("postgres", f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)")

    def close(self) -> None:
        """Drop what is left."""
        for url in self._clean:
            self.drop(url)

    def _do(self, url: str, statement: str) -> Any:
        if url == "postgres":
            url = f"{self._url}/postgres"
        with psycopg.connect(url, autocommit=True) as connection:
            cursor = connection.execute(statement)
            found = cursor.fetchone() if cursor.description else None
            return None if found is None else found[0]
