"""Results: from a link to bytes or a file, whole or not at all."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from finevoice_async.config import Downloads, Retry
from finevoice_async.core import retry as policy
from finevoice_async.core.addresses import link_problem, over_https
from finevoice_async.core.failures import Failure, FailureKind
from finevoice_async.core.requests import SfxRequest
from finevoice_async.core.retry import Action, Call
from finevoice_async.core.text import shorten
from finevoice_async.errors import DownloadError, SessionClosedError
from finevoice_async.ports import Clock, Fetcher

# What looks at bytes and files is imported with the first download: a fifth of the import time of this package.
if TYPE_CHECKING:
    from finevoice_async.core.media import Media
    from finevoice_async.engine.attempts import Progress
    from finevoice_async.engine.bookkeeper import Bookkeeper
    from finevoice_async.engine.exchange import Exchange
    from finevoice_async.engine.watching import Watched

log = logging.getLogger("finevoice_async")

MAX_RESULT = 256 * 1024 * 1024
"""Bytes of one result at most: 30 s of the widest audio in use (192 kHz, 8 channels, 32 bits) have 184 MB."""

MAX_REDIRECTS = 5

_KEPT_EVERY = 0.2  # seconds after which what has come is written, so that a crash costs no more


@attrs.define(eq=False)
class Arrived:
    """What is known of a result.

    Attributes:
        media: What kind of audio it is: as its link or the answer suggests, and once it is fetched, as it is.
        note: What is to be said of the name that it was saved under last.
        watched: What the session's observer knows of it.
    """

    media: Media | None = None
    note: str | None = None
    watched: Watched | None = attrs.field(default=None, repr=False)


@attrs.frozen(kw_only=True, eq=False)
class Source:
    """Where a result lies, and whose it is.

    Attributes:
        url: The link.
        task_id: The service's id, which gives fresh links.
        request: What was asked for.
        row_id: Its row in the journal.
        arrived: Is told what kind of audio it is.
    """

    url: str = attrs.field(repr=False)  # it may carry a signature
    task_id: str | None
    request: SfxRequest | None
    row_id: int | None
    arrived: Arrived = attrs.field(factory=Arrived, repr=False)


class Downloader:
    """Fetches results. Many at once, outside the plan's slots."""

    def __init__(
        self,
        fetcher: Fetcher,
        exchange: Exchange,
        bookkeeper: Bookkeeper,
        *,
        local: bool,
        retry: Retry,
        clock: Clock,
        rng: random.Random,
        options: Downloads = Downloads(),  # noqa: B008 - frozen
    ) -> None:
        """Wire it.

        Args:
            fetcher: HTTP without the key.
            exchange: Asks a task for fresh links.
            bookkeeper: Is told of each saved file and its SHA-256.
            local: Whether plain http and private addresses are allowed.
            retry: Attempts and waits.
            clock: The session's clock.
            rng: Draws the jitter.
            options: How many at once, how often, and which networks.
        """
        self._fetcher = fetcher
        self._exchange = exchange
        self._bookkeeper = bookkeeper
        self._local = local
        self._retry = retry
        self._attempts = retry.attempts if options.attempts is None else options.attempts
        self._allow = options.allow
        self._clock = clock
        self._rng = rng
        # All mutable state:
        self._turns = asyncio.Semaphore(options.concurrency)  # a download has one while a request of it is under way
        self._waiting = 0  # downloads without a turn
        self._pauses: set[asyncio.Future[None]] = set()  # between two attempts
        self._closed = False

    async def aclose(self) -> None:
        """Close the connections; downloads under way hear of it now. Idempotent."""
        self._closed = True
        for pause in self._pauses:
            _end(pause)
        for _ in range(self._waiting):
            self._turns.release()
        await self._fetcher.aclose()

    def _check_open(self, source: Source) -> None:
        if self._closed:
            raise SessionClosedError(
                f"The session is closed. The result of task {source.task_id} is paid for and kept at the service; "
                "attach(task_id) in another session gives it.",
                task_id=source.task_id,
                request=source.request,
            )

    # Pieces

    async def pieces(self, source: Source, progress: Progress | None = None) -> AsyncGenerator[tuple[int, bytes], None]:
        """Yield a result as (offset, bytes), resumed or begun anew (offset 0 again) when the connection is cut.

        Args:
            source: The result.
            progress: How far it has come already.

        Raises:
            DownloadError: It could not be fetched whole.
            SessionClosedError: The session is closed.
        """
        progress = progress or self._begin(source)
        while not progress.is_complete:
            failed: Failure | None = None
            await self._take_turn(source)
            try:
                async with aclosing(self._attempt(progress)) as attempt:
                    async for offset, piece in attempt:
                        source.arrived.media = progress.media or source.arrived.media
                        yield offset, piece
            except Failure as error:
                failed = error
            finally:
                self._turns.release()
            if failed is None or progress.is_complete:
                return
            await self._wait_or_raise(progress, source, failed)

    def _begin(self, source: Source) -> Progress:
        from finevoice_async.engine.attempts import Progress

        return Progress(source.url, MAX_RESULT)

    async def _take_turn(self, source: Source) -> None:
        self._check_open(source)
        self._waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self._waiting -= 1
        if self._closed:
            self._turns.release()
        self._check_open(source)

    async def _wait_or_raise(self, progress: Progress, source: Source, failed: Failure) -> None:
        self._check_open(source)
        action = policy.decide(Call.DOWNLOAD, failed.kind, self._retry).action
        luck, after = self._rng.random(), failed.retry_after
        if action is Action.REFRESH:
            luck = 0.5 + luck / 2  # it may be a moment before its file: no wait is next to nothing
            fresh = await self._ask_for_link(source)
            self._check_open(source)
            if isinstance(fresh, Failure):
                after = fresh.retry_after if after is None else after
            elif fresh is not None and fresh != progress.url:
                progress.move_to(fresh)
                if not progress.refreshed:
                    progress.refreshed = True
                    return
        again = action in (Action.AGAIN, Action.REFRESH) and progress.attempt < self._attempts
        if not again:
            raise DownloadError(
                f"The result of task {source.task_id} could not be fetched: {failed.what}. It is paid for and kept at "
                "the service; try again, or attach(task_id) for a fresh link.",
                task_id=source.task_id,
                request=source.request,
                status=failed.status,
            )
        wait = policy.wait_before_retry(progress.attempt, self._retry, luck, after)
        log.info("download of task %s failed (%s); again in %.2f s", source.task_id, failed.what, wait)
        progress.attempt += 1
        await self._pause(wait)
        self._check_open(source)

    async def _ask_for_link(self, source: Source) -> str | Failure | None:
        """Return a link of the task as it is now, None if it has none, or why it could not be asked."""
        if source.task_id is None:
            return None
        answer = await self._exchange.ask(source.task_id)
        if isinstance(answer, Failure):
            log.info("task %s gave no fresh link: %s", source.task_id, answer.what)
            return answer
        return answer.urls[0] if answer.urls else None

    async def _pause(self, seconds: float) -> None:
        """Wait, until the session closes at most."""
        pause = asyncio.get_running_loop().create_future()
        timer = self._clock.call_at(self._clock.monotonic() + seconds, partial(_end, pause))
        self._pauses.add(pause)
        try:
            await pause
        finally:
            self._pauses.discard(pause)
            timer.cancel()

    async def _attempt(self, progress: Progress) -> AsyncGenerator[tuple[int, bytes], None]:
        from finevoice_async.engine.attempts import check_status

        url = progress.url
        for _ in range(MAX_REDIRECTS + 1):
            if not self._local:
                url = over_https(url)
            problem = link_problem(url, local=self._local, allow=self._allow)
            if problem is not None:
                raise Failure(FailureKind.INVALID, f"its link {problem}")
            location = None
            async with self._fetcher.get(url, progress.headers()) as body:
                if body.status == 416:
                    progress.restart()  # what was received does not fit the file any more
                location = check_status(url, body, self._clock)
                if location is None:
                    progress.start(body)
                    async for piece in body.pieces():
                        good = progress.take(piece)
                        if good:
                            yield progress.received - len(good), good
                    good = progress.rest()
                    if good:
                        yield progress.received - len(good), good
            if location is None:
                progress.end()
                return
            url = location
        raise Failure(FailureKind.INVALID, f"its link was redirected more than {MAX_REDIRECTS} times")

    # Whole results

    async def read(self, source: Source) -> bytes:
        """Return the whole result."""
        content = bytearray()
        async with aclosing(self.pieces(source)) as pieces:
            async for offset, piece in pieces:
                del content[offset:]
                content += piece
        return bytes(content)

    async def stream(self, source: Source) -> AsyncGenerator[bytes, None]:
        """Yield the result piece by piece.

        Raises:
            DownloadError: It had to begin anew after pieces were given out.
        """
        given = 0
        async with aclosing(self.pieces(source)) as pieces:
            async for offset, piece in pieces:
                if offset != given:
                    raise DownloadError(
                        "The download was cut and could not be resumed where it was; pieces were given out already. "
                        "Begin again, or use read() or save().",
                        task_id=source.task_id,
                        request=source.request,
                    )
                given += len(piece)
                yield piece

    async def acknowledge(self, source: Source) -> None:
        """Note that the caller has the result, in no file that is known here.

        Raises:
            JournalError: It could not be written.
        """
        await self._saved(source)

    async def save(
        self,
        source: Source,
        path: str | os.PathLike[str],
        *,
        overwrite: bool,
        take: Callable[[Path], None] | None = None,
    ) -> Path:
        """Save the result under a name where it appears whole or not at all.

        Args:
            source: The result.
            path: The file, or a folder.
            overwrite: Replace the file if it exists.
            take: Hears the file's whole name before it is there, and may refuse it with an `OSError`.
        """
        import anyio

        from finevoice_async.core.filenames import safe_name, stem_of
        from finevoice_async.engine.part_file import PartFile
        from finevoice_async.engine.targets import choose_target

        self._check_open(source)
        in_thread, began = anyio.to_thread.run_sync, self._clock.monotonic()
        stem = safe_name(stem_of(source.request.prompt if source.request else None, source.task_id, source.url))
        part: PartFile | None = None
        try:
            target = await in_thread(partial(choose_target, os.fsdecode(path), stem, overwrite=overwrite))
            part = PartFile(target.base)
            progress = self._begin(source)
            kept = await in_thread(part.open)
            if kept is not None and progress.resume(kept.size, kept.head, kept.note):
                log.info("the download of task %s goes on after %d bytes", source.task_id, kept.size)
            is_checked, due = bool(target.suffix), 0.0
            async with aclosing(self.pieces(source, progress)) as pieces:
                async for offset, piece in pieces:
                    is_full, now = part.add(offset, piece), self._clock.monotonic()
                    if not is_checked and progress.is_known:
                        is_checked = True
                        await in_thread(target.check, target.of(_suffix(progress, source)))
                    if is_full or now >= due:
                        await in_thread(part.flush, progress.note())
                        due = now + _KEPT_EVERY
            source.arrived.media = progress.media or source.arrived.media
            file = target.of(_suffix(progress, source))
            if take is not None:
                take(file)
            note = target.note_on(progress.content)
            source.arrived.note = note
            if note is not None:
                log.warning("the result of task %s %s", source.task_id, note)
            digest = await in_thread(partial(part.finish, file, overwrite=overwrite))
        except (OSError, ValueError) as error:
            raise _storage_error(source, path, error) from error
        finally:
            if part is not None:
                with anyio.CancelScope(shield=True):  # bounded: a close and an unlink
                    await in_thread(part.discard)
        log.info("task %s saved", source.task_id)
        await self._saved(source, str(file.absolute()), digest, progress.received, began)
        return file

    async def _saved(
        self,
        source: Source,
        path: str | None = None,
        sha256: str | None = None,
        size: int | None = None,
        began: float = 0,
    ) -> None:
        watching, watched = self._bookkeeper.watching, source.arrived.watched
        if watching is not None and watched is not None:
            watching.saved(watched, source.task_id, path, sha256, size, began)
        await self._bookkeeper.saved(source.row_id, path=path, sha256=sha256)


def _end(pause: asyncio.Future[None]) -> None:
    if not pause.done():
        pause.set_result(None)


def _suffix(progress: Progress, source: Source) -> str:
    kind = progress.media or source.arrived.media
    return kind.suffix if kind is not None else ""


def _storage_error(source: Source, path: str | os.PathLike[str], error: Exception) -> DownloadError:
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return DownloadError(
        f"The result of task {source.task_id} could not be saved to {shorten(os.fspath(path), 200)}: {words}. It is "
        "kept at the service; save it somewhere else, or try again.",
        task_id=source.task_id,
        request=source.request,
    )
