"""Results that are saved beside: as effects end, while others are still being made."""

from __future__ import annotations

import asyncio
import contextvars
import os
import sys
import unicodedata
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePath

from finevoice_async.core.text import plain_text, shorten
from finevoice_async.effect import Choose, SaveTo, SoundEffect
from finevoice_async.errors import ConfigurationError, DownloadError, FineVoiceError, InvalidRequestError

Told = Callable[[Path | None, FineVoiceError | None], None]
"""Hears where an effect was saved, or why it was not."""


def check_file(file: object) -> str | None:
    """Return a file's name below the folder as plain text.

    Raises:
        InvalidRequestError: It is no text, or leads out of the folder.
    """
    if file is None:
        return None
    name = plain_text(os.fspath(file) if isinstance(file, os.PathLike) else file)
    path = PurePath(name or "")
    if name is None or not path.name or path.is_absolute() or path.drive or ".." in path.parts or "\0" in name:
        raise InvalidRequestError(f"file must name a file below the folder, not {shorten(file)}. Nothing was sent.")
    return name


class Saver:
    """Saves effects, each in a task of its own; `Downloads.concurrency` of them are fetched at once.

    Within one run no effect is saved over another.
    """

    def __init__(self, save_to: SaveTo) -> None:
        """Set it up.

        Raises:
            ConfigurationError: It is neither a path nor callable.
        """
        self._choose: Choose | None = None
        self.folder: str | None = None
        if isinstance(save_to, str | os.PathLike):
            self.folder = os.fsdecode(save_to)
        elif callable(save_to):
            self._choose = save_to
        else:
            raise ConfigurationError(
                f"save_to must be a folder or a callable, not {shorten(save_to)}. Nothing was sent."
            )
        # All mutable state:
        self._tasks: set[asyncio.Task[Path]] = set()
        self._wanted: dict[str, tuple[int, str | None]] = {}  # files that items name: the first item's index, its key
        self._taken: dict[str, tuple[int, str]] = {}  # files that are made: whose, and of which result

    async def prepare(self) -> None:
        """Make the folder, before anything is paid for.

        Raises:
            ConfigurationError: It cannot be made, or nothing can be written to it.
        """
        if self.folder is None:
            return
        import anyio  # with what handles files: not all programs save

        try:
            await anyio.to_thread.run_sync(_make_folder, self.folder)
        except (OSError, ValueError) as error:
            words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise ConfigurationError(
                f"Effects cannot be saved to {shorten(self.folder, 200)}: {words}. Nothing was sent."
            ) from error

    def reserve(self, file: str, index: int, key: str | None) -> None:
        """Keep a file's name for an item, before anything is sent for it. One key is one effect, and may come twice.

        Raises:
            InvalidRequestError: An earlier item has it.
        """
        first, its_key = self._wanted.setdefault(_spelled(file), (index, key))
        if first != index and (key is None or key != its_key):
            name = f" (key {shorten(its_key)})" if its_key is not None else ""
            raise InvalidRequestError(
                f"file {shorten(file)} is that of item {first}{name} already: one would overwrite the other. Nothing "
                "was sent."
            )

    def start(self, effect: SoundEffect, file: str | None, index: int, told: Told) -> None:
        """Save an effect, and tell what came of it.

        Args:
            effect: The effect.
            file: Its name below the folder; None makes one of prompt and task id.
            index: Its place among the items.
            told: Hears it, once.
        """
        saving = self._save(effect, file, index)
        task = asyncio.create_task(saving, name="finevoice-save", context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(partial(self._saved, effect, told))

    async def _save(self, effect: SoundEffect, file: str | None, index: int) -> Path:
        if self._choose is not None:
            assert effect.request is not None  # noqa: S101 - each of many comes of a request
            path = os.fsdecode(self._choose(effect.request, effect.key))
        else:
            path = os.path.join(self.folder or "", file or "")  # noqa: PTH118 - the slash at its end means a folder
        import anyio

        earlier = effect.saved_as
        if earlier is not None and await anyio.to_thread.run_sync(_is_there, earlier, path):
            self._take(effect, index, Path(earlier))
            return Path(earlier)
        if file is not None:
            await anyio.to_thread.run_sync(_make_folder, os.path.dirname(path))  # noqa: PTH120 - a text stays one
        take = partial(self._take, effect, index)
        return await effect._save(path, overwrite=True, take=take)  # noqa: SLF001 - that one is saved is its own affair

    def _take(self, effect: SoundEffect, index: int, file: Path) -> None:
        """Note that a file is an effect's, now that its whole name is known.

        Raises:
            FileExistsError: In this run another effect has it.
        """
        mine = index, effect.task_id or effect.url
        first, whose = self._taken.setdefault(_spelled(str(file.absolute())), mine)
        if whose != mine[1]:
            raise FileExistsError(f"item {first} has that file already")

    def _saved(self, effect: SoundEffect, told: Told, task: asyncio.Task[Path]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            told(None, _failed(effect, "it was cancelled from outside", None))
            return
        error = task.exception()
        if error is None:
            told(task.result(), None)
        elif isinstance(error, FineVoiceError):
            told(None, error)
        elif isinstance(error, FileExistsError):
            told(None, _failed(effect, str(error), error))
        else:
            told(None, _failed(effect, f"save_to failed ({type(error).__name__})", error))

    async def aclose(self) -> None:
        """Stop saving. What was not saved is at the service still, and in the journal. Idempotent."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


def _failed(effect: SoundEffect, why: str, cause: BaseException | None) -> DownloadError:
    error = DownloadError(
        f"The result of task {effect.task_id} was not saved: {why}. It is kept at the service; save it again.",
        task_id=effect.task_id,
        key=effect.key,
        request=effect.request,
    )
    error.__cause__ = cause
    return error


def _make_folder(folder: str) -> None:
    """Make a folder, and check that files can be made in it."""
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    if not os.access(path, os.W_OK | os.X_OK):
        raise PermissionError(0, "nothing can be written there")


def _spelled(path: str) -> str:
    """Return a path as the file systems of this system tell it from others, unless they are set up in another way."""
    plain = os.path.normcase(os.path.normpath(path))
    return unicodedata.normalize("NFC", plain).casefold() if sys.platform == "darwin" else plain


def _is_there(earlier: str, wanted: str) -> bool:
    """Tell whether the file of an earlier run is there, and is what is wanted now."""
    saved, path = Path(earlier), Path(wanted).absolute()
    if not saved.is_file():
        return False
    if wanted.endswith(("/", os.sep)):
        return saved.parent == path
    return saved == path or (not path.suffix and saved.with_suffix("") == path)
