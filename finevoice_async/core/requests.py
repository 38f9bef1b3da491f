"""All that is sound effects: the request, its fields and their rules, its path and its spelling on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args
from urllib.parse import urlsplit

import attrs

from finevoice_async.core.addresses import without_secrets
from finevoice_async.core.fields import SfxDict, SfxItem, SourceType
from finevoice_async.core.text import plain_text, shorten
from finevoice_async.errors import InvalidRequestError
from finevoice_async.reprs import with_safe_repr

SUBMIT_PATH = "/v1/audio/sfx-generation"

WIRE_NAMES = {
    "prompt": "prompt",
    "negative_prompt": "negative_prompt",  # snake case, unlike its neighbours
    "source_url": "sourceUrl",
    "source_type": "sourceType",
    "duration": "duration",
    "use_async": "useAsync",
}
"""How the endpoint spells each field; the vendor's reference page."""

MAX_DURATION = 30.0
"""Seconds; the vendor's reference page: "Maximum is 30 seconds"."""

SOURCE_TYPES: tuple[SourceType, ...] = get_args(SourceType)


def _show_url(url: str | None) -> str:
    return shorten(without_secrets(url), 120)


def _refuse(field: str, value: object, rule: str) -> InvalidRequestError:
    return InvalidRequestError(f"{field} {rule}, not {shorten(value)}. Nothing was sent.")


def _keep_text(request: SfxRequest, field: str, value: object) -> None:
    """Check a text, and keep a plain one of it: a subclass may do anything in its methods."""
    text = value if type(value) is str else plain_text(value)
    if text is None:
        raise _refuse(field, value, "must be a string")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _refuse(field, text, "must be text that UTF-8 can carry (no lone surrogates)") from None
    if text is not value:
        object.__setattr__(request, field, text)  # as attrs itself sets the fields of what is frozen


def _keep_seconds(request: SfxRequest, field: str, value: object) -> None:
    """Check a number of seconds, and keep a plain one of it."""
    kind, seconds = type(value), value
    if issubclass(kind, int) and kind is not bool:
        seconds = int.__int__(value)  # type: ignore[arg-type]  # it is one
    elif issubclass(kind, float):
        seconds = float.__float__(value)  # type: ignore[arg-type]  # it is one
    if type(seconds) is not int and type(seconds) is not float:
        raise _refuse(field, value, "must be a number of seconds")
    if not 0 < seconds <= MAX_DURATION:  # also if it is no number at all (NaN)
        raise _refuse(field, seconds, f"must be above 0 and at most {MAX_DURATION:g} seconds")
    object.__setattr__(request, field, seconds)


def _is_web_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


@with_safe_repr
@attrs.frozen
class SfxRequest:
    """One sound effect to make, checked when it is made.

    Attributes:
        prompt: What should be heard. Needed unless there is a source.
        negative_prompt: Sounds to avoid.
        source_url: An image or video to make sound for (http or https); needs `source_type`.
        source_type: `image` or `video`; needs `source_url`.
        duration: Length of the effect in seconds, above 0 and at most 30.
        use_async: True asks for a task id at once, False lets the service answer with the result itself.

    Raises:
        InvalidRequestError: A value breaks the rule of its field, which the message names.
    """

    prompt: str | None = attrs.field(default=None, repr=shorten)
    negative_prompt: str | None = attrs.field(default=None, kw_only=True, repr=shorten)
    source_url: str | None = attrs.field(default=None, kw_only=True, repr=_show_url)
    source_type: SourceType | None = attrs.field(default=None, kw_only=True, repr=shorten)
    duration: float | None = attrs.field(default=None, kw_only=True)
    use_async: bool = attrs.field(default=True, kw_only=True)

    def __attrs_post_init__(self) -> None:
        # Not by a validator for each field: that would be six calls for each request, most of them for a None.
        if self.prompt is not None:
            _keep_text(self, "prompt", self.prompt)
        if self.negative_prompt is not None:
            _keep_text(self, "negative_prompt", self.negative_prompt)
        if self.source_url is not None:
            _keep_text(self, "source_url", self.source_url)
        if self.source_type is not None:
            _keep_text(self, "source_type", self.source_type)
        if self.duration is not None:
            _keep_seconds(self, "duration", self.duration)
        if type(self.use_async) is not bool:
            raise _refuse("use_async", self.use_async, "must be True or False")
        if self.source_url is not None and not _is_web_address(self.source_url):
            shown = without_secrets(self.source_url)
            raise _refuse("source_url", shown, "must be an http or https address with a host")
        if self.source_type is not None and self.source_type not in SOURCE_TYPES:
            raise _refuse("source_type", self.source_type, "must be 'image' or 'video'")
        if (self.source_url is None) != (self.source_type is None):
            missing = "source_type" if self.source_type is None else "source_url"
            raise _refuse(missing, None, "must be given: source_url and source_type go together")
        if self.prompt is not None and not self.prompt.strip():
            raise _refuse("prompt", self.prompt, "must not be blank")
        if self.prompt is None and self.source_url is None:
            raise _refuse("prompt", None, "must be given, or source_url with source_type")


