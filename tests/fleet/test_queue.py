"""Wishes in a queue: in the caller's own transaction or at once, checked beforehand, and readable as they were."""

from __future__ import annotations

import gc
import importlib
import subprocess
import sys
import traceback
import warnings
from typing import Any

import procrastinate
import psycopg
import pytest
from fleets import sql
from queues import fill, jobs

from finevoice_async import ConfigurationError, InvalidRequestError, JournalError, SessionClosedError
from finevoice_async.adapters import job_queue
from finevoice_async.adapters.job_queue import Job
from finevoice_async.core.requests import SfxRequest
from finevoice_async.queue import Queue

pytestmark = pytest.mark.real_time


async def test_it_is_part_of_a_transaction(queue_url: str) -> None:
    """Committed, it will be made, together with what else the transaction did; before that nobody sees it."""
    sql(queue_url, "CREATE TABLE scenes (name text)")
    async with Queue(queue_url) as queue, await psycopg.AsyncConnection.connect(queue_url) as mine:
        await mine.execute("INSERT INTO scenes VALUES ('3')")
        await queue.enqueue("Door", key="scene 3", connection=mine)
        assert jobs(queue_url) == sql(queue_url, "SELECT * FROM scenes") == []
        await mine.commit()
        assert jobs(queue_url) == [("scene 3", "todo", 0)]
        assert sql(queue_url, "SELECT * FROM scenes") == [("3",)]
    sql(queue_url, "DROP TABLE scenes")


async def test_a_transaction_that_is_rolled_back(queue_url: str) -> None:
    """Nothing was wished for; a part of a transaction may be taken back, too."""
    async with Queue(queue_url) as queue, await psycopg.AsyncConnection.connect(queue_url) as mine:
        await queue.enqueue("Door", key="a", connection=mine)
        await mine.rollback()
        assert jobs(queue_url) == []
        async with mine.transaction():
            await queue.enqueue("Door", key="b", connection=mine)
            async with mine.transaction(force_rollback=True):
                await queue.enqueue("Door", key="c", connection=mine)
        await mine.commit()
        assert jobs(queue_url) == [("b", "todo", 0)]


async def test_without_a_transaction(queue_url: str) -> None:
    """Without a connection of the caller's it is kept once the call returns; twice is two deliveries of one effect."""
    await fill(queue_url, "a", "a")
    assert jobs(queue_url) == [("a", "todo", 0)] * 2


@pytest.mark.parametrize(
    ("request_", "options", "words"),
    [
        ("Door", {}, "required keyword-only argument: 'key'"),
        ("Door", {"key": None}, "needs a key"),
        ("Door", {"key": " "}, "must be text that is not blank"),
        ("Door", {"key": "k", "owner": 7}, "owner must be text"),
        ("", {"key": "k"}, "must not be blank"),
        ("Door", {"key": "k", "duration": 31}, "at most 30"),
        ("Door", {"key": "k", "prompt": "Wind"}, "must be given once"),
        (None, {"key": "k"}, "prompt must be given"),
        ({"prompt": "Door", "volume": 3}, {"key": "k"}, "field name"),
    ],
)
async def test_it_is_checked_before_it_is_queued(
    queue_url: str, request_: Any, options: dict[str, Any], words: str
) -> None:
    """What could not be made is refused at once; the caller's transaction goes on as if nothing had been asked."""
    async with Queue(queue_url) as queue, await psycopg.AsyncConnection.connect(queue_url) as mine:
        with pytest.raises((InvalidRequestError, TypeError), match=words):
            await queue.enqueue(request_, connection=mine, **options)
        await queue.enqueue("Wind", key="good", connection=mine)
    assert jobs(queue_url) == [("good", "todo", 0)]


@pytest.mark.parametrize("text", ["ключ", "a\0b", "a\\0b", "\\", "😀\n\t", '"quoted"', "%s"])
async def test_every_text_is_read_as_it_was(queue_url: str, text: str) -> None:
    """Any letter of a key, an owner or a prompt comes back, also NUL, which jsonb refuses."""
    request = SfxRequest(text, negative_prompt=text, duration=2.5, use_async=False)
    async with Queue(queue_url) as queue:
        await queue.enqueue(request, key=text, owner=text)
    ((spelled,),) = sql(queue_url, "SELECT args FROM procrastinate_jobs")
    assert Job.read(**spelled) == Job(request=request, key=text, owner=text)


async def test_a_connection_of_another_kind(queue_url: str) -> None:
    """Only psycopg's own asynchronous one has transactions that a wish can be a part of."""
    async with Queue(queue_url) as queue:
        with psycopg.connect(queue_url) as sync:
            for other in (sync, object()):
                with pytest.raises(ConfigurationError, match=r"must be a psycopg\.AsyncConnection"):
                    await queue.enqueue("Door", key="k", connection=other)  # type: ignore[arg-type]  # that is the point
    assert jobs(queue_url) == []


