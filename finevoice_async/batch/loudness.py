"""Reading samples, a block at a time: how long, how loud, how flat at full scale, and the outline of the wave.

With soundfile and numpy (the `audio` extra) for all that libsndfile reads; without them for plain WAV, by the
standard library. Memory stays the same however long the file is.
"""

from __future__ import annotations

import itertools
import math
import operator
import sys
import wave
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

COLUMNS: Final = 120
"""Points of an outline: what a waveform of a thumb's width can show."""

CLIP_RUN: Final = 3
"""Neighbouring samples at full scale that make a clipped place: one or two may be a peak that just fits."""

NEEDS_EXTRA: Final = "It takes the audio extra: pip install 'finevoice-async[audio]'"

_FULL: Final = 0.99996  # of full scale: the largest sample of 16 bits, and all above
_FULL_8_BITS: Final = 0.992  # the same of 8 bits
_STEP: Final = 128  # frames that make one pair of the outline before pairs are merged
_MOST_PAIRS: Final = 8 * 1024
_BLOCK: Final = 512 * _STEP  # samples, all channels together, read at once

Pair = tuple[float, float]
Outline = tuple[Pair, ...]


@attrs.frozen(kw_only=True)
class Loudness:
    """What the samples of a file come to, as shares of full scale.

    Attributes:
        seconds: How long the file is.
        peak: The sample that is farthest from zero.
        swing: Half the way between the lowest and the highest sample of one channel: what moves the air.
        rms: The root of the mean square.
        clipped_places: Where samples lie flat at full scale.
        is_finite: Each sample is a number.
        outline: The lowest and highest sample of each of `COLUMNS` equal stretches.
    """

    seconds: float
    peak: float
    swing: float
    rms: float
    clipped_places: int
    is_finite: bool
    outline: Outline


class CannotReadError(Exception):
    """It may be audio, but nothing here can read it."""


class BrokenError(Exception):
    """It is no whole audio file; the text says why."""


@attrs.define
class _Envelope:
    """Lowest and highest samples of equal stretches, which grow with the file so that they stay few."""

    _pairs: list[Pair] = attrs.field(factory=list)
    _waiting: list[Pair] = attrs.field(factory=list)  # until they are enough for a pair
    _in_a_pair: int = 1

    def add(self, pair: Pair) -> None:
        """Take the lowest and highest sample of the next stretch."""
        self._waiting.append(pair)
        if len(self._waiting) < self._in_a_pair:
            return
        self._pairs.append(_merged(self._waiting))
        self._waiting.clear()
        if len(self._pairs) == _MOST_PAIRS:
            self._pairs = [_merged(self._pairs[i : i + 2]) for i in range(0, _MOST_PAIRS, 2)]
            self._in_a_pair *= 2

    def outline(self) -> Outline:
        """Return the outline, in `COLUMNS` pairs; none if there was nothing."""
        pairs = [*self._pairs, _merged(self._waiting)] if self._waiting else self._pairs
        if not pairs:
            return ()
        bounds = [i * len(pairs) / COLUMNS for i in range(COLUMNS + 1)]
        columns = (pairs[int(a) : max(math.ceil(b), int(a) + 1)] for a, b in itertools.pairwise(bounds))
        return tuple((round(low, 3), round(high, 3)) for low, high in map(_merged, columns))


def _merged(pairs: list[Pair]) -> Pair:
    return min(low for low, _ in pairs), max(high for _, high in pairs)


# With the `audio` extra


def load_soundfile() -> Any:
    """Return the module, None if it, numpy, or the library that it needs is not there."""
    try:
        import numpy  # noqa: F401, ICN001 - soundfile itself needs it only when samples are read
        import soundfile
    except (ImportError, OSError):  # OSError: the wheel brings libsndfile, but a distribution's package may not
        return None
    return soundfile


def measure_any(path: Path, soundfile: Any) -> Loudness:
    """Measure a file of any kind that libsndfile reads.

    Raises:
        BrokenError: It is of such a kind, but damaged.
        OSError: It cannot be opened.
    """
    with path.open("rb") as file:
        try:
            with soundfile.SoundFile(file.fileno(), closefd=False) as sound:
                return _measure_blocks(sound)
        except (soundfile.SoundFileError, RuntimeError, ValueError, ZeroDivisionError) as error:
            words = str(error).partition(": ")[2] or str(error)
            raise BrokenError(f"it cannot be decoded: {words}") from error


