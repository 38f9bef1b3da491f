"""Ids that the service gives twice, gives none of, or hides in answers that are too long or cut off."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from ledger.helpers import (
    ACCEPTED,
    DONE,
    FINISHED,
    LINK,
    RUNNING,
    SUBMITTED,
    UNKNOWN,
    Left,
    Visit,
    all_of,
    in_turn,
    leave,
    rows,
    the_row,
)
from raw_server import Peer, RawServer, Request

from finevoice_async import SubmitUnknownError

WITH_RESULT = json.dumps({"task_id": "t", "status": "completed", "url": LINK}).encode()
RUNS = [(200, RUNNING)] * 3
SIZE = 1_300_000  # over 1 MiB


@pytest.mark.parametrize("journalled", [True, False])
async def test_the_second_submission_hears(visit: Visit, path: Path, journalled: bool) -> None:
    """The service gives one id to two submissions: the first goes on, the second is unknown and has the id."""
    async with (
        RawServer(in_turn(posts=[(200, ACCEPTED)], polls=[*RUNS, (200, FINISHED)])) as server,
        visit(server.url, journal=path if journalled else None) as session,
    ):
        first = await session.submit("first")
        waiting = asyncio.create_task(first.wait())
        with pytest.raises(SubmitUnknownError) as caught:
            await session.submit("second")
        assert caught.value.task_id == "t"
        assert caught.value.request is not None
        assert caught.value.request.prompt == "second"
        async with asyncio.timeout(120):
            assert (await waiting).request == first.request
        assert session.stats.running == session.stats.submitting == 0
    if journalled:
        assert [(row.state, row.task_id) for row in await rows(path)] == [(DONE, "t"), (UNKNOWN, None)]


@pytest.mark.parametrize("journalled", [True, False])
async def test_both_at_once(visit: Visit, path: Path, journalled: bool) -> None:
    """Two submissions get one id in the same moment: one has the effect, the other hears of the doubt."""
    async with (
        RawServer(in_turn(posts=[(200, ACCEPTED)], polls=[*RUNS, (200, FINISHED)])) as server,
        visit(server.url, journal=path if journalled else None) as session,
        asyncio.timeout(120),
    ):
        calls = [session.generate(f"rain {number}") for number in range(2)]
        told = await asyncio.gather(*calls, return_exceptions=True)
        (error,) = [one for one in told if isinstance(one, BaseException)]
        assert isinstance(error, SubmitUnknownError)
        assert error.task_id == "t"
    if journalled:
        assert sorted(row.state.value for row in await rows(path)) == ["done", "unknown"]


@pytest.mark.parametrize("journalled", [True, False])
@pytest.mark.parametrize("ordered", [True, False])
async def test_many_get_one_id(visit: Visit, path: Path, journalled: bool, ordered: bool) -> None:
    """A service that gives one id for ever: each of many has an outcome, one an effect."""
    async with (
        RawServer(in_turn(posts=[(200, ACCEPTED)], polls=[*RUNS, (200, FINISHED)])) as server,
        visit(server.url, journal=path if journalled else None) as session,
        asyncio.timeout(600),
    ):
        outcomes = await all_of(session.generate_many(["a", "b", "c", "d"], ordered=ordered))
    unknown = [outcome for outcome in outcomes if isinstance(outcome.error, SubmitUnknownError)]
    assert len(outcomes) == 4
    assert len(unknown) == 3
    assert {outcome.task_id for outcome in outcomes} == {"t"}


async def test_the_id_of_an_earlier_effect(visit: Visit, path: Path) -> None:
    """The service gives an id that an ended effect of the journal has: the new one is unknown, the old one kept."""
    await leave(path, Left(DONE, "old", task_id="t"))
    async with (
        RawServer(in_turn(posts=[(200, ACCEPTED)], polls=[(200, FINISHED)])) as server,
        visit(server.url, journal=path) as session,
    ):
        with pytest.raises(SubmitUnknownError) as caught:
            await session.submit("new", key="k")
        assert caught.value.task_id == "t"
        with pytest.raises(SubmitUnknownError):
            await session.submit("new", key="k")
        assert session.tasks == ()
        assert server.count("POST") == 1
    assert [(row.state, row.task_id) for row in await rows(path)] == [(DONE, "t"), (UNKNOWN, None)]


async def test_the_id_of_a_task_that_was_taken_up(visit: Visit, path: Path) -> None:
    """The service gives the id of a task that an earlier process submitted: that one goes on."""
    await leave(path, Left(SUBMITTED, "old", task_id="t"))
    async with (
        RawServer(in_turn(posts=[(200, ACCEPTED)], polls=[*RUNS, (200, FINISHED)])) as server,
        visit(server.url, journal=path) as session,
    ):
        with pytest.raises(SubmitUnknownError):
            await session.submit("new")
        await asyncio.sleep(60)
    assert [(row.state, row.task_id) for row in await rows(path)] == [(DONE, "t"), (UNKNOWN, None)]


async def test_one_id_with_the_result_twice(visit: Visit, path: Path) -> None:
    """Two answers carry the same id and their result: the second is unknown, to its caller and in its row."""
    async with (
        RawServer(in_turn(posts=[(200, WITH_RESULT)])) as server,
        visit(server.url, journal=path) as session,
    ):
        assert (await session.generate("first")).task_id == "t"
        with pytest.raises(SubmitUnknownError) as caught:
            await session.generate("second")
        assert caught.value.task_id == "t"
    assert [(row.state, row.task_id) for row in await rows(path)] == [(DONE, "t"), (UNKNOWN, None)]


async def test_two_keys_get_one_id(visit: Visit, path: Path) -> None:
    """The key of the second submission does not pay again."""
    async with (
        RawServer(in_turn(posts=[(200, ACCEPTED)], polls=[(200, FINISHED)])) as server,
        visit(server.url, journal=path) as session,
    ):
        assert (await session.generate("first", key="1")).task_id == "t"
        for _ in range(2):
            with pytest.raises(SubmitUnknownError):
                await session.generate("second", key="2")
        assert server.count("POST") == 2


@pytest.mark.parametrize("journalled", [True, False])
async def test_a_result_without_an_id(visit: Visit, path: Path, journalled: bool) -> None:
    """A result without an id ends, while a task whose id is "None" goes on to its end."""
    posts = [(200, b'{"task_id": "None"}'), (200, json.dumps({"status": 200, "url": LINK}).encode())]
    async with (
        RawServer(in_turn(posts=posts, polls=[*RUNS, (200, FINISHED)])) as server,
        visit(server.url, journal=path if journalled else None) as session,
    ):
        first = await session.submit("first")
        waiting = asyncio.create_task(first.wait())
        assert (await session.generate("second", key="2" if journalled else None)).task_id is None
        assert [task.id for task in session.tasks] == ["None"]
        async with asyncio.timeout(120):
            assert (await waiting).task_id == "None"
        if journalled:
            assert (await session.generate("second", key="2")).urls == (LINK,)
        assert server.count("POST") == 2


@pytest.mark.parametrize("reply", ["long", "cut", "cut chunk", "reset", "late"])
async def test_an_id_before_what_cannot_be_read(visit: Visit, path: Path, reply: str) -> None:
    """A 2xx answer is far too long, or breaks off after its id: the id is kept, and the task followed."""

    async def script(request: Request, peer: Peer) -> None:
        begin = b'{"task_id": "t", "pad": "'
        if request.method == "GET":
            peer.answer(200, FINISHED)
        elif reply == "long":
            peer.answer(200, begin + b"x" * SIZE + b'"}')
        elif reply == "cut chunk":
            peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(begin), begin))
            await peer.close()
        else:
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + begin)
            if reply == "late":
                await peer.hang()
            await asyncio.sleep(1)
            await (peer.reset() if reply == "reset" else peer.close())

    async with RawServer(script) as server, visit(server.url, journal=path) as session:
        task = await session.submit("rain", key="k")
        assert task.id == "t"
        assert (await task).task_id == "t"
        assert server.count("POST") == 1
    row = await the_row(path)
    assert (row.state, row.task_id) == (DONE, "t")


async def check_unknown(visit: Visit, path: Path, script: Any) -> None:
    """An answer without a whole id is unknown, and not sent again."""
    async with RawServer(script) as server, visit(server.url, journal=path) as session:
        for _ in range(2):
            with pytest.raises(SubmitUnknownError) as caught:
                await session.submit("rain", key="k")
            assert caught.value.task_id is None
        assert server.count("POST") == 1
    assert (await the_row(path)).state is UNKNOWN


@pytest.mark.parametrize("begin", [b'{"task_id": "p1-ab', b'{"task_id": 47', b'{"task_id"', b'{"pad": "x', b""])
async def test_a_cut_before_the_id_is_whole(visit: Visit, path: Path, begin: bytes) -> None:
    """An answer that breaks off in the middle of its id has none."""

    async def script(request: Request, peer: Peer) -> None:
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + begin)
        await peer.close()

    await check_unknown(visit, path, script)


async def test_a_long_answer_without_an_id(visit: Visit, path: Path) -> None:
    """A 2xx answer that is far too long and has no id is unknown."""
    await check_unknown(visit, path, in_turn(posts=[(200, b'{"pad": "' + b"x" * SIZE + b'"}')]))


async def test_an_id_behind_what_is_far_too_long(visit: Visit, path: Path) -> None:
    """The id comes after more than anybody reads: the caller has it, or hears of the doubt, as the row says."""
    body = b'{"pad": "' + b"x" * SIZE + b'", "task_id": "t"}'
    script = in_turn(posts=[(200, body)], polls=[(200, FINISHED)])
    async with RawServer(script) as server, visit(server.url, journal=path) as session:
        (told,) = await asyncio.gather(session.generate("rain", key="k"), return_exceptions=True)
        assert server.count("POST") == 1
    row = await the_row(path)
    if isinstance(told, BaseException):
        assert isinstance(told, SubmitUnknownError)
        assert row.state is UNKNOWN
    else:
        assert (told.task_id, row.task_id, row.state) == ("t", "t", DONE)


@pytest.mark.parametrize("status", [400, 500])
async def test_a_long_refusal(visit: Visit, path: Path, status: int) -> None:
    """An error page that is far too long still means what its status says."""
    script = in_turn(posts=[(status, b"<html>" + b"x" * SIZE)])
    async with RawServer(script) as server, visit(server.url, journal=path) as session:
        (told,) = await asyncio.gather(session.submit("rain"), return_exceptions=True)
        assert getattr(told, "status", None) == status
        assert isinstance(told, SubmitUnknownError) is (status == 500)
        assert len(await all_of(session.rows(UNKNOWN))) == (status == 500)
