"""The service's two dialects of one answer, as cattrs converters.

The vendor's reference and quickstart describe different JSON for the same thing, and programs in the field have met
mixtures. `make_lenient_converter` reads them all; `make_reference_converter` and `make_quickstart_converter` write
one each (the emulator speaks them).

What the lenient reader believes, in this order:

1. a status it knows: the number 200 or a word for done, 202 or a word for in progress, 400 and above or a word for
   failed;
2. a link: beside a missing or unknown status it means done, beside an explicit "in progress" it means nothing
   (older services hand out the link before the file exists);
3. an error that says something: beside a missing or unknown status it means failed. Beside "done" without a link it
   means failed only if it has a message: older pages show code "0001" without one on a success;
4. nothing of these: still in progress.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from finevoice_async.core.requests import WIRE_NAMES, SfxRequest
from finevoice_async.core.tasks import COMPLETED, FAILED, PENDING, PROCESSING, UNKNOWN, TaskStatus, TaskUpdate
from finevoice_async.core.text import one_line

if TYPE_CHECKING:
    import cattrs  # imported where a converter is made: it is a third of this package's import time

_WORDS = {
    "pending": TaskStatus.PENDING,
    "queued": TaskStatus.PENDING,
    "processing": TaskStatus.PROCESSING,
    "running": TaskStatus.PROCESSING,
    "in_progress": TaskStatus.PROCESSING,
    "completed": TaskStatus.COMPLETED,
    "success": TaskStatus.COMPLETED,
    "succeeded": TaskStatus.COMPLETED,
    "done": TaskStatus.COMPLETED,
    "finished": TaskStatus.COMPLETED,
    "failed": TaskStatus.FAILED,
    "failure": TaskStatus.FAILED,
    "error": TaskStatus.FAILED,
    "cancelled": TaskStatus.FAILED,
    "canceled": TaskStatus.FAILED,
}
_NUMBERS: dict[float, TaskStatus] = {200: TaskStatus.COMPLETED, 202: TaskStatus.PROCESSING}

_TASK_ID_NAMES = ("taskId", "task_id")
_URL_NAMES = ("url", "audio_url", "audioUrl", "file_url", "fileUrl", "download_url", "downloadUrl", "urls")
_REASONS = ("message", "msg", "reason", "error_message", "errorMessage")
_FINE = ("ok", "success", "succeeded")  # what an envelope says of the call, whatever became of the task
_CODES = ("code", "error_code", "errorCode")
_MAX_REASON = 500  # characters of an error's text that go into a message


@attrs.frozen(kw_only=True, eq=False)
class Answer:
    """One answer of the service without its dialect: what the emulator says, before it is spelled out."""

    task_id: str
    status: TaskStatus
    urls: tuple[str, ...] = ()
    code: str | None = None
    reason: str | None = None


# Reading


def _levels(payload: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """Return the objects in which a field may stand, most specific first: the answer may be one level down."""
    result, data = payload.get("result"), payload.get("data")
    if result is None and data is None:
        return (payload,)
    return (*(level for level in (result, data) if isinstance(level, dict)), payload)


def _read_task_id(level: dict[str, Any]) -> str | None:
    for name in _TASK_ID_NAMES:
        if name in level:
            value = level[name]
            if isinstance(value, str) and value.strip():
                return value
            if isinstance(value, int) and not isinstance(value, bool):
                return str(value)
    return None


def _read_status(value: object) -> TaskStatus | None:
    if isinstance(value, str):
        word = value if value in _WORDS else value.strip().lower()
        known = _WORDS.get(word)
        if known is not None:
            return known
        value = int(word) if word.isdecimal() and len(word) <= 3 else None
    if isinstance(value, int | float) and not isinstance(value, bool):
        known = _NUMBERS.get(value)  # 200.0 finds it too
        if known is not None:
            return known
        if 400 <= value < 600:
            return TaskStatus.FAILED
    return None


def _read_urls(level: dict[str, Any]) -> list[str]:
    found: list[object] = []
    given = level.keys() & _URL_NAMES
    for name in _URL_NAMES if len(given) > 1 else given:
        value = level.get(name)
        if name == "urls" and isinstance(value, list):
            found += value
        else:
            found.append(value)
    return [link for url in found if isinstance(url, str) and (link := _as_utf8(url.strip()))]


def _as_utf8(text: str) -> str:
    """Return a text that can be stored and sent: JSON may hold half a character (a lone surrogate)."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _text(value: object) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return one_line(str(value)[: 2 * _MAX_REASON])[:_MAX_REASON] or None


def _first_text(payload: Mapping[str, Any], names: Iterable[str]) -> str | None:
    return next((text for name in names if (text := _text(payload.get(name)))), None)


def _read_details(details: object) -> str | None:
    """Read `{"detail": ...}`: text, or the validation framework's list of `{"loc": [...], "msg": ...}`."""
    if not isinstance(details, list):
        return _text(details)
    lines = []
    for item in details[:5]:
        if isinstance(item, Mapping):
            where = item.get("loc")
            parts = where if isinstance(where, list) else ()
            path = ".".join(str(part) for part in parts[:9] if isinstance(part, str | int))
            words = _first_text(item, _REASONS)
            lines.append(f"{path}: {words}" if path else words or "")
        elif isinstance(item, str):
            lines.append(_text(item) or "")
    return _text("; ".join(line for line in lines if line))


