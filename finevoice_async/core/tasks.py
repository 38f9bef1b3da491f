"""The task protocol: ids, states and updates. Other endpoints of the service share it."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

import attrs

from finevoice_async.core.text import plain_text, shorten
from finevoice_async.errors import InvalidRequestError
from finevoice_async.reprs import with_safe_repr

TASK_PATH = "/v1/task/"  # the current reference; older pages say /v1/tasks/

MAX_TASK_ID = 512
"""Characters. Real ids have under 40; anything near this is no id, and would not fit a request line for long."""

_plain = re.compile(r"[A-Za-z0-9_.~-]+").fullmatch  # quote() leaves these characters as they are


def task_path(task_id: str) -> str:
    """Return the path that asks for the task: the id is one opaque, percent-encoded segment."""
    return TASK_PATH + (task_id if _plain(task_id) else quote(task_id, safe=""))


def check_task_id(task_id: object) -> str:
    """Return the task id if it can be one path segment of a request.

    Raises:
        InvalidRequestError: It is no string, blank, over 512 characters, has control characters, or is `.` or
            `..`, which servers read as another path. The error keeps it as `task_id`, shortened.
    """
    text = plain_text(task_id)
    if text is None or not text.strip():
        raise InvalidRequestError(f"A task id must be a string that is not blank, not {shorten(task_id)}.")
    if len(text) > MAX_TASK_ID:
        rule = f"has {len(text)} characters; at most {MAX_TASK_ID} are allowed"
    elif not text.isprintable():
        rule = "has control characters"
    elif text in (".", ".."):
        rule = "would be read as another path"
    else:
        return text
    kept = text[:MAX_TASK_ID].encode("utf-8", "backslashreplace").decode()  # lone surrogates could not be stored
    raise InvalidRequestError(f"The task id {shorten(text)} {rule}.", task_id=kept)


class TaskStatus(enum.Enum):
    """The states of a task, as the service tells them.

    ::

        UNKNOWN ──► PENDING ◄──► PROCESSING ──► COMPLETED
           └───────────┴─────────────┴────────► FAILED

    An ended state is never left: a late answer cannot bring a task back. Any other change is believed, because
    the service may restart a task.
    """

    QUEUED = "queued"  # not submitted yet: it waits for a slot of the plan; the service never says this
    PENDING = "pending"  # accepted, waiting at the service
    PROCESSING = "processing"  # being made
    COMPLETED = "completed"  # the result can be fetched
    FAILED = "failed"  # ended without a result
    UNKNOWN = "unknown"  # not asked yet, or a word that nobody has documented: taken as still running

    @property
    def ended(self) -> bool:
        """True once the state can change no more."""
        return self in _ENDED


# What every effect passes, looked up once: on Python 3.11 a look at an enum's member takes as long as two calls.
PENDING: Final = TaskStatus.PENDING
PROCESSING: Final = TaskStatus.PROCESSING
COMPLETED: Final = TaskStatus.COMPLETED
FAILED: Final = TaskStatus.FAILED
UNKNOWN: Final = TaskStatus.UNKNOWN
_ENDED: Final = (COMPLETED, FAILED)


@with_safe_repr
@attrs.frozen(kw_only=True, slots=False)  # one is made for each answer, and soon gone: without slots that is cheaper
class TaskUpdate:
    """What one answer of the service says about a task, in either dialect.

    Attributes:
        status: The state of the task.
        task_id: The id in the answer, if there was one.
        urls: Links to the results; empty unless completed.
        code: The service's error code, if it failed.
        reason: The service's words for the failure.
        request_id: The service's name for the call, if it failed.
        raw: The answer as it was decoded from JSON.
    """

    status: TaskStatus
    task_id: str | None = None
    urls: tuple[str, ...] = attrs.field(default=(), repr=False)  # links may carry a signature
    code: str | None = None
    reason: str | None = None
    request_id: str | None = attrs.field(default=None, eq=False)
    raw: Mapping[str, Any] = attrs.field(factory=dict, repr=False, eq=False)
