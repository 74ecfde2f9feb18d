"""What a step costs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melodi.simulator.laws import PowerLaw, step_cost, step_seconds


def test_a_step_takes_longer_by_each_piece_of_work_in_it() -> None:
    """8 ms, and on top 30 us a decoding request, 20 ns a context token, 22 us a prompt token."""
    seconds = step_seconds(decoding=10, context_tokens=5_000, prefill_tokens=100)
    assert seconds == pytest.approx(0.008 + 0.0003 + 0.0001 + 0.0022)


def test_the_additive_law_charges_own_work_as_it_is() -> None:
    """The additive law has 2.6 J fixed, a factor of 1, and no noise."""
    assert step_cost(PowerLaw.ADDITIVE, work_joules=0.7, noise=3.0) == (2.6, 1.0)


def test_the_concave_law_grows_with_work_to_the_three_quarters() -> None:
    """Without noise: 2.6 J and 3.2 x W^0.75; 16 J of work give 25.6 J."""
    cost = step_cost(PowerLaw.CONCAVE, work_joules=16.0, noise=0.0)
    assert cost.fixed_joules == pytest.approx(2.6)
    assert cost.factor * 16.0 == pytest.approx(25.6)


@given(work=st.floats(1e-3, 100), noise=st.floats(-5, 5))
def test_noise_scales_the_whole_step(work: float, noise: float) -> None:
    """One standard deviation is 3 % of fixed part and work alike."""
    noisy = step_cost(PowerLaw.CONCAVE, work_joules=work, noise=noise)
    quiet = step_cost(PowerLaw.CONCAVE, work_joules=work, noise=0.0)
    scale = 1 + 0.03 * noise
    assert noisy.fixed_joules == pytest.approx(scale * quiet.fixed_joules)
    assert noisy.factor == pytest.approx(scale * quiet.factor)
