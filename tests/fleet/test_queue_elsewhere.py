"""What cannot be queued says that nothing was, and where a connection of the caller's really goes."""

from __future__ import annotations

import traceback
from typing import Any

import psycopg
import pytest
from queues import jobs

from finevoice_async import ConfigurationError, InvalidRequestError, JournalError
from finevoice_async.adapters import job_queue
from finevoice_async.queue import Queue

pytestmark = pytest.mark.real_time


@pytest.mark.parametrize("has_queue", [False, True])
async def test_a_connection_to_another_database(queue_url: str, empty_url: str, has_queue: bool) -> None:
    """It is refused before anything is done, whether or not there is a queue, and both databases are named."""
    if has_queue:
        await job_queue.init(empty_url)
    theirs = empty_url.replace("finevoice@", "finevoice:hunter2@")
    there, here = (url.rpartition("/")[2] for url in (empty_url, queue_url))
    async with Queue(queue_url) as queue, await psycopg.AsyncConnection.connect(theirs) as other:
        with pytest.raises(ConfigurationError) as caught:
            await queue.enqueue("Door", key="k", connection=other)
        words = f"connection goes to the database {there}, the queue is in {here}. Nothing was queued."
        assert str(caught.value) == words
        assert "hunter2" not in "".join(traceback.format_exception(caught.value))
        assert (await (await other.execute("SELECT 1")).fetchall()) == [(1,)]  # its transaction is as it was
    assert jobs(queue_url) == []


async def test_a_connection_to_another_server(queue_url: str, empty_url: str) -> None:
    """Where the name of the database is the same, the servers are told apart."""
    here = empty_url.replace("127.0.0.1", "localhost")
    name = empty_url.rpartition("/")[2]
    async with await psycopg.AsyncConnection.connect(empty_url) as other:
        queue = Queue(here)
        with pytest.raises(JournalError) as caught:
            await queue.enqueue("Door", key="k", connection=other)
        await queue.aclose()
    assert str(caught.value) == (
        f"connection goes to the database {name} at 127.0.0.1, the queue is in {name} at localhost. Nothing was queued."
    )
    assert caught.value.paid is False


async def test_a_connection_that_is_closed(queue_url: str) -> None:
    """It goes nowhere, and the error is the queue's own."""
    other = await psycopg.AsyncConnection.connect(queue_url)
    await other.close()
    async with Queue(queue_url) as queue:
        with pytest.raises(JournalError, match=r"Nothing was queued\.$"):
            await queue.enqueue("Door", key="k", connection=other)


@pytest.mark.parametrize(
    ("request_", "options"),
    [
        ("", {"key": "k"}),
        (" ", {"key": "k"}),
        ("Rain", {"key": ""}),
        ("Rain", {"key": " "}),
        ("Rain", {"key": 7}),
        ("Rain", {"key": None}),
        ("Rain", {"key": "k", "owner": " "}),
        ("Rain", {"key": "k", "duration": -1}),
        (None, {"key": "k"}),
        ({"prompt": "Rain", "nonsense": 1}, {"key": "k"}),
        (7, {"key": "k"}),
    ],
)
async def test_wishes_that_break_a_rule(queue_url: str, request_: Any, options: dict[str, Any]) -> None:
    """Each says so in the words of a queue, once."""
    async with Queue(queue_url) as queue:
        with pytest.raises(InvalidRequestError) as caught:
            await queue.enqueue(request_, **options)
    assert str(caught.value).endswith(". Nothing was queued.")
    assert str(caught.value).count("Nothing was") == 1
    assert jobs(queue_url) == []
