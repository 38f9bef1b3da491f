"""Traces and metrics of a session, for OpenTelemetry: `pip install finevoice-async[otel]`.

::

    observer = OpenTelemetryObserver()  # with the global providers
    async with FineVoiceSession(observer=observer) as session:
        ...

The names are those of the semantic conventions for generative AI, in their own repository (semantic-conventions-genai),
as of October 2026; they are in development there, and may change here with them. They are written out here, for the
package that has them as constants is older: it knows `gen_ai.client.inference.duration` as
`gen_ai.client.operation.duration`. What is FineVoice's own begins with `finevoice.`.
"""

from __future__ import annotations

import json
import threading
import weakref
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import attrs
from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from finevoice_async.core.text import shorten
from finevoice_async.errors import ConfigurationError, FineVoiceError
from finevoice_async.events import (
    Braked,
    Ended,
    Event,
    Polled,
    Queued,
    Refused,
    Saved,
    SfxEvent,
    Submitted,
    Throttled,
    Unknown,
)

HELD_FOR: Final = 60.0
"""Seconds that the span of an effect that was made waits for its result to be saved. The first event after that ends
the span, as of when the effect was made: one that is only read, streamed or linked to is never saved."""

MOST_HELD: Final = 1000
"""Spans that wait so, at most: of more the oldest is ended."""

OPERATION: Final = "generate_content"
ALWAYS: Final = {"gen_ai.operation.name": OPERATION, "gen_ai.provider.name": "finevoice"}

DURATIONS: Final = (1, 2, 5, 10, 20, 40, 80, 160, 320, 640)
"""Seconds: bounds of the buckets for effects. Those of the conventions, 0.01 to 81.92, are made for text."""

MOMENTS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
"""Seconds: bounds of the buckets for lags and downloads."""

_NANO: Final = 1_000_000_000


@attrs.define(eq=False)
class _Story:
    """What is known of an effect until its span ends.

    Attributes:
        span: Its span.
        began: When that began, in seconds of the session's clock.
        epoch: The same in nanoseconds of the world's.
        waits: It has not been accepted yet.
        submitted: This session has submitted it.
        ended: When its task ended with a result, in seconds of the session's clock; None before.
    """

    span: Span
    began: float
    epoch: int
    waits: bool
    submitted: bool = False
    ended: float | None = None

    def nanoseconds(self, at: float) -> int:
        """Return a time of the session's clock as OpenTelemetry wants it."""
        return self.epoch + round((at - self.began) * _NANO)


