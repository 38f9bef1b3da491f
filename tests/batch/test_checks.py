"""Checks of a result: with the audio extra and without it, for good, bad and broken files."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sounds import RATE, container, float_wav, put, silence, tone, wav

from finevoice_async.batch.checks import AudioCheck, check_file

WAYS = ["audio extra", "standard library"]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Measure with the audio extra, and as if it were not installed."""
    if request.param == "standard library":
        without_extra(monkeypatch)
    return str(request.param)


def without_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an import of soundfile fail as if it were not installed."""
    monkeypatch.setitem(sys.modules, "soundfile", None)


def check(folder: Path, content: bytes, asked: float | None = None) -> AudioCheck:
    """Check a file with this content."""
    return check_file(put(folder / "a.wav", content), asked)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("bits", [8, 16, 24, 32])
def test_what_is_measured(tmp_path: Path, bits: int) -> None:
    """Length, peak and loudness are the same by either way, for samples of every width and any channel."""
    found = check(tmp_path, wav(tone(1.5, peak=0.25), tone(1.5, peak=0.5), bits=bits), 1.5)
    assert found.seconds == 1.5
    assert found.peak == pytest.approx(0.5, abs=0.01)
    assert found.rms == pytest.approx(((0.25**2 + 0.5**2) / 4) ** 0.5, abs=0.005)
    assert found.peak_db == pytest.approx(-6.02, abs=0.1)
    assert found.rms_db == pytest.approx(-11.07, abs=0.2)
    assert (found.problems, found.note) == ((), None)
    assert (found.silent, found.clipped, found.wrong_length) == (False, False, False)


@pytest.mark.usefixtures("way")
def test_the_outline(tmp_path: Path) -> None:
    """The waveform has 120 pairs, each with the lowest and highest sample of its stretch."""
    up, down = [0.5] * RATE, [-0.25] * RATE
    found = check(tmp_path, wav([*up, *silence(1), *down]))
    assert len(found.waveform) == 120
    assert found.waveform[0] == found.waveform[38] == (0.5, 0.5)
    assert found.waveform[60] == (0.0, 0.0)
    assert found.waveform[119] == (-0.25, -0.25)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("seconds", [0.001, 0.1, 700.0])
def test_the_outline_of_any_length(tmp_path: Path, seconds: float) -> None:
    """A click and ten minutes have as many pairs, and the loud part stands where it is in the file."""
    rate = 8000
    half = round(seconds * rate / 2)
    content = container(bytes(2 * half) + b"\x00\x20" * half, kind=1, rate=rate)
    found = check(tmp_path, content)
    assert len(found.waveform) == 120
    assert found.waveform[119][1] == 0.25
    if seconds > 1:
        assert found.waveform[58] == (0.0, 0.0)
        assert found.waveform[61] == (0.25, 0.25)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("sound", "is_silent"),
    [
        (silence(1), True),
        (tone(1, peak=0.0009), True),
        (tone(1, peak=0.0015), False),
        ([0.2] * RATE, True),  # a constant moves no air
        ([*silence(1), 0.5, *silence(1)], False),  # a click
    ],
)
def test_silence(tmp_path: Path, sound: Sequence[float], is_silent: bool) -> None:
    """Only what swings less than a thousandth of full scale is silent: a constant is, a click is not."""
    found = check(tmp_path, wav(sound))
    assert found.silent is is_silent
    assert ("it is silent" in found.problems) is is_silent


@pytest.mark.usefixtures("way")
def test_one_channel_is_enough(tmp_path: Path) -> None:
    """What is heard on one side only is no silence."""
    assert not check(tmp_path, wav(silence(1), tone(1))).silent
    assert not check(tmp_path, wav(tone(1), silence(1))).silent


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("bits", [8, 16, 24, 32])
@pytest.mark.parametrize(
    ("run", "places"), [([1.0], 0), ([1.0] * 2, 0), ([1.0] * 3, 1), ([-1.0] * 9, 1), ([1.0, 1.0, 1.0, 0.0] * 5, 5)]
)
def test_clipping(tmp_path: Path, bits: int, run: list[float], places: int) -> None:
    """Three neighbouring samples at full scale are a clipped place, two may be a peak that fits."""
    found = check(tmp_path, wav([*tone(0.1), *run, *tone(0.1)], bits=bits))
    assert found.clipped is (places > 0)
    words = {0: (), 1: ("it clips in one place",), 5: ("it clips in 5 places",)}
    assert found.problems == words[places]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("before", range(65534, 65540))
def test_clipping_across_blocks(tmp_path: Path, before: int) -> None:
    """A clipped place is found once, also where one block of reading ends and the next begins."""
    assert check(tmp_path, wav([*silence(before / RATE), *[1.0] * 4, 0.5])).problems == ("it clips in one place",)


@pytest.mark.usefixtures("way")
def test_clipping_of_one_channel(tmp_path: Path) -> None:
    """Samples of different channels are no neighbours."""
    loud = [0.0, 1.0, 0.0, 1.0] * 100
    assert not check(tmp_path, wav(loud, loud, loud)).clipped


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("asked", "made", "is_wrong"),
    [(5, 5, False), (5, 5.4, False), (5, 5.6, True), (5, 4.4, True), (0.5, 0.7, False), (0.5, 0.9, True)],
)
def test_length(tmp_path: Path, asked: float, made: float, is_wrong: bool) -> None:
    """A tenth more or less is as asked, and of short ones 0.3 s."""
    found = check(tmp_path, wav(tone(made)), asked)
    assert found.wrong_length is is_wrong
    assert found.problems == ((f"it lasts {made:.1f} s, {asked:g} s were asked for",) if is_wrong else ())


@pytest.mark.usefixtures("way")
def test_no_length_was_asked_for(tmp_path: Path) -> None:
    """Where the service chose the length, any is right."""
    assert check(tmp_path, wav(tone(3))).problems == ()


# What is no whole audio file


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b"<!DOCTYPE html><html></html>", "it is an HTML or XML page, not audio"),
        (b'{"error": "expired"}', "it is JSON, not audio"),
        (b" \n" * 9, "there is nothing in it"),
        (b"\x8fquite unknown" * 99, "it is no audio that is known here"),
        (wav(tone(1))[:20], "the WAV file ends after 20 of 16044 bytes"),
        (wav([]), "there is no sound in it"),
        (container(b"", kind=1, rate=0), "it"),
        (container(b"", kind=1, channels=0), "it"),
    ],
)
def test_broken(tmp_path: Path, content: bytes, words: str) -> None:
    """A broken file is a finding with its reason, and no measure that could be taken for one."""
    found = check(tmp_path, content, 5)
    assert found.problems[0].startswith(words)
    assert found.seconds in (None, 0.0)


@pytest.mark.usefixtures("way")
def test_cut_off(tmp_path: Path) -> None:
    """What is there of a file that ends early is measured, and the first problem is that it ends."""
    found = check(tmp_path, wav(tone(4))[: 2 * RATE * 2 + 44], 4)
    assert found.seconds == 2.0
    assert found.problems == ("the WAV file ends after 32044 of 64044 bytes", "it lasts 2.0 s, 4 s were asked for")
    assert not check(tmp_path, wav([*silence(2), *tone(2)])[: 2 * RATE], 4).silent  # nobody knows what would come


@pytest.mark.usefixtures("way")
def test_no_file(tmp_path: Path) -> None:
    """A file that is missing, a folder, a pipe that nobody writes and an impossible name are findings, too."""
    os.mkfifo(tmp_path / "pipe")
    assert check_file(tmp_path / "none.wav").problems == ("the file is missing",)
    assert check_file(tmp_path).problems == ("it is no file",)
    assert check_file(tmp_path / "pipe").problems == ("it is no file",)
    assert check_file(tmp_path / ("x" * 300)).problems == ("it cannot be read: File name too long",)
    assert check_file("a\0b").problems[0].startswith("it cannot be read")
    assert check_file(tmp_path / "none" / "a.wav").problems == ("the file is missing",)


@pytest.mark.usefixtures("way")
def test_bytes_at_random(tmp_path: Path) -> None:
    """Whatever becomes of a header, nothing is raised."""
    rng = random.Random(1)
    whole = wav(tone(0.05), tone(0.05))
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(rng.randint(1, 5)):
            content[rng.randrange(44)] = rng.choice([0, 1, 2, 3, 127, 128, 255])
        check(tmp_path, bytes(content[: rng.randint(0, len(content))]), 1)


# What only one way can


def test_floating_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples in floating point are measured with the extra; without it they are not, which is no fault of theirs."""
    content = float_wav(tone(1, peak=1.5), tone(1))
    found = check(tmp_path, content)
    assert found.peak == pytest.approx(1.5, abs=0.01)
    assert found.clipped
    without_extra(monkeypatch)
    found = check(tmp_path, content, 5)
    assert (found.problems, found.seconds, found.silent) == ((), None, False)
    assert found.note is not None
    assert found.note.endswith("pip install 'finevoice-async[audio]'")


