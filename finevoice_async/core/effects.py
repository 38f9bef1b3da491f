"""The life of an effect as the journal keeps it: its states, and which may follow which.

::

    PREPARED ──► SENDING ──► SUBMITTED ──► DONE ──► SAVED
        │           │            │
        └───────────┴────────────┴───────► FAILED

`SENDING` is written before the POST and left only when its outcome is known, so after a crash a row in it means: may
have been accepted and paid for. Only the caller can send such an effect again, who takes the risk knowingly.
"""

from __future__ import annotations

import enum
from datetime import datetime

import attrs

from finevoice_async.core.models import SfxRequest


class EffectState(enum.Enum):
    """How far an effect has come."""

    PREPARED = "prepared"  # wanted, certainly not sent
    SENDING = "sending"  # the POST may have left; the outcome is not known (yet)
    SUBMITTED = "submitted"  # the task id is known
    DONE = "done"  # the links to the result are known
    FAILED = "failed"  # the service, or the caller, put an end to it
    SAVED = "saved"  # the result is a file


TRANSITIONS: dict[EffectState, frozenset[EffectState]] = {
    EffectState.PREPARED: frozenset({EffectState.SENDING, EffectState.FAILED}),
    EffectState.SENDING: frozenset(
        {
            EffectState.SENDING,  # what is known of the unknown outcome is noted, or the caller sends it again
            EffectState.SUBMITTED,
            EffectState.DONE,  # the answer already carried the result
            EffectState.FAILED,
        }
    ),
    EffectState.SUBMITTED: frozenset({EffectState.DONE, EffectState.FAILED}),
    EffectState.DONE: frozenset({EffectState.DONE, EffectState.SAVED}),  # again: a fresh link was fetched
    EffectState.SAVED: frozenset({EffectState.DONE, EffectState.SAVED}),  # again: saved a second time
    EffectState.FAILED: frozenset({EffectState.PREPARED, EffectState.SENDING}),  # the caller asks for it again
}


@attrs.frozen(kw_only=True)
class JournalRow:
    """One effect in the journal.

    Attributes:
        id: The row's number.
        key: The caller's own name for the effect, unique in the journal.
        state: How far the effect has come.
        request: What was asked for.
        task_id: The service's id, once known.
        urls: Links to the results, once known.
        path: Where the result was saved last.
        sha256: The saved file's SHA-256, in hexadecimal.
        error: What went wrong, in words.
        created_at: When the row was written first, in UTC.
        updated_at: When it was written last, in UTC.
    """

    id: int
    key: str | None = None
    state: EffectState
    request: SfxRequest
    task_id: str | None = None
    urls: tuple[str, ...] = attrs.field(default=(), repr=False)  # links may carry a signature
    path: str | None = None
    sha256: str | None = None
    error: str | None = None
    created_at: datetime
    updated_at: datetime
