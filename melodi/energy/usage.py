"""Who worked on a power domain for a while: the part that each backend's processes had in it."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from melodi.clock import NS_PER_SECOND
from melodi.energy.bins import Bin

LATELY_NS = 10 * NS_PER_SECOND
"""A domain that has had no usage for so long is not waited for any more."""
PATIENCE_NS = 3 * NS_PER_SECOND
KEPT = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """The parts of a domain's dynamic energy in a stretch of monotonic time.

    `shares` gives each backend that was watched its part, 0..1, together at most 1; the rest
    was somebody else's (foreign). `reason` says what the parts were estimated from, if so.
    """

    domain: str
    start_ns: int
    end_ns: int
    shares: Mapping[str, float]
    reason: str | None = None


class UsageLog:
    """What is known of a domain's usage in the time of its open bins."""

    def __init__(self) -> None:
        self._kept: deque[Usage] = deque(maxlen=KEPT)
        self._heard_ns: int | None = None

    def add(self, usage: Usage) -> None:
        """What was seen next, in order of time."""
        self._kept.append(usage)
        self._heard_ns = max(usage.end_ns, self._heard_ns or usage.end_ns)

    def is_due(self, bin_: Bin, now_ns: int) -> bool:
        """Whether to wait for usage that tells of the bin: there has been some of late."""
        heard_ns = self._heard_ns
        if heard_ns is None or heard_ns >= bin_.end_ns or bin_.end_ns - heard_ns > LATELY_NS:
            return False
        return now_ns < bin_.end_ns + PATIENCE_NS

    def during(self, bin_: Bin) -> tuple[dict[str, float], set[str]] | None:
        """Each backend's part of the bin, weighed by time, and the reasons; None: not known."""
        shares: dict[str, float] = {}
        reasons: set[str] = set()
        covered_ns = 0
        for one in self._kept:
            common_ns = min(one.end_ns, bin_.end_ns) - max(one.start_ns, bin_.start_ns)
            if common_ns <= 0:
                continue
            covered_ns += common_ns
            reasons |= {one.reason} if one.reason is not None else set()
            for backend, share in one.shares.items():
                shares[backend] = shares.get(backend, 0.0) + share * common_ns
        if covered_ns == 0:
            return None
        return {backend: share / covered_ns for backend, share in shares.items()}, reasons

    def forget(self, until_ns: int) -> None:
        """Usage that ended by then tells of no open bin."""
        while self._kept and self._kept[0].end_ns <= until_ns:
            self._kept.popleft()
