"""What was learned of how long effects take, kept between runs: else each one would ask like the first.

One small file for each service, in the user's folder for such state. Nothing depends on it: one that cannot be read
or written is passed by.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import platformdirs

from finevoice_async import ConfigurationError, Polling
from finevoice_async.cli.talk import say
from finevoice_async.config import BASE_URL, BASE_URL_VARIABLE
from finevoice_async.core.addresses import is_local
from finevoice_async.core.polling.schedule import make_schedule

log = logging.getLogger("finevoice_async")

_MAX_SIZE = 1024 * 1024  # bytes; a state has some thousands


class Memory:
    """What is kept of one service."""

    def __init__(self, base_url: str | None, *, emulator: bool) -> None:
        """Name the service. All emulators are one: their ports change with each run."""
        url = base_url or os.environ.get(BASE_URL_VARIABLE) or BASE_URL
        name = "local" if emulator or _is_local(url) else hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]
        self._path = platformdirs.user_state_path("finevoice-async", appauthor=False) / f"polling-{name}.json"

    def polling(self) -> Polling:
        """Return the options that start warm, if something is kept; else the defaults."""
        try:
            with self._path.open("rb") as file:
                state = json.loads(file.read(_MAX_SIZE))
        except FileNotFoundError:
            return Polling()
        except OSError as error:
            return self._cold(error.strerror or type(error).__name__)
        except (ValueError, RecursionError):
            return self._cold("it is damaged")
        if not isinstance(state, dict):
            return self._cold("it is damaged")
        try:
            polling = Polling(state=state)
            make_schedule(polling)
        except ConfigurationError as error:
            return self._cold(str(error).rstrip("."))
        return polling

    def _cold(self, why: str) -> Polling:
        say(f"finevoice: what was learned in earlier runs is ignored ({self._path}: {why}).")
        return Polling()

    def keep(self, state: Mapping[str, Any]) -> None:
        """Keep what was learned; the file is replaced as a whole."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=self._path.parent, prefix=self._path.stem)
            try:
                with os.fdopen(descriptor, "w") as file:
                    json.dump(state, file)
                Path(name).replace(self._path)
            except BaseException:
                with contextlib.suppress(OSError):
                    Path(name).unlink()
                raise
        except OSError as error:
            log.info("what was learned could not be kept in %s: %s", self._path, error)


def _is_local(url: str) -> bool:
    try:
        return is_local(url)
    except ValueError:
        return False  # the session will say what is wrong with it
