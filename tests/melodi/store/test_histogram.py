"""Percentiles are within the stated error, however a histogram was put together."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melodi.store.histogram import ERROR_RATIO, compact, histogram, negated, quantile

values = st.lists(st.floats(min_value=1e-9, max_value=1e12), min_size=1, max_size=50)


def of(numbers: list[float]) -> bytes:
    """Their histogram."""
    return histogram(np.array(numbers, dtype=np.float64))


@given(numbers=values, share=st.floats(0, 1))
def test_a_percentile_is_close_to_a_value_of_that_rank(numbers: list[float], share: float) -> None:
    """Off by no more than the stated ratio from the value at that place of the sorted list."""
    rank = max(1, math.ceil(share * len(numbers) - 1e-9))
    true = sorted(numbers)[rank - 1]
    assert quantile(of(numbers), share) == pytest.approx(true, rel=ERROR_RATIO * 1.000001)


@given(parts=st.lists(values, min_size=1, max_size=4))
def test_adding_histograms_is_putting_them_one_after_the_other(parts: list[list[float]]) -> None:
    """The parts together give what all the numbers give at once."""
    whole = of([number for part in parts for number in part])
    assert compact(b"".join(of(part) for part in parts)) == compact(whole)


@given(kept=values, gone=values)
def test_what_is_taken_away_leaves_no_trace(kept: list[float], gone: list[float]) -> None:
    """Adding some and taking them away again gives the same bytes as never having added them."""
    assert compact(of(kept) + of(gone) + negated(of(gone))) == compact(of(kept))


def test_zero_is_a_value_and_nothing_is_none() -> None:
    """Zeros have percentile 0; no values have none."""
    assert quantile(of([0.0, 0.0, 5.0]), 0.5) == 0.0
    assert quantile(of([]), 0.5) is None


def test_the_95th_percentile_of_four_is_the_largest() -> None:
    """Nearest rank: few values do not make the tail disappear."""
    four = of([43.7, 49.2, 79.8, 348.0])
    assert quantile(four, 0.95) == pytest.approx(348.0, rel=ERROR_RATIO)
    assert quantile(of([float(k) for k in range(1, 21)]), 0.95) == pytest.approx(
        19, rel=ERROR_RATIO
    )
