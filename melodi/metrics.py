"""What MELODI tells Prometheus about itself and what it measured."""

import time
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

import melodi
from melodi.clock import NS_PER_SECOND
from melodi.ledger_metrics import LedgerMetrics
from melodi.logs import lines_lost
from melodi.request_metrics import SHORT_SECONDS, RequestMetrics


class Metrics:
    """The metrics of one daemon, in a registry of its own; safe to use from several threads."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = RequestMetrics(registry)
        self.ledger = LedgerMetrics(registry)
        self._lateness = Histogram(
            "melodi_sampler_lateness_seconds",
            "How late the sampler's beats were",
            buckets=SHORT_SECONDS,
            registry=registry,
        )
        self._missed = Counter(
            "melodi_sampler_missed_ticks", "Beats that the sampler skipped", registry=registry
        )
        self._collector_up = Gauge(
            "melodi_collector_up",
            "1 where the collector can be read",
            ["collector"],
            registry=registry,
        )
        self._ready = Gauge(
            "melodi_ready",
            "1 where the daemon measures and stores; /readyz says what is wrong where it does not",
            registry=registry,
        )
        self._collector_period = Gauge(
            "melodi_collector_period_seconds",
            "Time between two reads of the collector; doubled where it is slow",
            ["collector"],
            registry=registry,
        )
        self._spooled = Gauge(
            "melodi_spool_records",
            "Requests that have begun and have no row in the database yet",
            registry=registry,
        )
        Info("melodi_build", "Which version runs", registry=registry).info(
            {"version": melodi.__version__}
        )
        self._own_cost = _Self()
        registry.register(self._own_cost)

    def know_collector(
        self, name: str, *, is_up: Callable[[], bool], period_ns: Callable[[], int]
    ) -> None:
        """Tell how a collector is to be asked for its state, which is read with the metrics."""
        self._collector_up.labels(name).set_function(lambda: float(is_up()))
        self._collector_period.labels(name).set_function(lambda: period_ns() / NS_PER_SECOND)

    def know_own_cost(
        self, cpu_seconds: Callable[[], float], joules: Callable[[], Mapping[str, float]]
    ) -> None:
        """Tell how MELODI's own cost is to be asked for: CPU time, and joules by domain."""
        self._own_cost.cpu_seconds, self._own_cost.joules = cpu_seconds, joules

    def know_log(self, lines_lost: Callable[[], int]) -> None:
        """Tell how the log of all processes is to be asked for the lines that it lost."""
        self._own_cost.lines_lost = lines_lost

    def forget_collector(self, name: str) -> None:
        """Say no more of a collector that is read no more."""
        self._collector_up.remove(name)
        self._collector_period.remove(name)

    def know_readiness(self, is_ready: Callable[[], bool]) -> None:
        """Tell how the daemon is to be asked whether it measures and stores."""
        self._ready.set_function(lambda: float(is_ready()))

    def spooled(self, records: int) -> None:
        """Tell how many requests have no row in the database yet."""
        self._spooled.set(records)

    def sampler_beat(self, late_ns: int, missed: int) -> None:
        """Count one beat of the sampler and those it skipped before."""
        self._lateness.observe(late_ns / NS_PER_SECOND)
        self._missed.inc(missed)


class _Self(Collector):
    """Reads what MELODI has used and lost when it is asked."""

    def __init__(self) -> None:
        self.cpu_seconds: Callable[[], float] = time.process_time
        self.joules: Callable[[], Mapping[str, float]] = dict
        self.lines_lost: Callable[[], int] = lines_lost

    def collect(self) -> Iterator[Metric]:
        cpu = CounterMetricFamily(
            "melodi_self_cpu_seconds",
            "CPU time of MELODI's own processes: daemon, gateways, and meters where they have one",
        )
        cpu.add_metric([], self.cpu_seconds())
        yield cpu
        joules = CounterMetricFamily(
            "melodi_self_joules",
            "Estimate: MELODI's share, by CPU time, of what a CPU domain used above idle",
            labels=["domain"],
        )
        for domain, used in self.joules().items():
            joules.add_metric([domain], used)
        yield joules
        lost = CounterMetricFamily(
            "melodi_log_lines_lost", "Lines of the log that nobody took from stderr in time"
        )
        lost.add_metric([], self.lines_lost())
        yield lost
