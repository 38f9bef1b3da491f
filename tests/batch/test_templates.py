"""Names of files from templates."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finevoice_async.batch.templates import TemplateError, is_inside, parse, stem, stem_of_file


@pytest.mark.parametrize(
    ("template", "take", "wanted"),
    [
        ("{key}", 1, "scene 3 door"),
        ("{key}", 2, "scene 3 door-2"),
        ("{row:03}_{prompt}-{take:02}.wav", 2, "007_door-creaks-02"),
        ("sfx\\doors/{key}.mp3", 1, "sfx/doors/scene 3 door"),
        ("./sfx//a", 1, "sfx/a"),
        ("door.v2", 1, "door-v2"),
        ("door.v2.wav", 3, "door-v2-3"),
        ("con", 1, "_con"),
        ("{{x}}", 1, "{x}"),
        (".hidden", 1, "hidden"),
    ],
)
def test_names(template: str, take: int, wanted: str) -> None:
    """Places are filled, suffixes of audio go, and a take that the template does not show is at the end."""
    assert stem(template, key="scene 3/door", take=take, prompt="Door creaks", row=7) == wanted


@pytest.mark.parametrize(
    "template", ["..", "a/../b", "/a", "\\a", "C:/a", "", "a/", "{", "{0}", "{key!r}", "{key:3}", "{}"]
)
def test_what_names_no_file_below(template: str) -> None:
    """A template that leads out, or has places that nobody knows, is refused."""
    with pytest.raises(TemplateError):
        parse(template)


@settings(deadline=None)
@given(st.text(max_size=300), st.text(max_size=300), st.integers(1, 100))
def test_whatever_the_key_holds(key: str, prompt: str, take: int) -> None:
    """A name stays in its folder, and its file is found by its stem."""
    name = stem("a/{key}", key=key, take=take, prompt=prompt, row=1)
    assert PurePosixPath(name).parent == PurePosixPath("a")
    assert is_inside(name)
    assert len(name.encode()) < 250
    assert stem_of_file(f"{name}.wav") == name


@pytest.mark.parametrize("file", ["", "..", "a/../b", "/a", "a\\b", "c:a", "./a", "a\0"])
def test_what_a_lock_may_not_name(file: str) -> None:
    """What a lock names lies below the folder, on every system."""
    assert not is_inside(file)
