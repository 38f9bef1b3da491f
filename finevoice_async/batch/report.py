"""One page that shows what a batch has come to: self-contained, and safe whatever the prompts hold.

The page fetches nothing from elsewhere and runs nothing but its own script: its content-security policy names the
script and the style by their hashes. Texts are escaped, links are relative and spelled in percent signs.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from finevoice_async.batch.checks import decibels
from finevoice_async.batch.report_data import EffectReport, Outline, ReportData
from finevoice_async.batch.report_time import make_time_line
from finevoice_async.core.ledger import EffectState
from finevoice_async.core.text import sentence
from finevoice_async.engine.part_file import PartFile

AT_FIRST: Final = 150
"""Effects that are laid out before anybody scrolls: thousands at once would make each letter of a search slow."""

_HALF: Final = 20  # units of a waveform's drawing above and below its middle
_PITCH: Final = 2  # units from one stroke to the next

_TONES: Final = {
    EffectState.SAVED: "good",
    EffectState.QUEUED: "calm",
    EffectState.SUBMITTED: "busy",
    EffectState.DONE: "busy",
    EffectState.SENDING: "doubt",
    EffectState.UNKNOWN: "doubt",
    EffectState.LOST: "doubt",
    EffectState.REFUSED: "bad",
    EffectState.FAILED: "bad",
}


def render(data: ReportData) -> str:
    """Return the page: what needs a look comes first, all else in the order in which it was given."""
    script, style = _part("report.js"), _part("report.css")
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src '{_hash(script)}'",
            f"style-src '{_hash(style)}'",
            "img-src data:",  # the empty icon, without which a browser asks for one
            "media-src 'self' file:",  # opened from a disk, a page's own origin is none that 'self' could name
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    takes = [(effect.key, take) for effect in data.effects for take in effect.takes]
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            data=data,
            effects=sorted(data.effects, key=_order),
            line=make_time_line(takes),
            policy=policy,
            script=Markup(script),  # noqa: S704 - a file of this package
            style=Markup(style),  # noqa: S704 - a file of this package
            at_first=AT_FIRST,
            EffectState=EffectState,
        )
    )


def write(page: str, path: Path) -> None:
    """Put a page in its place, as a whole or not at all; one that was there is replaced. Blocks.

    Raises:
        OSError: It could not be written.
    """
    part = PartFile(path)
    try:
        part.open()
        part.add(0, page.encode("utf-8", "replace"))
        part.finish(overwrite=True)
    finally:
        part.discard()


def _order(effect: EffectReport) -> bool:
    return not effect.needs_care


def _part(name: str) -> str:
    """Return a file of the page, with the line ends that a browser will see in it."""
    text = resources.files("finevoice_async.batch").joinpath("page", name).read_text(encoding="utf-8")
    return text.replace("\r\n", "\n")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("finevoice_async.batch", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Any] = {
        "link": _link,
        "wave": wave_path,
        "level": _level,
        "seconds": _seconds,
        "span": _span,
        "moment": _moment,
        "clock": _clock,
        "percent": _percent,
        "tone": _TONES.__getitem__,
        "size": _size,
        "steps": _steps,
        "order": _number,
        "told": _told,
        "rough": _rough,
    }
    environment.filters.update(filters)
    return environment


# How values are spelled


def _link(path: str) -> str:
    """Return a relative link to a file, whatever its name is: never one with a scheme or a host."""
    return "./" + quote(path, safe="/", errors="surrogateescape")


def wave_path(outline: Outline) -> str:
    """Return a waveform's outline as a path of upright strokes."""
    strokes = []
    at = 0  # where the pen is
    for number, (low, high) in enumerate(outline):
        top = round(_HALF - _within(high) * (_HALF - 1))
        length = max(round((_within(high) - _within(low)) * (_HALF - 1)), 1)
        strokes.append(f"M1 {top}v{length}" if number == 0 else f"m{_PITCH} {top - at}v{length}")
        at = top + length
    return "".join(strokes)


def _within(value: float) -> float:
    return min(max(value, -1.0), 1.0)


def _level(peak: float | None) -> str:
    loudness = decibels(peak)
    return "silent" if loudness is None else f"{loudness:.1f} dB"


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s"


def _span(length: timedelta | float) -> str:
    """Return a span of time in the two largest units that it has."""
    total = round(length.total_seconds() if isinstance(length, timedelta) else length)
    minutes, seconds = divmod(total, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    units = [(days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s")]
    first = next((place for place, (number, _) in enumerate(units) if number), 3)
    return " ".join(f"{number} {unit}" for number, unit in units[first : first + 2] if number or first == 3)


def _rough(seconds: float) -> str:
    """Return a length of sound in one unit."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _clock(moment: datetime) -> str:
    return f"{moment:%H:%M:%S}"


def _percent(share: float) -> str:
    return f"{share * 100:.2f}%"


def _told(words: str) -> str:
    """Return words as a sentence."""
    return sentence(words[:1].upper() + words[1:])


def _size(number: float) -> str:
    return f"{number:,}"


def _steps(points: Sequence[tuple[float, float]]) -> str:
    """Return points as steps that only rise: how many were done, from the left to the right."""
    return "M0 100" + "".join(f"H{x * 1000:.1f}V{100 - y * 100:.1f}" for x, y in points) + "H1000"


def _number(value: float | datetime | None) -> str:
    """Return what is sorted by: empty if it is not known."""
    if isinstance(value, datetime):
        return f"{value.timestamp():.3f}"
    return "" if value is None else f"{value:.4f}"