def read_error(payload: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the error's code and its words, each None where the answer has none.

    Knows the service's own forms and those of common gateways: `error` as object, list or text, and beside it `code`,
    `message`, `detail`, `details`.
    """
    error = payload.get("error")
    if isinstance(error, Mapping):
        code, reason = _first_text(error, _CODES), _first_text(error, _REASONS) or _read_details(error.get("detail"))
    else:
        code, reason = None, _read_details(error)
    code, reason = code or _first_text(payload, _CODES), reason or _first_text(payload, _REASONS)
    more = _read_details(payload.get("details")) or _read_details(payload.get("detail"))
    if reason and more and more != reason:
        reason = f"{reason} ({more})"[:_MAX_REASON]
    return code, reason or more


def read_update(payload: dict[str, Any]) -> TaskUpdate:
    """Read an answer of either dialect, or of a mixture. Never fails: what makes no sense counts as absent."""
    levels = _levels(payload)
    status, task_id = _read_status(levels[0].get("status")), _read_task_id(levels[0])
    for level in levels[1:]:
        status = status or _read_status(level.get("status"))
        task_id = task_id or _read_task_id(level)
    if status is PENDING or status is PROCESSING:
        return TaskUpdate(status=status, task_id=task_id, raw=payload)
    if status is not FAILED:
        links = _read_urls(levels[0])
        for level in levels[1:]:
            links += _read_urls(level)
        if links:
            urls = tuple(dict.fromkeys(links))
            return TaskUpdate(status=COMPLETED, task_id=task_id, urls=urls, raw=payload)
    code, reason = _read_failure(levels)
    if status is FAILED and not reason:
        code, reason = _read_why(levels, code)
    if status is FAILED or reason or (code and status is None):
        return TaskUpdate(status=FAILED, task_id=task_id, code=code, reason=reason, raw=payload)
    return TaskUpdate(status=status or UNKNOWN, task_id=task_id, raw=payload)


def _read_failure(levels: Iterable[dict[str, Any]]) -> tuple[str | None, str | None]:
    """Read only `error`: in an ordinary answer, a `message` or `detail` beside it says nothing about failure."""
    for level in levels:
        code, reason = read_error({"error": level.get("error")})
        if code or reason:
            return code, reason
    return None, None


def _read_why(levels: Iterable[dict[str, Any]], code: str | None) -> tuple[str | None, str | None]:
    """Read whatever else an answer says of a task that did fail, and gave no reason in its `error`."""
    for level in levels:
        more, reason = read_error(level)
        if reason is not None and reason.lower() not in _FINE:
            return code or more, reason
    return code, None


def configure_lenient(converter: cattrs.Converter) -> None:
    """Teach the converter to read updates in both dialects and all their mixtures, and to write requests."""
    converter.register_structure_hook(TaskUpdate, lambda payload, _: read_update(payload))
    _configure_requests(converter)


# Writing


def _configure_requests(converter: cattrs.Converter) -> None:
    """Spell a request as the endpoint does; a field that was not given is left out, never null."""
    from cattrs.gen import make_dict_unstructure_fn, override

    names = {
        ours: override(rename=theirs, omit_if_default=ours != "use_async")  # absent, the result itself may come
        for ours, theirs in WIRE_NAMES.items()
    }
    write = make_dict_unstructure_fn(SfxRequest, converter, **names)  # type: ignore[arg-type]  # overrides by name
    converter.register_unstructure_hook(SfxRequest, write)


def configure_reference(converter: cattrs.Converter) -> None:
    """Teach the converter to write answers as the vendor's reference page shows them."""

    def write(answer: Answer) -> dict[str, Any]:
        number = {TaskStatus.COMPLETED: 200, TaskStatus.FAILED: 500}.get(answer.status, 202)
        failed = answer.status is TaskStatus.FAILED
        return {
            "status": number,
            "url": answer.urls[0] if answer.urls else "",
            "taskId": answer.task_id,
            "error": {"code": answer.code, "message": answer.reason} if failed else {"code": None, "message": None},
            "urls": list(answer.urls),
        }

    converter.register_unstructure_hook(Answer, write)
    _configure_requests(converter)


def configure_quickstart(converter: cattrs.Converter) -> None:
    """Teach the converter to write answers as the vendor's quickstart shows them."""

    def write(answer: Answer) -> dict[str, Any]:
        body: dict[str, Any] = {"task_id": answer.task_id, "status": answer.status.value, "error": answer.reason}
        return body | {"url": answer.urls[0]} if answer.urls else body

    converter.register_unstructure_hook(Answer, write)
    _configure_requests(converter)


def _new() -> cattrs.Converter:
    import cattrs

    return cattrs.Converter()


def make_lenient_converter() -> cattrs.Converter:
    """Make the client's converter: `structure(payload, TaskUpdate)`, `unstructure(SfxRequest(...))`."""
    converter = _new()
    configure_lenient(converter)
    return converter


def make_reference_converter() -> cattrs.Converter:
    """Make a converter that speaks the reference dialect: `unstructure(Answer(...))`."""
    converter = _new()
    configure_reference(converter)
    return converter


def make_quickstart_converter() -> cattrs.Converter:
    """Make a converter that speaks the quickstart dialect: `unstructure(Answer(...))`."""
    converter = _new()
    configure_quickstart(converter)
    return converter
