"""What players may do, each with what must come of it when nobody else does anything at the same time."""

from __future__ import annotations

import itertools
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial
from typing import Any

import attrs
from fleet_lives.money import Consented, Event, Money, Post, Sent, Told
from fleet_lives.players import Player
from fleet_lives.promises import lives, owner
from fleet_lives.table import Row, Table

from finevoice_async.core.ledger import MAY_BE_PAID, MOVES, EffectState, Move
from finevoice_async.core.requests import SfxRequest
from finevoice_async.errors import BudgetExceededError
from finevoice_async.ports import Begun, TaskIdTakenError

_S = EffectState
KEYS = ("one", "two", "three", "four")
OWNERS = (None, None, "a user")
PROMPTS = ("Rain", "Rain", "Rain", "Wind")
URLS = ("https://cdn.example/1.mp3",)
_OF_POST = (Move.ACCEPT, Move.ANSWER, Move.HOLD, Move.REFUSE, Move.REVERT)
_numbers = itertools.count()


@attrs.frozen
class Deed:
    """Something that a player can do now.

    Attributes:
        words: What it is, for people.
        player: Who.
        job: Does it.
        row_id: The row that it is about, if there is one yet.
        expected: What must come of it if it is alone; Ellipsis: anything.
        events: What that means for the money.
        occupied: It may take a slot without asking.
        answers: The POST that it is the answer to: there is one to each.
    """

    words: str
    player: Player
    job: Callable[[], Awaitable[Any]]
    row_id: int | None = None
    expected: Any = ...
    events: Callable[[Any], list[Event]] = lambda _: []
    occupied: int = 0
    answers: Post | None = None


