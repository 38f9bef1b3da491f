"""Where a result goes: checked, and its folder made, before anything is paid for."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import tempfile
from pathlib import Path

import attrs

from finevoice_async import JournalRow, SoundEffect
from finevoice_async.cli.exits import OutputError
from finevoice_async.cli.talk import plain, stdout_is_closed
from finevoice_async.core.filenames import slug, suffix_of, with_suffix
from finevoice_async.errors import DownloadError

STDOUT = "-"
_SUFFIXES = (".aac", ".flac", ".m4a", ".mp3", ".ogg", ".opus", ".wav", ".webm")  # what a name without one may get
_ROOM = 256 * 1024
"""Bytes that must be free: a sound of a few seconds has as many. How long a file becomes nobody knows beforehand."""


@attrs.frozen
class Place:
    """What was given as `-o`.

    Attributes:
        given: A file, a folder, or `-` for standard output.
        overwrite: Replace the file if it exists.
    """

    given: str
    overwrite: bool = attrs.field(kw_only=True)

    @property
    def is_stdout(self) -> bool:
        """Whether the audio goes to standard output."""
        return self.given == STDOUT

    @property
    def is_folder(self) -> bool:
        """Whether the file's name is made of the prompt and the task id."""
        path = self.given
        return os.path.basename(path) in ("", os.curdir, os.pardir) or Path(path).is_dir()  # noqa: PTH119 - as for saving

    def prepare(self, prompt: str | None = None, *, noted: bool = False) -> None:
        """Make the folder, and check that the result can be stored. Blocks for a moment.

        Args:
            prompt: What the file's name is made of, if only a folder was given.
            noted: A journal notes the file's name, which is to be text then.

        Raises:
            OutputError: It cannot, or it would replace something.
        """
        if self.is_stdout:
            if stdout_is_closed():
                raise self._unfit("it is closed")
            if sys.stdout.isatty():
                raise self._unfit("audio is not for a terminal's eyes. Send it on, with > FILE or | PROGRAM")
            return
        if not self.given:
            raise self._unfit("it is empty. Name a file or a folder")
        path = Path(self.given)
        try:
            if noted:
                str(path.absolute()).encode()
            if self.is_folder:
                os.fsencode(slug(prompt or ""))
                _check_folder(path)
                return
            self._check_file(path)
            _check_folder(path.parent)
        except UnicodeEncodeError as error:
            raise self._unfit("this machine's locale cannot spell its name. Give one in plain letters") from error
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise self._unfit(f"{reason[:1].lower()}{reason[1:]}") from error

    def _check_file(self, path: Path) -> None:
        try:
            found = path.stat()
        except FileNotFoundError:
            found = None
        except NotADirectoryError:
            raise self._unfit("what is named as its folder is a file") from None
        if found is not None and not stat.S_ISREG(found.st_mode):
            raise self._unfit(f"it is no file that could be replaced. For standard output give -o {STDOUT}")
        if suffix_of(path.name):
            files = [path]
        else:
            files = [path.with_name(with_suffix(path.name, suffix)) for suffix in _SUFFIXES]
        for file in (file for file in files if file.exists()):
            if not self.overwrite:
                name = "it" if file == path else file.name
                raise self._unfit(f"{name} exists. Give another name, or --overwrite to replace it")
            if not _may_replace(file):
                raise self._unfit("it belongs to somebody else, and its folder lets only them replace it")

    def _unfit(self, why: str) -> OutputError:
        where = "standard output" if self.is_stdout else plain(self.given) or repr("")
        return OutputError(f"The result cannot be saved to {where}: {why}. Nothing was sent.")

    def holds(self, row: JournalRow) -> Path | None:
        """Return the file, if it is the very one that was saved for a row. Blocks while it is read."""
        if self.is_stdout or row.path is None or row.sha256 is None:
            return None
        path = Path(self.given)
        if self.is_folder:
            path /= Path(row.path).name
        if path.absolute() != Path(row.path):
            return None
        try:
            with path.open("rb") as file:
                return path if hashlib.file_digest(file, "sha256").hexdigest() == row.sha256 else None
        except OSError:
            return None

    async def put(self, effect: SoundEffect) -> Path | None:
        """Fetch a result to its place. Return the file; None if it went to standard output.

        Raises:
            DownloadError: It could not be fetched or stored.
            JournalError: It was saved, but the journal could not note it.
        """
        if not self.is_stdout:
            return await effect.save(self.given, overwrite=self.overwrite)
        audio = await effect.read()  # whole: a part of it would be played as if it were all
        try:
            sys.stdout.buffer.write(audio)
            sys.stdout.buffer.flush()
        except OSError as error:
            raise DownloadError(
                f"The result of task {effect.task_id} could not be written to standard output: {error.strerror}.",
                task_id=effect.task_id,
                request=effect.request,
            ) from error
        await effect.acknowledge()
        return None


def _may_replace(file: Path) -> bool:
    """Tell whether a file in a folder like /tmp, where each may replace their own only, is this user's."""
    if sys.platform == "win32":
        return True
    folder, user = file.parent.stat(), os.geteuid()
    return not folder.st_mode & stat.S_ISVTX or user in (0, folder.st_uid, file.lstat().st_uid)


def _check_folder(folder: Path) -> None:
    """Make a folder, and prove that a file with something in it can be made there.

    Raises:
        OSError: It cannot.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(_ROOM))
