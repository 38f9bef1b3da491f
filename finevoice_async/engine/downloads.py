"""Results: from a link to bytes or a file, whole or not at all."""

from __future__ import annotations

import logging
import os
import random
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from pathlib import Path
from urllib.parse import urljoin

import anyio
import attrs

from finevoice_async.config import Retry
from finevoice_async.core import retry as policy
from finevoice_async.core.addresses import link_problem
from finevoice_async.core.audio import EndCheck
from finevoice_async.core.filenames import file_name
from finevoice_async.core.retry import Call, Symptom, Verdict
from finevoice_async.core.text import shorten
from finevoice_async.effect import SoundEffect
from finevoice_async.engine.part_file import PartFile, choose_target
from finevoice_async.errors import DownloadError
from finevoice_async.ports import (
    Body,
    CertificateError,
    Clock,
    Fetcher,
    NotSentError,
    RefusedAddressError,
    TransportError,
)

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


class _FailedError(Exception):
    """One attempt failed; `symptom` decides what next."""

    def __init__(self, symptom: Symptom, what: str, *, status: int | None = None, after: float | None = None) -> None:
        super().__init__(what)
        self.symptom = symptom
        self.what = what
        self.status = status
        self.retry_after = after


class Downloads:
    """Fetches results. Many at once, outside the plan's places."""

    def __init__(
        self,
        fetcher: Fetcher,
        *,
        local: bool,
        retry: Retry,
        clock: Clock,
        rng: random.Random,
        refresh: Callable[[str], Awaitable[tuple[str, ...]]],
        on_saved: Callable[[SoundEffect, Path, str], Awaitable[None]],
    ) -> None:
        """Wire it.

        Args:
            fetcher: HTTP without the key.
            local: Whether plain http and private addresses are allowed.
            retry: Attempts and waits.
            clock: The session's clock.
            rng: Draws the jitter.
            refresh: Asks a task once for fresh links.
            on_saved: Told of each saved file and its SHA-256.
        """
        self._fetcher = fetcher
        self._local = local
        self._retry = retry
        self._clock = clock
        self._rng = rng
        self._refresh = refresh
        self._on_saved = on_saved

    async def pieces(self, effect: SoundEffect) -> AsyncGenerator[tuple[int, bytes], None]:
        """Return a result as (offset, bytes), resumed or begun anew (offset 0 again) when the connection is cut.

        Raises:
            DownloadError: It could not be fetched whole.
        """
        progress = _Progress(effect.url)
        while True:
            try:
                async with aclosing(self._attempt(progress)) as attempt:
                    async for offset, piece in attempt:
                        yield offset, piece
            except _FailedError as error:
                failed = error
            else:
                return
            await self._wait_or_raise(progress, effect, failed)

    async def _wait_or_raise(self, progress: _Progress, effect: SoundEffect, failed: _FailedError) -> None:
        decision = policy.decide(Call.DOWNLOAD, failed.symptom, self._retry)
        if decision.verdict is Verdict.REFRESH and not progress.refreshed and effect.task_id:
            progress.refreshed = True
            urls = await self._refresh(effect.task_id)
            if urls:
                log.info("the link of task %s has expired; it gave a fresh one", effect.task_id)
                progress.url = urls[0]
                progress.restart()
                return
        again = decision.verdict is Verdict.AGAIN and progress.attempt < self._retry.attempts
        if not again:
            raise DownloadError(
                f"The result of task {effect.task_id} could not be fetched: {failed.what}. It is paid for and kept at "
                "the service; try again, or attach(task_id) for a fresh link.",
                task_id=effect.task_id,
                request=effect.request,
                status=failed.status,
            )
        wait = policy.wait_before_retry(progress.attempt, self._retry, self._rng.random(), failed.retry_after)
        log.info("download of task %s failed (%s); again in %.2f s", effect.task_id, failed.what, wait)
        progress.attempt += 1
        await self._clock.sleep(wait)

    async def _attempt(self, progress: _Progress) -> AsyncGenerator[tuple[int, bytes], None]:
        url = progress.url
        for _ in range(MAX_REDIRECTS + 1):
            problem = link_problem(url, local=self._local)
            if problem is not None:
                raise _FailedError(Symptom.INVALID, f"its link {problem}")
            location = None
            try:
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
            except TransportError as error:
                raise _FailedError(_symptom(error), str(error)) from None
            if location is None:
                _check_end(progress)
                return
            url = urljoin(url, location)
        raise _FailedError(Symptom.INVALID, f"its link was redirected more than {MAX_REDIRECTS} times")

    async def read(self, effect: SoundEffect) -> bytes:
        """Return the whole result."""
        content = bytearray()
        async with aclosing(self.pieces(effect)) as pieces:
            async for offset, piece in pieces:
                del content[offset:]
                content += piece
        return bytes(content)

    async def stream(self, effect: SoundEffect) -> AsyncGenerator[bytes, None]:
        """Return the result piece by piece.

        Raises:
            DownloadError: It had to begin anew after pieces were given out.
        """
        given = 0
        async with aclosing(self.pieces(effect)) as pieces:
            async for offset, piece in pieces:
                if offset != given:
                    raise DownloadError(
                        "The download was cut and could not be resumed where it was; pieces were given out already. "
                        "Begin again, or use read() or save().",
                        task_id=effect.task_id,
                        request=effect.request,
                    )
                given += len(piece)
                yield piece

    async def save(self, effect: SoundEffect, path: str | os.PathLike[str], *, overwrite: bool) -> Path:
        """Save the result under a name where it appears whole or not at all."""
        name = file_name(effect.request.prompt if effect.request else None, effect.task_id, effect.url)
        part: PartFile | None = None
        try:
            target = await anyio.to_thread.run_sync(partial(choose_target, os.fspath(path), name, overwrite=overwrite))
            part = PartFile(target)
            await anyio.to_thread.run_sync(part.open)
            async with aclosing(self.pieces(effect)) as pieces:
                async for offset, piece in pieces:
                    if part.add(offset, piece):
                        await anyio.to_thread.run_sync(part.flush)
            digest = await anyio.to_thread.run_sync(partial(part.finish, overwrite=overwrite))
        except (OSError, ValueError) as error:
            raise _storage_error(effect, path, error) from error
        finally:
            if part is not None:
                with anyio.CancelScope(shield=True):  # bounded: a close and an unlink
                    await anyio.to_thread.run_sync(part.discard)
        log.info("task %s saved", effect.task_id)
        await self._on_saved(effect, target, digest)
        return target


