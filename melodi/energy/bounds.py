"""How far a request's part of a bin may be off, when the power inside the bin is not known."""

import math
from collections.abc import Sequence

import numpy as np

from melodi.clock import NS_PER_SECOND
from melodi.energy.columns import Vector, overlaps
from melodi.energy.roster import END, START, Guests
from melodi.energy.settlement import (
    ACTIVE,
    DOUBT,
    EXCLUSIVE_HIGH,
    EXCLUSIVE_LOW,
    HIGH,
    IDLE_SHARE,
    LOW,
    Case,
    Settlement,
    Table,
)

DOUBT_FITTED, DOUBT_UNFITTED = 0.015, 0.03
"""For every doubling of the requests in a bin, where costs were fitted and where they were not.

Chosen so that in simulation nine bounds in ten hold the truth (benchmarks, attribution)."""

CLAIM_DOUBT = 0.15
"""Part of what others got in a bin that may have been a model's own."""


def bound(
    settlement: Settlement, cases: Sequence[Case], tables: Sequence[Table], guests: Guests
) -> None:
    """Bound what each guest received.

    A guest that is alone: by the limits of power. Where several policies can divide: by what each
    of them gives, with a doubt. Else none or all of the dynamic energy.
    """
    dynamic = np.array([settlement.postings[one.bin].dynamic for one in tables])
    most = guests.tables.spread(dynamic)
    settlement.sums[EXCLUSIVE_HIGH] = most if guests.served is None else most * guests.served
    if any(one.several for one in tables):
        _doubt(settlement, tables, guests, dynamic=dynamic)
    if not all(one.several or one.alone for one in tables):
        _bound_shared(settlement, cases, tables, guests)
    for table in tables:
        if table.alone:
            _bound_alone(settlement, cases[table.bin], guests, table.part.start)


def _doubt(
    settlement: Settlement, tables: Sequence[Table], guests: Guests, *, dynamic: Vector
) -> None:
    """How far a request's share of a bin may be off, whatever the policy.

    Policies err together, the more the more requests share a bin, and a request that came or
    left in the bin may have been in it for a half-width more or less. What a model got may be off
    because it was not the only one with a claim.
    """
    spread, own = guests.tables.spread, settlement.sums[ACTIVE]
    claimed = guests.tables.sums(own)
    others = CLAIM_DOUBT * np.maximum(0.0, dynamic - claimed)
    claims = np.zeros(len(tables))
    np.divide(others, np.maximum(others, claimed), out=claims, where=claimed > 0)
    together = claims + [_of_company(one) for one in tables]
    half = guests.half_width
    at_edge = (guests.tau < guests.length) * (half / np.maximum(guests.tau, np.maximum(1.0, half)))
    several = spread(np.array([one.several for one in tables]))
    settlement.sums[DOUBT] = own * (at_edge + spread(together)) * several


def _of_company(table: Table) -> float:
    """The doubt that comes of how many share the bin."""
    fitted = table.best is not None and table.best.in_joules
    return (DOUBT_FITTED if fitted else DOUBT_UNFITTED) * math.log2(max(1, table.seats))


def _bound_shared(
    settlement: Settlement, cases: Sequence[Case], tables: Sequence[Table], guests: Guests
) -> None:
    """None or all of the dynamic energy; of the idle power an equal part or, at times, all."""
    sums, spread = settlement.sums, guests.tables.spread
    half, start, end = guests.half_width, guests.times[START], guests.times[END]
    surely_end = np.minimum(np.maximum(end - half, start + half), guests.length)
    shortest = np.maximum(surely_end - np.maximum(start + half, 0.0), 0.0)
    longest = overlaps(start - half, end + half, guests.length)
    watts = [cases[one.bin].setting.least_watts / NS_PER_SECOND for one in tables]
    watts_ns, seats = spread(np.array(watts)), spread(np.array([one.seats for one in tables]))
    here = spread(np.array([not one.several and not one.alone for one in tables]))
    here = here if guests.served is None else here & guests.served
    point = sums[ACTIVE] + sums[IDLE_SHARE]
    sums[LOW] = np.where(here, np.minimum(watts_ns * shortest / seats, point), 0.0)
    most = np.maximum(sums[EXCLUSIVE_HIGH] + watts_ns * longest, point)
    sums[HIGH] = np.where(here, most, 0.0)


def _bound_alone(settlement: Settlement, case: Case, guests: Guests, one: int) -> None:
    """What one guest's part of the bin can hold, and whether it surely was in service.

    As long as pieces of its answer were held up on the way, its end may have been, and so may it
    itself have been when it was sent: then it used no idle power yet. Its dynamic joules may be
    below 0 where the bin's edges make it seem longer than it was: cutting those off would keep the
    errors of the other bins, which these make up for.
    """
    bin_, parts, setting = case.bin, settlement.sums, case.setting
    assert bin_.joules is not None
    half, length = bin_.half_width_ns, bin_.length_ns
    start, end = guests.times.item(START, one), guests.times.item(END, one)
    late = guests.late.item(one)
    shortest = max(0.0, min(max(end - half - late, start + half), length) - max(start + half, 0.0))
    longest = max(0.0, min(end + half, length) - max(start - half, 0.0))
    low, high = part_bounds(
        bin_.joules,
        length / NS_PER_SECOND,
        part_low_seconds=shortest / NS_PER_SECOND,
        part_high_seconds=longest / NS_PER_SECOND,
        min_watts=setting.least_watts,
        max_watts=setting.max_watts,
    )
    held_up = max(0.0, min(start + late, length) - max(start, 0.0))
    low = max(0.0, low - setting.least_watts * held_up / NS_PER_SECOND)
    point = parts.item(ACTIVE, one) + parts.item(IDLE_SHARE, one)
    parts[LOW, one], parts[HIGH, one] = min(low, point), max(high, point)
    if shortest > 0:
        parts[EXCLUSIVE_LOW, one] = bin_.joules - setting.least_watts * length / NS_PER_SECOND
        settlement.alone.append(one)


def part_bounds(
    joules: float,
    length_seconds: float,
    *,
    part_low_seconds: float,
    part_high_seconds: float,
    min_watts: float,
    max_watts: float | None,
) -> tuple[float, float]:
    """Least and most joules that a part of a bin can hold.

    The bin has `joules` over `length_seconds`; the part is between `part_low_seconds` and
    `part_high_seconds` long, and power always lies between `min_watts` and `max_watts`
    (None: no limit known). With l the part and L the bin:
    low = max(P_min l, E - P_max (L - l), 0), high = min(P_max l, E - P_min (L - l)).
    """
    most_watts = math.inf if max_watts is None else max_watts
    outside = length_seconds - part_low_seconds
    outside_most = most_watts * outside if outside > 0 else 0.0
    low = max(min(min_watts * part_low_seconds, joules), joules - outside_most, 0.0)
    part_most = most_watts * part_high_seconds if part_high_seconds > 0 else 0.0
    high = min(part_most, joules - min_watts * max(0.0, length_seconds - part_high_seconds))
    # A sensor may contradict the limits it was given; the measured joules then stand alone.
    return (low, high) if low <= high else (min(low, joules), max(min(low, joules), high))
