"""An observer that keeps what it hears, and two that are a plague."""

from __future__ import annotations

import contextvars
import time
from typing import TypeVar

from finevoice_async import SfxEvent
from finevoice_async.events import Ended, Event, Polled, Queued, Refused, Unknown

E = TypeVar("E", bound=Event)
request_of: contextvars.ContextVar[str] = contextvars.ContextVar("request_of", default="nobody")


class Diary:
    """Keeps what it hears, and in whose context."""

    def __init__(self) -> None:
        self.events: list[SfxEvent] = []
        self.contexts: list[str] = []

    def on_event(self, event: SfxEvent) -> None:
        """Hear."""
        self.events.append(event)
        self.contexts.append(request_of.get())

    @property
    def kinds(self) -> list[type[SfxEvent]]:
        """What was heard, but for polls."""
        return [type(event) for event in self.events if not isinstance(event, Polled)]

    def of(self, kind: type[E]) -> list[E]:
        """Return the events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def last_words(self) -> dict[int, int]:
        """Return how many last words there were, by effect; of all that were wished for."""
        count = {event.effect: 0 for event in self.of(Queued)}
        for event in self.events:
            if isinstance(event, Ended | Refused) or (isinstance(event, Unknown) and not event.again):
                count[event.effect] = count.get(event.effect, 0) + 1
        return count


class Faulty:
    """Fails at every event."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def on_event(self, event: SfxEvent) -> None:
        """Fail."""
        raise self.error


class Sluggish(Diary):
    """Takes its time in the loop."""

    def on_event(self, event: SfxEvent) -> None:
        """Hear, slowly."""
        time.sleep(0.001)
        super().on_event(event)
