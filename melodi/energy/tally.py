"""What requests received from domains, and how far to trust it, as columns."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from melodi.clock import NS_PER_SECOND
from melodi.energy.bins import Bin, Span
from melodi.energy.columns import Mask, Times, Vector
from melodi.energy.record import Quality
from melodi.energy.settlement import (
    ACTIVE,
    ALONE_SLACK,
    COVERED,
    DOUBT,
    EXCLUSIVE_HIGH,
    EXCLUSIVE_LOW,
    HIGH,
    IDLE_SHARE,
    IDLE_WATTS,
    LOAD,
    LOAD_COVERED,
    LOST,
    LOW,
    POLICIES,
    UNDIVIDED,
)

FIRST_START, FIRST_HALF, LAST_END, LAST_HALF, SAID, SEEN, ALONE = range(7)
"""Marks: start and half-width of its first bin, end and half-width of its last; reasons as bits;
whether there was a bin; whether nobody was beside it in its last."""
MARKS = 7

MEASURED_REFRESHES = 10
INTERPOLATED_REFRESHES = 2
RANKS = {quality: rank for rank, quality in enumerate(Quality)}
UNKNOWN = np.nan
"""In columns of figures, where a record says None."""


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


class Reasons:
    """Words for why a figure is less sure than it might be, each a bit."""

    def __init__(self) -> None:
        self._words: list[str] = []
        self._known: dict[int, tuple[str, ...]] = {0: ()}
        self.gaps = self.bits("stall", "suspended", "forced_close", "unmeasured")
        self.unmeasured, self.load_unmeasured = (
            self.bits("unmeasured"),
            self.bits("load_unmeasured"),
        )

    def bits(self, *words: str) -> int:
        """The bits of these words together."""
        bits = 0
        for word in words:
            if word not in self._words:
                self._words.append(word)
            bits |= 1 << self._words.index(word)
        return bits

    def words(self, bits: int) -> tuple[str, ...]:
        """The words of these bits, in the order of the alphabet."""
        if bits not in self._known:
            words = (word for k, word in enumerate(self._words) if bits >> k & 1)
            self._known[bits] = tuple(sorted(words))
        return self._known[bits]


@dataclass(frozen=True, slots=True)
class Services:
    """When requests were in service, in ns; what a domain has not told of yet is left out."""

    start_ns: Times
    end_ns: Times
    load_ns: Vector
    """How long each waited for a load of its model; unknown where it did not."""
    first_seen: Mask
    """Whether its first token was seen."""
    served: Mask
    """Whether it was in service at all, or waited for a load."""
    late_ns: Times
    """How far each may lie from where it was placed."""

    @classmethod
    def of(cls, spans: Sequence[Span], *, heard_ns: Sequence[int | None] = ()) -> "Services":
        """The services of these; until when each domain has told anything, if that matters."""
        start_ns = np.array([one.service.start_ns for one in spans])
        end_ns = np.array([one.service.end_ns for one in spans])
        load_ns = [UNKNOWN if one.load is None else one.load.length_ns for one in spans]
        first_seen = [one.first_token_ns is not None for one in spans]
        served = (end_ns > start_ns) | ~np.isnan(load_ns)
        if heard_ns:
            heard = np.array([[-1 if one is None else one] for one in heard_ns])
            end_ns = np.maximum(start_ns, np.minimum(end_ns, heard))
        late_ns = np.array([one.late_ns for one in spans])
        return cls(start_ns, end_ns, np.array(load_ns), np.array(first_seen), served, late_ns)

    @property
    def length_ns(self) -> Times:
        return self.end_ns - self.start_ns


@dataclass(slots=True)
class Tally:
    """Sums over closed bins: a row for each domain, a column for each request."""

    facts: Sequence[DomainFacts]
    """Who tells of each domain."""
    estimates: Mapping[tuple[int, int], DomainFacts]
    """What told of a domain and a request for a while instead, if that was an estimate."""
    sums: Vector
    """A table for each of a settlement's sums; joules and ns."""
    marks: Times
    """A table for each of the marks named above."""

    @property
    def by_policy(self) -> Vector:
        """What each policy would give, where more than one can."""
        return self.sums[POLICIES : (POLICIES + len(self.sums)) // 2]

    @property
    def divided(self) -> Vector:
        """Active joules that each policy has divided."""
        return self.sums[(POLICIES + len(self.sums)) // 2 :]

    def reach(self, domain: int, first: Bin, last: Bin) -> None:
        """The bins of the only request go on to these, or begin with them."""
        marks = self.marks[:, domain, 0]
        if not marks[SEEN]:
            marks[[FIRST_START, FIRST_HALF, SEEN]] = first.start_ns, first.half_width_ns, 1
        marks[[LAST_END, LAST_HALF]] = last.end_ns, last.half_width_ns

    def told(self) -> Iterator[DomainFacts]:
        """Who told each request of each domain, those of one request after the other."""
        for request in range(self.marks.shape[-1]):
            yield from (
                (self.estimates.get((k, request), one) for k, one in enumerate(self.facts))
                if self.estimates
                else self.facts
            )

    def of_facts(self, pick: Callable[[DomainFacts], float | bool]) -> npt.NDArray[Any]:
        """A fact of each domain, for all requests or for each."""
        if not self.estimates:
            return np.array([[pick(one)] for one in self.facts])
        return np.array([pick(one) for one in self.told()]).reshape(-1, len(self.facts)).T


FIGURES = (
    *("joules", "active_joules", "idle_share_joules", "load_joules", "low_joules", "high_joules"),
    *("exclusive_low_joules", "exclusive_high_joules", "idle_watts"),
)
"""What a record says of a domain in numbers."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What records say of domains: a row for each domain, a column for each request."""

    table: Vector
    """A table for each of FIGURES; unknown is UNKNOWN."""
    ranks: Times
    """Of the qualities."""
    reasons: Times


def figures(tally: Tally, services: Services, reasons: Reasons) -> Figures:
    """What each request's record says of each domain."""
    sums, known = tally.sums, tally.sums[COVERED] > 0
    joules, unseen = sums[ACTIVE] + sums[IDLE_SHARE], _most_unseen(tally, services)
    undivided = ~known | (sums[UNDIVIDED] != 0)
    by_policy = tally.by_policy
    # Sums of the same parts in another order may differ in the last digit.
    least = sums[LOW] + by_policy.min(axis=0) - sums[DOUBT]
    low = np.minimum(joules, np.maximum(0.0, least))
    high = np.maximum(joules, sums[HIGH] + by_policy.max(axis=0) + sums[DOUBT] + unseen)
    exclusive_low = np.maximum(0.0, sums[EXCLUSIVE_LOW] - sums[ALONE_SLACK])
    exclusive_high = sums[EXCLUSIVE_HIGH] + _edge_slack(tally) + unseen
    bits = tally.marks[SAID] | _shortcomings(tally, services, reasons)
    table = (
        np.where(known, joules, UNKNOWN),
        np.where(undivided, UNKNOWN, sums[ACTIVE]),
        np.where(undivided, UNKNOWN, sums[IDLE_SHARE]),
        _load_joules(tally, services, known),
        np.where(known, low, UNKNOWN),
        np.where(known, high, UNKNOWN),
        np.where(undivided, UNKNOWN, exclusive_low),
        np.where(undivided, UNKNOWN, exclusive_high),
        sums[IDLE_WATTS],
    )
    ranks = _ranks(tally, services, gap=(bits & reasons.gaps) != 0)
    return Figures(np.array(table), ranks, bits)


def _shortcomings(tally: Tally, services: Services, reasons: Reasons) -> Times:
    """What of a service and a load lies in no measured bin."""
    covered = tally.sums[COVERED]
    whole = (covered > 0) & (covered >= services.length_ns)
    load_missed = tally.sums[LOAD_COVERED] < services.load_ns
    bits: Times = ~whole * reasons.unmeasured | load_missed * reasons.load_unmeasured
    return bits


def _load_joules(tally: Tally, services: Services, known: Mask) -> Vector:
    """Joules of the load; 0 where there was none, unknown where nobody measured it."""
    none = np.isnan(services.load_ns)
    found = (tally.sums[LOAD_COVERED] > 0) | (tally.sums[LOAD] > 0)
    return np.where(np.where(none, known, found), np.where(none, 0.0, tally.sums[LOAD]), UNKNOWN)


def _most_unseen(tally: Tally, services: Services) -> Vector:
    """What may have been used while nobody measured; unknown where there is no telling.

    An edge may lie a half-width away, so bins are missed for that much on both sides. Of a service
    that may lie elsewhere so much was in other bins as it may have been shifted beyond that.
    """
    around = tally.marks
    before_ns = around[FIRST_START] - (services.start_ns - around[FIRST_HALF])
    after_ns = services.end_ns + around[LAST_HALF] - around[LAST_END]
    elsewhere_ns = services.late_ns - np.minimum(around[FIRST_HALF], around[LAST_HALF])
    unseen_ns = tally.sums[LOST] + np.maximum(0, before_ns) + np.maximum(0, after_ns)
    unseen_ns += np.maximum(0, elsewhere_ns)
    watts = tally.of_facts(lambda one: UNKNOWN if one.max_watts is None else one.max_watts)
    unseen = np.where(unseen_ns == 0, 0.0, watts * unseen_ns / NS_PER_SECOND)
    return np.where(tally.marks[SEEN] > 0, unseen, UNKNOWN)


def _edge_slack(tally: Tally) -> Vector:
    """How much idle energy may have been taken for more or less than it was."""
    half_ns = tally.marks[FIRST_HALF] + tally.marks[LAST_HALF]
    slack = idle_joules(tally.sums[IDLE_WATTS], half_ns)
    return np.where(tally.marks[SEEN] > 0, slack, 0.0)


def _ranks(tally: Tally, services: Services, *, gap: Mask) -> Times:
    """The rank of each quality: the worst that anything makes it."""
    refreshes = services.length_ns / tally.of_facts(lambda one: one.refresh_ns)
    few = (refreshes < MEASURED_REFRESHES) * RANKS[Quality.INTERPOLATED]
    fewer = (refreshes < INTERPOLATED_REFRESHES) * RANKS[Quality.SUB_SENSOR]
    ranks = np.maximum(np.maximum(few, fewer), tally.of_facts(_best_rank))
    ranks = np.maximum(ranks, gap * RANKS[Quality.GAP])
    worst: Times = np.maximum(ranks, (tally.sums[COVERED] == 0) * RANKS[Quality.NONE])
    return worst


def _best_rank(facts: DomainFacts) -> int:
    """The rank of the best quality that a sensor can have."""
    if facts.estimated:
        return RANKS[Quality.ESTIMATED]
    return RANKS[Quality.MEASURED if facts.counter else Quality.INTERPOLATED]


def idle_joules(idle_watts: Vector, ns: Vector | Times) -> Vector:
    """The idle energy of stretches as long as edges may be off; 0 where idle is unknown.

    The energy between two edges is exact, their distance is not, so what is called idle may be
    off by this much; along a run of bins the errors of the inner edges cancel.
    """
    return np.where(np.isnan(idle_watts), 0.0, idle_watts * ns / NS_PER_SECOND)
