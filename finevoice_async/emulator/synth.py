"""A small synthesiser: a prompt becomes a real 16-bit WAV that sounds a little like its words.

Words choose the instruments (rain is filtered noise, a laser is a falling tone), the prompt's hash their details, so
the same prompt always gives the same sound. Pure Python, with a table for sines: 5 s of sound take 0.02 to 0.2 s.
"""

from __future__ import annotations

import hashlib
import io
import math
import random
import sys
import wave
from array import array
from collections.abc import Callable

RATE = 22050
"""Samples a second: half of a CD's, enough for a sketch of a sound, and quick to make."""

_TABLE_SIZE = 4096
_SINE = [math.sin(2 * math.pi * i / _TABLE_SIZE) for i in range(_TABLE_SIZE)]
_PEAK = 0.9 * 32767
_FADE = 0.01  # seconds at both ends, so that nothing clicks

Samples = list[float]
Instrument = Callable[[int, random.Random], Samples]


def _noise(count: int, rng: random.Random, smooth: float) -> Samples:
    """Noise through a one-pole low-pass filter; `smooth` near 1 is a rumble, 0 a hiss."""
    level, samples, draw = 0.0, [], rng.random
    keep, take = smooth, 1 - smooth
    for _ in range(count):
        level = keep * level + take * (2 * draw() - 1)
        samples.append(level)
    return samples


def _tone(count: int, start: float, end: float, harmonics: tuple[float, ...] = (1.0,)) -> Samples:
    """A tone that glides from one frequency to another, with overtones of these strengths."""
    phase, samples = 0.0, []
    step = start * _TABLE_SIZE / RATE
    change = (end - start) * _TABLE_SIZE / RATE / max(count, 1)
    for _ in range(count):
        value = 0.0
        for number, strength in enumerate(harmonics, 1):
            value += strength * _SINE[int(phase * number) % _TABLE_SIZE]
        samples.append(value)
        phase += step
        step += change
    return samples


def _decay(samples: Samples, seconds: float) -> Samples:
    """Let a sound die away: to a third after this many seconds."""
    factor, level = math.exp(-1 / (seconds * RATE)), 1.0
    for i, value in enumerate(samples):
        samples[i] = value * level
        level *= factor
    return samples


def _swell(samples: Samples, times: float) -> Samples:
    """Let a sound come and go this many times."""
    step = times * _TABLE_SIZE / max(len(samples), 1)
    return [
        value * (0.55 - 0.45 * _SINE[int(i * step + _TABLE_SIZE / 4) % _TABLE_SIZE]) for i, value in enumerate(samples)
    ]


def _repeat(count: int, rng: random.Random, every: float, event: Callable[[random.Random], Samples]) -> Samples:
    """Strew events over the time, about this many seconds apart."""
    samples = [0.0] * count
    at = int(rng.random() * every * RATE * 0.3)
    while at < count:
        for i, value in enumerate(event(rng)[: count - at], at):
            samples[i] += value
        at += max(1, int(every * RATE * rng.uniform(0.7, 1.3)))
    return samples


def _rain(count: int, rng: random.Random) -> Samples:
    hiss = _noise(count, rng, 0.3)
    drops = _repeat(count, rng, 0.05, lambda r: _decay(_tone(200, r.uniform(900, 3000), 700), 0.004))
    return [0.5 * a + 0.35 * b for a, b in zip(hiss, drops, strict=True)]


def _thunder(count: int, rng: random.Random) -> Samples:
    return _repeat(count, rng, 2.5, lambda r: _decay([6 * v for v in _noise(int(1.8 * RATE), r, 0.985)], 0.7))


def _wind(count: int, rng: random.Random) -> Samples:
    return _swell([3 * v for v in _noise(count, rng, 0.93)], rng.uniform(1.5, 4))


def _steps(count: int, rng: random.Random) -> Samples:
    return _repeat(count, rng, 0.5, lambda r: _decay([2 * v for v in _noise(1600, r, 0.9)], 0.02))


