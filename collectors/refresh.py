"""Observes how often a meter's values are renewed, and whether they move at all."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean, median

from collectors.base import Collector, Measure, NowNs
from collectors.errors import ReadFailed

POLL_SECONDS = 0.005
_ENOUGH_CHANGES = 3


@dataclass(frozen=True, slots=True)
class Refresh:
    """How one domain's value was seen to change."""

    domain: str
    moved: bool
    """False: it stood still all the while, so it may be stuck (an idle GPU's counter is not)."""
    period_ns: int | None
    """Median time between changes, no finer than POLL_SECONDS; None: too few changes."""
    mean_watts: float | None = None
    """Over the time watched; None: not told."""


def observe_refresh(
    collector: Collector, seconds: float, *, now_ns: NowNs, sleep: Callable[[float], None]
) -> tuple[Refresh, ...]:
    """Poll `collector` for `seconds`; a domain that cannot be read counts as not moving."""
    seen: dict[str, _Seen] = {domain.name: _Seen(domain.measure) for domain in collector.domains}
    end_ns = now_ns() + round(seconds * 1e9)
    while now_ns() < end_ns:
        for name, at_ns, value in _values(collector):
            seen[name].add(at_ns, value)
        sleep(POLL_SECONDS)
    return tuple(one.refresh(name) for name, one in seen.items())


class _Seen:
    """What one domain showed, and when that was new."""

    def __init__(self, measure: Measure) -> None:
        self._measure = measure
        self._values: list[int] = []
        self._last: int | None = None
        self._changes: list[tuple[int, int]] = []

    def add(self, at_ns: int, value: int) -> None:
        if self._last not in (None, value):
            self._changes.append((at_ns, value))
        self._last = value
        self._values.append(value)

    def refresh(self, name: str) -> Refresh:
        times = [at_ns for at_ns, _ in self._changes]
        return Refresh(name, bool(times), _period_ns(times), self._mean_watts())

    def _mean_watts(self) -> float | None:
        """Of a counter between its first and its last change; microjoules a nanosecond are kW."""
        if self._measure is Measure.GAUGE:
            return mean(self._values) / 1e6 if self._values else None
        if len(self._changes) < _ENOUGH_CHANGES:
            return None
        (since_ns, first_uj), (until_ns, last_uj) = self._changes[0], self._changes[-1]
        fell = any(later < earlier for (_, earlier), (_, later) in pairwise(self._changes))
        return None if fell else (last_uj - first_uj) * 1e3 / (until_ns - since_ns)


def _values(collector: Collector) -> list[tuple[str, int, int]]:
    """Domain, time and the number to watch: the counter where there is one, else the power."""
    try:
        readings = collector.read().values
    except ReadFailed:
        return []
    seen = []
    for reading in readings:
        value = reading.power_uw if reading.energy_uj is None else reading.energy_uj
        if value is not None:
            seen.append((reading.domain, reading.at_ns, value))
    return seen


def _period_ns(changes_ns: list[int]) -> int | None:
    if len(changes_ns) < _ENOUGH_CHANGES:
        return None
    return round(median(later - earlier for earlier, later in pairwise(changes_ns)))
