"""Whatever it is, a value in a message is short, and can be written anywhere."""

from __future__ import annotations

import tracemalloc
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strange import NO_NUMBERS, NO_TEXTS, BrokenText, Liar, Word

from finevoice_async.core.text import one_line, plain_text, sentence, shorten

STRANGE = NO_TEXTS | NO_NUMBERS


@given(st.text() | st.binary() | st.integers() | st.lists(st.text()))
def test_shorten_is_short(value: object) -> None:
    """A shortened value fits a line; one that is short is its repr."""
    shown = shorten(value)
    assert len(shown) <= 60
    assert shown == repr(value) or (len(repr(value)) > 60 and "..." in shown)


@pytest.mark.parametrize("value", STRANGE)
def test_shorten_never_fails(value: str) -> None:
    """An object without a repr, or with one of megabytes, is shown in few words, which UTF-8 can carry."""
    shown = shorten(STRANGE[value])
    assert 0 < len(shown) <= 60
    assert type(shown) is str
    shown.encode()


def test_megabytes_are_not_looked_at() -> None:
    """Of a long text or long bytes, the beginning alone is shown, and no copy is made of the rest."""
    for long, shown in (("x" * 10_000_000, "'xxx"), (b"x" * 10_000_000, "b'xxx")):
        tracemalloc.start()
        assert shorten(long).startswith(shown)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 100_000
    assert shorten(BrokenText("rain")) == "'rain'"


def test_plain_text() -> None:
    """A text of any kind is one; what only looks like a text is none."""
    text = "rain"
    assert plain_text(text) is text
    for kind in (Word.RAIN, BrokenText("rain")):
        assert plain_text(kind) == "rain"
        assert type(plain_text(kind)) is str
    assert [plain_text(value) for value in (None, b"rain", 5, Mock(spec=str), Liar())] == [None] * 5


@pytest.mark.parametrize("ended", [".", "!", "?", "\u2026"])
def test_a_sentence_ends_once(ended: str) -> None:
    """Words get a full stop, unless they have an end."""
    assert sentence("It rains") == "It rains."
    assert sentence(f"It rains{ended} ") == f"It rains{ended}"


@given(st.text())
def test_one_line(text: str) -> None:
    """Any text becomes one printable line, which can be stored; a plain one stays as it is."""
    line = one_line(text)
    assert line.isprintable()
    line.encode()
    assert one_line(line) == line
