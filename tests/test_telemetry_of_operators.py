"""What those who run dashboards need of the spans and metrics: bounds, errors in words, and buckets that fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from exported import Exported
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider

from finevoice_async import ConfigurationError, FineVoiceError, FineVoiceSession, SubmitUnknownError, TaskStatus
from finevoice_async.emulator import Emulator
from finevoice_async.events import About, Braked, Ended, Event, Queued, Saved, Submitted, Unknown
from finevoice_async.telemetry import DURATIONS, HELD_FOR, MOMENTS, MOST_HELD, OpenTelemetryObserver

Connect = Callable[..., FineVoiceSession]


def about(number: int) -> About:
    """Return what events of an effect are about."""
    return About(number, None, None, None, 0.0, 0.0)


def made(number: int, at: float) -> Ended:
    """Return the end of an effect that was made."""
    return Ended(about(number), "t", at, TaskStatus.COMPLETED, at, 0.0)


@pytest.mark.parametrize(
    "event",
    [
        Queued(about(2), None, 5.1 + HELD_FOR),
        Saved(about(1), "t", 5.1 + HELD_FOR, "/a", "0", 9, 1.0),
        Braked(about(0), None, 5.1 + HELD_FOR, "rate"),
        made(2, 5.1 + HELD_FOR),
    ],
    ids=lambda event: type(event).__name__,
)
def test_a_minute_after_it_was_made(event: Any) -> None:
    """Any event more than a minute later ends the span, as of when its effect was made; a late save moves nothing."""
    exported = Exported()
    exported.observer.on_event(made(1, 5.0))
    assert not exported.spans("generate_content")
    exported.observer.on_event(event)
    (span,) = exported.spans("generate_content")
    assert span.end_time == 5 * 10**9
    assert not exported.spans("finevoice.download")


def test_saved_within_the_minute() -> None:
    """What is saved or acknowledged on the last second ends then."""
    for path in ("/a", None):
        exported = Exported()
        exported.observer.on_event(made(1, 5.0))
        exported.observer.on_event(Saved(about(1), "t", 5.0 + HELD_FOR, path))
        (span,) = exported.spans("generate_content")
        assert span.end_time == round((5 + HELD_FOR) * 10**9)


def test_many_that_are_only_read() -> None:
    """Of more than a thousand within a minute the oldest end, each as of when it was made; the rest are held."""
    exported = Exported()
    for number in range(MOST_HELD + 3):
        exported.observer.on_event(made(number, 1 + number / 1024))
    spans = exported.spans("generate_content")
    assert [span.end_time for span in spans] == [round((1 + number / 1024) * 10**9) for number in range(3)]
    assert repr(exported.observer) == f"<OpenTelemetryObserver: 0 effects under way, {MOST_HELD} not saved>"


def test_durations_are_of_who_submitted() -> None:
    """Two sessions of a fleet hear of one end: its duration is recorded once, by the one that submitted it."""
    follows, submits = Exported(), Exported()
    for exported in (follows, submits):
        exported.observer.on_event(Queued(about(1), None, 0.0))
    submits.observer.on_event(Submitted(about(1), "t", 1.0, 0.5, 0.5))
    for exported in (follows, submits):
        exported.observer.on_event(made(1, 9.0))
    (point,) = submits.points()["gen_ai.client.inference.duration"]
    assert (point["count"], point["sum"]) == (1, 9.0)
    assert "gen_ai.client.inference.duration" not in follows.points()
    assert [point["value"] for point in follows.points()["finevoice.effects.queued"]] == [0]


async def test_a_failure_says_what_happened(connect: Connect, emulator: Emulator) -> None:
    """A failed task's span has the error's own words, and the error as an event at its end."""
    exported = Exported()
    emulator.inject("task.fail")
    async with connect(observer=exported.observer) as session:
        with pytest.raises(FineVoiceError) as caught:
            await session.generate("rain")
    (span,) = exported.spans("generate_content")
    assert span.status.description == str(caught.value)
    assert caught.value.user_message not in str(span.status.description)
    (event,) = [event for event in span.events if event.name == "exception"]
    assert event.timestamp == span.end_time
    assert event.attributes is not None
    assert event.attributes["exception.message"] == str(caught.value)
    assert str(event.attributes["exception.type"]).endswith("TaskFailedError")


@pytest.mark.parametrize("again", [False, True])
def test_a_lost_answer(again: bool) -> None:
    """An answer that was lost is an event with its error, and it is the span's error if nothing follows."""
    exported = Exported()
    error = SubmitUnknownError("No answer came.")
    error.__cause__ = ConnectionResetError("gone")
    events: list[Event] = [Queued(about(1), None, 0.0), Unknown(about(1), None, 2.0, error, again)]
    for event in events + ([Submitted(about(1), "t", 3.0, 0.0, 1.0), made(1, 4.0)] if again else []):
        exported.observer.on_event(event)  # type: ignore[arg-type]  # they are of the union
    exported.observer.close()
    (span,) = exported.spans("generate_content")
    (lost,) = [event for event in span.events if event.name == "finevoice.unknown"]
    assert lost.timestamp == 2 * 10**9
    assert dict(lost.attributes or {}) == {
        "error.type": "SubmitUnknownError",
        "exception.message": "No answer came.",
        "finevoice.again": again,
    }
    causes = [(event.attributes or {})["finevoice.cause"] for event in span.events if event.name == "exception"]
    assert causes == ([] if again else ["ConnectionResetError"])
    assert span.status.description == (None if again else "No answer came.")


async def test_an_answer_lost_on_the_wire(connect: Connect, emulator: Emulator) -> None:
    """The same from a session: the operator reads the reason, and neither the key nor the prompt."""
    exported = Exported()
    emulator.inject("submit.error_500")
    async with connect(observer=exported.observer) as session:
        with pytest.raises(SubmitUnknownError) as caught:
            await session.generate("secret rain")
    (span,) = exported.spans("generate_content")
    assert span.status.description == str(caught.value)
    assert {"finevoice.unknown", "exception"} <= {event.name for event in span.events}
    assert not [secret for secret in (emulator.api_key, "secret rain") if secret in exported.everything()]


async def test_buckets(connect: Connect, tmp_path: Path) -> None:
    """Each histogram has bounds that suit what it measures."""
    exported = Exported()
    async with connect(observer=exported.observer) as session:
        await (await session.generate("rain")).save(tmp_path / "rain")
    points = exported.points()
    bounds = {
        name: tuple(found["explicit_bounds"]) for name, (found, *_) in points.items() if "explicit_bounds" in found
    }
    assert bounds == {
        "gen_ai.client.inference.duration": DURATIONS,
        "finevoice.effect.lag": MOMENTS,
        "finevoice.download.duration": MOMENTS,
    }
    assert DURATIONS == (1, 2, 5, 10, 20, 40, 80, 160, 320, 640)
    assert (MOMENTS[0], MOMENTS[-1]) == (0.05, 60)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (("x",), "tracer_provider must be an OpenTelemetry TracerProvider, or None for the global one; it is 'x'"),
        ((TracerProvider,), "tracer_provider must be"),
        ((MeterProvider(),), "tracer_provider must be"),
        ((None, "x"), "meter_provider must be an OpenTelemetry MeterProvider, or None for the global one; it is 'x'"),
        ((None, TracerProvider()), "meter_provider must be"),
    ],
)
def test_what_is_no_provider(wrong: tuple[Any, ...], words: str) -> None:
    """What cannot make spans or metrics is refused at once, with what is wanted."""
    with pytest.raises(ConfigurationError, match=words):
        OpenTelemetryObserver(*wrong)
