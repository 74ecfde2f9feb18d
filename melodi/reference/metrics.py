"""The metrics, read from the registry that Prometheus reads."""

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.metrics import MetricWrapperBase

from melodi.metrics import Metrics
from melodi.reference.page import Page, Section, code

TEXT = (
    "What `/metrics` tells Prometheus. A histogram has the series `_bucket`, `_sum` and `_count`. "
    "A request's id is in no label."
)
SUFFIXES = {"counter": "_total", "info": "_info"}


def metrics_page() -> Page:
    """Every metric of a daemon."""
    registry = CollectorRegistry()
    labels = _labels(Metrics(registry))
    families = sorted(registry.collect(), key=lambda family: family.name)
    return Page(
        name="metrics",
        title="Metrics",
        text=TEXT,
        sections=(
            Section(
                title="Metrics of a daemon",
                text="Units are base SI units and stand in the names.",
                headings=("name", "type", "labels", "meaning"),
                rows=tuple(_row(family, labels) for family in families),
            ),
        ),
    )


def _row(family: Metric, labels: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    told = labels.get(family.name)
    if told is None:
        without_series = getattr(family, "_labelnames", ())
        named = family.samples[0].labels if family.samples else without_series
        told = tuple(label for label in named if label != "le")
    return (
        code(family.name + SUFFIXES.get(family.type, "")),
        family.type,
        ", ".join(code(label) for label in told),
        family.documentation,
    )


def _labels(metrics: Metrics) -> dict[str, tuple[str, ...]]:
    """The labels of each metric; those that have no series yet tell them nowhere in public."""
    held = (*vars(metrics).values(), *vars(metrics.ledger).values())
    kept = [one for one in held if isinstance(one, MetricWrapperBase)]
    return {one._name: tuple(one._labelnames) for one in kept}  # noqa: SLF001