def _bell(count: int, rng: random.Random) -> Samples:
    pitch = rng.uniform(500, 1100)
    strike = lambda r: _decay(_tone(RATE, pitch * r.uniform(0.99, 1.01), pitch, (1, 0, 0.5, 0, 0.3)), 0.4)  # noqa: E731
    return _repeat(count, rng, 1.1, strike)


def _laser(count: int, rng: random.Random) -> Samples:
    return _repeat(count, rng, 0.45, lambda r: _decay(_tone(4000, r.uniform(1800, 2600), 200, (1, 0.5)), 0.15))


def _engine(count: int, rng: random.Random) -> Samples:
    pitch = rng.uniform(45, 90)
    return _swell(_tone(count, pitch, pitch * rng.uniform(0.9, 1.5), (1, 0.7, 0.5, 0.4)), rng.uniform(2, 8))


def _bird(count: int, rng: random.Random) -> Samples:
    return _repeat(count, rng, 0.3, lambda r: _decay(_tone(1500, r.uniform(2200, 3500), r.uniform(2500, 4500)), 0.06))


def _creak(count: int, rng: random.Random) -> Samples:
    pitch = rng.uniform(180, 320)
    return _swell(_tone(count, pitch, pitch * 1.6, (1, 0.8, 0.9, 0.6)), rng.uniform(6, 11))


def _boom(count: int, rng: random.Random) -> Samples:
    blast = _decay([5 * v for v in _noise(count, rng, 0.97)], 0.5)
    low = _decay(_tone(count, 90, 30), 0.4)
    return [a + b for a, b in zip(blast, low, strict=True)]


def _hum(count: int, rng: random.Random) -> Samples:
    pitch = rng.uniform(110, 660)
    return _swell(
        _tone(count, pitch, pitch * rng.uniform(0.7, 1.4), (1, rng.random(), rng.random())), rng.uniform(1, 6)
    )


def _water(count: int, rng: random.Random) -> Samples:
    stream = _noise(count, rng, 0.8)
    drops = _repeat(count, rng, 0.12, lambda r: _decay(_tone(1400, r.uniform(400, 700), r.uniform(900, 1600)), 0.02))
    return [1.2 * a + 0.5 * b for a, b in zip(stream, drops, strict=True)]


def _applause(count: int, rng: random.Random) -> Samples:
    clap = lambda r: _decay(_noise(500, r, r.uniform(0.2, 0.6)), 0.006)  # noqa: E731 - as short as the others
    return _swell(_repeat(count, rng, 0.012, clap), 0.5)


def _fire(count: int, rng: random.Random) -> Samples:
    roar = _noise(count, rng, 0.96)
    crackle = _repeat(count, rng, 0.09, lambda r: _decay(_noise(300, r, 0.1), r.uniform(0.001, 0.005)))
    return [3 * a + 0.8 * b for a, b in zip(roar, crackle, strict=True)]


def _click(count: int, rng: random.Random) -> Samples:
    every, pitch = rng.uniform(0.12, 0.9), rng.uniform(1500, 3200)
    return _repeat(count, rng, every, lambda r: _decay(_tone(500, pitch * r.uniform(0.95, 1.05), pitch), 0.003))


def _glass(count: int, rng: random.Random) -> Samples:
    shards = lambda r: _decay(_tone(3500, r.uniform(2500, 6500), 2400, (1, 0.4)), r.uniform(0.02, 0.09))  # noqa: E731
    return _decay(_repeat(count, rng, 0.05, shards), 0.8)


