"""A durable queue of wishes for effects: written in a transaction of yours, made by `finevoice worker` elsewhere.

::

    from finevoice_async.queue import Queue

    async with Queue("postgresql://...") as queue:
        async with connection.transaction():
            ...  # an order, a scene: whatever belongs together
            await queue.enqueue("Door creaks open", key="scene 3, door", connection=connection)

It is made once that transaction is committed, and never was wished for if it is rolled back. The queue only delivers:
a job may be delivered twice, and the journal sees to it that a key is one effect, paid for once.
"""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from finevoice_async.adapters.journals import names_a_database
from finevoice_async.core.fields import SfxDict
from finevoice_async.core.ledger import check_key
from finevoice_async.core.requests import OneRequest, as_request
from finevoice_async.errors import ConfigurationError, InvalidRequestError, SessionClosedError
from finevoice_async.reprs import with_safe_repr

if TYPE_CHECKING:
    import psycopg

__all__ = ["Queue"]

EXTRA = "A queue needs procrastinate, which is not installed: pip install 'finevoice-async[queue]'."


def check_url(url: str) -> str:
    """Return a URL that names a PostgreSQL database.

    Raises:
        ConfigurationError: It is another one, which is not shown, or procrastinate is missing.
    """
    if not names_a_database(url):
        raise ConfigurationError("A queue needs the URL of a PostgreSQL database: postgresql://user@host/database.")
    try:
        import finevoice_async.adapters.job_queue  # noqa: F401 - with psycopg and procrastinate, for who has a queue
    except ImportError as error:  # also of the libpq that psycopg wraps
        raise ConfigurationError(EXTRA) from error
    return url


@with_safe_repr
class Queue:
    """Puts wishes for effects into the queue of a fleet.

    Use it with ``async with``, or close it with `aclose`. It belongs to the loop that uses it first.
    """

    def __init__(self, url: str) -> None:
        """Name the database; nothing is opened before the first use.

        Args:
            url: Where it is: that of the sessions' journal. It needs `finevoice fleet init URL` once.

        Raises:
            ConfigurationError: It is no PostgreSQL URL, or cannot be read, or procrastinate is not installed.
        """
        self._url = check_url(url)
        from finevoice_async.adapters import job_queue

        self._jobs = job_queue
        self._app = job_queue.make_app(url)
        # All mutable state:
        self._opening = asyncio.Lock()
        self._is_open = False
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open" if self._is_open else "new"
        return f"<Queue {state}>"

    def __del__(self) -> None:
        if getattr(self, "_is_open", False):
            warnings.warn("A Queue was dropped without aclose()", ResourceWarning, stacklevel=2, source=self)

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _open(self) -> None:
        async with self._opening:
            self._check_not_closed()
            if self._is_open:
                return
            await self._jobs.check(self._url)
            try:
                await self._app.open_async()
            except self._jobs.QUEUE_ERRORS as error:
                await self._close_app()
                raise self._jobs.failure(self._url, error, known_not_kept=True) from error
            except BaseException:
                await self._close_app()
                raise
            self._is_open = True

    def _check_not_closed(self) -> None:
        if self._closed:
            raise SessionClosedError("The queue was closed. Nothing was queued.")

    async def aclose(self) -> None:
        """Close it. What was queued stays. Idempotent."""
        self._closed = True
        async with self._opening:
            if self._is_open:
                self._is_open = False
                await self._close_app()

    async def _close_app(self) -> None:
        with contextlib.suppress(*self._jobs.QUEUE_ERRORS):  # the server drops what cannot be closed
            await self._app.close_async()

    async def enqueue(
        self,
        request: OneRequest | None = None,
        *,
        key: str,
        owner: str | None = None,
        connection: psycopg.AsyncConnection[Any] | None = None,
        **fields: Unpack[SfxDict],
    ) -> None:
        """Queue a wish for an effect: a worker makes it, and saves it.

        Args:
            request: A prompt, a request, or a dict of its fields.
            key: Your own name for the effect. Queued twice, it is one effect, paid for once; with another request it
                is refused by the worker.
            owner: On whose behalf: effects that wait for a slot take turns by owner.
            connection: A connection of yours, to this database, with a transaction: the wish is a part of it. Left
                out, it is kept once this returns.
            fields: The other fields of `SfxRequest`.

        Raises:
            InvalidRequestError: A field breaks its rule, or there is no key. Nothing was queued.
            JournalError: It could not be queued. In a transaction of yours, that is to be rolled back.
            SessionClosedError: The queue is closed.
            ConfigurationError: `connection` is no asynchronous connection of psycopg's, or one to another database.
        """
        try:
            wanted, name, whose = as_request(request, fields), check_key(key), check_key(owner, "owner")
        except InvalidRequestError as error:
            error.message = error.message.removesuffix("Nothing was sent.").rstrip()
            error.add_words("Nothing was queued.")
            raise
        if name is None:
            raise InvalidRequestError(
                "What is queued needs a key: it may be delivered twice, and the key is what makes it one effect. "
                "Nothing was queued."
            )
        self._check_not_closed()
        self._check(connection)
        if connection is None:
            await self._open()
        job = self._jobs.Job(request=wanted, key=name, owner=whose)
        task = self._app.configure_task(
            self._jobs.TASK, queue=self._jobs.QUEUE, task_kwargs=job.spell(), connection=connection
        )
        try:
            await task.defer_async()
        except self._jobs.QUEUE_ERRORS as error:
            if connection is None:
                raise self._jobs.failure(self._url, error, known_not_kept=False) from error
            raise self._jobs.failure_of_theirs(self._url, error, connection) from error

    def _check(self, connection: object) -> None:
        import psycopg

        if connection is not None and not isinstance(connection, psycopg.AsyncConnection):
            raise ConfigurationError(
                f"connection must be a psycopg.AsyncConnection with a transaction of yours, not a "
                f"{type(connection).__name__}. Nothing was queued."
            )
        if connection is not None and (words := self._jobs.goes_elsewhere(self._url, connection)) is not None:
            raise ConfigurationError(words)
