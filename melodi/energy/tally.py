"""Adds up what one request received from one domain, and says how far to trust it."""

from dataclasses import dataclass, field

from melodi.energy.attribution import Setting, Settlement, Share
from melodi.energy.bins import NS_PER_SECOND, Bin, Interval
from melodi.energy.record import DomainEnergy, Quality

MEASURED_REFRESHES = 10
INTERPOLATED_REFRESHES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainFacts:
    """What the ledger has to know about a power domain."""

    name: str
    kind: str
    scope: str
    source: str
    origin: str
    refresh_ns: int
    """Longest time between two renewals of the sensor."""
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
    exclusive_low: float = 0.0
    exclusive_high: float = 0.0
    covered_ns: int = 0
    divided: bool = True
    idle_watts: float | None = None
    reasons: set[str] = field(default_factory=set)

    def add(self, bin_: Bin, share: Share, settlement: Settlement, setting: Setting) -> None:
        """Take the request's share of one measured bin."""
        self.active += share.active
        self.idle_share += share.idle_share
        self.joules += share.active + share.idle_share
        self.load += share.load
        self.low += share.low
        self.high += share.high
        self.exclusive_low += share.exclusive_low
        self.exclusive_high += share.exclusive_high
        self.idle_watts = setting.idle_watts
        self.prefill += share.prefill
        if not settlement.divided:
            self.divided = False
            self.reasons.add("idle_unknown")
        if setting.our_share is None:
            self.reasons.add("foreign_unknown")
        if bin_.reason is not None:
            self.reasons.add(bin_.reason)

    def cover(self, bin_: Bin, service: Interval) -> None:
        """Note that a bin held a part of the service, measured or not."""
        if bin_.energy_uj is None:
            self.reasons.add(bin_.reason or "unmeasured")
        else:
            self.covered_ns += service.overlap_ns(bin_.start_ns, bin_.end_ns)

    def energy(self, service: Interval) -> DomainEnergy:
        """The domain's part of the record of a request whose service is over."""
        uncovered_ns = service.length_ns - self.covered_ns
        reasons = self.reasons | {"unmeasured"} if uncovered_ns else self.reasons
        facts, known = self.facts, self.covered_ns > 0
        divided = known and self.divided
        unseen = self._most_joules(uncovered_ns)
        return DomainEnergy(
            scope=facts.scope,
            source=facts.source,
            joules=self.joules if known else None,
            active_joules=self.active if divided else None,
            idle_share_joules=self.idle_share if divided else None,
            load_joules=self.load if known or self.load > 0 else None,
            low_joules=self.low if known else None,
            high_joules=self.high + unseen if known and unseen is not None else None,
            exclusive_low_joules=self.exclusive_low if divided else None,
            exclusive_high_joules=(
                self.exclusive_high + unseen if divided and unseen is not None else None
            ),
            idle_watts=self.idle_watts,
            quality=self._quality(service),
            reasons=tuple(sorted(reasons)),
        )

    def _most_joules(self, uncovered_ns: int) -> float | None:
        """What may have been used while nobody measured; None: there is no telling."""
        if uncovered_ns == 0:
            return 0.0
        watts = self.facts.max_watts
        return None if watts is None else watts * uncovered_ns / NS_PER_SECOND

    def _quality(self, service: Interval) -> Quality:
        refreshes = service.length_ns / self.facts.refresh_ns
        if self.covered_ns == 0:
            return Quality.NONE
        if self.facts.estimated:
            return Quality.ESTIMATED
        if self.covered_ns < service.length_ns or "stall" in self.reasons:
            return Quality.GAP
        if refreshes < INTERPOLATED_REFRESHES:
            return Quality.SUB_SENSOR
        if refreshes < MEASURED_REFRESHES or not self.facts.counter:
            return Quality.INTERPOLATED
        return Quality.MEASURED
