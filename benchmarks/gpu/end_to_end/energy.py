"""What the second reader saw, and what other ways of telling energy make of it (pure)."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

SECOND = 1_000_000_000
PADDING_NS = SECOND // 2


@dataclass(frozen=True, slots=True)
class Seen:
    """The counter and the power of one GPU as the second reader saw them; wall clock in ns."""

    at_ns: Sequence[int]
    millijoules: Sequence[int]
    power_at_ns: Sequence[int]
    milliwatts: Sequence[int]
    limit_mw: int | None
    uuid: str | None

    @classmethod
    def of(cls, lines: Iterable[str]) -> "Seen":
        """From the lines of `reader.py`; a last line that was cut short is left out."""
        energy: list[tuple[int, int]] = []
        power: list[tuple[int, int]] = []
        limit_mw = uuid = None
        for line in lines:
            match line.split() if line.endswith("\n") else []:
                case ["E", at, value]:
                    energy.append((int(at), int(value)))
                case ["P", at, value]:
                    power.append((int(at), int(value)))
                case ["L", value]:
                    limit_mw = int(value)
                case ["U", value]:
                    uuid = value
        # The first value is from some time before the first poll: it is no change.
        energy = energy[1:]
        return cls(
            [at for at, _ in energy],
            [value for _, value in energy],
            [at for at, _ in power],
            [value for _, value in power],
            limit_mw,
            uuid,
        )

    def joules(self, start_ns: float, end_ns: float) -> float | None:
        """Between two moments, straight between changes; None outside what was seen."""
        start, end = self._total_mj(start_ns), self._total_mj(end_ns)
        return None if start is None or end is None else (end - start) / 1_000

    def _total_mj(self, at_ns: float) -> float | None:
        k = bisect_left(self.at_ns, at_ns)
        if k == len(self.at_ns) or (k == 0 and self.at_ns[0] != at_ns):
            return None
        if self.at_ns[k] == at_ns:
            return self.millijoules[k]
        before, after = self.at_ns[k - 1], self.at_ns[k]
        part = (at_ns - before) / (after - before)
        gained = self.millijoules[k] - self.millijoules[k - 1]
        return self.millijoules[k - 1] + part * gained

    def mean_watts(self, start_ns: float, end_ns: float) -> float | None:
        """Mean of the power shown between two moments; None where none was."""
        first, last = (
            bisect_left(self.power_at_ns, start_ns),
            bisect_right(self.power_at_ns, end_ns),
        )
        return fmean(self.milliwatts[first:last]) / 1_000 if last > first else None

    @property
    def refresh_seconds(self) -> float | None:
        """The longest time between changes, the one in a hundred that is longer left out."""
        gaps = sorted(b - a for a, b in zip(self.at_ns, self.at_ns[1:], strict=False))
        return gaps[int(0.99 * (len(gaps) - 1))] / SECOND if gaps else None


@dataclass(frozen=True, slots=True)
class Sent:
    """One request as its client saw it; wall clock in ns."""

    id: str | None
    """What MELODI calls it; None where it did not pass through it."""
    start_ns: int
    first_ns: int | None
    end_ns: int
    output_tokens: int | None
    error: str | None = None


def whole_device(seen: Seen, sent: Sequence[Sent]) -> float | None:
    """Joules that windows over the whole device give to all requests together."""
    return _sum(seen.joules(one.start_ns, one.end_ns) for one in sent)


def padded(seen: Seen, sent: Sequence[Sent]) -> float | None:
    """The same by mean power times time, half a second longer on both sides (original MELODI)."""
    found: list[float | None] = []
    for one in sent:
        start_ns, end_ns = one.start_ns - PADDING_NS, one.end_ns + PADDING_NS
        watts = seen.mean_watts(start_ns, end_ns)
        found.append(None if watts is None else watts * (end_ns - start_ns) / SECOND)
    return _sum(found)


def _sum(values: Iterable[float | None]) -> float | None:
    """None where one is unknown."""
    found = list(values)
    return None if None in found else sum(one for one in found if one is not None)


def in_service(sent: Sequence[Sent]) -> tuple[int, int]:
    """From the first start to the last end."""
    return min(one.start_ns for one in sent), max(one.end_ns for one in sent)
