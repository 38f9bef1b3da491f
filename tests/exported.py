"""An OpenTelemetry observer with exporters that keep what it exports."""

from __future__ import annotations

import json
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from finevoice_async.telemetry import OpenTelemetryObserver


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
