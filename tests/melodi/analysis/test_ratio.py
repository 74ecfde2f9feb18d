"""An interval holds the true ratio about as often as it says."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melodi.analysis.ratio import Comparison, Values, compare_ratios

PER_TOKEN = {"a": 1.0, "b": 1.3}
FIXED_JOULES = 80.0


def draw(rng: np.random.Generator, count: int, per_token: float) -> tuple[Values, Values]:
    """Joules that grow with tokens, with something fixed and something by chance."""
    tokens = np.round(rng.lognormal(5.2, 0.6, count)) + 1
    return per_token * (FIXED_JOULES + tokens * rng.lognormal(0, 0.3, count)), tokens


def compared(a: list[tuple[float, float]], b: list[tuple[float, float]]) -> Comparison:
    sides = [np.array(side, dtype=np.float64).reshape(len(side), 2).T for side in (a, b)]
    return compare_ratios((sides[0][0], sides[0][1]), (sides[1][0], sides[1][1]))


@pytest.mark.parametrize(("of_a", "of_b"), [(5, 5), (10, 40), (30, 30), (200, 100)])
def test_the_interval_holds_the_truth_about_95_times_in_100(of_a: int, of_b: int) -> None:
    """In simulation, seeded, for few records and for many."""
    rng = np.random.default_rng(1)
    hits, times = 0, 1000
    for _ in range(times):
        one = compare_ratios(draw(rng, of_a, PER_TOKEN["a"]), draw(rng, of_b, PER_TOKEN["b"]))
        assert one.low is not None
        assert one.high is not None
        hits += one.low <= PER_TOKEN["a"] / PER_TOKEN["b"] <= one.high
    assert 0.915 <= hits / times <= 0.975


def test_no_verdict_where_the_interval_holds_1() -> None:
    """Two samples of the same thing differ, and that says nothing."""
    rng = np.random.default_rng(2)
    verdicts = [
        compare_ratios(draw(rng, 30, 1.0), draw(rng, 30, 1.0)).lower is not None for _ in range(400)
    ]
    assert sum(verdicts) / 400 <= 0.085


def test_a_clear_difference_has_a_verdict_and_swapping_sides_turns_it() -> None:
    """The ratio is of sums, not the mean of ratios; swapped, all is its reciprocal."""
    a = [(10.0, 10.0), (40.0, 20.0), (30.0, 30.0), (20.0, 20.0)]
    b = [(100.0, 10.0), (130.0, 12.0), (90.0, 10.0)]
    one, other = compared(a, b), compared(b, a)
    assert one.a == 100 / 80
    assert one.ratio == pytest.approx(100 / 80 / 10)
    assert (one.lower, other.lower) == ("a", "b")
    assert (one.a_known, one.b_known) == (4, 3)
    assert other.low == pytest.approx(1 / one.high)
    assert other.high == pytest.approx(1 / one.low)


def test_few_records_have_a_ratio_and_no_interval() -> None:
    """Of two records nobody knows the spread; of none there is no ratio either."""
    few, many = [(1.0, 1.0)] * 2, [(2.0, 1.0), (2.5, 1.0), (3.0, 1.0)]
    one = compared(few, many)
    assert (one.ratio, one.low, one.high, one.lower) == (0.4, None, None, None)
    none = compared([], many)
    assert (none.a, none.ratio, none.low) == (None, None, None)


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(1, 1e6)), max_size=8))
def test_whatever_the_records_are_bounds_lie_around_the_ratio(
    side: list[tuple[float, float]],
) -> None:
    """Zeros, one record that has all, equal ones: never an error, never a bound out of place."""
    one = compared(side, [(2.0, 1.0), (2.5, 1.0), (3.0, 1.0)])
    if one.low is not None:
        assert one.low <= one.ratio * (1 + 1e-12)
        assert one.high >= one.ratio * (1 - 1e-12)
        assert math.isfinite(one.high)
