"""What polls of a sensor tell: how often it is renewed, and what it averages (pure).

How often: the moments at which its value changes are put on a grid. What it averages: kernels run
as square waves. For each width of a trailing window, and each delay of its end, the share of that
window in which kernels ran is computed from the kernels' own times; the width whose shares explain
the sensor's values best by a straight line is told, with all others that explain them nearly as
well. A counter is treated alike, as mean power between two of its changes: one that integrates all
the time shows a window as wide as its refresh, one that looks part of the time a narrower one.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate, pairwise
from operator import mul
from statistics import fmean, median, quantiles

MS = 1_000_000
SECOND = 1_000 * MS
WINDOWS_MS = (1, 5, 10, 15, 20, 25, 30, 40, 50, 75, 100, 125, 150, 200, 300, 500, 750, 1000, 1500)
DELAYS_MS = range(0, 155, 5)
NEARLY = 1.25
"""A window counts as possible whose unexplained variance is at most so many times the least."""
MOST_POINTS = 1_000
"""Of a sensor that shows something new at each poll: all of them would take minutes to explain."""
FOLLOWS = 0.5
"""Below this share of explained variance a sensor is said not to follow the load."""


@dataclass(frozen=True, slots=True)
class Poll:
    """One read: its middle on the monotonic clock, how long it took, and the raw value."""

    at_ns: int
    took_ns: int
    value: int


@dataclass(frozen=True, slots=True)
class Refresh:
    """How often a value was seen to change."""

    period_ms: float
    low_ms: float
    high_ms: float
    """10th and 90th percentile of the single periods; their spread is jitter and polling."""
    poll_ms: float
    """Median time between two polls: nothing shorter than twice that can be told."""
    changes: int

    @property
    def is_bound(self) -> bool:
        """Whether it was renewed about as fast as it was polled, or faster."""
        return self.period_ms < 2 * self.poll_ms


@dataclass(frozen=True, slots=True)
class Window:
    """What a value is the trailing mean of, by its answer to square waves."""

    width_ms: float
    low_ms: float
    high_ms: float
    """Widths that explain the values nearly as well."""
    delay_ms: float
    """How long before the value appeared the window had ended, for the best width."""
    explained: float
    """Share of the values' variance; the rest is noise, or the load was no square wave."""


@dataclass(frozen=True, slots=True)
class OnTimes:
    """When kernels ran: [from, to) in ns, in order and apart."""

    spans: Sequence[tuple[int, int]]
    _starts: list[int] = field(init=False)
    _before: list[int] = field(init=False)

    def __post_init__(self) -> None:
        lengths = (to - start for start, to in self.spans)
        object.__setattr__(self, "_starts", [start for start, _ in self.spans])
        object.__setattr__(self, "_before", list(accumulate(lengths, initial=0)))

    def until(self, at_ns: float) -> float:
        """Nanoseconds of running up to a moment."""
        k = bisect_right(self._starts, at_ns) - 1
        if k < 0:
            return 0
        start, to = self.spans[k]
        return self._before[k] + min(at_ns, to) - start

    def share(self, start_ns: float, end_ns: float) -> float:
        return (self.until(end_ns) - self.until(start_ns)) / (end_ns - start_ns)


def changes(polls: Sequence[Poll]) -> list[Poll]:
    """The polls that saw a new value, each moved to midway between it and the one before."""
    found = []
    for before, seen in pairwise(polls):
        if seen.value != before.value:
            middle = (before.at_ns + seen.at_ns) // 2
            found.append(Poll(middle, seen.at_ns - before.at_ns, seen.value))
    return found


