"""A quick reckoning of what a request will get from bins that are open still, for a preview."""

from collections.abc import Sequence, Set

import numpy as np

from melodi.clock import NS_PER_SECOND
from melodi.energy.bins import UJ_PER_JOULE, Bin, Interval
from melodi.energy.columns import Vector, overlaps
from melodi.energy.settlement import (
    ACTIVE,
    COVERED,
    EXCLUSIVE_HIGH,
    HIGH,
    IDLE_SHARE,
    IDLE_WATTS,
    LOST,
    LOW,
    UNDIVIDED,
)
from melodi.energy.tally import SAID, UNKNOWN, Reasons, Tally


def foresee(
    tally: Tally,
    domain: int,
    service: Interval,
    everybody: Vector,
    bins: Sequence[Bin],
    *,
    idle_watts: float | None,
    doubts: Set[str],
    reasons: Reasons,
) -> None:
    """Add to one request's tally an equal share of each open bin of a domain.

    The others are those who were sent and not ended: `everybody` has the starts and the ends of
    their services in ns from this service's start. `doubts` are what makes the division of a
    measured bin less sure.
    """
    held = [one for one in bins if _touches(one, service)]
    if not held:
        return
    start = np.array([one.start_ns - service.start_ns for one in held], float)
    end = np.array([one.end_ns - service.start_ns for one in held], float)
    known = np.array([one.energy_uj is not None for one in held])
    joules = np.array([one.energy_uj or 0 for one in held]) / UJ_PER_JOULE
    length = end - start
    idle = np.minimum(joules, (idle_watts or 0.0) * length / NS_PER_SECOND)
    dynamic = joules - idle
    overlap = overlaps(start, end, float(service.length_ns))
    part = overlap / length
    among = _running(everybody, (start + end) / 2)
    own_active, own_idle = part * dynamic / among, part * idle / among
    sums = tally.sums[:, domain, 0]
    sums[ACTIVE] += own_active.sum()
    sums[IDLE_SHARE] += own_idle.sum()
    sums[LOW] += (own_idle + np.where(among > 1, 0.0, own_active)).sum()
    sums[HIGH] += (dynamic + part * idle).sum()
    sums[EXCLUSIVE_HIGH] += dynamic.sum()
    sums[COVERED] += overlap[known].sum()
    sums[LOST] += sum(_lost_ns(one, service) for one in held)
    sums[UNDIVIDED] += length.sum() if idle_watts is None else 0.0
    tally.reach(domain, held[0], held[-1])
    sums[IDLE_WATTS] = UNKNOWN if idle_watts is None else idle_watts
    words = {*_reasons(held), *(doubts if known.any() else ())}
    tally.marks[SAID, domain, 0] |= reasons.bits(*words)


def _touches(bin_: Bin, service: Interval) -> bool:
    half_ns = bin_.half_width_ns
    return service.start_ns < bin_.end_ns + half_ns and service.end_ns > bin_.start_ns - half_ns


def _running(everybody: Vector, at: Vector) -> Vector:
    """How many were sent and not ended at each moment, at least one."""
    starts, ends = (np.sort(one) for one in everybody)
    running: Vector = (np.searchsorted(starts, at) - np.searchsorted(ends, at)).astype(np.float64)
    return np.maximum(1.0, running)


def _lost_ns(bin_: Bin, service: Interval) -> int:
    """How long the service may have lain in a bin that nobody measured."""
    if bin_.energy_uj is not None:
        return 0
    return service.widened(bin_.half_width_ns).overlap_ns(bin_.start_ns, bin_.end_ns)


def _reasons(bins: Sequence[Bin]) -> set[str]:
    return {
        one.reason or "unmeasured"
        for one in bins
        if one.energy_uj is None or one.reason is not None
    }