def _measure_blocks(sound: Any) -> Loudness:
    import numpy as np

    channels: int = sound.channels
    full = _FULL_8_BITS if sound.subtype in ("PCM_S8", "PCM_U8") else _FULL
    envelope = _Envelope()
    lows, highs = np.zeros(channels), np.zeros(channels)
    were_full = np.zeros((CLIP_RUN, channels), dtype=bool)
    frames, squares, places, is_finite = 0, 0.0, 0, True
    size = max(_BLOCK // channels // _STEP, 1) * _STEP
    while len(block := sound.read(size, dtype="float32", always_2d=True)):
        if not np.isfinite(block).all():
            is_finite = False
            block = np.nan_to_num(block, nan=0.0, posinf=1.0, neginf=-1.0)
        by_channel = np.ascontiguousarray(block.T)  # numpy finds extremes along a line many times faster
        block_lows, block_highs = by_channel.min(axis=1), by_channel.max(axis=1)
        lows = np.minimum(lows, block_lows) if frames else block_lows
        highs = np.maximum(highs, block_highs) if frames else block_highs
        whole = len(block) // _STEP * _STEP
        steps = block[:whole].reshape(-1, _STEP * channels)
        for pair in zip(steps.min(axis=1).tolist(), steps.max(axis=1).tolist(), strict=True):
            envelope.add(pair)
        if whole < len(block):
            envelope.add((float(block[whole:].min()), float(block[whole:].max())))
        squares += float(np.square(block, dtype=np.float64).sum())
        if were_full.any() or max(-block_lows.min(), block_highs.max()) >= full:
            is_full = np.concatenate([were_full, np.abs(block) >= full])
            places += _count_places(is_full)
            were_full = is_full[-CLIP_RUN:]
        frames += len(block)
    return Loudness(
        seconds=frames / sound.samplerate,
        peak=float(max(-lows.min(), highs.max())),
        swing=float((highs - lows).max()) / 2,
        rms=math.sqrt(squares / (frames * channels)) if frames else 0.0,
        clipped_places=places,
        is_finite=is_finite,
        outline=envelope.outline(),
    )


def _count_places(is_full: NDArray[np.bool_]) -> int:
    """Count where a run of full samples becomes long enough; the first rows are of the block before."""
    runs = is_full[2:] & is_full[1:-1] & is_full[:-2]
    return int((runs[1:] & ~runs[:-1]).sum())


# With the standard library

_UNSIGNED_TO_SIGNED: Final = bytes((value - 128) % 256 for value in range(256))
_CODES: Final = {1: "b", 2: "h", 4: "i"}  # of array, by bytes of a sample


def measure_wav(path: Path) -> Loudness:
    """Measure a WAV file of whole numbers.

    Raises:
        CannotReadError: Its samples are of another kind.
        BrokenError: It is damaged.
        OSError: It cannot be opened.
    """
    try:
        with path.open("rb") as file, wave.open(file, "rb") as sound:
            return _measure_frames(sound)
    except (ZeroDivisionError, RuntimeError) as error:  # RuntimeError: a chunk that is longer than its file
        raise BrokenError("its header makes no sense") from error
    except (wave.Error, EOFError) as error:
        words = str(error) or "it ends within its header"
        if words.startswith(("unknown", "file does not start with RIFF")):  # compressed, floating point, or very large
            raise CannotReadError(f"{words}. {NEEDS_EXTRA}") from error
        raise BrokenError(f"it cannot be decoded: {words}") from error


def _measure_frames(sound: wave.Wave_read) -> Loudness:
    channels, width = sound.getnchannels(), sound.getsampwidth()
    if width not in (1, 2, 3, 4):
        raise CannotReadError(f"samples of {width} bytes. {NEEDS_EXTRA}")
    scale = 1 << (31 if width == 3 else 8 * width - 1)
    full = (_FULL_8_BITS if width == 1 else _FULL) * scale
    envelope = _Envelope()
    lows, highs, runs = [0] * channels, [0] * channels, [0] * channels
    frames = squares = places = 0
    size = max(_BLOCK // channels // _STEP, 1) * _STEP
    while block := sound.readframes(size):
        samples = _as_array(block[: len(block) // (channels * width) * channels * width], width)
        for channel in range(channels):
            own = samples[channel::channels]
            low, high = min(own, default=0), max(own, default=0)
            lows[channel] = min(lows[channel], low) if frames else low
            highs[channel] = max(highs[channel], high) if frames else high
            more, runs[channel] = _count_runs(own, full, runs[channel]) if max(high, -low) >= full else (0, 0)
            places += more
        for piece in _pieces(samples, _STEP * channels):
            envelope.add((min(piece) / scale, max(piece) / scale))
        squares += sum(map(operator.mul, samples, samples))
        frames += len(samples) // channels
    swings = [high - low for low, high in zip(lows, highs, strict=True)]
    return Loudness(
        seconds=frames / sound.getframerate(),
        peak=max(-min(lows), max(highs)) / scale,
        swing=max(swings) / 2 / scale,
        rms=math.sqrt(squares / (frames * channels)) / scale if frames else 0.0,
        clipped_places=places,
        is_finite=True,
        outline=envelope.outline(),
    )


def _as_array(block: bytes, width: int) -> array[int]:
    """Return samples as numbers; those of three bytes as if they had four."""
    if width == 1:
        return array("b", block.translate(_UNSIGNED_TO_SIGNED))
    if width == 3:
        wide = bytearray(len(block) // 3 * 4)
        for place in range(3):
            wide[place + 1 :: 4] = block[place::3]
        block = bytes(wide)
    samples = array(_CODES[4 if width == 3 else width], block)
    if sys.byteorder == "big":
        samples.byteswap()
    return samples


def _pieces(samples: array[int], size: int) -> Iterator[array[int]]:
    return (samples[at : at + size] for at in range(0, len(samples), size))


def _count_runs(samples: array[int], full: float, run: int) -> tuple[int, int]:
    """Count where a run of full samples becomes long enough, going on with one of the block before."""
    places = 0
    for sample in samples:
        run = run + 1 if abs(sample) >= full else 0
        places += run == CLIP_RUN
    return places, run