def test_no_numbers(tmp_path: Path) -> None:
    """Samples that are no numbers are a problem, and spoil no measure."""
    found = check(tmp_path, float_wav([*tone(0.5), float("nan"), float("-inf"), *tone(0.5)]))
    assert found.problems == ("it holds samples that are no numbers",)
    assert found.peak == 1.0
    assert found.rms == pytest.approx(0.5 / 2**0.5, abs=0.01)


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.flac", {}), ("a.ogg", {}), ("a.mp3", {}), ("a.aiff", {}), ("a.opus", {"format": "OGG", "subtype": "OPUS"})],
)
def test_other_formats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, options: dict[str, Any]) -> None:
    """What libsndfile reads is measured with the extra, by its content and not its name; cut off it is a finding."""
    import soundfile

    path = tmp_path / name
    soundfile.write(path, tone(2, rate=48000), 48000, **options)
    path = path.rename(tmp_path / "a.raw")
    found = check_file(path, 2)
    assert found.problems == ()
    assert found.seconds == pytest.approx(2, abs=0.1)
    assert found.peak == pytest.approx(0.5, abs=0.12)  # what is lossy may ring
    content = path.read_bytes()
    if name != "a.aiff":  # its reader takes what is there
        path.write_bytes(content[: len(content) * 2 // 3 + 1])
        assert check_file(path, 2).problems
    without_extra(monkeypatch)
    unread = check_file(put(path, content), 2)
    assert (unread.problems, unread.seconds, unread.silent) == ((), None, False)
    assert unread.note == "not measured: It takes the audio extra: pip install 'finevoice-async[audio]'"


@pytest.mark.parametrize("missing", [0, 1, 40, 2000])
def test_an_ogg_file_that_is_cut(tmp_path: Path, missing: int) -> None:
    """Each page says how long it is: of the last one no byte may be missing, nor of what is cut in its head."""
    import soundfile

    path = tmp_path / "a.ogg"
    soundfile.write(path, tone(2), RATE)
    content = path.read_bytes()
    cut = content[: len(content) - missing]
    head_only = content[: content.rindex(b"OggS") + 20]
    found = check_file(put(path, cut))
    assert found.problems[:1] == (("the Ogg file ends inside a page",) if missing else ())
    assert not found.silent
    assert check_file(put(path, head_only)).problems[0] == "the Ogg file ends inside a page"


def test_what_nothing_here_reads(tmp_path: Path) -> None:
    """Audio of a kind that libsndfile does not know is not measured, and that is no problem."""
    found = check(tmp_path, b"\x00\x00\x00\x20ftypM4A " + bytes(500), 5)
    assert (found.problems, found.note) == ((), "not measured: Nothing here reads m4a files")


def test_a_damaged_file(tmp_path: Path) -> None:
    """A file whose middle is destroyed cannot be decoded, which is said in a line."""
    import soundfile

    path = tmp_path / "a.flac"
    soundfile.write(path, tone(2), RATE)
    content = bytearray(path.read_bytes())
    content[200:4000] = bytes(3800)
    (found,) = check_file(put(path, bytes(content))).problems
    assert found.startswith("it cannot be decoded: ")
