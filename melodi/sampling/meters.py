"""Turns one domain's readings into an energy curve: cumulative joules with an edge per change."""

from collections import deque
from dataclasses import dataclass

from collectors.base import Domain, Measure, Reading
from collectors.counter import Counter, First, Gained, Gap
from melodi.energy.bins import NS_PER_SECOND, UJ_PER_JOULE, Bin

EDGES_KEPT = 20_000
STALL_NS = NS_PER_SECOND
"""Polls further apart than this leave one long bin behind, which says so."""


@dataclass(frozen=True, slots=True)
class Edge:
    """A point of the curve: `total_uj` had been used at `at_ns`, give or take `half_width_ns`."""

    at_ns: int
    half_width_ns: int
    total_uj: int


class EnergyCurve:
    """The energy of one domain since its meter was opened; never falls, keeps its latest edges."""

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self.edges: deque[Edge] = deque(maxlen=EDGES_KEPT)
        self._counter = Counter(range_uj=domain.range_uj, max_power_watts=domain.max_power_watts)
        self._polled_ns: int | None = None
        self._power_uw: int | None = None
        self._stalled = False
        self._unshown_fj = 0

    def feed(self, reading: Reading) -> Bin | None:
        """Take a reading, in order of time; gives the bin that it completes, if any."""
        polled_ns, self._polled_ns = self._polled_ns, reading.at_ns
        if polled_ns is not None and reading.at_ns - polled_ns > STALL_NS:
            self._stalled = True
        if self.domain.measure is Measure.GAUGE:
            return self._integrate(reading, polled_ns)
        return self._follow(reading, polled_ns)

    def mean_watts(self, over_ns: int) -> float | None:
        """Mean power over the latest edges that span at least `over_ns`; None: not seen yet."""
        if not self.edges:
            return None
        last = self.edges[-1]
        for edge in reversed(self.edges):
            length_ns = last.at_ns - edge.at_ns
            if length_ns >= over_ns and length_ns > 0:
                joules = (last.total_uj - edge.total_uj) / UJ_PER_JOULE
                return joules / (length_ns / NS_PER_SECOND)
        return None

    def _follow(self, reading: Reading, polled_ns: int | None) -> Bin | None:
        """A counter: the edge lies where the change happened, between the polls around it."""
        if reading.energy_uj is None:
            return None
        step = self._counter.feed(reading.at_ns, reading.energy_uj)
        if isinstance(step, First) or polled_ns is None:
            return None
        if isinstance(step, Gained) and step.energy_uj == 0:
            return None
        earliest_ns = polled_ns
        if self.domain.refresh_ns is not None:
            earliest_ns = max(polled_ns, reading.at_ns - self.domain.refresh_ns)
        at_ns = (earliest_ns + reading.at_ns) // 2
        half_ns = (reading.at_ns - earliest_ns) // 2 + reading.half_width_ns
        if isinstance(step, Gap):
            return self._append(at_ns, half_ns, None, step.reason)
        return self._append(at_ns, half_ns, step.energy_uj)

    def _integrate(self, reading: Reading, polled_ns: int | None) -> Bin | None:
        """A gauge: trapezoids between readings; nobody knows what happened in a stall."""
        last_uw, self._power_uw = self._power_uw, reading.power_uw
        if reading.power_uw is None:
            return None
        if last_uw is None or polled_ns is None:
            return self._append(reading.at_ns, reading.half_width_ns, None, "unread")
        if self._stalled:
            return self._append(reading.at_ns, reading.half_width_ns, None, "stall")
        # uW x ns is 1 fJ, and the mean is half the sum: the remainder is carried, none is lost.
        twice = (last_uw + reading.power_uw) * (reading.at_ns - polled_ns) + self._unshown_fj
        energy_uj, self._unshown_fj = divmod(twice, 2 * NS_PER_SECOND)
        return self._append(reading.at_ns, reading.half_width_ns, energy_uj)

    def _append(
        self, at_ns: int, half_width_ns: int, energy_uj: int | None, reason: str | None = None
    ) -> Bin | None:
        last = self.edges[-1] if self.edges else None
        total_uj = (last.total_uj if last else 0) + (energy_uj or 0 if last else 0)
        self.edges.append(Edge(at_ns, half_width_ns, total_uj))
        stalled, self._stalled = self._stalled, False
        if last is None:
            return None
        return Bin(
            domain=self.domain.name,
            start_ns=last.at_ns,
            end_ns=at_ns,
            energy_uj=energy_uj,
            total_uj=total_uj,
            half_width_ns=max(half_width_ns, last.half_width_ns),
            reason=reason or ("stall" if stalled else None),
        )
