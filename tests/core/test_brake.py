"""Whether submissions may leave: what shuts the way, how long, and what opens it again."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finevoice_async.config import Retry
from finevoice_async.core.brake import (
    ANSWERS,
    FEW_AT_ONCE,
    KEY_PAUSE,
    LEAST_ASKED,
    LONGEST_PAUSE,
    MANY_AT_ONCE,
    REFUSALS,
    UNKNOWN_IN_A_ROW,
    Brake,
    Cause,
)
from finevoice_async.core.failures import Failure, FailureKind

RATE, AWAY = FailureKind.RATE, FailureKind.NOT_SENT
DOUBTS = [
    FailureKind.LOST,
    FailureKind.UNREADABLE,
    FailureKind.REDIRECT,
    FailureKind.CONFLICT,
    FailureKind.SERVER,
]
MIDDLE = 0.5
"""Luck that is neither good nor bad."""


def failure(kind: FailureKind, retry_after: float | None = None) -> Failure:
    """Return a failure of a kind."""
    return Failure(kind, f"it was {kind.value}", retry_after=retry_after)


@pytest.fixture
def brake() -> Brake:
    """A brake that is open."""
    return Brake(Retry())


def shut(brake: Brake, kind: FailureKind, now: float = 0.0, retry_after: float | None = None) -> None:
    """Shut the way."""
    while brake.cause is None:
        brake.failed(failure(kind, retry_after), now, MIDDLE, probe=False)


# What shuts it


@pytest.mark.parametrize(("kind", "cause"), [(RATE, Cause.RATE), (AWAY, Cause.NOT_SENT)])
def test_what_costs_nothing_shuts_it_at_once(brake: Brake, kind: FailureKind, cause: Cause) -> None:
    """One 429, or one connection that failed, is enough; the failure is kept."""
    why = failure(kind)
    brake.failed(why, 100.0, MIDDLE, probe=False)
    assert (brake.cause, brake.failure, brake.opens_at, brake.progress_at) == (cause, why, 100.25, 100.0)
    assert not brake.may_probe(100.24)
    assert brake.may_probe(100.25)


@pytest.mark.parametrize("kind", DOUBTS)
def test_lost_answers_shut_it_after_three_in_a_row(brake: Brake, kind: FailureKind) -> None:
    """Two may be chance; whatever hides an acceptance counts."""
    for _ in range(UNKNOWN_IN_A_ROW - 1):
        brake.failed(failure(kind), 0.0, MIDDLE, probe=False)
        assert brake.cause is None
    brake.failed(failure(kind), 0.0, MIDDLE, probe=False)
    assert brake.cause is Cause.UNKNOWN
    assert UNKNOWN_IN_A_ROW == 3


@pytest.mark.parametrize("between", [None, RATE])
def test_an_answer_ends_the_row(brake: Brake, between: FailureKind | None) -> None:
    """After an answer, also a 429, it takes three more."""
    patient = Brake(Retry(attempts=1))  # which 429 does not shut
    for _ in range(3):
        for _ in range(2):
            patient.failed(failure(FailureKind.LOST), 0.0, MIDDLE, probe=False)
        if between is None:
            patient.answered(0.0, probe=False, others_wait=True)
        else:
            patient.failed(failure(between), 0.0, MIDDLE, probe=False)
    assert patient.cause is None


def test_a_connection_that_failed_is_no_answer() -> None:
    """It neither ends the row of lost answers nor makes it longer."""
    brake = Brake(Retry(attempts=1))
    for kind in (FailureKind.LOST, FailureKind.LOST, AWAY, AWAY):
        brake.failed(failure(kind), 0.0, MIDDLE, probe=False)
    assert brake.cause is None
    brake.failed(failure(FailureKind.LOST), 0.0, MIDDLE, probe=False)
    assert brake.cause is Cause.UNKNOWN


@pytest.mark.parametrize("probe", [False, True])
def test_a_bad_certificate_is_no_reason_to_wait(brake: Brake, probe: bool) -> None:
    """Nothing was asked, and time mends nothing: it changes nothing at all."""
    if probe:
        shut(brake, RATE)
    before = attrs.asdict(brake, recurse=False)
    brake.failed(failure(FailureKind.CERTIFICATE), 9.0, MIDDLE, probe=probe)
    assert attrs.asdict(brake, recurse=False) == before


@pytest.mark.parametrize("kind", [RATE, AWAY])
def test_with_one_attempt_nobody_is_held(kind: FailureKind) -> None:
    """Where nothing is to be tried again, nothing that costs nothing shuts the way; lost answers do."""
    brake = Brake(Retry(attempts=1))
    for _ in range(9):
        brake.failed(failure(kind, 60.0), 0.0, MIDDLE, probe=False)
    assert (brake.cause, brake.opens_at) == (None, 0.0)
    shut(brake, FailureKind.LOST)
    assert brake.cause is Cause.UNKNOWN


def test_every_kind_of_failure_is_placed() -> None:
    """A kind is an answer, meets everybody, costs nothing, may have cost something, or is of no use to try again."""
    placed = [*ANSWERS, *REFUSALS, RATE, AWAY, *DOUBTS, FailureKind.CERTIFICATE]
    assert sorted(kind.value for kind in placed) == sorted(kind.value for kind in FailureKind)


# How long


def pauses(
    brake: Brake, kind: FailureKind, count: int, *, luck: float = MIDDLE, asked: float | None = None
) -> list[float]:
    """Let probes fail one after another, and return the pauses."""
    seen, now = [], 0.0
    brake.failed(failure(FailureKind.NOT_SENT), now, 0.0, probe=False)  # shut, with a first pause of nothing
    for _ in range(count):
        brake.failed(failure(kind, asked), now, luck, probe=True)
        seen.append(brake.opens_at - now)
        now = brake.opens_at
    return seen


def test_pauses_where_nothing_is_asked(brake: Brake) -> None:
    """They double up to the longest delay, with full jitter."""
    assert pauses(brake, AWAY, 8) == pytest.approx([0.5, 1, 2, 4, 8, 15, 15, 15])


def test_pauses_under_the_brake(brake: Brake) -> None:
    """They double from 1 s to 30 s, and are jittered by a tenth only: each probe may cost."""
    shut(brake, FailureKind.LOST)
    seen, now = [brake.opens_at], brake.opens_at
    for _ in range(70):
        brake.failed(failure(FailureKind.SERVER), now, 0.0, probe=True)
        seen.append(brake.opens_at - now)
        now = brake.opens_at
    assert seen[:8] == pytest.approx([1.05, 2, 4, 8, 16, 30, 30, 30])
    assert seen[-1] == pytest.approx(LONGEST_PAUSE)


@pytest.mark.parametrize(("asked", "pause"), [(1.0, 1.05), (2.0, 2.1), (60.0, 63.0), (9999.0, 126.0)])
@pytest.mark.parametrize("kind", [RATE, AWAY])
def test_what_the_service_asks(brake: Brake, kind: FailureKind, asked: float, pause: float) -> None:
    """It is obeyed, again and again, up to the longest."""
    assert pauses(brake, kind, 3, asked=asked) == pytest.approx([pause] * 3)


@pytest.mark.parametrize("asked", [0.0, 0.5, 0.99])
def test_a_service_that_asks_for_next_to_nothing(brake: Brake, asked: float) -> None:
    """At once, or a date that is over, makes no hot loop: pauses grow as if nothing was asked, from 1 s."""
    assert pauses(brake, RATE, 6, asked=asked) == pytest.approx([LEAST_ASKED, 1, 2, 4, 8, 15])
    assert LEAST_ASKED == 1


def test_who_left_before_may_lengthen_the_pause_only(brake: Brake) -> None:
    """What left before the way was shut, and is told to wait longer, is heard; it neither shortens nor opens."""
    shut(brake, RATE, retry_after=10.0)
    assert brake.opens_at == pytest.approx(10.5)
    brake.failed(failure(RATE, 2.0), 1.0, MIDDLE, probe=False)
    brake.failed(failure(RATE), 1.0, MIDDLE, probe=False)
    brake.failed(failure(FailureKind.LOST), 1.0, MIDDLE, probe=False)
    assert brake.opens_at == pytest.approx(10.5)
    brake.failed(failure(RATE, 40.0), 1.0, MIDDLE, probe=False)
    assert brake.opens_at == pytest.approx(43.0)
    brake.answered(2.0, probe=False, others_wait=False)
    assert brake.cause is Cause.RATE
    assert brake.opens_at == pytest.approx(43.0)


def test_a_probe_that_fails_shortens_nothing(brake: Brake) -> None:
    """Somebody else was told a longer time while the probe was out: that counts."""
    shut(brake, RATE)
    brake.failed(failure(RATE, 60.0), 1.0, MIDDLE, probe=False)
    brake.failed(failure(RATE), 2.0, MIDDLE, probe=True)
    assert brake.opens_at == pytest.approx(64.0)


# What opens it


@pytest.mark.parametrize("kind", [AWAY, FailureKind.LOST])
@pytest.mark.parametrize("others_wait", [False, True])
def test_an_answered_probe_opens_it(brake: Brake, kind: FailureKind, others_wait: bool) -> None:
    """The service is there again: everybody may go."""
    shut(brake, kind)
    brake.answered(5.0, probe=True, others_wait=others_wait)
    assert (brake.cause, brake.failure) == (None, None)


def test_a_full_plan_lets_one_after_another_go(brake: Brake) -> None:
    """After a 429 each answer lets one more go, at once, until nobody waits; the next failure's pause is short."""
    shut(brake, RATE)
    for _ in range(5):
        brake.failed(failure(RATE), 1.0, MIDDLE, probe=True)
    for now in (50.0, 51.0):
        brake.answered(now, probe=True, others_wait=True)
        assert (brake.cause, brake.opens_at, brake.progress_at) == (Cause.RATE, now, now)
        assert brake.may_probe(now)
    brake.failed(failure(RATE), 52.0, MIDDLE, probe=True)
    assert brake.opens_at == 52.25
    brake.answered(53.0, probe=True, others_wait=False)
    assert brake.cause is None


