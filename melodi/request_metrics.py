"""What MELODI tells Prometheus about requests."""

from typing import TypeVar, cast

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics import MetricWrapperBase

from melodi.clock import NS_PER_SECOND
from melodi.energy.record import EnergyRecord
from melodi.inference.timeline import RequestTimeline

MAX_LABEL_CHARS = 100
MAX_MODELS = 200
OTHER = "other"
"""Models beyond the first so many: clients choose the names, and each costs memory for good."""

SHORT_SECONDS = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1)
_JOULES = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1e3, 3e3, 1e4, 3e4, 1e5)
_FIRST_TOKEN_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)

_Kind = TypeVar("_Kind", bound=MetricWrapperBase)


class RequestMetrics:
    """Counts requests as they end, and their energy as it becomes final; from any thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._models: set[str] = set()
        self._labelled: dict[tuple[object, ...], MetricWrapperBase] = {}
        self._request_energy = Histogram(
            "melodi_request_energy_joules",
            "Energy of one request, of final records",
            ["backend", "model", "quality"],
            buckets=_JOULES,
            registry=registry,
        )
        self._requests = Counter(
            "melodi_requests",
            "Requests that ended",
            ["backend", "model", "status"],
            registry=registry,
        )
        self._tokens = Counter(
            "melodi_tokens",
            "Tokens of requests that ended",
            ["backend", "model", "type"],
            registry=registry,
        )
        self._first_token = Histogram(
            "melodi_time_to_first_token_seconds",
            "From sending a request to its first token, queueing included",
            ["backend", "model"],
            buckets=_FIRST_TOKEN_SECONDS,
            registry=registry,
        )
        self._gateway_overhead = Histogram(
            "melodi_gateway_overhead_seconds",
            "What the gateway itself adds to a request that it records: from having it whole to "
            "having written it to the backend (a new connection included), and from the first "
            "byte of the answer to having sent its head on",
            buckets=SHORT_SECONDS,
            registry=registry,
        )

    def ended(self, timeline: RequestTimeline) -> None:
        """Count a request that ended."""
        backend, model = timeline.backend, self._model(timeline.model)
        self._of(self._requests, backend, model, timeline.status or "").inc()
        if timeline.input_tokens is not None:
            self._of(self._tokens, backend, model, "input").inc(timeline.input_tokens)
        if timeline.output_tokens is not None:
            self._of(self._tokens, backend, model, "output").inc(timeline.output_tokens)
        if timeline.first_token_ns is not None:
            waited_ns = timeline.first_token_ns - timeline.sent_ns
            self._of(self._first_token, backend, model).observe(waited_ns / NS_PER_SECOND)
        if timeline.overhead_ns is not None:
            self._gateway_overhead.observe(timeline.overhead_ns / NS_PER_SECOND)

    def final(self, record: EnergyRecord) -> None:
        """Count a final record's energy; one of unknown energy counts nowhere."""
        if record.energy_joules is not None:
            labels = (record.backend, self._model(record.model), record.quality)
            self._of(self._request_energy, *labels).observe(record.energy_joules)

    def _of(self, metric: _Kind, *labels: str) -> _Kind:
        """The metric with these labels; looking it up in the metric costs five times as much."""
        key = (metric, *labels)
        found = self._labelled.get(key)
        if found is None:
            found = self._labelled[key] = metric.labels(*labels)
        return cast(_Kind, found)

    def _model(self, name: str | None) -> str:
        """The label of a model, from a bounded number of bounded words."""
        label = (name or "")[:MAX_LABEL_CHARS]
        if label in self._models:
            return label
        if len(self._models) >= MAX_MODELS:
            return OTHER
        self._models.add(label)
        return label
