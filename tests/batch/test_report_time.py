"""The time line: slots, pauses, and tasks of which no end is known."""

from __future__ import annotations

from datetime import timedelta

import pytest
from reports import at, ran

from finevoice_async.batch.report_data import TakeReport
from finevoice_async.batch.report_time import TimeLine, make_time_line
from finevoice_async.core.ledger import EffectState

HOUR = 3600.0


def line(*takes: TakeReport) -> TimeLine:
    """Return the time line of takes."""
    made = make_time_line([(f"e{number}", take) for number, take in enumerate(takes)])
    assert made is not None
    return made


def bars(made: TimeLine) -> list[tuple[str, int, float, float]]:
    """Return the bars: name, slot, where they begin and end, in thousandths."""
    return [(bar.name, bar.slot, round(bar.left * 1000), round((bar.left + bar.width) * 1000)) for bar in made.bars]


def test_nothing_is_known() -> None:
    """Without a time there is no line."""
    assert make_time_line([]) is None
    assert make_time_line([("a", TakeReport(state=EffectState.QUEUED, queued_at=at(0)))]) is None


def test_slots() -> None:
    """Tasks that overlap have slots of their own; one that begins later takes the slot that was free first."""
    made = line(ran(0, 50), ran(0, 30), ran(60, 100), ran(70, 100))
    assert bars(made) == [("e1", 0, 0, 300), ("e0", 1, 0, 500), ("e2", 0, 600, 1000), ("e3", 1, 700, 1000)]
    assert made.slots == 2
    assert (made.began, made.ended, made.busy) == (at(0), at(100), timedelta(seconds=100))


def test_saving_takes_a_moment() -> None:
    """A task that begins while the one before is being saved has its slot, and that one's bar ends there."""
    made = line(ran(0, 50), ran(48, 100))
    assert bars(made) == [("e0", 0, 0, 480), ("e1", 0, 480, 1000)]
    assert made.slots == 1
    assert line(ran(0, 50), ran(40, 100)).slots == 2
    assert line(ran(0, 4), ran(1, 8)).slots == 2  # of a short task not more than half


def test_a_full_plan_stays_within_it() -> None:
    """Five slots that are always full are five rows."""
    takes = [ran(start * 10 + slot, start * 10 + slot + 10.3) for start in range(50) for slot in range(5)]
    assert line(*takes).slots == 5


def test_pauses() -> None:
    """Hours between two runs are drawn as a short pause, minutes within a run as they are."""
    made = line(ran(0, 100), ran(8 * HOUR, 8 * HOUR + 100))
    (pause,) = made.pauses
    assert pause.length == timedelta(hours=8, seconds=-100)
    assert pause.width == pytest.approx(0.03)
    assert bars(made) == [("e0", 0, 0, 485), ("e1", 0, 515, 1000)]
    assert made.busy == timedelta(seconds=200)
    assert line(ran(0, 100), ran(200, 300)).pauses == []


def test_many_pauses() -> None:
    """However often somebody went on, there is room for the work: only the longest pauses are cut out."""
    made = line(*(ran(day * 24 * HOUR + day * HOUR, day * 24 * HOUR + day * HOUR + 60) for day in range(40)))
    assert len(made.pauses) <= 12
    assert all(0 <= bar.left <= bar.left + bar.width <= 1.000001 for bar in made.bars)


def test_no_end_is_known() -> None:
    """What a run left behind is drawn to that run's end, not through the night."""
    made = line(
        ran(0, 100), ran(50, None, EffectState.SUBMITTED), ran(8 * HOUR, 8 * HOUR + 100), ran(8 * HOUR + 50, None)
    )
    assert [(name, begin, end) for name, _, begin, end in bars(made)] == [
        ("e0", 0, 485), ("e1", 242, 485), ("e2", 515, 1000), ("e3", 758, 1000),
    ]  # fmt: skip
    assert made.bars[1].ended is None
    assert line(ran(0, None)).bars[0].width == 0


def test_no_time_passed() -> None:
    """A line of a single moment is one."""
    made = line(ran(0, 0), ran(0, 0))
    assert made.slots >= 1
    assert made.busy == timedelta(0)
    assert made.bars[0].left == 0


def test_clocks_that_go_back() -> None:
    """A task that ended before it began takes no time, and harms nobody."""
    assert [(begin, end) for *_, begin, end in bars(line(ran(10, 0), ran(10, 20)))] == [(0, 0), (0, 1000)]


def test_how_many_are_done() -> None:
    """The curve rises with each end, to the share of all that has ended."""
    assert line(ran(0, 50), ran(0, 100), ran(0, 100), ran(0, None)).done == [
        (0.0, 0.0), (0.5, 0.25), (1.0, 0.5), (1.0, 0.75),
    ]  # fmt: skip
    many = line(*(ran(i, i + 1) for i in range(3000)))
    assert len(many.done) <= 502
    assert many.done[-1] == (1.0, 1.0)
