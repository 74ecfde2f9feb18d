"""The books of one power domain: bins that are open, requests that may be in them."""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from melodi.clock import NS_PER_SECOND
from melodi.energy.bins import Bin
from melodi.energy.columns import Rows, Times
from melodi.energy.engine import Engines
from melodi.energy.foresight import foresee
from melodi.energy.idle import IdleLearner
from melodi.energy.policies import Policy
from melodi.energy.roster import END, Group, Roster
from melodi.energy.settlement import Case, Setting
from melodi.energy.tallies import Tallies
from melodi.energy.tally import DomainFacts, Tally
from melodi.energy.usage import UsageLog

LEARNING_NS = 10 * NS_PER_SECOND
MAX_OPEN_NS = 600 * NS_PER_SECOND


@dataclass(frozen=True, slots=True)
class Turn:
    """A bin that is being closed."""

    books: "DomainBooks"
    bin: Bin
    measured_uj: int
    """What was measured since the last one."""
    present: Rows
    """Who may be in it."""
    left: Rows
    """Those of them who are in no later one."""
    layer: int
    """How many bins of the domain are closed together with it, and before it."""


class DomainBooks:
    """Tells when the oldest bin of a domain may close: when nothing in it can change any more."""

    def __init__(
        self,
        facts: DomainFacts,
        roster: Roster,
        tallies: Tallies,
        engines: Engines,
        *,
        policies: Callable[[], Sequence[Policy]],
        idle_watts: float | None,
        quiet_ns: int,
    ) -> None:
        self.facts = facts
        self.idle = IdleLearner(watts=idle_watts)
        self.usage = UsageLog()
        self.place = tallies.introduce(facts)
        """Its row in the tallies."""
        self._present: Rows = np.zeros(0, np.intp)
        self._tallies = tallies
        self._roster = roster
        self._engines = engines
        self._new_policies = policies
        self._policies: dict[Group, Sequence[Policy]] = {}
        self._quiet_ns = quiet_ns
        self._open: deque[Bin] = deque()
        self._coming: Rows = np.zeros(0, np.intp)
        self._coming_ns: Times = np.zeros(0, np.int64)
        """When they were sent, in order."""
        self._closed_ns: int | None = None
        self._closed_uj: int | None = None
        self._half_width_ns = 0
        self._busy_ns: int | None = None
        self._started_ns: int | None = None

    @property
    def heard_ns(self) -> int | None:
        """Until when its sensor has told its energy."""
        return self._open[-1].end_ns if self._open else self._closed_ns

    @property
    def _here(self) -> Rows:
        """Who may be in a bin that is open."""
        return np.concatenate((self._present, self._coming))

    @property
    def settled_ns(self) -> float:
        """Services that ended by then have all their bins closed."""
        return -math.inf if self._closed_ns is None else self._closed_ns - self._half_width_ns

    def change_meter(self, facts: DomainFacts) -> None:
        """Another meter tells of the domain; what one calls idle says nothing of the other."""
        if facts.source != self.facts.source:
            self.idle = IdleLearner()
        self._tallies.change_meter(self.place, facts, self._here.tolist())
        self.facts = facts

    def add(self, bin_: Bin) -> None:
        """A new bin, in the order of the domain's curve."""
        if self._started_ns is None:
            self._started_ns = bin_.start_ns
        self._open.append(bin_)

    def welcome(self, rows: Rows, sent_ns: Times) -> None:
        """Requests were sent, in order of time, that may run here, maybe too late for its bins."""
        if not len(self._coming):
            self._coming, self._coming_ns = rows, sent_ns
        else:
            in_order = self._coming_ns.item(-1) <= sent_ns.item(0)
            self._coming = np.concatenate((self._coming, rows))
            self._coming_ns = np.concatenate((self._coming_ns, sent_ns))
            if not in_order:
                order = self._coming_ns.argsort(kind="stable")
                self._coming, self._coming_ns = self._coming[order], self._coming_ns[order]
        if sent_ns.item(0) < self.settled_ns:
            self.explain(rows[sent_ns < self.settled_ns], "late")

    def explain(self, rows: Rows, reason: str) -> None:
        """Say why what requests get here is less sure than it might be."""
        self._tallies.explain(self._tallies.cells(self.place, rows), reason)

    def is_silent(self, end_ns: int, *, now_ns: int, patience_ns: int) -> bool:
        """Whether no bin of a service that ended then will come: the sensor has said nothing."""
        heard_ns = self.heard_ns
        told = heard_ns is not None and heard_ns >= end_ns + self._half_width_ns
        return not told and not self._open and now_ns >= end_ns + patience_ns

    def next_closable(self, now_ns: int, *, settle_ns: int) -> Bin | None:
        """The oldest bin, if it may be closed now."""
        if not self._open:
            return None
        bin_ = self._open[0]
        age_ns = now_ns - bin_.end_ns
        if age_ns < settle_ns:
            return None
        if age_ns >= MAX_OPEN_NS:
            return bin_
        self._seat(bin_)
        if not self._roster.placed.take(self._present).all() or self.usage.is_due(bin_, now_ns):
            return None
        if age_ns < LEARNING_NS and self._could_learn(bin_, now_ns - settle_ns):
            return None
        return bin_

    def may_join(self, bin_: Bin) -> bool:
        """Whether the oldest bin may be closed together with those before it.

        That is so while nothing about idle power can be learned from any of them.
        """
        busy_ns = self._busy_ns
        is_busy = busy_ns is not None and bin_.start_ns - busy_ns < self._quiet_ns
        return is_busy and bin_.energy_uj is not None

    def take(self, bin_: Bin, *, layer: int) -> Turn:
        """Take the oldest bin out to close it."""
        self._open.popleft()
        self._seat(bin_)
        start_uj = bin_.total_uj - (bin_.energy_uj or 0)
        measured_uj = bin_.total_uj - (start_uj if self._closed_uj is None else self._closed_uj)
        self._closed_ns, self._closed_uj = bin_.end_ns, bin_.total_uj
        self._half_width_ns = bin_.half_width_ns
        present = self._present
        return Turn(self, bin_, measured_uj, present, self._dismiss(bin_), layer)

    def case(self, bin_: Bin) -> Case:
        """What is known at the bin, and what makes its division less sure."""
        known = self.usage.during(bin_)
        shares, reasons = (None, set()) if known is None else known
        if known is None and not self.facts.exclusive:
            reasons = {"foreign_unknown"}
        setting = Setting(
            idle_watts=bin_.booked.idle_watts if bin_.booked else self.idle.watts,
            max_watts=self.facts.max_watts,
            shares=shares,
            exclusive=self.facts.exclusive,
            engines=self._engines.during(bin_),
        )
        return Case(bin_, setting, self._policies_of, reasons)

    def pass_by(self, turn: Turn, last_ns: float | None) -> int | None:
        """A bin is closed, and the last service in it ended `last_ns` after its start, if any.

        Gives how long before the bin the last service ended, in ns; None: there was none yet.
        """
        bin_ = turn.bin
        if last_ns is not None:
            busy_ns = bin_.start_ns + int(last_ns)
            self._busy_ns = max(busy_ns, self._busy_ns or busy_ns)
        idle_ns = None if self._busy_ns is None else max(0, bin_.start_ns - self._busy_ns)
        since_ns = idle_ns if idle_ns is not None else bin_.start_ns - (self._started_ns or 0)
        self.idle.feed(bin_, quiet=since_ns >= self._quiet_ns)
        self.usage.forget(bin_.end_ns)
        return idle_ns

    def foresee(self, tally: Tally, domain: int, row: int, now_ns: int) -> None:
        """Add what a request would get from bins that are open still to its tally."""
        if not self._open:
            return
        service = self._roster.service(row, now_ns)
        everybody = self._roster.times[:2, self._here]
        case = self.case(self._open[-1])
        unknown = {"idle_unknown"} if self.idle.watts is None else set()
        foresee(
            tally,
            domain,
            service,
            (everybody - service.start_ns).astype(np.float64),
            list(self._open),
            idle_watts=self.idle.watts,
            doubts=case.reasons | unknown,
            reasons=self._tallies.reasons,
        )

    def _seat(self, bin_: Bin) -> None:
        """Everybody who was sent before the bin's end may be in it."""
        until_ns = bin_.end_ns + bin_.half_width_ns
        if len(self._coming) and self._coming_ns.item(0) < until_ns:
            come = self._coming_ns.searchsorted(until_ns)
            self._present = np.concatenate((self._present, self._coming[:come]))
            self._coming, self._coming_ns = self._coming[come:], self._coming_ns[come:]

    def _dismiss(self, bin_: Bin) -> Rows:
        """Nobody whose service ended well before the bin's end can be in a later one."""
        if not len(self._present):
            return self._present
        past_ns = bin_.end_ns - bin_.half_width_ns
        leaves = self._roster.times[END].take(self._present) < past_ns
        left: Rows = self._present[leaves]
        if len(left):
            self._present = self._present[~leaves]
        return left

    def _could_learn(self, bin_: Bin, until_ns: int) -> bool:
        """Whether to wait a little, so that the first idle seconds of all are known as idle."""
        if self.idle.watts is not None or len(self._here):
            return False
        if self._busy_ns is not None and bin_.start_ns - self._busy_ns < self._quiet_ns:
            return False
        ahead = IdleLearner()
        for one in self._open:
            if one.end_ns <= until_ns:
                ahead.feed(one, quiet=True)
        self.idle.watts = ahead.watts
        return ahead.watts is None

    def _policies_of(self, group: Group) -> Sequence[Policy]:
        if group not in self._policies:
            self._policies[group] = self._new_policies()
        return self._policies[group]
