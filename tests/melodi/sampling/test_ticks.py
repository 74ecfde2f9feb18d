"""Beats keep to absolute deadlines and never bunch."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melodi.sampling.ticks import Ticks


@given(st.integers(1, 1_000), st.lists(st.integers(0, 5_000), max_size=50))
def test_beats_stay_on_the_grid_and_missed_ones_are_skipped(
    period_ns: int, delays_ns: list[int]
) -> None:
    """Every deadline is start + k x period, and the next one lies after the beat."""
    ticks = Ticks(start_ns=17, period_ns=period_ns)
    beats = missed_in_all = 0
    for delay_ns in delays_ns:
        now_ns = ticks.deadline_ns + delay_ns
        late_ns, missed = ticks.beat(now_ns)
        beats, missed_in_all = beats + 1, missed_in_all + missed
        assert late_ns == delay_ns
        assert now_ns < ticks.deadline_ns <= now_ns + period_ns
        assert ticks.deadline_ns == 17 + (beats + missed_in_all) * period_ns


def test_beating_early_is_refused() -> None:
    """A caller that does not wait is told so."""
    with pytest.raises(ValueError, match="deadline"):
        Ticks(start_ns=10, period_ns=5).beat(9)
