"""What an observer is told: one frozen event a step of an effect's life.

::

    Queued ──► Submitted ──► Polled ... ──► Ended ──► Saved
      ├──► Refused
      └──► Unknown

Every `Queued` is followed by exactly one last word on the effect in this session: `Ended`, `Refused`, or an `Unknown`
that is not `again`. An effect that another session wished for, and this one attached, begins with its first `Polled`.
`Throttled` comes between, `Braked` is about the session. In a fleet each session tells what it does itself: of an
effect that another one submits and asks for, there are `Queued` and the last word only; where it was attached, that
alone.

No event holds a key of the service's, or a link to a result. What was asked for is in `request`: its `repr` is one line
and has no key and no link to a result, but it shows the prompt, which is what your users typed, and a source's address
without password and query.

An effect has at least four of them, so there is little in each, and this library makes them with `thawed`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TypeVar

import attrs

from finevoice_async.core.requests import SfxRequest
from finevoice_async.core.tasks import TaskStatus
from finevoice_async.errors import FineVoiceError

E = TypeVar("E", bound="Event")


@attrs.define(eq=False)
class About:
    """Which effect events are about: one object for all of an effect's. Yours to read only.

    Attributes:
        effect: A number of the effect in this process; 0 if it is about no effect.
        key: Your own name for the effect, if it has one.
        owner: On whose behalf it was wished for, if you said so.
        request: What was asked for, if this session knows it.
        at: When this session first had to do with it, in seconds of its clock.
        timestamp: The same in seconds since 1970.
    """

    effect: int
    key: str | None
    owner: str | None
    request: SfxRequest | None
    at: float
    timestamp: float


@attrs.frozen
class Event:
    """What all events have: these, and of what they are `about` its `effect`, `key`, `owner` and `request`.

    Attributes:
        about: Which effect it is about: the same in all of its events.
        task_id: The service's id, once there is one.
        at: When, in seconds of the session's clock, which never runs backwards.
    """

    about: About
    task_id: str | None
    at: float

    @property
    def effect(self) -> int:
        """The number of the effect in this process; 0 if it is about no effect."""
        return self.about.effect

    @property
    def key(self) -> str | None:
        """Your own name for the effect, if it has one."""
        return self.about.key

    @property
    def owner(self) -> str | None:
        """On whose behalf it was wished for, if you said so."""
        return self.about.owner

    @property
    def request(self) -> SfxRequest | None:
        """What was asked for, if this session knows it."""
        return self.about.request

    @property
    def timestamp(self) -> float:
        """When, in seconds since 1970, as the effect's first step and the session's clock say."""
        return self.about.timestamp + self.at - self.about.at

    @property
    def when(self) -> datetime:
        """When, as a date."""
        return datetime.fromtimestamp(self.timestamp, UTC)


@attrs.frozen
class Queued(Event):
    """It was wished for. Told within the call of whoever wished for it, and so in that caller's context."""


@attrs.frozen
class Submitted(Event):
    """The service accepted it.

    Attributes:
        waited: Seconds from the wish until its request left.
        seconds: Seconds that the request took.
    """

    waited: float
    seconds: float


@attrs.frozen
class Polled(Event):
    """The service was asked how it is doing.

    Attributes:
        status: What it said; None if there was no usable answer.
        seconds: Seconds that the answer took.
        failure: Why there was none, in words.
    """

    status: TaskStatus | None
    seconds: float
    failure: str | None = None


@attrs.frozen
class Ended(Event):
    """Nothing more is to come of its task here: it has ended, or this session asks no more and it may run on.

    Attributes:
        status: Its last state; `status.ended` is False if it may run on.
        seconds: Seconds from its submission until now; None if nobody here knows when that was.
        lag: Seconds since the last answer that found it running: its end was noticed that late at most.
        error: What whoever waits for it is told, if there is no result.
    """

    status: TaskStatus
    seconds: float | None
    lag: float | None
    error: FineVoiceError | None = None


@attrs.frozen
class Saved(Event):
    """Its result is where its user wants it.

    Attributes:
        path: The file; None if you said so with `acknowledge`.
        sha256: The file's digest.
        size: Its bytes.
        seconds: Seconds that the download took, with all attempts.
    """

    path: str | None = None
    sha256: str | None = None
    size: int | None = None
    seconds: float | None = None


@attrs.frozen
class Refused(Event):
    """It will not be sent (any more) by this session, and certainly was not accepted.

    Attributes:
        error: What whoever waits for it is told.
    """

    error: FineVoiceError


@attrs.frozen
class Unknown(Event):
    """Nobody knows whether the service accepted it.

    Attributes:
        error: Why.
        again: It is sent again all the same, as the options say, so that this is not the last word.
    """

    error: FineVoiceError
    again: bool = False


@attrs.frozen
class Throttled(Event):
    """The service said that there are too many (429).

    Attributes:
        polling: It was said of a poll, and all polls wait; else of a submission, which waits.
        retry_after: Seconds that the service asks for, if it says so.
    """

    polling: bool
    retry_after: float | None = None


@attrs.frozen
class Braked(Event):
    """Submissions of the session leave one at a time, or not at all; or freely again.

    Attributes:
        cause: `rate`, `not sent`, `refused` or `unknown`; None: they leave freely again.
        why: The failure, in words.
    """

    cause: str | None
    why: str | None = None


def thawed(event: type[E]) -> type[E]:
    """Return a twin of an event's class, not frozen, whose instances are made three times as fast.

    A frozen class has to set each attribute by a call. Make an instance of the twin, and then set its `__class__`.
    """
    fields = {field.name: attrs.field(default=field.default) for field in attrs.fields(event)}
    plain = attrs.make_class("Plain", fields).__dict__["__init__"]  # it sets attributes, whosever they are
    of_any = {"__setattr__": object.__setattr__, "__delattr__": object.__delattr__}
    return type(event.__name__, (event,), {"__slots__": (), "__init__": plain, **of_any})


SfxEvent = Queued | Submitted | Polled | Ended | Saved | Refused | Unknown | Throttled | Braked
"""Any of the events."""