class OpenTelemetryObserver:
    """One span an effect, from wished to saved, and metrics. Sessions may share it.

    The span's parent is whatever is current where the effect is wished for; where an earlier session has wished for it,
    there is none. A submission and a download are its child spans, `finevoice.submit` and `finevoice.download`; polls,
    429s and lost answers are its events. An effect that several ask for with one key has one span, of the first.

    A span ends when its effect is saved or acknowledged, at the latest a minute after it was made; call
    `observer.close()` before the providers are shut down. (The first event after that minute ends it. No more than
    1,000 wait so.)

    What fails has the error's message, which is for the operator, as its status, and the error as an event; it may
    quote the service's answer.

    Metrics: `finevoice.effects.queued` and `finevoice.effects.in_flight`; `finevoice.submissions` by
    `finevoice.outcome` (accepted, refused, unknown, throttled); `finevoice.effect.lag`, the seconds by which ends are
    noticed late at most; `finevoice.download.duration`; `gen_ai.client.inference.duration` from submission to end, only
    in the session that has submitted it.

    An `error.type` is the name of this library's error.
    """

    def __init__(
        self,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
        *,
        prompts: bool = False,
    ) -> None:
        """Set it up.

        Args:
            tracer_provider: Makes the spans; left out, the global one.
            meter_provider: Takes the metrics; left out, the global one.
            prompts: Put what was asked for into the spans: that is what your users typed.

        Raises:
            ConfigurationError: A provider is none.
        """
        _check("tracer_provider", tracer_provider, trace.TracerProvider)
        _check("meter_provider", meter_provider, metrics.MeterProvider)
        name, number = "finevoice_async", _version()
        self._tracer = trace.get_tracer(name, number, tracer_provider)
        meter = metrics.get_meter(name, number, meter_provider)
        self._prompts = prompts
        self._queued = meter.create_up_down_counter("finevoice.effects.queued", "{effect}", "Effects not accepted yet")
        self._flying = meter.create_up_down_counter("finevoice.effects.in_flight", "{effect}", "Tasks not ended yet")
        self._outcomes = meter.create_counter("finevoice.submissions", "{submission}", "What came of submissions")

        def seconds(of: str, what: str, bounds: Sequence[float]) -> metrics.Histogram:
            return meter.create_histogram(of, "s", what, explicit_bucket_boundaries_advisory=bounds)

        self._lag = seconds("finevoice.effect.lag", "By how much the end of a task is noticed late, at most", MOMENTS)
        self._downloads = seconds("finevoice.download.duration", "How long saved results took to fetch", MOMENTS)
        self._durations = seconds("gen_ai.client.inference.duration", "From submission to the end", DURATIONS)
        self._steps: Mapping[type[Event], Any] = {
            Queued: self._on_queued,
            Submitted: self._on_submitted,
            Polled: self._on_polled,
            Ended: self._on_ended,
            Saved: self._on_saved,
            Refused: self._on_last_word,
            Unknown: self._on_last_word,
            Throttled: self._on_throttled,
        }
        # All mutable state:
        self._lock = threading.RLock()  # sessions in several threads may share it
        self._stories: dict[int, _Story] = {}  # of effects whose last word is not told
        self._held: dict[int, _Story] = {}  # of effects that have ended and may be saved, the earliest first
        self._at_exit = weakref.finalize(self, _end_all, self._held)

    def __repr__(self) -> str:
        return f"<OpenTelemetryObserver: {len(self._stories)} effects under way, {len(self._held)} not saved>"

    def close(self) -> None:
        """End the spans of effects that have ended and were not saved; the observer can be used on.

        Call it before you shut the providers down; else it is done at the program's exit.
        """
        with self._lock:
            _end_all(self._held)

    def on_event(self, event: SfxEvent) -> None:
        """Hear of a step."""
        with self._lock:
            if self._held:
                self._let_go(event.at - HELD_FOR)
            if not isinstance(event, Braked):  # what waits shows in the metrics, and why in the log
                self._steps[type(event)](event)

    def _let_go(self, before: float) -> None:
        """End the spans of those that ended before a time and were not saved since, and of the oldest of too many."""
        while self._held:
            effect, story = next(iter(self._held.items()))
            if len(self._held) <= MOST_HELD and story.ended is not None and story.ended >= before:
                return
            del self._held[effect]
            _end(story, story.ended)

    def _begin(self, event: Event, *, waits: bool, context: Context | None = None) -> _Story:
        attributes: dict[str, str | float] = {**ALWAYS, "gen_ai.output.type": "audio"}
        request = event.request
        if event.key is not None:
            attributes["finevoice.key"] = event.key
        if event.owner is not None:
            attributes["finevoice.owner"] = event.owner
        if event.task_id is not None:
            attributes["gen_ai.response.id"] = event.task_id
        if request is not None and request.duration is not None:
            attributes["finevoice.request.duration"] = request.duration
        if self._prompts and request is not None and request.prompt is not None:
            parts = [{"type": "text", "content": request.prompt}]
            attributes["gen_ai.input.messages"] = json.dumps([{"role": "user", "parts": parts}])
        epoch = round(event.timestamp * _NANO)
        span = self._tracer.start_span(OPERATION, context, SpanKind.CLIENT, attributes, start_time=epoch)
        story = self._stories[event.effect] = _Story(span, event.at, epoch, waits)
        (self._queued if waits else self._flying).add(1, ALWAYS)
        return story

    def _story(self, event: Event) -> _Story:
        """Return the story of an effect; of one that an earlier session wished for it begins here, as nobody's."""
        return self._stories.get(event.effect) or self._begin(event, waits=False, context=Context())

    # Steps

    def _on_queued(self, event: Queued) -> None:
        self._begin(event, waits=True)

    def _on_submitted(self, event: Submitted) -> None:
        story = self._story(event)
        if event.task_id is not None:
            story.span.set_attribute("gen_ai.response.id", event.task_id)
        story.submitted = True
        self._child(story, "finevoice.submit", event.at - event.seconds, event.at)
        self._outcomes.add(1, {**ALWAYS, "finevoice.outcome": "accepted"})
        if story.waits:
            story.waits = False
            self._queued.add(-1, ALWAYS)
            self._flying.add(1, ALWAYS)

    def _on_polled(self, event: Polled) -> None:
        story = self._story(event)
        status = "none" if event.status is None else event.status.value
        about: dict[str, str | float] = {"finevoice.status": status, "finevoice.seconds": event.seconds}
        story.span.add_event("finevoice.poll", about, story.nanoseconds(event.at))

    def _on_throttled(self, event: Throttled) -> None:
        story = self._story(event)
        about: dict[str, bool | float] = {"finevoice.polling": event.polling}
        if event.retry_after is not None:
            about["finevoice.retry_after"] = event.retry_after
        story.span.add_event("finevoice.throttled", about, story.nanoseconds(event.at))
        if not event.polling:
            self._outcomes.add(1, {**ALWAYS, "finevoice.outcome": "throttled"})

    def _on_last_word(self, event: Refused | Unknown) -> None:
        outcome = "refused" if isinstance(event, Refused) else "unknown"
        self._outcomes.add(1, {**ALWAYS, "finevoice.outcome": outcome})
        if isinstance(event, Unknown):
            story = self._story(event)
            about = {"error.type": type(event.error).__name__, "exception.message": str(event.error)}
            story.span.add_event(
                "finevoice.unknown", {**about, "finevoice.again": event.again}, story.nanoseconds(event.at)
            )
        if not (isinstance(event, Unknown) and event.again):
            _end(self._taken(event), event.at, event.error)

    def _on_ended(self, event: Ended) -> None:
        story = self._taken(event)
        kind = {} if event.error is None else {"error.type": type(event.error).__name__}
        if story.submitted and event.seconds is not None:  # in a fleet all that wait for it hear of its end
            self._durations.record(event.seconds, {**ALWAYS, **kind})
        if event.lag is not None:
            self._lag.record(event.lag, ALWAYS)
        if event.error is None and event.status.ended:
            story.ended = event.at
            self._held[event.effect] = story
            self._let_go(event.at - HELD_FOR)
        else:
            _end(story, event.at, event.error)

    def _taken(self, event: Event) -> _Story:
        """Return the story of an effect of which this is the last word."""
        story = self._story(event)
        del self._stories[event.effect]
        (self._queued if story.waits else self._flying).add(-1, ALWAYS)
        return story

    def _on_saved(self, event: Saved) -> None:
        if event.seconds is not None:
            self._downloads.record(event.seconds, ALWAYS)
        story = self._held.pop(event.effect, None)
        if story is not None:  # else it was saved before, or long after it had ended
            if event.seconds is not None:
                self._child(story, "finevoice.download", event.at - event.seconds, event.at, event.size)
            _end(story, event.at)

    def _child(self, story: _Story, name: str, began: float, ended: float, size: int | None = None) -> None:
        context = trace.set_span_in_context(story.span, Context())
        about = {} if size is None else {"finevoice.size": size}
        start = story.nanoseconds(began)
        self._tracer.start_span(name, context, SpanKind.CLIENT, about, start_time=start).end(story.nanoseconds(ended))


def _check(name: str, provider: object, kind: type[object]) -> None:
    if provider is not None and not isinstance(provider, kind):
        wanted = f"an OpenTelemetry {kind.__name__}, or None for the global one"
        raise ConfigurationError(f"{name} must be {wanted}; it is {shorten(provider)}.")


def _end(story: _Story, at: float | None, error: FineVoiceError | None = None) -> None:
    end = None if at is None else story.nanoseconds(at)
    if error is not None:
        cause = error.__cause__
        about = {} if cause is None else {"finevoice.cause": type(cause).__name__}
        story.span.record_exception(error, about, end)
        story.span.set_attribute("error.type", type(error).__name__)
        story.span.set_status(Status(StatusCode.ERROR, str(error)))
    story.span.end(end)


def _end_all(held: dict[int, _Story]) -> None:
    """End what was not saved, when it had ended; what still is under way goes on."""
    for effect in list(held):
        story = held.pop(effect)
        _end(story, story.ended)


def _version() -> str:
    try:
        return version("finevoice-async")
    except PackageNotFoundError:  # it runs from a source tree
        return ""
