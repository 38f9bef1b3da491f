"""Finished copies: what is trimmed and levelled, where they stand, and what they never replace."""

from __future__ import annotations

import hashlib
import io
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from sounds import RATE, float_wav, put, silence, tone, wav

from finevoice_async.batch.checks import check_file
from finevoice_async.batch.finish import FinishError, finish, finished_path

SOUND = [*silence(1), *tone(1, peak=0.25), *silence(0.5)]


@pytest.fixture
def door(tmp_path: Path) -> Path:
    """An original: a second of sound in silence."""
    return put(tmp_path / "door.wav", wav(SOUND, SOUND))


def left(folder: Path) -> list[str]:
    """List what is in a folder, hidden files too."""
    return sorted(entry.name for entry in folder.iterdir())


def sha256(path: Path) -> str:
    """Return a file's hash."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("form", ["wav", "flac", "ogg"])
def test_formats(door: Path, form: str) -> None:
    """The copy stands beside its original in the format that was asked for; nothing else is left."""
    before = sha256(door)
    made = finish(door, format=form)
    assert made == door.with_name(f"door.finished.{form}") == finished_path(door, form)
    assert soundfile.info(made).format == form.upper()
    assert check_file(made, 2.5).problems == ()
    assert left(door.parent) == sorted(["door.wav", made.name])
    assert sha256(door) == before


@pytest.mark.parametrize("bits", [16, 24])
@pytest.mark.parametrize("form", ["wav", "flac"])
def test_a_mere_copy_is_exact(tmp_path: Path, bits: int, form: str) -> None:
    """Without trimming and levelling, the samples of a lossless copy are those of the original, in their width."""
    original = put(tmp_path / "a.wav", wav(tone(1, peak=1.0), tone(1, hertz=99), bits=bits))
    made = finish(original, format=form)
    was, _ = soundfile.read(original, dtype="int32")
    came, rate = soundfile.read(made, dtype="int32")
    assert (was == came).all()
    assert rate == RATE
    assert soundfile.info(made).subtype == f"PCM_{bits}"


def test_the_format_of_the_original(tmp_path: Path, door: Path) -> None:
    """Without a format it is the original's; a WAV for what cannot be written."""
    sound, rate = soundfile.read(door)
    soundfile.write(tmp_path / "a.flac", sound, rate)
    soundfile.write(tmp_path / "b.aiff", sound, rate)
    names = [finish(tmp_path / name).name for name in ("door.wav", "a.flac", "b.aiff")]
    assert names == ["door.finished.wav", "a.finished.flac", "b.finished.wav"]


def test_trimming(door: Path) -> None:
    """Silence goes at both ends but for 10 ms, which fade; the sound itself is as it was."""
    came, _ = soundfile.read(finish(door, trim=True), dtype="float64")
    lead = RATE // 100
    assert len(came) == RATE + 2 * lead - 1  # the sine begins with a zero
    was, _ = soundfile.read(door, dtype="float64")
    assert (came[lead:-lead] == was[RATE + 1 : 2 * RATE]).all()


def test_a_cut_fades(tmp_path: Path) -> None:
    """What is cut within a soft noise begins and ends near nothing."""
    noise = [0.0009 if i % 2 else -0.0009 for i in range(RATE)]
    original = put(tmp_path / "a.wav", wav([*noise, *tone(1), *noise], bits=24))
    came = np.abs(soundfile.read(finish(original, trim=True))[0])
    assert came[0] == 0.0
    assert came[-1] < 0.0001
    assert came[40] == pytest.approx(0.00045, abs=0.0001)
    assert came[-41] == pytest.approx(0.00045, abs=0.0001)


def test_nothing_to_trim(tmp_path: Path) -> None:
    """A sound that begins and ends at once is not touched, and not faded."""
    original = put(tmp_path / "a.wav", wav([0.5] * 100 + [-0.5] * 100))
    assert (soundfile.read(finish(original, trim=True))[0] == soundfile.read(original)[0]).all()


@pytest.mark.parametrize("form", ["wav", "flac", "ogg"])
@pytest.mark.parametrize("peak_db", [0.0, -1.0, -20.0])
def test_the_peak(door: Path, form: str, peak_db: float) -> None:
    """The loudest sample comes to lie where it was asked for; that of a lossy copy not above."""
    found = check_file(finish(door, format=form, peak_db=peak_db))
    assert found.peak_db is not None
    assert found.peak_db <= peak_db + 0.001
    assert found.peak_db > peak_db - (0.01 if form != "ogg" else 1.0)
    assert not found.clipped


@pytest.mark.parametrize("form", ["wav", "flac", "ogg"])
def test_too_loud_is_made_softer(tmp_path: Path, form: str) -> None:
    """What is above full scale is made softer as a whole, not cut."""
    original = put(tmp_path / "a.wav", float_wav(tone(1, peak=2.0), tone(1, peak=1.0)))
    found = check_file(finish(original, format=form))
    assert found.peak is not None
    assert found.peak <= 1.0
    assert not found.clipped
    if form != "ogg":
        came, _ = soundfile.read(finish(original, format=form))
        assert np.abs(came).max(axis=0) == pytest.approx([1.0, 0.5], abs=0.001)


