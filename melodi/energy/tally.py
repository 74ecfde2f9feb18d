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
    lost_ns: int = 0
    alone: bool = False
    alone_slack: float = 0.0
    first: Bin | None = None
    last: Bin | None = None
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
        if share.alone and not self.alone:
            self.alone_slack += _idle_joules(setting.idle_watts, 2 * bin_.half_width_ns)
        self.alone = share.alone
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
        self.first, self.last = self.first or bin_, bin_
        if bin_.energy_uj is None:
            self.reasons.add(bin_.reason or "unmeasured")
            around = service.widened(bin_.half_width_ns)
            self.lost_ns += around.overlap_ns(bin_.start_ns, bin_.end_ns)
        else:
            self.covered_ns += service.overlap_ns(bin_.start_ns, bin_.end_ns)

    def energy(self, service: Interval) -> DomainEnergy:
        """The domain's part of the record of a request whose service is over."""
        uncovered_ns = service.length_ns - self.covered_ns
        reasons = self.reasons | {"unmeasured"} if uncovered_ns else self.reasons
        facts, known = self.facts, self.covered_ns > 0
        divided = known and self.divided
        unseen = self._most_unseen(service)
        return DomainEnergy(
            scope=facts.scope,
            source=facts.source,
            joules=self.joules if known else None,
            active_joules=self.active if divided else None,
            idle_share_joules=self.idle_share if divided else None,
            load_joules=self.load if known or self.load > 0 else None,
            low_joules=self.low if known else None,
            high_joules=self.high + unseen if known and unseen is not None else None,
            exclusive_low_joules=(
                max(0.0, self.exclusive_low - self.alone_slack) if divided else None
            ),
            exclusive_high_joules=(
                self.exclusive_high + self._edge_slack() + unseen
                if divided and unseen is not None
                else None
            ),
            idle_watts=self.idle_watts,
            quality=self._quality(service),
            reasons=tuple(sorted(reasons)),
        )

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


def _idle_joules(idle_watts: float | None, ns: int) -> float:
    """The idle energy of a stretch as long as edges may be off.

    The energy between two edges is exact, their distance is not, so what is called idle may be
    off by this much; along a run of bins the errors of the inner edges cancel.
    """
    return 0.0 if idle_watts is None else idle_watts * ns / NS_PER_SECOND
