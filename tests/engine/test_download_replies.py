"""What a file server may answer, and what comes of it: the whole result, another attempt, or an error that says why."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from fake_journal import FakeJournal
from fakes import AWAY, FINISHED, LINK, LOST, Answer, FakeBody, FakeFetcher, FakeTransport, says
from parts import RAIN, Parts, assemble

from finevoice_async.config import Retry
from finevoice_async.core.failures import Failure, FailureKind
from finevoice_async.core.ledger import EffectState
from finevoice_async.engine.downloads import MAX_REDIRECTS, MAX_RESULT, Source
from finevoice_async.errors import DownloadError, JournalError

OLD = "https://cdn.test/old.mp3"
ETAG = '"v1"'
CUT = Failure(FailureKind.LOST, "the connection was cut")


def source(task_id: str | None = "t1", row_id: int | None = None) -> Source:
    """Return where the result of the tests lies."""
    return Source(url=OLD, task_id=task_id, request=RAIN, row_id=row_id)


def parts_with(*answers: FakeBody | Failure, transport: FakeTransport | None = None, attempts: int = 4) -> Parts:
    """Return parts whose file server gives these answers."""
    return assemble(transport, fetcher=FakeFetcher(*answers), retry=Retry(attempts=attempts), journal=FakeJournal())


def whole(*pieces: bytes, **headers: str) -> FakeBody:
    """Return the answer to a first request."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return FakeBody(200, pieces, names)


def rest(start: int, *pieces: bytes, total: str = "6", **headers: str) -> FakeBody:
    """Return the answer to a request for the rest."""
    end = start + sum(map(len, pieces)) - 1
    return FakeBody(206, pieces, {"content-range": f"bytes {start}-{end}/{total}", **headers})


def cut(body: FakeBody) -> FakeBody:
    """Let an answer break off at its end."""
    body.failure = CUT
    return body


def begun(**headers: str) -> FakeBody:
    """Return an answer that breaks off after half of its six bytes."""
    return cut(whole(b"abc", content_length="6", **headers))


async def read(parts: Parts) -> bytes:
    """Read the result, and check that no connection stays open."""
    try:
        return await parts.downloads.read(source())
    finally:
        assert parts.fetcher.reading == 0


# Whole


@pytest.mark.parametrize("body", [whole(b"abc", b"def", content_length="6"), whole(b"abc", b"def"), whole(b"abcdef")])
async def test_in_one_go(body: FakeBody) -> None:
    """A body that is whole is the result, whether its length was told or not; nothing goes with the request."""
    async with parts_with(body) as parts:
        assert await read(parts) == b"abcdef"
        assert parts.fetcher.asked == [(OLD, {})]


async def test_a_wrong_length_is_not_whole() -> None:
    """What has not the length that was told is fetched again."""
    too_short, too_long = whole(b"abc", content_length="6"), whole(b"abcdefgh", content_length="6", etag=ETAG)
    async with parts_with(too_short, too_long, whole(b"abcdef", content_length="6")) as parts:
        assert await read(parts) == b"abcdef"
        assert [headers for _, headers in parts.fetcher.asked] == [{}] * 3


async def test_cut_behind_its_end() -> None:
    """What has its length is whole, however its connection ends."""
    async with parts_with(cut(whole(b"abc", b"def", content_length="6")), attempts=1) as parts:
        assert await read(parts) == b"abcdef"
        assert len(parts.fetcher.asked) == 1


# Resumed


async def test_resumed() -> None:
    """A download that was cut goes on where it was, if the server can say that it is the same file."""
    answers = begun(etag=ETAG), cut(rest(3, b"d")), rest(4, b"ef", etag=ETAG)
    async with parts_with(*answers) as parts:
        assert await read(parts) == b"abcdef"
        assert [headers for _, headers in parts.fetcher.asked] == [
            {},
            {"Range": "bytes=3-", "If-Range": ETAG},
            {"Range": "bytes=4-", "If-Range": ETAG},
        ]


@pytest.mark.parametrize("etag", [{}, {"etag": 'W/"v1"'}])
async def test_begun_anew_without_proof(etag: dict[str, str]) -> None:
    """Without a strong ETag nobody can say that the rest is of the same file."""
    async with parts_with(begun(**etag), whole(b"ABCDEF", content_length="6")) as parts:
        assert await read(parts) == b"ABCDEF"
        assert parts.fetcher.asked[1][1] == {}


