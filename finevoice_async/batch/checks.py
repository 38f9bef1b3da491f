"""Is a result what was asked for: as long, to be heard, and not clipped?

Everything here blocks, and belongs in a thread.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

import attrs

from finevoice_async.batch.loudness import (
    NEEDS_EXTRA,
    BrokenError,
    CannotReadError,
    Loudness,
    Outline,
    load_soundfile,
    measure_any,
    measure_wav,
)
from finevoice_async.core.audio import EndCheck
from finevoice_async.core.media import Verdict, judge, of_content
from finevoice_async.core.text import one_line, shorten

SILENCE: Final = 0.001
"""Of full scale, -60 dB: what swings less is silence. No effect that anybody can hear is so soft at its loudest, and a
new take costs money: in doubt it is none."""

LENGTH_SLACK: Final = 0.1
"""How far from the length that was asked for a result may be, as a share of it: a coder pads, a model rounds."""

SMALLEST_SLACK: Final = 0.3
"""The same in seconds, for short ones."""

_READABLE: Final = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".caf", ".au"})  # by libsndfile
_HEAD: Final = 64 * 1024
_CHUNK: Final = 1024 * 1024
_TAIL: Final = 2 * 64 * 1024  # the last page of an Ogg file is in it: 64 KiB at most
_PAGE_HEAD: Final = 27  # bytes of a page before its table of lengths; the last one says how many there are


@attrs.frozen(kw_only=True)
class AudioCheck:
    """What a check found.

    Attributes:
        seconds: How long it is; None if it was not measured.
        peak: Its loudest sample, 1.0 at full scale (a few formats go above); None if it was not measured.
        rms: Its root mean square, 1.0 at full scale; None if it was not measured.
        clipped: Samples lie flat at full scale.
        silent: It was measured as a whole, and there is nothing to be heard.
        wrong_length: It is not as long as it was asked to be.
        waveform: The lowest and highest sample of each of 120 equal stretches; empty if it was not measured.
        problems: What is wrong, in words; empty if nothing is known to be.
        note: Why it was not measured, though nothing is known to be wrong.
    """

    seconds: float | None = None
    peak: float | None = None
    rms: float | None = None
    clipped: bool = False
    silent: bool = False
    wrong_length: bool = False
    waveform: Outline = attrs.field(default=(), repr=False)
    problems: tuple[str, ...] = ()
    note: str | None = None

    @property
    def peak_db(self) -> float | None:
        """The peak in dBFS; None if it was not measured, or there is none."""
        return decibels(self.peak)

    @property
    def rms_db(self) -> float | None:
        """The root mean square in dBFS; None if it was not measured, or it is nothing."""
        return decibels(self.rms)


def decibels(share: float | None) -> float | None:
    """Return a share of full scale in dBFS, None for nothing."""
    return 20 * math.log10(share) if share else None


def check_file(path: str | Path, asked_seconds: float | None = None) -> AudioCheck:
    """Check a file. Whatever is in it, and if there is none, the answer says so: nothing is raised.

    Args:
        path: The file.
        asked_seconds: How long it was asked to be.
    """
    cut_off: str | None = None
    try:
        kind, cut_off = _look(Path(path))
        loudness = _measure(Path(path), kind)
    except CannotReadError as error:
        return AudioCheck(note=f"not measured: {one_line(str(error))}")
    except BrokenError as error:
        return AudioCheck(problems=(cut_off or one_line(str(error)),))
    except FileNotFoundError:
        return AudioCheck(problems=("the file is missing",))
    except (OSError, ValueError, MemoryError) as error:  # ValueError: a name that no file can have
        words = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return AudioCheck(problems=(f"it cannot be read: {one_line(words)}",))
    return _judge(loudness, asked_seconds, cut_off)


def _look(path: Path) -> tuple[str, str | None]:
    """Return the suffix for the kind of audio that a file is of, and what says that its end is missing.

    Raises:
        BrokenError: It is no audio.
        OSError: It cannot be opened.
    """
    if path.exists() and not path.is_file():
        raise BrokenError("it is no file")
    with path.open("rb") as file:
        head = file.read(_HEAD)
        suffix = _kind_of(head, complete=len(head) < _HEAD)
        end, tail, piece = EndCheck(), b"", head
        while piece:
            end.feed(piece)
            tail = (tail + piece)[-_TAIL:]
            piece = file.read(_CHUNK)
    if suffix in (".ogg", ".opus") and _ends_inside_a_page(tail):
        return suffix, "the Ogg file ends inside a page"
    return suffix, end.problem()


def _measure(path: Path, suffix: str) -> Loudness:
    """Measure a file in the best way that there is here.

    Raises:
        CannotReadError: Nothing here reads it.
        BrokenError: It is damaged.
        OSError: It cannot be opened.
    """
    soundfile = load_soundfile()
    if soundfile is None:
        if suffix != ".wav":
            raise CannotReadError(NEEDS_EXTRA)
        return measure_wav(path)
    if suffix not in _READABLE:
        raise CannotReadError(f"Nothing here reads {suffix.lstrip('.')} files")
    return measure_any(path, soundfile)


def _kind_of(head: bytes, *, complete: bool) -> str:
    """Return the suffix for the kind of audio that the first bytes are of.

    Raises:
        BrokenError: They are of something else.
    """
    if not head:
        raise BrokenError("the file is empty")
    media = of_content(head)
    if media is not None:
        return media.suffix
    verdict = judge(head, complete=complete)
    if verdict is Verdict.PASSES:
        raise BrokenError(f"it is no audio that is known here; it begins with {shorten(head[:8])}")
    raise BrokenError(verdict.value)


def _ends_inside_a_page(tail: bytes) -> bool:
    """Tell if an Ogg file's last page is cut: each names how long it is."""
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < _PAGE_HEAD:
        return True
    count = page[_PAGE_HEAD - 1]
    return len(page) < _PAGE_HEAD + count + sum(page[_PAGE_HEAD : _PAGE_HEAD + count])


def _judge(loudness: Loudness, asked_seconds: float | None, cut_off: str | None) -> AudioCheck:
    """Say what is wrong with a sound."""
    silent = loudness.swing < SILENCE and cut_off is None  # what is missing may be what can be heard
    off = 0.0 if asked_seconds is None else abs(loudness.seconds - asked_seconds)
    wrong_length = asked_seconds is not None and off > max(asked_seconds * LENGTH_SLACK, SMALLEST_SLACK)
    problems = [] if cut_off is None else [cut_off]
    if not loudness.outline:
        problems.append("there is no sound in it")
    elif silent:
        problems.append("it is silent")
    if wrong_length:
        problems.append(f"it lasts {loudness.seconds:.1f} s, {asked_seconds:g} s were asked for")
    if loudness.clipped_places:
        places = "one place" if loudness.clipped_places == 1 else f"{loudness.clipped_places:,} places"
        problems.append(f"it clips in {places}")
    if not loudness.is_finite:
        problems.append("it holds samples that are no numbers")
    return AudioCheck(
        seconds=round(loudness.seconds, 3),
        peak=round(loudness.peak, 5),
        rms=round(loudness.rms, 6),
        clipped=loudness.clipped_places > 0,
        silent=silent,
        wrong_length=wrong_length,
        waveform=loudness.outline,
        problems=tuple(problems),
    )
