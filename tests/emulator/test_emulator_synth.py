"""The sounds: real audio, of the asked length, different by prompt."""

from __future__ import annotations

import array
import io
import itertools
import sys
import wave

import pytest

from finevoice_async.emulator.synth import INSTRUMENTS, RATE, hum, synthesise

# One prompt for each instrument, and one for none.
PROMPTS = (
    "Heavy rain", "Pouring water", "Thunderstorm", "Cold wind", "Footsteps on gravel", "Typing on a keyboard",
    "Church bells", "Shattered glass", "Laser gun", "Old car engine", "Birds at dawn", "Door creaks open",
    "Explosion far away", "Applause", "Campfire", "Something nobody has words for",
)  # fmt: skip


def read(content: bytes) -> array.array[int]:
    """Return the samples of a WAV, after a look at its form."""
    with wave.open(io.BytesIO(content)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, RATE)
        samples = array.array("h", file.readframes(file.getnframes()))
    if sys.byteorder == "big":
        samples.byteswap()
    return samples


@pytest.mark.parametrize("prompt", PROMPTS)
def test_each_sound_is_sound(prompt: str) -> None:
    """It has the asked length, a normal peak without clipping, more than a moment of sound, and silent ends."""
    samples = read(synthesise(prompt, None, 2.0))
    assert len(samples) == 2 * RATE
    peak = max(max(samples), -min(samples))
    assert 0.85 * 32767 < peak < 32767
    assert samples[0] == samples[-1] == 0
    assert sum(abs(sample) > 0.02 * peak for sample in samples) > RATE / 50


def test_sounds_differ() -> None:
    """Different prompts give different sounds, also with the same words, and the same prompt the same."""
    prompts = [*PROMPTS, "rain", "rain!", "soft rain", "rain and thunder"]
    sounds = {synthesise(prompt, None, 0.3) for prompt in prompts}
    assert len(sounds) == len(prompts)
    assert sounds == {synthesise(prompt, None, 0.3) for prompt in prompts}
    assert synthesise("rain", "music", 0.3) not in sounds


def test_what_is_to_be_avoided_is_not_heard() -> None:
    """A negative prompt takes its instrument away, which changes the sound's character: rain is all hiss."""

    def crossings(negative: str | None) -> int:
        samples = read(synthesise("rain on thunder", negative, 2.0))
        return sum(a < 0 <= b for a, b in itertools.pairwise(samples))

    assert crossings("raining") < crossings(None) < crossings("thunder")


@pytest.mark.parametrize("seconds", [0.00001, 0.001, 0.01, 0.123456, 1.0, 30.0])
def test_exact_lengths(seconds: float) -> None:
    """The length is right to the sample, from one sample to the longest effect."""
    for prompt in ("glass", "bell", "rain", "explosion"):
        assert len(read(synthesise(prompt, None, seconds))) == max(1, round(seconds * RATE))
        if seconds == 30.0:
            break


@pytest.mark.parametrize("seconds", [0.00001, 0.001, 0.1, 0.123456, 30.0])
def test_the_quick_sound(seconds: float) -> None:
    """It is as long as asked, and other words make another."""
    sounds = {hum(prompt, negative, seconds) for prompt, negative in [("rain", None), ("bell", None), ("rain", "bell")]}
    assert {len(read(sound)) for sound in sounds} == {max(1, round(seconds * RATE))}
    if seconds > 0.01:
        assert len(sounds) == 3
        assert all(0.85 * 32767 < max(read(sound)) < 32767 for sound in sounds)


@pytest.mark.parametrize("prompt", [None, "", "\U0001f327", "\u202e", "x" * 100_000, "\x00", "\ud800"])
def test_any_prompt_sounds(prompt: str | None) -> None:
    """Whatever the prompt, or none, there is a sound."""
    assert max(read(synthesise(prompt, prompt, 0.2))) > 0


def test_words_are_stems() -> None:
    """The words are spelled as they are looked up."""
    assert all(word.isalnum() and word == word.lower() for word in INSTRUMENTS)
