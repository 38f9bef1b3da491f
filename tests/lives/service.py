"""The service that outlives every life: it accepts, loses, refuses and pretends, and keeps its own count."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Mapping
from typing import Final

import attrs
from lives.history import History

from finevoice_async.core.wire import Reply

REFUSALS: Final = (400, 401, 402, 403, 404, 413, 422, 429)
"""What says for certain that a submission was not accepted."""

DOUBTFUL: Final = (302, 408, 409, 500, 502, 503, 504)
HTML: Final = b"<html><title>Bad gateway</title></html>"


@attrs.define(eq=False)
class Made:
    """A submission that was accepted, and so is paid for.

    Attributes:
        prompt: Whose effect it is.
        id: What the service calls it; None for a result that came without one.
        since: When it began.
        until: When it ends.
        fails: Whether it ends without a result.
        link_from: When its link is there.
        hidden: From when to when the service answers 404.
        strict: The client has known that it runs for as long as any slot could have been taken.
        known_since: Since when the client knows that it runs; None if it does not.
        seen: It was shown to the client in this life.
        missing_since: When the first came of the 404s that have come in a row.
        given_up: The client may have taken it for lost, once.
    """

    prompt: str
    id: str | None
    since: float
    until: float
    fails: bool
    link_from: float
    hidden: tuple[float, float] = (0.0, 0.0)
    strict: bool = False
    known_since: float | None = None
    seen: bool = False
    missing_since: float | None = None
    given_up: bool = False

    @property
    def url(self) -> str:
        """Where the result lies."""
        return f"https://cdn.test/{self.prompt.replace(' ', '-')}/{self.since:.3f}.mp3"

    def runs(self, now: float) -> bool:
        """Tell whether it occupies a slot of the plan."""
        return self.since <= now < self.until

    def failed_at(self) -> float | None:
        """Return when it ends without a result; None if it does not."""
        return self.until if self.fails and self.until < math.inf else None


@attrs.define
class Weather:
    """How things go wrong: weights, drawn once a seed."""

    faults: dict[str, float]
    poll_faults: float
    failing: float
    endless: float
    hiding: float
    pace: float
    late_links: float
    plan_is_enforced: bool

    @classmethod
    def draw(cls, luck: random.Random) -> Weather:
        """Draw a climate: from calm to stormy, with a favourite fault or two."""
        storm = luck.choice([0.0, 0.3, 1.0, 3.0])
        faults = {name: weight * storm for name, weight in FAULTS.items()}
        for name in luck.sample(sorted(FAULTS), luck.choice([0, 1, 2])):
            faults[name] += 20
        return cls(
            {"accept": 60} | faults,
            poll_faults=luck.choice([0.0, 0.05, 0.3]),
            failing=luck.choice([0.0, 0.1, 0.4]),
            endless=luck.choice([0.0, 0.02, 0.15]),
            hiding=luck.choice([0.0, 0.1, 0.5]),
            pace=luck.choice([0.5, 4.0, 15.0]),
            late_links=luck.choice([0.0, 0.1]),
            plan_is_enforced=luck.random() < 0.4,
        )

    @classmethod
    def fair(cls) -> Weather:
        """Return the weather in which nothing goes wrong."""
        return cls({"accept": 1}, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, plan_is_enforced=False)


FAULTS: Final[dict[str, float]] = {
    "refuse": 6,
    "busy": 4,  # 429 for a while
    "doubt before": 3,  # 5xx and the like, not accepted
    "doubt after": 4,  # the same, accepted
    "lost before": 3,
    "lost after": 5,
    "silent before": 1,  # no answer at all
    "silent after": 1,
    "not sent": 4,
    "certificate": 1,
    "garbage after": 2,
    "cut with id": 2,
    "cut without id": 1,
    "result": 2,  # at once, without an id
    "result with id": 2,
    "failure": 1,  # 200, a failure inside, not accepted
    "failure with id": 1,
    "same id": 1,  # of an earlier task
}


class Service:
    """Accepts and tells; whoever carries its answers decides whether they arrive."""

    def __init__(self, luck: random.Random, history: History) -> None:
        self.luck = luck
        self.history = history
        self.weather = Weather.draw(luck)
        # All mutable state:
        self.plan = 1
        self.made: list[Made] = []  # every acceptance, which is a payment
        self.by_id: dict[str, Made] = {}  # the first with an id
        self.ids: Counter[str | None] = Counter()  # how often each was given
        self._busy_until = 0.0
        self._add_foreign(luck)

    def _add_foreign(self, luck: random.Random) -> None:
        """Other clients of the account have tasks, too, which somebody may attach to."""
        for number in range(luck.choice([0, 0, 3])):
            until = luck.choice([1010.0, 1060.0, 1600.0])
            made = Made("", f"foreign-{number}", 990.0, until, fails=False, link_from=until)
            self.made.append(made)
            self.by_id[made.id or ""] = made
            self.ids[made.id] += 1

    def draw(self) -> str:
        """Draw what will become of a submission."""
        names = list(self.weather.faults)
        return self.luck.choices(names, [self.weather.faults[name] for name in names])[0]

    def heal(self, now: float) -> None:
        """Let nothing go wrong any more: every task is visible, and ends."""
        self.weather = Weather.fair()
        self._busy_until = 0.0
        for made in self.made:
            made.hidden = (0.0, 0.0)
            made.until = min(made.until, now + 5)
            made.link_from = made.until

    def running(self, now: float) -> list[Made]:
        """Return what runs now; of several with one id only the first."""
        return [made for made in self.made if made.id is not None and self.by_id[made.id] is made and made.runs(now)]

    # Submissions

    def receive(self, prompt: str, fate: str, now: float) -> Reply:
        """Take a submission that has arrived, and return the answer."""
        if now < self._busy_until or (self.weather.plan_is_enforced and len(self.running(now)) >= self.plan):
            fate = "busy"
        if fate == "refuse":
            return self._say(self.luck.choice(REFUSALS[:-1]), {"error": {"code": "no", "message": "no"}})
        if fate == "busy":
            if now >= self._busy_until and self.luck.random() < 0.5:
                self._busy_until = now + self.luck.choice([0.0, 1.0, 5.0, 40.0])
            after = self.luck.choice([None, "1", "5", "30", "soon"])
            return self._say(429, {"message": "busy"}, {} if after is None else {"retry-after": after})
        if fate == "failure":
            return self._say(200, {"status": "failed", "error": {"code": "7", "message": "not this one"}})
        if fate == "doubt before":
            return Reply(self.luck.choice(DOUBTFUL), {}, HTML)
        made = self._accept(prompt, fate, now)
        return self._answer(made, fate)

    def _accept(self, prompt: str, fate: str, now: float) -> Made:
        luck, weather = self.luck, self.weather
        number = len(self.made) + 1
        seconds = math.inf if luck.random() < weather.endless else weather.pace * luck.lognormvariate(0, 0.7)
        made = Made(prompt, f"p1-{number:04d}", now, now + seconds, luck.random() < weather.failing, now + seconds)
        if luck.random() < weather.late_links:
            made.link_from += luck.choice([1.0, 20.0])
        if luck.random() < weather.hiding:
            begin = luck.choice([0.0, 0.0, seconds / 2 if seconds < math.inf else 10.0])
            made.hidden = (now + begin, now + begin + luck.choice([0.5, 3.0, 10.0, 100.0]))
        if fate == "result":
            made.id = None
        if fate in ("result", "result with id", "failure with id"):
            made.until = made.link_from = now
            made.fails = fate == "failure with id"
        if fate == "same id" and self.by_id:
            made.id = luck.choice(list(self.by_id))
        self.made.append(made)
        if made.id is not None:
            self.by_id.setdefault(made.id, made)
            self.ids[made.id] += 1
        self.history.note(f"   service: {prompt} accepted as {made.id} ({fate}), ends at {made.until:.3f}")
        return made

    def _answer(self, made: Made, fate: str) -> Reply:
        name = self.luck.choice(["task_id", "taskId"])
        if fate == "doubt after":
            return Reply(self.luck.choice(DOUBTFUL), {}, HTML)
        if fate == "garbage after":
            return Reply(200, {}, self.luck.choice([HTML, b"", b"[]", b'{"ok": true}']))
        if fate == "cut with id":
            return Reply(200, {}, f'{{"{name}": "{made.id}", "service": "sf'.encode(), whole=False)
        if fate == "cut without id":
            return Reply(200, {}, b'{"task_id": "p1-', whole=False)
        if fate == "result":
            return self._say(200, {"status": 200, "url": made.url})
        if fate == "result with id":
            return self._say(200, {"status": 200, "url": made.url, name: made.id})
        if fate == "failure with id":
            return self._say(200, {"status": "failed", "error": "too loud", name: made.id})
        return self._say(self.luck.choice([200, 201]), {name: made.id})

    # Polls

    def tell(self, task_id: str, now: float) -> Reply:
        """Say how a task is doing."""
        if self.luck.random() < self.weather.poll_faults:
            status = self.luck.choice([200, 400, 401, 404, 408, 429, 429, 500, 503])
            return Reply(status, {"retry-after": "1"} if self.luck.random() < 0.5 else {}, HTML)
        made = self.by_id.get(task_id)
        if made is None or made.hidden[0] <= now < made.hidden[1]:
            return self._say(404, {"detail": "no such task"})
        if made.runs(now):
            return self._say(200, self.luck.choice([{"status": 202}, {"status": "pending"}, {"status": "processing"}]))
        if made.fails:
            return self._say(200, {"status": "failed", "error": "too loud", "task_id": made.id})
        if now < made.link_from:
            return self._say(200, {"status": "completed"})
        return self._say(200, {"status": "completed", "url": made.url, "taskId": made.id})

    def _say(self, status: int, body: Mapping[str, object], headers: Mapping[str, str] | None = None) -> Reply:
        return Reply(status, headers or {}, json.dumps(body).encode())