def test_one_probe_at_a_time(brake: Brake) -> None:
    """While a probe is out nobody else may go, however late it is."""
    shut(brake, RATE)
    brake.probing = True
    assert not brake.may_probe(1e9)


def test_after_the_brake_patience_begins_anew(brake: Brake) -> None:
    """Time under the brake costs nobody's patience, if the service is away afterwards."""
    shut(brake, FailureKind.LOST)
    brake.failed(failure(FailureKind.LOST), 50.0, MIDDLE, probe=True)
    assert brake.progress_at == 0.0
    brake.failed(failure(AWAY), 100.0, MIDDLE, probe=True)
    assert (brake.cause, brake.progress_at) == (Cause.NOT_SENT, 100.0)
    brake.failed(failure(RATE), 200.0, MIDDLE, probe=True)
    assert (brake.cause, brake.progress_at) == (Cause.RATE, 100.0)


# How many at once


def test_how_many_at_once(brake: Brake) -> None:
    """Ten at first, one more with each answer up to 40; each answer that is lost takes its place along, up to three."""
    assert brake.width == FEW_AT_ONCE == 10
    for _ in range(100):
        brake.answered(0.0, probe=False, others_wait=False)
    assert brake.width == MANY_AT_ONCE == 40
    seen = []
    for _ in range(5):
        brake.failed(failure(FailureKind.LOST), 0.0, MIDDLE, probe=False)
        seen.append(brake.width)
    assert seen == [9, 8, 7, 7, 7]
    brake.answered(0.0, probe=True, others_wait=False)
    assert brake.width == 8


