"""Finished copies: trimmed, brought to one level, in the format that a project wants; the original stays as it came.

A finished copy stands beside its original: `door.wav` gives `door.finished.flac`. The same original and the same
settings give the same bytes, so that a second run finds its work done and a repository sees no change. What stands
there and was made by nobody known here stays, too.

Everything here blocks, and belongs in a thread.
"""

from __future__ import annotations

import hashlib
import io
import zlib
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs

from finevoice_async.batch.checks import SILENCE
from finevoice_async.batch.loudness import load_soundfile
from finevoice_async.core.filenames import suffix_of, with_suffix
from finevoice_async.core.text import one_line
from finevoice_async.engine.part_file import PartFile
from finevoice_async.errors import FineVoiceError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FORMATS: Final = ("wav", "flac", "ogg")
"""What can be written."""

_LEAD: Final = 0.01  # seconds that stay before the first sound and after the last
_FADE: Final = 0.01  # seconds, within that lead: a cut does not click, and no sound is touched
_MOST_SAMPLES: Final = 1 << 28  # all channels together: an effect has 30 s, and all of it is held in memory
_OGG_BLOCK: Final = 1 << 14  # frames
_OGG_MARGIN: Final = 0.998
_OGG_PASSES: Final = 8  # a lossy coder comes out louder than it was fed: fed a little less, until it fits


class FinishError(FineVoiceError):
    """There is no finished copy of a result. The original is as it was, and nothing was replaced."""

    _paid_without_id = _paid_with_id = None


@attrs.frozen
class _Sound:
    """All of a file.

    Attributes:
        samples: A row a frame, a column a channel; 1.0 is full scale.
        rate: Frames a second.
        is_fine: It has more than 16 bits.
        format: Of the file, if it is one of `FORMATS`.
    """

    samples: NDArray[np.float64]
    rate: int
    is_fine: bool
    format: str | None


def finished_path(path: str | Path, format: str) -> Path:  # noqa: A002 - as the command spells it
    """Return where the finished copy of a file is."""
    original = Path(path)
    stem = original.name.removesuffix(suffix_of(original.name))
    return original.with_name(with_suffix(stem, f".finished.{format}"))


def finish(
    path: str | Path,
    *,
    format: str | None = None,  # noqa: A002 - as the command spells it
    trim: bool = False,
    peak_db: float | None = None,
    replaces: Collection[str] = (),
) -> Path:
    """Make a finished copy of a file beside it, and return where.

    What is silent is neither trimmed nor made louder. What would be cut at full scale is made softer instead.

    Args:
        path: The original, which stays.
        format: `wav`, `flac` or `ogg`; None for that of the original, or `wav` if it is of another.
        trim: Take away the silence at both ends.
        peak_db: How loud its loudest sample shall be, in dBFS, at most 0.
        replaces: SHA-256 of earlier finished copies that may be replaced, in hexadecimal.

    Raises:
        FinishError: The `audio` extra is missing, a setting makes no sense, the original cannot be read, or something
            that is not known stands where the copy belongs.
    """
    soundfile = load_soundfile()
    if soundfile is None:
        raise FinishError("A finished copy takes the audio extra: pip install 'finevoice-async[audio]'.")
    if format is not None and format not in FORMATS:
        raise FinishError(f"The format must be {', '.join(FORMATS[:-1])} or {FORMATS[-1]}, not {format!r}.")
    if peak_db is not None and not -120 <= peak_db <= 0:
        raise FinishError(f"The peak is in dB below full scale, from -120 to 0, not {peak_db:g}.")
    original = Path(path)
    try:
        sound = _read(original, soundfile)
        target = finished_path(original, format or sound.format or "wav")
        samples = sound.samples
        if _is_heard(samples):
            samples = _trimmed(samples, sound.rate) if trim else samples
            samples = _levelled(samples, peak_db)
        content = _encode(samples, sound, target.suffix[1:], soundfile)
        _write(content, target, replaces)
    except FileExistsError:
        words = f"{target} was changed, or was not made here: it was not replaced. Move it away to have it made anew."
        raise FinishError(words) from None
    except OSError as error:
        raise FinishError(f"There is no finished copy of {original}: {error.strerror or error}.") from error
    except (soundfile.SoundFileError, RuntimeError, ValueError, MemoryError) as error:
        words = one_line(str(error)).rstrip(".") or "there is no room in memory"
        raise FinishError(f"There is no finished copy of {original}: {words}.") from error
    return target


def _read(path: Path, soundfile: Any) -> _Sound:
    import numpy as np

    with path.open("rb") as file, soundfile.SoundFile(file.fileno(), closefd=False) as sound:
        if sound.frames * sound.channels > _MOST_SAMPLES:
            raise ValueError(f"it lasts {sound.frames / sound.samplerate:,.0f} s, which is too long")
        return _Sound(
            samples=np.nan_to_num(sound.read(dtype="float64", always_2d=True), posinf=1.0, neginf=-1.0),
            rate=sound.samplerate,
            is_fine=sound.subtype in ("PCM_24", "PCM_32", "FLOAT", "DOUBLE"),
            format={"WAV": "wav", "WAVEX": "wav", "FLAC": "flac", "OGG": "ogg"}.get(sound.format),
        )


