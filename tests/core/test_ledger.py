"""The life of an effect: which moves there are, and which there must never be."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from strange import LongWinded, Unshowable

from finevoice_async.core.ledger import (
    FALLS_BACK,
    GIVEN_UP,
    GIVES_BACK,
    KEEPS,
    MAY_BE_PAID,
    MOVES,
    PERHAPS_PAID,
    SPENDS,
    EffectState,
    JournalRow,
    Move,
    check_key,
    given_up,
    paid_for,
)
from finevoice_async.core.requests import SfxRequest
from finevoice_async.errors import InvalidRequestError

S = EffectState

# The design's picture, written a second time by hand: from each state, the moves that there are and where they lead.
LIVES: dict[EffectState, dict[Move, EffectState]] = {
    S.QUEUED: {Move.SEND: S.SENDING, Move.REFUSE: S.REFUSED, Move.DISCARD: S.REFUSED},
    S.SENDING: {
        Move.ACCEPT: S.SUBMITTED,
        Move.ANSWER: S.DONE,
        Move.HOLD: S.QUEUED,
        Move.REFUSE: S.REFUSED,
        Move.DOUBT: S.UNKNOWN,
        Move.REVERT: S.UNKNOWN,
    },
    S.SUBMITTED: {Move.FINISH: S.DONE, Move.FAIL: S.FAILED, Move.LOSE: S.LOST},
    S.DONE: {Move.SAVE: S.SAVED},
    S.SAVED: {Move.SAVE: S.SAVED},
    S.REFUSED: {Move.QUEUE: S.QUEUED, Move.RETRY: S.QUEUED},
    S.UNKNOWN: {Move.RESEND: S.SENDING, Move.ADOPT: S.SUBMITTED, Move.DISCARD: S.REFUSED},
    S.FAILED: {Move.RETRY: S.QUEUED},
    S.LOST: {
        Move.RESEND: S.SENDING,
        Move.ADOPT: S.SUBMITTED,
        Move.DISCARD: S.REFUSED,
        Move.FINISH: S.DONE,
        Move.FAIL: S.FAILED,
    },
}
CALLERS = {Move.QUEUE, Move.RETRY, Move.RESEND, Move.ADOPT, Move.DISCARD}
"""What only a caller asks for."""

SERVICES = {Move.ACCEPT, Move.FINISH, Move.FAIL, Move.LOSE}
"""What only the service says."""


def _leads(state: EffectState, without: frozenset[Move] = frozenset()) -> set[EffectState]:
    """Return all states that can be reached from one."""
    reached, new = {state}, [state]
    while new:
        here = new.pop()
        for move, (before, after) in MOVES.items():
            if here in before and move not in without and after not in reached:
                reached.add(after)
                new.append(after)
    return reached


@pytest.mark.parametrize("state", EffectState)
def test_moves_from(state: EffectState) -> None:
    """From each state there are the moves of the picture, to the states of the picture, and no other."""
    assert {move: after for move, (before, after) in MOVES.items() if state in before} == LIVES[state]


def test_every_move_is_in_the_table() -> None:
    """Each move has its line, and starts somewhere."""
    assert set(MOVES) == set(Move)
    assert all(before for before, _ in MOVES.values())


def test_every_state_can_be_reached() -> None:
    """A new row, which is QUEUED or SENDING, can come to be in any state."""
    assert _leads(S.QUEUED) == _leads(S.SENDING) == set(EffectState)


def test_only_what_is_about_to_be_posted_is_sending() -> None:
    """Two moves lead to SENDING: of what was never sent, and of what the caller accepts to pay for twice."""
    assert {move for move, (_, after) in MOVES.items() if after is S.SENDING} == {Move.SEND, Move.RESEND}
    assert MOVES[Move.SEND][0] == {S.QUEUED}
    assert MOVES[Move.RESEND][0] == set(MAY_BE_PAID)


def test_what_counts_as_spent() -> None:
    """Every way to SENDING spends; only what a POST that was certainly not accepted comes to gives back."""
    assert {move for move, (_, after) in MOVES.items() if after is S.SENDING} == SPENDS
    assert {Move.HOLD, Move.REFUSE, Move.REVERT} == GIVES_BACK
    assert all(S.SENDING in MOVES[move][0] for move in GIVES_BACK)


@pytest.mark.parametrize("state", MAY_BE_PAID)
def test_what_may_be_paid_waits_for_a_word(state: EffectState) -> None:
    """Out of UNKNOWN and LOST nothing leads by itself: only the caller's word, or the service's."""
    assert {move for move, (before, _) in MOVES.items() if state in before} <= CALLERS | SERVICES


@pytest.mark.parametrize("state", [S.SUBMITTED, S.DONE, S.SAVED, S.UNKNOWN, S.FAILED, S.LOST])
def test_what_was_accepted_is_never_sent_again_by_itself(state: EffectState) -> None:
    """Once the service may have accepted it, no way leads to another POST without the caller's word."""
    assert S.SENDING not in _leads(state, without=frozenset(CALLERS))


