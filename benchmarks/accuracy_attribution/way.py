"""The way between a client and an engine, on which requests and answers are held up at times."""

from bisect import bisect_right
from random import Random

from benchmarks.accuracy_attribution.scenario import MS, Scenario
from melodi.clock import NS_PER_SECOND

APART_NS = NS_PER_SECOND // 2
LAST_NS = 3_600 * NS_PER_SECOND


class Way:
    """One direction: it stands still at random, and lets go of everything at once."""

    def __init__(self, scenario: Scenario, number: int) -> None:
        chance = Random(f"{scenario.seed} {number}")
        self._starts: list[int] = []
        self._ends: list[int] = []
        at_ns = 0
        while scenario.held_up_ms and at_ns < LAST_NS:
            at_ns += round(chance.expovariate(1 / APART_NS))
            self._starts.append(at_ns)
            at_ns += round(chance.uniform(0, scenario.held_up_ms) * MS)
            self._ends.append(at_ns)

    def end_ns(self, at_ns: int) -> int:
        """When what was sent at that moment comes."""
        k = bisect_right(self._starts, at_ns) - 1
        return at_ns if k < 0 else max(at_ns, self._ends[k])
