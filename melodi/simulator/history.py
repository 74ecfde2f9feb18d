"""Cumulative joules over time, kept as the corners of a piecewise linear line."""

from array import array
from bisect import bisect_right

KEPT = 1 << 20
"""Corners kept; at 8 ms a step, more than two hours of unbroken work."""


class History:
    """Joules as a function of monotonic ns: linear between corners, constant after the last."""

    def __init__(self, origin_ns: int, *, kept: int = KEPT):
        self._times = array("q", [origin_ns])
        self._joules = array("d", [0.0])
        self._kept = kept

    @property
    def origin_ns(self) -> int:
        """The earliest time whose joules are still known."""
        return self._times[0]

    def rise(self, start_ns: int, end_ns: int, joules: float) -> None:
        """From `start_ns` to `end_ns`, `joules` are added; what was planned beyond start goes."""
        level = self.joules_at(start_ns)
        while self._times and self._times[-1] >= start_ns:
            self._times.pop()
            self._joules.pop()
        self._times.extend((start_ns, end_ns))
        self._joules.extend((level, level + joules))
        if len(self._times) > 2 * self._kept:
            del self._times[: -self._kept]
            del self._joules[: -self._kept]

    def joules_at(self, at_ns: int) -> float:
        """Joules from the beginning until `at_ns`."""
        index = self._segment(at_ns)
        if index == len(self._times):
            return self._joules[-1]
        start_ns, low = self._times[index - 1], self._joules[index - 1]
        share = (at_ns - start_ns) / (self._times[index] - start_ns)
        return low + share * (self._joules[index] - low)

    def watts_at(self, at_ns: int) -> float:
        """The line's slope just after `at_ns`."""
        index = self._segment(at_ns)
        if index == len(self._times):
            return 0.0
        rise = self._joules[index] - self._joules[index - 1]
        return rise / (self._times[index] - self._times[index - 1]) * 1e9

    def _segment(self, at_ns: int) -> int:
        if at_ns < self._times[0]:
            raise ValueError(
                f"joules before {self._times[0]} ns are no longer known; read more often"
            )
        if at_ns >= self._times[-1]:
            return len(self._times)
        return bisect_right(self._times, at_ns)
