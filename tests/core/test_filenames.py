"""File names: what prompts, ids and links may not do."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finevoice_async.core.filenames import (
    MAX_NAME,
    cut,
    part_name,
    safe_name,
    size,
    slug,
    stem_of,
    suffix_of,
    with_suffix,
)

NASTY = ["=cmd", "<script>", "../../x", "a\x00b", "CON", "x" * 10_000, "\u202egnp.exe", "雨", "..", "/", "", "\ud800"]
FORBIDDEN = set('/\\:*?"<>|')
TEXTS = st.text() | st.text("aé雨🌧\u0301\u0645.- \u202e\u200dCON¹/\x00", max_size=300)


@pytest.mark.parametrize("prompt", NASTY)
@pytest.mark.parametrize("task_id", ["p1-ok", "../../etc/passwd", "CON", "a b", "", None])
def test_stems_are_inert(prompt: str, task_id: str | None) -> None:
    """Whatever the prompt and the id hold, the name is one plain word."""
    stem = stem_of(prompt, task_id, "https://x/y.mp3?sig=1")
    assert stem.replace("-", "").replace("_", "").isalnum()
    assert 1 < len(stem) < 120


@given(TEXTS, TEXTS, st.text())
def test_any_stem_stays_in_its_folder(prompt: str, task_id: str, url: str) -> None:
    """No text makes a name with a separator, a control character, a mark of direction or a leading dot."""
    stem = stem_of(prompt, task_id, url)
    assert not set(stem) & FORBIDDEN
    assert stem.isprintable()
    assert stem[0] not in ".-"
    assert size(stem) <= MAX_NAME - len(".opus")
    assert safe_name(stem) == stem


@given(st.text(min_size=1), st.text(min_size=1))
def test_ids_keep_names_apart(one: str, other: str) -> None:
    """Two tasks with the same prompt never share a name."""
    assert (stem_of("p", one, "u") == stem_of("p", other, "u")) == (one == other) or len(one + other) > 40


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("Thunderstorm — with RAIN! é", "thunderstorm-with-rain-é"),
        ("e\u0301tude", "étude"),
        ("雷雨、大雨", "雷雨-大雨"),
        ("Гроза, дождь", "гроза-дождь"),
        ("رعد \u200fمطر\u202e", "رعد-مطر"),
        ("बारिश की आवाज़", unicodedata.normalize("NFC", "बारिश-की-आवाज़")),
        ("ฝนตกหนัก", "ฝนตกหนัก"),
        ("비와 천둥", "비와-천둥"),
        ("İstanbul", unicodedata.normalize("NFC", "İstanbul".lower())),
        ("🌧 rain 🌧🌧", "rain"),
        ("\u0301\u0301", ""),
        ("- \u0301-\u0301x", "x"),
        ("雨" * 100, "雨" * 40),
        ("a" * 39 + "n\u0308\u0308\u0308", "a" * 39),
    ],
)
def test_slug(prompt: str, words: str) -> None:
    """A slug is lower-case words in the letters of any script, composed; marks stay with their letters."""
    assert slug(prompt) == words


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("rain.wav", "rain.wav"),
        ("Rain, 2nd take (loud) & close 🌧.wav", "Rain, 2nd take (loud) & close 🌧.wav"),
        ("../../etc/passwd", "etc passwd"),
        ("C:\\rain.wav", "C rain.wav"),
        ("a\x00b\n\u202egnp.exe", "abgnp.exe"),
        ("CON", "_CON"),
        ("con.tar.gz", "_con.tar.gz"),
        ("NUL .wav", "_NUL.wav"),
        ("COM¹", "_COM¹"),
        ("lpt9.mp3", "_lpt9.mp3"),
        ("CONIN$", "_CONIN$"),
        ("\u200bAUX", "_AUX"),
        ("CONGA.wav", "CONGA.wav"),
        ("COM10", "COM10"),
        ("rain. . .", "rain"),
        (" .rain", "rain"),
        ("...", "effect"),
        ("", "effect"),
        ("e\u0301.wav", "é.wav"),
        ("雨" * 100 + ".wav", "雨" * 83 + ".wav"),
        ("x" * 253 + " ." + "y" * 90, "x" * 253),
    ],
)
def test_safe_name(name: str, safe: str) -> None:
    """A name that somebody else gave stays what it is as far as every file system takes it."""
    assert safe_name(name) == safe


@given(TEXTS)
def test_any_safe_name_is_safe(name: str) -> None:
    """No text makes a name that leaves its folder, that is hidden, too long, a device, or changed by Windows."""
    safe = safe_name(name)
    assert safe
    assert not set(safe) & FORBIDDEN
    assert safe.isprintable()
    assert safe[0] not in ". "
    assert safe[-1] not in ". "
    assert size(safe) <= MAX_NAME
    assert safe.partition(".")[0].strip().upper() not in {"CON", "NUL", "COM1", "COM¹", "AUX", "PRN"}


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("a.wav", ".wav"),
        ("a.b.WAV", ".WAV"),
        ("3.mp3", ".mp3"),
        ("a.v2", ".v2"),
        ("take 2.5", ""),
        ("Dr. Who", ""),
        (".hidden", ""),
        ("..wav", ""),
        ("a.", ""),
        ("a", ""),
        ("", ""),
        ("a.farfarfartoolong", ""),
    ],
)
def test_suffix_of(name: str, suffix: str) -> None:
    """A suffix is a short word behind the last dot; a number is none, and a name is not all suffix."""
    assert suffix_of(name) == suffix


@pytest.mark.parametrize("name", ["a", "雨" * 85, "🌧" * 63, "a" * 255, "é" * 127, "x" * 238 + "雨" * 5, "..."])
def test_long_names(name: str) -> None:
    """With its suffix a name is never longer than a file system takes, nor is a temporary one; no letter is halved."""
    full = with_suffix(name, ".flac")
    assert size(full) <= MAX_NAME
    assert full.endswith(".flac")
    assert size(part_name(name)) < 140
    assert size(part_name(full, 12)) < 140
    assert "\ufffd" not in full + part_name(name)


def test_temporary_names() -> None:
    """They are the same each time, and others for other files, also where the names begin alike."""
    assert part_name("a.wav") == part_name("a.wav")
    names = [part_name("x" * 200 + end, turn) for end in ("a", "b", "\udce4") for turn in (0, 1, "word")]
    assert len(set(names)) == 9
    assert all(name.startswith(".x") and name.endswith(".part") for name in names)


@pytest.mark.parametrize(
    ("text", "limit", "kept"),
    [
        ("雨雨", 6, "雨雨"),
        ("雨雨", 5, "雨"),
        ("雨", 2, ""),
        ("ae\u0301\u0301", 4, "a"),
        ("a👩\u200d👧", 8, "a"),
        ("a👍\U0001f3ff", 5, "a"),
        ("e\u0301", 1, ""),
    ],
)
def test_cut(text: str, limit: int, kept: str) -> None:
    """A text is cut by bytes, where a character ends for whoever reads it."""
    assert cut(text, limit) == kept
