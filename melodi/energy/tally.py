"""What one request received from one domain, and how far to trust it."""

from collections.abc import Sequence, Set
from dataclasses import KW_ONLY, dataclass

from melodi.energy.bins import NS_PER_SECOND, Interval
from melodi.energy.record import DomainEnergy, Quality

MEASURED_REFRESHES = 10
INTERPOLATED_REFRESHES = 2
GAPS = frozenset({"stall", "suspended", "forced_close", "unmeasured"})
_NO_REASON: Set[str] = frozenset()
_UNMEASURED = frozenset({"unmeasured"})
_LOAD_UNMEASURED = frozenset({"load_unmeasured"})


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainFacts:
    """What the ledger has to know about a power domain."""

    name: str
    kind: str
    scope: str
    source: str
    origin: str
    refresh_ns: int
    """Longest time between two renewals of what is read of the sensor."""
    max_watts: float | None = None
    counter: bool = True
    estimated: bool = False
    exclusive: bool = False


@dataclass(slots=True)
class Tally:
    """The sum of one request's parts of one domain, over its closed bins; joules and ns."""

    active: float
    idle_share: float
    load: float
    prefill: float
    low: float
    high: float
    doubt: float
    exclusive_low: float
    exclusive_high: float
    covered_ns: float
    lost_ns: float
    load_covered_ns: float
    company_ns: float
    """Time in service of all that were in its bins, weighed by its own part of each."""
    alone_slack: float
    undivided_ns: float
    _: KW_ONLY
    facts: DomainFacts
    by_policy: Sequence[float]
    """What each policy would give, where more than one can."""
    divided: Sequence[float]
    """Active joules that each policy has divided."""
    around: tuple[int, int, int, int] | None
    """Start and half-width of its first bin, end and half-width of its last; None: no bin yet."""
    idle_watts: float | None
    reasons: Set[str]

    def energy(self, service: Interval, *, load: Interval | None) -> DomainEnergy:
        """The domain's part of the record of a request with this service and model load."""
        reasons = self.reasons | self._shortcomings(service, load)
        known, joules = self.covered_ns > 0, self.active + self.idle_share
        divided = known and self.undivided_ns == 0
        unseen = self._most_unseen(service)
        bounded = known and unseen is not None
        # Sums of the same parts in another order may differ in the last digit.
        low = min(joules, max(0.0, self.low + min(self.by_policy) - self.doubt))
        high = max(joules, self.high + max(self.by_policy) + self.doubt + (unseen or 0))
        exclusive_low = max(0.0, self.exclusive_low - self.alone_slack)
        exclusive_high = self.exclusive_high + self._edge_slack() + (unseen or 0)
        return DomainEnergy(
            scope=self.facts.scope,
            source=self.facts.source,
            joules=joules if known else None,
            active_joules=self.active if divided else None,
            idle_share_joules=self.idle_share if divided else None,
            load_joules=self._load_joules(load, known=known),
            low_joules=low if known else None,
            high_joules=high if bounded else None,
            exclusive_low_joules=exclusive_low if divided else None,
            exclusive_high_joules=exclusive_high if bounded and divided else None,
            idle_watts=self.idle_watts,
            quality=self._quality(service, reasons),
            reasons=tuple(sorted(reasons)),
        )

    def _shortcomings(self, service: Interval, load: Interval | None) -> Set[str]:
        whole = 0 < self.covered_ns >= service.length_ns
        if load is None or self.load_covered_ns >= load.length_ns:
            return _NO_REASON if whole else _UNMEASURED
        return _LOAD_UNMEASURED if whole else _UNMEASURED | _LOAD_UNMEASURED

    def _load_joules(self, load: Interval | None, *, known: bool) -> float | None:
        """Joules of the load; 0 where there was none, None where nobody measured it."""
        if load is None:
            return 0.0 if known else None
        return self.load if self.load_covered_ns > 0 or self.load > 0 else None

    def _most_unseen(self, service: Interval) -> float | None:
        """What may have been used while nobody measured; None: there is no telling.

        An edge may lie a half-width away, so bins are missed for that much on both sides.
        """
        if self.around is None:
            return None
        start_ns, start_half_ns, end_ns, end_half_ns = self.around
        before_ns = start_ns - (service.start_ns - start_half_ns)
        after_ns = service.end_ns + end_half_ns - end_ns
        unseen_ns = self.lost_ns + max(0, before_ns) + max(0, after_ns)
        if unseen_ns == 0:
            return 0.0
        watts = self.facts.max_watts
        return None if watts is None else watts * unseen_ns / NS_PER_SECOND

    def _edge_slack(self) -> float:
        """How much idle energy may have been taken for more or less than it was."""
        if self.around is None:
            return 0.0
        _, start_half_ns, _, end_half_ns = self.around
        return idle_joules(self.idle_watts, start_half_ns + end_half_ns)

    def _quality(self, service: Interval, reasons: Set[str]) -> Quality:
        refreshes = service.length_ns / self.facts.refresh_ns
        if self.covered_ns == 0:
            return Quality.NONE
        if self.facts.estimated:
            return Quality.ESTIMATED
        if not GAPS.isdisjoint(reasons):
            return Quality.GAP
        if refreshes < INTERPOLATED_REFRESHES:
            return Quality.SUB_SENSOR
        if refreshes < MEASURED_REFRESHES or not self.facts.counter:
            return Quality.INTERPOLATED
        return Quality.MEASURED


def idle_joules(idle_watts: float | None, ns: int) -> float:
    """The idle energy of a stretch as long as edges may be off.

    The energy between two edges is exact, their distance is not, so what is called idle may be
    off by this much; along a run of bins the errors of the inner edges cancel.
    """
    return 0.0 if idle_watts is None else idle_watts * ns / NS_PER_SECOND
