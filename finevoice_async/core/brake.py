"""Whether submissions may leave: all who come, one at a time, or none for a while.

Three things shut the way. What costs nothing, a service that is not reached or that says 429, may be tried with
patience, but one probe tells as much as a crowd. A key that is refused, and credits that are spent, meet everybody: who
waits is sent home, and who comes later may probe. What may have cost money, submissions whose answers are lost one
after another, must not go on at full speed: each may have been paid for, and nobody knows its task. It is the circuit
breaker of M. Nygard, "Release It!" (2007), with a probe where he has a half-open state.
"""

from __future__ import annotations

import enum

import attrs

from finevoice_async.config import Retry
from finevoice_async.core.failures import Failure, FailureKind
from finevoice_async.core.retry import backoff, wait_before_retry

UNKNOWN_IN_A_ROW = 3
"""Submissions whose answers are lost one after another before the brake: two may be chance, and each may cost."""

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds between two probes under the brake: the first pause, doubled up to the longest. Each probe may cost."""

LEAST_ASKED = 1.0
"""Seconds that a probe waits at least where the service says how long. Where it says less, the backoff counts: a
`Retry-After` of 0, again and again, or a date that is over, must not make a hot loop of it."""

KEY_PAUSE = 30.0
"""Seconds after a 401 until a probe may ask again: a wrong key does not mend itself, and an account that was locked may
be free again. A 403 may be about one request, as a firewall reads it, and credits can be bought at any moment: after
those, and after a 402, whoever comes next may probe at once."""

FEW_AT_ONCE, MANY_AT_ONCE = 10, 40
"""Submissions under way at once: the few of the largest plan until answers come, one more with each, up to as many as
fit the transport's 64 connections together with the 16 polls. An answer that is lost takes its place along, until the
brake: so a service that loses every answer gets ten, no crowd, and none in the places of the first that are lost.
"""


class Cause(enum.Enum):
    """Why submissions do not leave freely."""

    RATE = "rate"  # the service says 429: whoever waits goes one after another, until nobody waits
    NOT_SENT = "not sent"  # the service is not reached
    REFUSED = "refused"  # the key is refused, or credits are spent
    UNKNOWN = "unknown"  # answers are lost in a row: the brake


_CAUSES = {FailureKind.RATE: Cause.RATE, FailureKind.NOT_SENT: Cause.NOT_SENT}
ANSWERS = (FailureKind.INVALID, FailureKind.MISSING)
"""Failures that are answers: the service is there, and says what it thinks of the request."""

REFUSALS = (FailureKind.FORBIDDEN, FailureKind.CREDITS)
"""Failures that every other submission would meet as well."""


@attrs.define(eq=False)
class Brake:
    """What the answers to submissions say about the next ones.

    Attributes:
        cause: Why submissions do not leave freely; None while they do.
        failure: The last failure that shut the way, or kept it shut.
        opens_at: When the next probe may leave, in seconds of the monotonic clock.
        probing: A probe is under way.
        width: How many submissions may be under way at once.
        progress_at: When the way was shut, or a probe was answered last, in seconds of the monotonic clock: patience
            begins anew then.
    """

    retry: Retry
    cause: Cause | None = None
    failure: Failure | None = None
    opens_at: float = 0.0
    probing: bool = False
    width: int = FEW_AT_ONCE
    progress_at: float = float("-inf")
    _unknown: int = 0  # answers lost in a row
    _pauses: int = 0  # since the way was shut, or a probe was answered

    def may_probe(self, now: float) -> bool:
        """Tell whether the next submission may leave, as a probe, while the way is shut."""
        return not self.probing and now >= self.opens_at

    @property
    def is_calm(self) -> bool:
        """Whether nothing is the matter, so that one more answer changes nothing."""
        return self.cause is None and self.width == MANY_AT_ONCE and not self._unknown

    def answered(self, now: float, *, probe: bool, others_wait: bool) -> None:
        """The service has answered a submission, whatever it said, but for 429.

        Args:
            now: The monotonic clock, in seconds.
            probe: It was the probe.
            others_wait: Submissions wait for their turn.
        """
        self._unknown = 0
        self.width = min(self.width + 1, MANY_AT_ONCE)
        if not probe:
            return  # what left before the way was shut says nothing about it now
        self._pauses = 0
        self.progress_at = self.opens_at = now
        if self.cause is not Cause.RATE or not others_wait:
            self.cause = self.failure = None

    def refused(self, failure: Failure, now: float) -> None:
        """The service takes nothing from anybody with this key.

        Args:
            failure: What it said.
            now: The monotonic clock, in seconds.
        """
        self._unknown = self._pauses = 0
        self.cause, self.failure, self.progress_at = Cause.REFUSED, failure, now
        self.opens_at = now + KEY_PAUSE if failure.status == 401 else now

    def turns_away(self, now: float) -> bool:
        """Tell whether it is too early to ask again after a refusal."""
        return self.cause is Cause.REFUSED and not self.probing and now < self.opens_at

    def failed(self, failure: Failure, now: float, luck: float, *, probe: bool) -> None:
        """A submission was refused for now, or not sent, or its answer is lost.

        Args:
            failure: What went wrong.
            now: The monotonic clock, in seconds.
            luck: Drawn evenly from [0, 1), for the jitter.
            probe: It was the probe.
        """
        if failure.kind is FailureKind.CERTIFICATE:
            return  # nothing was asked, and asking again is of no use
        cause = _CAUSES.get(failure.kind, Cause.UNKNOWN)
        if cause is Cause.RATE:
            self._unknown = 0
        elif cause is Cause.UNKNOWN:
            self._unknown += 1
            self.width = FEW_AT_ONCE - min(self._unknown, UNKNOWN_IN_A_ROW)
        if probe or (self.cause is None and self._is_enough(cause)):
            self._shut(cause, failure, now, luck)
        elif self.cause is not None and failure.retry_after is not None:  # it left before the way was shut
            self.opens_at = max(self.opens_at, now + wait_before_retry(1, self.retry, luck, failure.retry_after))

    def _is_enough(self, cause: Cause) -> bool:
        """Tell whether a failure shuts the way. What is to be tried once only is not held, but told."""
        if cause is Cause.UNKNOWN:
            return self._unknown >= UNKNOWN_IN_A_ROW
        return self.retry.attempts > 1

    def _shut(self, cause: Cause, failure: Failure, now: float, luck: float) -> None:
        if self.cause in (None, Cause.REFUSED) or (self.cause is Cause.UNKNOWN and cause is not Cause.UNKNOWN):
            self.progress_at = now  # also after the brake, under which nobody loses patience
        self.cause, self.failure = cause, failure
        self._pauses += 1
        if cause is Cause.UNKNOWN:
            pause = min(FIRST_PAUSE * 2.0 ** min(self._pauses - 1, 60), LONGEST_PAUSE) * (1 + 0.1 * luck)
        else:
            pause = wait_before_retry(self._pauses, self.retry, luck, failure.retry_after)
            if failure.retry_after is not None and failure.retry_after < LEAST_ASKED:
                pause = max(backoff(self._pauses, self.retry, luck), LEAST_ASKED)
        self.opens_at = max(self.opens_at, now + pause)  # what left before may have been told to wait longer
