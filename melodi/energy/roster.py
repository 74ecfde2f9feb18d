"""Everybody in the books as columns: one row per request, the same row in every domain."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from melodi.energy.arrivals import Arrivals
from melodi.energy.bins import Bin, Interval, Span
from melodi.energy.columns import Mask, Rows, Runs, Times, Vector, grown, overlaps
from melodi.energy.work import held_up_ns

START, END, PREFILL, FIRST, LOAD_START, LOAD_END = range(6)
"""Times of a request: its service, when its prompt was read until its first token, its load."""
INPUT, PREFILL_RATE, DECODE_RATE, PER_PIECE, COUNTED = range(5)
"""Its tokens: of the prompt, prefilled and decoded a ns, per piece; 1 where they are known."""
NOT_YET_NS = 1 << 60
"""Later than anything: the end of a request that still runs."""
NEVER_NS = -1
_NO_TIMES = np.array([[NEVER_NS], [NOT_YET_NS], *([NEVER_NS],) * 4])
_UNCOUNTED = (0.0, 0.0, 0.0, 0.0, 0.0)
_NOTHING = (0.0, 0.0, 0.0, 0.0, 1.0)
"""The tokens of a request that was never in service."""


class Group(NamedTuple):
    """Requests that share engine steps and model loads."""

    backend: str
    model: str


UNKNOWN = Group("", "")


@dataclass(slots=True)
class Guests:
    """Some requests as they stand to a bin each: columns, times in ns from the bin's start.

    Those of one bin follow one another, and in it those of one model.
    """

    rows: Rows
    bin: Rows
    """The number of the bin, among those asked about."""
    tables: Runs
    """Those of one model in one bin."""
    groups: list[Group]
    """The model of each table."""
    times: Vector
    counts: Vector
    arrived: Vector
    """Output tokens that had arrived at the bin's start, and at its end."""
    sides: Times
    """Start, end and half-width of the bin."""
    length: Vector
    half_width: Vector
    tau: Vector
    """How long each was in service."""
    late: Vector
    """How much longer than its service was seen it may have been on the way, at either end."""
    waiting: Mask | None = None
    """Who waited for a load in the bin; None: nobody."""
    served: Mask | None = None
    """Who may have been in service, edges taken with their uncertainty; None: everybody."""

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def none(cls) -> "Guests":
        """Nobody."""
        rows, column = np.zeros(0, np.intp), np.zeros(0)
        times, counts, arrived = (np.zeros((height, 0)) for height in (6, 5, 2))
        sides = np.zeros((3, 0), np.int64)
        runs = Runs.of_equal(rows)
        return cls(rows, rows, runs, [], times, counts, arrived, sides, *(column,) * 4, None, None)


NOBODY = Guests.none()


