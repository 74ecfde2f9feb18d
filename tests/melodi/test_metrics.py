"""What Prometheus is told."""

import math
from array import array

import pytest
from energy_records import make_record
from prometheus_client import CollectorRegistry

from collectors.base import Domain, Kind, Measure
from melodi.energy.accounts import MinuteAccounts
from melodi.energy.record import Quality, Status
from melodi.inference.timeline import RequestTimeline
from melodi.metrics import Metrics
from melodi.request_metrics import MAX_MODELS


@pytest.fixture
def registry() -> CollectorRegistry:
    """A registry of the test's own."""
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Metrics:
    """Metrics that know a package and the platform around it."""
    metrics = Metrics(registry)
    plain = {"scope": "s", "source": "rapl", "measure": Measure.COUNTER}
    metrics.ledger.know_domains(
        [
            Domain(name="package:0", kind=Kind.CPU, **plain),
            Domain(name="psys:0", kind=Kind.PLATFORM, summable=False, **plain),
        ]
    )
    return metrics


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    """One sample; None where it is not told."""
    return registry.get_sample_value(f"melodi_{name}", labels)


def test_joules_are_told_by_domain_and_by_account(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    """Each domain's joules count; a domain around others adds nothing to the accounts."""
    for name in ("package:0", "psys:0"):
        minute = MinuteAccounts(
            domain=name, minute=1, measured_joules=10.0, active_joules=6.0, idle_joules=3.0
        )
        metrics.ledger.add([minute])
    assert value(registry, "energy_joules_total", domain="package:0", kind="cpu") == 10.0
    assert value(registry, "energy_joules_total", domain="psys:0", kind="platform") == 10.0
    assert value(registry, "attributed_joules_total", account="active") == 6.0
    assert value(registry, "attributed_joules_total", account="idle") == 3.0
    assert value(registry, "ledger_residual_ratio") == pytest.approx(0.1)


def test_a_residual_of_nothing_measured_is_unknown_not_zero(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    """Before the first joule the ratio is NaN."""
    assert math.isnan(value(registry, "ledger_residual_ratio") or 0.0)


def test_what_rounding_leaves_below_zero_breaks_no_counter(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    """A tiny negative account is left out of the counter."""
    minute = MinuteAccounts(
        domain="package:0", minute=1, measured_joules=1.0, unattributed_joules=-1e-12
    )
    metrics.ledger.add([minute])
    assert value(registry, "attributed_joules_total", account="unattributed") == 0.0


def test_a_record_of_unknown_energy_is_in_no_histogram(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    """Only a known energy is observed; zero is known."""
    metrics.requests.final(make_record(energy_joules=None, quality=Quality.NONE))
    metrics.requests.final(make_record(energy_joules=0.0))
    labels = {"backend": "ollama", "model": "tiny"}
    name = "request_energy_joules_count"
    assert value(registry, name, **labels, quality="measured") == 1.0
    assert value(registry, name, **labels, quality="none") is None


def timeline(**changes: object) -> RequestTimeline:
    """A request that ended."""
    plain: dict[str, object] = {
        "id": "1",
        "backend": "b",
        "backend_kind": "vllm",
        "model": "m",
        "wall_ns": 0,
        "sent_ns": 1_000_000_000,
        "status": Status.OK,
        "chunk_ns": array("q"),
    }
    return RequestTimeline(**(plain | changes))  # type: ignore[arg-type]


def test_a_request_counts_with_its_tokens_and_first_token(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    """Status, tokens and time to first token are told once a request has ended."""
    metrics.requests.ended(timeline(first_token_ns=1_250_000_000, input_tokens=7, output_tokens=0))
    labels = {"backend": "b", "model": "m"}
    assert value(registry, "requests_total", **labels, status="ok") == 1.0
    assert value(registry, "tokens_total", **labels, type="input") == 7.0
    assert value(registry, "tokens_total", **labels, type="output") == 0.0
    assert value(registry, "time_to_first_token_seconds_sum", **labels) == 0.25


def test_clients_cannot_make_labels_without_end(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    """Names of models are cut, and after so many different ones the rest are one."""
    metrics.requests.ended(timeline(model="x" * 5000))
    for number in range(MAX_MODELS + 50):
        metrics.requests.ended(timeline(model=f"m{number}", output_tokens=1))
        metrics.requests.final(make_record(model=f"m{number}"))
    metrics.requests.ended(timeline(model="m0"))
    count = "requests_total"
    assert value(registry, count, backend="b", model="x" * 100, status="ok") == 1.0
    assert value(registry, count, backend="b", model="m0", status="ok") == 2.0
    assert value(registry, count, backend="b", model="other", status="ok") == 51.0
    for family in registry.collect():
        models = {sample.labels.get("model") for sample in family.samples}
        assert len(models) <= MAX_MODELS + 1


def test_what_was_not_seen_of_a_request_is_not_told(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    """No first token and no token counts make no samples, rather than zeros."""
    metrics.requests.ended(timeline(status=Status.ERROR))
    labels = {"backend": "b", "model": "m"}
    assert value(registry, "requests_total", **labels, status="error") == 1.0
    assert value(registry, "tokens_total", **labels, type="input") is None
    assert value(registry, "time_to_first_token_seconds_count", **labels) is None


def test_the_sampler_the_collectors_and_the_gateway_are_told(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    """Lateness in seconds, missed beats, collectors up or down, and the gateway's own time."""
    metrics.sampler_beat(2_000_000, 3)
    metrics.know_collector("nvml", is_up=lambda: True, period_ns=lambda: 50_000_000)
    metrics.know_collector("rapl", is_up=lambda: False, period_ns=lambda: 100_000_000)
    metrics.requests.ended(timeline(overhead_ns=500_000_000))
    metrics.requests.ended(timeline())
    metrics.spooled(7)
    assert value(registry, "sampler_lateness_seconds_sum") == 0.002
    assert value(registry, "sampler_missed_ticks_total") == 3.0
    assert value(registry, "collector_up", collector="nvml") == 1.0
    assert value(registry, "collector_up", collector="rapl") == 0.0
    assert value(registry, "gateway_overhead_seconds_sum") == 0.5
    assert value(registry, "gateway_overhead_seconds_count") == 1.0
    assert value(registry, "spool_records") == 7.0


def test_a_collector_is_asked_for_its_state_with_the_metrics(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    """One that hangs cannot tell that it is down."""
    state = {"up": True, "period_ns": 50_000_000}
    metrics.know_collector(
        "nvml", is_up=lambda: bool(state["up"]), period_ns=lambda: int(state["period_ns"])
    )
    assert value(registry, "collector_up", collector="nvml") == 1.0
    assert value(registry, "collector_period_seconds", collector="nvml") == 0.05
    state |= {"up": False, "period_ns": 100_000_000}
    assert value(registry, "collector_up", collector="nvml") == 0.0
    assert value(registry, "collector_period_seconds", collector="nvml") == 0.1


def test_the_daemon_tells_its_own_cost_and_version(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    """CPU time grows with work; the version is a label."""
    before = value(registry, "self_cpu_seconds_total") or 0.0
    assert before > 0.0
    while (value(registry, "self_cpu_seconds_total") or 0.0) <= before:
        sum(range(1000))
    families = {family.name: family for family in registry.collect()}
    assert families["melodi_build"].samples[0].labels["version"]
