"""Learns the power of a domain that is warm and has nothing to do."""

from collections import deque

from melodi.clock import NS_PER_SECOND
from melodi.energy.bins import Bin

SECONDS_KEPT = 600
SECONDS_NEEDED = 2
SECONDS_TO_RAISE = 30
PERCENTILE = 0.05


class IdleLearner:
    """The 5th percentile of 1 s mean power, over the seconds when no request had run for a while.

    Feed it the bins of one domain in order. What it knew at first stays until enough quiet
    seconds have been seen: a few to lower it, many to raise it, because a device that works for
    others looks like one that idles at a higher power.
    """

    def __init__(self, *, watts: float | None = None) -> None:
        self.watts = watts
        self._means: deque[float] = deque(maxlen=SECONDS_KEPT)
        self._joules = 0.0
        self._ns = 0

    def feed(self, bin_: Bin, *, quiet: bool) -> None:
        """Take a closed bin; `quiet` says that no request had run for a while."""
        joules = bin_.joules
        if joules is None or bin_.reason is not None or not quiet:
            self._joules, self._ns = 0.0, 0
            return
        self._joules += joules
        self._ns += bin_.length_ns
        if self._ns >= NS_PER_SECOND:
            self._means.append(self._joules / (self._ns / NS_PER_SECOND))
            self._joules, self._ns = 0.0, 0
            self._learn()

    def _learn(self) -> None:
        if len(self._means) < SECONDS_NEEDED:
            return
        ordered = sorted(self._means)
        watts = ordered[int(PERCENTILE * (len(ordered) - 1))]
        if self.watts is None or watts < self.watts or len(ordered) >= SECONDS_TO_RAISE:
            self.watts = watts
