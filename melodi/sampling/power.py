"""Power by slots of time: as fine as it may leave the daemon, and the same for whoever asks.

Whoever sees a CPU's power several times a second can tell what it computes. So slots lie on
fixed multiples of their length: asking more often, or through several connections, tells no more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from collectors.base import Domain, Kind
from melodi.clock import NS_PER_SECOND
from melodi.energy.bins import UJ_PER_JOULE
from melodi.energy.window import Missing, window_energy
from melodi.sampling.meters import EnergyCurve

GPU_SLOT_NS = NS_PER_SECOND // 5
SLOT_NS = NS_PER_SECOND
STALE_NS = 3 * NS_PER_SECOND
"""Power seen longer ago than this is not what is drawn now."""


@dataclass(frozen=True, slots=True)
class SlotPower:
    """Mean power over the slot that ends at `end_ns`; None: unknown."""

    end_ns: int
    mean_watts: float | None
    total_joules: float | None = None
    """What the domain had used by the slot's end, since its meter was opened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainPower:
    """One domain's power of late; unknown is None."""

    mean_watts: float | None
    over_seconds: float
    joules: float | None
    """Since its meter was opened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerNow:
    """What the host draws, and what it has used since the daemon started."""

    at: datetime
    domains: dict[str, DomainPower]
    joules: float | None
    """Over the domains that may be added up; None where one of them is unknown."""
    in_flight: int
    """Requests sent and not answered to the end yet."""


@dataclass(frozen=True, slots=True)
class PowerPoint:
    """Mean power over the time that ends at `at`; None: unknown."""

    at: datetime
    mean_watts: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerSeries:
    """One domain's power in equal steps of time."""

    step_seconds: float
    points: Sequence[PowerPoint]


def slot_ns(domain: Domain) -> int:
    """The length of the domain's slots."""
    return GPU_SLOT_NS if domain.kind is Kind.GPU else SLOT_NS


def latest_power(curve: EnergyCurve, now_ns: int) -> SlotPower | None:
    """The last whole slot that the curve has passed; None where there is none of late."""
    edges, length_ns = curve.edges, slot_ns(curve.domain)
    if not edges:
        return None
    end_ns = edges[-1].earliest_ns // length_ns * length_ns
    if now_ns - end_ns > STALE_NS + length_ns:
        return None
    return _power(curve, end_ns, length_ns)


def power_between(curve: EnergyCurve, start_ns: int, end_ns: int) -> list[SlotPower]:
    """Every slot that has a part in the stretch of time, in order."""
    length_ns = slot_ns(curve.domain)
    first = start_ns // length_ns + 1
    last = -(-end_ns // length_ns)
    return [_power(curve, slot * length_ns, length_ns) for slot in range(first, last + 1)]


def _power(curve: EnergyCurve, end_ns: int, length_ns: int) -> SlotPower:
    start, end = curve.cut(end_ns - length_ns), curve.cut(end_ns)
    watts = window_energy(curve.domain, start, end, summable=False).mean_watts
    total = None if isinstance(end, Missing) else end.total_uj / UJ_PER_JOULE
    return SlotPower(end_ns, watts, total)
