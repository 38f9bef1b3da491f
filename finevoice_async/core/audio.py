"""Does a stream of audio end where its own format says that it ends?

Asked only when HTTP did not say how long the body is. Knows WAV (the RIFF size) and MP3 (whole frames); of anything
else it has no opinion.
"""

from __future__ import annotations

import attrs

_UNKNOWN_SIZES = (0, 0xFFFFFFFF)  # what writers put into a RIFF header when they stream
_HEADER = 12  # bytes that tell the format
_ID3V1 = 128

# ISO/IEC 11172-3 and 13818-3, layer III: kbit/s by index, samples a second by index.
_BITRATES_V1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_BITRATES_V2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # by version bits


def mp3_frame_length(header: bytes | bytearray) -> int | None:
    """Return the bytes of the MP3 frame with this four-byte header, None if it is none."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:  # sync, layer III
        return None
    version, bitrate, rate = header[1] >> 3 & 3, header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or bitrate in (0, 15) or rate == 3:
        return None
    kilobits = (_BITRATES_V1 if version == 3 else _BITRATES_V2)[bitrate]
    samples_by_8 = 144 if version == 3 else 72
    return samples_by_8 * kilobits * 1000 // _RATES[version][rate] + (header[2] >> 1 & 1)


@attrs.define(eq=False)
class EndCheck:
    """Reads along with a download and says at the end whether it was whole. Keeps some bytes, not the stream."""

    _size: int = 0  # bytes seen
    _pending: bytearray = attrs.field(factory=bytearray)  # seen, not understood yet
    _skip: int = 0  # bytes of the current frame or tag still to come
    _kind: str = ""  # "", then "wav", "mp3" or "other"
    _expected: int | None = None  # of a WAV

    def feed(self, piece: bytes) -> None:
        """Take the next bytes."""
        self._size += len(piece)
        if self._kind in ("wav", "other"):
            return
        self._pending += piece
        if not self._kind and len(self._pending) >= _HEADER:
            self._recognise()
        if self._kind == "mp3":
            self._walk()

    def _recognise(self) -> None:
        head = self._pending
        if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
            self._kind = "wav"
            size = int.from_bytes(head[4:8], "little")
            self._expected = None if size in _UNKNOWN_SIZES else size + 8
        elif head[:3] == b"ID3":
            self._kind = "mp3"
            self._skip = 10 + sum(
                (byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True)
            )
        elif mp3_frame_length(head[:4]) is not None:
            self._kind = "mp3"
        else:
            self._kind = "other"
        if self._kind != "mp3":
            self._pending.clear()

    def _walk(self) -> None:
        pending, at = self._pending, 0
        while at < len(pending):
            if self._skip:
                step = min(self._skip, len(pending) - at)
                self._skip -= step
                at += step
                continue
            if len(pending) - at < 4:
                break
            length = mp3_frame_length(pending[at : at + 4])
            if length is not None:
                self._skip = length
            elif pending[at : at + 3] == b"TAG":
                self._skip = _ID3V1
            else:
                self._kind = "other"  # another tag or padding: no opinion any more
                pending.clear()
                return
        del pending[:at]

    def problem(self) -> str | None:
        """Return what is missing at the end of the stream, None if nothing is known to be."""
        if self._size == 0:
            return "the body is empty"
        if self._expected is not None and self._size < self._expected:
            return f"the WAV file ends after {self._size} of {self._expected} bytes"
        if self._kind == "mp3" and (self._skip or self._pending):
            return "the MP3 file ends inside a frame"
        return None
