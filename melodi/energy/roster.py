"""Everybody in the books as columns: one row per request, the same row in every domain."""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from melodi.energy.bins import Bin, Interval, Span
from melodi.energy.columns import Rows, Vector, grown

START, END, PREFILL, FIRST, LOAD_START, LOAD_END = range(6)
"""Times of a request: its service, when its prompt was read until its first token, its load."""
INPUT, UNCACHED, OUTPUT, PER_PIECE, COUNTED = range(5)
"""Its tokens: of the prompt, those not cached, of the answer, per piece; 1 if they are known."""
NOT_YET_NS = 1 << 60
"""Later than anything: the end of a request that still runs."""
NEVER_NS = -1
UNSEEN = array("q")


class Group(NamedTuple):
    """Requests that share engine steps and model loads."""

    backend: str
    model: str


UNKNOWN = Group("", "")


@dataclass(frozen=True, slots=True)
class Guests:
    """Some requests as they stand to one bin: columns, times in ns from the bin's start."""

    rows: Rows
    times: Vector
    counts: Vector
    group: Rows
    arrivals: "list[array[int]]"

    def __len__(self) -> int:
        return len(self.rows)

    def among(self, chosen: npt.NDArray[np.bool_]) -> "Guests":
        """Only those chosen."""
        if chosen.all():
            return self
        arrivals = [one for one, keep in zip(self.arrivals, chosen.tolist(), strict=True) if keep]
        return Guests(
            self.rows[chosen],
            self.times[:, chosen],
            self.counts[:, chosen],
            self.group[chosen],
            arrivals,
        )


class Roster:
    """Gives each request a row, and the row out again once nobody holds it."""

    def __init__(self) -> None:
        self.times = np.zeros((0, 6), np.int64)
        self.counts = np.zeros((0, 5))
        self.group = np.zeros(0, np.intp)
        self.ended = np.zeros(0, np.bool_)
        self.gone = np.zeros(0, np.bool_)
        """Its record was given out without waiting any longer: its share is nobody's."""
        self.arrivals: list[array[int]] = []
        self.groups = [UNKNOWN]
        self._numbers = {UNKNOWN: 0}
        self._holders: list[int] = []
        self._free: list[int] = []

    @property
    def capacity(self) -> int:
        """Rows that there are, taken or free."""
        return len(self.arrivals)

    def enter(self, sent_ns: int, *, holders: int) -> int:
        """A row for a request that begins, until so many have let go of it and it is over."""
        if not self._free:
            self._grow()
        row = self._free.pop()
        self.times[row] = (sent_ns, NOT_YET_NS, sent_ns, sent_ns, NEVER_NS, NEVER_NS)
        self.counts[row] = 0.0
        self.group[row] = 0
        self.ended[row] = self.gone[row] = False
        self._holders[row] = holders
        return row

    def tell(self, row: int, span: Span) -> None:
        """The request has ended, and this was its service."""
        start_ns, end_ns = span.service.start_ns, span.service.end_ns
        first_ns, work = span.first_token_ns, span.work
        load = (NEVER_NS, NEVER_NS)
        if span.load is not None:
            load = (span.load.start_ns, span.load.end_ns)
        prefill = (start_ns, start_ns if first_ns is None else max(start_ns, first_ns))
        if work is not None:
            prefill = work.prefill_ns(start_ns, end_ns, first_token_ns=first_ns)
            self.counts[row] = (
                *(work.input_tokens, work.prefill_tokens, work.output_tokens),
                *(work.per_piece, 1.0),
            )
            self.arrivals[row] = work.arrivals_ns
        self.times[row] = (start_ns, end_ns, *prefill, *load)
        self.group[row] = self._number(Group(span.backend, span.model))
        self.ended[row] = True

    def finish(self, row: int) -> None:
        """The request's record is out: what its bins still bring is nobody's."""
        self.gone[row] = True
        self._clear(row)

    def release(self, rows: Iterable[int]) -> None:
        """A holder has no more use for these."""
        for row in rows:
            self._holders[row] -= 1
            self._clear(row)

    def service(self, row: int, now_ns: int) -> Interval:
        """A request's service, as far as it is known at `now_ns`."""
        start_ns, end_ns = self.times[row, :2].tolist()
        return Interval(start_ns, end_ns if self.ended[row] else max(start_ns, now_ns))

    def touching(self, rows: Rows, bin_: Bin) -> Guests:
        """Those of `rows` whose service, or the load they waited for, may overlap the bin."""
        times = (self.times[rows] - bin_.start_ns).astype(np.float64).T
        early, late = -bin_.half_width_ns, bin_.length_ns + bin_.half_width_ns
        near = (times[START] < late) & (times[END] > early)
        near |= (times[LOAD_START] < late) & (times[LOAD_END] > early)
        if not near.all():
            rows, times = rows[near], times[:, near]
        arrivals = [self.arrivals[row] for row in rows.tolist()]
        return Guests(rows, times, self.counts[rows].T, self.group[rows], arrivals)

    def _number(self, group: Group) -> int:
        if group not in self._numbers:
            self._numbers[group] = len(self.groups)
            self.groups.append(group)
        return self._numbers[group]

    def _clear(self, row: int) -> None:
        if self.gone[row] and self._holders[row] == 0:
            self.arrivals[row] = UNSEEN
            self._free.append(row)

    def _grow(self) -> None:
        before, more = self.capacity, max(64, self.capacity)
        self.times, self.counts = grown(self.times, more), grown(self.counts, more)
        self.group = grown(self.group, more)
        self.ended, self.gone = grown(self.ended, more), grown(self.gone, more)
        self.arrivals += [UNSEEN] * more
        self._holders += [0] * more
        self._free += reversed(range(before, before + more))
