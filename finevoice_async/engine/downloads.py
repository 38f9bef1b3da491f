"""Results: from a link to bytes or a file, whole or not at all."""

from __future__ import annotations

import logging
import os
import random
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from pathlib import Path

import attrs

from finevoice_async.config import Retry
from finevoice_async.core import retry as policy
from finevoice_async.core.addresses import link_problem, redirected
from finevoice_async.core.audio import EndCheck
from finevoice_async.core.failures import Failure, FailureKind
from finevoice_async.core.filenames import file_name
from finevoice_async.core.requests import SfxRequest
from finevoice_async.core.retry import Action, Call
from finevoice_async.core.tasks import TaskUpdate
from finevoice_async.core.text import shorten
from finevoice_async.engine.bookkeeper import Bookkeeper
from finevoice_async.engine.exchange import Exchange
from finevoice_async.errors import DownloadError
from finevoice_async.ports import Body, Clock, Fetcher

log = logging.getLogger("finevoice_async")

MAX_RESULT = 256 * 1024 * 1024
"""Bytes of one result at most: 30 s of the widest audio in use (192 kHz, 8 channels, 32 bits) have 184 MB."""

MAX_REDIRECTS = 5


@attrs.define(eq=False)
class _Progress:
    """How far one download has come, over all its attempts."""

    url: str
    received: int = 0
    total: int | None = None
    validator: str | None = None  # a strong ETag: the only proof that a continued file is the same file
    attempt: int = 1
    refreshed: bool = False
    check: EndCheck = attrs.field(factory=EndCheck)

    def restart(self) -> None:
        self.received = 0
        self.total = self.validator = None
        self.check = EndCheck()


@attrs.frozen(kw_only=True)
class Source:
    """Where a result lies, and whose it is.

    Attributes:
        url: The link.
        task_id: The service's id, which gives fresh links.
        request: What was asked for.
        row_id: Its row in the journal.
    """

    url: str = attrs.field(repr=False)  # it may carry a signature
    task_id: str | None
    request: SfxRequest | None
    row_id: int | None


