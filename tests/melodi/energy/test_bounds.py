"""Bounds hold the truth whatever the power did inside the bin."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melodi.energy.bounds import part_bounds


@given(
    st.lists(st.floats(50, 700), min_size=1, max_size=20),
    st.integers(0, 20),
    st.integers(0, 20),
)
def test_any_power_between_the_limits_stays_within_the_bounds(
    watts: list[float], start: int, end: int
) -> None:
    """Power is piecewise constant in 10 ms slots; the part is a run of slots."""
    first, last = sorted((min(start, len(watts)), min(end, len(watts))))
    joules = sum(watts) * 0.01
    truth = sum(watts[first:last]) * 0.01
    part = (last - first) * 0.01
    low, high = part_bounds(
        joules,
        len(watts) * 0.01,
        part_low_seconds=part,
        part_high_seconds=part,
        min_watts=50,
        max_watts=700,
    )
    assert low - 1e-9 <= truth <= high + 1e-9


def test_a_whole_bin_is_exact() -> None:
    """Nothing lies outside the part, so nothing is uncertain."""
    assert part_bounds(
        42.0, 0.1, part_low_seconds=0.1, part_high_seconds=0.1, min_watts=0, max_watts=None
    ) == (42.0, 42.0)


def test_without_limits_a_part_may_hold_nothing_or_all() -> None:
    """Unknown limits widen the bounds; they are not guessed."""
    assert part_bounds(
        42.0, 0.1, part_low_seconds=0.05, part_high_seconds=0.05, min_watts=0, max_watts=None
    ) == (0.0, 42.0)


def test_readings_beyond_the_limits_do_not_turn_the_bounds_around() -> None:
    """A sensor that reports more than P_max still gets low <= high."""
    low, high = part_bounds(
        100.0, 0.1, part_low_seconds=0.05, part_high_seconds=0.05, min_watts=0, max_watts=200
    )
    assert 0 <= low <= high == pytest.approx(high)
