"""The store as a state machine: several sessions of one key in one database, against what the specification promises.

``FINEVOICE_GAMES=5000 pytest tests/fleet/test_store_fuzz.py`` plays as many games.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import secrets
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from fleet_lives import promises, table
from fleet_lives.money import Money
from fleet_lives.moves import KINDS, Deed, Deeds
from fleet_lives.players import LEASE, AheadClock, Player
from fleets import sql
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from finevoice_async.adapters.postgres.journal import account_of
from finevoice_async.config import Budget
from finevoice_async.core.ledger import EffectState

pytestmark = pytest.mark.real_time

EXAMPLES = int(os.environ.get("FINEVOICE_GAMES", "0"))
STEPS = 40
MOST = 4
DAY = timedelta(days=1)


SLOW = (
    """CREATE FUNCTION finevoice.fuzz_slowly() RETURNS trigger LANGUAGE plpgsql AS $$
       BEGIN PERFORM pg_sleep(0.003); RETURN NEW; END $$""",
    """CREATE TRIGGER slowly BEFORE UPDATE OF place ON finevoice.effects FOR EACH ROW
       WHEN (OLD.place IS NULL AND NEW.place IS NOT NULL) EXECUTE FUNCTION finevoice.fuzz_slowly()""",
    "ALTER TABLE finevoice.effects DISABLE TRIGGER slowly",
)
"""To give a slot takes time, where several act at once: so they meet in the middle of it."""

SLOWER = "ALTER TABLE finevoice.effects ENABLE TRIGGER slowly"
FASTER = "ALTER TABLE finevoice.effects DISABLE TRIGGER slowly"
CUT = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
NOT_SLOW = "DROP FUNCTION finevoice.fuzz_slowly() CASCADE"

deeds = st.tuples(st.integers(0, 1000), st.integers(0, 1000))
lost_answers = st.sampled_from([0] * 7 + [1])


class StoreMachine(RuleBasedStateMachine):
    """Plays sessions that begin, send, hear, doubt, die, sleep, leave and clean up; all is checked at each step."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self.connection = psycopg.connect(url, autocommit=True)
        self.key = f"fv-fuzz-{secrets.token_hex(8)}"
        self.account, self.other_account = account_of(self.key), account_of(f"{self.key}-other")
        self.runner = asyncio.Runner()
        self.clock = AheadClock()
        self.money = Money()
        self.players: list[Player] = []
        self.freed: set[int] = set()  # rows that run and were given up
        self.budget: Budget | None = None
        self.bystander: Player | None = None
        self.last: table.Table | None = None  # the tables after the last step
        self.is_broken = False  # a step has begun and not come to its end

    def do(self, job: Any) -> Any:
        """Run something on the machine's own loop."""
        return self.runner.run(job)

    def look(self) -> table.Table:
        """Read the tables."""
        self.last = table.read(self.connection, self.account, self.other_account)
        return self.last

    def seen(self) -> table.Table:
        """Return the tables as they were after the last step: nobody does anything in between."""
        return self.look() if self.last is None else self.last

    @initialize(plans=st.lists(st.integers(1, 3), min_size=2, max_size=3), budget=st.sampled_from([None, None, 4]))
    def begin(self, plans: list[int], budget: int | None) -> None:
        """Let sessions join, and one of another key, which has the same effects under way."""
        self.budget = None if budget is None else Budget(effects=budget, per=DAY)
        for plan in plans:
            self.do(self.join_as(plan, adopts=True))
        self.do(self.stand_by())
        self.look()

    async def join_as(self, plan: int, *, adopts: bool) -> Player:
        """Let one more session join."""
        player = Player(self.url, self.clock, plan=plan, key=self.key, budget=self.budget, adopts=adopts)
        await player.start()
        self.players.append(player)
        return player

    async def stand_by(self) -> None:
        """Let one of another key join."""
        other = Player(self.url, AheadClock(), plan=9, key=f"{self.key}-other", budget=None, adopts=True)
        self.bystander = other
        await other.start()
        for key in ("one", "two", "three"):
            await other.wish(key)
        await other.submitted()

    # Steps

    def step(self, chosen: list[Deed], *, lost: int = 0, slowly: bool = False) -> list[Any]:
        """Let deeds be done, all at once, and check what came of them."""
        self.is_broken = True
        before = self.seen()
        for deed in chosen:
            note(deed.words)
            deed.player.line.lost = lost

        async def all_at_once() -> list[Any]:
            async with asyncio.timeout(20):
                results = await asyncio.gather(*[deed.job() for deed in chosen])
                for player in self.players:
                    await player.settle()
            return results

        if slowly:
            self.connection.execute(SLOWER)
        results: list[Any] = self.do(all_at_once())
        if slowly:
            self.connection.execute(FASTER)
        after = self.look()
        events = [event for deed, result in zip(chosen, results, strict=True) for event in deed.events(result)]
        self.money.take_in(events, before, after)
        began = {row_id for row_id in after.rows if row_id not in before.rows}
        self.check(
            before,
            after,
            actors={deed.player for deed in chosen},
            named={deed.row_id for deed in chosen if deed.row_id is not None} | began,
            swept=len(chosen) == 1 and chosen[0].words.endswith("sweeps"),
            occupied=sum(deed.occupied for deed in chosen),
            at_once=len(chosen) > 1,
        )
        wished = " wishes " in chosen[0].words  # asked again, it may call its own what was left by somebody
        if len(chosen) == 1 and not (lost and wished):
            expected, result = chosen[0].expected, results[0]
            if callable(expected):
                expected(result)
            elif expected is not ...:
                assert result is expected, f"{chosen[0].words}: {result}"
        self.is_broken = False
        return results

    def check(self, before: table.Table, after: table.Table, **done: Any) -> None:
        """Check all promises after a step."""
        done = {name: frozenset(value) if isinstance(value, set) else value for name, value in done.items()}
        promises.check(before, after, promises.Step(tuple(self.players), **done), self.money, self.freed)
        if self.budget is not None:
            assert len(after.posts) <= self.budget.effects, "more was sent than the fleet may"

    def find(self, kind: int, number: int) -> Deed:
        """Return one of the deeds that can be done now."""
        deeds = Deeds(self.players, self.seen(), self.money, self.freed)
        kinds = [each for each in KINDS if deeds.find(each)]
        return self.pick(deeds, kinds[kind % len(kinds)], number)

    def pick(self, deeds: Deeds, kind: str, number: int) -> Deed:
        """Return one of a kind."""
        found = deeds.find(kind)
        return found[number % len(found)](random.Random(number))

    @rule(drawn=deeds, lost=lost_answers)
    def one(self, drawn: tuple[int, int], lost: int) -> None:
        """One does something, and hears of it, perhaps only at the second time."""
        self.step([self.find(*drawn)], lost=lost)

    @rule(drawn=st.lists(deeds, min_size=2, max_size=4))
    def race(self, drawn: list[tuple[int, int]]) -> None:
        """Several do something at the same time: also one session twice, and two with the same row."""
        chosen = [self.find(*each) for each in drawn]
        answered = [deed.answers for deed in chosen if deed.answers is not None]
        if len(set(answered)) == len(answered):
            self.step(chosen, slowly=True)

    @rule(numbers=st.lists(st.integers(0, 1000), min_size=MOST, max_size=MOST))
    def rush(self, numbers: list[int]) -> None:
        """All wish for something at the same time, perhaps for the same."""
        pairs = zip(self.players, numbers, strict=False)
        self.step(
            [
                self.pick(Deeds([player], self.seen(), self.money, self.freed), "wish", number)
                for player, number in pairs
            ],
            slowly=True,
        )

    @rule(number=st.integers(0, 10), how=st.sampled_from(["join", "join", "join", "leave", "die", "cut"]))
    def come_or_go(self, number: int, how: str) -> None:
        """One joins, leaves, dies, or loses its connection."""
        if how == "join":
            self.join(1 + number % 4, adopts=number < 8)
        elif how == "cut":
            self.cut(number)
        else:
            self.go(number, how)

    def join(self, plan: int, *, adopts: bool) -> None:
        """One more joins, which may know of another plan."""
        if len(self.players) < MOST:
            before = self.seen()
            player = self.do(self.join_as(plan, adopts=adopts))
            note(f"{player} joins with plan {plan}")
            self.check(before, self.look(), actors=set(), named=set())

    def go(self, number: int, how: str) -> None:
        """One leaves, or dies."""
        if len(self.players) > 1:
            player = self.players[number % len(self.players)]
            note(f"{player}: {how}")
            before = self.seen()
            self.do(player.aclose() if how == "leave" else self.die(player))
            self.money.died(player)
            actors = {player} if how == "leave" else set()
            self.check(before, self.look(), actors=actors, named=set())
            self.players.remove(player)

    async def die(self, player: Player) -> None:
        """Let one die, and wait until the server has heard that its connection is gone."""
        query, me = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s", player.me
        await player.die()
        async with asyncio.timeout(5):
            while self.connection.execute(query, (me,)).fetchone() != (0,):  # noqa: ASYNC110 - a server's tells nobody
                await asyncio.sleep(0.001)

    def cut(self, number: int) -> None:
        """The connection is lost that says that a session lives: it comes back as another one, with all its rows."""
        player = self.players[number % len(self.players)]
        note(f"{player} is cut off")
        before, former = self.seen(), player.me
        self.connection.execute("SELECT pg_terminate_backend(%s)", (player.backend,))
        self.do(player.come_back(former))
        after = self.look()
        self.check(before, after, actors={player}, named=set())
        if former in before.seats:
            for row_id, row in before.rows.items():
                if row.session == former:
                    assert after.rows[row_id].session == player.me, "what was its own is not"
                    assert after.rows[row_id].state is row.state

    @rule(seconds=st.sampled_from([10, 25, 45, 100]), silent=st.sets(st.integers(0, MOST)))
    def let_pass(self, seconds: int, silent: set[int]) -> None:
        """Time passes, in which some say nothing."""
        quiet = [player for number, player in enumerate(self.players) if number in silent]
        note(f"{seconds} s pass; {quiet} are silent")
        before = self.seen()
        seats = [seat for seat in before.seats if promises.owner(self.players, seat) in (None, *quiet)]
        table.let_pass(self.connection, self.account, timedelta(seconds=seconds), seats)
        self.clock.ahead += seconds
        for player in self.players:
            if player not in quiet:
                player.saw_itself(seconds)
        self.check(before, self.look(), actors=set(), named=set(before.rows), shifted=seconds)

    @rule(number=st.integers(0, 10))
    def overtake(self, number: int) -> None:
        """One is silent while its POST is in the air, and another sends its row again; the answer may still come."""
        posts = self.money.in_air()
        if not posts or len(self.players) == 1:
            return
        post = posts[number % len(posts)]
        other = next(player for player in self.players if player is not post.sender)
        self.let_pass(100, {self.players.index(post.sender)})
        for kind in ("sweep", "take", "sweep", "resend"):
            deeds = Deeds(self.players, self.seen(), self.money, self.freed).find(kind)
            for deed in (each(random.Random(number)) for each in deeds):
                if deed.player is other and deed.row_id in (None, post.row_id):
                    self.step([deed])
                    break

    @rule()
    def others_go_on(self) -> None:
        """The session of another key does something of its own."""
        assert self.bystander is not None
        before = self.seen()
        self.do(self.bystander.submitted(None) if before.other.count("submitted") < 2 else self.bystander.beat_once())
        after = self.look()
        assert (after.rows, after.seats.keys(), after.posts) == (before.rows, before.seats.keys(), before.posts)

    # The end

    def teardown(self) -> None:
        """Let all that is old be cleaned up: then everything goes on by itself, and nothing is stuck."""
        try:
            if self.players and self.bystander is not None and not self.is_broken:
                self.wind_up()
        finally:
            self.do(self.give_up())
            self.runner.close()
            self.connection.close()

    def wind_up(self) -> None:
        """One session is left, long after; what runs ends, what waits is sent, until nothing is left to do."""
        while len(self.players) > 1:
            self.go(1, "die")
        (last,) = self.players
        for post in self.money.in_air():
            post.fate = "doubt"
        self.let_pass(2 * int(LEASE), {0})
        last._adopts = True
        for number in itertools.count():
            self.step([self.pick(Deeds([last], self.seen(), self.money, self.freed), "sweep", 0)])
            now = self.look()
            states = {row.state for row in now.rows.values()}
            assert EffectState.SENDING not in states or last.me in [row.session for row in now.rows.values()]
            for row in now.rows.values():
                if row.state is EffectState.SUBMITTED:
                    assert row.session == last.me, f"nobody asks for {row}"
                assert row.session in (None, last.me), f"{row} belongs to nobody who lives"
            if EffectState.SUBMITTED not in states:
                break
            assert number < 100, "it does not end"
            self.step([self.pick(Deeds([last], now, self.money, self.freed), "end", 0)])

    async def give_up(self) -> None:
        """Close what is open."""
        for player in [*self.players, self.bystander]:
            if player is not None:
                await player.aclose()


@pytest.mark.skipif(not EXAMPLES, reason="a game takes a second or more; FINEVOICE_GAMES says how many to play")
@pytest.mark.timeout(7200)
def test_no_game_breaks_a_promise(url: str) -> None:
    """No promise of the store is broken in any game, and the shortest game that shows what went wrong is told."""
    options = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,  # the second would be shrunk, too, for minutes
    )

    class Machine(StoreMachine):
        """Plays in the test's database."""

        def __init__(self) -> None:
            super().__init__(url)

    for statement in SLOW:
        sql(url, statement)
    try:
        run_state_machine_as_test(Machine, settings=options)
    finally:
        sql(url, CUT)  # what was interrupted has locks
        sql(url, NOT_SLOW)