class Downloads:
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
        """
        self._fetcher = fetcher
        self._exchange = exchange
        self._bookkeeper = bookkeeper
        self._local = local
        self._retry = retry
        self._clock = clock
        self._rng = rng

    async def pieces(self, source: Source) -> AsyncGenerator[tuple[int, bytes], None]:
        """Yield a result as (offset, bytes), resumed or begun anew (offset 0 again) when the connection is cut.

        Raises:
            DownloadError: It could not be fetched whole.
        """
        progress = _Progress(source.url)
        while True:
            try:
                async with aclosing(self._attempt(progress)) as attempt:
                    async for offset, piece in attempt:
                        yield offset, piece
            except Failure as error:
                failed = error
            else:
                return
            await self._wait_or_raise(progress, source, failed)

    async def _wait_or_raise(self, progress: _Progress, source: Source, failed: Failure) -> None:
        decision = policy.decide(Call.DOWNLOAD, failed.kind, self._retry)
        if decision.action is Action.REFRESH and not progress.refreshed and source.task_id:
            progress.refreshed = True
            answer = await self._exchange.ask(source.task_id)
            urls = answer.urls if isinstance(answer, TaskUpdate) else ()
            if urls:
                log.info("the link of task %s has expired; it gave a fresh one", source.task_id)
                progress.url = urls[0]
                progress.restart()
                return
        again = decision.action is Action.AGAIN and progress.attempt < self._retry.attempts
        if not again:
            raise DownloadError(
                f"The result of task {source.task_id} could not be fetched: {failed.what}. It is paid for and kept at "
                "the service; try again, or attach(task_id) for a fresh link.",
                task_id=source.task_id,
                request=source.request,
                status=failed.status,
            )
        wait = policy.wait_before_retry(progress.attempt, self._retry, self._rng.random(), failed.retry_after)
        log.info("download of task %s failed (%s); again in %.2f s", source.task_id, failed.what, wait)
        progress.attempt += 1
        await self._clock.sleep(wait)

    async def _attempt(self, progress: _Progress) -> AsyncGenerator[tuple[int, bytes], None]:
        url = progress.url
        for _ in range(MAX_REDIRECTS + 1):
            problem = link_problem(url, local=self._local)
            if problem is not None:
                raise Failure(FailureKind.INVALID, f"its link {problem}")
            location = None
            async with self._fetcher.get(url, _resume_headers(progress)) as body:
                if body.status == 416:
                    progress.restart()  # what was received does not fit the file any more
                location = _check_status(body, self._clock)
                if location is None:
                    _check_start(progress, body)
                    async for piece in body.pieces():
                        offset = progress.received
                        _count(progress, piece)
                        yield offset, piece
            if location is None:
                _check_end(progress)
                return
            url = redirected(url, location)
        raise Failure(FailureKind.INVALID, f"its link was redirected more than {MAX_REDIRECTS} times")

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

    async def save(self, source: Source, path: str | os.PathLike[str], *, overwrite: bool) -> Path:
        """Save the result under a name where it appears whole or not at all."""
        import anyio  # with what handles files, a fifth of the package's import time, and not all programs save

        from finevoice_async.engine.part_file import PartFile, choose_target

        name = file_name(source.request.prompt if source.request else None, source.task_id, source.url)
        part: PartFile | None = None
        try:
            target = await anyio.to_thread.run_sync(partial(choose_target, os.fspath(path), name, overwrite=overwrite))
            part = PartFile(target)
            await anyio.to_thread.run_sync(part.open)
            async with aclosing(self.pieces(source)) as pieces:
                async for offset, piece in pieces:
                    if part.add(offset, piece):
                        await anyio.to_thread.run_sync(part.flush)
            digest = await anyio.to_thread.run_sync(partial(part.finish, overwrite=overwrite))
        except (OSError, ValueError) as error:
            raise _storage_error(source, path, error) from error
        finally:
            if part is not None:
                with anyio.CancelScope(shield=True):  # bounded: a close and an unlink
                    await anyio.to_thread.run_sync(part.discard)
        log.info("task %s saved", source.task_id)
        await self._bookkeeper.saved(source.row_id, path=str(target.absolute()), sha256=digest)
        return target


def _storage_error(source: Source, path: str | os.PathLike[str], error: Exception) -> DownloadError:
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return DownloadError(
        f"The result of task {source.task_id} could not be saved to {shorten(os.fspath(path), 200)}: {words}. It is "
        "kept at the service; save it somewhere else, or try again.",
        task_id=source.task_id,
        request=source.request,
    )


# One reply


def _resume_headers(progress: _Progress) -> dict[str, str]:
    if not progress.received:
        return {}
    if progress.validator is None:
        progress.restart()
        return {}
    return {"Range": f"bytes={progress.received}-", "If-Range": progress.validator}


def _check_status(body: Body, clock: Clock) -> str | None:
    """Return the address of a redirect, None for a body to read; anything else is a failed attempt."""
    kind = policy.kind_of(body.status)
    if kind is FailureKind.REDIRECT and "location" in body.headers:
        return body.headers["location"]
    if kind is None and body.status in (200, 206):
        return None
    if body.status == 416:
        kind = FailureKind.UNREADABLE
    after = policy.retry_after_of(body.headers, clock.utcnow())
    raise Failure(
        kind or FailureKind.UNREADABLE, f"the server answered {body.status}", status=body.status, retry_after=after
    )


def _check_start(progress: _Progress, body: Body) -> None:
    """Decide where the body goes on, and how long the whole is."""
    headers = body.headers
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Failure(FailureKind.INVALID, "it is compressed, which was not asked for")
    length = int(headers["content-length"]) if headers.get("content-length", "").isdecimal() else None
    if body.status == 206:
        match = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", headers.get("content-range", ""))
        same = headers.get("etag", progress.validator) == progress.validator
        if not progress.received or match is None or int(match[1]) != progress.received or not same:
            progress.restart()
            raise Failure(FailureKind.UNREADABLE, "the server sent another range than was asked for", status=206)
        total = None if match[3] == "*" else int(match[3])
        if total is not None and progress.total is not None and total != progress.total:
            progress.restart()
            raise Failure(FailureKind.UNREADABLE, "the file changed on the way", status=206)
        progress.total = total or progress.total
        return
    progress.restart()  # a 200 is the whole file, also to a request for a range
    progress.total = length
    etag = headers.get("etag", "")
    progress.validator = etag if etag.startswith('"') else None
    if length is not None and length > MAX_RESULT:
        raise Failure(FailureKind.INVALID, f"it has {length} bytes; at most {MAX_RESULT} are fetched")


def _count(progress: _Progress, piece: bytes) -> None:
    progress.received += len(piece)
    if progress.received > MAX_RESULT:
        raise Failure(FailureKind.INVALID, f"it has more than {MAX_RESULT} bytes")
    if progress.total is None:
        progress.check.feed(piece)


def _check_end(progress: _Progress) -> None:
    if progress.total is None:
        problem = progress.check.problem()
    else:
        right = progress.received == progress.total
        problem = None if right else f"{progress.received} of {progress.total} bytes came"
    if problem is not None:
        if progress.total is None or progress.received > progress.total:
            progress.restart()
        raise Failure(FailureKind.LOST, problem)
