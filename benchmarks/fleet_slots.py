"""Where the slots of a fleet under stress are, moment by moment: what works, and what the rules themselves keep taken.

A slot at any moment is one of these. *Work*: a task runs at the service. *Kept*: the rules keep it taken, and nobody
could do better by them:

- unknown: its row is in doubt, and keeps its slot for `hold`;
- dead: its row was being sent by a worker that was killed; it is called unknown only after the lease;
- paused: its row is a worker's that stands still. What that was sending is nobody else's before its lease is over, all
  the rest before half of it. Its task may run meanwhile, and is work then;
- down: the database does not answer, so that nothing may be sent, from its crash until it has recovered.

The rest is what the fleet loses: *busy* slots are a row's on its way to the service, or from its end to its row; *free*
slots are nobody's.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import time
from collections import Counter, defaultdict
from typing import Any, Final

import attrs
import psycopg

from finevoice_async.emulator import EmulatorThread

EVERY: Final = 0.1
"""Seconds between two looks."""

KEPT: Final = ("unknown", "dead", "paused", "down")
SHOWN: Final = ("work", *KEPT, "busy", "free")
COLOURS: Final = ("#4c9f70", "#c44e52", "#8c613c", "#dd8452", "#8da0cb", "#f0d264", "#e6e6e6")

_LOOK: Final = (
    "SELECT e.state, e.task_id, split_part(s.who, ':', 2) FROM finevoice.effects e "
    "LEFT JOIN finevoice.sessions s ON s.id = e.session WHERE e.place > clock_timestamp()"
)


@attrs.define(eq=False)
class Watch:
    """Looks at the slots while a stress runs, and adds up where they were.

    Attributes:
        url: The database.
        service: Whose tasks run.
        plan: How many slots there are.
        lease: The fleet's.
        seconds: Of slots, by what they were.
        looks: What was seen: when, and how many slots were what.
        kills: When workers were killed.
        pauses: When workers were paused.
        crashes: When the database was.
    """

    url: str
    service: EmulatorThread
    plan: int
    lease: float
    seconds: defaultdict[str, float] = attrs.field(factory=lambda: defaultdict(float))
    looks: list[tuple[float, Counter[str]]] = attrs.field(factory=list)
    kills: list[float] = attrs.field(factory=list)
    pauses: list[float] = attrs.field(factory=list)
    crashes: list[float] = attrs.field(factory=list)
    _still_since: dict[str, float] = attrs.field(factory=dict)  # paused or dead since, by process
    _dead: set[str] = attrs.field(factory=set)

    def stands_still(self, pid: int) -> None:
        """A process was paused."""
        self.pauses.append(time.monotonic())
        self._still_since.setdefault(str(pid), time.monotonic())

    def goes_on(self, pid: int) -> None:
        """It goes on."""
        self._still_since.pop(str(pid), None)

    def died(self, pid: int) -> None:
        """A process was killed."""
        self.kills.append(time.monotonic())
        self._still_since.setdefault(str(pid), time.monotonic())
        self._dead.add(str(pid))

    def crashed(self) -> None:
        """The database is about to crash."""
        self.crashes.append(time.monotonic())

    async def run(self) -> None:
        """Look until cancelled."""
        connection: psycopg.AsyncConnection[Any] | None = None
        last = time.monotonic()
        try:
            while True:
                await asyncio.sleep(EVERY)
                try:
                    async with asyncio.timeout(2.0):
                        if connection is None:
                            connection = await psycopg.AsyncConnection.connect(self.url, autocommit=True)
                        rows = await (await connection.execute(_LOOK)).fetchall()
                    found = self._found(rows)
                except (psycopg.Error, TimeoutError):
                    await _close(connection)
                    connection = None
                    found = Counter(work=self._running())
                    found["down"] = self.plan - found["work"]
                now = time.monotonic()
                for what, slots in found.items():
                    self.seconds[what] += slots * (now - last)
                self.looks.append((now, found))
                last = now
        finally:
            await _close(connection)

    def _found(self, rows: list[tuple[str, str | None, str | None]]) -> Counter[str]:
        now, work = time.monotonic(), self._running()
        found = Counter(work=work)
        for state, task_id, process in rows:
            task = None if task_id is None else self.service.ledger.find(task_id)
            if task is not None and now < task.ends_at:
                continue  # it works
            found[self._what(state, str(process), now)] += 1
        used = sum(found.values())
        if used > self.plan:  # accepted, and no row says so yet
            found["busy"] = max(found["busy"] - (used - self.plan), 0)
        found["free"] = max(self.plan - used, 0)
        return found

    def _what(self, state: str, process: str, now: float) -> str:
        if state in ("unknown", "lost"):
            return "unknown"
        still = now - self._still_since.get(process, now)
        if not 0 < still < (self.lease if state == "sending" else self.lease / 2):
            return "busy"
        if process not in self._dead:
            return "paused"
        return "dead" if state == "sending" else "busy"

    def _running(self) -> int:
        return self.service.ledger.running(time.monotonic())

    @property
    def kept(self) -> float:
        """Seconds of slots that the rules kept taken."""
        return sum(self.seconds[what] for what in KEPT)

    def show(self) -> None:
        """Print where the slots were."""
        whole = sum(self.seconds.values())
        parts = [f"{what} {self.seconds[what] / whole:.0%}" for what in SHOWN]
        print(f"  slots: {', '.join(parts)}")


async def _close(connection: psycopg.AsyncConnection[Any] | None) -> None:
    if connection is not None:
        with contextlib.suppress(psycopg.Error, OSError):
            await connection.close()


def draw(watches: dict[str, Watch], path: str) -> None:
    """Draw where the slots were, over the time, with what was done to the fleet."""
    pyplot = importlib.import_module("matplotlib.pyplot")
    figure, panes = pyplot.subplots(
        len(watches), 1, figsize=(11, 3 * len(watches)), layout="constrained", squeeze=False, sharey=True
    )
    for (name, watch), axes in zip(watches.items(), panes[:, 0], strict=True):
        start = watch.looks[0][0]
        times = [at - start for at, _ in watch.looks]
        parts = [[found[what] for _, found in watch.looks] for what in SHOWN]
        axes.stackplot(times, parts, labels=SHOWN, colors=COLOURS, step="post")
        for marks, mark, label in (
            (watch.kills, "v", "a worker is killed"),
            (watch.pauses, "|", "a worker is paused"),
            (watch.crashes, "X", "the database crashes"),
        ):
            if marks:
                axes.scatter(
                    [at - start for at in marks], [watch.plan + 0.3] * len(marks), marker=mark, s=22, label=label
                )
        axes.set(xlim=(0, times[-1]), ylim=(0, watch.plan + 0.7), ylabel="slots", title=name)
    panes[-1, 0].set_xlabel("seconds")
    handles, labels = panes[-1, 0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, ncols=5, loc="outside lower center")
    figure.savefig(path, dpi=110)
