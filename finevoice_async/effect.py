"""A finished effect, as the user gets it, alone or among many."""

from __future__ import annotations

import copy
import os
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import attrs

from finevoice_async.core.requests import SfxRequest
from finevoice_async.core.tasks import TaskUpdate
from finevoice_async.engine.downloads import Arrived, Downloader, Source
from finevoice_async.engine.records import TaskRecord
from finevoice_async.errors import ConfigurationError, FineVoiceError
from finevoice_async.reprs import with_safe_repr

# What only downloads need is imported where it is used: it is a fifth of the import time of this package.
if TYPE_CHECKING:
    from finevoice_async.core.media import Media

Choose = Callable[[SfxRequest, str | None], str | os.PathLike[str]]

SaveTo = str | os.PathLike[str] | Choose
"""A folder; or what gives each effect its path, of the request and the key."""


@with_safe_repr
@attrs.frozen(kw_only=True)
class SoundEffect:
    """A finished effect: where it is, and how to get it.

    It can be pickled and copied; the copy has no session, and so can download nothing.

    Attributes:
        task_id: The service's id; None if the answer to the submission carried the result and no id.
        url: Where the result lies: the first of `urls`.
        urls: All results.
        request: What was asked for, if this session knows it.
        raw: The service's last answer, as decoded from JSON.
        key: The caller's own name for it, if it has one.
    """

    task_id: str | None
    urls: tuple[str, ...] = attrs.field(repr=False)  # links may carry a signature
    request: SfxRequest | None
    raw: Mapping[str, Any] = attrs.field(factory=dict, repr=False, eq=False)
    key: str | None = attrs.field(default=None, eq=False)
    row_id: int | None = attrs.field(default=None, repr=False, eq=False)  # its row in the journal
    saved_as: str | None = attrs.field(default=None, repr=False, eq=False)  # by the journal
    _downloads: Downloader | None = attrs.field(default=None, repr=False, eq=False)  # its session's; None in a copy
    _arrived: Arrived = attrs.field(factory=Arrived, repr=False, eq=False)

    @classmethod
    def of(cls, record: TaskRecord, downloads: Downloader) -> Self:
        """Return the effect of a task that ended with a result."""
        assert isinstance(record.end, TaskUpdate)  # noqa: S101 - whoever calls this has looked
        effect = cls(
            task_id=record.task_id,
            urls=record.end.urls,
            request=record.request,
            raw=record.end.raw,
            key=record.key,
            row_id=record.row_id,
            saved_as=record.saved_as,
            downloads=downloads,
        )
        if record.watched is not None:
            effect._arrived.watched = record.watched
        return effect

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy it without its session, which is of one loop and one process."""
        fields = {field.alias: getattr(self, field.name) for field in attrs.fields(type(self))}
        return (
            _rebuilt,
            (type(self), fields | {"downloads": None, "arrived": attrs.evolve(self._arrived, watched=None)}),
        )

    @property
    def url(self) -> str:
        """Where the result lies."""
        return self.urls[0]

    @property
    def media_type(self) -> str | None:
        """What kind of audio it is, as in `Content-Type`; None if nobody knows.

        Once something of it was fetched its first bytes tell, before that its link or the service's answer.
        """
        return self._media.media_type if self._media is not None else None

    @property
    def suffix(self) -> str:
        """The suffix for a file's name, with its dot, that goes with `media_type`; empty if nobody knows."""
        return self._media.suffix if self._media is not None else ""

    @property
    def file_name(self) -> str:
        """A file's name for people: words of the prompt and the suffix; safe in every file system, but not unique."""
        from finevoice_async.core.filenames import safe_name, slug

        words = slug(self.request.prompt or "") if self.request is not None else ""
        return safe_name((words or "effect") + self.suffix)

    def _repr_html_(self) -> str:
        """Return what a notebook shows: a player with the sound in it, once it was read or saved."""
        from finevoice_async import shown

        prompt = self.request.prompt if self.request is not None else None
        return shown.as_html(self._arrived, prompt or self.key or self.task_id or "effect", self.media_type)

    @property
    def note(self) -> str | None:
        """What is to be said of the name that it was saved under: its suffix contradicts what came."""
        return self._arrived.note

    @property
    def _media(self) -> Media | None:
        return self._source.arrived.media

    @property
    def _source(self) -> Source:
        from finevoice_async.core import media

        if self._arrived.media is None:
            self._arrived.media = media.of_link(self.url) or media.of_answer(self.raw)
        return Source(
            url=self.url,
            task_id=self.task_id,
            request=self.request,
            row_id=self.row_id,
            arrived=self._arrived,
        )

    @property
    def _session(self) -> Downloader:
        """What downloads for its session.

        Raises:
            ConfigurationError: It is a copy, or was pickled.
        """
        if self._downloads is None:
            raise ConfigurationError(
                "This effect is a copy without a session, so it can download nothing. Its links are in urls; "
                "attach(task_id) of a session gives an effect that can.",
                task_id=self.task_id,
            )
        return self._downloads

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Have every error say which effect it is about; it is there, so it is paid for."""
        try:
            yield
        except FineVoiceError as error:
            error.task_id, error.request = error.task_id or self.task_id, error.request or self.request
            error.key, error.paid = self.key, True
            raise

    async def read(self) -> bytes:
        """Download the audio into memory. A notebook shows a player for those that were read last.

        Raises:
            DownloadError: It could not be fetched whole, or is no audio.
            SessionClosedError: The session is closed.
            ConfigurationError: It is a copy without a session.
        """
        from finevoice_async import shown

        with self._told():
            sound = await self._session.read(self._source)
        shown.keep(self._arrived, sound)
        return sound

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Download the audio piece by piece.

        Raises:
            DownloadError: It could not be fetched whole; what came before is not to be used. What is no audio raises
                before the first piece.
            SessionClosedError: The session is closed; what came before is not to be used.
            ConfigurationError: It is a copy without a session.
        """
        with self._told():
            async with aclosing(self._session.stream(self._source)) as pieces:
                async for piece in pieces:
                    yield piece

    async def acknowledge(self) -> None:
        """Say that you have it: its row in the journal is SAVED, and `recover` does not give it again.

        `save` does so by itself; this is for whoever reads or streams. Without a journal it does nothing.

        Raises:
            JournalError: The journal could not note it.
            ConfigurationError: It is a copy without a session.
        """
        with self._told():
            await self._session.acknowledge(self._source)

    async def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Download the audio to a file, which appears whole or not at all.

        The suffix follows the content: a name without one gets the right one. A suffix of yours that contradicts the
        content is kept, with a warning in the log. After a crash the next save to the same path goes on where it was,
        if the server can prove that it is the same file.

        Args:
            path: The file; or a folder, for a name made of the prompt and the task id. A folder that exists is one, and
                so is a text that ends in a slash, which is made. A `Path` forgets its slash: it means a folder only
                where there is one.
            overwrite: Replace the file if it exists. The new one has the old one's permissions.

        Returns:
            Where it was saved.

        Raises:
            DownloadError: It could not be fetched or stored, is no audio, or the file exists.
            SessionClosedError: The session is closed.
            JournalError: It was saved, but the journal could not note it.
            ConfigurationError: It is a copy without a session.
        """
        return await self._save(path, overwrite=overwrite)

    async def _save(
        self, path: str | os.PathLike[str], *, overwrite: bool, take: Callable[[Path], None] | None = None
    ) -> Path:
        """Save it; `take` hears the whole name before the file is there, and may refuse it with an `OSError`."""
        from finevoice_async import shown

        with self._told():
            file = await self._session.save(self._source, path, overwrite=overwrite, take=take)
        shown.keep(self._arrived, file)
        return file


@with_safe_repr
@attrs.frozen(kw_only=True)
class Outcome:
    """What became of one request of many.

    Attributes:
        index: Its place among the requests, from 0.
        key: The caller's own name for the effect, if it has one.
        request: The request; None if it was invalid.
        effect: The effect, if it was made.
        path: Where it was saved, if `save_to` was given.
        error: Why there is no effect; or, beside an effect, why it was not saved.
        task_id: The service's id, once known.
        note: What is to be said of the file's name: its suffix contradicts what came.
    """

    index: int
    key: str | None = None
    request: SfxRequest | None = None
    effect: SoundEffect | None = None
    path: Path | None = None
    error: FineVoiceError | None = None
    task_id: str | None = None
    note: str | None = None

    def unwrap(self) -> SoundEffect:
        """Return the effect.

        Raises:
            FineVoiceError: There is none, or it was not saved.
        """
        if self.error is not None:
            raise copy.copy(self.error)
        assert self.effect is not None  # noqa: S101 - there is one or the other
        return self.effect


def _rebuilt(cls: type[SoundEffect], fields: dict[str, Any]) -> SoundEffect:
    return cls(**fields)
