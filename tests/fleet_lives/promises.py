"""What must hold after every step, whatever it was: by the tables before and after it."""

from __future__ import annotations

import math
from collections.abc import Iterable

import attrs
from fleet_lives.money import Money
from fleet_lives.players import HOLD, Player
from fleet_lives.table import Row, Table

from finevoice_async.core.ledger import EffectState

_S = EffectState
_ON_ITS_WAY = (_S.SENDING, _S.SUBMITTED)
_TO_SEND = (_S.QUEUED, _S.UNKNOWN, _S.LOST)


@attrs.frozen
class Step:
    """What was done.

    Attributes:
        players: All who live.
        actors: Who did something.
        named: The rows that it was about.
        swept: Somebody cleaned up, and nothing else was done.
        shifted: Seconds that were let pass.
        occupied: So many tasks without a row, or whose slots had been free, may have taken slots without asking.
        at_once: Several things were done in an unknown order: slots may have been given before there were fewer.
    """

    players: tuple[Player, ...]
    actors: frozenset[Player]
    named: frozenset[int]
    swept: bool = False
    shifted: float = 0.0
    occupied: int = 0
    at_once: bool = False


def owner(players: Iterable[Player], session: int | None) -> Player | None:
    """Return who has a seat, or had it."""
    return next((player for player in players if session in player.seats), None)


def lives(players: Iterable[Player], session: int | None, table: Table) -> bool:
    """Tell whether a session is in the fleet, its process lives, and it was not silent for too long."""
    return session in table.seats and owner(players, session) is not None and not table.seats[session].is_late


def check(before: Table, after: Table, step: Step, money: Money, freed: set[int]) -> None:
    """Check all promises.

    Raises:
        AssertionError: One is broken.
    """
    assert after.rows.keys() >= before.rows.keys(), "a row is gone"
    assert after.other == before.other, "another account was touched"
    for row in after.rows.values():
        _check_row(row, freed, money)
        was = before.rows.get(row.id)
        if was is not None:
            _check_change(was, row, before, after, step)
    _check_seats(before, after, step)
    _check_slots(before, after, step)
    assert set(after.posts) == money.counted(), "a budget does not count what was sent"
    kept = {task_id for row in after.rows.values() for task_id in row.kept_ids}
    assert money.ids <= kept, f"accepted tasks are lost: {money.ids - kept}"


def _check_row(row: Row, freed: set[int], money: Money) -> None:
    if row.state in _ON_ITS_WAY:
        assert row.place == (None if row.id in freed and row.state is _S.SUBMITTED else math.inf), f"{row} has no slot"
    elif row.state not in _TO_SEND:
        assert row.place is None, f"{row} keeps a slot"
        assert row.session is None, f"{row} is somebody's"
    elif row.state is _S.QUEUED and row.session is None:
        assert row.place is None, f"{row} has a slot and nobody sends it"
    if row.state is _S.SENDING:
        assert row.claim in money.posts, f"{row} was sent by nobody"
    if row.state is _S.SUBMITTED:
        assert row.task_id is not None


def _check_change(was: Row, row: Row, before: Table, after: Table, step: Step) -> None:
    named = row.id in step.named
    has_owner = lives(step.players, was.session, before) and owner(step.players, was.session) not in step.actors
    if has_owner and not named:
        assert was.session is not None
        quiet = before.is_quiet(was.session) or after.is_quiet(was.session)  # others follow what runs, and may send
        assert (row.state, row.claim) == (was.state, was.claim), f"{was} was taken from others"
        assert row.session == was.session or (quiet and row.state is _S.SUBMITTED), f"{was} was taken from others"
        assert row.place in (was.place, math.inf) or (quiet and row.state in _TO_SEND), f"{was} lost its slot"
    if (
        row.state is _S.UNKNOWN
        and was.state is _S.UNKNOWN
        and row.session is None
        and was.session is None
        and not named
    ):
        expected = None if was.place is None else was.place - step.shifted
        assert row.place == expected or _near(row.place, expected), f"{was} got another slot"
    if was.state is _S.SENDING and row.state is _S.UNKNOWN and not step.at_once and row.claim in after.posts:
        assert _near(row.place, after.now + HOLD), f"{row} does not keep its slot for a while"
    if was.state is _S.SENDING and row.state is _S.UNKNOWN and not named:
        assert not lives(step.players, was.session, before) or owner(step.players, was.session) in step.actors


def _near(place: float | None, expected: float | None) -> bool:
    return place is not None and expected is not None and abs(place - expected) < 5


def _check_seats(before: Table, after: Table, step: Step) -> None:
    for seat in before.seats.keys() - after.seats.keys():
        who = owner(step.players, seat)
        assert before.seats[seat].is_late or who is None or who in step.actors, f"seat {seat} was taken from {who}"
    for player in step.players:
        if player.is_sure():
            assert player.me in after.seats, f"{player} is sure that it lives, and is not in the fleet"


def _check_slots(before: Table, after: Table, step: Step) -> None:
    given, taken_anyway = 0, step.occupied + max(0, after.strangers - before.strangers)
    for row in after.rows.values():
        was = before.rows.get(row.id)
        if row.takes_a_slot(after.now) and not (was is not None and was.takes_a_slot(after.now)):
            if row.state is _S.SUBMITTED:
                taken_anyway += 1  # it runs, free slot or not
            elif row.state is not _S.UNKNOWN or row.session is not None:
                given += 1
    if given and after.seats:
        limit = after.limit()
        if step.at_once:
            late = any(seat.is_late for seat in before.seats.values())  # it may be removed, and come back
            limit = max(limit, max(seat.plan for seat in before.seats.values()) if late else before.limit())
        assert after.taken() <= limit + taken_anyway, f"{after.taken()} of {limit} slots are taken"
    freed = any(
        row.takes_a_slot(after.now) and not after.rows[row.id].takes_a_slot(after.now) for row in before.rows.values()
    )
    if (
        (step.swept or (freed and not step.at_once and not step.shifted))
        and after.waiting()
        and before.seats
        and after.seats
    ):
        fewest = min(before.limit(), after.limit(before.now))
        assert after.taken(before.now) >= fewest, f"{after.waiting()[0]} waits, and a slot is free"
