"""The time line of a run: which task had which slot when, and how many were done, as shares of the drawing's width.

A journal is often of several runs, hours or days apart. What lies between them is drawn as a short pause: else a
night's sleep would take all the room.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import attrs

from finevoice_async.batch.report_data import TakeReport
from finevoice_async.core.ledger import EffectState

_LEAST_PAUSE: Final = timedelta(minutes=2)
_PAUSE_SHARE: Final = 0.1  # of all the time in which something ran: a shorter gap is drawn as it is
_PAUSE_WIDTH: Final = 0.03  # of the drawing
_MOST_PAUSES: Final = 12  # more of them, the shorter ones, are drawn as they are
_SAVING: Final = timedelta(seconds=5)
"""What a journal calls the end is when the file was saved; the slot was free a moment before. A task that begins no
longer than this before another one's end may have had its slot."""
_MOST_POINTS: Final = 500

Span = tuple[datetime, datetime]


@attrs.frozen(kw_only=True)
class Bar:
    """A task in its slot.

    Attributes:
        slot: Which, from 0.
        left: Where it begins, of 1.
        width: How wide it is, of 1.
        state: What came of it.
        name: What the effect is called.
        began: When it was accepted.
        ended: When it ended; None if nobody knows.
    """

    slot: int
    left: float
    width: float
    state: EffectState
    name: str
    began: datetime
    ended: datetime | None


@attrs.frozen(kw_only=True)
class Pause:
    """Time in which nothing ran.

    Attributes:
        left: Where it begins, of 1.
        width: How wide it is drawn, of 1.
        length: How long it was.
    """

    left: float
    width: float
    length: timedelta


@attrs.frozen(kw_only=True)
class TimeLine:
    """What is drawn.

    Attributes:
        began: The first moment.
        ended: The last moment.
        busy: How long anything ran.
        slots: How many tasks ran at once at most.
        bars: The tasks.
        pauses: Where time is left out.
        done: How many of all had ended when: shares of the width and of the whole.
    """

    began: datetime
    ended: datetime
    busy: timedelta
    slots: int
    bars: Sequence[Bar]
    pauses: Sequence[Pause]
    done: Sequence[tuple[float, float]]


@attrs.frozen
class _Task:
    began: datetime
    ended: datetime  # or the last moment of its run
    take: TakeReport
    name: str


class _Axis:
    """Where a moment is drawn."""

    def __init__(self, busy: Sequence[Span]) -> None:
        lengths = [end - begin for begin, end in busy]
        total = sum(lengths, timedelta())
        room = 1 - _PAUSE_WIDTH * (len(busy) - 1)
        # A single moment that something took no time at all still has a place.
        widths = [room * (length / total) if total else room / len(busy) for length in lengths]
        self._knots: list[tuple[datetime, float]] = []  # moments and their places, in order
        at = 0.0
        for (begin, end), width in zip(busy, widths, strict=True):
            self._knots += [(begin, at), (end, at + width)]
            at += width + _PAUSE_WIDTH

    def __call__(self, moment: datetime) -> float:
        """Return the place of a moment, from 0 to 1."""
        for (begin, left), (end, right) in itertools.pairwise(self._knots):
            if moment <= end:
                return left if end == begin else left + (right - left) * max((moment - begin) / (end - begin), 0.0)
        return min(self._knots[-1][1], 1.0)


def make_time_line(takes: Sequence[tuple[str, TakeReport]]) -> TimeLine | None:
    """Return the time line of takes and the names of their effects; None if no time is known of any."""
    known = [
        _Task(take.submitted_at, max(take.ended_at or take.submitted_at, take.submitted_at), take, name)
        for name, take in takes
        if take.submitted_at is not None
    ]
    if not known:
        return None
    tasks, busy = _placed_in_time(known)
    axis = _Axis(busy)
    slots, bars = _bars(tasks, axis)
    ends = sorted(task.ended for task in known if task.take.ended_at is not None)
    return TimeLine(
        began=busy[0][0],
        ended=busy[-1][1],
        busy=sum((end - begin for begin, end in busy), timedelta()),
        slots=slots,
        bars=bars,
        pauses=[
            Pause(left=axis(end), width=axis(begin) - axis(end), length=begin - end)
            for (_, end), (begin, _) in itertools.pairwise(busy)
        ],
        done=_curve([axis(end) for end in ends], len(known)),
    )


def _placed_in_time(known: Sequence[_Task]) -> tuple[list[_Task], list[Span]]:
    """Return the tasks in their order, and the spans in which anything ran.

    A task of which no end is known may have been left by a run of long ago: it is drawn to the end of that run.
    """
    tasks = sorted(known, key=lambda task: (task.began, task.ended))
    busy = _busy_spans(tasks)
    placed, at = [], 0
    for task in tasks:
        while task.began > busy[at][1]:
            at += 1
        is_open = task.take.ended_at is None
        placed.append(attrs.evolve(task, ended=busy[at][1]) if is_open else task)
    return placed, busy


def _busy_spans(tasks: Sequence[_Task]) -> list[Span]:
    """Return the spans in which anything ran, with short gaps between them closed."""
    spans: list[Span] = []
    for task in tasks:
        if spans and task.began <= spans[-1][1]:
            spans[-1] = spans[-1][0], max(spans[-1][1], task.ended)
        else:
            spans.append((task.began, task.ended))
    total = sum((end - begin for begin, end in spans), timedelta())
    gaps = sorted((begin - end for (_, end), (begin, _) in itertools.pairwise(spans)), reverse=True)
    least = max(_LEAST_PAUSE, total * _PAUSE_SHARE, *gaps[_MOST_PAUSES : _MOST_PAUSES + 1])
    joined = spans[:1]
    for begin, end in spans[1:]:
        if begin - joined[-1][1] > least:
            joined.append((begin, end))
        else:
            joined[-1] = joined[-1][0], end
    return joined


def _bars(tasks: Sequence[_Task], axis: _Axis) -> tuple[int, list[Bar]]:
    """Give each task the slot that is free for the longest time, a new one if none is."""
    free: list[int] = []
    running: list[tuple[datetime, int]] = []  # when a slot is free again
    slots, placed = 0, []
    cut: dict[int, tuple[int, datetime]] = {}  # by slot: its last task, which may end as the next begins
    ends = [task.ended for task in tasks]
    for number, task in enumerate(tasks):
        while running and running[0][0] - min(_SAVING, (running[0][0] - cut[running[0][1]][1]) / 2) <= task.began:
            free.append(heapq.heappop(running)[1])
        if free:
            slot = free.pop(0)
            before = cut[slot][0]
            ends[before] = min(ends[before], task.began)
        else:
            slot, slots = slots, slots + 1
        cut[slot] = number, task.began
        heapq.heappush(running, (task.ended, slot))
        placed.append(slot)
    bars = []
    for task, slot, end in zip(tasks, placed, ends, strict=True):
        left = axis(task.began)
        bars.append(
            Bar(
                slot=slot,
                left=left,
                width=max(axis(end) - left, 0.0),
                state=task.take.state,
                name=task.name,
                began=task.began,
                ended=task.take.ended_at,
            )
        )
    return slots, bars


def _curve(places: Sequence[float], total: int) -> list[tuple[float, float]]:
    """Return how many have ended at some places along the line."""
    step = max(len(places) // _MOST_POINTS, 1)
    points = [(place, (number + 1) / total) for number, place in enumerate(places)]
    return [(0.0, 0.0), *points[step - 1 :: step][:-1], *points[-1:]]
