"""Downloads: whole, in parts, and without a key."""

from __future__ import annotations

import asyncio
import io
import wave
from typing import TYPE_CHECKING

import aiohttp
import pytest
from yarl import URL

from finevoice_async.core.requests import SfxRequest
from finevoice_async.emulator import Emulator
from finevoice_async.emulator.faults import FaultName
from finevoice_async.emulator.library import Library
from finevoice_async.emulator.ranges import UnsatisfiableRangeError, read_range

if TYPE_CHECKING:
    from emulator.conftest import Caller


async def test_a_whole_file(caller: Caller, emulator: Emulator) -> None:
    """The file is a WAV of the asked length, with all headers that a resumed download needs."""
    link = await caller.link(duration=1.5)
    answered = await caller.ask("GET", link)
    assert answered.status == 200
    assert answered.headers["Content-Length"] == str(len(answered.body))
    assert answered.headers["Accept-Ranges"] == "bytes"
    assert answered.headers["Content-Type"] == "audio/wav"
    assert answered.headers["ETag"].startswith('"')
    with wave.open(io.BytesIO(answered.body)) as file:
        assert file.getnframes() == 1.5 * file.getframerate()
    assert (emulator.ledger.fetches, emulator.ledger.fetched, emulator.ledger.leaked_keys) == (1, 1, 0)


async def test_a_leaked_key_is_noted(caller: Caller, emulator: Emulator) -> None:
    """A download that brings the key along gets its file, and the ledger says so."""
    link = await caller.link(duration=0.1)
    assert (await caller.ask("GET", link, key=emulator.api_key)).status == 200
    assert emulator.ledger.leaked_keys == 1


async def test_resuming(caller: Caller, emulator: Emulator) -> None:
    """Two parts make the whole; only one that reaches the end counts as fetched."""
    link = await caller.link(duration=0.5)
    first = await caller.ask("GET", link, headers={"Range": "bytes=0-99"})
    assert (first.status, len(first.body), emulator.ledger.fetched) == (206, 100, 0)
    headers = {"Range": "bytes=100-", "If-Range": first.headers["ETag"]}
    rest = await caller.ask("GET", link, headers=headers)
    whole = await caller.ask("GET", link)
    size = len(whole.body)
    assert (rest.status, rest.headers["Content-Range"]) == (206, f"bytes 100-{size - 1}/{size}")
    assert first.body + rest.body == whole.body
    assert emulator.ledger.fetched == 2


async def test_a_changed_file_comes_whole(caller: Caller) -> None:
    """A range of another version of the file is not given: the answer is the whole file."""
    link = await caller.link(duration=0.1)
    answered = await caller.ask("GET", link, headers={"Range": "bytes=5-", "If-Range": '"other"'})
    assert (answered.status, "Content-Range" in answered.headers) == (200, False)


async def test_a_range_beyond_the_end(caller: Caller) -> None:
    """It is answered 416 with the file's size."""
    link = await caller.link(duration=0.1)
    size = len((await caller.ask("GET", link)).body)
    answered = await caller.ask("GET", link, headers={"Range": f"bytes={size}-"})
    assert (answered.status, answered.headers["Content-Range"]) == (416, f"bytes */{size}")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-", (0, 10)),
        ("bytes=3-5", (3, 6)),
        ("bytes=3-99", (3, 10)),
        ("bytes=-4", (6, 10)),
        ("bytes=-99", (0, 10)),
        ("bytes=9-9", (9, 10)),
        ("bytes=5-3", None),
        ("bytes=-", None),
        ("bytes=1-2,4-5", None),
        ("lines=1-2", None),
        ("bytes=a-b", None),
        ("", None),
    ],
)
def test_reading_ranges(header: str | None, expected: tuple[int, int] | None) -> None:
    """One range of bytes is read as RFC 9110 has it; anything else is ignored."""
    assert read_range(header, 10) == expected


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=10-12", "bytes=-0"])
def test_unsatisfiable_ranges(header: str) -> None:
    """A range of bytes that the file does not have is said to be so."""
    with pytest.raises(UnsatisfiableRangeError):
        read_range(header, 10)


async def test_no_file_before_the_end(caller: Caller, emulator: Emulator) -> None:
    """While the task runs there is no file, even where the link can be guessed."""
    emulator.service_time = 5
    task_id = await caller.submit_id()
    for name in (f"{task_id}.0.wav", f"{task_id}.1.wav", "nobody.0.wav", "x"):
        assert (await caller.ask("GET", f"/files/{name}")).status == 404


async def test_what_is_not_sent_to_the_end_is_not_counted(
    caller: Caller, emulator: Emulator, http: aiohttp.ClientSession
) -> None:
    """A download that the client leaves in the middle is asked for, and not fetched."""
    link = await caller.link(duration=1)
    emulator.inject("download.slow", value=5)
    async with http.get(link) as response:
        await response.content.readany()
    await asyncio.sleep(10)
    assert (emulator.ledger.fetches, emulator.ledger.fetched) == (1, 0)
    await caller.ask("GET", link)
    assert (emulator.ledger.fetches, emulator.ledger.fetched) == (2, 1)


@pytest.mark.parametrize("fault", [None, "download.slow", "download.whole", "download.cut"])
async def test_a_client_may_leave_before_the_answer(
    caller: Caller, emulator: Emulator, caplog: pytest.LogCaptureFixture, fault: FaultName | None
) -> None:
    """A client that is gone before the head of its answer is no error to log; the next one has the file."""
    link = URL(await caller.link(duration=5))
    if fault is not None:
        emulator.inject(fault)
    _, writer = await asyncio.open_connection(link.host, link.port)
    writer.write(f"GET {link.raw_path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
    writer.transport.abort()  # what was written has left; the file has to be made yet
    await asyncio.sleep(10)
    assert (emulator.ledger.fetches, emulator.ledger.fetched) == (1, 0)
    assert (await caller.ask("GET", str(link))).status == 200
    assert (emulator.ledger.fetches, emulator.ledger.fetched) == (2, 1)
    assert caplog.text == ""


async def test_files_are_made_once_and_bounded() -> None:
    """A request's file is made once, also for simultaneous asking; the least used go when the room is spent."""
    library = Library(max_bytes=10_000)
    requests = [SfxRequest(f"bell {number}", duration=0.1) for number in range(5)]  # 4,454 bytes each
    same = await asyncio.gather(*(library.get(requests[0]) for _ in range(5)))
    assert all(file is same[0] for file in same)
    for request in requests:
        await library.get(request)
    assert library.size == 2 * len(same[0].content)
    again = await library.get(requests[0])
    assert again is not same[0]
    assert again == same[0]


async def test_a_file_above_the_bound_is_still_given() -> None:
    """One file may be larger than the whole room."""
    assert len((await Library(max_bytes=10).get(SfxRequest("rain", duration=0.1))).content) > 10
