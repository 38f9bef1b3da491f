"""What the tests of batches share: a project with a manifest, a folder and a service."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import attrs

from finevoice_async.batch import BatchOptions, BatchReport, Manifest, read_manifest, run_batch
from finevoice_async.batch.survey import JOURNAL_NAME
from finevoice_async.testing import EmulatedService


@attrs.define
class Project:
    """A manifest, its folder, and a service."""

    folder: Path
    service: EmulatedService

    @property
    def out(self) -> Path:
        """The folder for the files."""
        return self.folder / "out"

    @property
    def lock(self) -> Path:
        """The lock."""
        return self.folder / "m.jsonl.lock"

    @property
    def journal(self) -> Path:
        """The journal."""
        return self.out / JOURNAL_NAME

    @property
    def paid(self) -> int:
        """How many submissions the service has accepted."""
        return len(self.service.ledger.accepted)

    @property
    def files(self) -> list[str]:
        """What lies in the folder."""
        found = (path for path in self.out.rglob("*") if path.is_file() and not path.name.startswith("."))
        return sorted(path.relative_to(self.out).as_posix() for path in found)

    def want(self, *rows: dict[str, Any] | str) -> Manifest:
        """Write the manifest, and read it; a text is a key and a prompt."""
        lines = [{"key": row, "prompt": row} if isinstance(row, str) else row for row in rows]
        path = self.folder / "m.jsonl"
        path.write_text("".join(json.dumps({"duration": 0.1, **line}) + "\n" for line in lines))
        return read_manifest(path, out=self.out)

    async def run(
        self, manifest: Manifest, *, stop: asyncio.Event | None = None, on_update: Any = None, **options: Any
    ) -> BatchReport:
        """Run a batch in a session of its own."""
        known = {field.name for field in attrs.fields(BatchOptions)}
        chosen = {name: options.pop(name) for name in list(options) if name in known}
        self.out.mkdir(exist_ok=True)
        async with self.service.session(**{"journal": self.journal, **options}) as session:
            return await run_batch(
                session, manifest, self.out, stop=stop, on_update=on_update, options=BatchOptions(**chosen)
            )

    def records(self) -> list[dict[str, Any]]:
        """Return the lines of the lock."""
        return [json.loads(line) for line in self.lock.read_text().splitlines()]
