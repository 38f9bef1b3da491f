"""What a notebook shows of an effect: a player with the sound in it, or words that say how to get it.

The sound itself is in the page, never its link: links may carry a signature, and die soon.
"""

from __future__ import annotations

import base64
import html
import threading
import weakref
from pathlib import Path
from typing import Final

from finevoice_async.core.text import shorten
from finevoice_async.engine.downloads import Arrived

MAX_SHOWN: Final = 10 * 1024 * 1024
"""Bytes of a sound that a page takes in: 30 s in 24 bits, 48 kHz and stereo have 8.6 MB. In base64 a third more."""

MAX_KEPT: Final = 16
"""Sounds that are kept for it: those read last, of the effects that somebody still has."""

_MAX_WORDS = 120  # characters of a prompt: a caption's line
_BY_AGE: weakref.WeakKeyDictionary[Arrived, bytes | Path] = weakref.WeakKeyDictionary()  # the oldest first
_turn = threading.Lock()  # sessions may live in several threads


def keep(effect: Arrived, sound: bytes | Path) -> None:
    """Keep what a player would play, as long as somebody has the effect: the bytes that were read, or their file."""
    with _turn:
        _BY_AGE.pop(effect, None)
        if isinstance(sound, Path):
            _BY_AGE[effect] = sound.absolute()
        elif len(sound) <= MAX_SHOWN:
            _BY_AGE[effect] = sound
        while len(_BY_AGE) > MAX_KEPT:
            _BY_AGE.pop(next(iter(_BY_AGE)), None)  # None: it may have gone this moment


def as_html(effect: Arrived, name: str, media_type: str | None) -> str:
    """Return a player, or how to get one.

    Args:
        effect: Whose sound it is.
        name: What stands below it: any text.
        media_type: The kind of audio, as far as it is known.
    """
    caption = html.escape(shorten(name, _MAX_WORDS))
    sound = _sound(effect)
    if sound is None:
        return (
            f"<p>{caption}: <code>await effect.read()</code>, then show it again to hear it "
            f"(up to {MAX_SHOWN // 1024**2} MB).</p>"
        )
    kind = html.escape(media_type or "audio/*")
    data = base64.b64encode(sound).decode()
    return (
        f'<figure><audio controls src="data:{kind};base64,{data}"></audio><figcaption>{caption}</figcaption></figure>'
    )


def _sound(effect: Arrived) -> bytes | None:
    """Return the sound, None if it was not read, not lately, or is not there any more."""
    kept = _BY_AGE.get(effect)
    if not isinstance(kept, Path):
        return kept
    try:
        with kept.open("rb") as file:
            sound = file.read(MAX_SHOWN + 1)
    except OSError:  # it was moved: that is no error of who looks at an effect
        return None
    return sound if len(sound) <= MAX_SHOWN else None
