"""A session's figures for Prometheus, in ten lines: FineVoiceSession(observer=PrometheusObserver())."""

from prometheus_client import Counter, Histogram

from finevoice_async import SfxEvent
from finevoice_async.events import Ended

EVENTS = Counter("finevoice_events", "Steps of effects, by kind", ["kind"])
SECONDS = Histogram("finevoice_effect_seconds", "From submission to the end")


class PrometheusObserver:
    """Counts each kind of event, and how long effects took."""

    def on_event(self, event: SfxEvent) -> None:
        """Hear."""
        EVENTS.labels(type(event).__name__.lower()).inc()
        if isinstance(event, Ended) and event.seconds is not None:
            SECONDS.observe(event.seconds)
