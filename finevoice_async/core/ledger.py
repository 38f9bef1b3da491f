"""The life of an effect: its states, and every move between them, as data.

::

    QUEUED ─► SENDING ─► SUBMITTED ─► DONE ─► SAVED
       │         ├─► REFUSED   certainly not accepted, or withdrawn: the key is free, also for a changed request
       │         └─► UNKNOWN   may be paid for: never again without the caller's consent
       └─► REFUSED    SUBMITTED ─► FAILED   the service says so: again only where the caller asks for it
                      SUBMITTED ─► LOST     the service does not know it (any more): as UNKNOWN, with its id

A move names the states it may start from, and happens only if the row still is in one of them (compare and set):
whoever read the row earlier may be late. `SENDING` is written before the POST and left once its outcome is known, so
whoever opens a journal and finds it knows that a crash came between: it becomes `UNKNOWN`.

An *intent* (to queue, to send) comes before the service hears anything, and a row that does not fit stops it. A *fact*
(submitted, done, failed, saved) has happened already, and is taken from every state that it can follow.

A consent holds for one try. What failed, is unknown or lost may be begun anew where its caller accepts to pay for that;
if the new try comes to nothing, the row is again what it was, so that the next one needs a consent of its own.
"""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Final

import attrs

from finevoice_async.core.requests import SfxRequest
from finevoice_async.core.text import plain_text, shorten
from finevoice_async.errors import InvalidRequestError
from finevoice_async.reprs import with_safe_repr


class EffectState(enum.Enum):
    """How far an effect has come."""

    QUEUED = "queued"  # wanted, certainly not sent
    SENDING = "sending"  # its POST may be under way
    SUBMITTED = "submitted"  # accepted; its task id is known
    DONE = "done"  # the links to the result are known
    SAVED = "saved"  # whoever wanted it has it
    REFUSED = "refused"  # certainly not accepted, or given up: nothing was paid, or nobody wants to know
    UNKNOWN = "unknown"  # may have been accepted and paid for
    FAILED = "failed"  # the service could not make it
    LOST = "lost"  # the service does not know its task (any more); may have been paid for


class Move(enum.Enum):
    """What can happen to an effect. The comment says who may do it."""

    QUEUE = "queue"  # intent: wished for, again after REFUSED
    RETRY = "retry"  # intent: wished for again after FAILED, which the caller asks for
    SEND = "send"  # intent: its POST is about to leave
    RESEND = "resend"  # intent: what may be paid for is sent again, which the caller accepts
    HOLD = "hold"  # fact: certainly not accepted this time; it waits to be sent again
    REFUSE = "refuse"  # fact: certainly not accepted, or withdrawn before it was sent
    DOUBT = "doubt"  # fact: nobody knows what became of its POST
    REVERT = "revert"  # fact: certainly not accepted this time, but an earlier POST of it may have been
    ACCEPT = "accept"  # fact: the service gave it a task id
    ADOPT = "adopt"  # intent: the caller names its task
    DISCARD = "discard"  # intent: the caller gives it up
    ANSWER = "answer"  # fact: the answer to its POST was the result, without a task id
    FINISH = "finish"  # fact: its task ended with a result
    FAIL = "fail"  # fact: its task ended without one
    LOSE = "lose"  # fact: the service does not know its task
    SAVE = "save"  # fact: its result is where the caller wants it


_S = EffectState

