"""Spans and metrics of a session, by OpenTelemetry's own in-memory exporters."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from finevoice_async import FineVoiceError, FineVoiceSession
from finevoice_async.emulator import Emulator
from finevoice_async.telemetry import OpenTelemetryObserver

Connect = Callable[..., FineVoiceSession]


class Exported:
    """An observer, and what it exports."""

    def __init__(self, *, prompts: bool = False) -> None:
        self.memory, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.memory))
        self.observer = OpenTelemetryObserver(self.tracers, MeterProvider([self.reader]), prompts=prompts)

    def spans(self, name: str) -> list[ReadableSpan]:
        """Return the finished spans of a name."""
        return [span for span in self.memory.get_finished_spans() if span.name == name]

    def points(self) -> dict[str, list[Any]]:
        """Return the points of each metric."""
        data = json.loads(self.reader.get_metrics_data().to_json())  # type: ignore[union-attr]  # there is some
        scopes = [scope for resource in data["resource_metrics"] for scope in resource["scope_metrics"]]
        return {metric["name"]: metric["data"]["data_points"] for scope in scopes for metric in scope["metrics"]}

    def everything(self) -> str:
        """Return all that was exported, as text."""
        return json.dumps(self.points()) + "".join(span.to_json() for span in self.memory.get_finished_spans())


async def test_spans_have_the_callers_parents(connect: Connect, tmp_path: Path, emulator: Emulator) -> None:
    """Two callers at once: each effect's span is its caller's child, with submission and download below it."""
    exported = Exported()
    tracer = exported.tracers.get_tracer("callers")
    urls: list[str] = []

    async def visit(session: FineVoiceSession, name: str) -> None:
        with tracer.start_as_current_span(name):
            effect = await session.generate(f"secret {name}", key=name)
            urls.append(effect.url)
            await effect.save(tmp_path / f"{name}.wav")

    async with connect(observer=exported.observer) as session:
        await asyncio.gather(visit(session, "a"), visit(session, "b"))
    effects = exported.spans("generate_content")
    assert len(effects) == 2
    for span in effects:
        assert span.attributes is not None
        (caller,) = exported.spans(str(span.attributes["finevoice.key"]))
        assert span.parent is not None
        assert span.parent.span_id == caller.context.span_id
        assert span.attributes["gen_ai.provider.name"] == "finevoice"
        assert {event.name for event in span.events} == {"finevoice.poll"}
        below = [child for child in exported.memory.get_finished_spans() if child.parent == span.context]
        assert sorted(child.name for child in below) == ["download", "submit"]
    told = exported.everything()
    assert not [secret for secret in (*urls, emulator.api_key, "secret") if secret in told]


async def test_metrics(connect: Connect, tmp_path: Path, emulator: Emulator) -> None:
    """Outcomes are counted, gauges return to 0, and durations are in seconds."""
    exported = Exported()
    emulator.inject("submit.reject")
    async with connect(observer=exported.observer) as session:
        with pytest.raises(FineVoiceError):
            await session.generate("rain")
        for name in ("a", "b"):
            await (await session.generate("rain")).save(tmp_path / name)
    points = exported.points()
    outcomes = {point["attributes"]["finevoice.outcome"]: point["value"] for point in points["finevoice.submissions"]}
    assert outcomes == {"refused": 1, "accepted": 2}
    for gauge in ("finevoice.effects.queued", "finevoice.effects.in_flight"):
        assert [point["value"] for point in points[gauge]] == [0]
    for name in ("finevoice.effect.lag", "finevoice.download.duration", "gen_ai.client.inference.duration"):
        assert [point["count"] for point in points[name]] == [2]


async def test_prompts_if_asked_for_and_errors(connect: Connect, emulator: Emulator) -> None:
    """The prompt is exported if that was said; a failure is the span's error."""
    exported = Exported(prompts=True)
    emulator.inject("submit.reject")
    async with connect(observer=exported.observer) as session:
        with pytest.raises(FineVoiceError) as caught:
            await session.generate("heavy rain")
    (span,) = exported.spans("generate_content")
    assert span.attributes is not None
    assert "heavy rain" in str(span.attributes["gen_ai.input.messages"])
    assert span.attributes["error.type"] == type(caught.value).__name__
    assert not span.status.is_ok


async def test_what_is_not_saved_ends_with_its_task(connect: Connect) -> None:
    """The span of an effect that is only read is held back, and ended by `close` at the time of its end."""
    exported = Exported()
    async with connect(observer=exported.observer) as session:
        await (await session.generate("rain")).read()
    assert not exported.spans("generate_content")
    exported.observer.close()
    (span,) = exported.spans("generate_content")
    (poll,) = span.events[-1:]
    assert span.end_time == poll.timestamp
