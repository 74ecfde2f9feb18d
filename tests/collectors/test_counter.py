"""Raw counters become joules, or gaps that say why; nothing is invented."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.counter import Counter, GapReason

SECOND_NS = 1_000_000_000
EPYC_RANGE_UJ = 65_532_610_987


@given(
    start_uj=st.integers(0, EPYC_RANGE_UJ - 1),
    steps=st.lists(
        st.tuples(st.integers(1, 60 * SECOND_NS), st.floats(0, 1)), min_size=1, max_size=200
    ),
)
def test_the_total_is_the_sum_of_the_steps_however_often_it_wraps(
    start_uj: int, steps: list[tuple[int, float]]
) -> None:
    """Every microjoule that went in comes out, over any number of wraps, up to 1000 W."""
    counter = Counter(range_uj=EPYC_RANGE_UJ)
    at_ns, value_uj, put_in_uj, came_out_uj = 0, start_uj, 0, 0
    counter.feed(at_ns, value_uj)
    for elapsed_ns, load in steps:
        step_uj = int(load * 1_000 * elapsed_ns / 1_000)
        at_ns, value_uj = at_ns + elapsed_ns, (value_uj + step_uj) % EPYC_RANGE_UJ
        put_in_uj += step_uj
        step = counter.feed(at_ns, value_uj)
        assert isinstance(step, int)
        came_out_uj += step
    assert came_out_uj == put_in_uj


@given(
    range_uj=st.none() | st.just(EPYC_RANGE_UJ),
    max_power_watts=st.none() | st.just(500.0),
    readings=st.lists(
        st.tuples(st.integers(0, 400 * SECOND_NS), st.integers(0, EPYC_RANGE_UJ)), max_size=50
    ),
)
def test_no_series_of_values_makes_a_negative_or_impossible_gain(
    range_uj: int | None, max_power_watts: float | None, readings: list[tuple[int, int]]
) -> None:
    """Whatever a counter shows, a gain is never negative nor more than a range."""
    counter = Counter(range_uj=range_uj, max_power_watts=max_power_watts)
    at_ns = 0
    for elapsed_ns, value_uj in readings:
        at_ns += elapsed_ns
        gained_uj = counter.feed(at_ns, value_uj)
        if isinstance(gained_uj, int):
            assert 0 <= gained_uj <= EPYC_RANGE_UJ


def test_the_first_reading_gains_nothing() -> None:
    """A counter that was never read before has told no energy yet."""
    assert Counter().feed(5, 1_000_000) is None


def test_an_unchanged_value_is_a_gain_of_zero_since_the_reading_before() -> None:
    """A counter that was not refreshed yet is not a gap."""
    counter = Counter()
    counter.feed(10, 500)
    assert counter.feed(20, 500) == 0


def test_a_fall_without_a_range_is_a_reset_and_counting_starts_anew() -> None:
    """After a driver reload the gap is unknown, 2^64 is not added, and the next step counts."""
    counter = Counter()
    counter.feed(0, 9_000_000_000)
    assert counter.feed(SECOND_NS, 40_000) == GapReason.RESET
    assert counter.feed(2 * SECOND_NS, 50_000) == 10_000


def test_a_wrap_adds_the_range_once() -> None:
    """At 500 W an EPYC socket wraps every two minutes; ten seconds across a wrap are 5 kJ."""
    counter = Counter(range_uj=EPYC_RANGE_UJ)
    counter.feed(0, EPYC_RANGE_UJ - 1_000_000_000)
    assert counter.feed(10 * SECOND_NS, 4_000_000_000) == 5_000_000_000


@pytest.mark.parametrize("value_uj", [2_000_000, 4_000_000_000])
def test_a_stall_that_may_hide_a_wrap_is_a_gap_whichever_way_the_value_went(
    value_uj: int,
) -> None:
    """Unread for longer than the range lasts at full power, nobody knows how often it wrapped."""
    counter = Counter(range_uj=EPYC_RANGE_UJ, max_power_watts=500)
    counter.feed(0, 3_000_000_000)
    assert counter.feed(132 * SECOND_NS, value_uj) == GapReason.UNREAD_TOO_LONG


def test_a_stall_just_short_of_a_second_wrap_is_still_counted() -> None:
    """The limit is range over power: 131.06 s for an EPYC socket of 500 W."""
    counter = Counter(range_uj=EPYC_RANGE_UJ, max_power_watts=500)
    counter.feed(0, 3_000_000_000)
    step = counter.feed(131 * SECOND_NS, 2_000_000_000)
    assert step == EPYC_RANGE_UJ - 1_000_000_000


def test_a_counter_that_starts_again_soon_is_no_phantom_wrap_of_a_whole_range() -> None:
    """A fall that would take 262 kJ in a tenth of a second is a reset."""
    counter = Counter(range_uj=262_143_328_850)
    counter.feed(0, 5_000_000_000)
    assert counter.feed(SECOND_NS // 10, 0) == GapReason.RESET


def test_a_value_that_drops_to_zero_and_returns_gains_nothing() -> None:
    """One bad reading costs the two steps around it, not all the energy since boot."""
    counter = Counter(max_power_watts=770)
    counter.feed(0, 900_000_000_000)
    assert counter.feed(SECOND_NS, 0) == GapReason.RESET
    assert counter.feed(2 * SECOND_NS, 900_000_100_000) == GapReason.IMPLAUSIBLE
    assert counter.feed(3 * SECOND_NS, 900_300_100_000) == 300_000_000


def test_a_refresh_that_shows_at_once_what_it_gathered_is_plausible() -> None:
    """Two reads a microsecond apart, with a refresh of 100 ms between them, are no glitch."""
    counter = Counter(max_power_watts=770)
    counter.feed(0, 1_000_000)
    assert counter.feed(1_000, 71_000_000) == 70_000_000


def test_readings_out_of_order_are_refused_and_change_nothing() -> None:
    """Time that goes back is the caller's mistake, and says so."""
    counter = Counter()
    counter.feed(10, 100)
    with pytest.raises(ValueError, match="order of time"):
        counter.feed(9, 200)
    assert counter.feed(20, 300) == 200
