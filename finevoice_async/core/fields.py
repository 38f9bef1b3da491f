"""What may be typed for an effect: the fields of a request, for checkers and editors.

A running program checks the same fields where a request is made, see `requests`: nothing here is looked at then.
"""

# Without `from __future__ import annotations`: as text, Required would not be seen by who reads these as it runs.
from pathlib import PurePath
from typing import Literal, Required, TypedDict

SourceType = Literal["image", "video"]
"""What a source can be; the vendor's reference page: "Supported: image, video"."""


class _Common(TypedDict, total=False):
    negative_prompt: str | None
    duration: float | None
    use_async: bool


class SfxFields(_Common, total=False):
    """The fields beside a prompt: ``async def make(prompt: str, **fields: Unpack[SfxFields])``. See `SfxRequest`."""

    source_url: str | None
    source_type: SourceType | None


class SfxDict(SfxFields, total=False):
    """A whole request as a dict. See `SfxRequest`."""

    prompt: str | None


class SfxItem(SfxDict, total=False):
    """A request among many, as a dict: what `generate_many` takes.

    What `json.load` gives needs its name only: ``items: list[SfxItem] = json.load(file)``. Each item is checked as it
    is drawn, whatever its type says.

    Attributes:
        key: Your own name for the effect.
        owner: On whose behalf it waits.
        file: Its file's name below the folder, if `save_to` is one.
    """

    key: str | None
    owner: str | None
    file: str | PurePath | None


# What `enqueue`, `submit` and `generate` take by name, in the three forms that a call may have.


class _Call(_Common, total=False):
    key: str | None
    owner: str | None
    retry_failed: bool


class BesideRequest(_Call, total=False):
    """Beside a prompt or a request."""

    source_url: str | None
    source_type: SourceType | None


class WithPrompt(BesideRequest, total=False):
    """Instead of it: the prompt by its name."""

    prompt: Required[str]


class WithSource(_Call, total=False):
    """Instead of it: a source, without a prompt."""

    source_url: Required[str]
    source_type: Required[SourceType]
