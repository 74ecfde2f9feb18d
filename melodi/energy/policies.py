"""How the active energy of a bin is shared by the requests in it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from melodi.energy.bins import Bin, Span


@dataclass(frozen=True, slots=True)
class Policy:
    """A named rule that gives every span in a bin its weight (same order, never negative)."""

    name: str
    version: int
    weigh: Callable[[Bin, Sequence[Span]], list[float]]


def _by_time(bin_: Bin, spans: Sequence[Span]) -> list[float]:
    return [float(span.service.overlap_ns(bin_.start_ns, bin_.end_ns)) for span in spans]


TIME = Policy("time", 1, _by_time)
"""By time in service; exact for one request at a time."""

POLICIES = {policy.name: policy for policy in (TIME,)}


def choose(name: str) -> Policy:
    """The policy called `name`; `auto` is the best that the data allows.

    Raises ValueError with the known names.
    """
    if name == "auto":
        return TIME
    if name not in POLICIES:
        raise ValueError(f"unknown policy {name!r}: use auto, {', '.join(sorted(POLICIES))}")
    return POLICIES[name]
