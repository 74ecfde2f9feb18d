"""Adds up what each request receives from each domain, as columns: a cell for both."""

from collections.abc import Iterable, Sequence

import numpy as np

from melodi.energy.columns import Rows, Runs, Times, Vector, grown, overlaps
from melodi.energy.roster import END, LOAD_END, LOAD_START, START, Guests
from melodi.energy.settlement import (
    ALONE_SLACK,
    COMPANY,
    COVERED,
    IDLE_WATTS,
    LOAD_COVERED,
    LOST,
    POLICIES,
    UNDIVIDED,
    Case,
    Settlement,
)
from melodi.energy.tally import (
    ALONE,
    FIRST_HALF,
    FIRST_START,
    LAST_END,
    LAST_HALF,
    MARKS,
    SAID,
    SEEN,
    UNKNOWN,
    DomainFacts,
    Reasons,
    Tally,
    idle_joules,
)


class Tallies:
    """The sums of all requests over the closed bins of all domains.

    There is a row of sums and one of marks for each request and domain: a cell.
    """

    def __init__(self, *, policies: int) -> None:
        self.kinds = policies
        self.reasons = Reasons()
        self._facts: list[DomainFacts] = []
        self._sums = np.zeros((0, 64, POLICIES + 2 * policies))
        self._marks = np.zeros((0, 64, MARKS), np.int64)
        self._estimates: dict[tuple[int, int], DomainFacts] = {}
        """What an estimate told for a while: no meter before or after mends that."""

    def introduce(self, facts: DomainFacts) -> int:
        """The row of a domain that books are kept of from now on."""
        self._facts.append(facts)
        self._grow(1, axis=0)
        return len(self._facts) - 1

    def change_meter(self, domain: int, facts: DomainFacts, rows: Iterable[int]) -> None:
        """Another meter tells from now on; `rows` are the requests that may know both."""
        before, self._facts[domain] = self._facts[domain], facts
        for one in (before, facts):
            if one.estimated:
                self._estimates |= {(domain, row): one for row in rows}

    def open(self, rows: Rows) -> None:
        """Requests begin."""
        if not len(rows):
            return
        while rows.max() >= self._capacity:
            self._grow(self._capacity, axis=1)
        self._marks[:, rows, SAID:] = 0
        for row in rows.tolist() if self._estimates else ():
            for domain in range(len(self._facts)):
                self._estimates.pop((domain, row), None)

    def cells(self, domains: Rows | int, rows: Rows) -> Rows:
        """Where these requests stand in the tables of these domains."""
        return rows + domains * self._capacity

    def lose(self, cells: Rows, guests: Guests, reason: str) -> None:
        """Nobody measured their bins."""
        half = guests.half_width
        start, end = guests.times[START] - half, guests.times[END] + half
        sums, marks = self._reached(cells, guests.sides)
        sums[:, LOST] += overlaps(start, np.maximum(start, end), guests.length)
        marks[:, SAID] |= self.reasons.bits(reason)
        self._keep(cells, sums, marks)

    def add(
        self,
        cells: Rows,
        layers: Rows,
        guests: Guests,
        cases: Sequence[Case],
        settlement: Settlement,
    ) -> None:
        """Take everybody's parts of measured bins, of a cell in the order of their layers."""
        idle = [one.setting.idle_watts for one in cases]
        watts = np.array([UNKNOWN if one is None else one for one in idle])[guests.bin]
        _fill(settlement, guests, watts, bins=len(cases))
        alone = np.zeros(len(guests), np.bool_)
        alone[settlement.alone] = True
        words = [
            self.reasons.bits(*case.doubts(unwatched=posting.unwatched))
            for case, posting in zip(cases, settlement.postings, strict=True)
        ]
        said = np.array(words)[guests.bin]
        more = settlement.sums
        for part in Runs.of_equal(layers).parts:
            sums, marks = self._reached(cells[part], guests.sides[:, part])
            # The edges of a run of bins may be off, in which nobody was beside it.
            more[ALONE_SLACK, part] *= marks[:, ALONE] == 0
            marks[:, ALONE] = alone[part]
            marks[:, SAID] |= said[part]
            sums += more[:, part].T
            sums[:, IDLE_WATTS] = watts[part]
            self._keep(cells[part], sums, marks)

    def explain(self, cells: Rows, word: str) -> None:
        """Say why what these requests got is less sure than it might be."""
        self._marks.reshape(-1, MARKS)[cells, SAID] |= self.reasons.bits(word)

    def of(self, rows: Rows, domains: Sequence[int]) -> Tally:
        """What requests have received of domains so far."""
        cells = self.cells(np.array(domains)[:, None], rows)
        sums, marks = self._cells(cells)
        unseen = marks[:, :, SEEN] == 0
        if unseen.any():
            sums[unseen] = 0.0
            sums[unseen, IDLE_WATTS] = UNKNOWN
        told = {
            (k, n): self._estimates[domain, row]
            for k, domain in enumerate(domains if self._estimates else ())
            for n, row in enumerate(rows.tolist())
            if (domain, row) in self._estimates
        }
        facts = [self._facts[one] for one in domains]
        return Tally(facts, told, sums.transpose(2, 0, 1).copy(), marks.transpose(2, 0, 1).copy())

    @property
    def _capacity(self) -> int:
        return self._marks.shape[1]

    def _cells(self, cells: Rows) -> tuple[Vector, Times]:
        """A copy of these cells."""
        sums = self._sums.reshape(-1, self._sums.shape[-1])
        return sums.take(cells, axis=0), self._marks.reshape(-1, MARKS).take(cells, axis=0)

    def _keep(self, cells: Rows, sums: Vector, marks: Times) -> None:
        self._sums.reshape(-1, self._sums.shape[-1])[cells] = sums
        self._marks.reshape(-1, MARKS)[cells] = marks

    def _reached(self, cells: Rows, sides: Times) -> tuple[Vector, Times]:
        """A copy of these cells, whose last bins these are, and the first of some."""
        sums, marks = self._cells(cells)
        start_ns, end_ns, half_ns = sides
        new = (marks[:, SEEN] == 0).nonzero()[0]
        if len(new):
            sums[new] = 0.0
            sums[new, IDLE_WATTS] = UNKNOWN
            marks[new, FIRST_START], marks[new, FIRST_HALF] = start_ns[new], half_ns[new]
            marks[new, SEEN] = 1
        marks[:, LAST_END], marks[:, LAST_HALF] = end_ns, half_ns
        return sums, marks

    def _grow(self, more: int, *, axis: int) -> None:
        self._sums = grown(self._sums, more, axis=axis)
        self._marks = grown(self._marks, more, axis=axis)


def _fill(settlement: Settlement, guests: Guests, watts: Vector, *, bins: int) -> None:
    """The times of each guest in its bin, and the slack of its edges, behind its joules."""
    sums = settlement.sums
    sums[COVERED] = guests.tau
    present = np.bincount(guests.bin, guests.tau, bins)
    sums[COMPANY] = guests.tau * (present[guests.bin] / guests.length)
    sums[UNDIVIDED] = np.isnan(watts) * guests.length
    if guests.waiting is not None:
        load_start, load_end = guests.times[LOAD_START], guests.times[LOAD_END]
        sums[LOAD_COVERED] = overlaps(load_start, load_end, guests.length)
    if settlement.alone:
        one = settlement.alone
        sums[ALONE_SLACK, one] = idle_joules(watts[one], 2 * guests.half_width[one])