_BY_INSTRUMENT: dict[Instrument, str] = {
    _rain: "rain shower drizzle hail hiss static",
    _water: "water river stream drip drop splash pour bubble fountain waterfall",
    _thunder: "thunder thunderstorm storm earthquake rumble avalanche lightning",
    _wind: "wind sea ocean wave breeze forest surf beach breath whoosh swoosh",
    _steps: "step footstep walk knock run gallop horse boot stomp hammer",
    _click: "click clock tick typing keyboard button switch lock mouse geiger",
    _bell: "bell chime coin church gong ding doorbell phone alarm",
    _glass: "glass shatter bottle crystal ice sparkle magic",
    _laser: "laser zap robot spaceship arcade retro blaster scifi synth ufo",
    _engine: "engine car motor truck train helicopter machine drone plane tractor drill",
    _bird: "bird chirp cricket whistle owl parrot insect squeak",
    _creak: "door creak wooden swing hinge gate floorboard chair",
    _boom: "explosion boom cannon blast crash drum gun gunshot firework punch impact",
    _applause: "applause clap crowd audience cheer ovation",
    _fire: "fire campfire flame burn crackle fireplace",
}
INSTRUMENTS: dict[str, Instrument] = {word: play for play, words in _BY_INSTRUMENT.items() for word in words.split()}
_ENDINGS = ("s", "es", "ing", "ping", "ed")
_MOST = 2  # instruments that play together


def _words(text: str) -> list[str]:
    return "".join(c if c.isalnum() else " " for c in text.lower()[:1000]).split()


def _instruments(text: str) -> list[Instrument]:
    """Return the instruments of a text, each once, in the order of their words; plurals and the like count."""
    found = []
    for word in _words(text):
        stems = [word, *(word.removesuffix(ending) for ending in _ENDINGS)]
        found += [INSTRUMENTS[stem] for stem in stems if stem in INSTRUMENTS][:1]
    return list(dict.fromkeys(found))


def synthesise(prompt: str | None, negative_prompt: str | None, seconds: float) -> bytes:
    """Make a WAV file.

    Args:
        prompt: Its words choose the sounds; None hums.
        negative_prompt: Words that are not to be heard.
        seconds: How long, to the sample; one sample at least.
    """
    rng = _luck(prompt, negative_prompt)
    count = max(1, round(seconds * RATE))
    avoided = _instruments(negative_prompt or "")
    chosen = [play for play in _instruments(prompt or "") if play not in avoided][:_MOST] or [_hum]
    layers = [_levelled(play(count, rng)) for play in chosen]
    return _wav(_pcm([sum(values) for values in zip(*layers, strict=True)] if len(layers) > 1 else layers[0]))


def hum(prompt: str | None, negative_prompt: str | None, seconds: float) -> bytes:
    """Make a WAV file in a few milliseconds, whatever its length: a tenth of a second, again and again.

    For tests that are not about the sound. Other words hum at another pitch.
    """
    count = max(1, round(seconds * RATE))
    once = min(count, RATE // 10)
    pcm = _pcm(_hum(once, _luck(prompt, negative_prompt)))
    return _wav((pcm * (count // once + 1))[:count])


def _luck(prompt: str | None, negative_prompt: str | None) -> random.Random:
    digest = hashlib.sha256(repr((prompt, negative_prompt)).encode("utf-8", "replace")).digest()
    return random.Random(digest)  # noqa: S311 - the same prompt sounds the same


def _levelled(samples: Samples) -> Samples:
    """Bring a sound to a peak of 1, so that none drowns its neighbour; silence stays silence."""
    scale = 1 / (max(max(samples), -min(samples)) or 1.0)
    return [value * scale for value in samples]


def _pcm(samples: Samples) -> array[int]:
    fade = min(int(_FADE * RATE), len(samples) // 2)
    for i in range(fade):
        samples[i] *= i / fade
        samples[-1 - i] *= i / fade
    scale = _PEAK / (max(max(samples), -min(samples)) or 1.0)  # after the fades: a short sound may peak in them
    return array("h", [int(value * scale) for value in samples])


def _wav(pcm: array[int]) -> bytes:
    if sys.byteorder == "big":
        pcm.byteswap()
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(pcm.tobytes())
    return buffer.getvalue()