@pytest.mark.parametrize("sound", [silence(1), [], [0.1] * RATE, tone(1, peak=0.0005)])
def test_silence_is_left_alone(tmp_path: Path, sound: list[float]) -> None:
    """What nobody can hear is neither trimmed away nor blown up."""
    original = put(tmp_path / "a.wav", wav(sound))
    came, _ = soundfile.read(finish(original, trim=True, peak_db=-1))
    was, _ = soundfile.read(original)
    assert np.array_equal(was, came)


def test_no_numbers(tmp_path: Path) -> None:
    """Samples that are no numbers become silence or full scale, and spoil nothing around them."""
    original = put(tmp_path / "a.wav", float_wav([*tone(0.5), float("nan"), *tone(0.5)]))
    assert check_file(finish(original, peak_db=-6)).problems == ()


# Its place


@pytest.mark.parametrize("form", ["wav", "flac", "ogg"])
def test_the_same_bytes(door: Path, form: str) -> None:
    """The same original and settings give the same bytes; a second run finds them and writes nothing."""
    made = finish(door, format=form, trim=True, peak_db=-1)
    first = made.read_bytes()
    os.utime(made, (1, 1))
    finish(door, format=form, trim=True, peak_db=-1)
    assert made.stat().st_mtime == 1
    made.unlink()
    assert finish(door, format=form, trim=True, peak_db=-1).read_bytes() == first


def test_the_numbers_of_ogg_pages(door: Path) -> None:
    """An Ogg copy whose serial number was replaced is whole in a reader's eyes, and different sounds differ in it."""
    made = finish(door, format="ogg").read_bytes()
    other = finish(door, format="ogg", peak_db=-3, replaces=[hashlib.sha256(made).hexdigest()]).read_bytes()
    assert made[14:18] != other[14:18]
    assert len(soundfile.read(io.BytesIO(made))[0]) == len(SOUND)
    broken = bytearray(made)
    broken[22] ^= 1  # a checksum that is wrong is noticed, so a right one was
    with pytest.raises(soundfile.LibsndfileError):
        soundfile.read(io.BytesIO(bytes(broken)))


def test_other_settings(door: Path) -> None:
    """A copy that is known to be made here is replaced, by its hash."""
    made = finish(door, peak_db=-1)
    known = sha256(made)
    finish(door, peak_db=-6, replaces={known})
    assert check_file(made).peak_db == pytest.approx(-6, abs=0.01)


def test_changed_by_hand(door: Path) -> None:
    """What stands there and is not known is not replaced, and the error says what to do."""
    made = finish(door, peak_db=-1)
    known = sha256(made)
    made.write_bytes(b"edited")
    with pytest.raises(FinishError, match=r"door\.finished\.wav was changed, .* Move it away"):
        finish(door, peak_db=-6, replaces={known})
    assert made.read_bytes() == b"edited"
    assert left(door.parent) == ["door.finished.wav", "door.wav"]


def test_a_long_name(tmp_path: Path) -> None:
    """A name that has no room for more is cut, and a stem with dots keeps them."""
    sound = wav(tone(0.1))
    long = finish(put(tmp_path / f"{'ä' * 125}.wav", sound))
    assert long.name == "ä" * 121 + ".finished.wav"
    assert finish(put(tmp_path / "take 2.5", sound)).name == "take 2.5.finished.wav"


# What does not work


def test_without_the_extra(door: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the audio extra one error names it."""
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(FinishError, match=r"pip install 'finevoice-async\[audio\]'"):
        finish(door)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"format": "mp3"}, "must be wav, flac or ogg, not 'mp3'"),
        ({"peak_db": 0.1}, "from -120 to 0, not 0.1"),
        ({"peak_db": float("nan")}, "from -120 to 0, not nan"),
    ],
)
def test_wrong_settings(door: Path, settings: dict[str, Any], words: str) -> None:
    """A setting that makes no sense is refused, and nothing is written."""
    with pytest.raises(FinishError, match=words):
        finish(door, **settings)
    assert left(door.parent) == ["door.wav"]


@pytest.mark.parametrize("content", [None, b"", b"<html>", b"RIFF\x00\x00\x00\x00WAVE"])
def test_no_audio(tmp_path: Path, content: bytes | None) -> None:
    """What cannot be read has no copy, and the error names it."""
    path = tmp_path / "a.wav"
    if content is not None:
        put(path, content)
    with pytest.raises(FinishError, match=r"There is no finished copy of .*a\.wav: "):
        finish(path)
    assert not finished_path(path, "wav").exists()


def test_too_many_channels(tmp_path: Path) -> None:
    """What a format cannot hold is an error of ours."""
    with pytest.raises(FinishError):
        finish(put(tmp_path / "a.wav", wav(*[tone(0.1)] * 9)), format="flac")
    assert left(tmp_path) == ["a.wav"]
