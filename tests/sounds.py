"""Sounds for tests, made by the standard library alone: tones, silence, clipping, in WAV of every width."""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Sequence
from pathlib import Path

RATE = 8000

Wave = Sequence[float]


def tone(seconds: float, *, peak: float = 0.5, hertz: float = 440.0, rate: int = RATE) -> list[float]:
    """Return a sine."""
    return [peak * math.sin(2 * math.pi * hertz * i / rate) for i in range(round(seconds * rate))]


def silence(seconds: float, *, rate: int = RATE) -> list[float]:
    """Return nothing to be heard."""
    return [0.0] * round(seconds * rate)


def wav(*channels: Wave, bits: int = 16, rate: int = RATE) -> bytes:
    """Return a WAV file of whole numbers."""
    top = 1 << (bits - 1)
    samples = [max(-top, min(round(value * top), top - 1)) for frame in zip(*channels, strict=True) for value in frame]
    if bits == 8:
        data = bytes(value + 128 for value in samples)
    elif bits == 24:
        data = b"".join(struct.pack("<i", value)[:3] for value in samples)
    else:
        data = array("h" if bits == 16 else "i", samples).tobytes()
    return container(data, kind=1, channels=len(channels), bits=bits, rate=rate)


def float_wav(*channels: Wave, rate: int = RATE) -> bytes:
    """Return a WAV file of floating point numbers, which may be above full scale, or none at all."""
    samples = array("f", [value for frame in zip(*channels, strict=True) for value in frame])
    return container(samples.tobytes(), kind=3, channels=len(channels), bits=32, rate=rate)


def container(data: bytes, *, kind: int, channels: int = 1, bits: int = 16, rate: int = RATE) -> bytes:
    """Return a WAV file around samples."""
    frame = channels * bits // 8
    form = struct.pack("<HHIIHH", kind, channels, rate, rate * frame, frame, bits)
    chunks = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


def put(path: Path, content: bytes) -> Path:
    """Write a file, and return where."""
    path.write_bytes(content)
    return path
