"""Adds up what one request received from one domain, and says how far to trust it."""

from dataclasses import dataclass, field

from melodi.energy.attribution import Setting, Share
from melodi.energy.bins import NS_PER_SECOND, Bin, Interval, Span
from melodi.energy.record import DomainEnergy, Quality

MEASURED_REFRESHES = 10
INTERPOLATED_REFRESHES = 2
GAPS = frozenset({"stall", "suspended", "forced_close"})


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
    """The sum of one request's shares in one domain, over its closed bins."""

    facts: DomainFacts
    joules: float = 0.0
    active: float = 0.0
    idle_share: float = 0.0
    load: float = 0.0
    prefill: float = 0.0
    low: float = 0.0
    high: float = 0.0
    doubt: float = 0.0
    exclusive_low: float = 0.0
    exclusive_high: float = 0.0
    covered_ns: int = 0
    lost_ns: int = 0
    load_covered_ns: int = 0
    company_ns: float = 0.0
    """Time in service of all that were in its bins, weighed by its own part of each."""
    first: Bin | None = None
    last: Bin | None = None
    alone: bool = False
    alone_slack: float = 0.0
    by_policy: dict[str, float] = field(default_factory=dict)
    policies: dict[str, float] = field(default_factory=dict)
    """Active joules that each policy has divided."""
    divided: bool = True
    idle_watts: float | None = None
    reasons: set[str] = field(default_factory=set)

    def cover(self, bin_: Bin, span: Span) -> None:
        """Note that a bin held a part of the service or of the load, measured or not."""
        self.first, self.last = self.first or bin_, bin_
        if bin_.energy_uj is None:
            self.reasons.add(bin_.reason or "unmeasured")
            around = span.service.widened(bin_.half_width_ns)
            self.lost_ns += around.overlap_ns(bin_.start_ns, bin_.end_ns)
            return
        self.covered_ns += span.service.overlap_ns(bin_.start_ns, bin_.end_ns)
        if span.load is not None:
            self.load_covered_ns += span.load.overlap_ns(bin_.start_ns, bin_.end_ns)

    def add(self, bin_: Bin, share: Share, setting: Setting, *, divided: bool) -> None:
        """Take the request's share of one measured bin."""
        self.active += share.active
        self.idle_share += share.idle_share
        self.joules += share.active + share.idle_share
        self.load += share.load
        self.prefill += share.prefill
        self.low += share.low
        self.high += share.high
        self.doubt += share.doubt
        if share.alone and not self.alone:
            self.alone_slack += _idle_joules(setting.idle_watts, 2 * bin_.half_width_ns)
        self.alone = share.alone
        self.exclusive_low += share.exclusive_low
        self.exclusive_high += share.exclusive_high
        for name, joules in share.by_policy.items():
            self.by_policy[name] = self.by_policy.get(name, 0.0) + joules
        if share.policy is not None:
            self.policies[share.policy] = self.policies.get(share.policy, 0.0) + share.active
        self.idle_watts = setting.idle_watts
        if not divided:
            self.divided = False
            self.reasons.add("idle_unknown")
        if setting.our_share is None:
            self.reasons.add("foreign_unknown")
        if bin_.reason is not None:
            self.reasons.add(bin_.reason)

    def energy(self, span: Span) -> DomainEnergy:
        """The domain's part of the record of a request whose service is `span`."""
        service = span.service
        reasons = self.reasons | self._shortcomings(span)
        known = self.covered_ns > 0
        divided = known and self.divided
        unseen = self._most_unseen(service)
        spread = list(self.by_policy.values()) or [0.0]
        bounded = known and unseen is not None
        # Sums of the same parts in another order may differ in the last digit.
        low = min(self.joules, max(0.0, self.low + min(spread) - self.doubt))
        high = max(self.joules, self.high + max(spread) + self.doubt + (unseen or 0))
        return DomainEnergy(
            scope=self.facts.scope,
            source=self.facts.source,
            joules=self.joules if known else None,
            active_joules=self.active if divided else None,
            idle_share_joules=self.idle_share if divided else None,
            load_joules=self._load_joules(span, known=known),
            low_joules=low if known else None,
            high_joules=high if bounded else None,
            exclusive_low_joules=(
                max(0.0, self.exclusive_low - self.alone_slack) if divided else None
            ),
            exclusive_high_joules=(
                self.exclusive_high + self._edge_slack() + (unseen or 0)
                if bounded and divided
                else None
            ),
            idle_watts=self.idle_watts,
            quality=self._quality(service, reasons),
            reasons=tuple(sorted(reasons)),
        )

    def _shortcomings(self, span: Span) -> set[str]:
        found = set()
        if self.covered_ns < span.service.length_ns or self.covered_ns == 0:
            found.add("unmeasured")
        if span.load is not None and self.load_covered_ns < span.load.length_ns:
            found.add("load_unmeasured")
        return found

    def _load_joules(self, span: Span, *, known: bool) -> float | None:
        """Joules of the load; 0 where there was none, None where nobody measured it."""
        if span.load is None:
            return 0.0 if known else None
        return self.load if self.load_covered_ns > 0 or self.load > 0 else None

    def _most_unseen(self, service: Interval) -> float | None:
        """What may have been used while nobody measured; None: there is no telling.

        An edge may lie a half-width away, so bins are missed for that much on both sides.
        """
        if self.first is None or self.last is None:
            return None
        before_ns = self.first.start_ns - (service.start_ns - self.first.half_width_ns)
        after_ns = service.end_ns + self.last.half_width_ns - self.last.end_ns
        unseen_ns = self.lost_ns + max(0, before_ns) + max(0, after_ns)
        if unseen_ns == 0:
            return 0.0
        watts = self.facts.max_watts
        return None if watts is None else watts * unseen_ns / NS_PER_SECOND

    def _edge_slack(self) -> float:
        """How much idle energy may have been taken for more or less than it was."""
        if self.first is None or self.last is None:
            return 0.0
        return _idle_joules(self.idle_watts, self.first.half_width_ns + self.last.half_width_ns)

    def _quality(self, service: Interval, reasons: set[str]) -> Quality:
        refreshes = service.length_ns / self.facts.refresh_ns
        if self.covered_ns == 0:
            return Quality.NONE
        if self.facts.estimated:
            return Quality.ESTIMATED
        if "unmeasured" in reasons or not GAPS.isdisjoint(reasons):
            return Quality.GAP
        if refreshes < INTERPOLATED_REFRESHES:
            return Quality.SUB_SENSOR
        if refreshes < MEASURED_REFRESHES or not self.facts.counter:
            return Quality.INTERPOLATED
        return Quality.MEASURED


def _idle_joules(idle_watts: float | None, ns: int) -> float:
    """The idle energy of a stretch as long as edges may be off.

    The energy between two edges is exact, their distance is not, so what is called idle may be
    off by this much; along a run of bins the errors of the inner edges cancel.
    """
    return 0.0 if idle_watts is None else idle_watts * ns / NS_PER_SECOND
