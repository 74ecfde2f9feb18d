"""Adds up what each request receives from one domain, as columns: a row per request."""

import math
from collections.abc import Iterable, Set

import numpy as np

from melodi.energy.attribution import PARTS, Settlement
from melodi.energy.bins import Bin
from melodi.energy.columns import Rows, grown, overlaps
from melodi.energy.roster import END, LOAD_END, LOAD_START, START, Guests
from melodi.energy.tally import DomainFacts, Tally, idle_joules

COVERED, LOST, LOAD_COVERED, COMPANY, ALONE_SLACK, UNDIVIDED = range(PARTS, PARTS + 6)
POLICIES = PARTS + 6
"""Behind the sums above: what each policy would give, then what each has divided."""


class Tallies:
    """The sums of a domain's requests over its closed bins, in the order of a Tally."""

    def __init__(self, facts: DomainFacts, *, policies: int) -> None:
        self.facts = facts
        self._last_sum = POLICIES + policies
        self._sums = np.zeros((0, POLICIES + 2 * policies))
        self._around = np.zeros((0, 4), np.int64)
        self._seen = np.zeros(0, np.bool_)
        self._alone = np.zeros(0, np.bool_)
        self._reasons = np.zeros(0, np.int64)
        self._names: list[str] = []
        self._known: dict[int, frozenset[str]] = {}
        self._idle_watts = np.zeros(0)
        self._estimated: dict[int, DomainFacts] = {}
        """What an estimate told of these for a while: no meter before or after mends that."""

    def open(self, row: int) -> None:
        """A request begins."""
        while row >= len(self._seen):
            self._grow()
        self._seen[row] = False
        self._reasons[row] = 0
        self._estimated.pop(row, None)

    def change_meter(self, facts: DomainFacts, rows: Iterable[int]) -> None:
        """Another meter tells from now on; `rows` are the requests that may know both."""
        before, self.facts = self.facts, facts
        for one in (before, facts):
            if one.estimated:
                self._estimated |= dict.fromkeys(rows, one)

    def lose(self, guests: Guests, bin_: Bin) -> None:
        """Nobody measured the bin."""
        self._pass_by(guests.rows, bin_)
        half, length = bin_.half_width_ns, float(bin_.length_ns)
        start, end = guests.times[START] - half, guests.times[END] + half
        self._sums[guests.rows, LOST] += overlaps(start, np.maximum(start, end), length)
        self.explain(guests.rows, [bin_.reason or "unmeasured"])

    def add(
        self, guests: Guests, bin_: Bin, settlement: Settlement, *, idle_watts: float | None
    ) -> None:
        """Take everybody's parts of a measured bin."""
        rows, length = guests.rows, float(bin_.length_ns)
        self._pass_by(rows, bin_)
        more = np.zeros((POLICIES - PARTS, len(rows)))
        more[COVERED - PARTS] = guests.tau
        more[COMPANY - PARTS] = guests.tau * (float(guests.tau.sum()) / length)
        if guests.waiting is not None:
            load_start, load_end = guests.times[LOAD_START], guests.times[LOAD_END]
            more[LOAD_COVERED - PARTS] = overlaps(load_start, load_end, length)
        if idle_watts is None:
            more[UNDIVIDED - PARTS] = length
        if settlement.alone is not None and not self._alone[rows[settlement.alone]]:
            slack = idle_joules(idle_watts, 2 * bin_.half_width_ns)
            more[ALONE_SLACK - PARTS, settlement.alone] = slack
        self._sums[rows] += np.concatenate((settlement.parts, more, settlement.by_policy)).T
        self._alone[rows] = False
        if settlement.alone is not None:
            self._alone[rows[settlement.alone]] = True
        self._idle_watts[rows] = np.nan if idle_watts is None else idle_watts
        reasons = [] if bin_.reason is None else [bin_.reason]
        self.explain(rows, reasons if idle_watts is not None else [*reasons, "idle_unknown"])

    def explain(self, rows: Rows, reasons: Iterable[str]) -> None:
        """Say why what these requests got is less sure than it might be."""
        for reason in reasons:
            if reason not in self._names:
                self._names.append(reason)
            self._reasons[rows] |= 1 << self._names.index(reason)

    def of(self, row: int) -> Tally:
        """What the request has received so far."""
        facts = self._estimated.get(row, self.facts)
        if not self._seen[row]:
            return Tally(
                *[0.0] * POLICIES,
                facts=facts,
                by_policy=(0.0,),
                divided=(0.0,) * (self._sums.shape[1] - self._last_sum),
                around=None,
                idle_watts=None,
                reasons=self._named(self._reasons.item(row)),
            )
        sums, watts = self._sums[row].tolist(), self._idle_watts.item(row)
        return Tally(
            *sums[:POLICIES],
            facts=facts,
            by_policy=sums[POLICIES : self._last_sum],
            divided=sums[self._last_sum :],
            around=tuple(self._around[row].tolist()),
            idle_watts=None if math.isnan(watts) else watts,
            reasons=self._named(self._reasons.item(row)),
        )

    def _named(self, bits: int) -> Set[str]:
        if bits not in self._known:
            names = {name for k, name in enumerate(self._names) if bits >> k & 1}
            self._known[bits] = frozenset(names)
        return self._known[bits]

    def _pass_by(self, rows: Rows, bin_: Bin) -> None:
        """The bin is the last that held a part of these requests, and of some the first."""
        new = rows[~self._seen[rows]]
        if len(new):
            self._seen[new] = True
            self._sums[new] = 0.0
            self._alone[new] = False
            self._idle_watts[new] = np.nan
            self._around[new, :2] = bin_.start_ns, bin_.half_width_ns
        self._around[rows, 2:] = bin_.end_ns, bin_.half_width_ns

    def _grow(self) -> None:
        more = max(64, len(self._seen))
        self._sums, self._around = grown(self._sums, more), grown(self._around, more)
        self._seen, self._alone = grown(self._seen, more), grown(self._alone, more)
        self._reasons = grown(self._reasons, more)
        self._idle_watts = grown(self._idle_watts, more)