class Roster:
    """Gives each request a row, and the row out again once nobody holds it.

    Requests come and go one by one, and are written into the columns many at a time by `write`:
    a column costs as much to write to for one as for fifty.
    """

    def __init__(self) -> None:
        self.times = np.zeros((6, 0), np.int64)
        self.counts = np.zeros((5, 0))
        self.late_ns = np.zeros(0)
        self.group = np.zeros(0, np.intp)
        self.ended = np.zeros(0, np.bool_)
        self.placed = np.zeros(0, np.bool_)
        """It has ended, and nothing is waited for that tells where its tokens were."""
        self.gone = np.zeros(0, np.bool_)
        """Its record was given out without waiting any longer: its share is nobody's."""
        self._arrivals = Arrivals()
        self.groups = [UNKNOWN]
        self._numbers = {UNKNOWN: 0}
        self._holders: list[int] = []
        self._come: list[tuple[int, int]] = []
        self._told: list[tuple[int, Span, bool]] = []
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
        self._holders[row] = holders
        self._come.append((row, sent_ns))
        return row

    def tell(self, row: int, span: Span, *, waits: bool) -> None:
        """The request has ended, and this was its service; whether more `waits` to be told."""
        self._told.append((row, span, waits))

    def write(self) -> Rows:
        """Bring the columns up to date; gives the rows of those who came since the last time."""
        come = self._write_come()
        told, self._told = self._told, []
        if told:
            self._write_told(told)
        return come

    def place(self, row: int, span: Span) -> None:
        """Where its tokens were is known better, and for good."""
        self.times[:LOAD_START, row], self.counts[:, row] = _placed(span)
        self.placed[row] = True

    def finish(self, rows: Sequence[int]) -> None:
        """The requests' records are out: what their bins still bring is nobody's."""
        self.gone[rows] = True
        self._free_again([row for row in rows if self._holders[row] == 0])

    def release(self, rows: Iterable[int]) -> None:
        """Holders have no more use for these; a row stands here once for each."""
        unused = []
        for row in rows:
            self._holders[row] -= 1
            if self._holders[row] == 0 and self.gone[row]:
                unused.append(row)
        self._free_again(unused)

    def service(self, row: int, now_ns: int) -> Interval:
        """A request's service, as far as it is known at `now_ns`."""
        start_ns, end_ns = self.times[:2, row].tolist()
        return Interval(start_ns, end_ns if self.ended[row] else max(start_ns, now_ns))

    def touching(self, asked: Sequence[tuple[Bin, Rows]]) -> Guests:
        """Of the rows asked about for each bin, those who may have been in it.

        Their service, or the load they waited for, may overlap the bin.
        """
        rows = np.concatenate([some for _, some in asked])
        if not len(rows):
            return NOBODY
        number = np.arange(len(asked)).repeat([len(some) for _, some in asked])
        sides = np.array([(one.start_ns, one.end_ns, one.half_width_ns) for one, _ in asked]).T
        times = self.times.take(rows, axis=1)
        sides = sides.take(number, axis=1)
        start_ns, end_ns, half_ns = sides
        served, waiting = self._near(times, start_ns - half_ns, end_ns + half_ns)
        served &= (half_ns > 0) | (times[END] > times[START])
        tables = number * len(self.groups) + self.group[rows]
        near = served if waiting is None else served | waiting
        if not near.all() or (tables[1:] < tables[:-1]).any():
            order = near.nonzero()[0]
            order = order[tables[order].argsort(kind="stable")]
            rows, number, tables = rows[order], number[order], tables[order]
            times, sides = times.take(order, axis=1), sides.take(order, axis=1)
            served, waiting = served[order], None if waiting is None else waiting[order]
        relative = (times - sides[0]).astype(np.float64)
        length = (sides[1] - sides[0]).astype(np.float64)
        counts, parts = self.counts.take(rows, axis=1), Runs.of_equal(tables)
        edges = np.minimum(np.maximum(sides[:2], times[START]), times[END] + 1)
        return Guests(
            rows,
            number,
            parts,
            [self.groups[one] for one in self.group[rows[parts.starts]].tolist()],
            relative,
            counts,
            self._arrivals.before(rows, edges) * counts[PER_PIECE],
            sides,
            length,
            sides[2].astype(np.float64),
            overlaps(relative[START], relative[END], length),
            self.late_ns[rows],
            waiting,
            None if waiting is None else served,
        )

    def _near(self, times: Times, early_ns: Times, late_ns: Times) -> tuple[Mask, Mask | None]:
        """Who may be in service between these, and who may wait for a load; None: nobody."""
        served = (times[START] < late_ns) & (times[END] > early_ns)
        if not self._loads:
            return served, None
        waiting = (times[LOAD_START] < late_ns) & (times[LOAD_END] > early_ns)
        return served, waiting if waiting.any() else None

    def _write_come(self) -> Rows:
        come, self._come = self._come, []
        if not come:
            return NOBODY.rows
        rows, sent_ns = (np.array(column, np.int64) for column in zip(*come, strict=True))
        self.times[:, rows] = _NO_TIMES
        self.times[START, rows] = self.times[PREFILL, rows] = self.times[FIRST, rows] = sent_ns
        self.counts[:, rows] = 0.0
        self.late_ns[rows] = 0.0
        self.group[rows] = 0
        self.ended[rows] = self.placed[rows] = self.gone[rows] = False
        return rows

    def _write_told(self, told: Sequence[tuple[int, Span, bool]]) -> None:
        times, counts, streams = [], [], []
        for row, span, _ in told:
            work, load = span.work, span.load
            if load is not None:
                self.times[LOAD_START:, row] = load.start_ns, load.end_ns
                self._loads += 1
            if work is not None and work.per_piece > 0:
                streams.append((row, work.arrivals_ns))
                self.late_ns[row] = held_up_ns(work.arrivals_ns, span.service.end_ns)
            when, tokens = _placed(span)
            times.append(when)
            counts.append(tokens)
        rows = np.array([row for row, _, _ in told])
        self.times[:LOAD_START, rows] = np.array(times, np.int64).T
        self.counts[:, rows] = np.array(counts).T
        self.group[rows] = [self._number(Group(one.backend, one.model)) for _, one, _ in told]
        self.placed[rows] = [not waits for _, _, waits in told]
        self.ended[rows] = True
        if streams:
            of = np.array([row for row, _ in streams])
            self._arrivals.put(of, [one for _, one in streams], *self.times[:2, of])

    def _number(self, group: Group) -> int:
        if group not in self._numbers:
            self._numbers[group] = len(self.groups)
            self.groups.append(group)
        return self._numbers[group]

    def _free_again(self, rows: list[int]) -> None:
        """Nobody needs these any more."""
        if rows:
            self._arrivals.drop(rows)
            self._loads -= int(np.count_nonzero(self.times[LOAD_END, rows] != NEVER_NS))
            self._free += rows

    def _grow(self) -> None:
        before, more = self.capacity, max(64, self.capacity)
        self.times, self.counts = grown(self.times, more), grown(self.counts, more)
        self.late_ns, self.group = grown(self.late_ns, more), grown(self.group, more)
        self.ended, self.gone = grown(self.ended, more), grown(self.gone, more)
        self.placed = grown(self.placed, more)
        self._arrivals.resize(more)
        self._holders += [0] * more
        self._free += reversed(range(before, before + more))


def _placed(
    span: Span,
) -> tuple[tuple[int, int, int, int], tuple[float, float, float, float, float]]:
    """A request's times without its load, and its tokens, as far as its first one is known."""
    start_ns, end_ns, work = span.service.start_ns, span.service.end_ns, span.work
    first_ns = span.first_token_ns
    if work is None or start_ns == end_ns:
        first = start_ns if first_ns is None else min(max(start_ns, first_ns), end_ns)
        return (start_ns, end_ns, start_ns, first), _NOTHING if start_ns == end_ns else _UNCOUNTED
    begin, first = work.prefill_ns(start_ns, end_ns, first_token_ns=first_ns)
    return (start_ns, end_ns, begin, first), (
        work.input_tokens,
        work.prefill_tokens / (first - begin),
        max(0, work.output_tokens - 1) / max(1, end_ns - first),
        work.per_piece,
        1.0,
    )
