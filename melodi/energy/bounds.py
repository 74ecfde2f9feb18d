"""Bounds on the energy of a part of a bin, when the power inside it is not known."""

import math


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