async def test_a_transaction_that_has_failed_already(queue_url: str) -> None:
    """Nothing is queued in it, and the error says why."""
    async with Queue(queue_url) as queue, await psycopg.AsyncConnection.connect(queue_url) as mine:
        with pytest.raises(psycopg.Error):
            await mine.execute("SELECT 1 / 0")
        with pytest.raises(JournalError, match=r"current transaction is aborted.*Nothing was queued\.") as caught:
            await queue.enqueue("Door", key="k", connection=mine)
        assert caught.value.paid is False
        await mine.rollback()
        await mine.close()
        with pytest.raises(JournalError, match="Nothing was queued"):
            await queue.enqueue("Door", key="k", connection=mine)
    assert jobs(queue_url) == []


async def test_the_queue_is_missing(empty_url: str) -> None:
    """A database that nobody has prepared is told in one line with what to do, and then it may be tried again."""
    queue = Queue(empty_url)
    words = r"is missing\. Make it once: finevoice fleet init URL"
    with pytest.raises(JournalError, match=words):
        await queue.enqueue("Door", key="k")
    async with await psycopg.AsyncConnection.connect(empty_url) as mine:
        with pytest.raises(JournalError, match=words):
            await queue.enqueue("Door", key="k", connection=mine)
    for _ in range(2):
        await job_queue.init(empty_url)
    await queue.enqueue("Door", key="k")
    await queue.aclose()
    assert jobs(empty_url) == [("k", "todo", 0)]
    tables = "SELECT DISTINCT schemaname FROM pg_tables WHERE tablename ~ '^procrastinate'"
    assert sql(empty_url, tables) == [("public",)]


@pytest.mark.parametrize(
    "url", ["postgresql://nobody:hunter2@127.0.0.1:1/none", "postgresql://x:hunter2@[bad/y", "mysql://x:hunter2@h/y"]
)
async def test_a_server_that_is_not_there(url: str) -> None:
    """What cannot be reached is told at once; the password is in no message, repr or traceback."""
    with pytest.raises((JournalError, ConfigurationError)) as caught:
        await Queue(url).enqueue("Door", key="k")
    told = "".join(traceback.format_exception(caught.value)) + str(caught.value) + repr(caught.value)
    assert "hunter2" not in told.replace(url, "")
    assert caught.value.paid is False


async def test_closed(queue_url: str) -> None:
    """After its end nothing is queued; to close it twice is harmless, and its repr says how it stands."""
    queue = Queue(queue_url)
    assert repr(queue) == "<Queue new>"
    async with queue:
        assert repr(queue) == "<Queue open>"
    await queue.aclose()
    with pytest.raises(SessionClosedError):
        await queue.enqueue("Door", key="k")
    with pytest.raises(SessionClosedError):
        await queue.__aenter__()
    assert repr(queue) == "<Queue closed>"


async def test_dropped(queue_url: str) -> None:
    """A queue that nobody closes is told of."""
    queue = Queue(queue_url)
    await queue.enqueue("Door", key="k")
    app = queue._app
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        del queue
        gc.collect()
    assert "A Queue was dropped without aclose()" in [str(each.message) for each in told]
    await app.close_async()


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where procrastinate is not installed, one line says what to install."""
    monkeypatch.setitem(sys.modules, "procrastinate", None)
    monkeypatch.delitem(sys.modules, "finevoice_async.adapters.job_queue")
    monkeypatch.delattr(importlib.import_module("finevoice_async.adapters"), "job_queue")
    with pytest.raises(ConfigurationError, match=r"pip install 'finevoice-async\[queue\]'"):
        Queue("postgresql://h/d")


def test_the_module_needs_no_extra() -> None:
    """To import it costs nothing: driver and queue come with the first `Queue`."""
    code = "import sys, finevoice_async.queue; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"psycopg", "procrastinate"}.isdisjoint(ran.stdout.split())


@pytest.mark.parametrize(("is_mine", "words"), [(True, "Nothing was queued"), (False, "To queue it again is harmless")])
async def test_an_answer_that_is_lost(
    queue_url: str, monkeypatch: pytest.MonkeyPatch, is_mine: bool, words: str
) -> None:
    """Nobody knows then whether it is in the queue, unless the transaction was the caller's, who rolls it back."""

    async def cut(*_: Any, **__: Any) -> None:
        raise procrastinate.exceptions.ConnectorException from psycopg.OperationalError("cut")

    async with Queue(queue_url) as queue, await psycopg.AsyncConnection.connect(queue_url) as mine:
        monkeypatch.setattr(type(queue._app.configure_task("x")), "defer_async", cut)
        with pytest.raises(JournalError, match=words) as caught:
            await queue.enqueue("Door", key="k", connection=mine if is_mine else None)
        assert caught.value.paid is False
