"""What a third party writes into the headers of a download never comes out as anything but a `DownloadError`."""

from __future__ import annotations

from pathlib import Path

import pytest
from file_server import SOUND, FileServer, Visit, fetch
from raw_server import Peer, Request

from finevoice_async import DownloadError

HUGE = "9" * 5000
SIZE = len(SOUND)


@pytest.mark.parametrize(
    "location",
    [
        "https://[bad",
        "//[bad",
        "http://x:port/",
        "http://x:99999/",
        "https://",
        "http:///a",
        "http://\u202e/",
        "javascript:alert(1)",
        "mailto:x@y",
        "http://a b/",
        "http://%00/",
        "http://.../",
        "http://" + "a" * 300 + "/",
        "\\\\x\\y",
        "x" * 5000,
    ],
    ids=range(15),
)
async def test_redirects(visit: Visit, tmp_path: Path, location: str) -> None:
    """A redirect to what is no address, or is not found, is an error of the download."""

    async def serve(request: Request, peer: Peer) -> None:
        peer.answer(302, b"", Location=location)

    files = FileServer(serve)
    with pytest.raises(DownloadError) as caught:
        await fetch(visit, files, tmp_path)
    assert caught.value.task_id == "t"


@pytest.mark.parametrize(
    "link",
    [
        "https://[bad",
        "http://x:port/",
        "http:///a",
        "http://\ud800/",
        "http://a b/",
        "http://%00/",
        "//",
        "x",
        "http://" + "a" * 300,
    ],
    ids=range(9),
)
async def test_links(visit: Visit, tmp_path: Path, link: str) -> None:
    """So is a link that is none."""

    async def serve(request: Request, peer: Peer) -> None:
        raise AssertionError("somebody came")

    with pytest.raises(DownloadError) as caught:
        await fetch(visit, FileServer(serve, link), tmp_path)
    assert caught.value.task_id == "t"


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": HUGE},
        {"Content-Type": ";;=\xff"},
        {"Content-Disposition": 'attachment; filename="../../etc/passwd"'},
        {"Content-Disposition": "attachment; filename*=utf-8''%ff%00"},
        {"Content-Disposition": HUGE},
        {"Content-Range": f"bytes 0-5/{HUGE}"},
        {"Retry-After": HUGE},
        {"ETag": HUGE},
        {"ETag": '"\xff"'},
        {"ETag": '"'},
        {"Content-Encoding": HUGE},
        {"Content-Encoding": ",,\xff"},
        {"Last-Modified": HUGE},
        {"Location": "https://[bad"},
        {"Set-Cookie": "a=b; expires=" + HUGE},
        {"Accept-Ranges": HUGE},
    ],
    ids=range(16),
)
async def test_headers_of_a_good_answer(visit: Visit, tmp_path: Path, headers: dict[str, str]) -> None:
    """What is of no use is ignored, also where the download is cut and begins anew."""

    async def serve(request: Request, peer: Peer) -> None:
        assert "cookie" not in request.headers
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n{lines}\r\n".encode("latin-1")
        if len(files.asked) == 1:
            peer.send(head + SOUND[:5000])
            await peer.close()
        else:
            assert "range" not in request.headers
            peer.send(head + SOUND)

    files = FileServer(serve)
    assert (await fetch(visit, files, tmp_path)).read_bytes() == SOUND


@pytest.mark.parametrize(
    "span",
    [
        f"bytes 5000-{HUGE}/{SIZE}",
        f"bytes {HUGE}-{SIZE - 1}/{SIZE}",
        f"bytes 5000-{SIZE - 1}/{HUGE}",
        f"bytes {SIZE - 1}-5000/{SIZE}",
        f"bytes 5000-{SIZE}/{SIZE}",
        "bytes 5000-\u0663/4",
        "\xff",
        "",
    ],
    ids=range(8),
)
async def test_ranges(visit: Visit, tmp_path: Path, span: str) -> None:
    """A range that makes no sense voids what has come: the next attempt begins anew."""

    async def serve(request: Request, peer: Peer) -> None:
        match len(files.asked):
            case 1:
                peer.send(b'HTTP/1.1 200 OK\r\nETag: "v1"\r\nContent-Length: %d\r\n\r\n' % SIZE + SOUND[:5000])
                await peer.close()
            case 2:
                assert request.headers["range"] == "bytes=5000-"
                head = f"HTTP/1.1 206 Part\r\nContent-Length: {SIZE - 5000}\r\nContent-Range: {span}\r\n\r\n"
                peer.send(head.encode() + SOUND[5000:])
            case _:
                assert "range" not in request.headers
                peer.answer(200, SOUND)

    files = FileServer(serve)
    assert (await fetch(visit, files, tmp_path)).read_bytes() == SOUND


@pytest.mark.parametrize("length", [HUGE, "-1", "x", "1e3", "", "\u0663", "1, 2"], ids=range(7))
async def test_lengths(visit: Visit, tmp_path: Path, length: str) -> None:
    """A length that is none is an error of the download, or ignored."""

    async def serve(request: Request, peer: Peer) -> None:
        peer.send(f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n".encode() + SOUND)
        await peer.close()

    with pytest.raises(DownloadError):
        await fetch(visit, FileServer(serve), tmp_path)


@pytest.mark.parametrize(
    "after", [HUGE, "-1", "nan", "inf", "1e999", "Fri, 99 Foo", "\xff", "Sun, 06 Nov 99999 08:49:37 GMT"]
)
async def test_patience(visit: Visit, tmp_path: Path, after: str) -> None:
    """A `Retry-After` that makes no sense is no reason to wait, or to give up."""

    async def serve(request: Request, peer: Peer) -> None:
        if len(files.asked) < 3:
            peer.answer(503, b"", Retry_After=after)
        else:
            peer.answer(200, SOUND)

    files = FileServer(serve)
    assert (await fetch(visit, files, tmp_path)).read_bytes() == SOUND