@pytest.mark.parametrize("kind", [RATE, AWAY])
def test_what_costs_nothing_leaves_the_width(brake: Brake, kind: FailureKind) -> None:
    """Nothing may have been paid for."""
    brake.failed(failure(kind), 0.0, MIDDLE, probe=False)
    assert brake.width == FEW_AT_ONCE


# In any order

EVENTS = st.lists(
    st.tuples(
        st.sampled_from([None, *FailureKind]),  # None: accepted
        st.none() | st.floats(0, 1e6),  # Retry-After
        st.floats(0, 50),  # seconds since the event before
        st.floats(0, 1, exclude_max=True),  # luck
        st.booleans(),  # the probe's, if one is out
        st.booleans(),  # others wait
    ),
    max_size=60,
)


@given(EVENTS, st.sampled_from([1, 4]))
def test_in_any_order(
    events: list[tuple[FailureKind | None, float | None, float, float, bool, bool]], attempts: int
) -> None:
    """Only a probe's answer opens the way or lets somebody go earlier; a pause is never longer than what is obeyed."""
    brake, now = Brake(Retry(attempts=attempts)), 1000.0
    for kind, asked, passed, luck, of_probe, others_wait in events:
        now += passed
        brake.probing = brake.probing or (brake.cause is not None and brake.may_probe(now))
        probe = of_probe and brake.probing
        before = attrs.evolve(brake)
        if kind is None or kind in ANSWERS:
            brake.answered(now, probe=probe, others_wait=others_wait)
        else:
            brake.failed(failure(kind, asked), now, luck, probe=probe)
        opened = before.cause is not None and brake.cause is None
        assert (brake.cause is None) == (brake.failure is None)
        assert not opened or (probe and (kind is None or kind in ANSWERS))
        if before.cause is not None and brake.opens_at < before.opens_at:
            assert probe
            assert kind is None or kind in ANSWERS
        if probe and (kind is None or kind in ANSWERS):
            assert brake.cause is (Cause.RATE if before.cause is Cause.RATE and others_wait else None)
            assert brake.opens_at == brake.progress_at == now
        assert brake.opens_at <= max(now + 132.0, before.opens_at)
        assert brake.progress_at <= now
        assert 7 <= brake.width <= MANY_AT_ONCE
        if probe:
            brake.probing = False


