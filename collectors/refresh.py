"""Observes how often a meter's values are renewed, and whether they move at all."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from collectors.base import Collector, NowNs
from collectors.errors import ReadFailed

_POLL_SECONDS = 0.005
_ENOUGH_CHANGES = 3


@dataclass(frozen=True, slots=True)
class Refresh:
    """How one domain's value was seen to change."""

    domain: str
    moved: bool
    """False: it stood still all the while, so it may be stuck (an idle GPU's counter is not)."""
    period_ns: int | None
    """Median time between changes, no finer than the 5 ms between polls; None: too few changes."""


def observe_refresh(
    collector: Collector, seconds: float, *, now_ns: NowNs, sleep: Callable[[float], None]
) -> tuple[Refresh, ...]:
    """Poll `collector` for `seconds`; a domain that cannot be read counts as not moving."""
    last: dict[str, int] = {}
    changes_ns: dict[str, list[int]] = {domain.name: [] for domain in collector.domains}
    end_ns = now_ns() + round(seconds * 1e9)
    while now_ns() < end_ns:
        for name, at_ns, value in _values(collector):
            if last.setdefault(name, value) != value:
                changes_ns[name].append(at_ns)
                last[name] = value
        sleep(_POLL_SECONDS)
    return tuple(
        Refresh(name, bool(times), _period_ns(times)) for name, times in changes_ns.items()
    )


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
