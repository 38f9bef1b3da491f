"""File names: what prompts, ids and links may not do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finevoice_async.core.filenames import slug, stem_of

NASTY = ["=cmd", "<script>", "../../x", "a\x00b", "CON", "x" * 10_000, "\u202egnp.exe", "雨", "..", "/", "", "\ud800"]


@pytest.mark.parametrize("prompt", NASTY)
@pytest.mark.parametrize("task_id", ["p1-ok", "../../etc/passwd", "CON", "a b", "", None])
def test_file_names_are_inert(prompt: str, task_id: str | None) -> None:
    """Whatever the prompt and the id hold, the name is one plain ASCII word with an extension."""
    name = file_name(prompt, task_id, "https://x/y.mp3?sig=1")
    stem, dot, kind = name.rpartition(".")
    assert (dot, kind) == (".", "mp3")
    assert stem.replace("-", "").replace("_", "").isalnum()
    assert stem.isascii()
    assert 1 < len(name) < 120


@given(st.text(), st.text(), st.text())
def test_any_file_name_stays_in_its_folder(prompt: str, task_id: str, url: str) -> None:
    """No text makes a name with a separator, a control character or a leading dot."""
    name = file_name(prompt, task_id, url)
    assert not set(name) & set('/\\:*?"<>|\x00')
    assert name.isprintable()
    assert not name.startswith((".", "-"))


@given(st.text(min_size=1), st.text(min_size=1))
def test_ids_keep_names_apart(one: str, other: str) -> None:
    """Two tasks with the same prompt never share a name."""
    assert (file_name("p", one, "u") == file_name("p", other, "u")) == (one == other) or len(one + other) > 40


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("https://x/a.WAV?x=.exe", ".wav"),
        ("https://x/a", ".mp3"),
        ("https://x/a.%2e%2e", ".mp3"),
        ("https://[", ".mp3"),
        ("https://x/a.flac", ".flac"),
    ],
)
def test_extension(url: str, kind: str) -> None:
    """The extension is the link's if it is plain."""
    assert extension(url) == kind


def test_slug() -> None:
    """A slug is lower-case words."""
    assert slug("Thunderstorm — with RAIN! é") == "thunderstorm-with-rain-e"