class Deeds:
    """Lists what can be done, as things stand."""

    def __init__(self, players: Iterable[Player], table: Table, money: Money, freed: set[int]) -> None:
        self._players = tuple(players)
        self._table = table
        self._money = money
        self._freed = freed

    def find(self, kind: str) -> list[Callable[[random.Random], Deed]]:
        """Return the deeds of a kind that can be done now."""
        listed: Iterator[Callable[[random.Random], Deed]] = getattr(self, f"_{kind}")()
        return list(listed)

    def _pairs(self, *states: _S) -> Iterator[tuple[Player, Row]]:
        """Each player with each row in a state, except where the player has a POST of the row in the air."""
        for row in self._table.rows.values():
            for player in self._players:
                if row.state in states and not self._money.in_air(player, row.id):
                    yield player, row

    def _lives(self, row: Row) -> bool:
        return lives(self._players, row.session, self._table)

    def _elsewhere(self, player: Player, row: Row) -> bool:
        return owner(self._players, row.session) is not player and self._lives(row)

    # Intents

    def _wish(self) -> Iterator[Callable[[random.Random], Deed]]:
        for player in self._players:
            yield partial(self._wish_of, player)

    def _wish_of(self, player: Player, luck: random.Random) -> Deed:
        key = luck.choice((None, *KEYS, *KEYS))
        found = self._table.of_key(key)
        if found is not None and self._money.in_air(player, found.id):
            key = found = None  # its session would join what it has under way
        again, state = (
            luck.choice((Move.QUEUE, Move.QUEUE, Move.RETRY)),
            luck.choice((_S.QUEUED, _S.SENDING, _S.SENDING)),
        )
        prompt, whose = luck.choice(PROMPTS), luck.choice(OWNERS)

        async def job() -> tuple[Begun, int | None]:
            begun = await player.begin(SfxRequest(prompt), key=key, state=state, again=again, owner=whose)
            if begun.row.state is _S.SUBMITTED and not begun.elsewhere:
                player.polled.add(begun.row.id)
            return begun, player.claim_of(begun.row.id) if begun.has_slot else None

        def events(result: tuple[Begun, int | None]) -> list[Event]:
            begun, claim = result
            sent: list[Event] = [] if claim is None else [Sent(begun.row.id, claim, player)]
            retried = begun.is_mine and again is Move.RETRY
            return [*([Consented(begun.row.id, None)] if retried else []), *sent]

        return Deed(
            f"{player} wishes for {prompt}, key {key}, {state.value}, {again.value}",
            player,
            job,
            None if found is None else found.id,
            self._expected_of_wish(player, found, again, same=found is not None and prompt in found.request),
            events,
        )

    def _expected_of_wish(self, player: Player, found: Row | None, again: Move, *, same: bool) -> Callable[[Any], None]:
        is_mine = found is None or found.state in MOVES[again][0]
        under_way = found is not None and found.state in (_S.QUEUED, _S.SENDING, _S.SUBMITTED)
        stays = found is not None and owner(self._players, found.session) is player
        elsewhere = bool(found and under_way and not stays and (found.state is _S.SENDING or self._lives(found)))
        kept = found is not None and not is_mine and (stays or elsewhere or not under_way or not same)

        def right(result: tuple[Begun, int | None]) -> None:
            begun, _ = result
            assert (begun.is_mine, begun.elsewhere) == (is_mine, elsewhere), begun
            if found is not None and kept:
                assert (begun.row.id, begun.row.state, begun.has_slot) == (found.id, found.state, False)

        return right

    def _send(self) -> Iterator[Callable[[random.Random], Deed]]:
        for player, row in self._pairs(_S.QUEUED):
            claim = player.claim_of(row.id)
            can = claim == row.claim and row.session == player.me and row.takes_a_slot(self._table.now)
            yield _maker(self._sending(player, row, Move.SEND, can=can))

    def _resend(self) -> Iterator[Callable[[random.Random], Deed]]:
        for player, row in self._pairs(*MAY_BE_PAID):
            claim = player.claim_of(row.id) or player._doubted.get(row.id)
            its_own = row.session == player.me or row.session is None
            can = claim == row.claim and its_own and row.takes_a_slot(self._table.now)
            yield _maker(self._sending(player, row, Move.RESEND, can=can))

    def _sending(self, player: Player, row: Row, move: Move, *, can: bool) -> Deed:
        async def job() -> bool | None:
            try:
                return await player.move(row.id, move)
            except BudgetExceededError:
                return None

        def events(sent: bool | None) -> list[Event]:
            if not sent:
                return []
            claim = player.claim_of(row.id)
            assert claim is not None
            # Who sends at once what is in doubt since a moment ago was told beforehand that it may.
            at_once = move is Move.RESEND and row.session is None
            return [*([Consented(row.id, player)] if at_once else []), Sent(row.id, claim, player)]

        def right(sent: bool | None) -> None:
            assert sent is can or (sent is None and player._budget is not None), sent

        return Deed(f"{player}: {move.value} {row.id}", player, job, row.id, right, events)

    def _take(self) -> Iterator[Callable[[random.Random], Deed]]:
        for player, row in self._pairs(_S.QUEUED, *MAY_BE_PAID):
            consents = row.state in MAY_BE_PAID

            def events(
                taken: bool,
                player: Player = player,
                row: Row = row,
                consents: bool = consents,
            ) -> list[Event]:
                return [Consented(row.id, player)] if taken and consents else []

            can = not self._elsewhere(player, row)
            yield _maker(Deed(f"{player} takes {row.id}", player, _call(player.take, row.id), row.id, can, events))

    def _let_go(self) -> Iterator[Callable[[random.Random], Deed]]:
        for player, row in self._pairs(_S.QUEUED, *MAY_BE_PAID):
            can: Any = ... if row.session is None else row.session == player.me  # asked again: it is free
            yield _maker(Deed(f"{player} lets {row.id} go", player, _call(player.let_go, row.id), row.id, can))

    def _withdraw(self) -> Iterator[Callable[[random.Random], Deed]]:
        for player, row in self._pairs(_S.QUEUED):
            claim = player.claim_of(row.id)
            can = claim in (None, row.claim)
            yield _maker(self._moving(player, row, Move.REFUSE, can=can, error="It was withdrawn."))

    def _discard(self) -> Iterator[Callable[[random.Random], Deed]]:
        for player, row in self._pairs(_S.QUEUED, *MAY_BE_PAID):
            if not self._elsewhere(player, row):
                covers: list[Event] = [Consented(row.id, None)]
                yield _maker(self._moving(player, row, Move.DISCARD, covers, can=True, error="given up"))

    def _adopt(self) -> Iterator[Callable[[random.Random], Deed]]:
        for player, row in self._pairs(*MAY_BE_PAID):
            if not self._elsewhere(player, row):
                new = f"adopted-{next(_numbers)}"
                yield _maker(self._moving(player, row, Move.ADOPT, can=True, task_id=new))
                taken = next((other.task_id for other in self._table.rows.values() if other.task_id), None)
                if taken is not None and taken != row.task_id:
                    yield _maker(self._moving(player, row, Move.ADOPT, can=None, task_id=taken))

    # Facts

    def _facts(self, *moves: Move) -> Iterator[Callable[[random.Random], Deed]]:
        for post in self._money.in_air():
            row = self._table.rows[post.row_id]
            for move in moves:
                if move is not Move.REVERT or row.has_earlier:
                    yield _maker(self._fact(post, row, move))

    def _accept(self) -> Iterator[Callable[[random.Random], Deed]]:
        return self._facts(Move.ACCEPT, Move.ACCEPT, Move.ACCEPT, Move.ANSWER)

    def _turned_away(self) -> Iterator[Callable[[random.Random], Deed]]:
        return self._facts(Move.HOLD, Move.REFUSE, Move.REVERT)

    def _doubt(self) -> Iterator[Callable[[random.Random], Deed]]:
        return self._facts(Move.DOUBT)

    def _fact(self, post: Post, row: Row, move: Move) -> Deed:
        player = post.sender
        in_time = row.state is _S.SENDING or (row.state is _S.UNKNOWN and move in _OF_POST)
        can = row.claim == post.claim and in_time
        fate = {Move.ACCEPT: "known", Move.ANSWER: "known", Move.DOUBT: "doubt"}.get(move, "refused")
        options: dict[str, Any] = {"error": "so it said"}
        if move is Move.ACCEPT:
            options = {"task_id": f"task-{next(_numbers)}"}
        elif move is Move.ANSWER:
            options = {"urls": URLS}

        def events(moved: bool) -> list[Event]:
            if move is Move.ACCEPT:
                self._money.ids.add(options["task_id"])
                player.polled.add(row.id)
            return [Told(post, fate, given_back=bool(moved) and fate == "refused")]

        job = _call(player.move, row.id, move, **options)
        return Deed(f"{player}: {move.value} {row.id}, {options}", player, job, row.id, can, events, answers=post)

    def _end(self) -> Iterator[Callable[[random.Random], Deed]]:
        for player, row in self._pairs(_S.SUBMITTED, _S.LOST):
            if row.id in player.polled and row.task_id is not None:
                moves = (Move.FINISH, Move.FINISH, Move.FAIL, *([Move.LOSE] if row.state is _S.SUBMITTED else []))
                for move in moves:
                    yield _maker(self._moving(player, row, move, can=True, task_id=row.task_id))

    def _save(self) -> Iterator[Callable[[random.Random], Deed]]:
        for player, row in self._pairs(_S.DONE, _S.SAVED):
            yield _maker(self._moving(player, row, Move.SAVE, can=True, path="/there"))

    def _moving(
        self,
        player: Player,
        row: Row,
        move: Move,
        events: list[Event] | None = None,
        *,
        can: bool | None,
        **options: Any,
    ) -> Deed:
        async def job() -> bool | None:
            if move is Move.ADOPT:
                player.polled.add(row.id)
                self._freed.discard(row.id)
            try:
                return await player.move(row.id, move, **options)
            except TaskIdTakenError:
                return None

        words = f"{player}: {move.value} {row.id}, {options}"
        return Deed(words, player, job, row.id, can, lambda moved: list(events or []) if moved else [])

    # The fleet

    def _sweep(self) -> Iterator[Callable[[random.Random], Deed]]:
        for player in self._players:
            yield _maker(Deed(f"{player} sweeps", player, player.beat_once))

    def _whose(self) -> Iterator[Callable[[random.Random], Deed]]:
        for player, row in self._pairs(*_S):
            yield _maker(Deed(f"{player}: whose is {row.id}?", player, _call(player.whose, row.id), row.id))

    def _slow_down(self) -> Iterator[Callable[[random.Random], Deed]]:
        for player in self._players:
            yield _maker(Deed(f"{player} slows down", player, _call(player.slow_down, 12.0)))

    def _stranger(self) -> Iterator[Callable[[random.Random], Deed]]:
        for player, name in itertools.product(self._players, ("p1-a", "p1-b")):
            yield _maker(Deed(f"{player} occupies", player, _call(player.occupy, name), occupied=1))
            yield _maker(Deed(f"{player} vacates", player, _call(player.vacate, name)))

    def _give_up(self) -> Iterator[Callable[[random.Random], Deed]]:
        for player, row in self._pairs(_S.SUBMITTED):
            if row.session == player.me:

                async def job(player: Player = player, row: Row = row) -> None:
                    self._freed.add(row.id)
                    await player.free_slot(row.id)

                yield _maker(Deed(f"{player} gives {row.id} up", player, job, row.id))


def _call(function: Callable[..., Awaitable[Any]], *values: Any, **options: Any) -> Callable[[], Awaitable[Any]]:
    async def job() -> Any:
        return await function(*values, **options)

    return job


def _maker(deed: Deed) -> Callable[[random.Random], Deed]:
    return lambda _: deed


KINDS = (
    *("wish", "wish", "wish", "send", "send", "resend", "take", "let_go", "withdraw", "discard", "adopt"),
    *("accept", "accept", "turned_away", "doubt", "end", "end", "save"),
    *("sweep", "sweep", "sweep", "sweep", "whose", "slow_down", "stranger", "give_up"),
)
