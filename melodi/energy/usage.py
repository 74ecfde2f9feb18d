"""Who worked on a power domain for a while: the part that each backend's processes had in it."""

from collections.abc import Mapping
from dataclasses import dataclass


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
