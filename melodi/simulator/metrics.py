"""What a vLLM server tells Prometheus about its engine."""

from collections.abc import Iterable
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from melodi.simulator.core import Core
from melodi.simulator.tally import STEP_TOKEN_EDGES, Totals

_LABELS = ("engine", "model_name")
_REASONS = {"stop": "stop", "length": "length", "cancelled": "abort"}


def exposition(core: Core, *, names: Iterable[str] = ()) -> bytes:
    """The engine's metrics now, in Prometheus' text format: all, or those of the `names`."""
    registry = CollectorRegistry(auto_describe=True)
    registry.register(_EngineMetrics(core.totals(), core.settings.models[0]))
    ProcessCollector(registry=registry)
    wanted = list(names)
    return generate_latest(registry.restricted_registry(wanted) if wanted else registry)


class _EngineMetrics(Collector):
    def __init__(self, totals: Totals, model: str):
        self._totals = totals
        self._labels = ("0", model)

    def collect(self) -> Iterable[Metric]:
        totals = self._totals
        yield self._gauge("num_requests_running", "Requests in service", totals.running)
        yield self._gauge("num_requests_waiting", "Requests in the queue", totals.waiting)
        yield self._counter("prompt_tokens", "Prompt tokens, cached ones too", totals.prompt_tokens)
        cached = totals.cached_tokens
        yield self._counter("prompt_tokens_cached", "Prompt tokens from the cache", cached)
        yield self._counter("generation_tokens", "Tokens generated", totals.output_tokens)
        yield self._finished()
        yield self._step_tokens()

    def _gauge(self, name: str, help_text: str, value: int) -> Metric:
        family = GaugeMetricFamily(f"vllm:{name}", help_text, labels=_LABELS)
        family.add_metric(self._labels, value)
        return family

    def _counter(self, name: str, help_text: str, value: int) -> Metric:
        family = CounterMetricFamily(f"vllm:{name}", help_text, labels=_LABELS)
        family.add_metric(self._labels, value)
        return family

    def _finished(self) -> Metric:
        labels = (*_LABELS, "finished_reason")
        family = CounterMetricFamily("vllm:request_success", "Requests ended", labels=labels)
        for reason, wording in _REASONS.items():
            family.add_metric((*self._labels, wording), self._totals.finished.get(reason, 0))
        return family

    def _step_tokens(self) -> Metric:
        name, help_text = "vllm:iteration_tokens_total", "Tokens per engine step"
        family = HistogramMetricFamily(name, help_text, labels=_LABELS)
        edges = [*(str(float(edge)) for edge in STEP_TOKEN_EDGES), "+Inf"]
        counts = accumulate(self._totals.step_token_counts)
        buckets = list(zip(edges, counts, strict=True))
        family.add_metric(self._labels, buckets, sum_value=self._totals.step_tokens)
        return family
