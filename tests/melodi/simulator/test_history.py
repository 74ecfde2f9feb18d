"""Joules over time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melodi.simulator.history import History

rises = st.lists(
    st.tuples(st.integers(0, 10**9), st.integers(1, 10**9), st.floats(0, 100)),
    min_size=1,
    max_size=20,
)


@given(rises)
def test_joules_between_rises_stay_and_at_their_ends_are_whole(
    steps: list[tuple[int, int, float]],
) -> None:
    """After each rise the sum of all so far is reached, and it holds until the next."""
    history, now_ns, total = History(5), 5, 0.0
    for pause_ns, length_ns, joules in steps:
        start_ns = now_ns + pause_ns
        now_ns = start_ns + length_ns
        history.rise(start_ns, now_ns, joules)
        assert history.joules_at(start_ns) == pytest.approx(total)
        assert history.joules_at(start_ns + length_ns // 2) == pytest.approx(
            total + joules * (length_ns // 2) / length_ns
        )
        total += joules
        assert history.joules_at(now_ns) == pytest.approx(total)


def test_power_is_the_slope_and_nothing_after_the_end() -> None:
    """2 J in half a second are 4 W; beyond the last corner nothing is drawn."""
    history = History(0)
    history.rise(0, 500_000_000, 2.0)
    assert history.watts_at(499_999_999) == pytest.approx(4.0)
    assert history.watts_at(500_000_000) == 0.0


def test_a_rise_that_begins_within_another_cuts_it_short() -> None:
    """What was planned beyond the new start is not drawn."""
    history = History(0)
    history.rise(0, 1_000, 10.0)
    history.rise(400, 500, 1.0)
    assert history.joules_at(400) == pytest.approx(4.0)
    assert history.joules_at(2_000) == pytest.approx(5.0)


def test_joules_too_long_ago_are_refused_not_guessed() -> None:
    """Memory is bounded; a time before the oldest kept corner is an error, not a number."""
    history = History(0, kept=10)
    for second in range(100):
        history.rise(second * 10, second * 10 + 5, 1.0)
    assert history.joules_at(995) == pytest.approx(100.0)
    assert history.origin_ns > 0
    with pytest.raises(ValueError, match="read more often"):
        history.joules_at(0)
