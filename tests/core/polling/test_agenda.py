"""Due times, the choice among the overdue, and the budget of polls."""

from __future__ import annotations

import random

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finevoice_async.core.polling.agenda import SAMPLE, Agenda, PollBudget


@attrs.define(eq=False)
class Item:
    """Something due."""

    name: int
    due: float = float("inf")


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 100)), max_size=40), st.floats(0, 100))
def test_agenda_gives_each_due_item_once(changes: list[tuple[int, float]], now: float) -> None:
    """However often due times change, each item that is due is given once, and only if due."""
    items = [Item(name) for name in range(6)]
    agenda: Agenda[Item] = Agenda()
    for name, due in changes:
        agenda.add(items[name], due)
    last = dict(changes)
    agenda.ripen(now)
    picked = []
    while (item := agenda.first()) is not None:
        picked.append(item.name)
    assert sorted(picked) == sorted(name for name, due in last.items() if due <= now)
    later = [due for due in last.values() if due > now]
    assert agenda.next_due() == (min(later) if later else None)


def test_likeliest_of_a_sample() -> None:
    """When the budget is short, the largest odds win."""
    agenda: Agenda[Item] = Agenda()
    for name in range(1000):
        agenda.add(Item(name), 0.0)
    agenda.ripen(1.0)
    rng = random.Random(1)
    first = [agenda.likeliest(lambda item: float(item.name), rng.randrange) for _ in range(200)]
    assert sum(item.name for item in first if item) / 200 > 850
    assert len(agenda.overdue) == 800


def test_small_overdue_sets_are_searched_whole() -> None:
    """Up to the sample's size, the best is found for certain; of nothing there is nothing."""
    agenda: Agenda[Item] = Agenda()
    assert agenda.likeliest(lambda _: 0.0, lambda _: 0) is None
    for name in range(SAMPLE):
        agenda.add(Item(name), 0.0)
    agenda.ripen(0.0)
    best = agenda.likeliest(lambda item: float(item.name), lambda _: 0)
    assert best is not None
    assert best.name == SAMPLE - 1


def test_first_in_turn() -> None:
    """While the budget suffices, who has been due longest is asked first."""
    agenda: Agenda[Item] = Agenda()
    for name in (3, 1, 2):
        agenda.add(Item(name), float(name))
    agenda.ripen(9.0)
    assert [item.name for item in (agenda.first(), agenda.first(), agenda.first()) if item] == [1, 2, 3]
    assert agenda.first() is None


def test_budget_lets_a_second_s_worth_through() -> None:
    """The bucket holds one second of polls and refills with time, never backwards."""
    budget = PollBudget(10.0)
    assert budget.available(0.0) == 10
    for _ in range(10):
        budget.spend()
    assert budget.available(0.0) == 0
    assert budget.ready_at(0.0) == pytest.approx(0.1)
    assert budget.available(0.55) == 5
    assert budget.available(0.1) == 5
    assert budget.available(1e6) == 10


def test_slow_budget_still_has_one() -> None:
    """A budget below one poll a second lets one through at a time."""
    budget = PollBudget(0.1)
    assert budget.available(0.0) == 1
    budget.spend()
    assert budget.ready_at(0.0) == pytest.approx(10.0)


def test_rate_limit_pauses_and_halves_then_recovers() -> None:
    """After a 429 nothing starts before its time; then the rate grows back with the answers."""
    budget = PollBudget(10.0)
    for _ in range(10):
        budget.available(0.0)
        budget.spend()
    budget.slow_down(5.0)
    budget.slow_down(4.0)
    assert budget.available(4.9) == 0
    assert budget.ready_at(1.0) == 5.0
    assert budget.available(5.0) == 10
    for _ in range(10):
        budget.spend()
    assert budget.available(6.0) == 5
    for _ in range(100):
        budget.answered()
    for _ in range(5):
        budget.spend()
    assert budget.available(7.0) == 10