@pytest.mark.parametrize(
    "answer",
    [
        rest(2, b"cde"),
        rest(3, b"def", etag='"v2"'),
        rest(3, b"defg", total="7"),
        FakeBody(206, (b"def",), {}),
        FakeBody(206, (b"def",), {"content-range": "pages 1-2/3"}),
        FakeBody(416),
    ],
    ids=["start", "etag", "length", "no range", "odd range", "416"],
)
async def test_another_range_than_was_asked_for(answer: FakeBody) -> None:
    """An answer that does not fit what there is voids it: the next attempt begins anew."""
    async with parts_with(begun(etag=ETAG), answer, whole(b"ABCDEF", content_length="6")) as parts:
        assert await read(parts) == b"ABCDEF"
        assert [sorted(headers) for _, headers in parts.fetcher.asked] == [[], ["If-Range", "Range"], []]


async def test_the_whole_file_for_a_range() -> None:
    """A server that does not know ranges, or whose file has changed, sends the whole: it replaces what there was."""
    async with parts_with(begun(etag=ETAG), whole(b"ABCDEFGH", content_length="8")) as parts:
        assert await read(parts) == b"ABCDEFGH"


async def test_a_rest_whose_length_is_not_told() -> None:
    """What the first answer said of the length counts on."""
    async with parts_with(begun(etag=ETAG), rest(3, b"d", total="*"), rest(4, b"ef", total="*")) as parts:
        assert await read(parts) == b"abcdef"


async def test_a_part_that_nobody_asked_for() -> None:
    """A 206 to a request for the whole is no answer."""
    async with parts_with(rest(0, b"abcdef"), whole(b"abcdef")) as parts:
        assert await read(parts) == b"abcdef"


@pytest.mark.parametrize("resumable", [True, False])
async def test_a_stream(resumable: bool) -> None:
    """Pieces that were given out cannot be taken back: a stream that must begin anew is an error."""
    answers = [begun(etag=ETAG), rest(3, b"def")] if resumable else [begun(), whole(b"ABCDEF")]
    async with parts_with(*answers) as parts:
        pieces = parts.downloads.stream(source())
        assert await anext(pieces) == b"abc"
        if resumable:
            assert [piece async for piece in pieces] == [b"def"]
        else:
            with pytest.raises(DownloadError, match="given out already") as caught:
                await anext(pieces)
            assert (caught.value.task_id, caught.value.request) == ("t1", RAIN)
        assert parts.fetcher.reading == 0


# Refused


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (whole(b"abc", content_encoding="gzip"), "compressed"),
        (whole(b"abc", content_length=str(MAX_RESULT + 1)), "at most"),
        (Failure(FailureKind.INVALID, "the address is private"), "the address is private"),
        (Failure(FailureKind.CERTIFICATE, "the certificate is another's"), "certificate"),
        (FakeBody(400), "answered 400"),
        (FakeBody(304), "answered 304"),
        (FakeBody(302, headers={"location": "ftp://x/y"}), "its link"),
        (FakeBody(302, headers={"location": "http://127.0.0.1/x"}), "its link"),
    ],
)
async def test_what_another_attempt_does_not_mend(answer: FakeBody | Failure, words: str) -> None:
    """It is an error at once, with the task's id: the result stays at the service."""
    async with parts_with(answer) as parts:
        with pytest.raises(DownloadError, match=words) as caught:
            await read(parts)
        assert "kept at the service" in caught.value.message
        assert (caught.value.task_id, caught.value.request) == ("t1", RAIN)
        assert len(parts.fetcher.asked) == 1


