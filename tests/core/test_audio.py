"""Streams that end early are noticed by their own format."""

from __future__ import annotations

import io
import wave

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finevoice_async.core.audio import EndCheck, mp3_frame_length


def _wav() -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(4000))
    return buffer.getvalue()


FRAME = b"\xff\xfb\x90\x00" + bytes(413)  # MPEG 1 layer III, 128 kbit/s, 44.1 kHz: 417 bytes
MP3 = b"ID3\x04\x00\x00\x00\x00\x00\x0a" + bytes(10) + FRAME * 5 + b"TAG" + bytes(125)


def _problem(content: bytes, step: int = 7) -> str | None:
    check = EndCheck()
    for at in range(0, len(content), step):
        check.feed(content[at : at + step])
    return check.problem()


@pytest.mark.parametrize("content", [_wav(), MP3, FRAME * 3], ids=["wav", "mp3 with tags", "bare mp3"])
def test_whole_files_are_whole(content: bytes) -> None:
    """A whole file has no problem, in pieces of any size."""
    assert [_problem(content, step) for step in (1, 7, 100, 10**6)] == [None] * 4


@given(st.integers(12, len(_wav()) - 1))
def test_cut_wav(at: int) -> None:
    """A WAV cut anywhere behind its header is noticed."""
    assert "WAV" in str(_problem(_wav()[:at]))


@given(st.integers(20, 20 + 417 * 5 - 1))
def test_cut_mp3(at: int) -> None:
    """An MP3 cut inside a frame is noticed; between frames it cannot be."""
    assert (_problem(MP3[:at]) is None) == ((at - 20) % 417 == 0)


def test_streamed_wav_without_size_has_no_opinion() -> None:
    """A WAV that was streamed says no size, so nothing is known."""
    content = bytearray(_wav())
    content[4:8] = b"\xff\xff\xff\xff"
    assert _problem(bytes(content[:100])) is None


@pytest.mark.parametrize("content", [b"OggS" + bytes(50), b"short", FRAME + b"APETAGEX" + bytes(9)])
def test_other_formats_have_no_opinion(content: bytes) -> None:
    """Of formats that it does not know, the check says nothing."""
    assert _problem(content) is None


def test_nothing_is_a_problem() -> None:
    """An empty body is never a result."""
    assert _problem(b"") == "the body is empty"


@pytest.mark.parametrize(
    ("header", "length"),
    [
        (b"\xff\xfb\x90\x00", 417),
        (b"\xff\xfb\x92\x00", 418),
        (b"\xff\xf3\x90\x00", 261),
        (b"\xff\xe3\x90\x00", 522),
        (b"\xff\xfb\xf0\x00", None),
        (b"\xff\xfb\x9c\x00", None),
        (b"\xff\xeb\x90\x00", None),
        (b"\xff\xfd\x90\x00", None),
        (b"\xff", None),
    ],
)
def test_frame_lengths(header: bytes, length: int | None) -> None:
    """Frame lengths follow the standard's tables."""
    assert mp3_frame_length(header) == length


@given(st.lists(st.binary(max_size=50)))
def test_any_bytes(pieces: list[bytes]) -> None:
    """No stream makes the check fail, and it keeps little."""
    check = EndCheck()
    for piece in pieces:
        check.feed(piece)
    check.problem()
    assert len(check._pending) < 64