OneRequest = SfxRequest | str | SfxDict
"""What a caller may give for one effect: a request, a prompt, or a dict of fields."""

RequestLike = SfxRequest | str | SfxItem
"""What `generate_many` takes: the same, and a dict may have a `key`, an `owner` and a `file`."""

FIELDS = frozenset(field.name for field in attrs.fields(SfxRequest))


def as_request(request: SfxRequest | str | Mapping[str, Any] | None, fields: Mapping[str, Any]) -> SfxRequest:
    """Make a request of what a caller may give: a request, a prompt, or a dict of fields; and more fields.

    Raises:
        InvalidRequestError: A field is unknown, given twice, or breaks its rule; or a mapping of the caller's own
            fails as it is read, which is the error's cause.
    """
    kind = type(request)  # not isinstance(), which asks the object itself
    if issubclass(kind, SfxRequest):
        if not fields:
            return request  # type: ignore[return-value]  # it is one
        merged: dict[str, Any] = attrs.asdict(request) | {**fields}  # type: ignore[arg-type]  # it is one
    elif request is None or issubclass(kind, str):
        if request is not None and "prompt" in fields:
            raise _refuse("prompt", fields["prompt"], "must be given once")
        if not fields:
            return SfxRequest(request)  # type: ignore[arg-type]  # it is a text or None
        merged = {"prompt": request, **fields}
    elif issubclass(kind, Mapping):
        try:
            merged = {**request, **fields}  # type: ignore[dict-item]  # it is one
        except Exception as error:
            raise _refuse("request", request, "must be a mapping that can be read") from error
    else:
        raise _refuse("request", request, "must be an SfxRequest, a prompt or a dict of fields")
    known: dict[str, Any] = {}
    for name, value in merged.items():
        plain = plain_text(name)
        if plain is None or plain not in FIELDS:
            raise _refuse("field name", name, f"must be one of {', '.join(sorted(FIELDS))}")
        known[plain] = value
    return SfxRequest(**known)


def check_many(requests: object) -> None:
    """Check that requests are many, not one whose characters, names or values would be taken for prompts.

    Raises:
        InvalidRequestError: They are one request, or nothing that can be drawn from.
    """
    kind = type(requests)  # not isinstance(), which asks the object itself
    if issubclass(kind, SfxRequest | str | bytes | bytearray | memoryview | Mapping):
        rule = "must be many, in an iterable; put one in a list, or use generate()"
    elif not any(hasattr(kind, name) for name in ("__iter__", "__aiter__", "__getitem__")):
        rule = "must be an iterable or an async iterable"
    elif _has_fields(requests):
        rule = "must be many, each a prompt, a dict of fields or an SfxRequest"
    else:
        return
    raise _refuse("requests", requests, rule)


def _has_fields(requests: object) -> bool:
    """Tell whether it names its parts by a request's fields: a named tuple, or a row or table of another library."""
    try:
        names = getattr(requests, "_fields", None) or requests.keys()  # type: ignore[attr-defined]  # then it fails
        return not FIELDS.isdisjoint(names)
    except Exception:  # noqa: BLE001 - whatever it is, it is no such thing
        return False