# A refused key, spent credits


@pytest.mark.parametrize("kind", REFUSALS)
@pytest.mark.parametrize("status", [401, 402, 403])
def test_a_refusal_shuts_it(brake: Brake, kind: FailureKind, status: int) -> None:
    """One is enough, whatever shut the way before; after a 401 nobody may ask for half a minute."""
    shut(brake, AWAY, 90.0)
    why = Failure(kind, "no", status=status)
    brake.refused(why, 100.0)
    assert (brake.cause, brake.failure) == (Cause.REFUSED, why)
    assert brake.turns_away(100.0) is (status == 401)
    assert not brake.turns_away(100.0 + KEY_PAUSE)
    assert brake.may_probe(100.0) is (status != 401)
    brake.probing = True
    assert not brake.turns_away(100.0)


@pytest.mark.parametrize("kind", [RATE, AWAY, FailureKind.LOST])
def test_a_probe_after_a_refusal_fails_otherwise(brake: Brake, kind: FailureKind) -> None:
    """What it says counts, and patience begins anew; an answer opens the way."""
    brake.refused(Failure(FailureKind.CREDITS, "no"), 100.0)
    brake.failed(failure(kind), 200.0, MIDDLE, probe=True)
    assert brake.cause is not Cause.REFUSED
    assert brake.progress_at == 200.0
    brake.answered(300.0, probe=True, others_wait=False)
    assert brake.cause is None