def test_a_result_is_never_taken_back() -> None:
    """From DONE an effect can only be saved, and saved again."""
    assert _leads(S.DONE) == {S.DONE, S.SAVED}
    assert _leads(S.SAVED) == {S.SAVED}


def test_a_failure_is_tried_again_only_where_the_caller_asks() -> None:
    """A plain wish goes on from what was certainly not accepted; a failed task needs the caller's other word."""
    assert MOVES[Move.QUEUE][0] == {S.REFUSED}
    assert MOVES[Move.RETRY][0] == {S.REFUSED, S.FAILED}


def test_a_row_shows_no_link() -> None:
    """Links may carry a signature, and stay out of a repr."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    row = JournalRow(
        id=1, state=S.DONE, request=SfxRequest("x"), urls=("https://cdn.x/?sig=s3cret",), created_at=now, updated_at=now
    )
    assert "s3cret" not in repr(row)


@pytest.mark.parametrize("key", [None, "scene 3, door", " x ", "雨"])
def test_good_key(key: str | None) -> None:
    """No key, and any text that is not blank, are keys as they are."""
    assert check_key(key) is key


@pytest.mark.parametrize("key", ["", " \t", "\ud800", 5, b"x", True, 10**5000, Unshowable(), LongWinded()], ids=type)
def test_bad_key(key: object) -> None:
    """What cannot name a row is refused, and nothing was sent."""
    with pytest.raises(InvalidRequestError, match="Nothing was sent"):
        check_key(key)


def row_that_is(state: EffectState, error: str | None = None) -> JournalRow:
    """Return a row in a state."""
    at = datetime(2030, 1, 1, tzinfo=UTC)
    return JournalRow(id=1, state=state, request=SfxRequest("rain"), error=error, created_at=at, updated_at=at)


PAID = {S.QUEUED: False, S.REFUSED: False, S.SENDING: None, S.UNKNOWN: None, S.LOST: None}


@pytest.mark.parametrize("state", EffectState)
def test_what_was_paid_for(state: EffectState) -> None:
    """What the service accepted was, what never left was not, and of the rest nobody knows; nor of what is gone."""
    assert paid_for(row_that_is(state)) is PAID.get(state, True)
    assert paid_for(None) is None


@pytest.mark.parametrize("state", EffectState)
@pytest.mark.parametrize("why", [None, "the cable was pulled"])
def test_what_is_noted_of_a_row_that_is_given_up(state: EffectState, why: str | None) -> None:
    """If it may have been paid for it says so from then on, and why; so that nobody says that it was not."""
    words = given_up(row_that_is(state, why))
    in_doubt = state in MAY_BE_PAID
    assert words.startswith(PERHAPS_PAID if in_doubt else GIVEN_UP)
    assert words.endswith(why or "") or not in_doubt
    assert paid_for(row_that_is(S.REFUSED, words)) is (None if in_doubt else False)


def test_what_falls_back_was_kept() -> None:
    """What a new try leaves is what some move has kept; and only what certainly was not accepted falls back."""
    assert {move for move in FALLS_BACK if S.SENDING in FALLS_BACK[move]} <= GIVES_BACK
    for table in (KEEPS, FALLS_BACK):
        assert all(states <= MOVES[move][0] for move, states in table.items())
    assert not FALLS_BACK[Move.DISCARD] & set(MAY_BE_PAID)
