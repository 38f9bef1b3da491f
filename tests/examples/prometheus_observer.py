"""A session's figures for Prometheus, in ten lines: FineVoiceSession(observer=PrometheusObserver())."""

from prometheus_client import Counter, Histogram

from finevoice_async import SfxEvent
from finevoice_async.events import Ended, Refused, Unknown

EVENTS = Counter("finevoice_events", "Steps of effects, by kind", ["kind"])
FAILURES = Counter("finevoice_failures", "What went wrong, by error", ["error"])
BUCKETS = (1, 2, 5, 10, 20, 40, 80, 160, 320, 640)
SECONDS = Histogram("finevoice_effect_seconds", "From submission to the end, of what was made", buckets=BUCKETS)


class PrometheusObserver:
    """Counts each kind of event and of failure, and how long effects took that were made."""

    def on_event(self, event: SfxEvent) -> None:
        """Hear."""
        EVENTS.labels(type(event).__name__.lower()).inc()
        if isinstance(event, Ended | Refused | Unknown) and event.error is not None:
            FAILURES.labels(type(event.error).__name__).inc()
        elif isinstance(event, Ended) and event.status.ended and event.seconds is not None:
            SECONDS.observe(event.seconds)
