"""Names of a batch's files: from a template such as `scene3/{key}-{take}`, always inside the folder.

What is made here has no suffix: that follows the content. So a suffix of audio in a template is dropped, and a dot that
would read as one (`door.v2`) becomes a hyphen.
"""

from __future__ import annotations

import string
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Final

from finevoice_async.core import media
from finevoice_async.core.filenames import cut, safe_name, slug, suffix_of

DEFAULT: Final = "{key}"
PLACES: Final = ("key", "take", "prompt", "row")
_NUMBERS: Final = ("take", "row")
_MAX_STEM: Final = 230  # bytes: 255 are allowed, and the number of a take and a suffix are still to come

_Piece = tuple[str, str | None, str]  # text, then a place or none, then its format


class TemplateError(ValueError):
    """A template that cannot name a file below the folder; its words say why."""


@lru_cache(maxsize=1024)
def parse(template: str) -> tuple[tuple[_Piece, ...], ...]:
    """Return the parts of a path, each as pieces.

    Raises:
        TemplateError: It names no file below the folder, or has a place that nobody knows.
    """
    parts: list[list[_Piece]] = [[]]
    try:
        fields = list(string.Formatter().parse(template.replace("\\", "/")))
    except ValueError as error:
        raise TemplateError(f"file {template!r} cannot be read: {error}") from None
    for text, place, spec, conversion in fields:
        first, *others = text.split("/")
        parts[-1].append((first, None, ""))
        parts += [[(other, None, "")] for other in others]
        if place is not None:
            _check_place(template, place, spec or "", conversion)
            parts[-1].append(("", place, spec or ""))
    texts = ["".join(text if place is None else "{}" for text, place, _ in part).strip() for part in parts]
    if template[:1] in ("/", "\\") or (len(texts[0]) == 2 and texts[0][1] == ":"):
        raise TemplateError(f"file {template!r} must be inside the folder, not an absolute path")
    if ".." in texts:
        raise TemplateError(f"file {template!r} leads out of the folder")
    if texts[-1] in ("", "."):
        raise TemplateError(f"file {template!r} names no file; write {template or '...'}{{key}} for one in that folder")
    return tuple(tuple(part) for part, text in zip(parts, texts, strict=True) if text not in ("", "."))


def _check_place(template: str, place: str, spec: str, conversion: str | None) -> None:
    if place not in PLACES or conversion is not None:
        known = ", ".join(f"{{{name}}}" for name in PLACES)
        raise TemplateError(f"file {template!r} has {{{place}}}; there are {known}")
    if spec and not (place in _NUMBERS and spec.isascii() and spec.isdecimal() and int(spec) <= 20):
        raise TemplateError(f"file {template!r} has {{{place}:{spec}}}; only numbers have a width, as in {{take:02}}")


def has_places(template: str) -> bool:
    """Tell whether a template has places to fill. It has been parsed before."""
    return any(place is not None for part in parse(template) for _, place, _ in part)


def stem(template: str, *, key: str, take: int, prompt: str | None, row: int) -> str:
    """Return the file's path below the folder, with slashes and without a suffix.

    A take after the first whose number the template does not show gets it at the end.
    """
    parts = parse(template)
    values: dict[str, str | int] = {"key": key, "take": take, "row": row}
    if "{prompt" in template:  # it costs more than all the rest, and few use it
        values["prompt"] = slug(prompt or "") or "effect"
    filled = ["".join(_fill(piece, values) for piece in part) for part in parts]
    *folders, name = filled
    name = bare(safe_name(name))
    if take > 1 and not any(place == "take" for part in parts for _, place, _ in part):
        name = f"{name}-{take}"
    return "/".join([*(safe_name(folder) for folder in folders), name])


def _fill(piece: _Piece, values: dict[str, str | int]) -> str:
    text, place, spec = piece
    return text if place is None else format(values[place], spec)


def bare(name: str) -> str:
    """Return a file's name without a suffix of audio, and without anything else that reads as a suffix."""
    suffix = suffix_of(name)
    if suffix and media.of_suffix(suffix) is not None:
        name = name.removesuffix(suffix)
        suffix = suffix_of(name)
    if suffix:
        name = f"{name.removesuffix(suffix)}-{suffix[1:]}"
    return cut(name, _MAX_STEM).rstrip(". ") or "effect"


def stem_of_file(file: str) -> str:
    """Return the stem of a file below the folder: its path without a suffix of audio."""
    suffix = suffix_of(file)
    return file.removesuffix(suffix) if media.of_suffix(suffix) is not None else file


def is_inside(file: str) -> bool:
    """Tell whether a path with slashes names something below the folder, on every system."""
    path = PurePosixPath(file)
    return bool(
        path.name
        and not path.is_absolute()
        and not {"..", "."} & set(file.split("/"))
        and not any(mark in file for mark in "\\\0:")
    )