def _storage_error(effect: SoundEffect, path: str | os.PathLike[str], error: Exception) -> DownloadError:
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return DownloadError(
        f"The result of task {effect.task_id} could not be saved to {shorten(os.fspath(path), 200)}: {words}. It is "
        "kept at the service; save it somewhere else, or try again.",
        task_id=effect.task_id,
        request=effect.request,
    )


# One reply


def _symptom(error: TransportError) -> Symptom:
    if isinstance(error, RefusedAddressError):
        return Symptom.INVALID
    if isinstance(error, CertificateError):
        return Symptom.CERTIFICATE
    return Symptom.NOT_SENT if isinstance(error, NotSentError) else Symptom.LOST


def _resume_headers(progress: _Progress) -> dict[str, str]:
    if not progress.received:
        return {}
    if progress.validator is None:
        progress.restart()
        return {}
    return {"Range": f"bytes={progress.received}-", "If-Range": progress.validator}


def _check_status(body: Body, clock: Clock) -> str | None:
    """Return the address of a redirect, None for a body to read; anything else is a failed attempt."""
    symptom = policy.symptom_of(body.status)
    if symptom is Symptom.REDIRECT and "location" in body.headers:
        return body.headers["location"]
    if symptom is None and body.status in (200, 206):
        return None
    if body.status == 416:
        symptom = Symptom.UNREADABLE
    after = policy.parse_retry_after(body.headers.get("retry-after"), clock.utcnow())
    raise _FailedError(
        symptom or Symptom.UNREADABLE, f"the server answered {body.status}", status=body.status, after=after
    )


def _check_start(progress: _Progress, body: Body) -> None:
    """Decide where the body goes on, and how long the whole is."""
    headers = body.headers
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise _FailedError(Symptom.INVALID, "it is compressed, which was not asked for")
    length = int(headers["content-length"]) if headers.get("content-length", "").isdecimal() else None
    if body.status == 206:
        match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", headers.get("content-range", ""))
        same = headers.get("etag", progress.validator) == progress.validator
        if not progress.received or match is None or int(match[1]) != progress.received or not same:
            progress.restart()
            raise _FailedError(Symptom.UNREADABLE, "the server sent another range than was asked for", status=206)
        total = None if match[3] == "*" else int(match[3])
        if total is not None and progress.total is not None and total != progress.total:
            progress.restart()
            raise _FailedError(Symptom.UNREADABLE, "the file changed on the way", status=206)
        progress.total = total or progress.total
        return
    progress.restart()  # a 200 is the whole file, also to a request for a range
    progress.total = length
    etag = headers.get("etag", "")
    progress.validator = etag if etag.startswith('"') else None
    if length is not None and length > MAX_RESULT:
        raise _FailedError(Symptom.INVALID, f"it has {length} bytes; at most {MAX_RESULT} are fetched")


def _count(progress: _Progress, piece: bytes) -> None:
    progress.received += len(piece)
    if progress.received > MAX_RESULT:
        raise _FailedError(Symptom.INVALID, f"it has more than {MAX_RESULT} bytes")
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
        raise _FailedError(Symptom.LOST, problem)