# The sound


def _is_heard(samples: NDArray[np.float64]) -> bool:
    return len(samples) > 0 and float((samples.max(axis=0) - samples.min(axis=0)).max()) / 2 >= SILENCE


def _trimmed(samples: NDArray[np.float64], rate: int) -> NDArray[np.float64]:
    """Take the silence at both ends away, but for a short lead that fades."""
    import numpy as np

    heard = np.flatnonzero((np.abs(samples) >= SILENCE).any(axis=1))
    lead, fade = int(_LEAD * rate), int(_FADE * rate)
    begin, end = max(int(heard[0]) - lead, 0), min(int(heard[-1]) + 1 + lead, len(samples))
    cut = samples[begin:end].copy()
    ramp = np.linspace(0.0, 1.0, fade, endpoint=False)[:, np.newaxis]
    if begin > 0:
        cut[:fade] *= ramp
    if end < len(samples):
        cut[len(cut) - fade :] *= ramp[::-1]
    return cut


def _levelled(samples: NDArray[np.float64], peak_db: float | None) -> NDArray[np.float64]:
    """Bring the loudest sample to where it shall be, or below full scale if it is above."""
    import numpy as np

    loudest = float(np.abs(samples).max())
    wanted = min(loudest, 1.0) if peak_db is None else _share(peak_db)
    return samples if wanted == loudest else samples * (wanted / loudest)


def _share(decibels: float) -> float:
    return float(10 ** (decibels / 20))


# The file


def _encode(samples: NDArray[np.float64], sound: _Sound, format: str, soundfile: Any) -> bytes:  # noqa: A002
    """Return the bytes of a file in a format."""
    if format == "ogg":
        return _encode_ogg(samples, sound.rate, soundfile)
    import numpy as np

    # Rounded here, since the library scales by another number when it writes than when it reads.
    bits = 24 if sound.is_fine else 16
    top = 1 << (bits - 1)
    whole = np.clip(np.rint(samples * top), -top, top - 1).astype(np.int32)
    made = io.BytesIO()
    soundfile.write(made, whole << (32 - bits), sound.rate, format=format.upper(), subtype=f"PCM_{bits}")
    return made.getvalue()


def _encode_ogg(samples: NDArray[np.float64], rate: int, soundfile: Any) -> bytes:
    """Return an Ogg file that is no louder at its loudest than what went in."""
    import numpy as np

    wanted = float(np.abs(samples).max()) if len(samples) else 0.0
    factor = 1.0
    for _ in range(_OGG_PASSES):
        made = io.BytesIO()
        with soundfile.SoundFile(made, "w", rate, samples.shape[1], format="OGG", subtype="VORBIS") as sound:
            for at in range(0, len(samples), _OGG_BLOCK):  # given much at once, the coder runs out of stack
                sound.write(samples[at : at + _OGG_BLOCK] * factor)
        made.seek(0)
        came, _rate = soundfile.read(made, dtype="float64", always_2d=True)
        loudest = float(np.abs(came).max()) if len(came) else 0.0
        if loudest <= wanted:
            break
        factor *= wanted / loudest * _OGG_MARGIN
    return _with_serial(made.getvalue(), _serial_of(samples))


def _serial_of(samples: NDArray[np.float64]) -> bytes:
    return hashlib.sha256(samples.tobytes()).digest()[:4]


def _with_serial(ogg: bytes, serial: bytes) -> bytes:
    """Return an Ogg file whose pages bear this number in place of a random one."""
    pages = bytearray(ogg)
    at = 0
    while at + 27 <= len(pages):
        lengths = pages[at + 27 : at + 27 + pages[at + 26]]
        end = at + 27 + len(lengths) + sum(lengths)
        pages[at + 14 : at + 18] = serial
        pages[at + 22 : at + 26] = bytes(4)
        pages[at + 22 : at + 26] = _crc(bytes(pages[at:end])).to_bytes(4, "little")
        at = end
    return bytes(pages)


_MIRRORED: Final = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


def _crc(page: bytes) -> int:
    """Return Ogg's checksum of a page: that of zlib with all bits the other way round, and without its inversions."""
    mirrored = zlib.crc32(page.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)


def _write(content: bytes, target: Path, replaces: Collection[str]) -> None:
    """Put the file in its place, whole and durable.

    Raises:
        FileExistsError: Something else stands there.
        OSError: It could not be written.
    """
    may_replace = False
    with suppress(FileNotFoundError):
        there = target.read_bytes()
        if there == content:
            return
        may_replace = hashlib.sha256(there).hexdigest() in replaces
        if not may_replace:
            raise FileExistsError(target)
    part = PartFile(target)
    try:
        part.open()
        part.add(0, content)
        part.finish(overwrite=may_replace)
    finally:
        part.discard()
