"""What MELODI tells Prometheus about requests.

Counted in plain numbers, and put into Prometheus' form when it asks: a request ends more often.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

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


class _Distribution:
    """Values by the bucket that they fall into."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def put(self, family: HistogramMetricFamily, *labels: str) -> None:
        """Tell it as one series of `family`."""
        bounds = (*map(floatToGoString, self._bounds), "+Inf")
        buckets = tuple(zip(bounds, accumulate(self._counts), strict=True))
        family.add_metric(labels, buckets, self._sum)


@dataclass(slots=True)
class _OfModel:
    """What is counted of a backend's model."""

    backend: str
    model: str
    ended: dict[str, int] = field(default_factory=dict)
    """Requests by status."""
    tokens: dict[str, int] = field(default_factory=dict)
    """Tokens by type; a type that was never told is not there."""
    first_token: _Distribution | None = None
    """None: no first token was seen yet."""
    joules: dict[str, _Distribution] = field(default_factory=dict)
    """Energy by quality."""


class RequestMetrics(Collector):
    """Counts requests as they end, in one thread, and their energy as it becomes final, in one."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._models: set[str] = set()
        self._counted: dict[tuple[str, str], _OfModel] = {}
        self._gateway_overhead = _Distribution(SHORT_SECONDS)
        registry.register(self)

    def ended(self, timeline: RequestTimeline) -> None:
        """Count a request that ended."""
        one = self._of(timeline.backend, timeline.model)
        status, tokens = timeline.status or "", one.tokens
        one.ended[status] = one.ended.get(status, 0) + 1
        if timeline.input_tokens is not None:
            tokens["input"] = tokens.get("input", 0) + timeline.input_tokens
        if timeline.output_tokens is not None:
            tokens["output"] = tokens.get("output", 0) + timeline.output_tokens
        if timeline.first_token_ns is not None:
            waited_ns = timeline.first_token_ns - timeline.sent_ns
            one.first_token = one.first_token or _Distribution(_FIRST_TOKEN_SECONDS)
            one.first_token.observe(waited_ns / NS_PER_SECOND)
        if timeline.overhead_ns is not None:
            self._gateway_overhead.observe(timeline.overhead_ns / NS_PER_SECOND)

    def final(self, record: EnergyRecord) -> None:
        """Count a final record's energy; one of unknown energy counts nowhere."""
        if record.energy_joules is None:
            return
        joules = self._of(record.backend, record.model).joules
        if record.quality not in joules:
            joules[record.quality] = _Distribution(_JOULES)
        joules[record.quality].observe(record.energy_joules)

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "melodi_requests", "Requests that ended", labels=("backend", "model", "status")
        )
        tokens = CounterMetricFamily(
            "melodi_tokens", "Tokens of requests that ended", labels=("backend", "model", "type")
        )
        energy = HistogramMetricFamily(
            "melodi_request_energy_joules",
            "Energy of one request, of final records",
            labels=("backend", "model", "quality"),
        )
        first_token = HistogramMetricFamily(
            "melodi_time_to_first_token_seconds",
            "From sending a request to its first token, queueing included",
            labels=("backend", "model"),
        )
        overhead = HistogramMetricFamily(
            "melodi_gateway_overhead_seconds",
            "What the gateway itself adds to a request that it records: from having it whole to "
            "having written it to the backend (a new connection included), and from the first "
            "byte of the answer to having sent its head on",
        )
        # Copies: other threads go on counting.
        for one in list(self._counted.values()):
            for status, count in list(one.ended.items()):
                requests.add_metric((one.backend, one.model, status), count)
            for kind, count in list(one.tokens.items()):
                tokens.add_metric((one.backend, one.model, kind), count)
            for quality, joules in list(one.joules.items()):
                joules.put(energy, one.backend, one.model, quality)
            if one.first_token is not None:
                one.first_token.put(first_token, one.backend, one.model)
        self._gateway_overhead.put(overhead)
        yield from (requests, tokens, energy, first_token, overhead)

    def _of(self, backend: str, name: str | None) -> _OfModel:
        """What is counted of a model; those beyond the first so many are one."""
        model = (name or "")[:MAX_LABEL_CHARS]
        found = self._counted.get((backend, model))
        return found or self._new(backend, model)

    def _new(self, backend: str, model: str) -> _OfModel:
        if model not in self._models and len(self._models) >= MAX_MODELS:
            model = OTHER
        self._models.add(model)
        return self._counted.setdefault((backend, model), _OfModel(backend, model))