MOVES: Final[dict[Move, tuple[frozenset[EffectState], EffectState]]] = {
    Move.QUEUE: (frozenset({_S.REFUSED}), _S.QUEUED),
    Move.RETRY: (frozenset({_S.REFUSED, _S.FAILED}), _S.QUEUED),
    Move.SEND: (frozenset({_S.QUEUED}), _S.SENDING),
    Move.RESEND: (frozenset({_S.UNKNOWN, _S.LOST}), _S.SENDING),
    Move.HOLD: (frozenset({_S.SENDING}), _S.QUEUED),
    Move.REFUSE: (frozenset({_S.QUEUED, _S.SENDING}), _S.REFUSED),
    Move.DOUBT: (frozenset({_S.SENDING}), _S.UNKNOWN),
    Move.REVERT: (frozenset({_S.SENDING}), _S.UNKNOWN),
    Move.ACCEPT: (frozenset({_S.SENDING}), _S.SUBMITTED),
    Move.ADOPT: (frozenset({_S.UNKNOWN, _S.LOST}), _S.SUBMITTED),
    Move.DISCARD: (frozenset({_S.QUEUED, _S.UNKNOWN, _S.LOST}), _S.REFUSED),
    Move.ANSWER: (frozenset({_S.SENDING}), _S.DONE),
    Move.FINISH: (frozenset({_S.SUBMITTED, _S.LOST}), _S.DONE),  # LOST: it was asked for once more
    Move.FAIL: (frozenset({_S.SUBMITTED, _S.LOST}), _S.FAILED),
    Move.LOSE: (frozenset({_S.SUBMITTED}), _S.LOST),
    Move.SAVE: (frozenset({_S.DONE, _S.SAVED}), _S.SAVED),  # SAVED: a second time
}
"""For each move the states that it may start from, and the one it leads to."""

OF_TASK: Final = frozenset({Move.FINISH, Move.FAIL, Move.LOSE})
"""What a task tells of itself: it moves the row only while that is the row's task, and no later one."""

SPENDS: Final = frozenset({Move.SEND, Move.RESEND})
"""What begins a submission that may be accepted: the row keeps when. So does a row that begins as SENDING."""

GIVES_BACK: Final = frozenset({Move.HOLD, Move.REFUSE, Move.REVERT})
"""What says of a row that was SENDING that this submission was certainly not accepted: its time is kept no longer.

After any other move, and after a crash, it counts as accepted.
"""

KEEPS: Final[dict[Move, frozenset[EffectState]]] = {
    Move.RETRY: frozenset({_S.FAILED}),
    Move.RESEND: frozenset({_S.UNKNOWN, _S.LOST}),
}
"""What begins anew what came to something, and from which states: the row keeps what it was (state, request, task id,
error, and when it was accepted), until a `QUEUE` or `RETRY` from elsewhere forgets it."""

FALLS_BACK: Final[dict[Move, frozenset[EffectState]]] = {
    Move.REFUSE: frozenset({_S.QUEUED, _S.SENDING}),
    Move.REVERT: frozenset({_S.SENDING}),
    Move.DISCARD: frozenset({_S.QUEUED}),  # of what may be paid for, the caller is sure
}
"""What says that such a try came to nothing, and from which states: the row is what it was, if it keeps that; its words
are the earlier ones, too. Where another row has its task id by now, it is without, and UNKNOWN in place of LOST."""

MAY_BE_PAID: Final = (EffectState.UNKNOWN, EffectState.LOST)
"""What only the caller can settle: by sending it again, by naming its task, or by giving it up."""


@with_safe_repr
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
        submitted_at: When the service accepted it, in UTC.
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
    submitted_at: datetime | None = None


GIVEN_UP: Final = "given up by the caller"
PERHAPS_PAID: Final = "given up by the caller, although it may have been paid for"
"""How the error begins of a row that was given up."""


def given_up(row: JournalRow) -> str:
    """Return what is noted of a row that its caller gives up: for good, if it may have been paid for."""
    if row.state not in MAY_BE_PAID:
        return GIVEN_UP
    return f"{PERHAPS_PAID}: {row.error}" if row.error else PERHAPS_PAID


def paid_for(row: JournalRow | None) -> bool | None:
    """Tell whether a row was paid for; None if nobody knows, also of a row that is gone."""
    if row is None or row.state in (_S.SENDING, *MAY_BE_PAID):
        return None
    if row.state is _S.REFUSED:
        return None if row.error is not None and row.error.startswith(PERHAPS_PAID) else False
    return row.state is not _S.QUEUED


def check_key(key: object, what: str = "key") -> str | None:
    """Return a caller's key (or `what` it is) as plain text, if it can name a row.

    Raises:
        InvalidRequestError: It is neither None nor a string that is not blank and that UTF-8 can carry.
    """
    if key is None:
        return None
    text = plain_text(key)
    if text is None or not text.strip() or not _is_utf8(text):
        raise InvalidRequestError(f"{what} must be text that is not blank, not {shorten(key)}. Nothing was sent.")
    return text


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