async def test_a_body_without_end() -> None:
    """More bytes than any result has are not taken."""
    piece = bytes(MAX_RESULT // 4)
    async with parts_with(whole(piece, piece, piece, piece, b"x")) as parts:
        with pytest.raises(DownloadError, match="more than"):
            async for _ in parts.downloads.pieces(source()):
                pass


@pytest.mark.parametrize(
    "answer",
    [FakeBody(500), FakeBody(429), FakeBody(204), FakeBody(99), CUT, Failure(FailureKind.NOT_SENT, "refused")],
    ids=["500", "429", "204", "99", "cut", "not sent"],
)
async def test_what_may_pass(answer: FakeBody | Failure) -> None:
    """It is tried so often, after growing waits, and then told."""
    loop = asyncio.get_running_loop()
    async with parts_with(answer, answer, whole(b"abc"), answer, answer, answer) as parts:
        began = loop.time()
        assert await read(parts) == b"abc"
        assert loop.time() - began == pytest.approx(0.25 + 0.5, abs=0.01)
    async with parts_with(*[answer] * 9, attempts=3) as parts:
        with pytest.raises(DownloadError) as caught:
            await read(parts)
        assert caught.value.status == (answer.status if isinstance(answer, FakeBody) else None)
        assert len(parts.fetcher.asked) == 3


async def test_a_server_that_asks_for_patience() -> None:
    """A `Retry-After` is obeyed."""
    loop = asyncio.get_running_loop()
    async with parts_with(FakeBody(503, headers={"retry-after": "20"}), whole(b"abc")) as parts:
        began = loop.time()
        await read(parts)
        assert loop.time() - began == pytest.approx(21, abs=0.1)


# Other links


async def test_redirected() -> None:
    """Redirects are followed, relative ones too; the next attempt begins at the link itself."""
    answers = FakeBody(302, headers={"location": "/new.mp3"}), begun(etag=ETAG), rest(3, b"def")
    async with parts_with(*answers) as parts:
        assert await read(parts) == b"abcdef"
        assert [link for link, _ in parts.fetcher.asked] == [OLD, "https://cdn.test/new.mp3", OLD]


async def test_redirected_for_ever() -> None:
    """There is an end to following."""
    async with parts_with(*[FakeBody(302, headers={"location": OLD})] * 20) as parts:
        with pytest.raises(DownloadError, match=f"more than {MAX_REDIRECTS} times"):
            await read(parts)
        assert len(parts.fetcher.asked) == MAX_REDIRECTS + 1


@pytest.mark.parametrize("status", [403, 404, 410])
async def test_a_link_that_has_expired(status: int) -> None:
    """The task gives a fresh one, once; what had come of the old one is void."""
    transport = FakeTransport(polls=(FINISHED,))
    async with parts_with(begun(etag=ETAG), FakeBody(status), whole(b"ABC"), transport=transport) as parts:
        assert await read(parts) == b"ABC"
        assert [link for link, _ in parts.fetcher.asked] == [OLD, OLD, LINK]
        assert parts.fetcher.asked[2][1] == {}
        assert len(transport.gets) == 1


@pytest.mark.parametrize("status", [403, 404, 410])
async def test_a_link_before_its_file(status: int) -> None:
    """A link may come before its file: it is asked for again, after waits that jitter does not make nothing of."""
    loop = asyncio.get_running_loop()
    transport = FakeTransport(polls=(says(status="completed", url=OLD),) * 9)
    async with parts_with(FakeBody(status), FakeBody(status), whole(b"ABC"), transport=transport) as parts:
        began = loop.time()
        assert await read(parts) == b"ABC"
        assert loop.time() - began > 0.25 + 0.5
        assert [link for link, _ in parts.fetcher.asked] == [OLD] * 3
        assert len(transport.gets) == 2
    async with parts_with(*[FakeBody(status)] * 9, transport=FakeTransport(polls=(FINISHED,) * 9)) as parts:
        with pytest.raises(DownloadError, match=str(status)) as caught:
            await read(parts)
        assert caught.value.status == status
        assert [link for link, _ in parts.fetcher.asked] == [OLD, LINK, LINK, LINK, LINK]  # the fresh one has its own


async def test_only_another_signature() -> None:
    """What has come stays if the fresh link is the old one with another signature, and the file can be proved."""
    signed = f"{OLD}?signature=2"
    transport = FakeTransport(polls=(says(status="completed", url=signed),))
    async with parts_with(begun(etag=ETAG), FakeBody(403), rest(3, b"def"), transport=transport) as parts:
        assert await read(parts) == b"abcdef"
        assert parts.fetcher.asked[2] == (signed, {"Range": "bytes=3-", "If-Range": ETAG})


@pytest.mark.parametrize(
    "answer", [says(502), says(404), says(status="completed"), says(429, retry_after="7"), LOST, AWAY], ids=range(6)
)
async def test_no_fresh_link_yet(answer: Answer) -> None:
    """A task that cannot be asked just now, or has no link, is asked again; so is the link."""
    loop = asyncio.get_running_loop()
    transport = FakeTransport(polls=(answer, FINISHED))
    async with parts_with(FakeBody(403), FakeBody(403), whole(b"ABC"), transport=transport) as parts:
        began = loop.time()
        assert await read(parts) == b"ABC"
        assert [link for link, _ in parts.fetcher.asked] == [OLD, OLD, LINK]
        assert (loop.time() - began > 7) == (answer == says(429, retry_after="7"))
    async with parts_with(*[FakeBody(403)] * 9, transport=FakeTransport(polls=(answer,) * 9)) as parts:
        with pytest.raises(DownloadError, match="403"):
            await read(parts)
        assert len(parts.fetcher.asked) == 4


async def test_a_result_without_a_task() -> None:
    """A result that came without an id has no task to ask; its link is tried again all the same."""
    async with parts_with(FakeBody(403), whole(b"ABC")) as parts:
        assert await parts.downloads.read(source(task_id=None)) == b"ABC"
        assert parts.transport.gets == []


# Saved


async def test_saved(tmp_path: Path) -> None:
    """What was saved is in the books; that they cannot say so does not undo it."""
    async with parts_with(whole(b"abc"), begun(), whole(b"ABC"), whole(b"abc")) as parts:
        journal = parts.journal
        row = journal.leave(EffectState.DONE, task_id="t1")
        await parts.downloads.save(source(row_id=row.id), tmp_path / "a.mp3", overwrite=False)
        assert (journal.contents[1].state, journal.contents[1].path) == (EffectState.SAVED, str(tmp_path / "a.mp3"))
        await parts.downloads.save(source(row_id=row.id), tmp_path / "b.mp3", overwrite=False)
        assert (tmp_path / "b.mp3").read_bytes() == b"ABC"
        await journal.aclose()
        with pytest.raises(JournalError):
            await parts.downloads.save(source(row_id=row.id), tmp_path / "c.mp3", overwrite=False)
        assert (tmp_path / "c.mp3").read_bytes() == b"abc"


async def test_saved_nowhere(tmp_path: Path) -> None:
    """A place that cannot be written to is an error with the task and the request."""
    async with parts_with() as parts:
        with pytest.raises(DownloadError, match="could not be saved") as caught:
            await parts.downloads.save(source(), tmp_path / "nowhere" / "a.mp3", overwrite=False)
        assert (caught.value.task_id, caught.value.request) == ("t1", RAIN)
        assert parts.fetcher.asked == []


async def test_saved_in_megabytes(tmp_path: Path) -> None:
    """A large result is written on the way."""
    piece = bytes(range(256)) * 4096
    async with parts_with(whole(piece, piece, b"end")) as parts:
        path = await parts.downloads.save(source(), tmp_path / "a.mp3", overwrite=False)
        assert path.read_bytes() == piece + piece + b"end"


@pytest.mark.parametrize("overwrite", [False, True])
async def test_somebody_makes_the_file_meanwhile(tmp_path: Path, overwrite: bool) -> None:
    """A file that appears while the download runs is not overwritten either, unless the caller says so."""
    target = tmp_path / "a.mp3"
    async with parts_with(FakeBody(500), whole(b"abc")) as parts:
        saving = asyncio.create_task(parts.downloads.save(source(), target, overwrite=overwrite))
        await asyncio.sleep(0.1)  # the first attempt has failed
        assert [entry.name.startswith(".a.mp3.") for entry in tmp_path.iterdir()] == [True]
        target.write_bytes(b"mine")
        outcome = (await asyncio.gather(saving, return_exceptions=True))[0]
        assert (isinstance(outcome, DownloadError) and "exists" in outcome.message) is not overwrite
        assert target.read_bytes() == (b"abc" if overwrite else b"mine")
        assert [entry.name for entry in tmp_path.iterdir()] == ["a.mp3"]