def refresh_of(stretches: Sequence[Sequence[Poll]]) -> Refresh | None:
    """The period on whose grid the changes lie; None where fewer than nine were seen.

    A refresh that brings the same value is not seen, so a distance may be several periods: each
    is divided by the number of periods that fits best, which is sought twice over.
    """
    distances = [
        later.at_ns - earlier.at_ns
        for polls in stretches
        for earlier, later in pairwise(changes(polls))
    ]
    if len(distances) < 8:
        return None
    period = float(quantiles(distances, n=10)[0])
    for _ in range(2):
        counts = [max(1, round(one / period)) for one in distances]
        period = sum(distances) / sum(counts)
    single = sorted(one / count / MS for one, count in zip(distances, counts, strict=True))
    gaps = [
        later.at_ns - earlier.at_ns for polls in stretches for earlier, later in pairwise(polls)
    ]
    return Refresh(
        period_ms=period / MS,
        low_ms=single[len(single) // 10],
        high_ms=single[-1 - len(single) // 10],
        poll_ms=median(gaps) / MS,
        changes=len(distances),
    )


def shown_power(polls: Sequence[Poll]) -> list[tuple[int, float]]:
    """When a gauge was renewed, and to what."""
    return [(one.at_ns, float(one.value)) for one in changes(polls)]


def counted_power(polls: Sequence[Poll]) -> list[tuple[int, float]]:
    """When a counter was renewed, and its mean power since the time before (mJ in, mW out)."""
    return [
        (later.at_ns, (later.value - earlier.value) * SECOND / (later.at_ns - earlier.at_ns))
        for earlier, later in pairwise(changes(polls))
    ]


def window_of(points: Sequence[tuple[int, float]], on: OnTimes) -> Window | None:
    """The trailing window that explains `points` best; None where none explains half of them."""
    if len(points) < 8:
        return None
    points = points[:: 1 + len(points) // MOST_POINTS]
    values = [value for _, value in points]
    until = cache(on.until)  # widths and delays share most of their moments
    best: dict[int, tuple[float, int]] = {}
    for width in WINDOWS_MS:
        for delay in DELAYS_MS:
            ends = [at_ns - delay * MS for at_ns, _ in points]
            ran = [until(end) - until(end - width * MS) for end in ends]
            best[width] = max(best.get(width, (0.0, 0)), (_explained(ran, values), -delay))
    width = max(WINDOWS_MS, key=lambda one: best[one][0])
    explained, late = best[width]
    if explained < FOLLOWS:
        return None
    most_left = NEARLY * (1 - explained) + 1e-9
    near = [one for one in WINDOWS_MS if 1 - best[one][0] <= most_left]
    return Window(width, min(near), max(near), -late, explained)


def _explained(shares: Sequence[float], values: Sequence[float]) -> float:
    """The share of variance that a rising straight line explains."""
    mean_x, mean_y = sum(shares) / len(shares), sum(values) / len(values)
    left, right = [x - mean_x for x in shares], [y - mean_y for y in values]
    xx, yy = (sum(map(mul, one, one)) for one in (left, right))
    xy = sum(map(mul, left, right))
    return xy * xy / (xx * yy) if xy > 0 else 0.0


def mean_power_mw(polls: Sequence[Poll], *, is_counter: bool) -> float | None:
    """Mean over the stretch between the first and the last change (counter) or poll (gauge)."""
    points = changes(polls) if is_counter else polls
    if len(points) < 2 or points[-1].at_ns == points[0].at_ns:
        return None
    seconds = (points[-1].at_ns - points[0].at_ns) / SECOND
    if is_counter:
        return (points[-1].value - points[0].value) / seconds
    return integral_mj(polls, points[0].at_ns, points[-1].at_ns) / seconds


def integral_mj(polls: Sequence[Poll], start_ns: int, end_ns: int) -> float:
    """Polled power held until the next poll, from start to end (both within the polls)."""
    total = 0.0
    for one, following in pairwise(polls):
        overlap = min(following.at_ns, end_ns) - max(one.at_ns, start_ns)
        total += one.value * max(0, overlap) / SECOND
    return total


def tail_of(polls: Sequence[Poll], off_ns: int, idle_mw: float) -> dict[str, float | None]:
    """After work: seconds until power is within a tenth of the way to idle, and joules above it."""
    after = [one for one in polls if one.at_ns >= off_ns]
    before = [one.value for one in polls if off_ns - SECOND <= one.at_ns < off_ns]
    if not after or not before:
        return {"seconds": None, "joules_above_idle": None}
    line_mw = idle_mw + 0.1 * (fmean(before) - idle_mw)
    above = [one.at_ns for one in after if one.value > line_mw]
    spent_mj = integral_mj(after, after[0].at_ns, after[-1].at_ns)
    idle_mj = idle_mw * (after[-1].at_ns - after[0].at_ns) / SECOND
    stays = bool(above) and above[-1] == after[-1].at_ns
    seconds = None if stays else ((above[-1] - off_ns) / SECOND if above else 0.0)
    return {"seconds": seconds, "joules_above_idle": (spent_mj - idle_mj) / 1_000}


def spread_us(times_ns: Sequence[int]) -> dict[str, float] | None:
    """Percentiles of durations, by nearest rank."""
    if not times_ns:
        return None
    ordered = sorted(times_ns)

    def rank(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] / 1_000

    return {"p50": rank(0.5), "p99": rank(0.99), "max": ordered[-1] / 1_000, "reads": len(ordered)}
