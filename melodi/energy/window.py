"""The energy of a stretch of time on one energy curve, with its bounds and how far to trust it."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from math import inf

from collectors.base import Domain, Measure, Origin
from melodi.clock import NS_PER_SECOND
from melodi.energy.bins import UJ_PER_JOULE
from melodi.energy.edges import Edge, Edges
from melodi.energy.record import Quality
from melodi.energy.tally import INTERPOLATED_REFRESHES, MEASURED_REFRESHES

UNKNOWN_REFRESH_NS = 100_000_000
"""Assumed where a sensor does not tell its refresh: the slowest known of NVML's."""


class Missing(StrEnum):
    """Why the curve does not reach a moment."""

    BEFORE = "before_first_edge"
    AFTER = "past_last_edge"


@dataclass(frozen=True, slots=True)
class Cut:
    """A moment on a curve, with the edges around it: all that a window has to keep of one end.

    The first of `around` was surely passed by then, the last surely not yet; `before` and
    `after` are those between which the moment was placed.
    """

    at_ns: int
    around: tuple[Edge, ...]
    before: Edge
    after: Edge

    @property
    def total_uj(self) -> float:
        """Cumulative energy, interpolated between the two edges."""
        gained_uj = self.after.total_uj - self.before.total_uj
        passed = (self.at_ns - self.before.at_ns) / self.bin_ns
        return self.before.total_uj + gained_uj * passed

    @property
    def bin_ns(self) -> int:
        return self.after.at_ns - self.before.at_ns

    def bounds_uj(self, max_watts: float | None) -> tuple[float, float]:
        """Least and most cumulative energy, with power between 0 and `max_watts` (None: no limit).

        The parts of a bin as in MEASUREMENT, section 4: at least what was used before the part,
        and at least all that the rest of the bin cannot hold; each edge anywhere in its width.
        """
        limit = inf if max_watts is None else max_watts
        low_uj, high_uj = float(self.around[0].total_uj), float(self.around[-1].total_uj)
        for edge in self.around:
            # W x ns is nJ. A distance of 0 holds nothing, whatever the power.
            ahead_ns, behind_ns = edge.latest_ns - self.at_ns, self.at_ns - edge.earliest_ns
            low_uj = max(low_uj, edge.total_uj - (limit * ahead_ns / 1_000 if ahead_ns > 0 else 0))
            if behind_ns >= 0:
                most_uj = limit * behind_ns / 1_000 if behind_ns > 0 else 0
                high_uj = min(high_uj, edge.total_uj + most_uj)
        return low_uj, max(low_uj, high_uj)


def cut(edges: Edges, at_ns: int) -> Cut | Missing:
    """The place of a moment among edges in order of time, by bisection; or why it has none."""
    end = len(edges)
    if end == 0 or edges[end - 1].at_ns <= at_ns:
        return Missing.AFTER
    after = edges.after(at_ns)
    if after == 0:
        return Missing.BEFORE
    first, last = after - 1, after
    before, behind = around = [edges[first], edges[last]]
    while around[0].latest_ns > at_ns:
        if first == 0:
            return Missing.BEFORE
        first -= 1
        around.insert(0, edges[first])
    while around[-1].earliest_ns < at_ns:
        last += 1
        if last == end:
            return Missing.AFTER
        around.append(edges[last])
    return Cut(at_ns, tuple(around), before, behind)


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowEnergy:
    """What one power domain used in a stretch of time; unknown is None, with a reason."""

    joules: float | None = None
    low_joules: float | None = None
    high_joules: float | None = None
    mean_watts: float | None = None
    quality: Quality = Quality.NONE
    scope: str
    source: str
    summable: bool
    """False where another domain contains it, or where its joules are not of the others' origin."""
    reasons: tuple[str, ...] = ()


def window_energy(
    domain: Domain, start: Cut | Missing, end: Cut | Missing, *, summable: bool
) -> WindowEnergy:
    """The energy between two cuts of the domain's curve.

    A stretch in which nobody measured for a while holds what was measured, with quality `gap`;
    its mean power is unknown, and its upper bound allows full power all that time.
    """
    if isinstance(start, Missing) or isinstance(end, Missing):
        missing = start if isinstance(start, Missing) else end
        return _unknown(domain, str(missing), summable=summable)
    lost_ns = end.around[-1].unmeasured_ns - start.around[0].unmeasured_ns
    if lost_ns and start.before.total_uj == end.after.total_uj:
        return _unknown(domain, "unmeasured", summable=summable)
    length_ns = end.at_ns - start.at_ns
    stalled = end.around[-1].stalls > start.around[0].stalls
    joules = (end.total_uj - start.total_uj) / UJ_PER_JOULE
    low, high = _bounds(domain.max_power_watts, start, end, lost_ns=lost_ns)
    return WindowEnergy(
        joules=joules,
        low_joules=min(low, joules),
        high_joules=None if high is None else max(high, joules),
        mean_watts=None if lost_ns or not length_ns else joules / (length_ns / NS_PER_SECOND),
        quality=_quality(domain, start, end, stalled=stalled),
        scope=domain.scope,
        source=domain.source,
        summable=summable,
        reasons=("unmeasured" if lost_ns else "stall",) if stalled else (),
    )


def summable(domains: Iterable[Domain]) -> set[str]:
    """The names of the domains whose joules may be added up.

    None of them contains another. Where a simulator is read at all it is its domains, because
    simulated and sensed joules do not mix.
    """
    usable = [domain for domain in domains if domain.summable]
    simulated = [domain for domain in usable if domain.origin is Origin.SIMULATOR]
    return {domain.name for domain in simulated or usable}


def total_joules(domains: Iterable[WindowEnergy]) -> float | None:
    """The sum over the domains that may be summed; None where one of them, or all, is unknown."""
    parts = [one.joules for one in domains if one.summable]
    known = [part for part in parts if part is not None]
    return sum(known) if known and len(known) == len(parts) else None


def _unknown(domain: Domain, reason: str, *, summable: bool) -> WindowEnergy:
    return WindowEnergy(
        scope=domain.scope, source=domain.source, summable=summable, reasons=(reason,)
    )


def _bounds(
    max_watts: float | None, start: Cut, end: Cut, *, lost_ns: int
) -> tuple[float, float | None]:
    """Least and most joules; None: there is no telling."""
    start_low_uj, start_high_uj = start.bounds_uj(max_watts)
    end_low_uj, end_high_uj = end.bounds_uj(max_watts)
    low = max(0.0, end_low_uj - start_high_uj) / UJ_PER_JOULE
    high = (end_high_uj - start_low_uj) / UJ_PER_JOULE
    if max_watts is None:
        return low, None if lost_ns else high
    most = max_watts * (end.at_ns - start.at_ns) / NS_PER_SECOND
    return low, min(high + max_watts * lost_ns / NS_PER_SECOND, most)


def _quality(domain: Domain, start: Cut, end: Cut, *, stalled: bool) -> Quality:
    """By how many refreshes were seen: a sensor polled less often than it is renewed has fewer."""
    if domain.estimated:
        return Quality.ESTIMATED
    if stalled:
        return Quality.GAP
    seen_ns = min(start.bin_ns, end.bin_ns)
    refreshes = (end.at_ns - start.at_ns) / max(domain.refresh_ns or UNKNOWN_REFRESH_NS, seen_ns)
    if refreshes < INTERPOLATED_REFRESHES:
        return Quality.SUB_SENSOR
    if refreshes < MEASURED_REFRESHES or domain.measure is Measure.GAUGE:
        return Quality.INTERPOLATED
    return Quality.MEASURED
