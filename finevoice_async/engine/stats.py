"""The counts of a session."""

from __future__ import annotations

import attrs

from finevoice_async.reprs import with_safe_repr


@with_safe_repr
@attrs.frozen(kw_only=True)
class Stats:
    """What a session is doing now, and has done.

    Attributes:
        submitting: POSTs under way.
        waiting: Requests that wait for a slot.
        running: Tasks not known to have ended.
        submitted: Submissions that the service accepted.
        completed: Tasks that ended with a result.
        failed: Tasks that ended without one.
        polls: Times that the service was asked for a state.
    """

    submitting: int
    waiting: int
    running: int
    submitted: int
    completed: int
    failed: int
    polls: int
