"""Everybody in the books as columns: one row per request, the same row in every domain."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from melodi.energy.arrivals import Arrivals
from melodi.energy.bins import Bin, Interval, Span
from melodi.energy.columns import Mask, Rows, Times, Vector, grown, overlaps

START, END, PREFILL, FIRST, LOAD_START, LOAD_END = range(6)
"""Times of a request: its service, when its prompt was read until its first token, its load."""
INPUT, PREFILL_RATE, DECODE_RATE, PER_PIECE, COUNTED = range(5)
"""Its tokens: of the prompt, prefilled and decoded a ns, per piece; 1 where they are known."""
NOT_YET_NS = 1 << 60
"""Later than anything: the end of a request that still runs."""
NEVER_NS = -1
NOTHING = (0.0, 0.0, 0.0, 0.0, 1.0)
"""The tokens of a request that was never in service."""


class Group(NamedTuple):
    """Requests that share engine steps and model loads."""

    backend: str
    model: str


UNKNOWN = Group("", "")


@dataclass(slots=True)
class Guests:
    """Some requests as they stand to one bin: columns, times in ns from the bin's start."""

    rows: Rows
    times: Vector
    counts: Vector
    group: Rows
    arrived: Vector
    """Output tokens that had arrived at the bin's start, and at its end."""
    tau: Vector
    """How long each was in service."""
    waiting: Mask | None = None
    """Who waited for a load in the bin; None: nobody."""
    served: Mask | None = None
    """Who may have been in service, edges taken with their uncertainty; None: everybody."""

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def none(cls) -> "Guests":
        """Nobody."""
        rows = np.zeros(0, np.intp)
        return cls(rows, np.zeros((6, 0)), np.zeros((5, 0)), rows, np.zeros((2, 0)), np.zeros(0))

    def among(self, chosen: Mask) -> "Guests":
        """Only those chosen."""
        return Guests(
            self.rows[chosen],
            self.times[:, chosen],
            self.counts[:, chosen],
            self.group[chosen],
            self.arrived[:, chosen],
            self.tau[chosen],
        )


NOBODY = Guests.none()


class Roster:
    """Gives each request a row, and the row out again once nobody holds it."""

    def __init__(self) -> None:
        self.times = np.zeros((0, 6), np.int64)
        self.counts = np.zeros((0, 5))
        self.group = np.zeros(0, np.intp)
        self.ended = np.zeros(0, np.bool_)
        self.gone = np.zeros(0, np.bool_)
        """Its record was given out without waiting any longer: its share is nobody's."""
        self._arrivals = Arrivals()
        self.groups = [UNKNOWN]
        self._numbers = {UNKNOWN: 0}
        self._holders: list[int] = []
        self._loads = 0
        self._free: list[int] = []

    @property
    def capacity(self) -> int:
        """Rows that there are, taken or free."""
        return len(self._holders)

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
            self._loads += 1
        prefill = (start_ns, start_ns if first_ns is None else min(max(start_ns, first_ns), end_ns))
        if start_ns == end_ns:
            self.counts[row] = NOTHING
        elif work is not None:
            prefill = work.prefill_ns(start_ns, end_ns, first_token_ns=first_ns)
            self.counts[row] = (
                work.input_tokens,
                work.prefill_tokens / (prefill[1] - prefill[0]),
                max(0, work.output_tokens - 1) / max(1, end_ns - prefill[1]),
                work.per_piece,
                1.0,
            )
            if work.per_piece > 0:
                self._arrivals.put(row, work.arrivals_ns, start_ns, end_ns)
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
        if not len(rows):
            return NOBODY
        times = self.times[rows]
        start, end = times[:, START], times[:, END]
        early, late = bin_.start_ns - bin_.half_width_ns, bin_.end_ns + bin_.half_width_ns
        served = (start < late) & (end > early)
        if bin_.half_width_ns == 0:
            served &= end > start
        waiting = None
        if self._loads:
            waiting = (times[:, LOAD_START] < late) & (times[:, LOAD_END] > early)
            waiting = waiting if waiting.any() else None
        near = served if waiting is None else served | waiting
        if not near.all():
            rows, times, served = rows[near], times[near], served[near]
            waiting = None if waiting is None else waiting[near]
        return self._guests(rows, times, bin_, served if waiting is not None else None, waiting)

    def _guests(
        self, rows: Rows, times: Times, bin_: Bin, served: Mask | None, waiting: Mask | None
    ) -> Guests:
        relative = (times - bin_.start_ns).astype(np.float64).T
        counts = self.counts[rows].T
        ends = np.array(((bin_.start_ns,), (bin_.end_ns,)))
        edges = np.minimum(np.maximum(ends, times[:, START]), times[:, END] + 1)
        return Guests(
            rows,
            relative,
            counts,
            self.group[rows],
            self._arrivals.before(rows, edges) * counts[PER_PIECE],
            overlaps(relative[START], relative[END], float(bin_.length_ns)),
            waiting,
            served,
        )

    def _number(self, group: Group) -> int:
        if group not in self._numbers:
            self._numbers[group] = len(self.groups)
            self.groups.append(group)
        return self._numbers[group]

    def _clear(self, row: int) -> None:
        if self.gone[row] and self._holders[row] == 0:
            self._arrivals.drop(row)
            self._loads -= int(self.times[row, LOAD_END] != NEVER_NS)
            self._free.append(row)

    def _grow(self) -> None:
        before, more = self.capacity, max(64, self.capacity)
        self.times, self.counts = grown(self.times, more), grown(self.counts, more)
        self.group = grown(self.group, more)
        self.ended, self.gone = grown(self.ended, more), grown(self.gone, more)
        self._arrivals.resize(more)
        self._holders += [0] * more
        self._free += reversed(range(before, before + more))
