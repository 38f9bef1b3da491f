"""Where submissions wait while the service cannot take them: one line, one probe at a time."""

from __future__ import annotations

import asyncio
import bisect
import itertools
import logging
import math
import random
from collections import deque
from collections.abc import Callable

import attrs

from finevoice_async.config import Retry
from finevoice_async.core.brake import ANSWERS, REFUSALS, Brake, Cause
from finevoice_async.core.failures import Failure
from finevoice_async.errors import SessionClosedError
from finevoice_async.ports import Clock, Timer

log = logging.getLogger("finevoice_async")


@attrs.frozen(eq=False)
class Place:
    """A submission's place in the line.

    Attributes:
        number: Lower ones go first.
        since: When it began to wait for the service, in seconds of the monotonic clock.
    """

    number: int
    since: float


@attrs.frozen(eq=False)
class _Waiter:
    place: Place
    let_out: asyncio.Future[bool | Failure]  # True goes as the probe; a failure sends home


class Gate:
    """Lets submissions out, as `core.brake` says. It is open most of the time, and then costs nothing."""

    def __init__(
        self,
        *,
        retry: Retry,
        clock: Clock,
        rng: random.Random,
        on_brake: Callable[[Cause | None, str | None], None] | None = None,
    ) -> None:
        """Open it.

        Args:
            retry: How patiently to wait, and to probe.
            clock: The session's clock.
            rng: Draws jitter.
            on_brake: Is told when submissions begin to wait, and why; or leave freely again.
        """
        self._patience = retry.patience
        self._clock = clock
        self._rng = rng
        self._on_brake = on_brake
        # All mutable state:
        self._brake = Brake(retry)
        self._line: deque[_Waiter] = deque()  # who waits, in order
        self._numbers = itertools.count()  # of places in the line
        self._timer: Timer | None = None  # for the next probe, while somebody waits
        self._rings_at = math.inf  # when it will
        self.refusals = 0  # how often the key was refused, or credits were spent
        self._refusal: Failure | None = None  # the last of these
        self._on_refusal: Callable[[Failure], None] | None = None
        self._closed = False

    def __repr__(self) -> str:
        cause = self._brake.cause
        return f"<Gate {'open' if cause is None else f'shut ({cause.value})'}, {len(self._line)} waiting>"

    @property
    def is_shut(self) -> bool:
        """Whether submissions have to wait for their turn."""
        return self._brake.cause is not None

    def is_full(self, under_way: int) -> bool:
        """Tell whether as many submissions are under way as may be."""
        return under_way >= self._brake.width

    def lets_out(self, under_way: int) -> bool:
        """Tell whether a submission may go at once, beside so many that are under way."""
        brake = self._brake
        return brake.cause is None and under_way < brake.width

    def on_refusal(self, hear: Callable[[Failure], None]) -> None:
        """Have somebody told when the key is refused, or credits are spent."""
        self._on_refusal = hear

    def refusal(self, seen: int) -> Failure | None:
        """Return why a submission is not to be sent, if the service has refused all of this key's.

        What was wished for before the service said so would hear the same. Who comes later may ask anew, in time.

        Args:
            seen: How many refusals there were when it was wished for.
        """
        if self._refusal is None:  # as nearly always
            return None
        if seen != self.refusals or self._brake.turns_away(self._clock.monotonic()):
            return self._refusal
        return None

    def check_open(self) -> None:
        """Check that something may leave still.

        Raises:
            SessionClosedError: The session is closing.
        """
        if self._closed:
            raise SessionClosedError("The session was closed. Nothing was sent.")

    def place(self) -> Place:
        """Return a place in the line, behind all others; a submission keeps it, however often it has to wait."""
        return Place(next(self._numbers), self._clock.monotonic())

    async def turn(self, place: Place, *, again: bool) -> bool | Failure:
        """Wait for one's turn while the gate is shut.

        Args:
            place: The submission's place in the line.
            again: It was sent before.

        Returns:
            Whether one goes as the probe: then `probe_ended` must follow. Or why one has waited long enough: what
            costs nothing has failed for `Retry.patience` seconds without any progress.

        Raises:
            SessionClosedError: The session is closing.
        """
        self.check_open()
        mine: asyncio.Future[bool | Failure] = asyncio.get_running_loop().create_future()
        waiter = _Waiter(place, mine)
        bisect.insort(self._line, waiter, key=lambda other: other.place.number)
        self._look()
        try:
            while not mine.done():
                left = 0.0 if again and self._came_late(place) else self._time_left(place)
                if left <= 0 and self._brake.failure is not None:  # there is one while the gate is shut
                    return self._brake.failure
                await asyncio.wait([mine], timeout=left)
            return mine.result()
        except asyncio.CancelledError:
            if mine.done() and mine.result() is True:
                self._brake.probing = False  # it was let out in the same step
            raise
        finally:
            if waiter in self._line:
                self._line.remove(waiter)
            self._look()

    def _time_left(self, place: Place) -> float:
        """Return the seconds until somebody has waited long enough, or is to look again.

        Under the brake nobody is sent home: what waits has cost nothing, and whoever waits can leave.
        """
        if self._brake.cause is Cause.UNKNOWN:
            return self._patience
        return max(place.since, self._brake.progress_at) + self._patience - self._clock.monotonic()

    def _came_late(self, place: Place) -> bool:
        """Tell whether somebody came when others had lost patience: then one failed probe is answer enough.

        Else a long list without a network would end only after that time for each few of it.
        """
        brake = self._brake
        return brake.cause is not Cause.UNKNOWN and place.since - brake.progress_at >= self._patience

    def judge(self, failure: Failure | None, *, probe: bool) -> None:
        """Take in what became of a submission; None if the service has accepted it."""
        brake = self._brake
        if failure is None and brake.is_calm:
            return
        before, now = brake.cause, self._clock.monotonic()
        if failure is None or failure.kind in ANSWERS:
            brake.answered(now, probe=probe, others_wait=bool(self._line))
        elif failure.kind in REFUSALS:
            self._refused(failure, now)
        else:
            brake.failed(failure, now, self._rng.random(), probe=probe)
            if probe:
                self._send_home(failure, late=True)
        if brake.cause is not before:
            if brake.failure is None:
                log.info("submissions leave freely again")
            elif brake.cause is Cause.REFUSED:
                log.warning("what waits is not sent: %s", brake.failure.what)
            else:
                log.warning("submissions wait, but for one probe at a time: %s", brake.failure.what)
            if self._on_brake is not None:
                self._on_brake(brake.cause, None if brake.failure is None else brake.failure.what)

    def _refused(self, failure: Failure, now: float) -> None:
        """The key is refused, or credits are spent: whoever waits goes home."""
        self._brake.refused(failure, now)
        self.refusals, self._refusal = self.refusals + 1, failure
        self._send_home(failure, late=False)
        if self._on_refusal is not None:
            self._on_refusal(failure)

    def _send_home(self, failure: Failure, *, late: bool) -> None:
        """Let everybody in the line hear of a failure; `late`: only those who came when others had lost patience."""
        for waiter in self._line:
            if not waiter.let_out.done() and (not late or self._came_late(waiter.place)):
                waiter.let_out.set_result(failure)

    def probe_ended(self) -> None:
        """The probe is over, whatever came of it."""
        self._brake.probing = False
        self._look()

    def close(self) -> None:
        """Let nobody out any more. Who waits already is not told: that is for whoever owns them."""
        self._closed = True

    def _look(self) -> None:
        """Let out who may go, and see to the next look."""
        brake, line, now = self._brake, self._line, self._clock.monotonic()
        while line and (brake.cause is None or brake.may_probe(now)):
            mine = line.popleft().let_out
            if not mine.done():
                brake.probing = brake.cause is not None
                mine.set_result(brake.probing)
        at = brake.opens_at if line and not brake.probing else math.inf
        if at != self._rings_at:
            if self._timer is not None:
                self._timer.cancel()
            self._rings_at = at
            self._timer = None if at == math.inf else self._clock.call_at(at, self._ring)

    def _ring(self) -> None:
        self._timer, self._rings_at = None, math.inf
        self._look()  # which sets it anew, if it rang early
